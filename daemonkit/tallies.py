"""Counters and histograms for paths on which a microsecond counts.

prometheus_client takes a lock for each increment, because others may count in other threads. These are for one thread,
the event loop's: an increment is one addition to a dictionary, and the series are made when somebody reads them.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class CounterTally(Collector):
    """A counter with labels. `name` is without its ending `_total`.

    `counts` has each series by the values of its labels, 0 where nothing was counted: who counts for every request
    adds to it directly, which saves a call.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self.counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        registry.register(self)

    def count(self, *values: str) -> None:
        """One more, under these values of the labels."""
        self.counts[values] += 1

    def add(self, amount: int, *values: str) -> None:
        """So many more, under these values of the labels."""
        self.counts[values] += amount

    def keep(self, label: str, values: Collection[str]) -> None:
        """Forget the series in which this label has another value."""
        place = self._labels.index(label)
        for gone in [one for one in self.counts if one[place] not in values]:
            del self.counts[gone]

    def describe(self) -> Iterator[Metric]:
        """For the registry: the name, so that it can find two of one."""
        yield CounterMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """For the registry: all series that were counted."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, count in self.counts.copy().items():
            family.add_metric(values, count)
        yield family


class Buckets:
    """One series of a histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class HistogramTally(Collector):
    """A histogram. `bounds` are the upper bounds of its buckets, ascending, without infinity."""

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        registry: CollectorRegistry,
        labels: Sequence[str] = (),
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._labels = tuple(labels)
        self._series: dict[tuple[str, ...], Buckets] = {}
        if not labels:
            self.at()
        registry.register(self)

    def at(self, *values: str) -> Buckets:
        """The series of these values of the labels, to be kept by who observes often."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Buckets(self._bounds)
        return series

    def describe(self) -> Iterator[Metric]:
        """For the registry: the name, so that it can find two of one."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """For the registry: the buckets, each with all that is below it."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        edges = (*map(str, map(float, self._bounds)), "+Inf")
        for values, series in self._series.copy().items():
            total = 0
            buckets: list[tuple[str, float]] = []
            for edge, count in zip(edges, tuple(series.counts), strict=True):
                total += count
                buckets.append((edge, total))
            family.add_metric(values, buckets, series.total)
        yield family
