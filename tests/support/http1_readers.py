"""Three readers of one stream of requests: ours, h11's, and aiohttp's parser in Python.

What ours accepts, the others must read in the same way and see end at the same byte (`disagreement`). They may refuse
it: a server that is stricter than we are cannot be set against us.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy

from bridged.http1.connection import ClientConnection
from bridged.http1.downstream import Limits
from bridged.http1.framing import HeadLimits
from bridged.http1.line import Line
from tests.fakes.memory_transport import MemoryTransport
from tests.support.http1_service import Scripted

Message = tuple[str, str, tuple[tuple[str, str], ...], bytes]
SMALL = Limits(head=HeadLimits(head_bytes=4096, field_bytes=2048, fields=32))


@dataclass(slots=True)
class Reading:
    """Messages that were complete, and how it went on: whether it was refused, or nothing more would be read."""

    messages: list[Message] = field(default_factory=list)
    refused: bool = False
    closed: bool = False


@dataclass(slots=True)
class _Server:
    service: Scripted
    limits: Limits
    now: float = 0.0
    draining: bool = False
    is_over_full: bool = False
    is_beyond_telling: bool = False

    def opened(self, line: Line) -> None:
        del line

    def half_closed(self, line: Line) -> None:
        del line

    def closed(self, line: Line) -> None:
        del line


def read_ours(parts: Iterable[bytes], *, limits: Limits | None = None, whole: bool = True) -> Reading:
    """Our own server's reading of what arrives in these parts."""
    service = Scripted(whole=whole)
    connection, transport = ClientConnection(_Server(service, limits or Limits())), MemoryTransport()
    connection.connection_made(transport)
    for part in parts:
        if transport.is_closing():
            break
        if part:
            connection.data_received(part)
    reading = Reading(closed=transport.closed or transport.ended or transport.aborted)
    for seen in service.seen:
        request = seen.request
        if seen.ended:
            reading.messages.append((request.method, request.target, request.headers, seen.body))
    reading.refused = bool(service.refused) or any(seen.failed for seen in service.seen)
    connection.connection_lost(None)
    return reading


def read_h11(data: bytes) -> Reading:
    """h11's reading."""
    reading = Reading()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    head: h11.Request | None = None
    body = bytearray()
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            reading.refused = True
            return reading
        if isinstance(event, h11.Request):
            head, body = event, bytearray()
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            pairs = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in head.headers.raw_items())
            reading.messages.append((head.method.decode(), head.target.decode("latin-1"), pairs, bytes(body)))
            if head.method == b"CONNECT":
                reading.closed = True
                return reading
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                reading.closed = True
                return reading
            connection.start_next_cycle()
        else:
            reading.closed = event is h11.PAUSED
            return reading


def read_aiohttp(data: bytes, loop: asyncio.AbstractEventLoop) -> Reading:
    """The reading of aiohttp's parser in Python, which shares no code with llhttp."""
    reading = Reading()
    parser = HttpRequestParserPy(
        BaseProtocol(loop), loop, 1 << 20, max_line_size=1 << 16, max_field_size=1 << 16, max_headers=1000
    )
    found: list[Any] = []
    try:
        found, _, _ = parser.feed_data(data)
    except (HttpProcessingError, ValueError):
        reading.refused = True
    for head, payload in found:
        if payload.exception() is not None:
            reading.refused = True
            break
        if not payload.is_eof():
            break
        pairs = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in head.raw_headers)
        body = b"".join(iter(partial(payload.read_nowait, -1), b""))
        reading.messages.append((head.method, head.path, pairs, body))
        if head.should_close or head.upgrade:
            reading.closed = True
            break
    return reading


def disagreement(data: bytes, parts: Iterable[bytes], loop: asyncio.AbstractEventLoop) -> str | None:
    """What is wrong with our reading of these bytes, cut into these parts; None if nothing is."""
    ours = read_ours([data], limits=SMALL)
    if read_ours(parts, limits=SMALL) != ours:
        return "where the network cuts the bytes matters"
    if read_ours(parts, limits=SMALL, whole=False) != ours:
        return "whether the body is gathered or streamed matters"
    if ours.refused and not ours.closed:
        return "a connection goes on after a refusal"
    for name, theirs in (("h11", read_h11(data)), ("aiohttp", read_aiohttp(data, loop))):
        wanted, got = _comparable(ours), _comparable(theirs)
        if theirs.refused or theirs.closed:
            wanted = wanted[: len(got)]
        if ours.refused or ours.closed:
            got = got[: len(wanted)]
        if got != wanted:
            return f"{name} reads other messages"
    return None


def _comparable(reading: Reading) -> list[Message]:
    """Without what others change on purpose: h11 writes `chunked` in lower case."""
    return [
        (method, target, tuple((n, v.lower() if n.lower() == "transfer-encoding" else v) for n, v in headers), body)
        for method, target, headers, body in reading.messages
    ]
