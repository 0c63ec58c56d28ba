"""Counters and histograms without locks read like those of the library."""

from itertools import cycle, islice
from time import time

import prometheus_client.metrics
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from daemonkit.tallies import BeforeReading, CounterTally, HistogramTally

BOUNDS = (0.1, 1.0, 10.0)
LABELS = st.sampled_from(["a", "b", 'c"\\\n'])


def lines_of(registry: CollectorRegistry) -> list[str]:
    return generate_latest(registry).decode().splitlines()


def text_of(registry: CollectorRegistry) -> list[str]:
    # When a series began is another time for ours than for those of the library.
    return [line for line in lines_of(registry) if "_created" not in line]


@given(st.lists(st.tuples(LABELS, st.floats(0, 100))))
def test_a_histogram_with_labels_is_told_as_the_library_tells_it(observed: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = HistogramTally("x_seconds", "Times.", BOUNDS, ours, ["operation"])
    histogram = Histogram("x_seconds", "Times.", ["operation"], buckets=BOUNDS, registry=theirs)
    for label, value in observed:
        tally.at(label).observe(value)
        histogram.labels(label).observe(value)

    assert text_of(ours) == text_of(theirs)


@given(st.lists(st.tuples(LABELS, st.integers(0, 1 << 40))))
def test_a_counter_is_told_as_the_library_tells_it(added: list[tuple[str, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = CounterTally("x_bytes", "Bytes.", ["operation"], ours)
    counter = Counter("x_bytes_total", "Bytes.", ["operation"], registry=theirs)
    for label, amount in added:
        tally.add(amount, label)
        counter.labels(label).inc(amount)

    assert text_of(ours) == text_of(theirs)


@given(st.lists(st.floats(0, 100), max_size=20), st.integers(0, 600), st.integers(1, 300))
def test_a_histogram_of_many_values_is_told_as_the_library_tells_it(some: list[float], times: int, every: int) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = HistogramTally("x_seconds", "Times.", BOUNDS, ours).at()
    histogram = Histogram("x_seconds", "Times.", buckets=BOUNDS, registry=theirs)
    for place, value in enumerate(islice(cycle([*some, *BOUNDS]), times)):
        tally.observe(value)
        histogram.observe(value)
        if place % every == 0:
            # Somebody reads between them.
            assert ours.get_sample_value("x_seconds_count") == place + 1

    assert text_of(ours) == text_of(theirs)


@pytest.mark.parametrize("library_tells", [True, False])
def test_when_a_series_began_is_told_where_the_library_tells_it(
    library_tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    monkeypatch.setattr(prometheus_client.metrics, "_use_created", library_tells)
    before = time()
    CounterTally("x", "Things.", ["kind"], ours, tells_start=True).count("k")
    HistogramTally("x_seconds", "Times.", BOUNDS, ours, ["kind"], tells_start=True).at("k").observe(5)
    Counter("x_total", "Things.", ["kind"], registry=theirs).labels("k").inc()
    Histogram("x_seconds", "Times.", ["kind"], buckets=BOUNDS, registry=theirs).labels("k").observe(5)

    names = [[line.rpartition(" ")[0] for line in lines_of(registry)] for registry in (ours, theirs)]
    assert names[0] == names[1]
    started = [ours.get_sample_value(f"{name}_created", {"kind": "k"}) for name in ("x", "x_seconds")]
    assert [one is not None and before <= one <= time() for one in started] == [library_tells] * 2


def test_series_that_do_not_tell_when_they_began_have_none_beside_them() -> None:
    registry = CollectorRegistry()
    CounterTally("x", "Things.", ["kind"], registry).count("k")
    HistogramTally("x_seconds", "Times.", BOUNDS, registry).at().observe(5)

    assert lines_of(registry) == text_of(registry)


def test_a_histogram_without_labels_is_there_before_anything_was_observed() -> None:
    registry = CollectorRegistry()
    HistogramTally("x_seconds", "Times.", BOUNDS, registry)

    assert registry.get_sample_value("x_seconds_count") == 0


def test_series_whose_label_stands_for_nothing_any_more_are_forgotten() -> None:
    registry = CollectorRegistry()
    tally = CounterTally("x", "Things.", ["kind", "provider"], registry)
    for provider in ("gone", "stays"):
        tally.count("k", provider)
    tally.keep("provider", {"stays"})

    assert registry.get_sample_value("x_total", {"kind": "k", "provider": "gone"}) is None
    assert registry.get_sample_value("x_total", {"kind": "k", "provider": "stays"}) == 1


def test_what_waits_is_gathered_before_anything_is_read() -> None:
    registry = CollectorRegistry()
    BeforeReading(lambda: tally.count("k"), registry)
    tally = CounterTally("x", "Things.", ["kind"], registry)

    assert 'x_total{kind="k"} 1.0' in lines_of(registry)
    assert 'x_total{kind="k"} 2.0' in lines_of(registry)
