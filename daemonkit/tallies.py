"""Counters and histograms for paths on which a microsecond counts.

prometheus_client takes a lock for each increment, because others may count in other threads. These are for one thread,
the event loop's: an increment is one addition to a series that who counts often has at hand, and what prometheus_client
shows is made when somebody reads it.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from time import time
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Sorting so many takes microseconds, and a bridge has some dozens of histograms' series.
_MOST_WAITING = 256


class Made(dict[K, V]):
    """What `make` makes of a key, made when it is first asked for: series by what tells them apart.

    Keys must be few, whatever clients and peers say.
    """

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> V:
        made = self[key] = self._make(key)
        return made


class BeforeReading(Collector):
    """Calls `gather` whenever somebody reads the registry, before all that are registered later."""

    def __init__(self, gather: Callable[[], None], registry: CollectorRegistry) -> None:
        self._gather = gather
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """For the registry: no names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """For the registry: no series."""
        self._gather()
        return iter(())


class Count:
    """One series of a counter. Who counts for every request adds to `value` directly, which saves a call."""

    __slots__ = ("start_seconds", "value")

    def __init__(self) -> None:
        self.value = 0
        self.start_seconds = time()


class CounterTally(Collector):
    """A counter with labels. `name` is without its ending `_total`.

    With `tells_start` each series has another beside it that says when it began, where those of prometheus_client have.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        *,
        tells_start: bool = False,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._tells_start = tells_start and _library_tells_start()
        self._series: Made[tuple[str, ...], Count] = Made(lambda _: Count())
        registry.register(self)

    def at(self, *values: str) -> Count:
        """The series of these values of the labels, there as 0 from now on; to be kept by who counts often."""
        return self._series[values]

    def count(self, *values: str) -> None:
        """One more, under these values of the labels."""
        self._series[values].value += 1

    def add(self, amount: int, *values: str) -> None:
        """So many more, under these values of the labels."""
        self._series[values].value += amount

    def keep(self, label: str, values: Collection[str]) -> None:
        """Forget the series in which this label has another value."""
        place = self._labels.index(label)
        for gone in [one for one in self._series if one[place] not in values]:
            del self._series[gone]

    def describe(self) -> Iterator[Metric]:
        """For the registry: the name, so that it can find two of one."""
        yield CounterMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """For the registry: all series that were counted."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, series in self._series.copy().items():
            family.add_metric(values, series.value, series.start_seconds if self._tells_start else None)
        yield family


class Buckets:
    """One series of a histogram.

    Values wait until they are many, or until somebody reads: to sort many, and to find the bounds among them, costs
    less than to find the bucket of each.
    """

    __slots__ = ("_bounds", "_counts", "_total", "_waiting", "start_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        # Of each bound what is not above it, at last all.
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._waiting: list[float] = []
        self.start_seconds = time()

    def observe(self, value: float) -> None:
        """One more observation."""
        waiting = self._waiting
        waiting.append(value)
        if len(waiting) >= _MOST_WAITING:
            self._gather()

    def observe_all(self, values: Collection[float]) -> None:
        """So many more observations."""
        self._waiting += values
        self._gather()

    def read(self) -> tuple[list[int], float]:
        """How many observations are not above each bound, at last how many there are; and their sum."""
        self._gather()
        return self._counts.copy(), self._total

    def _gather(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._total = sum(waiting, self._total)
        waiting.sort()
        for place, bound in enumerate(self._bounds):
            self._counts[place] += bisect_right(waiting, bound)
        self._counts[-1] += len(waiting)


class HistogramTally(Collector):
    """A histogram. `bounds` are the upper bounds of its buckets, ascending, without infinity.

    `tells_start` is that of CounterTally.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        registry: CollectorRegistry,
        labels: Sequence[str] = (),
        *,
        tells_start: bool = False,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._labels = tuple(labels)
        self._tells_start = tells_start and _library_tells_start()
        self._series: Made[tuple[str, ...], Buckets] = Made(lambda _: Buckets(self._bounds))
        if not labels:
            self.at()
        registry.register(self)

    def at(self, *values: str) -> Buckets:
        """The series of these values of the labels, to be kept by who observes often."""
        return self._series[values]

    def describe(self) -> Iterator[Metric]:
        """For the registry: the name, so that it can find two of one."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """For the registry: the buckets, each with all that is below it."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        edges = (*map(str, map(float, self._bounds)), "+Inf")
        for values, series in self._series.copy().items():
            counts, total = series.read()
            family.add_metric(values, list(zip(edges, counts, strict=True)), total)
            if self._tells_start:
                labels = dict(zip(self._labels, values, strict=True))
                family.add_sample(f"{self._name}_created", labels, series.start_seconds)
        yield family


def _library_tells_start() -> bool:
    """Whether prometheus_client does, which PROMETHEUS_DISABLE_CREATED_SERIES decides."""
    [family] = Counter("x", "", registry=None).collect()
    return any(sample.name == "x_created" for sample in family.samples)
