"""The metrics of both daemons as data: what docs/metrics.md is made from, and what dashboard and alerts are held to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any

from prometheus_client import CollectorRegistry

from bridged.metrics import Metrics as BridgedMetrics
from credentiald.aws.access import AwsAccess
from credentiald.metrics import Metrics as CredentialdMetrics

DAEMONS = ("bridged", "credentiald")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One metric. `name` is that of its samples: with `_total`, and for a histogram without `_bucket` and the like.

    `bounds` are those of a histogram's buckets, with infinity.
    """

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its series."""
        if self.type == "histogram":
            return tuple(f"{self.name}_{end}" for end in ("bucket", "sum", "count"))
        return (self.name,)

    @property
    def sample_labels(self) -> frozenset[str]:
        """The labels that its series may have."""
        return frozenset(self.labels) | ({"le"} if self.type == "histogram" else set())


def described() -> dict[str, list[Described]]:
    """The metrics by daemon, in the order of their names, also of series that only traffic brings forth."""
    credentiald = CredentialdMetrics("")
    credentiald.watch_aws(AwsAccess(lambda: datetime.now(UTC)))
    credentiald.watch_store({})
    registries = (BridgedMetrics().registry, credentiald.registry)
    return {
        daemon: sorted(_of(registry), key=lambda one: one.name)
        for daemon, registry in zip(DAEMONS, registries, strict=True)
    }


def _of(registry: CollectorRegistry) -> Iterator[Described]:
    # Neither a registry nor a metric tells its labels before it has a series.
    for collector in list(registry._collector_to_names):
        families: Any = collector.describe() if hasattr(collector, "describe") else collector.collect()
        for family in families:
            labels = getattr(family, "_labelnames", None) or getattr(collector, "_labelnames", ())
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield Described(
                name=name,
                type=family.type,
                labels=tuple(labels),
                meaning=family.documentation,
                bounds=(*_bounds_of(collector), inf) if family.type == "histogram" else (),
            )


def _bounds_of(collector: Any) -> tuple[float, ...]:
    # Those of our own histograms, or of the library's, which have infinity among them.
    return tuple(collector._bounds) if hasattr(collector, "_bounds") else tuple(collector._upper_bounds[:-1])
