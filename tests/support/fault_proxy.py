"""A TCP proxy whose link is as bad as it is told to be, from one moment to the next.

    async with running_proxy(lambda: address) as proxy:   # HOST:PORT or unix:PATH, asked for each connection
        proxy.down = Fault(delay_seconds=0.2)              # from the server to the client, of all that is open, too
        proxy.heal()

What is told in bytes counts the bytes of one direction of one connection, from its begin. Bytes that a silent link
holds back go on when it speaks again, as TCP's own repeats would have them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

_PIECE_BYTES = 64 * 1024
# How soon a link that is silent, or slow, notices that it is told otherwise.
_LOOK_SECONDS = 0.02
_DELAYED_PIECES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with one direction; nothing, as it is made.

    `piece_bytes`: the most that goes on at once. `bytes_a_second`: of each connection. `silent`: nothing goes on.
    The others happen once to each connection, at that byte: it is changed; both directions end in good order
    (`truncate_at`); both end with a reset; only this direction ends (`half_close_at`).
    """

    delay_seconds: float = 0.0
    bytes_a_second: float | None = None
    piece_bytes: int = _PIECE_BYTES
    silent: bool = False
    corrupt_at: int | None = None
    truncate_at: int | None = None
    reset_at: int | None = None
    half_close_at: int | None = None

    def end_at(self) -> int | None:
        """The byte at which this direction is over."""
        places = [one for one in (self.truncate_at, self.reset_at, self.half_close_at) if one is not None]
        return min(places, default=None)


GOOD = Fault()


class FaultProxy:
    """One listener. `up` and `down` may be set at any time, as may `refusing`; the counts are of connections."""

    def __init__(self, target: Callable[[], str]) -> None:
        self.up = self.down = GOOD
        self.accepted = 0
        self.ended_by_fault = 0
        self._target = target
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = _listener()
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._accepting: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """For clients that want one."""
        return f"http://{self.address}"

    def heal(self) -> None:
        """Nothing is wrong any more; what was lost stays lost."""
        self.up = self.down = GOOD
        self.refuse(False)

    def refuse(self, refusing: bool = True) -> None:
        """Whether new connections are refused, by the kernel. The port stays ours meanwhile."""
        if refusing and self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
            # Linux: no longer a listener, but still bound.
            self._listener.shutdown(socket.SHUT_RDWR)
        elif not refusing and self._accepting is None:
            self._listener.listen(1024)
            self._accepting = asyncio.create_task(self._accept())

    def reset_all(self) -> int:
        """Reset whatever is open, both sides; how many that were."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            self.accepted += 1
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        client_reader, client = await asyncio.open_connection(sock=connection)
        try:
            reader, server = await _connected(self._target())
        except OSError:
            _reset(client)
            return
        link = _Link(self, client_reader, client, reader, server)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def close(self) -> None:
        """Let go of everything."""
        self.refuse()
        self.reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()


class _Link:
    """A connection of a client, and ours to the server for it."""

    def __init__(
        self,
        proxy: FaultProxy,
        client_reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._ways = (
            (client_reader, server, lambda: proxy.up),
            (server_reader, client, lambda: proxy.down),
        )

    async def run(self) -> None:
        """Until both directions are over, or the link is."""
        ways = [asyncio.create_task(self._carry(*way)) for way in self._ways]
        try:
            await asyncio.gather(*ways)
        except (OSError, _Over):
            # A side that broke off is broken off for the other one, too.
            self.reset()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for writer in (self._client, self._server):
                writer.close()

    def reset(self) -> None:
        """Break off towards both sides."""
        for writer in (self._client, self._server):
            _reset(writer)

    def _end(self) -> None:
        """End towards both sides in good order, with what they were sent before."""
        for writer in (self._client, self._server):
            writer.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault_of: Callable[[], Fault]
    ) -> None:
        """One direction. Pieces wait in a queue, so that a delay is one of each byte and no bound to how many go by."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_DELAYED_PIECES)
        reading = asyncio.create_task(_read(reader, pieces))
        loop = asyncio.get_running_loop()
        passed_bytes = 0
        try:
            while True:
                read_time, data = await pieces.get()
                while (left := read_time + fault_of().delay_seconds - loop.time()) > 0:
                    await asyncio.sleep(min(left, _LOOK_SECONDS))
                if not data:
                    await _spoken(fault_of)
                    if reader.exception() is not None:
                        raise _Over
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                while data:
                    fault = await _spoken(fault_of)
                    piece, data = data[: fault.piece_bytes], data[fault.piece_bytes :]
                    end_at = fault.end_at()
                    if end_at is not None:
                        piece = piece[: max(0, end_at - passed_bytes)]
                    writer.write(_corrupted(piece, fault.corrupt_at, passed_bytes))
                    await writer.drain()
                    passed_bytes += len(piece)
                    if end_at is not None and passed_bytes >= end_at:
                        self._proxy.ended_by_fault += 1
                        self._end_for(fault, writer)
                        return
                    if fault.bytes_a_second is not None:
                        await asyncio.sleep(len(piece) / fault.bytes_a_second)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _end_for(self, fault: Fault, writer: asyncio.StreamWriter) -> None:
        if fault.reset_at is not None:
            raise _Over
        if fault.truncate_at is not None:
            self._end()
        elif writer.can_write_eof():
            writer.write_eof()


def _listener() -> socket.socket:
    """Linux keeps the port of a listener that was shut down only where it was bound to it by number."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.setblocking(False)
    return listener


class _Over(Exception):
    """The link is to be reset."""


async def _read(reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    data = b"-"
    while data:
        try:
            data = await reader.read(_PIECE_BYTES)
        except OSError:
            data = b""
        await pieces.put((loop.time(), data))


async def _spoken(fault_of: Callable[[], Fault]) -> Fault:
    """The fault there is when the link is not silent."""
    while (fault := fault_of()).silent:
        await asyncio.sleep(_LOOK_SECONDS)
    return fault


def _corrupted(piece: bytes, corrupt_at: int | None, passed_bytes: int) -> bytes:
    if corrupt_at is None or not passed_bytes <= corrupt_at < passed_bytes + len(piece):
        return piece
    place = corrupt_at - passed_bytes
    return piece[:place] + bytes([piece[place] ^ 0x15]) + piece[place + 1 :]


async def _connected(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.startswith("unix:"):
        return await asyncio.open_unix_connection(target.removeprefix("unix:"))
    host, _, port = target.rpartition(":")
    return await asyncio.open_connection(host, int(port))


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def running_proxy(target: Callable[[], str]) -> AsyncIterator[FaultProxy]:
    """A proxy for the length of the block, without any fault yet."""
    proxy = FaultProxy(target)
    proxy.refuse(False)
    try:
        yield proxy
    finally:
        await proxy.close()


def dribble(piece_bytes: int = 1, *, bytes_a_second: float = 200.0) -> Fault:
    """A few bytes at a time."""
    return replace(GOOD, piece_bytes=piece_bytes, bytes_a_second=bytes_a_second)
