"""What bridged counts. Base units, bounded labels, no names or ids of users or models, and of providers only while
there is something to tell of them.

One registry a process, handed around; nothing is registered globally.
"""

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridged.adapters import ADAPTERS
from bridged.adapters.bedrock import WIRE_TYPE as BEDROCK
from bridged.breaker import State
from bridged.dump.dump_metrics import DumpMetrics
from bridged.endings import CLIENT_GONE
from bridged.errors import REFUSALS
from bridged.limits.admission import Limit
from bridged.records import Trouble
from bridged.watch import REASONS
from daemonkit.log_metrics import LogMetrics
from daemonkit.process_metrics import ProcessMetrics
from daemonkit.tallies import BeforeReading, Count, CounterTally, HistogramTally, Made
from daemonkit.tls_metrics import TlsMetrics

_CLASSES = tuple(f"{hundred}xx" for hundred in range(10))
# Reasons of a newer credentiald share one label value, so that what a peer says cannot make new series.
_OTHER = "OTHER"
_PROVIDER_TYPES = frozenset({*ADAPTERS, BEDROCK})
_OTHER_TYPE = "other"
_NO_OPERATION = "none"
# Those of key_outcomes.Kind that are about a key.
REFUSED_KEYS = ("UNAUTHORIZED", "RATE_LIMITED", "SPEND_LIMITED")
_FAILURES = frozenset({*REFUSALS, CLIENT_GONE})
# What alert rules look for is there as 0 before it happens: the first of a series is no increase to who reads it.
_WATCHED_FAILURES = ("INTERNAL", "KEY_POOL_EXHAUSTED", "UPSTREAM_KEY_REFUSED")
_WATCHED_OUTCOMES = (
    "CREDENTIALD_UNREACHABLE", "STORE_UNAVAILABLE", "SEALED", "AUDIT_UNAVAILABLE", "SERVICE_TOKEN_MISSING",
    "SERVICE_TOKEN_INVALID", "SERVICE_TOKEN_EXPIRED", "CALLER_NOT_ALLOWED", "INTERNAL", "CENTRAL_KEY_MISSING",
    "AWS_CREDENTIALS_INCOMPLETE", "ROLE_NOT_ASSUMABLE", "REGION_REQUIRED", "AMBIENT_CREDENTIALS_UNAVAILABLE",
)  # fmt: skip
_WATCHED_UPSTREAM_ERRORS = ("UPSTREAM_UNREACHABLE", "UPSTREAM_TIMEOUT", "UPSTREAM_KEY_REFUSED")
_OUTCOMES = frozenset({"OK", *REFUSALS})
# So many requests of an operation wait at most to be counted together, which costs less than one by one.
_MOST_WAITING = 256
# From an answer of an idle credentiald to the default of --credentiald-timeout, in seconds.
_RESOLVE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
# From a change on the same machine to one that was missed for a while, in seconds.
_REVOCATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
# From a list of models to a model that thinks for minutes, in seconds.
_REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

# Of a request that ended: its status, seconds, seconds to the first byte, bytes of the request and of the answer.
_End = tuple[int | None, float, float | None, int, int]


class Metrics:
    """The series of one bridge process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Requests that ended and are not counted yet, by operation: what `ended` is told.
        self._ends: defaultdict[str, list[_End]] = defaultdict(list)
        BeforeReading(self._count_ends, self.registry)
        self.dump = DumpMetrics(self.registry)
        self._requests = CounterTally(
            "bridged_requests",
            "Answered requests by operation and class of status; 'aborted' where the answer did not end properly.",
            ["operation", "status"],
            self.registry,
        )
        self._requests.at(_NO_OPERATION, "5xx")
        self._seconds = HistogramTally(
            "bridged_request_duration_seconds",
            "Time from a request's arrival to its end, however it ended.",
            _REQUEST_BUCKETS,
            self.registry,
            ["operation"],
        )
        self._first_byte_seconds = HistogramTally(
            "bridged_time_to_first_byte_seconds",
            "Time from a request's arrival to the head of the upstream's answer; requests without one are not in it.",
            _REQUEST_BUCKETS,
            self.registry,
            ["operation"],
        )
        self._request_bytes = CounterTally(
            "bridged_request_bytes", "Bytes of bodies from clients, without framing.", ["operation"], self.registry
        )
        self._response_bytes = CounterTally(
            "bridged_response_bytes",
            "Bytes of upstreams' bodies as they went to clients, without framing.",
            ["operation"],
            self.registry,
        )
        self._failures = CounterTally(
            "bridged_request_failures",
            "Requests that did not go well, by the reason that the client was told; CLIENT_GONE where it left before.",
            ["reason"],
            self.registry,
        )
        for reason in _WATCHED_FAILURES:
            self._failures.at(reason)
        self._limit_refusals = CounterTally(
            "bridged_limit_refusals",
            "Requests refused by a limit, by which.",
            ["limit"],
            self.registry,
        )
        self._limits = Gauge(
            "bridged_limit",
            "The limits as they are set, by limit: requests at once, for 'rate' requests a second; 0 is none.",
            ["limit"],
            registry=self.registry,
        )
        for limit in Limit:
            self._limit_refusals.add(0, limit.value)
            self._limits.labels(limit.value).set(0)
        self._upstream_responses = CounterTally(
            "bridged_upstream_responses",
            "Answers of upstreams that went to clients, by type of provider and class of status.",
            ["provider_type", "status"],
            self.registry,
        )
        self._responses: Made[tuple[str, int], Count] = Made(
            lambda key: self._upstream_responses.at(key[0], _CLASSES[key[1] // 100])
        )
        process = ProcessMetrics("bridged", self.registry)
        self._ready, self.draining = process.ready, process.draining
        self.tls = TlsMetrics("bridged", self.registry)
        LogMetrics("bridged", self.registry)
        self.in_flight = Gauge("bridged_requests_in_flight", "Requests under way.", registry=self.registry)
        self._resolves = CounterTally(
            "bridged_resolves",
            "Questions to credentiald by outcome: OK, or the reason of the refusal.",
            ["outcome"],
            self.registry,
        )
        self._resolved_well = self._resolves.at("OK")
        for outcome in _WATCHED_OUTCOMES:
            self._resolves.at(outcome)
        seconds = HistogramTally(
            "bridged_resolve_duration_seconds",
            "Time from a question to credentiald's answer or to a refusal.",
            _RESOLVE_BUCKETS,
            self.registry,
        )
        # Called for every request, as it is.
        self.resolve_took = seconds.at().observe
        self._resolve_streams = Counter(
            "bridged_resolve_streams_opened_total",
            "Streams opened to credentiald; more than its replicas means that some were lost.",
            registry=self.registry,
        )
        self.watch_streams = Gauge(
            "bridged_watch_streams",
            "Streams on which credentiald tells this bridge what administrators change.",
            registry=self.registry,
        )
        self._revocation_seconds = HistogramTally(
            "bridged_revocation_seconds",
            "Time from an administrator's change, by credentiald's clock, until nothing here contradicted it.",
            _REVOCATION_BUCKETS,
            self.registry,
        ).at()
        self._revoked = Counter(
            "bridged_requests_revoked_total",
            "Requests that were ended because what they ran on was taken away, by reason.",
            ["reason"],
            registry=self.registry,
        )
        for reason in sorted(REASONS):
            self._revoked.labels(reason)
        self._asked_again = Counter(
            "bridged_requests_asked_again_total",
            "Requests that were decided and not sent yet when administrators changed something.",
            registry=self.registry,
        )
        self._upstream_errors = Counter(
            "bridged_upstream_errors_total",
            "Attempts that an upstream did not answer, or not to the end, or whose credential it refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        for reason in _WATCHED_UPSTREAM_ERRORS:
            self._upstream_errors.labels(reason)
        self._keys_refused = Counter(
            "bridged_keys_refused_total",
            "Answers in which an upstream refused one of several keys of a provider, by what it means for the key.",
            ["kind"],
            registry=self.registry,
        )
        for kind in REFUSED_KEYS:
            self._keys_refused.labels(kind)
        self._outcomes_lost = Counter(
            "bridged_key_outcomes_lost_total",
            "Outcomes of keys that credentiald was not told of; this bridge acts on them all the same.",
            registry=self.registry,
        )
        self._reported = Counter(
            "bridged_interceptions_reported_total",
            "Interceptions whose records credentiald has stored.",
            registry=self.registry,
        )
        self._records_lost = Counter(
            "bridged_records_lost_total",
            "Interceptions whose records are lost, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._reports_failed = Counter(
            "bridged_record_reports_failed_total",
            "Batches of records that credentiald did not take; they are sent again.",
            registry=self.registry,
        )
        self._records_waiting = Gauge(
            "bridged_records_waiting", "Interceptions whose records are not stored yet.", registry=self.registry
        )
        self._records_waiting_bytes = Gauge(
            "bridged_records_waiting_bytes", "Size of the records that are not stored yet.", registry=self.registry
        )
        self._tap_troubles = Counter(
            "bridged_tap_troubles_total",
            "Answers of which a tap may have seen less than there was, by why.",
            ["trouble"],
            registry=self.registry,
        )
        for trouble in Trouble:
            self._tap_troubles.labels(trouble.value)
        self._breakers_open = Gauge(
            "bridged_breakers_open",
            "Breakers of a provider that are open or half-open; no series for a provider that has none.",
            ["provider"],
            registry=self.registry,
        )
        self._stopping: dict[str, int] = {}
        self._breaker_changes = Counter(
            "bridged_breaker_changes_total",
            "How often breakers came into a state.",
            ["state"],
            registry=self.registry,
        )
        for state in State:
            self._breaker_changes.labels(state.value)
        self._fallbacks = Counter(
            "bridged_fallbacks_total",
            "Turns whose own provider's upstream failed, by whether the fallback provider took them.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("taken", "refused"):
            self._fallbacks.labels(outcome)
        self._build_info = Gauge(
            "bridged_build_info", "Always 1; the label is the version.", ["version"], registry=self.registry
        )

    def started(self, version: str) -> None:
        """Say which version runs."""
        self._build_info.labels(version).set(1)

    def answered(self, operation: str, status: int | None) -> None:
        """Count what was answered and is no request that ends (`ended`).

        `operation` is a row of routes.py or empty; `status` None means aborted.
        """
        self._requests.count(operation or _NO_OPERATION, _class_of(status))

    def ended(
        self,
        operation: str,
        status: int | None,
        seconds: float,
        first_byte_seconds: float | None,
        request_bytes: int,
        response_bytes: int,
    ) -> None:
        """Count one request as `answered` does, how long it took, and what it carried.

        `first_byte_seconds` is None where no upstream answered.
        """
        ends = self._ends[operation]
        # What is no upstream's answer is not counted among the bytes of those.
        upstream_bytes = 0 if first_byte_seconds is None else response_bytes
        ends.append((status, seconds, first_byte_seconds, request_bytes, upstream_bytes))
        if len(ends) >= _MOST_WAITING:
            self._count_ends()

    def failed(self, reason: str) -> None:
        """Count one request that did not go well."""
        self._failures.count(reason if reason in _FAILURES else _OTHER)

    def limit_refused(self, limit: str) -> None:
        """Count one request that was refused because a limit was reached; `limit` is one of limits.admission.Limit."""
        self._limit_refusals.count(limit)

    def limited(self, limit: str, most: int) -> None:
        """Say what a limit is."""
        self._limits.labels(limit).set(most)

    def upstream_answered(self, provider_type: str, status: int) -> None:
        """Count one answer's head."""
        if provider_type not in _PROVIDER_TYPES:
            provider_type = _OTHER_TYPE
        self._responses[provider_type, status].value += 1

    def watch_readiness(self, reasons: Callable[[], object]) -> None:
        """Show whether there are reasons not to be ready when the metrics are read."""
        self._ready.set_function(lambda: not reasons())

    def resolved(self, outcome: str) -> None:
        """Count one question to credentiald: `OK`, or the reason."""
        if outcome == "OK":
            self._resolved_well.value += 1
        else:
            self._resolves.count(outcome if outcome in _OUTCOMES else _OTHER)

    def resolve_stream_opened(self) -> None:
        """Count one stream to credentiald, the first as well as those after a loss."""
        self._resolve_streams.inc()

    def revoked_within(self, seconds: float) -> None:
        """How long a change took to be obeyed; clocks of two machines may differ."""
        self._revocation_seconds.observe(max(0.0, seconds))

    def revoked(self, reason: str) -> None:
        """Count one request that was ended by a change. `reason` is one of watch.py."""
        self._revoked.labels(reason).inc()

    def asked_again(self) -> None:
        """Count one request that was asked again because of a change."""
        self._asked_again.inc()

    def upstream_failed(self, reason: str) -> None:
        """Count one attempt at an upstream that failed without an answer of its own."""
        self._upstream_errors.labels(reason).inc()

    def key_refused(self, kind: str) -> None:
        """Count one answer in which an upstream refused one of several keys. `kind` is one of REFUSED_KEYS."""
        self._keys_refused.labels(kind).inc()

    def outcomes_lost(self, count: int) -> None:
        """Count outcomes of keys that credentiald was not told of."""
        self._outcomes_lost.inc(count)

    def reported(self, count: int) -> None:
        """Count interceptions whose records are stored."""
        self._reported.inc(count)

    def records_lost(self, reason: str, count: int) -> None:
        """Count interceptions whose records are lost. `reason` is one of losses.py."""
        self._records_lost.labels(reason).inc(count)

    def report_failed(self) -> None:
        """Count one batch of records that was not taken."""
        self._reports_failed.inc()

    def watch_records(self, waiting: Callable[[], int], waiting_bytes: Callable[[], int]) -> None:
        """Say how to find out what waits."""
        self._records_waiting.set_function(waiting)
        self._records_waiting_bytes.set_function(waiting_bytes)

    def fell_back(self, *, taken: bool) -> None:
        """Count one turn for which the fallback provider was asked for."""
        self._fallbacks.labels("taken" if taken else "refused").inc()

    def breaker_changed(self, provider: str, before: State, after: State) -> None:
        """Count one change of a breaker. `provider` is one that credentiald has named."""
        self._breaker_changes.labels(after.value).inc()
        more = (after is not State.CLOSED) - (before is not State.CLOSED)
        count = self._stopping.get(provider, 0) + more
        if count:
            self._stopping[provider] = count
            self._breakers_open.labels(provider).set(count)
        elif more:
            del self._stopping[provider]
            self._breakers_open.remove(provider)

    def tap_troubled(self, trouble: str) -> None:
        """Count one answer that a tap had trouble with. `trouble` is one of records.Trouble."""
        self._tap_troubles.labels(trouble).inc()

    def _count_ends(self) -> None:
        """Count the requests that wait for it: when they are many, and whenever somebody reads."""
        waiting, self._ends = self._ends, defaultdict(list)
        for operation, ends in waiting.items():
            self._count_ends_of(operation or _NO_OPERATION, ends)

    def _count_ends_of(self, operation: str, ends: list[_End]) -> None:
        statuses, seconds, first_byte_seconds, request_bytes, response_bytes = zip(*ends, strict=True)
        for status, count in Tally(statuses).items():
            self._requests.add(count, operation, _class_of(status))
        self._seconds.at(operation).observe_all(seconds)
        answered = [one for one in first_byte_seconds if one is not None]
        self._first_byte_seconds.at(operation).observe_all(answered)
        # Without a body, or without an upstream's answer, there is nothing to tell of its size.
        if received := sum(request_bytes):
            self._request_bytes.add(received, operation)
        if answered:
            self._response_bytes.add(sum(response_bytes), operation)


def _class_of(status: int | None) -> str:
    """A status as its label has it; None is an answer that did not end properly."""
    return _CLASSES[status // 100] if status else "aborted"
