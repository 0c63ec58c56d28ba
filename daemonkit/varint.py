"""Lengths as protobuf writes them, for both daemons' hand-made messages."""

_PREPARED = 1024


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


class _Varints(dict[int, bytes]):
    """Numbers as varints: the small ones are there, the others are made when they are asked for."""

    def __missing__(self, number: int) -> bytes:
        return _varint(number)


# For who writes many: to look one up costs a tenth of a call.
VARINTS = _Varints({number: _varint(number) for number in range(_PREPARED)})


def varint(number: int) -> bytes:
    """A number from 0 in base 128, lowest digits first (protobuf.dev, "Base 128 Varints")."""
    return VARINTS[number]


def sized(text: str) -> bytes:
    """A text with its length before it, as it stands behind a field's tag. UnicodeEncodeError for what is no text."""
    raw = text.encode()
    return VARINTS[len(raw)] + raw
