"""Our header pairs to aiohttp's multidict and back, byte for byte, for both ends where aiohttp stands.

aiohttp writes header text as UTF-8, while our pairs are latin-1 text, one character a byte. So text whose bytes are
UTF-8 is decoded as such before it is handed over, and comes out as the same bytes. Bytes above 127 that are no UTF-8
(which no known client or upstream sends) leave as their UTF-8 form.
"""

from collections.abc import Iterable

from multidict import CIMultiDict

from bridged.model import Headers


def to_aiohttp(headers: Headers) -> CIMultiDict[str]:
    """The pairs, in order.

    A name that occurs again in another case takes the spelling of its first occurrence: aiohttp's client would let
    the later one replace the earlier.
    """
    spelling: dict[str, str] = {}
    out: CIMultiDict[str] = CIMultiDict()
    for name, value in headers:
        out.add(spelling.setdefault(name.lower(), name), _as_utf8(value))
    return out


def from_raw(raw_headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The pairs of a message as aiohttp received them."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw_headers)


def _as_utf8(value: str) -> str:
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value
