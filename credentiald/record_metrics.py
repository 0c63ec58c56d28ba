"""What credentiald counts of records: tokens, ends, and what waits. Bounded labels, no names of users.

`provider` is an instance's name while there is one, `model` one that has a price there or that it maps to, both `other`
for the rest. That a client may invent models and an administrator delete providers must not make series without end.
"""

from collections import Counter as Counts
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from credentiald.catalog import CATALOG
from credentiald.record_model import (
    PRESUMED,
    Attempt,
    ErrorCategory,
    Fact,
    Kind,
    ModelThought,
    Outcome,
    Prompt,
    Rejection,
    Tally,
    TokenUsage,
    ToolCall,
)
from credentiald.store.record_writing import Stored
from daemonkit.tallies import CounterTally, HistogramTally

OTHER = "other"
# The category of an end without an error of the upstream.
NO_ERROR = "none"
# From a batch of one on a fast disk to a disk that does not keep up, in seconds.
_COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
_KINDS: dict[type[Fact], str] = {
    TokenUsage: "token_usage",
    Prompt: "prompt",
    ToolCall: "tool_call",
    ModelThought: "model_thought",
    Attempt: "attempt",
}
# No token is in two of them: input that came out of a cache or went into one is not in `input`.
_TOKEN_KINDS = ("input", "output", "cache_read", "cache_write")


class RecordMetrics:
    """The series about records of one credentiald process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: Collection[tuple[str, str]] = frozenset()
        # Names of providers: that are there, and that were.
        self._known: set[str] = set()
        self._gone: set[str] = set()
        self._stored = CounterTally(
            "credentiald_records_stored", "Records that were stored, each once.", ["kind", "provider"], registry
        )
        self._tokens = CounterTally(
            "credentiald_tokens",
            "Tokens of stored usages. No token is of two kinds: cached input is not in input.",
            ["provider", "model", "kind"],
            registry,
        )
        self._ends = CounterTally(
            "credentiald_interceptions_ended",
            "Ends of interceptions; a real end after one that was presumed (BRIDGE_VANISHED) counts again.",
            ["outcome", "provider", "provider_type", "error_category"],
            registry,
        )
        self._unpriced = CounterTally(
            "credentiald_unpriced_token_usages",
            "Stored token usages without a cost, because a price is not known.",
            ["provider"],
            registry,
        )
        self._rejected = CounterTally(
            "credentiald_records_rejected",
            "Reports of interceptions that can never be stored.",
            ["reason"],
            registry,
        )
        self._dropped = CounterTally(
            "credentiald_openings_dropped",
            "Openings that were not stored; a bridge's records make them good unless the bridge is lost, too.",
            [],
            registry,
        )
        self._purged = CounterTally(
            "credentiald_interceptions_purged", "Interceptions that retention removed.", [], registry
        )
        # There as 0 before anything happens: the first of a series is no increase to who reads it.
        for tally in (self._dropped, self._purged):
            tally.add(0)
        for rejection in Rejection:
            self._rejected.add(0, rejection.value)
        self._expect_ends(OTHER, OTHER)
        self._commit = HistogramTally(
            "credentiald_records_commit_duration_seconds",
            "Time from handing a batch of records to the store until it is on the disk.",
            _COMMIT_BUCKETS,
            registry,
        ).at()
        self._waiting = Gauge(
            "credentiald_records_waiting", "Openings and reports that wait to be stored.", registry=registry
        )
        self._oldest = Gauge(
            "credentiald_records_waiting_age_seconds",
            "How long the oldest of them has waited; 0 where none does.",
            registry=registry,
        )
        self.bridges = Gauge(
            "credentiald_bridges_heard",
            "Processes of bridges that were heard of within a minute, by any worker.",
            registry=registry,
        )
        self._retention = _LastSuccess()
        registry.register(self._retention)

    def know(self, providers: Mapping[str, str], models: Collection[tuple[str, str]]) -> None:
        """Which providers there are, with their types, and which models are configured: names of provider and model."""
        self._models = models
        known = {*providers, OTHER}
        self._gone = (self._gone | self._known) - known
        self._known = known
        for name, provider_type in providers.items():
            self._expect_ends(name, _type(provider_type))
        self._ends.keep("provider", known)
        self._stored.keep("provider", known)
        self._tokens.keep("provider", known)
        self._unpriced.keep("provider", known)

    def watch_waiting(self, count: Callable[[], int], oldest_seconds: Callable[[], float]) -> None:
        """Show how many records wait, and for how long, when the metrics are read."""
        self._waiting.set_function(count)
        self._oldest.set_function(oldest_seconds)

    def stored(self, stored: Stored, seconds: float) -> None:
        """Count what was new in one batch."""
        kinds: Counts[tuple[str, str]] = Counts()
        tokens: dict[tuple[str, str], list[int]] = {}
        for draft in stored.started:
            kinds["interception", self._provider(draft.provider_name)] += 1
        for _, _, origin, *_ in stored.usual.opened.values():
            kinds["interception", self._provider(origin.provider_name)] += 1
        for draft, fact in stored.facts:
            provider = self._provider(draft.provider_name)
            kinds[_KINDS[type(fact)], provider] += 1
            if isinstance(fact, TokenUsage):
                if fact.cost_micros is None:
                    self._unpriced.count(provider)
                model = self._model(provider, draft.upstream_model, draft.model)
                sums = tokens.setdefault((provider, model), [0, 0, 0, 0])
                for place, count in enumerate(fact[3:7]):
                    sums[place] += count
        for group, tally in stored.usual.tallies.items():
            self._usual(group, tally)
        for (kind, provider), count in kinds.items():
            self._stored.add(count, kind, provider)
        for (provider, model), sums in tokens.items():
            for kind, count in zip(_TOKEN_KINDS, sums, strict=True):
                self._tokens.add(count, provider, model, kind)
        for draft in stored.ended:
            provider, category = self._provider(draft.provider_name), draft.error_category or NO_ERROR
            self._ends.count(draft.outcome, provider, _type(draft.provider_type), category)
        self._commit.observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count what a bridge has reported of one interception in vain."""
        self._rejected.count(reason)

    def openings_dropped(self, count: int) -> None:
        """Count openings that are lost."""
        self._dropped.add(count)

    def purged(self, count: int) -> None:
        """Count what retention removed."""
        self._purged.add(count)

    def retention_began(self, timestamp_seconds: float) -> None:
        """From now on records are removed when they are too old: until that succeeds, this time stands in its place."""
        self._retention.timestamp_seconds = timestamp_seconds

    def retention_succeeded(self, timestamp_seconds: float) -> None:
        """Retention has removed all that it should."""
        self._retention.timestamp_seconds = timestamp_seconds

    def _usual(self, group: Kind, tally: Tally) -> None:
        """Count interceptions of one kind that came by the short way: all have ended."""
        provider = self._provider(group.origin.provider_name)
        interceptions, token_usages, *tokens, _, unpriced = tally.sums
        counts = {
            "interception": tally.new,
            "token_usage": token_usages,
            "prompt": tally.prompts,
            "tool_call": tally.tool_calls,
            "model_thought": tally.model_thoughts,
        }
        for kind, count in counts.items():
            if count:
                self._stored.add(count, kind, provider)
        if unpriced:
            self._unpriced.add(unpriced, provider)
        if token_usages:
            model = self._model(provider, group.upstream_model, group.model)
            for kind, count in zip(_TOKEN_KINDS, tokens, strict=True):
                self._tokens.add(count, provider, model, kind)
        self._ends.add(interceptions, group.outcome, provider, _type(group.origin.provider_type), NO_ERROR)

    def _expect_ends(self, provider: str, provider_type: str) -> None:
        """Have the ends there as 0 that rules look for."""
        self._ends.at(PRESUMED, provider, provider_type, NO_ERROR)
        for category in ErrorCategory:
            self._ends.at(Outcome.UPSTREAM_ERROR.value, provider, provider_type, category.value)

    def _provider(self, name: str) -> str:
        """What is counted of one that is gone would be a series that is forgotten with its next look."""
        return OTHER if not name or name in self._gone else name

    def _model(self, provider: str, upstream_model: str, asked: str) -> str:
        for model in (upstream_model, asked):
            if (provider, model) in self._models:
                return model
        return OTHER


def _type(provider_type: str) -> str:
    return provider_type if provider_type in CATALOG else OTHER


class _LastSuccess(Collector):
    """No sample where there is no retention: 0 would read as fifty years ago."""

    def __init__(self) -> None:
        self.timestamp_seconds: float | None = None

    def collect(self) -> list[GaugeMetricFamily]:
        """The family, from the time as it is now."""
        family = GaugeMetricFamily(
            "credentiald_retention_last_success_timestamp_seconds",
            "When retention last had nothing left to remove, before that the start of the process; absent where "
            "records are kept for ever.",
            value=self.timestamp_seconds,
        )
        return [family]


class StoreSizes(Collector):
    """How large the store's files are, each with what of it is still in its write-ahead log."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    def collect(self) -> list[GaugeMetricFamily]:
        """The family, from the files as they are now."""
        family = GaugeMetricFamily(
            "credentiald_store_bytes",
            "Size of a file of the store with its write-ahead log.",
            labels=["file"],
        )
        for name, path in self._paths.items():
            family.add_metric([name], sum(map(_size_bytes, (path, path.with_name(f"{path.name}-wal")))))
        return [family]


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
