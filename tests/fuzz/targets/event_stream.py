"""AWS's binary streams: where we read a message, botocore reads the same one, wherever the stream is cut.

A stream that is damaged may be refused by us and not by botocore: it trusts lengths that we check.
"""

import contextlib
import struct
from zlib import crc32

from botocore.eventstream import EventStreamBuffer, ParserError

from bridged.aws.event_stream import EventStreamBroken, EventStreamDecoder, HeaderValue
from tests.support.event_stream import event, exception, message
from tests.support.http1_mutations import cut

WORDS = [
    b"\0\0\0\x10",
    b"\0\0\0\x20",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x0b:event-type\x07",
    b"\x07",
    b"\x09",
    b"\x04",
]
SEEDS = [
    b"\0\0" + one
    for one in (
        event("chunk", b'{"bytes":"e30="}'),
        exception("throttlingException", b"{}"),
        message({}),
        message({"a": True, "b": b"\0\xff", "c": "x"}, b"payload") * 2,
    )
]
Read = list[tuple[dict[str, HeaderValue], bytes]]


def one_input(data: bytes) -> None:
    # Checksums would keep nearly every change away from what is behind them.
    stream = _mended(data[2:])
    ours = _read(cut(stream, []))
    assert _read(cut(stream, [place for place in data[:2] if place])) == ours, stream
    theirs = _read_by_botocore(stream)
    for one, other in zip(ours, theirs, strict=False):
        assert one == other, stream


def _mended(stream: bytes) -> bytes:
    """With right checksums, as far as lengths allow."""
    at, mended = 0, bytearray(stream)
    while len(stream) - at >= 16:
        total = struct.unpack(">I", stream[at : at + 4])[0]
        mended[at + 8 : at + 12] = struct.pack(">I", crc32(mended[at : at + 8]))
        if not 16 <= total <= len(stream) - at:
            break
        mended[at + total - 4 : at + total] = struct.pack(">I", crc32(mended[at : at + total - 4]))
        at += total
    return bytes(mended)


def _read(parts: list[bytes]) -> Read:
    decoder, found = EventStreamDecoder(), []
    try:
        for part in parts:
            found += decoder.feed(part)
        decoder.end()
    except EventStreamBroken as broken:
        found += broken.messages
    return [(dict(one.headers), one.payload) for one in found]


def _read_by_botocore(stream: bytes) -> Read:
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    found: Read = []
    with contextlib.suppress(ParserError, KeyError, UnicodeDecodeError, struct.error):
        found.extend((one.headers, one.payload) for one in buffer)
    return found
