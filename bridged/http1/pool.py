"""The pool of upstream connections, and the way into this side of the room: `running_pool`, then `send`.

A connection belongs to an upstream (scheme, host, port, whether http may go there, the proxy on the way), never to a
credential: what a request carries is in its own head. The one used last is used next, so that the others may grow old
and go. A connection is given up some seconds before usual servers would (60 s and more), and a second before an
upstream would that says `Keep-Alive: timeout=N`, so that few requests meet one that is being closed.

Silence is measured by one timer for all: each sweep looks how long every connection has been quiet, each read makes it
young again. A request may bring time-outs of its own; once there was a short one, sweeps are as frequent as it needs.
"""

import asyncio
import logging
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from bridged.egress import Egress
from bridged.http1.connect import Lookup, Route, connect, look_up
from bridged.http1.proxies import Proxies
from bridged.http1.request_head import OutgoingRequest, authority_of, host_line, port_of, request_head
from bridged.http1.upstream import ResponseReceiver, UpstreamCall
from bridged.http1.upstream_connection import SilenceLimits, UpstreamConnection
from bridged.http_types import UpstreamNotAllowed, UpstreamTimeout, UpstreamUnreachable
from bridged.model import UpstreamTimeouts

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 55.0
MAX_IDLE = 256
MAX_CONNECTIONS = 1 << 20
_SWEEP_SECONDS = 1.0
# How many sweeps the shortest time-out takes at least: it is kept to within one of them, and the first of those that
# requests bring to within a sweep as they were until then.
_SWEEPS = 4
_SHORTEST_SWEEP_SECONDS = 0.02


@asynccontextmanager
async def running_pool(
    *,
    connect_timeout_seconds: float,
    first_byte_timeout_seconds: float,
    idle_timeout_seconds: float,
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    max_idle: int = MAX_IDLE,
    max_connections: int = MAX_CONNECTIONS,
    tls: ssl.SSLContext | None = None,
    proxies: Proxies | None = None,
    egress: Egress | None = None,
    resolve_name: Lookup = look_up,
) -> AsyncIterator["UpstreamPool"]:
    """A pool for the length of the block; whatever is under way at its end is cut without a word.

    `max_idle` is for each upstream. `max_connections` is for all together and bounds those that wait: those in use are
    at most as many as clients are connected, because each of these has one request at a time. `tls` None means the
    system's trust store; it is told to speak HTTP/1.1 only. `egress` says where connections may go, None by the
    defaults of its settings; `resolve_name` says what names stand for.
    """
    context = tls if tls is not None else ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    pool = UpstreamPool(
        connect_timeout_seconds=connect_timeout_seconds,
        max_idle=max_idle,
        max_connections=max_connections,
        tls=context,
        proxies=proxies if proxies is not None else Proxies(),
        egress=egress if egress is not None else Egress(),
        resolve_name=resolve_name,
    )
    limits = SilenceLimits(
        first_byte_seconds=first_byte_timeout_seconds,
        idle_seconds=idle_timeout_seconds,
        keep_alive_seconds=keep_alive_seconds,
    )
    pool.sweep_for(min(first_byte_timeout_seconds, idle_timeout_seconds, keep_alive_seconds))
    sweeping = asyncio.create_task(_sweep(pool, limits), name="upstream sweep")
    try:
        yield pool
    finally:
        sweeping.cancel()
        await pool.close()


async def _sweep(pool: "UpstreamPool", limits: SilenceLimits) -> None:
    now = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(pool.sweep_seconds)
        now_seconds = now()
        for connection in tuple(pool.connections):
            connection.sweep(limits, now_seconds=now_seconds, every_seconds=pool.sweep_seconds)


class UpstreamPool:
    """All connections to all upstreams."""

    def __init__(
        self,
        *,
        connect_timeout_seconds: float,
        max_idle: int,
        max_connections: int,
        tls: ssl.SSLContext,
        proxies: Proxies,
        egress: Egress,
        resolve_name: Lookup,
    ) -> None:
        self.connections: set[UpstreamConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.sweep_seconds = _SWEEP_SECONDS
        self._all_lost: asyncio.Event | None = None
        self._connect_timeout_seconds = connect_timeout_seconds
        self._max_idle = max_idle
        self._max_connections = max_connections
        self._tls = tls
        self._proxies = proxies
        self._egress = egress
        self._resolve_name = resolve_name
        self._upstreams: dict[tuple[str, str, int | None, bool], _Upstream] = {}

    def send(
        self,
        request: OutgoingRequest,
        receiver: ResponseReceiver,
        timeouts: UpstreamTimeouts | None = None,
        *,
        may_be_plain: bool = False,
    ) -> UpstreamCall:
        """Send one request. ValueError if it is not one request, by what is in its head.

        `timeouts` are those that are not as the pool's. `may_be_plain`: plain http may leave this machine for it.
        Everything else that can go wrong is for the receiver, later. The receiver may be asked, before this returns,
        to hold a streamed body back until there is a connection.
        """
        key = (request.scheme, request.host, request.port, may_be_plain)
        upstream = self._upstreams.get(key)
        if upstream is None:
            upstream = self._upstreams[key] = self._upstream(*key)
        call = UpstreamCall(upstream, request, upstream.head(request), receiver)
        if timeouts is not None:
            call.timeouts = timeouts
            self.sweep_for(min(timeouts.first_byte_seconds or math.inf, timeouts.idle_seconds or math.inf))
        connection = upstream.waiting()
        if connection is None:
            call.start()
        else:
            call.begin(connection)
        return call

    def sweep_for(self, timeout_seconds: float) -> None:
        """Sweep often enough for this time-out."""
        if timeout_seconds < self.sweep_seconds * _SWEEPS:
            self.sweep_seconds = max(_SHORTEST_SWEEP_SECONDS, timeout_seconds / _SWEEPS)

    def _upstream(self, scheme: str, host: str, given_port: int | None, may_be_plain: bool) -> "_Upstream":
        port = port_of(scheme, given_port)
        route = Route(
            scheme=scheme,
            host=host,
            port=port,
            proxy=self._proxies.for_upstream(scheme, host, port),
            tls=self._tls,
            timeout_seconds=self._connect_timeout_seconds,
            may_be_plain=may_be_plain,
            egress=self._egress,
            look_up=self._resolve_name,
        )
        return _Upstream(self, route, max_idle=self._max_idle)

    async def close(self) -> None:
        """Cut everything."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for connection in tuple(self.connections):
            connection.drop()
        if self.connections:
            self._all_lost = asyncio.Event()
            await self._all_lost.wait()

    def make_room(self) -> None:
        """Before a new connection: where there are enough, one that waits goes, of whichever upstream."""
        if len(self.connections) + len(self.tasks) >= self._max_connections:
            for upstream in self._upstreams.values():
                if upstream.drop_oldest():
                    return

    def forget(self, connection: UpstreamConnection) -> None:
        """This connection is closed."""
        self.connections.discard(connection)
        if self._all_lost is not None and not self.connections:
            self._all_lost.set()


class _Upstream:
    """One upstream: how its requests begin, the way to it, and the connections that wait, the last used one on top.

    See upstream.Origin.
    """

    def __init__(self, pool: UpstreamPool, route: Route, *, max_idle: int) -> None:
        self._pool = pool
        self._route = route
        self._max_idle = max_idle
        self._idle: list[UpstreamConnection] = []
        # Why it was refused, as the log has it already.
        self._logged = ""
        self._host_line = host_line(route.scheme, route.host, route.port)
        self._target_prefix = ""
        self._proxy_line = b""
        if route.proxy is not None and route.scheme == "http":
            self._target_prefix = "http://" + authority_of(route.host, route.port, default_port=80)
            self._proxy_line = route.proxy.authorization_line().encode()

    def head(self, request: OutgoingRequest) -> bytes:
        return request_head(request, self._host_line, target_prefix=self._target_prefix, proxy_line=self._proxy_line)

    def waiting(self) -> UpstreamConnection | None:
        """A connection that waits and still stands."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def keep(self, connection: UpstreamConnection) -> bool:
        if len(self._idle) >= self._max_idle:
            return False
        self._idle.append(connection)
        return True

    def drop_oldest(self) -> bool:
        """Whether there was a connection that waits: the one that was not used for longest is closed."""
        if not self._idle:
            return False
        self._idle.pop(0).drop()
        return True

    def lost(self, connection: UpstreamConnection) -> None:
        self._pool.forget(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def connect(self, call: UpstreamCall) -> asyncio.Task[None]:
        self._pool.make_room()
        task = asyncio.get_running_loop().create_task(self._connect(call))
        self._pool.tasks.add(task)
        task.add_done_callback(self._pool.tasks.discard)
        return task

    async def _connect(self, call: UpstreamCall) -> None:
        connection = UpstreamConnection(self)
        route, timeouts = self._route, call.timeouts
        if timeouts is not None and timeouts.connect_seconds is not None:
            route = replace(route, timeout_seconds=timeouts.connect_seconds)
        try:
            await connect(route, connection)
        except UpstreamNotAllowed as error:
            self._log_refusal(str(error))
            call.fail(error)
        except (UpstreamUnreachable, UpstreamTimeout) as error:
            call.fail(error)
        except Exception:
            log.exception("unhandled error while connecting")
            call.fail(UpstreamUnreachable("no connection could be made"))
        else:
            self._logged = ""
            if connection.transport.is_closing():
                call.fail(UpstreamUnreachable("it closed the connection at once"))
                return
            self._pool.connections.add(connection)
            try:
                call.begin(connection)
            except Exception:
                log.exception("unhandled error while sending")
                connection.drop()
                call.fail(UpstreamUnreachable("the request could not be sent"))

    def _log_refusal(self, problem: str) -> None:
        """Say it once, until a connection was made again: every request is told anyway."""
        if problem != self._logged:
            self._logged = problem
            told = {"scheme": self._route.scheme, "host": self._route.host, "port": self._route.port}
            log.warning("an upstream is not allowed: %s", problem, extra=told)
