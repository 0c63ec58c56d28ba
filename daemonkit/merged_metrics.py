"""The metrics of several processes as those of one."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

# What a process that has ended still counts for.
_LASTING_TYPES = frozenset({"counter", "histogram"})
# Gauges of what all processes share, or of which one says enough, by the ends of their names. All others add up.
_GREATEST = (
    "_age_seconds",
    "_audit_sequence",
    "_bridges_heard",
    "_build_info",
    "_draining",
    "_dump_enabled",
    "_last_success_timestamp_seconds",
    "_outage",
    "_resting_keys",
    "_sealing_remaining",
    "_store_bytes",
)
_LEAST = ("_created", "_ready", "_timestamp_seconds", "_tls_reload_success")


def families_of(text: str) -> list[Metric]:
    """The families of one answer to /metrics; ValueError where it is none."""
    return list(text_string_to_metric_families(text))


def lasting(families: Iterable[Metric]) -> list[Metric]:
    """What counts on after the end of its process, so that a sum never goes down."""
    return [family for family in families if family.type in _LASTING_TYPES]


def merged(snapshots: Iterable[Sequence[Metric]]) -> list[Metric]:
    """One family a name: samples with the same labels summed, where they do not speak of the same thing."""
    kinds: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in snapshots:
        for family in families:
            kinds.setdefault(family.name, family)
            of_family = values.setdefault(family.name, {})
            joined = _joined_by(family.name)
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                of_family[key] = joined(of_family[key], sample.value) if key in of_family else sample.value
    return [_family(kinds[name], of_family) for name, of_family in values.items()]


def registry_of(families: Sequence[Metric]) -> CollectorRegistry:
    """A registry that has these families."""
    registry = CollectorRegistry()
    registry.register(_Fixed(families))
    return registry


class _Fixed(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _joined_by(name: str) -> Callable[[float, float], float]:
    if name.endswith(_GREATEST):
        return max
    if name.endswith(_LEAST):
        return min
    return float.__add__


def _family(kind: Metric, values: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> Metric:
    family = Metric(kind.name, kind.documentation, kind.type)
    family.samples = [Sample(name, dict(labels), value) for (name, labels), value in values.items()]
    return family
