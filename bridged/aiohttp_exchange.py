"""One request and its answer, as aiohttp's low-level server has them, in the shape of http_types.py."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestPayloadError

from bridged.aiohttp_headers import from_raw, to_aiohttp
from bridged.http_types import BodyBroken, BodyTimeout, BodyTooLarge, ClientGone
from bridged.model import Headers


class AiohttpRequest:
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


class AiohttpAnswer:
    """See http_types.ClientAnswer."""

    def __init__(self, raw: web.BaseRequest, *, is_draining: Callable[[], bool]) -> None:
        self._raw = raw
        self._is_draining = is_draining
        self._response: BareResponse | None = None
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
        self._response = BareResponse(status=status, headers=to_aiohttp(headers))
        # Where a body is left that nobody wants, the next request cannot be found.
        if close or self._is_draining() or not self._raw.content.is_eof():
            self._response.force_close()
        with _client_gone():
            await self._response.prepare(self._raw)

    async def write(self, chunk: bytes) -> None:
        if chunk and self._response is not None and self._raw.method != "HEAD":
            with _client_gone():
                await self._response.write(chunk)

    async def finish(self) -> None:
        if self._response is not None:
            if self._is_draining():
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


class BareResponse(web.StreamResponse):
    """A response without the headers that aiohttp invents."""

    async def _prepare_headers(self) -> None:
        invented = [name for name in ("Server", "Content-Type") if name not in self.headers]
        await super()._prepare_headers()
        for name in invented:
            self.headers.popall(name, None)


class WholeResponse(BareResponse, web.Response):
    """The same with a body that is known."""
