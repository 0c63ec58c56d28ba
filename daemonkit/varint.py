"""Lengths as protobuf writes them, for both daemons' hand-made messages."""

_PREPARED = 1024


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_SHORT = [_varint(number) for number in range(_PREPARED)]


def varint(number: int) -> bytes:
    """A number from 0 in base 128, lowest digits first (protobuf.dev, "Base 128 Varints")."""
    return _SHORT[number] if number < _PREPARED else _varint(number)


def sized(text: str) -> bytes:
    """A text with its length before it, as it stands behind a field's tag. UnicodeEncodeError for what is no text."""
    raw = text.encode()
    size = len(raw)
    return (_SHORT[size] if size < _PREPARED else _varint(size)) + raw
