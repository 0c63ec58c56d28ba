"""Counters and histograms without locks read like those of the library."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from daemonkit.tallies import CounterTally, HistogramTally

BOUNDS = (0.1, 1.0, 10.0)
LABELS = st.sampled_from(["a", "b", 'c"\\\n'])


def text_of(registry: CollectorRegistry) -> list[str]:
    # When a series began is told by the library only; its order is that of the first value.
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


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
