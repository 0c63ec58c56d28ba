"""What credentiald counts of the audit. Bounded labels, no names."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from credentiald.audit_model import Kind
from daemonkit.tallies import CounterTally, HistogramTally

_WRITE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)


class AuditMetrics:
    """The series about the audit of one credentiald process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._entries = CounterTally(
            "credentiald_audit_entries", "What was written into the audit; each release counts.", ["kind"], registry
        )
        self._lost = CounterTally(
            "credentiald_audit_lost",
            "Entries and releases that could not be written into the audit for so long that they were given up.",
            [],
            registry,
        )
        # There as 0 before anything happens: the first of a series is no increase to who reads it.
        self._lost.add(0)
        for kind in Kind:
            self._entries.add(0, kind.value)
        self._write = HistogramTally(
            "credentiald_audit_write_duration_seconds",
            "Time from handing entries to the audit's file until they are on the disk.",
            _WRITE_BUCKETS,
            registry,
        ).at()
        self.sequence = Gauge(
            "credentiald_audit_sequence",
            "The last place of the audit's chain that this process wrote, or found when it began.",
            registry=registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "credentiald_audit_waiting", "Entries and releases that wait to be written.", registry=registry
        )
        self._oldest = Gauge(
            "credentiald_audit_waiting_age_seconds",
            "How long the oldest of them has waited; 0 where none does.",
            registry=registry,
        )

    def watch_waiting(self, count: Callable[[], int], oldest_seconds: Callable[[], float]) -> None:
        """Show how much waits, and for how long, when the metrics are read."""
        self._waiting.set_function(count)
        self._oldest.set_function(oldest_seconds)

    def written(self, kind: str, count: int) -> None:
        """Count what is on the disk."""
        self._entries.add(count, kind)

    def wrote(self, seconds: float, sequence: int) -> None:
        """One commit."""
        self._write.observe(seconds)
        self.sequence.set(sequence)

    def lost(self, count: int) -> None:
        """Count what is given up."""
        self._lost.add(count)
