"""What credentiald counts. Base units, bounded labels, no names of users; of providers for AWS's credentials only.

One registry a process, handed around; nothing is registered globally.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from credentiald.audit_metrics import AuditMetrics
from credentiald.aws.access import AwsAccess
from credentiald.aws.supply import SupplyState
from credentiald.key_health import OutcomeKind
from credentiald.record_metrics import RecordMetrics, StoreSizes
from daemonkit.log_metrics import LogMetrics
from daemonkit.process_metrics import ProcessMetrics
from daemonkit.tallies import CounterTally, HistogramTally, Made
from daemonkit.tls_metrics import TlsMetrics

# From a cached answer to the deadline, in seconds.
_RPC_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
TOLD_OUTCOMES = ("counted", "repeated", "over_bound", "not_theirs")
_ACKNOWLEDGEMENT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The series of one credentiald process."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._rpcs = CounterTally(
            "credentiald_rpcs",
            "Ended rpcs by outcome: OK, the reason of the refusal, CANCELLED, or INTERNAL.",
            ["rpc", "outcome"],
            self.registry,
            tells_start=True,
        )
        self._resting_names: set[str] = set()
        self._seconds = HistogramTally(
            "credentiald_rpc_duration_seconds",
            "Time from receiving a question to its answer; streams are not in it.",
            _RPC_BUCKETS,
            self.registry,
            ["rpc"],
            tells_start=True,
        )
        sources = CounterTally(
            "credentiald_resolutions",
            "Answered resolves by the source of the credential.",
            ["source"],
            self.registry,
            tells_start=True,
        )
        self._resolved = Made(sources.at)
        self._refusals = Counter(
            "credentiald_resolve_stream_refusals_total",
            "Refused questions of batches, by reason; those of single calls are in credentiald_rpcs_total.",
            ["reason"],
            registry=self.registry,
        )
        self._batch_items = HistogramTally(
            "credentiald_resolve_batch_items",
            "Questions in a batch.",
            _BATCH_BUCKETS,
            self.registry,
            tells_start=True,
        ).at()
        answers = CounterTally(
            "credentiald_answer_cache",
            "Questions of batches by whether an unchanged answer was at hand (hit) or the store was read (miss).",
            ["outcome"],
            self.registry,
            tells_start=True,
        )
        self._hits, self._misses = answers.at("hit"), answers.at("miss")
        self.records = RecordMetrics(self.registry)
        self.audit = AuditMetrics(self.registry)
        self._outcomes = Counter(
            "credentiald_credential_outcomes_total",
            "What bridges told of keys, by what became of the telling: counted, repeated, over_bound or not_theirs.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        for kind in OutcomeKind:
            for outcome in TOLD_OUTCOMES:
                self._outcomes.labels(kind.value, outcome)
        self._resting = Gauge(
            "credentiald_resting_keys",
            "Keys of a pool that rest because a bridge complained of them, as any worker sees it.",
            ["provider"],
            registry=self.registry,
        )
        self.watchers = Gauge(
            "credentiald_watchers", "Streams on which bridges are told what is changed.", registry=self.registry
        )
        self._acknowledgement_seconds = Histogram(
            "credentiald_revocation_acknowledgement_seconds",
            "How long rpcs that take something away waited until every bridge that watches had obeyed, or no longer.",
            buckets=_ACKNOWLEDGEMENT_BUCKETS,
            registry=self.registry,
        )
        self._unacknowledged = Counter(
            "credentiald_revocations_unacknowledged_total",
            "Watching bridges that did not acknowledge a change in time; their streams were ended.",
            registry=self.registry,
        )
        self.tls = TlsMetrics("credentiald", self.registry)
        LogMetrics("credentiald", self.registry)
        self.sealed = Gauge(
            "credentiald_sealed", "1 while nobody has decrypted the sealing keys yet.", registry=self.registry
        )
        self._unseal_attempts = Counter(
            "credentiald_sealing_unseal_attempts_total",
            "Attempts to have sealing keys decrypted, by outcome: ok, unreachable or refused.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("ok", "unreachable", "refused"):
            self._unseal_attempts.labels(outcome)
        self.secrets_to_reseal = Gauge(
            "credentiald_sealing_remaining",
            "Stored secrets that an older sealing key seals, as any worker sees it; 0 without a rotation.",
            registry=self.registry,
        )
        self._resealed = Counter(
            "credentiald_sealing_resealed_total", "Stored secrets that were sealed anew.", registry=self.registry
        )
        process = ProcessMetrics("credentiald", self.registry)
        self.ready, self.draining = process.ready, process.draining
        build = Gauge("credentiald_build_info", "Always 1; the label says which.", ["version"], registry=self.registry)
        build.labels(version).set(1)

    def unseal_attempted(self, outcome: str) -> None:
        """Count an attempt to have the sealing keys decrypted."""
        self._unseal_attempts.labels(outcome).inc()

    def resealed(self, count: int) -> None:
        """Count secrets that were sealed anew."""
        self._resealed.inc(count)

    def watch_aws(self, aws: AwsAccess) -> None:
        """Show AWS's credentials as they are when the metrics are read."""
        self.registry.register(_AwsCredentials(aws))

    def watch_store(self, paths: Mapping[str, Path]) -> None:
        """Show how large these files are, by what they are called, when the metrics are read."""
        self.registry.register(StoreSizes(paths))

    def know_rpcs(self, rpcs: Iterable[str]) -> None:
        """Which methods there are. Their errors are there as 0: the first of a series is no increase to its reader."""
        for rpc in rpcs:
            self._rpcs.at(rpc, "INTERNAL")

    def rpc_done(self, rpc: str, outcome: str, seconds: float | None) -> None:
        """Count one ended rpc. `rpc` is a method of the contract, so the label is bounded; no time for streams."""
        self._rpcs.count(rpc, outcome)
        if seconds is not None:
            self._seconds.at(rpc).observe(seconds)

    def acknowledged(self, seconds: float) -> None:
        """Observe one wait of an administrator's rpc for bridges."""
        self._acknowledgement_seconds.observe(seconds)

    def unacknowledged(self) -> None:
        """Count one bridge that did not answer in time."""
        self._unacknowledged.inc()

    def resolved(self, source: str, count: int = 1) -> None:
        """Count good answers to resolves."""
        self._resolved[source].value += count

    def outcome_told(self, kind: str, outcome: str) -> None:
        """Count what a bridge told of a key, and what became of that."""
        self._outcomes.labels(kind, outcome).inc()

    def resting_keys(self, counts: Mapping[str, int]) -> None:
        """Show how many keys rest, for each provider that there is, by name."""
        for provider in self._resting_names - counts.keys():
            self._resting.remove(provider)
        self._resting_names = set(counts)
        for provider, count in counts.items():
            self._resting.labels(provider).set(count)

    def refused(self, reason: str) -> None:
        """Count one refused question of a batch."""
        self._refusals.labels(reason).inc()

    def batch_answered(self, *, items: int, misses: int) -> None:
        """Count one batch, and how many of its questions needed the store."""
        self._batch_items.observe(items)
        self._hits.value += items - misses
        self._misses.value += misses


class _AwsCredentials(Collector):
    """One sample a provider and kind ("source", "role"): the oldest, the first to end, any outage, all attempts."""

    def __init__(self, aws: AwsAccess) -> None:
        self._aws = aws

    def describe(self) -> Iterable[Metric]:
        """For the registry: the names, without looking at any state."""
        return self._families()

    def collect(self) -> Iterator[Metric]:
        """The families, from what the supplies are now."""
        groups: dict[tuple[str, str], list[SupplyState]] = {}
        for provider, state in self._aws.states():
            groups.setdefault((provider, state.kind), []).append(state)
        fetched, ends, outage, attempts = families = self._families()
        for names, states in groups.items():
            spans = [state.span for state in states if state.span is not None and state.is_served]
            if spans:
                fetched.add_metric(names, min(span.fetch_time.timestamp() for span in spans))
            expire_times = [span.expire_time.timestamp() for span in spans if span.expire_time is not None]
            if expire_times:
                ends.add_metric(names, min(expire_times))
            outage.add_metric(names, any(state.failures.count for state in states))
        for (provider, kind, outcome), count in self._aws.attempts.items():
            attempts.add_metric([provider, kind, outcome], count)
        yield from families

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily]:
        labels = ["provider", "kind"]
        return (
            GaugeMetricFamily(
                "credentiald_aws_credential_fetch_timestamp_seconds",
                "When the oldest AWS credential that is given out was fetched.",
                labels=labels,
            ),
            GaugeMetricFamily(
                "credentiald_aws_credential_expiry_timestamp_seconds",
                "When the first of the AWS credentials that are given out ends.",
                labels=labels,
            ),
            GaugeMetricFamily(
                "credentiald_aws_credential_outage",
                "1 while a source of AWS credentials fails, whether or not what it gave before is still good.",
                labels=labels,
            ),
            CounterMetricFamily(
                "credentiald_aws_credential_fetches",
                "Attempts to fetch an AWS credential, by outcome.",
                labels=[*labels, "outcome"],
            ),
        )
