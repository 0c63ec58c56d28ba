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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestPayloadError

from bridged.aiohttp_headers import from_raw, to_aiohttp
from bridged.error_answer import ErrorAnswer, error_answer
from bridged.http_types import BodyBroken, BodyTimeout, BodyTooLarge, ClientAnswer, ClientGone, ClientRequest
from bridged.interception_id import new_interception_id
from bridged.model import Headers, Refused
from bridged.routes import dialect_of_target
from daemonkit.binding import bind
from daemonkit.health import readiness_body
from daemonkit.http_server import QuietProtocol
from daemonkit.listen import Address

log = logging.getLogger(__name__)

Exchange = Callable[[ClientRequest, ClientAnswer], Awaitable[None]]
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

    def __init__(self, exchange: Exchange, not_ready: NotReady, *, idle_timeout_seconds: float) -> None:
        self.addresses: tuple[Address, ...] = ()
        self.draining = False
        self.idle_timeout_seconds = idle_timeout_seconds
        self._exchange = exchange
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
        request = _Request(raw, idle_timeout_seconds=self.idle_timeout_seconds)
        answer = _Answer(raw, self)
        refused = _unfit(request, raw)
        if refused is not None:
            await _refuse(request, answer, refused)
        elif request.method in ("GET", "HEAD") and request.raw_target in HEALTH_PATHS:
            await _tell_health(request, answer, self._not_ready())
        else:
            await self._exchange(request, answer)
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


def _unfit(request: "_Request", raw: web.BaseRequest) -> Refused | None:
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


class _Request:
    """See http_types.ClientRequest."""

    def __init__(self, raw: web.BaseRequest, *, idle_timeout_seconds: float) -> None:
        self.method = raw.method
        self.raw_target = raw.raw_path
        self.headers: Headers = from_raw(raw.raw_headers)
        self._raw = raw
        self._content: StreamReader = raw.content
        self._idle_timeout_seconds = idle_timeout_seconds

    @property
    def content_length(self) -> int | None:
        if self._content.is_eof() and not self._content.total_bytes:
            return 0
        return self._raw.content_length

    async def read_body(self, *, limit_bytes: int) -> bytes:
        return b"".join([chunk async for chunk in self.body_stream(limit_bytes=limit_bytes)])

    async def body_stream(self, *, limit_bytes: int) -> AsyncIterator[bytes]:
        if (self._raw.content_length or 0) > limit_bytes:
            raise BodyTooLarge
        self._say_continue()
        received_bytes = 0
        while chunk := await self._next_chunk():
            received_bytes += len(chunk)
            if received_bytes > limit_bytes:
                raise BodyTooLarge
            yield chunk

    async def _next_chunk(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_timeout_seconds):
                return await self._content.readany()
        except TimeoutError:
            raise BodyTimeout from None
        except ConnectionError:
            raise ClientGone from None
        except (RequestPayloadError, web.PayloadAccessError, ValueError):
            raise BodyBroken from None

    def _say_continue(self) -> None:
        """Only now, when the body is wanted: a client that asked first is spared sending one that is refused."""
        expects = self._raw.headers.get("Expect", "").lower() == "100-continue"
        transport = self._raw.transport
        if expects and transport is not None and self._raw.version >= (1, 1) and not self._content.is_eof():
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class _Answer:
    """See http_types.ClientAnswer."""

    def __init__(self, raw: web.BaseRequest, server: BridgeServer) -> None:
        self._raw = raw
        self._server = server
        self._response: _Response | None = None
        self._transport = raw.transport

    @property
    def started(self) -> bool:
        return self._response is not None

    def response(self) -> web.StreamResponse:
        """What aiohttp wants back; all of it has been sent, or the connection is broken."""
        if self._response is None:
            raise ConnectionResetError("the exchange ended without an answer")
        return self._response

    async def start(self, status: int, headers: Headers, *, close: bool = False) -> None:
        self._response = _Response(status=status, headers=to_aiohttp(headers))
        # Where a body is left that nobody wants, the next request cannot be found.
        if close or self._server.draining or not self._raw.content.is_eof():
            self._response.force_close()
        with _client_gone():
            await self._response.prepare(self._raw)

    async def write(self, chunk: bytes) -> None:
        if chunk and self._response is not None and self._raw.method != "HEAD":
            with _client_gone():
                await self._response.write(chunk)

    async def finish(self) -> None:
        if self._response is not None:
            if self._server.draining:
                self._response.force_close()
            with _client_gone():
                await self._response.write_eof()

    def abort(self) -> None:
        # Once a byte is out, nothing but the end of the connection says that the answer is not whole.
        if self._transport is not None:
            self._transport.abort()


@contextlib.contextmanager
def _client_gone() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        raise ClientGone from None


class _Response(web.StreamResponse):
    """A response without the headers that aiohttp invents."""

    async def _prepare_headers(self) -> None:
        invented = [name for name in ("Server", "Content-Type") if name not in self.headers]
        await super()._prepare_headers()
        for name in invented:
            self.headers.popall(name, None)


class _WholeResponse(_Response, web.Response):
    """The same with a body that is known."""


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
        response = _WholeResponse(status=error.status, body=error.body, headers=to_aiohttp(error.headers))
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
    exchange: Exchange,
    addresses: Sequence[Address],
    *,
    not_ready: NotReady,
    idle_timeout_seconds: float,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[BridgeServer]:
    """A listening server for the length of the block. How it is drained is up to the block (serve.py)."""
    server = BridgeServer(exchange, not_ready, idle_timeout_seconds=idle_timeout_seconds)
    try:
        for address in addresses:
            await server.listen(address, tls)
        yield server
    finally:
        await server.close(timeout_seconds=1.0)
