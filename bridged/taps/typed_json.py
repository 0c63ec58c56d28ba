"""JSON of upstreams, read for a few fields. What cannot be read is None: a tap goes on."""

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

# A number of tokens, judged by `Seen.count`: one that cannot be must not hide what stands beside it.
Count = Any

_ESCAPE = re.compile(
    rb"\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_LONE_BYTES = 6
# What may be half an emoji; a text without any is as it was before.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_OPENING = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*\{")
# Usage is small, and only the last one may be cut.
_MAX_OBJECT_BYTES = 16 * 1024
_MAX_TRIES = 8
_BETWEEN = re.compile(r"[ \t\r\n,]*")


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
    text = data.decode("utf-8", "replace").encode()
    if _SURROGATE.search(text) is not None:
        text = _ESCAPE.sub(_mended, text)
    if text == data:
        return None
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def whole_elements(data: bytes, start: int) -> Iterator[bytes]:
    """The elements of an array, up to one that is cut or no JSON; `start` is where the first begins.

    One way through the text, an element at a time: all of it would be decoded anew for each place where it may be cut.
    """
    # Each byte is a letter, so that places in the text are those in the bytes.
    text = data.decode("latin-1")
    while (between := _BETWEEN.match(text, start)) is not None:
        try:
            _, start = _scanner.raw_decode(text, between.end())
        except (ValueError, RecursionError):
            return
        yield data[between.end() : start]


def last_object(data: bytes, key: bytes) -> bytes | None:
    """The last object that is the value of `key` anywhere in what may be a part of a JSON text; None if there is none.

    In a string the quotes around the key would be escaped, so what is found is a member.
    """
    name = b'"' + key + b'"'
    end = len(data)
    for _ in range(_MAX_TRIES):
        end = data.rfind(name, 0, end)
        if end < 0:
            break
        opening = _OPENING.match(data, end + len(name))
        if opening is not None:
            found = _object_at_start(data[opening.end() - 1 : opening.end() + _MAX_OBJECT_BYTES])
            if found is not None:
                return found
    return None


def text_of(value: object) -> str:
    """A text as it is, anything else as JSON: some send the JSON itself where a text with JSON in it belongs."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _object_at_start(data: bytes) -> bytes | None:
    try:
        value, _ = _scanner.raw_decode(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return json.dumps(value).encode()


def _mended(escape: re.Match[bytes]) -> bytes:
    found = escape[0]
    return rb"\ufffd" if len(found) == _LONE_BYTES else found


_scanner = json.JSONDecoder()
