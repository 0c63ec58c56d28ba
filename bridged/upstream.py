"""Sends requests to upstreams, with aiohttp's client for now.

The client is stripped of everything it does by itself: it follows no redirect, keeps no cookie, reads neither proxy
variables nor netrc, decompresses nothing and adds no header but Host and the framing. So the bytes that the adapter
decided on are the bytes that leave, and the destination is the one it decided on.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from bridged.aiohttp_headers import from_raw, to_aiohttp
from bridged.http_types import (
    UpstreamBroken,
    UpstreamRequest,
    UpstreamResponse,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from bridged.model import Headers

# aiohttp adds these where they are missing; an upstream should see what the client sent, and nothing of ours.
_NOT_ADDED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
# Rate limits and policies make long heads; one field may take what a whole request head may take at our door.
_MAX_FIELD_BYTES = 64 * 1024


@asynccontextmanager
async def running_upstream(
    *,
    connect_timeout_seconds: float,
    first_byte_timeout_seconds: float,
    idle_timeout_seconds: float,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator["AiohttpUpstream"]:
    """A pool of upstream connections for the length of the block. `tls` None means the system's trust store."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=tls if tls is not None else True),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout_seconds),
        skip_auto_headers=_NOT_ADDED,
        auto_decompress=False,
        trust_env=False,
        max_line_size=_MAX_FIELD_BYTES,
        max_field_size=_MAX_FIELD_BYTES,
    )
    async with session:
        yield AiohttpUpstream(
            session,
            first_byte_timeout_seconds=first_byte_timeout_seconds,
            idle_timeout_seconds=idle_timeout_seconds,
        )


class AiohttpUpstream:
    """See http_types.Upstream."""

    def __init__(
        self, session: aiohttp.ClientSession, *, first_byte_timeout_seconds: float, idle_timeout_seconds: float
    ) -> None:
        self._session = session
        self._first_byte_timeout_seconds = first_byte_timeout_seconds
        self._idle_timeout_seconds = idle_timeout_seconds

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """The answer's head.

        While the next piece of the body is awaited the clock of the first byte stands still, so that a slow client is
        not taken for a slow upstream.
        """
        body = _Body(request.body)
        headers = to_aiohttp(request.headers)
        if request.content_length is not None and not isinstance(request.body, bytes | None):
            headers["Content-Length"] = str(request.content_length)
        try:
            async with asyncio.timeout(self._first_byte_timeout_seconds) as body.waiting_time:
                response = await self._session.request(
                    request.method,
                    _url(request),
                    headers=headers,
                    data=body.content(self._first_byte_timeout_seconds),
                    allow_redirects=False,
                )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if body.failure is not None:
                raise body.failure from None
            # The texts of these errors may quote what the peer sent, so only their kind goes on.
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout(_kind(error)) from None
            raise UpstreamUnreachable(_kind(error)) from None
        finally:
            body.waiting_time = None
        if response.status == 101:
            # We never ask for an upgrade; what follows would not be HTTP.
            response.close()
            raise UpstreamUnreachable("unasked upgrade")
        return _AiohttpResponse(response, self._idle_timeout_seconds)


class _Body:
    """The request's body on its way to aiohttp: keeps the error that ended it, and stops the clock for the client."""

    def __init__(self, body: bytes | AsyncIterator[bytes] | None) -> None:
        self.failure: Exception | None = None
        self.waiting_time: asyncio.Timeout | None = None
        self._body = body

    def content(self, first_byte_timeout_seconds: float) -> bytes | AsyncIterator[bytes] | None:
        if isinstance(self._body, bytes | None):
            return self._body
        return self._watched(self._body, first_byte_timeout_seconds)

    async def _watched(self, stream: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
        try:
            self._allow(None)
            async for chunk in stream:
                self._allow(seconds)
                yield chunk
                self._allow(None)
            self._allow(seconds)
        except Exception as error:
            self.failure = error
            raise

    def _allow(self, seconds: float | None) -> None:
        # An upstream may answer before it has the whole body; then there is no clock any more.
        if self.waiting_time is not None and not self.waiting_time.expired():
            now = asyncio.get_running_loop().time()
            self.waiting_time.reschedule(None if seconds is None else now + seconds)


class _AiohttpResponse:
    """See http_types.UpstreamResponse."""

    def __init__(self, response: aiohttp.ClientResponse, idle_timeout_seconds: float) -> None:
        self._response = response
        self._idle_timeout_seconds = idle_timeout_seconds
        self.status: int = response.status
        self.headers: Headers = from_raw(response.raw_headers)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        content = self._response.content
        while True:
            try:
                async with asyncio.timeout(self._idle_timeout_seconds):
                    chunk = await content.readany()
            except TimeoutError as error:
                raise UpstreamTimeout(_kind(error)) from None
            except (aiohttp.ClientError, OSError) as error:
                raise UpstreamBroken(_kind(error)) from None
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        self._response.close()


def _url(request: UpstreamRequest) -> URL:
    """The destination, told to yarl as already encoded: otherwise it would decode and re-encode the path."""
    host = f"[{request.host}]" if ":" in request.host else request.host
    port = "" if request.port is None else f":{request.port}"
    return URL(f"{request.scheme}://{host}{port}{request.target}", encoded=True)


def _kind(error: BaseException) -> str:
    """What went wrong, in words that hold nothing of what the peer sent, nor where it is."""
    certificate_error = getattr(error, "certificate_error", None)
    if certificate_error is not None:
        return f"its certificate is not valid: {getattr(certificate_error, 'verify_message', 'unknown reason')}"
    cause = getattr(error, "os_error", error)
    if isinstance(cause, socket.gaierror):
        return "its host name is not known"
    if isinstance(cause, ssl.SSLError):
        return "no TLS connection could be made"
    number = getattr(cause, "errno", None)
    return os.strerror(number) if number and number > 0 else type(error).__name__
