"""The series of the API dump. Counted by two threads, so by the library's own counters."""

from prometheus_client import CollectorRegistry, Counter, Gauge

REASONS = ("queue", "disk", "bug")


class DumpMetrics:
    """Whether there is a dump, what is written, what is not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.enabled = Gauge(
            "bridged_dump_enabled", "1 while prompts and answers are written to files (--dump-dir).", registry=registry
        )
        self.files = Counter("bridged_dump_files", "Files of dumps that were made.", registry=registry)
        self.bytes = Counter("bridged_dump_bytes", "Bytes of dumps that were written.", registry=registry)
        self.removed = Counter(
            "bridged_dump_removed",
            "Files of dumps that were removed, the oldest first, because there were --max-dump bytes of them.",
            registry=registry,
        )
        self._dropped = Counter(
            "bridged_dump_dropped",
            "Attempts of which the dump is not whole: they came too fast ('queue'), a file could not be written "
            "('disk'), or a defect ('bug').",
            ["reason"],
            registry=registry,
        )
        for reason in REASONS:
            self._dropped.labels(reason)

    def dropped(self, reason: str) -> None:
        """Count one attempt; `reason` is one of REASONS."""
        self._dropped.labels(reason).inc()
