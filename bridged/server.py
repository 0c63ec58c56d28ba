"""The listeners in front, with aiohttp's low-level server for now: bytes to a request, an answer to bytes.

What aiohttp would do by itself and must not (tried with 3.14; the tests hold it):
- a malformed request is neither quoted in the answer nor logged: the quoted line may be the client's token;
- targets stay as sent, bodies are not decompressed, no `Server` or `Content-Type` is added;
- what it accepts and we do not is refused here: long heads, `Transfer-Encoding: gzip, chunked`, HTTP/0.9, CONNECT.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from bridged.aiohttp_exchange import AiohttpAnswer, AiohttpRequest, WholeResponse
from bridged.aiohttp_headers import to_aiohttp
from bridged.error_answer import ErrorAnswer, error_answer
from bridged.http_types import ClientAnswer, ClientGone, ClientRequest
from bridged.interception_id import new_interception_id
from bridged.model import Refused
from bridged.routes import dialect_of_target
from daemonkit.binding import bind
from daemonkit.health import readiness_body
from daemonkit.http_server import QuietProtocol
from daemonkit.listen import Address

log = logging.getLogger(__name__)

Serve = Callable[[ClientRequest, ClientAnswer], Awaitable[None]]
NotReady = Callable[[], list[str]]

# interfaces.md and platform-notes: Codex sends a JSON header of 1.2 KB; nobody sends more than these.
MAX_FIELD_BYTES = 32 * 1024
MAX_HEAD_BYTES = 64 * 1024
HEALTH_PATHS = ("/healthz", "/readyz")
_MAX_HEADERS = 256
# How long a connection lives without a request, and how long a body that nobody reads is drained, so that the client
# gets to read why.
_KEEPALIVE_SECONDS = 75.0
_LINGER_SECONDS = 10.0


class BridgeServer:
    """Connections and the requests on them. `draining` tells clients to go elsewhere."""

    def __init__(self, serve: Serve, not_ready: NotReady, *, idle_timeout_seconds: float) -> None:
        self.addresses: tuple[Address, ...] = ()
        self.draining = False
        self.idle_timeout_seconds = idle_timeout_seconds
        self._serve = serve
        self._not_ready = not_ready
        self._listeners: list[asyncio.Server] = []
        self._protocols = _Protocols(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=_MAX_HEADERS,
        )

    async def listen(self, address: Address, tls: ssl.SSLContext | None) -> None:
        """Accept connections on an address, too. AddressTaken where it is taken."""
        listener, address = await bind(self._protocols, address, setting_name="listen", tls=tls)
        self._listeners.append(listener)
        self.addresses += (address,)

    def stop_accepting(self) -> None:
        """Close the listeners. Connections stay, and each is closed with its next answer."""
        self.draining = True
        for listener in self._listeners:
            listener.close()

    async def close(self, timeout_seconds: float) -> None:
        """Break what is left after the time."""
        self.stop_accepting()
        self._protocols.pre_shutdown()
        await self._protocols.shutdown(timeout_seconds)

    async def _handle(self, raw: web.BaseRequest) -> web.StreamResponse:
        request = AiohttpRequest(raw, idle_timeout_seconds=self.idle_timeout_seconds)
        answer = AiohttpAnswer(raw, is_draining=lambda: self.draining)
        refused = _unfit(request, raw)
        if refused is not None:
            await _refuse(request, answer, refused)
        elif request.method in ("GET", "HEAD") and request.raw_target in HEALTH_PATHS:
            await _tell_health(request, answer, self._not_ready())
        else:
            await self._serve(request, answer)
        return answer.response()


async def _tell_health(request: ClientRequest, answer: ClientAnswer, not_ready: list[str]) -> None:
    """`/healthz`: the loop is alive. `/readyz`: whether to send requests here, and if not, why."""
    if request.raw_target == "/readyz":
        status, body, content_type = (503 if not_ready else 200), readiness_body(not_ready), "application/json"
    else:
        status, body, content_type = 200, b"ok\n", "text/plain; charset=utf-8"
    with contextlib.suppress(ClientGone):
        await answer.start(status, (("Content-Type", content_type), ("Content-Length", str(len(body)))))
        await answer.write(body)
        await answer.finish()


def _unfit(request: ClientRequest, raw: web.BaseRequest) -> Refused | None:
    """What is wrong with a head that aiohttp let pass."""
    if raw.version < (1, 0):
        return Refused("INVALID_REQUEST", "the bridge speaks HTTP/1.1 and HTTP/1.0")
    if request.method == "CONNECT":
        return Refused("INVALID_REQUEST", "the bridge is no proxy: CONNECT is not supported")
    codings = [value.strip().lower() for name, value in request.headers if name.lower() == "transfer-encoding"]
    if codings not in ([], ["chunked"]):
        return Refused("INVALID_REQUEST", "the only Transfer-Encoding of a request is 'chunked'")
    size_bytes = len(request.method) + len(request.raw_target) + len("  HTTP/1.1\r\n\r\n")
    size_bytes += sum(len(name) + len(value) + len(": \r\n") for name, value in request.headers)
    if size_bytes > MAX_HEAD_BYTES:
        return Refused("HEAD_TOO_LARGE", f"the request's head is over the limit of {MAX_HEAD_BYTES} bytes")
    return None


async def _refuse(request: ClientRequest, answer: ClientAnswer, refused: Refused) -> None:
    """Answer a request that the bridge does not get to see. The framing is in doubt, so the connection ends."""
    dialect = dialect_of_target(request.raw_target, request.headers)
    error = error_answer(refused, dialect, new_interception_id())
    with contextlib.suppress(ClientGone):
        await answer.start(error.status, error.headers, close=True)
        await answer.write(error.body)
        await answer.finish()


class _Protocols(web.Server):
    """Makes a protocol for each connection."""

    def __call__(self) -> QuietProtocol:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(QuietProtocol):
    """One connection, whose errors are answered in our shape and without quoting the client."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer is under way, no other can follow it")
        if status >= 500 and not isinstance(exc, ConnectionError):
            log.error("a request failed", exc_info=exc)
        error = _error_of(status, exc, message)
        response = WholeResponse(status=error.status, body=error.body, headers=to_aiohttp(error.headers))
        response.force_close()
        return response


def _error_of(status: int, exc: BaseException | None, message: str | None) -> ErrorAnswer:
    """The answer to a head that could not be read: nothing in it may come from the head."""
    if status >= 500:
        refused = Refused("INTERNAL", "the bridge failed: the operator finds more in its log")
    elif isinstance(exc, LineTooLong) or (message or "").startswith("Too many headers"):
        refused = Refused("HEAD_TOO_LARGE", "the request's head is over the limit of the bridge")
    else:
        refused = Refused("INVALID_REQUEST", "the request is not well-formed HTTP")
    return error_answer(refused, dialect_of_target("/", ()), new_interception_id())


@asynccontextmanager
async def running_server(
    serve: Serve,
    addresses: Sequence[Address],
    *,
    not_ready: NotReady,
    idle_timeout_seconds: float,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[BridgeServer]:
    """A listening server for the length of the block. How it is drained is up to the block (serve.py)."""
    server = BridgeServer(serve, not_ready, idle_timeout_seconds=idle_timeout_seconds)
    try:
        for address in addresses:
            await server.listen(address, tls)
        yield server
    finally:
        await server.close(timeout_seconds=1.0)
