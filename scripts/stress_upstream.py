"""The upstream of scripts/stress, a process of its own: prints its port, then serves until it is killed.

The first segment of a path says what it does. Whatever is not short ends its connection, so that none waits in a pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import sys
import zlib
from collections.abc import Iterator

PIECE = bytes(range(256)) * 256
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
SHORT_STREAM = EVENT * 20 + b"data: [DONE]\n\n"
ANSWER = json.dumps(
    {"id": "chatcmpl-1", "choices": [{"message": {"role": "assistant", "content": "x" * 900}}]}
).encode()
TICK_SECONDS = 0.25
SLOW_PAUSE_SECONDS = 0.05


def pieces_of(size_bytes: int) -> Iterator[bytes]:
    """The body that large answers and uploads have, piece by piece."""
    for left in range(size_bytes, 0, -len(PIECE)):
        yield PIECE[:left]


def checksum_of(size_bytes: int) -> int:
    """What must come out of that body at the other end."""
    checksum = 0
    for piece in pieces_of(size_bytes):
        checksum = zlib.crc32(piece, checksum)
    return checksum


class Upstream:
    """Counts its connections; `large_bytes` is what /large answers, `stall_seconds` how long /sink does not read."""

    def __init__(self, large_bytes: int, stall_seconds: float) -> None:
        self._large_bytes = large_bytes
        self._stall_seconds = stall_seconds
        self._open: set[object] = set()
        self._requests = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._open.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._serve(reader, writer):
                    pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(fields.get("content-length", 0))
        kind = first.split(" ")[1].split("/")[1]
        if kind == "state":
            counts = {"open": len(self._open) - 1, "requests": self._requests}
            await self._send(writer, json.dumps(counts).encode(), keep=False)
            return False
        self._requests += 1
        if kind == "sink":
            await self._sink(reader, writer, length)
            return False
        await reader.readexactly(length)
        if kind == "json":
            await self._send(writer, ANSWER, keep=True)
            return True
        if kind == "large":
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % self._large_bytes)
            for piece in pieces_of(self._large_bytes):
                writer.write(piece)
                await writer.drain()
            return False
        self._begin_stream(writer)
        if kind == "stream":
            self._chunk(writer, SHORT_STREAM)
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        else:
            await self._hold(reader, writer, ticks=kind == "ticks")
        return kind == "stream"

    async def _sink(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
        """Read nothing for a while, then slowly for as long, then all; answer with what came."""
        await asyncio.sleep(self._stall_seconds)
        checksum, left = 0, length
        slow_until = asyncio.get_running_loop().time() + self._stall_seconds
        while left:
            data = await reader.read(min(left, 1 << 16))
            if not data:
                return
            checksum, left = zlib.crc32(data, checksum), left - len(data)
            if asyncio.get_running_loop().time() < slow_until:
                await asyncio.sleep(SLOW_PAUSE_SECONDS)
        line = json.dumps({"bytes": length, "checksum": checksum}) + "\n"
        await self._send(writer, line.encode(), keep=False)

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ticks: bool) -> None:
        """A stream without an end: one event and then silence, or an event every quarter of a second."""
        gone = asyncio.ensure_future(reader.read(1))
        self._chunk(writer, EVENT)
        for _ in itertools.count():
            done, _ = await asyncio.wait([gone], timeout=TICK_SECONDS if ticks else None)
            if done:
                await gone
                return
            self._chunk(writer, EVENT)

    @staticmethod
    def _begin_stream(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    @staticmethod
    def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, body: bytes, *, keep: bool) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        writer.write(head + (b"" if keep else b"Connection: close\r\n") + b"\r\n" + body)
        await writer.drain()


async def main(large_bytes: int, stall_seconds: float) -> None:
    upstream = Upstream(large_bytes, stall_seconds)
    server = await asyncio.start_server(upstream.connected, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
