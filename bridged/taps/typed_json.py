"""JSON of upstreams, read for a few fields. What cannot be read is None: a tap goes on."""

import json
import re
from typing import Annotated, TypeVar

import msgspec

T = TypeVar("T")

# What a JSON parser of any language still counts exactly. More tokens than that are no count.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

_ESCAPE = re.compile(
    rb"\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_LONE_BYTES = 6
_SPACES = b" \t\n\r"


def decoded(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """The few fields, None for what is not JSON or has them with other types.

    Half an emoji, where a model's text was cut, is JSON (RFC 8259, 8.2) that msgspec does not take: it becomes U+FFFD.
    """
    try:
        return decoder.decode(data)
    except (msgspec.ValidationError, RecursionError):
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return decoder.decode(_ESCAPE.sub(_mended, data.decode("utf-8", "replace").encode()))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def last_object(data: bytes, key: bytes) -> bytes | None:
    """The last object that is the value of `key` anywhere in what may be a part of a JSON text; None if there is none.

    In a string the quotes around the key would be escaped, so what is found is a member.
    """
    name = b'"' + key + b'"'
    at = data.rfind(name)
    while at >= 0:
        rest = data[at + len(name) :].lstrip(_SPACES)
        if rest[:1] == b":" and (value := rest[1:].lstrip(_SPACES))[:1] == b"{":
            found = _object_at_start(value)
            if found is not None:
                return found
        at = data.rfind(name, 0, at)
    return None


def _object_at_start(data: bytes) -> bytes | None:
    # Usage is small; the rest need not become text.
    text = data[:_MAX_OBJECT_BYTES].decode("utf-8", "replace")
    try:
        value, _ = _scanner.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return json.dumps(value).encode()


def _mended(escape: re.Match[bytes]) -> bytes:
    found = escape[0]
    return rb"\ufffd" if len(found) == _LONE_BYTES else found


_scanner = json.JSONDecoder()
_MAX_OBJECT_BYTES = 64 * 1024
