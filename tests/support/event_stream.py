"""Writes application/vnd.amazon.eventstream: what AWS's services send, and what they would never send."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True)
class Typed:
    """A header value of a type that Python's own do not tell: number of the type, value as bytes."""

    kind: int
    data: bytes


HeaderValue = bool | str | bytes | Typed


def message(headers: Mapping[str, HeaderValue], payload: bytes = b"") -> bytes:
    """One message. Text is a string, bytes are a byte array, a bool is a bool; all else is Typed."""
    return framed(b"".join(header(name, value) for name, value in headers.items()), payload)


def framed(block: bytes, payload: bytes = b"") -> bytes:
    """Any block of headers, with right lengths and checksums."""
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    data = prelude + struct.pack(">I", crc32(prelude)) + block + payload
    return data + struct.pack(">I", crc32(data))


def header(name: str, value: HeaderValue) -> bytes:
    encoded = name.encode()
    return bytes([len(encoded)]) + encoded + _typed(value)


def _typed(value: HeaderValue) -> bytes:
    match value:
        case bool():
            return b"\0" if value else b"\1"
        case str():
            return b"\7" + struct.pack(">H", len(value.encode())) + value.encode()
        case bytes():
            return b"\6" + struct.pack(">H", len(value)) + value
        case Typed():
            return bytes([value.kind]) + value.data


def event(kind: str, payload: bytes, *, content_type: str = "application/json") -> bytes:
    """An event as Bedrock sends it."""
    return message({":event-type": kind, ":content-type": content_type, ":message-type": "event"}, payload)


def exception(kind: str, payload: bytes) -> bytes:
    """An exception within a stream, `throttlingException` for one."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, payload)
