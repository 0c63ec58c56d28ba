"""What is counted of the log itself, alike in every daemon."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from daemonkit.logs import lost_lines


class LogMetrics(Collector):
    """How many lines were lost, as it is when the metrics are read."""

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self._prefix = prefix
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """For the registry: the name."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """The one family."""
        yield CounterMetricFamily(
            f"{self._prefix}_log_lines_lost",
            "Lines of the log that were not written, because it was not read or could not be written.",
            # A float, as all values are that are added up over workers.
            value=float(lost_lines()),
        )
