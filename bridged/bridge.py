"""The bridge as a service of the HTTP server: an Interception for each request, and what they share.

Holds nothing between requests but the list of those under way, and memories of what paths mean.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING

from bridged import routes
from bridged.answer_to_asking import UpstreamsNotToAsk
from bridged.aws.sigv4 import SigningKeys
from bridged.breaking import Breaking
from bridged.dump.dumper import Dumper
from bridged.endings import CLIENT_GONE
from bridged.error_answer import error_answer
from bridged.health_answer import HealthAnswer
from bridged.http1.exchange import Carrier, Exchange
from bridged.http1.fields import field_lines
from bridged.http1.framing import Request
from bridged.http1.pool import UpstreamPool
from bridged.ids import new_id
from bridged.interception import Interception
from bridged.limits.entrance import Entrance
from bridged.metrics import Metrics
from bridged.model import DialectName, Headers, Refused
from bridged.outcomes import EXHAUSTED, Outcomes, exhausted
from bridged.paths import Target, split_target
from bridged.provider_switch import ProviderSwitch
from bridged.recorder import Recorder
from bridged.recording import TapMaker
from bridged.reporting import Reporting
from bridged.resolver import Resolver
from bridged.taps import answer_tap
from bridged.trace_headers import TraceHeaders
from bridged.watch import DEFAULT_ENDS_ON, EndsOn, News, Taken

if TYPE_CHECKING:
    from bridged.tracing import Tracing

log = logging.getLogger(__name__)

ASKS_EVERYBODY = ProviderSwitch()
STOPPING = "this bridge is stopping: try again, another one or the next one will answer"
MOST_GATHERED_BYTES = 1024 * 1024 * 1024
# How many targets the bridge remembers, and how long they may be.
_REMEMBERED_TARGETS = 2048
_REMEMBERED_LENGTH = 256
# How often keys that sign are looked through for old ones, while there are any.
_FORGET_SECONDS = 30.0


class Bridge:
    """Begins interceptions, ends them when the bridge stops, answers health on the main listener.

    `recorder` takes what is recorded; None records nothing. `needs_records`: no turn of a conversation begins while
    records are not being kept. `entrance` None: nothing is limited.
    """

    def __init__(
        self,
        resolver: Resolver,
        pool: UpstreamPool,
        metrics: Metrics,
        *,
        max_body_bytes: int,
        not_ready: Callable[[], Sequence[str]],
        recorder: Recorder | None = None,
        needs_records: bool = False,
        asks_for_usage: ProviderSwitch = ASKS_EVERYBODY,
        make_tap: TapMaker = answer_tap,
        tracing: "Tracing | None" = None,
        send_trace_headers: TraceHeaders | None = None,
        breaking: Breaking | None = None,
        ends_on: frozenset[EndsOn] = DEFAULT_ENDS_ON,
        entrance: Entrance | None = None,
        plaintext_upstreams: frozenset[str] = frozenset(),
        dumper: Dumper | None = None,
    ) -> None:
        self.resolver = resolver
        self.pool = pool
        self.metrics = metrics
        self.max_body_bytes = max_body_bytes
        self.entrance = entrance
        self.plaintext_upstreams = plaintext_upstreams
        self.asks_for_usage = asks_for_usage
        self.not_to_ask = UpstreamsNotToAsk()
        self.outcomes = Outcomes(lambda outcomes: resolver.report_outcomes(outcomes), metrics)
        # None where breakers are off.
        self.breaking = breaking
        self._ends_on = ends_on
        # None where traces are off, and where no upstream gets the headers of one.
        self.tracing = tracing
        self.send_trace_headers = send_trace_headers
        self.traces_calls = tracing is not None or send_trace_headers is not None
        # None where there is no API dump.
        self.dumper = dumper
        self.watches_calls = self.traces_calls or dumper is not None
        # The loop's own clock is in whole milliseconds.
        self.now = time.monotonic
        self._not_ready = not_ready
        self._date_second = 0
        self._date = ("Date", "")
        self._date_line = b""
        self._signing_keys = SigningKeys()
        self._forgetting: asyncio.TimerHandle | None = None
        self._places: dict[tuple[str, str], tuple[Target, routes.RouteMatch]] = {}
        self._under_way: set[Interception] = set()
        self.reporting = Reporting(
            recorder,
            metrics,
            self._under_way,
            needs_records=needs_records,
            make_tap=make_tap,
            max_body_bytes=max_body_bytes,
        )
        self._gathered_bytes = 0
        metrics.in_flight.set_function(lambda: len(self._under_way))
        metrics.draining.set_function(lambda: self._draining)
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    # -- the service ------------------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange) -> Carrier:
        """A request has arrived."""
        request = exchange.request
        if request.target in ("/healthz", "/readyz"):
            return HealthAnswer(exchange, self._not_ready(), self.date())
        interception = Interception(self, exchange)
        if not self._under_way:
            self._idle.clear()
        self._under_way.add(interception)
        interception.begin()
        return interception

    def refuse(self, reason: str, *, detail: str, target: str, headers: Headers) -> tuple[int, Headers, bytes]:
        """The answer to what is no request, or came too slowly. Nothing of it is repeated."""
        dialect = routes.dialect_of_target(target, headers)
        answer = error_answer(Refused(reason, detail), dialect, new_id())
        self.metrics.answered("", answer.status)
        self.metrics.failed(reason)
        return answer.status, (*answer.headers, self.date()), answer.body

    def date(self) -> tuple[str, str]:
        """The Date header of now; the same pair for a second."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second, self._date = second, ("Date", formatdate(second, usegmt=True))
            self._date_line = field_lines((self._date,))
        return self._date

    def date_line(self) -> bytes:
        """The same as a line."""
        if int(time.time()) != self._date_second:
            self.date()
        return self._date_line

    # -- what interceptions share -----------------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        """How many requests are being carried."""
        return len(self._under_way)

    def check_open(self) -> None:
        """Refuse when the bridge is stopping."""
        if self._draining:
            raise Refused("CAPACITY", STOPPING)

    def dialect_of(self, request: Request) -> DialectName:
        """The shape of errors before it is known what is asked."""
        return routes.dialect_of_target(request.target, request.headers)

    def place(self, request: Request) -> tuple[Target, routes.RouteMatch | None]:
        """What a request asks for: provider and row of the table of routes. No row: a probe of an instance's root."""
        key = (request.method, request.target)
        place = None if request.upgrade else self._places.get(key)
        if place is not None:
            return place
        target = split_target(request.target)
        if request.method == "HEAD" and target.is_instance_root:
            return target, None
        match = routes.match(request.method, target.path, request.headers, target.query)
        # A query may hold a key, and is not kept.
        if not target.query and len(request.target) <= _REMEMBERED_LENGTH and routes.is_settled_by_path(target.path):
            if len(self._places) >= _REMEMBERED_TARGETS:
                self._places.clear()
            self._places[key] = (target, match)
        return target, match

    def with_known_wait(self, provider: str, refused: Refused) -> Refused:
        """A refusal of credentiald, with what this bridge knows of keys that credentiald does not know of yet."""
        if refused.reason != EXHAUSTED:
            return refused
        now_seconds = self.now()
        return exhausted(self.outcomes.resting(provider, now_seconds).values(), refused, now_seconds)

    def keys_for_signing(self) -> SigningKeys:
        """The derived keys that are remembered; an old one is forgotten also where no request comes after it."""
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().call_later(_FORGET_SECONDS, self._forget_keys)
        return self._signing_keys

    def _forget_keys(self) -> None:
        self._forgetting = None
        self._signing_keys.forget_old(now=datetime.now(UTC))
        if len(self._signing_keys):
            self.keys_for_signing()

    def reserve(self, size_bytes: int) -> int:
        """Count a body that is going to be gathered; CAPACITY when there are too many bytes of such already.

        Bodies are gathered before anybody has judged their token, so their sum must have a bound.
        """
        if self._gathered_bytes + size_bytes > MOST_GATHERED_BYTES:
            raise Refused("CAPACITY", "the bridge holds as many bytes of bodies as it may: try again")
        self._gathered_bytes += size_bytes
        return size_bytes

    def release(self, size_bytes: int) -> None:
        """That body is not held any more."""
        self._gathered_bytes -= size_bytes

    def ended(self, interception: Interception) -> None:
        """One interception is over: count it, log it."""
        self._under_way.discard(interception)
        if not self._under_way:
            self._idle.set()
        whole = interception.error != CLIENT_GONE and not (interception.error and interception.sent_bytes)
        status = interception.status if whole else None
        operation = interception.match.operation if interception.match else ""
        now_seconds = self.now()
        seconds = now_seconds - interception.started_seconds
        if interception.error:
            self.metrics.failed(interception.error)
        self.metrics.ended(
            operation,
            status,
            seconds,
            interception.first_byte_seconds,
            interception.received_bytes,
            interception.sent_bytes,
        )
        if interception.error or log.isEnabledFor(logging.DEBUG):
            log_end(interception, seconds)
        self.reporting.record(interception, now_seconds)
        if interception.trace is not None:
            recording = interception.recording
            answer = None if recording is None else recording.answer(whole=not interception.error)
            interception.trace.ends(interception, answer)

    def obey(self, news: News) -> None:
        """Administrators have changed something: when this returns, nothing under way contradicts it.

        What was decided before and not sent is asked again where the change may be about it; what runs on something
        that was taken away is ended, by setting. Changes are rare, so all requests are looked through, at about a
        microsecond each.
        """
        taken = Taken(news, self._ends_on)
        # Of providers in credentiald's environment no revision tells: another one has them from its start on.
        revision = news.revision + 1 if news.snapshot else news.revision
        for interception in tuple(self._under_way):
            interception.obey(revision, taken)

    # -- stopping ---------------------------------------------------------------------------------------------------

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
        for interception in list(self._under_way):
            interception.stop(Refused("CAPACITY", STOPPING))


def log_end(interception: Interception, seconds: float) -> None:
    """The one line of a request: ids and outcomes; no path, no header, no body.

    A request that went well is told at debug level only, so that nothing waits for a log on the hot path; what did not
    go well is told always, but for what a limit refused, of which entrance.py tells how many there were.
    """
    level = logging.INFO if interception.error and not interception.limit else logging.DEBUG
    if not log.isEnabledFor(level):
        return
    resolution, match = interception.resolution, interception.match
    log.log(
        level,
        "request",
        extra={
            "interception_id": interception.interception_id,
            "provider": interception.provider,
            "operation": match.operation if match else "",
            "status": interception.status,
            "error": interception.error,
            "stream": interception.is_stream,
            "resolution_id": resolution.resolution_id if resolution else "",
            "user_id": resolution.user_id if resolution else "",
            "source": resolution.source.value if resolution else "",
            "credential_id": resolution.credential_id if resolution else "",
            "sent_bytes": interception.sent_bytes,
            "duration_ms": round(seconds * 1000),
            **({} if interception.trace is None else {"trace_id": interception.trace.trace_id}),
        },
    )
