"""What bridged counts. Base units, bounded labels, no names or ids of users, providers or models.

One registry a process, handed around; nothing is registered globally.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridged.errors import REFUSALS
from daemonkit.tallies import CounterTally, HistogramTally

_CLASSES = tuple(f"{hundred}xx" for hundred in range(10))
# Reasons of a newer credentiald share one label value, so that what a peer says cannot make new series.
_OTHER = "OTHER"
# From an answer of an idle credentiald to the default of --credentiald-timeout, in seconds.
_RESOLVE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)


class Metrics:
    """The series of one bridge process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = CounterTally(
            "bridged_requests",
            "Answered requests by operation and class of status; 'aborted' where the answer did not end properly.",
            ["operation", "status"],
            self.registry,
        )
        self.in_flight = Gauge("bridged_requests_in_flight", "Requests under way.", registry=self.registry)
        self._resolves = CounterTally(
            "bridged_resolves",
            "Questions to credentiald by outcome: OK, or the reason of the refusal.",
            ["outcome"],
            self.registry,
        )
        seconds = HistogramTally(
            "bridged_resolve_duration_seconds",
            "Time from a question to credentiald's answer or to a refusal.",
            _RESOLVE_BUCKETS,
            self.registry,
        )
        # Called for every request, as it is.
        self.resolve_took = seconds.observe
        self._resolve_streams = Counter(
            "bridged_resolve_streams_opened_total",
            "Streams opened to credentiald; more than its replicas means that some were lost.",
            registry=self.registry,
        )
        self._upstream_errors = Counter(
            "bridged_upstream_errors_total",
            "Attempts that an upstream did not answer, or not to the end, or whose credential it refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._build_info = Gauge(
            "bridged_build_info", "Always 1; the label is the version.", ["version"], registry=self.registry
        )

    def started(self, version: str) -> None:
        """Say which version runs."""
        self._build_info.labels(version).set(1)

    def answered(self, operation: str, status: int | None) -> None:
        """Count one request. `operation` is a row of routes.py or empty; `status` None means aborted."""
        self._requests.count(operation or "none", _CLASSES[status // 100] if status else "aborted")

    def resolved(self, outcome: str) -> None:
        """Count one question to credentiald: `OK`, or the reason."""
        self._resolves.count(outcome if outcome == "OK" or outcome in REFUSALS else _OTHER)

    def resolve_stream_opened(self) -> None:
        """Count one stream to credentiald, the first as well as those after a loss."""
        self._resolve_streams.inc()

    def upstream_failed(self, reason: str) -> None:
        """Count one attempt at an upstream that failed without an answer of its own."""
        self._upstream_errors.labels(reason).inc()
