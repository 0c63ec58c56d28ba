"""The server side: listeners, the connections on them, and the one clock that looks after all of them.

async with listening(service, addresses, limits=Limits()) as server:
    ...                                     # service.begin(exchange) for each request, see exchange.py
    server.stop_accepting()                 # drain: each connection closes with its next answer
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bridged.http1.answer_framing import Framing
from bridged.http1.connection import ClientConnection
from bridged.http1.exchange import Carrier, Exchange, Service
from bridged.http1.framing import HeadLimits, Request
from bridged.http1.limits import Limits
from bridged.http1.line import Line
from bridged.http1.peer import ask_when_silent
from daemonkit.binding import BACKLOG, HANDSHAKE_SECONDS, bind
from daemonkit.listen import Address

__all__ = [
    "Carrier",
    "Exchange",
    "Framing",
    "HeadLimits",
    "Limits",
    "Request",
    "Server",
    "Service",
    "listening",
]

# At the end of the block: for answers that are written and not yet sent.
_CLOSE_SECONDS = 1.0


class Server:
    """What listens, and its connections. See connection.Server for what they know of it."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self.service = service
        self.limits = limits
        self.addresses: tuple[Address, ...] = ()
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time()
        self._listeners: list[asyncio.Server] = []
        self._connections: set[ClientConnection] = set()
        self._half_closed: set[ClientConnection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweep_seconds = limits.sweep_seconds()
        self._timer = self._loop.call_later(self._sweep_seconds, self._sweep)

    @property
    def connection_count(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    @property
    def is_over_full(self) -> bool:
        """Whether there are more connections than there may be."""
        return len(self._connections) > self.limits.connections

    @property
    def is_beyond_telling(self) -> bool:
        """Whether there are even too many to tell each that there are too many."""
        return len(self._connections) > self.limits.connections + self.limits.told_connections

    async def listen(self, address: Address, tls: ssl.SSLContext | None) -> None:
        """Accept connections on an address, too. AddressTaken where it is taken."""
        listener, address = await bind(self._accept, address, setting_name="listen", tls=tls)
        self._add(listener)
        self.addresses += (address,)

    async def share(self, bound: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Accept connections on a socket that other processes accept on, too."""
        listener = await self._loop.create_server(
            self._accept,
            sock=bound,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
            backlog=BACKLOG,
        )
        self._add(listener)

    def stop_accepting(self) -> None:
        """Close the listeners. Each connection closes with its next answer, and what is idle at the end of the block.

        An idle connection is left open until then: a request that is on its way to it is answered, not reset.
        """
        self.draining = True
        for listener in self._listeners:
            listener.close()

    async def close(self, timeout_seconds: float) -> None:
        """Close what is left, and break what is still there after the time."""
        self.stop_accepting()
        for connection in tuple(self._connections):
            connection.close()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.abort()
            await self._empty.wait()
        self._timer.cancel()

    def opened(self, line: Line) -> None:
        """See line.Roster."""
        if isinstance(line, ClientConnection):
            self._connections.add(line)
            self._empty.clear()

    def half_closed(self, line: Line) -> None:
        """See line.Roster."""
        if isinstance(line, ClientConnection):
            self._half_closed.add(line)

    def closed(self, line: Line) -> None:
        """See line.Roster."""
        if isinstance(line, ClientConnection):
            self._half_closed.discard(line)
            self._connections.discard(line)
            if not self._connections:
                self._empty.set()

    def _add(self, listener: asyncio.Server) -> None:
        for sock in listener.sockets:
            if sock.family != socket.AF_UNIX:
                ask_when_silent(sock, self.limits.keepalive_seconds)
        self._listeners.append(listener)

    def _accept(self) -> ClientConnection:
        return ClientConnection(self)

    def _sweep(self) -> None:
        """One look at every connection, instead of a timer for each."""
        now = self.now = self._loop.time()
        self._timer = self._loop.call_later(self._sweep_seconds, self._sweep)
        for connection in tuple(self._connections):
            if connection.deadline <= now:
                connection.overdue()
            if connection.rate_deadline <= now:
                connection.judge_rate()
            if connection.write_deadline <= now:
                connection.write_overdue()
        for line in tuple(self._half_closed):
            line.look_after()


@asynccontextmanager
async def listening(
    service: Service,
    addresses: Sequence[Address],
    *,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    shared: Sequence[socket.socket] = (),
) -> AsyncIterator[Server]:
    """A listening server for the length of the block. `addresses` may be none: `listen` adds some with other TLS.

    `shared` are sockets that other processes accept on, too.
    """
    server = Server(service, limits or Limits())
    try:
        for address in addresses:
            await server.listen(address, tls)
        for bound in shared:
            await server.share(bound, tls)
        yield server
    finally:
        await server.close(_CLOSE_SECONDS)
