"""What bridged counts. Base units, bounded labels, no names or ids of users, providers or models.

One registry a process, handed around; nothing is registered globally.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridged.errors import REFUSALS

# Reasons of a newer credentiald share one label value, so that what a peer says cannot make new series.
_OTHER = "OTHER"


class Metrics:
    """The series of one bridge process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "bridged_requests_total",
            "Answered requests by operation and class of status; 'aborted' where the answer did not end properly.",
            ["operation", "status"],
            registry=self.registry,
        )
        self.in_flight = Gauge("bridged_requests_in_flight", "Requests under way.", registry=self.registry)
        self._resolves = Counter(
            "bridged_resolves_total",
            "Questions to credentiald by outcome: OK, or the reason of the refusal.",
            ["outcome"],
            registry=self.registry,
        )
        self._upstream_errors = Counter(
            "bridged_upstream_errors_total",
            "Attempts that an upstream did not answer, or not to the end, by reason.",
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
        self._requests.labels(operation or "none", f"{status // 100}xx" if status else "aborted").inc()

    def resolved(self, outcome: str) -> None:
        """Count one question to credentiald: `OK`, or the reason."""
        self._resolves.labels(outcome if outcome == "OK" or outcome in REFUSALS else _OTHER).inc()

    def upstream_failed(self, reason: str) -> None:
        """Count one attempt at an upstream that failed without an answer of its own."""
        self._upstream_errors.labels(reason).inc()
