"""What each daemon says of its own processes, alike with and without workers."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class ProcessMetrics:
    """Whether the daemon is ready, stopping, and whole.

    `serving` is how many processes that serve this one stands for: one, or none for the supervisor, to whose answer
    each worker adds itself.
    """

    def __init__(self, daemon: str, registry: CollectorRegistry, *, serving: int = 1) -> None:
        self.ready = Gauge(
            f"{daemon}_ready", "1 while /readyz says so; of several workers, while all do.", registry=registry
        )
        self.draining = Gauge(f"{daemon}_draining", "1 from the request to stop until the end.", registry=registry)
        workers = Gauge(
            f"{daemon}_workers", "Processes that serve and answer: of --workers, else the only one.", registry=registry
        )
        workers.set(serving)
        self.worker_restarts = Counter(
            f"{daemon}_worker_restarts_total", "Workers that died and were started anew.", registry=registry
        )
