"""The clients of scripts/stress that misbehave: each function is one kind, and returns what went against its wishes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from stress_figures import trouble_of
from stress_upstream import checksum_of, pieces_of

BASE_PATH = "/api/v2/aibridge"
BODY = b'{"model":"gpt-5-mini","stream":true,"messages":[]}'
# How many connect at once: more than that, and the kernel's queue of connections is what is measured.
AT_ONCE = 200
DEADLINE_SECONDS = 60.0
SLOW_PIECE_BYTES = 64 * 1024
SLOW_PAUSE_SECONDS = 0.05
DRIP_SECONDS = 1.0
# The bridge gives a head 30 s, and looks once a second.
HEAD_SECONDS = 33.0
TROUBLE = (OSError, EOFError, TimeoutError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """Where the bridge is, and the token that it takes."""

    host: str
    port: int
    token: str = field(repr=False)

    def head(self, kind: str, length: int, *, path: str = "chat/completions", token: str | None = None) -> bytes:
        """A request's head, for the upstream's behaviour of this name."""
        lines = [f"POST {BASE_PATH}/{kind}/v1/{path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [f"Authorization: Bearer {self.token if token is None else token}", "Content-Type: application/json"]
        return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection for the length of the block, closed at once at its end."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def begin_stream(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ask, and read the first event, to the end of its chunk."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            writer.write(self.head(kind, len(BODY)) + BODY)
            expect(await reader.readuntil(b"\r\n\r\n"))
            await reader.readuntil(b"\n\n\r\n")


class Trouble(ValueError):
    """The pair says that it is in trouble, and when to come again."""


def expect(head: bytes, status: int = 200) -> None:
    """ValueError unless the answer that begins with `head` has this status; Trouble for one that asks to come again."""
    if reason := trouble_of(head):
        raise Trouble(f"{reason} instead of {status}")
    if not head.startswith(b"HTTP/1.1 %d " % status):
        raise ValueError(f"status {head[9:12].decode('latin-1')}")


async def problems_of(clients: Iterable[Awaitable[None]]) -> list[str]:
    """What went wrong with these clients, all at once; nothing where all had their way."""
    results = await asyncio.gather(*clients, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, TROUBLE):
            raise result
    return [f"{type(result).__name__}: {result}" for result in results if result is not None]


# Bodies that nobody takes


def read_stalling(bridge: Bridge, size_bytes: int, stall_seconds: float) -> None:
    """A large answer: read nothing of it, then read slowly, then all."""
    with socket.create_connection((bridge.host, bridge.port), timeout=DEADLINE_SECONDS) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_PIECE_BYTES)
        connection.sendall(bridge.head("large", len(BODY)) + BODY)
        time.sleep(stall_seconds)
        file = connection.makefile("rb")
        expect(file.readline())
        while file.readline() != b"\r\n":
            pass
        checksum, left = 0, size_bytes
        slow_until = time.monotonic() + stall_seconds
        while left:
            data = file.read1(min(left, SLOW_PIECE_BYTES))
            if not data:
                raise EOFError(f"{left} bytes of {size_bytes} did not come")
            checksum, left = zlib.crc32(data, checksum), left - len(data)
            if time.monotonic() < slow_until:
                time.sleep(SLOW_PAUSE_SECONDS)
    if checksum != checksum_of(size_bytes):
        raise ValueError("the answer was changed on its way")


def upload_to_stalling(bridge: Bridge, size_bytes: int) -> None:
    """A large body that is passed through, for an upstream that reads as `read_stalling` does."""
    with socket.create_connection((bridge.host, bridge.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(bridge.head("sink", size_bytes, path="embeddings"))
        for piece in pieces_of(size_bytes):
            connection.sendall(piece)
        file = connection.makefile("rb")
        head = file.readline()
        while file.readline() != b"\r\n":
            pass
        expect(head)
        if json.loads(file.readline()) != {"bytes": size_bytes, "checksum": checksum_of(size_bytes)}:
            raise ValueError("the upload was changed on its way")


async def stalled(bridge: Bridge, size_bytes: int, stall_seconds: float) -> list[str]:
    """One large answer to a reader that stalls, one large body to an upstream that does."""
    return await problems_of(
        [
            asyncio.to_thread(read_stalling, bridge, size_bytes, stall_seconds),
            asyncio.to_thread(upload_to_stalling, bridge, size_bytes),
        ]
    )


# Streams


async def idle_streams(bridge: Bridge, count: int, hold_seconds: float) -> list[str]:
    """Streams that say one thing and then nothing, all open at once; then all clients close."""
    gate, all_open, opened = asyncio.Semaphore(AT_ONCE), asyncio.Event(), 0

    async def client() -> None:
        nonlocal opened
        async with bridge.connected() as (reader, writer):
            try:
                async with gate:
                    await bridge.begin_stream("idle", reader, writer)
            finally:
                opened += 1
                if opened == count:
                    asyncio.get_running_loop().call_later(hold_seconds, all_open.set)
            waiting = asyncio.ensure_future(reader.read(1))
            await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                raise EOFError("a stream ended by itself")
            waiting.cancel()

    ended = asyncio.ensure_future(all_open.wait())
    return await problems_of(client() for _ in range(count))


async def vanishing(bridge: Bridge, count: int) -> list[str]:
    """Clients of busy streams that are gone after an event or two, every other one with a reset."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def client(number: int) -> None:
        async with gate, bridge.connected() as (reader, writer):
            await bridge.begin_stream("ticks", reader, writer)
            if number % 2:
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return await problems_of(client(number) for number in range(count))


# Requests that do not come


async def slow_heads(bridge: Bridge, count: int) -> list[str]:
    """Heads of a byte a second. The bridge must end each of them, with 408 or without a word."""

    async def client() -> None:
        async with bridge.connected() as (reader, writer), asyncio.timeout(HEAD_SECONDS):
            await _drip(writer, b"GET /" + b"x" * 1000, reader)

    return await problems_of(client() for _ in range(count))


async def slow_bodies(bridge: Bridge, count: int) -> list[str]:
    """Bodies of a byte a second, every other one on a route that is passed through; the clients leave at last."""

    async def client(number: int) -> None:
        path = "embeddings" if number % 2 else "chat/completions"
        async with bridge.connected() as (reader, writer):
            writer.write(bridge.head("idle", 2000, path=path))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEAD_SECONDS):
                    await _drip(writer, b" " * 1000, reader)

    return await problems_of(client(number) for number in range(count))


async def _drip(writer: asyncio.StreamWriter, data: bytes, reader: asyncio.StreamReader) -> None:
    """Send byte by byte until the other side ends it."""
    ended = asyncio.ensure_future(reader.read())
    try:
        for byte in data:
            writer.write(bytes([byte]))
            if (await asyncio.wait([ended], timeout=DRIP_SECONDS))[0]:
                break
        answer = await ended
    except ConnectionError:
        return
    finally:
        ended.cancel()
    if answer:
        expect(answer, 408)
