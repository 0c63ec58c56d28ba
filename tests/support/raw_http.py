"""An HTTP/1.1 client for tests that sends what it is told and hides nothing of what comes back.

answer = await raw_exchange(port, request("POST", "/corp/v1/messages", body=b"{}", headers=[("x-api-key", TOKEN)]))

async with raw_client(port) as client:             # step by step
    await client.send(b"GET / HTTP/1.1\\r\\n…")
    head = await client.read_head()
    first = await client.read_some()               # body bytes as soon as there are any, without chunk framing
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

Pairs = Sequence[tuple[str, str]]


def request(method: str, target: str, *, headers: Pairs = (), body: bytes | None = None, host: str = "bridge") -> bytes:
    """A request's bytes; Content-Length is added where there is a body."""
    pairs = [("Host", host), *headers]
    if body is not None:
        pairs.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in pairs)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


@dataclass(frozen=True, kw_only=True)
class RawAnswer:
    """One answer. `complete` is false where its framing was broken off; `raw_head` ends with the empty line."""

    raw_head: bytes
    body: bytes = b""
    complete: bool = True

    @property
    def status(self) -> int:
        return int(self.raw_head.split(b" ", 2)[1])

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.raw_head.decode("latin-1").split("\r\n")[1:-2]
        return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def header(self, name: str) -> str | None:
        """The value of a header that occurs at most once."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def error(self) -> str | None:
        return self.header("x-drawbridge-error")

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_seconds: float) -> None:
        self.reader = reader
        self.writer = writer
        self._timeout_seconds = timeout_seconds
        self._head = RawAnswer(raw_head=b"")
        self._remaining: int | None = None
        self._ended = False
        self._head_request = False

    async def send(self, data: bytes) -> None:
        self._head_request = data.startswith(b"HEAD ")
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def read_head(self) -> RawAnswer:
        """The next answer's head, informational ones included."""
        async with asyncio.timeout(self._timeout_seconds):
            head = await self.reader.readuntil(b"\r\n\r\n")
        self._head = RawAnswer(raw_head=head)
        self._ended = self._head_request or self._head.status < 200 or self._head.status in (204, 304)
        length = self._head.header("content-length")
        self._remaining = int(length) if length is not None else None
        return self._head

    async def read_some(self) -> bytes:
        """Some of the body; empty at its end. IncompleteReadError where it was broken off."""
        async with asyncio.timeout(self._timeout_seconds):
            data = b"" if self._ended else await self._next_piece()
        self._ended = self._ended or not data
        return data

    async def _next_piece(self) -> bytes:
        if (self._head.header("transfer-encoding") or "").lower() == "chunked":
            size = int(re.split(rb"[;\r]", await self.reader.readuntil(b"\r\n"))[0], 16)
            return (await self.reader.readexactly(size + 2))[:-2]
        if self._remaining is None:
            return await self.reader.read(65536)
        data = await self.reader.read(min(65536, self._remaining)) if self._remaining else b""
        if self._remaining and not data:
            raise asyncio.IncompleteReadError(b"", self._remaining)
        self._remaining -= len(data)
        return data

    async def read_answer(self) -> RawAnswer:
        """The next final answer as a whole, or as far as it came."""
        head = await self.read_head()
        while head.status < 200:
            head = await self.read_head()
        body, complete = b"", True
        try:
            while piece := await self.read_some():
                body += piece
        except (asyncio.IncompleteReadError, ConnectionError):
            complete = False
        return RawAnswer(raw_head=head.raw_head, body=body, complete=complete)

    async def read_to_end(self) -> bytes:
        """Every byte until the server closes."""
        async with asyncio.timeout(self._timeout_seconds):
            return await self.reader.read()

    def leave(self) -> None:
        """Close without waiting for anything."""
        self.writer.transport.abort()


@asynccontextmanager
async def raw_client(port: int, *, timeout_seconds: float = 10) -> AsyncIterator[RawClient]:
    """A connection to a loopback port for the length of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawClient(reader, writer, timeout_seconds)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def raw_exchange(port: int, data: bytes, *, timeout_seconds: float = 10) -> RawAnswer:
    """Send these bytes on a connection of their own and read one answer."""
    async with raw_client(port, timeout_seconds=timeout_seconds) as client:
        await client.send(data)
        return await client.read_answer()
