"""The two seams of the data path: all that bridge.py knows of HTTP.

In front stands a server that turns bytes into a ClientRequest and a ClientAnswer (server.py); behind stands an
Upstream that sends an UpstreamRequest (upstream.py). Which library stands at either end is nobody else's business.

What every implementation holds to:
- header pairs and targets are as they were on the wire (latin-1 text), never normalised or re-encoded;
- bodies are never compressed or decompressed;
- when the client leaves, the task that runs its exchange is cancelled.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from bridged.model import Headers


class ClientGone(Exception):
    """The client's connection is closed: nothing more can be written to it."""


class BodyTooLarge(Exception):
    """The client's body is over the limit, by its Content-Length or by what has arrived so far."""


class BodyBroken(Exception):
    """The client's body is not well-formed HTTP, or stopped short of its length."""


class BodyTimeout(Exception):
    """The client's body stopped arriving."""


class UpstreamUnreachable(Exception):
    """No connection could be made, or it broke before the answer's head was complete."""


class UpstreamTimeout(Exception):
    """Connecting, the first byte or the next byte took longer than its limit."""


class UpstreamBroken(Exception):
    """The answer's body ended before its time."""


class ClientRequest(Protocol):
    """A request whose head has arrived; the body may still be on its way."""

    @property
    def method(self) -> str: ...

    @property
    def raw_target(self) -> str:
        """The request-target as sent."""

    @property
    def headers(self) -> Headers: ...

    @property
    def content_length(self) -> int | None:
        """The body's length; 0 where there is no body, None where it comes in chunks."""

    async def read_body(self, *, limit_bytes: int) -> bytes:
        """The whole body. Raises BodyTooLarge, before reading where the length is declared, BodyBroken, BodyTimeout."""

    def body_stream(self, *, limit_bytes: int) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises like `read_body`."""


class ClientAnswer(Protocol):
    """The answer to one request: `start`, any number of `write`, then `finish` or `abort`.

    All but `abort` raise ClientGone. `write` returns when the bytes are on their way, which may take as long as a slow
    reader does.
    """

    @property
    def started(self) -> bool:
        """Whether a byte may have left: from then on only `write`, `finish` and `abort` make sense."""

    async def start(self, status: int, headers: Headers, *, close: bool = False) -> None:
        """Send the head. Without Content-Length the body is chunked. `close`: the connection ends after this."""

    async def write(self, chunk: bytes) -> None: ...

    async def finish(self) -> None:
        """End the body properly."""

    def abort(self) -> None:
        """Break the connection, so that what was sent so far cannot be taken for a whole answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """One request as it leaves us: destination, head, body.

    `host` is without brackets; `target` is the raw path with query; `headers` lack Host and Content-Length, which the
    upstream adds. `body` None means that there is none; a stream with `content_length` None leaves chunked.
    """

    method: str
    scheme: str
    host: str
    port: int | None
    target: str
    headers: Headers
    body: bytes | AsyncIterator[bytes] | None = None
    content_length: int | None = None


class UpstreamResponse(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers: ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives. Raises UpstreamBroken, UpstreamTimeout."""

    def close(self) -> None:
        """Done with it. An answer that was not read to its end takes its connection with it."""


class Upstream(Protocol):
    """Sends requests. Follows no redirects, keeps no cookies, reads no proxy or netrc settings."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """The answer's head. Raises UpstreamUnreachable, UpstreamTimeout; errors of `request.body` pass through."""


class Tap(Protocol):
    """Reads a copy of the answer's body. What it raises never reaches the client."""

    def feed(self, chunk: bytes) -> None: ...
