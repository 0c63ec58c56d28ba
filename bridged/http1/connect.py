"""Making a connection to an upstream: addresses, TCP, a proxy's tunnel, TLS.

A name is looked up once. Each of its addresses is judged (egress.py), and those that pass are dialled as they are: what
was judged is what is connected to, whatever the name means a moment later. A proxy is where the operator put it; of an
upstream behind one nothing is known but the host.

Addresses of both families race (RFC 8305); uvloop's `create_connection` would take one after the other. TLS is the
loop's, with the certificate verified for the upstream's own name, also inside a tunnel; the proxy sees nothing but that
name. What goes wrong is an UpstreamUnreachable whose text says why, in words that hold nothing of what a peer sent, nor
where it is.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import cast

from bridged.egress import Egress, judged
from bridged.http1.proxies import Proxy
from bridged.http1.request_head import authority_of
from bridged.http1.response_framing import ResponseReader
from bridged.http1.response_head import BadResponse
from bridged.http_types import UpstreamNotAllowed, UpstreamTimeout, UpstreamUnreachable

# RFC 8305, section 5: the recommended delay before the next address is tried as well.
_NEXT_ADDRESS_SECONDS = 0.25
# A stream may be silent for minutes while a model thinks; networks forget connections that are silent for so long.
_KEEPALIVE_SECONDS = 60
# A process that was stopped finds its connections made and their time over, in any order. What waited for one was
# decided too long ago then.
_LATE_SECONDS = 1.0
# X.509 verification results (OpenSSL, x509_vfy.h) that an operator can act on.
_CERTIFICATE_PROBLEMS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed, which this machine does not trust",
    19: "its authority is not one that this machine trusts",
    20: "its authority is not one that this machine trusts",
    21: "its authority is not one that this machine trusts",
    62: "it is for another host",
    64: "it is for another host",
}


# What a name and a port stand for: (family, address), the best first.
Lookup = Callable[[str, int], Awaitable[Sequence[tuple[int, str]]]]


async def look_up(host: str, port: int) -> Sequence[tuple[int, str]]:
    """What this machine's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, str(address[0])) for family, _, _, _, address in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The way to one upstream. `tls` verifies upstream and proxy alike.

    `may_be_plain`: plain http may leave this machine for it.
    """

    scheme: str
    host: str
    port: int
    proxy: Proxy | None
    tls: ssl.SSLContext
    timeout_seconds: float
    may_be_plain: bool = False
    egress: Egress = field(default_factory=Egress)
    look_up: Lookup = look_up


async def connect(route: Route, protocol: asyncio.Protocol) -> None:
    """Make a connection for `protocol`, which hears `connection_made` as the last thing, when all of the way stands.

    Raises UpstreamNotAllowed, UpstreamUnreachable, UpstreamTimeout.
    """
    now = asyncio.get_running_loop().time
    began = now()
    with _said_in_our_words(route.proxy):
        async with asyncio.timeout(route.timeout_seconds):
            transport = await _way(route)
        if now() - began > route.timeout_seconds + _LATE_SECONDS:
            transport.abort()
            raise TimeoutError
    transport.set_protocol(protocol)
    protocol.connection_made(transport)


async def _way(route: Route) -> asyncio.Transport:
    proxy = route.proxy
    path = await (_open_directly(route) if proxy is None else _open_proxy(route, proxy))
    try:
        if proxy is not None and proxy.scheme == "https":
            await path.start_tls(route.tls, proxy.host)
        if route.scheme == "https":
            if proxy is not None:
                await path.request_tunnel(authority_of(route.host, route.port), proxy.authorization_line())
            await path.start_tls(route.tls, route.host)
    except BaseException:
        path.transport.abort()
        raise
    return path.transport


async def _open_directly(route: Route) -> "_Path":
    addresses = addresses_in_turn(await route.look_up(route.host, route.port))
    allowed, problem = judged(route.egress, addresses, is_plain=_is_plain(route))
    if addresses and not allowed:
        raise UpstreamNotAllowed(problem)
    return await _open(allowed, route.port)


async def _open_proxy(route: Route, proxy: Proxy) -> "_Path":
    problem = route.egress.problem_behind_proxy(route.host, is_plain=_is_plain(route))
    if problem is not None:
        raise UpstreamNotAllowed(problem)
    return await _open(addresses_in_turn(await route.look_up(proxy.host, proxy.port)), proxy.port)


def _is_plain(route: Route) -> bool:
    return route.scheme != "https" and not route.may_be_plain


async def _open(addresses: Sequence[str], port: int) -> "_Path":
    path = await _race(addresses, port)
    sock = path.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS // 4)
    return path


def addresses_in_turn(found: Sequence[tuple[int, str]]) -> list[str]:
    """The addresses of (family, address), each once: the first family's first, then one of the other (RFC 8305, 4)."""
    unique = dict.fromkeys(found)
    first_family = found[0][0] if found else 0
    first = [address for family, address in unique if family == first_family]
    others = [address for family, address in unique if family != first_family]
    return [one for one in chain.from_iterable(zip_longest(first, others)) if one is not None]


async def _race(addresses: Sequence[str], port: int) -> "_Path":
    """The first connection that stands. Each address has a little time before the next is tried as well."""
    loop = asyncio.get_running_loop()
    waiting = list(addresses)
    attempts: set[asyncio.Task[tuple[asyncio.Transport, _Path]]] = set()
    failure: OSError = OSError("no address")
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(loop.create_task(loop.create_connection(_Path, waiting.pop(0), port)))
            patience_seconds = _NEXT_ADDRESS_SECONDS if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=patience_seconds, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.discard(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()[1]
                if not isinstance(error, OSError):
                    raise error
                failure = error
        raise failure
    finally:
        for attempt in attempts:
            attempt.cancel()
            # It may have come to its end at the same moment.
            attempt.add_done_callback(_give_up)


def _give_up(attempt: "asyncio.Task[tuple[asyncio.Transport, _Path]]") -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result()[0].abort()


class _Path(asyncio.Protocol):
    """A connection on its way: until it is handed over, only a proxy has anything to say on it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._answer: asyncio.Future[None] | None = None
        self._reader = ResponseReader()

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS from here on, inside what there is."""
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(self.transport, self, context, server_hostname=host)
        if transport is None:
            raise ConnectionAbortedError
        self.transport = transport

    async def request_tunnel(self, authority: str, authorization_line: str) -> None:
        """The tunnel stands (RFC 9110, 9.3.6), or UpstreamUnreachable."""
        # An answer to CONNECT that grants it has no body, whatever its head says, and so is read like one to HEAD.
        self._reader.begin(is_head_request=True)
        self._answer = asyncio.get_running_loop().create_future()
        head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization_line}\r\n"
        self.transport.write(head.encode("latin-1"))
        await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            # Before the request, or before TLS: nobody has anything to say there.
            self.transport.abort()
            return
        problem = self._problem(data)
        if problem is not None:
            self._answer.set_exception(UpstreamUnreachable(problem))
        elif self._reader.complete:
            self._answer.set_result(None)

    def _problem(self, data: bytes) -> str | None:
        reader = self._reader
        try:
            reader.feed(data)
        except BadResponse:
            return "the proxy's answer is not well-formed HTTP"
        if reader.complete and not 200 <= reader.status < 300:
            return f"the proxy refused with status {reader.status}"
        if reader.complete and not reader.is_cleanly_ended:
            return "the proxy sent bytes of its own into the tunnel"
        return None

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(UpstreamUnreachable("the proxy closed the connection"))


@contextmanager
def _said_in_our_words(proxy: Proxy | None) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise UpstreamTimeout("no connection within the time allowed") from None
    except (OSError, ValueError, RuntimeError) as error:
        # RuntimeError: uvloop's word for some transports that are closed already.
        text = reason_of(error)
        raise UpstreamUnreachable(f"by its proxy: {text}" if proxy else text) from None


def reason_of(error: BaseException) -> str:
    """What went wrong with a connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        problem = _CERTIFICATE_PROBLEMS.get(error.verify_code, "it could not be verified")
        return f"its certificate is not valid: {problem}"
    if isinstance(error, ssl.SSLError):
        return "no TLS connection could be made"
    if isinstance(error, socket.gaierror):
        return "its host name is not known"
    number = getattr(error, "errno", None)
    return os.strerror(number) if number and number > 0 else "no connection could be made"
