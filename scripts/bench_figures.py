"""What scripts/bench works out from what it has seen: figures of the load tool, medians, ratios, the table."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

_FINISHED = re.compile(r"^finished in [^,]+, ([\d.]+) req/s", re.MULTILINE)
_LOST = re.compile(r"(\d+) failed, (\d+) errored, (\d+) timeout")
_STATUSES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.MULTILINE)


class BadRun(Exception):
    """A run whose figures mean nothing; the message says why, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run of the load tool saw."""

    requests: int
    requests_per_second: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One target under one workload. CPU is that of all its processes, PSS what they occupy together."""

    cpu_us: float
    p50_us: float
    p99_us: float
    requests_per_second: float
    pss_mib: float


def read_load(output: str, log: str) -> Load:
    """The figures in the output of `h2load` and in its `--log-file` (start, status and microseconds a line).

    Raises BadRun when a request failed, was not answered with 2xx, or nothing was answered at all.
    """
    finished, lost, statuses = _FINISHED.search(output), _LOST.search(output), _STATUSES.search(output)
    if not (finished and lost and statuses):
        raise BadRun(f"h2load wrote something unexpected:\n{output}")
    if any(int(count) for count in (*lost.groups(), *statuses.groups()[1:])):
        raise BadRun(f"not every request was answered well: {lost[0]}; {statuses[0]}")
    latencies = sorted(int(line.split("\t")[2]) for line in log.splitlines())
    if not latencies:
        raise BadRun("no request was answered: take more --seconds")
    return Load(
        requests=len(latencies),
        requests_per_second=float(finished[1]),
        p50_us=percentile(latencies, 50),
        p99_us=percentile(latencies, 99),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank); `ordered` ascends."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def median(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure by itself."""
    return Figures(
        **{one.name: statistics.median(getattr(each, one.name) for each in rounds) for one in fields(Figures)}
    )


def ratios(ours: Figures, floor: Figures) -> dict[str, float]:
    """Each figure of ours as a multiple of the floor's."""
    return {name: value / asdict(floor)[name] for name, value in asdict(ours).items()}


def table(rows: Sequence[tuple[str, str, Figures]], floor: str) -> str:
    """Workload, target and figures in columns; below each other target's row its ratios to the `floor`."""
    floors = {workload: figures for workload, target, figures in rows if target == floor}
    lines = [f"{'workload':14} {'target':12} {'CPU µs':>9} {'p50 µs':>9} {'p99 µs':>9} {'req/s':>9} {'PSS MiB':>9}"]
    for workload, target, figures in rows:
        lines.append(f"{workload:14} {target:12} " + " ".join(f"{one:9.1f}" for one in asdict(figures).values()))
        if target != floor:
            times = ratios(figures, floors[workload]).values()
            lines.append(f"{'':14} {'× ' + floor:12} " + " ".join(f"{one:9.2f}" for one in times))
    return "\n".join(lines)
