"""One request, start to end: whose it is, what credentiald says, the upstream's answer as it comes.

Each step calls downward once. Until the first byte of an answer is out, anything that goes wrong is a refusal in the
shape of the route's API. After that an event stream is ended with the API's error event, and any other body by breaking
the connection: nothing that was cut ever looks whole.
"""

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import aclosing

from bridged import adapters, routes
from bridged.client_token import ClientCredentials, find_client_token
from bridged.dialects import request_facts, stream_ending
from bridged.error_answer import error_answer
from bridged.exchange import CLIENT_GONE, Exchange, TapFactory, log_end, no_tap
from bridged.headers import actor_headers, is_event_stream, request_headers, response_headers, without_token
from bridged.http_types import (
    BodyBroken,
    BodyTimeout,
    BodyTooLarge,
    ClientAnswer,
    ClientGone,
    ClientRequest,
    Tap,
    Upstream,
    UpstreamBroken,
    UpstreamRequest,
    UpstreamResponse,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from bridged.interception_id import new_interception_id
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution
from bridged.paths import Target, split_target
from bridged.resolver import Question, Resolver
from bridged.sse import StreamEnd
from daemonkit.secret import Secret

log = logging.getLogger(__name__)

# RFC 9110, 15.4: those that a client would follow.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
STOPPING = "this bridge is stopping: try again, another one or the next one will answer"


class Bridge:
    """Carries requests. Holds nothing between them but the list of those under way."""

    def __init__(
        self,
        resolver: Resolver,
        upstream: Upstream,
        metrics: Metrics,
        *,
        max_body_bytes: int,
        idle_timeout_seconds: float,
        tap_for: TapFactory = no_tap,
    ) -> None:
        self._resolver = resolver
        self._upstream = upstream
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._idle_timeout_seconds = idle_timeout_seconds
        self._tap_for = tap_for
        self._lifetimes: set[asyncio.Timeout] = set()
        self.under_way = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def drain(self) -> None:
        """From now on refuse new requests; those under way go on."""
        self._draining = True

    async def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Whether no request was under way any more within the time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def end_requests(self) -> None:
        """End what is under way: streams get the error event, other answers break."""
        now = asyncio.get_running_loop().time()
        for lifetime in self._lifetimes:
            if not lifetime.expired():
                lifetime.reschedule(now)

    async def serve(self, request: ClientRequest, answer: ClientAnswer) -> None:
        """Answer one request. Raises nothing but the cancellation that a leaving client causes."""
        exchange = Exchange(
            request=request,
            answer=answer,
            interception_id=new_interception_id(),
            dialect=routes.dialect_of_target(request.raw_target, request.headers),
        )
        began = asyncio.get_running_loop().time()
        self._begin()
        try:
            await self._serve(exchange)
        except asyncio.CancelledError:
            exchange.error = CLIENT_GONE
            raise
        finally:
            self._end(exchange, asyncio.get_running_loop().time() - began)

    def _begin(self) -> None:
        self.under_way += 1
        self._idle.clear()
        self._metrics.in_flight.inc()

    def _end(self, exchange: Exchange, seconds: float) -> None:
        self.under_way -= 1
        if not self.under_way:
            self._idle.set()
        self._metrics.in_flight.dec()
        whole = exchange.error != CLIENT_GONE and not (exchange.error and exchange.sent_bytes)
        self._metrics.answered(exchange.match.operation if exchange.match else "", exchange.status if whole else None)
        log_end(exchange, seconds)

    async def _serve(self, exchange: Exchange) -> None:
        lifetime = asyncio.timeout(None)
        try:
            try:
                async with lifetime:
                    self._lifetimes.add(lifetime)
                    await self._carry(exchange)
            finally:
                # Before anything else is awaited: end_requests must not meet a lifetime that is over.
                self._lifetimes.discard(lifetime)
        except Refused as refused:
            await self._refuse(exchange, refused)
        except TimeoutError:
            await self._refuse(exchange, Refused("CAPACITY", STOPPING))
        except ClientGone:
            exchange.error = CLIENT_GONE
            exchange.answer.abort()
        except Exception:
            log.exception("unhandled error", extra={"interception_id": exchange.interception_id})
            await self._refuse(exchange, Refused("INTERNAL", "the bridge failed: the operator finds more in its log"))

    async def _carry(self, exchange: Exchange) -> None:
        request = exchange.request
        if self._draining:
            raise Refused("CAPACITY", STOPPING)
        target = split_target(request.raw_target)
        exchange.provider = target.provider
        if request.method == "HEAD" and target.is_instance_root:
            await _answer_probe(exchange)
            return
        match = exchange.match = routes.match(request.method, target.path, request.headers, target.query)
        exchange.dialect = match.dialect
        client = find_client_token(request.headers, target.query)
        if client.token is None:
            raise Refused(
                "ACCESS_TOKEN_MISSING",
                "the request carries no access token: send the token an administrator made for you, "
                "for example as 'Authorization: Bearer dbu_…' or as the API key of the SDK",
            )
        if (request.content_length or 0) > self._max_body_bytes:
            raise self._refused_body(BodyTooLarge())
        body = await self._body(exchange) if match.route.intercepted else None
        exchange.facts = request_facts(match, request.headers, body)
        resolution = exchange.resolution = await self._resolve(exchange, target, match, client, client.token)
        outgoing = self._outgoing(exchange, match, resolution, client, body)
        await self._relay(exchange, outgoing)

    async def _body(self, exchange: Exchange) -> bytes:
        try:
            return await exchange.request.read_body(limit_bytes=self._max_body_bytes)
        except (BodyTooLarge, BodyBroken, BodyTimeout) as error:
            raise self._refused_body(error) from None

    async def _resolve(
        self, exchange: Exchange, target: Target, match: routes.RouteMatch, client: ClientCredentials, token: Secret
    ) -> Resolution:
        question = Question(
            provider=target.provider,
            access_token=token,
            operation=match.operation,
            model=exchange.facts.model,
            presented_key=client.presented is not None,
            interception_id=exchange.interception_id,
        )
        try:
            resolution = await self._resolver.resolve(question)
        except Refused as refused:
            self._metrics.resolved(refused.reason)
            raise
        self._metrics.resolved("OK")
        return resolution

    def _outgoing(
        self,
        exchange: Exchange,
        match: routes.RouteMatch,
        resolution: Resolution,
        client: ClientCredentials,
        body: bytes | None,
    ) -> UpstreamRequest:
        request = exchange.request
        address = adapters.address(resolution, match, query=client.query_without_key, presented=client.presented)
        streamed = body is None and request.content_length != 0
        return UpstreamRequest(
            method=request.method,
            scheme=address.scheme,
            host=address.host,
            port=address.port,
            target=address.target,
            headers=request_headers(
                without_token(request.headers, client.token),
                intercepted=match.route.intercepted,
                added=(*address.headers, *actor_headers(resolution)),
            ),
            body=request.body_stream(limit_bytes=self._max_body_bytes) if streamed else body,
            content_length=request.content_length,
        )

    async def _relay(self, exchange: Exchange, outgoing: UpstreamRequest) -> None:
        response = await self._send(outgoing)
        try:
            _refuse_redirect(response.status)
            headers = response_headers(response.headers, interception_id=exchange.interception_id)
            if is_event_stream(response.headers):
                exchange.stream_end = StreamEnd()
            exchange.status = response.status
            await exchange.answer.start(response.status, headers)
            await self._relay_body(exchange, response)
            await self._patiently(exchange.answer.finish())
        finally:
            response.close()

    async def _relay_body(self, exchange: Exchange, response: UpstreamResponse) -> None:
        tap = self._tap_for(exchange)
        try:
            async with aclosing(response.chunks()) as chunks:
                async for chunk in chunks:
                    await self._forward(exchange, chunk)
                    tap = _fed(tap, chunk)
        except UpstreamBroken:
            raise self._failed("UPSTREAM_UNREACHABLE", "the upstream's answer broke off: try again") from None
        except UpstreamTimeout:
            raise self._failed("UPSTREAM_TIMEOUT", "the upstream's answer stopped coming: try again") from None
        if exchange.stream_end is not None and exchange.stream_end.is_open:
            # A stream that ends with its connection has no other mark of its end than that an event is whole.
            raise self._failed("UPSTREAM_UNREACHABLE", "the upstream's answer broke off: try again")

    async def _send(self, outgoing: UpstreamRequest) -> UpstreamResponse:
        try:
            return await self._upstream.send(outgoing)
        except UpstreamUnreachable as error:
            raise self._failed("UPSTREAM_UNREACHABLE", f"the upstream could not be reached ({error})") from None
        except UpstreamTimeout:
            raise self._failed("UPSTREAM_TIMEOUT", "the upstream did not answer in time: try again") from None
        except (BodyTooLarge, BodyBroken, BodyTimeout) as error:
            raise self._refused_body(error) from None

    async def _forward(self, exchange: Exchange, chunk: bytes) -> None:
        if exchange.stream_end is not None:
            exchange.stream_end.feed(chunk)
        exchange.sent_bytes += len(chunk)
        await self._patiently(exchange.answer.write(chunk))

    async def _patiently(self, sending: Awaitable[None]) -> None:
        """Wait for a client that may be slow to read, but not for ever."""
        try:
            async with asyncio.timeout(self._idle_timeout_seconds):
                await sending
        except TimeoutError:
            raise ClientGone from None

    async def _refuse(self, exchange: Exchange, refused: Refused) -> None:
        """Tell the client, in the way that is left: a whole answer, the end of a stream, or a broken connection."""
        exchange.error = refused.reason
        answer = exchange.answer
        try:
            if not answer.started:
                error = error_answer(refused, exchange.dialect, exchange.interception_id)
                exchange.status = error.status
                await answer.start(error.status, error.headers)
                await self._patiently(answer.write(error.body))
                await self._patiently(answer.finish())
            elif exchange.stream_end is not None:
                ending = stream_ending(exchange.dialect, exchange.stream_end, refused, exchange.interception_id)
                await self._patiently(answer.write(ending))
                await self._patiently(answer.finish())
            else:
                exchange.status = None
                answer.abort()
        except ClientGone:
            answer.abort()

    def _failed(self, reason: str, message: str) -> Refused:
        self._metrics.upstream_failed(reason)
        return Refused(reason, message)

    def _refused_body(self, error: Exception) -> Refused:
        if isinstance(error, BodyTooLarge):
            return Refused("BODY_TOO_LARGE", f"the body is over the limit of {self._max_body_bytes} bytes: send less")
        if isinstance(error, BodyTimeout):
            return Refused("REQUEST_TIMEOUT", "the body stopped arriving: send it again, faster")
        return Refused("INVALID_REQUEST", "the body is not well-formed HTTP, or shorter than its Content-Length")


def _refuse_redirect(status: int) -> None:
    """Not followed, and not handed on either: the client would take its token to a host of the upstream's choice."""
    if status in _REDIRECTS:
        raise Refused(
            "UPSTREAM_UNREACHABLE",
            f"the upstream answered with a redirect ({status}): an administrator may correct the provider's base URL",
        )


async def _answer_probe(exchange: Exchange) -> None:
    """Claude Code asks with HEAD whether there is anybody; nobody else needs to be asked for that."""
    exchange.status = 200
    headers = (("X-Interception-Id", exchange.interception_id), ("Content-Length", "0"))
    await exchange.answer.start(200, headers)
    await exchange.answer.finish()


def _fed(tap: Tap | None, chunk: bytes) -> Tap | None:
    """The tap, or None once it has failed: reading along never disturbs the client."""
    if tap is None:
        return None
    try:
        tap.feed(chunk)
    except Exception:
        log.exception("a tap failed and was taken away")
        return None
    return tap
