"""An upstream that knows exactly which requests had been sent at a moment: raw sockets, read by hand.

A request that was sent before the moment and is still in a buffer of the kernel is read by `arrived()`, at once and
without a turn of the loop; what comes later was sent later. Bodies have a Content-Length; one that says
`"stream":true` gets an event every few milliseconds until its connection is closed, others a small answer.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
_KEY = re.compile(rb"authorization: *Bearer ([^\r\n]*)", re.IGNORECASE)
_JSON = b'{"id":"c","object":"chat.completion","choices":[]}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_JSON), _JSON)
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = b'data: {"id":"c","choices":[]}\n\n'
_EVENT_SECONDS = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request: the key that it carried, its path, and its body."""

    key: str
    path: str
    body: bytes


class CountingUpstream:
    """What `running_counting_upstream` yields. `requests` are in the order in which they were read.

    `answer` may say another answer than the usual one, of a request that was read just now.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.requests: list[Sent] = []
        self.answer: Callable[[Sent], bytes | None] = lambda sent: None
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._connections: dict[socket.socket, bytearray] = {}
        self._streams: set[socket.socket] = set()
        self._loop.add_reader(listener, self._accept)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def arrived(self) -> int:
        """How many requests have been sent up to now."""
        self._accept()
        for connection in list(self._connections):
            self._read(connection)
        return len(self.requests)

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        for connection in list(self._connections):
            self._drop(connection)

    async def keep_streaming(self) -> None:
        """Send an event on every stream, again and again."""
        while True:
            for connection in list(self._streams):
                self._write(connection, b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
            await asyncio.sleep(_EVENT_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            self._connections[connection] = bytearray()
            self._loop.add_reader(connection, self._read, connection)
            self._read(connection)

    def _read(self, connection: socket.socket) -> None:
        while connection in self._connections:
            try:
                data = connection.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._drop(connection)
                return
            self._connections[connection] += data
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        buffer = self._connections[connection]
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(buffer[: end + 2])
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(buffer) < whole:
                return
            body = bytes(buffer[end + 4 : whole])
            del buffer[:whole]
            key = _KEY.search(head)
            sent = Sent(key=key[1].decode() if key else "", path=head.split(b" ", 2)[1].decode(), body=body)
            self.requests.append(sent)
            if (other := self.answer(sent)) is not None:
                self._write(connection, other)
            elif b'"stream":true' in body:
                self._write(connection, _STREAM)
                self._streams.add(connection)
            else:
                self._write(connection, _ANSWER)

    def _write(self, connection: socket.socket, data: bytes) -> None:
        try:
            connection.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        if self._connections.pop(connection, None) is not None:
            self._streams.discard(connection)
            self._loop.remove_reader(connection)
            connection.close()


@asynccontextmanager
async def running_counting_upstream() -> AsyncIterator[CountingUpstream]:
    """On a free port, for the length of the block."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        upstream = CountingUpstream(listener)
        streaming = asyncio.create_task(upstream.keep_streaming())
        try:
            yield upstream
        finally:
            streaming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await streaming
            upstream.close()
