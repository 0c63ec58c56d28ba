"""An HTTP/1.1 upstream for tests: records what it gets byte by byte and answers from a script.

    async with running_upstream() as upstream:
        gate = asyncio.Event()
        upstream.script(stream(b"data: 1\\n\\n", gate, b"data: 2\\n\\n"), reply(429, b"{}"))
        ...                                       # the first request gets the stream, the second the 429
        assert upstream.requests[0].header("x-api-key") == "sk-upstream"

A script is any `async def script(exchange: Exchange) -> None`; those below cover the usual cases. Each request takes
the next one; when none is left, `upstream.default` answers. `upstream.on(path, script)` answers a path every time.
"""

import asyncio
import contextlib
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

from tests.support.tcp_server import tcp_server

Pairs = Sequence[tuple[str, str]]
JSON: Pairs = (("Content-Type", "application/json"),)
SSE: Pairs = (("Content-Type", "text/event-stream; charset=utf-8"),)


class End(Enum):
    """How a stream ends, where it does not end properly."""

    CUT = "cut"
    STALL = "stall"


CUT, STALL = End.CUT, End.STALL


@dataclass(slots=True, kw_only=True)
class Recorded:
    """One request as it arrived. `raw_head` ends with the empty line; `body` is without chunk framing."""

    raw_head: bytes
    body: bytes = b""
    chunked: bool = False
    body_complete: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the peer closed the connection that this request came on."""

    @property
    def request_line(self) -> str:
        return self.raw_head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def method(self) -> str:
        return self.request_line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.request_line.split(" ")[1]

    @property
    def path(self) -> str:
        return self.target.split("?", 1)[0]

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.raw_head.decode("latin-1").split("\r\n")[1:-2]
        return [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of a header that occurs at most once."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


class Exchange:
    """One request with the means to answer it."""

    def __init__(self, request: Recorded, connection: "_Connection") -> None:
        self.request = request
        self._connection = connection
        self._chunked = False
        self.keep_alive = True

    def send_raw(self, data: bytes) -> None:
        """Literal bytes, framing and all."""
        self._connection.writer.write(data)

    def send_head(self, status: int = 200, headers: Pairs = JSON, *, chunked: bool = False, reason: str = "X") -> None:
        self._chunked = chunked
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        self.send_raw(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def send(self, data: bytes) -> None:
        """Body bytes, as a chunk where the head said so."""
        self.send_raw(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """The proper end of a chunked body."""
        self.send_raw(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection here, whatever was promised. Bytes sent so far still arrive."""
        self.keep_alive = False
        self._connection.writer.close()

    async def drain(self) -> None:
        await self._connection.writer.drain()


Script = Callable[[Exchange], Awaitable[None]]


def reply(status: int = 200, body: bytes = b"{}", headers: Pairs = JSON) -> Script:
    """A whole answer with Content-Length."""

    async def script(exchange: Exchange) -> None:
        exchange.send_head(status, [*headers, ("Content-Length", str(len(body)))])
        if exchange.request.method != "HEAD":
            exchange.send(body)

    return script


def stream(*steps: bytes | asyncio.Event | End, status: int = 200, headers: Pairs = SSE) -> Script:
    """A chunked answer: bytes are a chunk each, an Event is waited for, CUT closes there, STALL says no more."""

    async def script(exchange: Exchange) -> None:
        exchange.send_head(status, headers, chunked=True)
        for step in steps:
            if isinstance(step, bytes):
                exchange.send(step)
                await exchange.drain()
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step is End.CUT:
                exchange.cut()
                return
            else:
                await exchange.request.closed.wait()
                return
        exchange.end()

    return script


def raw(data: bytes, *, close: bool = True) -> Script:
    """Literal bytes, then the connection is closed (or not)."""

    async def script(exchange: Exchange) -> None:
        exchange.send_raw(data)
        if close:
            exchange.cut()

    return script


def hang_up() -> Script:
    """Closes the connection without a byte."""

    async def script(exchange: Exchange) -> None:
        exchange.cut()

    return script


def silence() -> Script:
    """Never answers; ends when the peer closes."""

    async def script(exchange: Exchange) -> None:
        await exchange.request.closed.wait()

    return script


class ScriptedUpstream:
    """What `running_upstream` yields."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.default: Script = reply(200, b'{"scripted":true}')
        self.scheme = "http"
        self.port = 0
        self._scripts: deque[Script] = deque()
        self._by_path: dict[str, Script] = {}
        self._arrived = asyncio.Condition()

    @property
    def url(self) -> str:
        """Base URL without a trailing slash."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def script(self, *scripts: Script) -> None:
        """Queue answers for the next requests."""
        self._scripts.extend(scripts)

    def on(self, path: str, script: Script) -> None:
        """Answer every request for a path (without its query) with this."""
        self._by_path[path] = script

    async def wait_for_request(self, index: int = 0, *, timeout_seconds: float = 5) -> Recorded:
        """The request with this index, once its head has arrived."""
        async with asyncio.timeout(timeout_seconds), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > index)
        return self.requests[index]

    async def _record(self, request: Recorded) -> None:
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()

    def _next_script(self, request: Recorded) -> Script:
        if request.path in self._by_path:
            return self._by_path[request.path]
        return self._scripts.popleft() if self._scripts else self.default


class _Connection:
    """Reads ahead of what is asked for, so that the peer's closing is seen at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.closed = asyncio.Event()
        self._reader = reader
        self._buffer = bytearray()
        self._changed = asyncio.Event()

    async def pump(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65536):
                self._buffer += data
                self._changed.set()
        self.closed.set()
        self._changed.set()

    async def take(self, size_bytes: int) -> bytes:
        """Exactly so many bytes; IncompleteReadError if the peer closes before."""
        while len(self._buffer) < size_bytes:
            await self._more()
        data = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return data

    async def take_through(self, separator: bytes) -> bytes:
        while (at := self._buffer.find(separator)) < 0:
            await self._more()
        return await self.take(at + len(separator))

    async def _more(self) -> None:
        if self.closed.is_set():
            raise asyncio.IncompleteReadError(bytes(self._buffer), None)
        self._changed.clear()
        await self._changed.wait()


async def _read_body(connection: _Connection, request: Recorded) -> None:
    if request.chunked:
        while size := int((await connection.take_through(b"\r\n")).split(b";")[0], 16):
            request.body += await connection.take(size)
            await connection.take(2)
        await connection.take_through(b"\r\n")
    elif length := re.search(rb"\r\ncontent-length: *(\d+)", request.raw_head, re.IGNORECASE):
        request.body = await connection.take(int(length[1]))
    request.body_complete = True


async def _serve(upstream: ScriptedUpstream, connection: _Connection) -> None:
    while True:
        head = await connection.take_through(b"\r\n\r\n")
        chunked = re.search(rb"\r\ntransfer-encoding: *chunked", head, re.IGNORECASE) is not None
        request = Recorded(raw_head=head, chunked=chunked, closed=connection.closed)
        await upstream._record(request)
        await _read_body(connection, request)
        exchange = Exchange(request, connection)
        await upstream._next_script(request)(exchange)
        await exchange.drain()
        if not exchange.keep_alive:
            return


@asynccontextmanager
async def running_upstream(*, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[ScriptedUpstream]:
    """A scripted upstream on a loopback port for the length of the block."""
    upstream = ScriptedUpstream()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer)
        pump = asyncio.create_task(connection.pump())
        try:
            await _serve(upstream, connection)
        finally:
            pump.cancel()

    upstream.scheme = "https" if tls else "http"
    async with tcp_server(serve, port=port, tls=tls) as upstream.port:
        yield upstream
