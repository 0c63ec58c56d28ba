"""Services for the server side of bridged.http1, and a listening server with one of them.

async with http1_server(Echo()) as server:             # server.port; server.service.seen has each exchange
    answer = await raw_exchange(server.port, request("POST", "/x", body=b"hello"))
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bridged.http1.downstream import Exchange, Framing, Limits, Request, Server, listening
from bridged.http_types import BodyBroken, BodyTimeout, BodyTooLarge
from bridged.model import Headers
from daemonkit.listen import Address
from tests.support.raw_http import RawClient

LIMIT_BYTES = 1 << 20
LOOPBACK = Address(host="127.0.0.1")
STATUS_OF = {"INVALID_REQUEST": 400, "HEAD_TOO_LARGE": 431, "REQUEST_TIMEOUT": 408, "CAPACITY": 503}
STATUS_OF_FAILURE = {BodyTooLarge: 413, BodyBroken: 400, BodyTimeout: 408}


@dataclass(slots=True, eq=False)
class Seen:
    """One exchange, and all that its carrier was told. The carrier is this itself; `answer` says what to do."""

    exchange: Exchange
    answer: Callable[["Seen"], None]
    parts: list[bytes] = field(default_factory=list)
    whole: bytes | None = None
    ended: bool = False
    failed: Exception | None = None
    gone: bool = False
    told: list[str] = field(default_factory=list)
    on_resume: Callable[[], None] | None = None

    @property
    def request(self) -> Request:
        return self.exchange.request

    @property
    def body(self) -> bytes:
        return b"".join(self.parts) if self.whole is None else self.whole

    def body_part(self, data: bytes) -> None:
        self.parts.append(data)

    def body_end(self) -> None:
        self.ended = True
        self.answer(self)

    def body_whole(self, data: bytes) -> None:
        self.whole, self.ended = data, True
        self.answer(self)

    def body_failed(self, error: BodyTooLarge | BodyBroken | BodyTimeout) -> None:
        self.failed = error
        reply(self.exchange, STATUS_OF_FAILURE[type(error)], type(error).__name__.encode())

    def client_gone(self) -> None:
        self.gone = True

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")
        if self.on_resume is not None:
            self.on_resume()


def reply(exchange: Exchange, status: int, body: bytes = b"") -> None:
    """A whole answer."""
    exchange.send_head(status, (("Content-Length", str(len(body))),), body=Framing.LENGTH)
    exchange.send(body)
    exchange.finish()


def echo(seen: Seen) -> None:
    """The body, back."""
    reply(seen.exchange, 200, seen.body)


def hold(seen: Seen) -> None:
    """Nothing: the test answers."""
    del seen


class Scripted:
    """Answers each request with `answer` once its body is there, gathered or streamed."""

    def __init__(
        self, answer: Callable[[Seen], None] = echo, *, whole: bool = True, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self.seen: list[Seen] = []
        self.refused: list[tuple[str, str]] = []
        self._answer = answer
        self._whole = whole
        self._limit_bytes = limit_bytes

    def begin(self, exchange: Exchange) -> Seen:
        seen = Seen(exchange, self._answer)
        self.seen.append(seen)
        if self._whole:
            exchange.read_whole(self._limit_bytes)
        else:
            exchange.read_stream(self._limit_bytes)
        return seen

    def refuse(self, reason: str, *, detail: str, target: str, headers: Headers) -> tuple[int, Headers, bytes]:
        del target, headers
        self.refused.append((reason, detail))
        body = f"{reason}: {detail}".encode()
        return STATUS_OF[reason], (("X-Refused", reason), ("Content-Length", str(len(body)))), body


class Unread(Scripted):
    """Chooses nothing in `begin`: the test does, with the exchange."""

    def begin(self, exchange: Exchange) -> Seen:
        seen = Seen(exchange, self._answer)
        self.seen.append(seen)
        return seen


@dataclass(slots=True, frozen=True)
class Running:
    """A listening server and its port."""

    server: Server
    port: int


@asynccontextmanager
async def http1_server(
    service: Scripted, *, limits: Limits | None = None, address: Address = LOOPBACK, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Running]:
    """Listening on a loopback port for the length of the block."""
    async with listening(service, (address,), limits=limits, tls=tls) as server:
        yield Running(server, server.addresses[0].port)


async def until(condition: Callable[[], bool], *, timeout_seconds: float = 5.0) -> None:
    """Wait for something that comes about without telling."""
    async with asyncio.timeout(timeout_seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def closed_silently(client: RawClient) -> bool:
    """Whether the server ends the connection without a word."""
    return await client.read_to_end() == b""
