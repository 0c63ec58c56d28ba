"""What bridged counts. Base units, bounded labels, no names or ids of users, providers or models.

One registry a process, handed around; nothing is registered globally.
"""

from collections.abc import Callable

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

    def reported(self, count: int) -> None:
        """Count interceptions whose records are stored."""
        self._reported.inc(count)

    def records_lost(self, reason: str, count: int) -> None:
        """Count interceptions whose records are lost. `reason` is one of recorder.py."""
        self._records_lost.labels(reason).inc(count)

    def report_failed(self) -> None:
        """Count one batch of records that was not taken."""
        self._reports_failed.inc()

    def watch_records(self, waiting: Callable[[], int], waiting_bytes: Callable[[], int]) -> None:
        """Say how to find out what waits."""
        self._records_waiting.set_function(waiting)
        self._records_waiting_bytes.set_function(waiting_bytes)

    def tap_troubled(self, trouble: str) -> None:
        """Count one answer that a tap had trouble with. `trouble` is one of records.Trouble."""
        self._tap_troubles.labels(trouble).inc()
