"""What credentiald counts. Base units, bounded labels, no names of users or providers.

One registry a process, handed around; nothing is registered globally.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a cached answer to the deadline, in seconds.
_RPC_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The series of one credentiald process."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._rpcs = Counter(
            "credentiald_rpcs_total",
            "Ended rpcs by outcome: OK, the reason of the refusal, CANCELLED, or INTERNAL.",
            ["rpc", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "credentiald_rpc_duration_seconds",
            "Time from receiving a question to its answer; streams are not in it.",
            ["rpc"],
            buckets=_RPC_BUCKETS,
            registry=self.registry,
        )
        self._sources = Counter(
            "credentiald_resolutions_total",
            "Answered resolves by the source of the credential.",
            ["source"],
            registry=self.registry,
        )
        self._refusals = Counter(
            "credentiald_resolve_stream_refusals_total",
            "Refused questions of batches, by reason; those of single calls are in credentiald_rpcs_total.",
            ["reason"],
            registry=self.registry,
        )
        self._batch_items = Histogram(
            "credentiald_resolve_batch_items",
            "Questions in a batch.",
            buckets=_BATCH_BUCKETS,
            registry=self.registry,
        )
        answers = Counter(
            "credentiald_answer_cache_total",
            "Questions of batches by whether an unchanged answer was at hand (hit) or the store was read (miss).",
            ["outcome"],
            registry=self.registry,
        )
        self._hits, self._misses = answers.labels("hit"), answers.labels("miss")
        build = Gauge("credentiald_build_info", "Always 1; the label says which.", ["version"], registry=self.registry)
        build.labels(version).set(1)

    def rpc_done(self, rpc: str, outcome: str, seconds: float | None) -> None:
        """Count one ended rpc. `rpc` is a method of the contract, so the label is bounded; no time for streams."""
        self._rpcs.labels(rpc, outcome).inc()
        if seconds is not None:
            self._seconds.labels(rpc).observe(seconds)

    def resolved(self, source: str, count: int = 1) -> None:
        """Count good answers to resolves."""
        self._sources.labels(source).inc(count)

    def refused(self, reason: str) -> None:
        """Count one refused question of a batch."""
        self._refusals.labels(reason).inc()

    def batch_answered(self, *, items: int, misses: int) -> None:
        """Count one batch, and how many of its questions needed the store."""
        self._batch_items.observe(items)
        self._hits.inc(items - misses)
        self._misses.inc(misses)
