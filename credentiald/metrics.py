"""What credentiald counts. Base units, bounded labels, no names of users or providers.

One registry a process, handed around; nothing is registered globally.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a cached answer to the deadline, in seconds.
_RPC_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)


class Metrics:
    """The series of one credentiald process."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._rpcs = Counter(
            "credentiald_rpcs_total",
            "Answered rpcs by outcome: OK, the reason of the refusal, or INTERNAL.",
            ["rpc", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "credentiald_rpc_duration_seconds",
            "Time from receiving a question to its answer.",
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
        build = Gauge("credentiald_build_info", "Always 1; the label says which.", ["version"], registry=self.registry)
        build.labels(version).set(1)

    def rpc_done(self, rpc: str, outcome: str, seconds: float) -> None:
        """Count one answered rpc. `rpc` is a method of the contract, so the label is bounded."""
        self._rpcs.labels(rpc, outcome).inc()
        self._seconds.labels(rpc).observe(seconds)

    def resolved(self, source: str) -> None:
        """Count one good answer to a resolve."""
        self._sources.labels(source).inc()
