"""What scripts/bench works out from what it has seen: figures of the load tool, medians, ratios, the table."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterator, Sequence
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
    """One target under one workload. CPU and thousands of instructions, the kernel's among them, are those of all its
    processes, PSS what they occupy together. NaN for what could not be counted."""

    cpu_us: float
    kinstructions: float
    p50_us: float
    p99_us: float
    requests_per_second: float
    pss_mib: float


# The rounds of each target under each workload.
Seen = dict[str, dict[str, list[Figures]]]


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


def comparisons(seen: Seen, ours: str, floor: str) -> Iterator[str]:
    """For each target that ours is compared with beside the floor: what of it we took, and what we took more, also as a
    part of what the floor took, which says something where a machine is not as fast as another; round by round."""
    for workload, targets in seen.items():
        for other in [name for name in targets if name not in (ours, floor)]:
            rounds = list(zip(targets[ours], targets[other], targets[floor], strict=True))
            cpu = compared([one.cpu_us / two.cpu_us for one, two, _ in rounds])
            counted = compared([one.kinstructions / two.kinstructions for one, two, _ in rounds])
            yield f"{workload}: {ours} took of {other}: CPU {cpu}, instructions {counted}"
            cpu = compared([one.cpu_us - two.cpu_us for one, two, _ in rounds], "+.1f")
            part = compared([(one.cpu_us - two.cpu_us) / least.cpu_us for one, two, least in rounds], "+.2f")
            counted = compared([one.kinstructions - two.kinstructions for one, two, _ in rounds], "+.1f")
            yield f"{workload}: more than {other}: CPU {cpu} µs, in CPU of {floor} {part}, k instr {counted}"


def compared(found: Sequence[float], form: str = ".3f") -> str:
    """The median of these, and between which of them it would be in 19 of 20 such runs (order statistics, whatever the
    distribution); less than six cannot tell."""
    found = sorted(found)
    count = len(found)
    # How many of them are below the true median is that often heads in `count` throws of a coin.
    below = (math.comb(count, heads) / 2**count for heads in range(count))
    outside = sum(chance <= 0.025 for chance in itertools.accumulate(below))
    middle = f"{statistics.median(found):{form}}"
    return (
        f"{middle} ({found[outside - 1]:{form}} to {found[-outside]:{form}})"
        if outside
        else f"{middle} (too few rounds)"
    )


def table(seen: Seen, floor: str) -> str:
    """Workload, target and medians in columns; below each other target's row its ratios to the `floor`."""
    heads = ("CPU µs", "k instr", "p50 µs", "p99 µs", "req/s", "PSS MiB")
    lines = [f"{'workload':14} {'target':12} " + " ".join(f"{head:>9}" for head in heads)]
    for workload, targets in seen.items():
        medians = {target: median(rounds) for target, rounds in targets.items()}
        for target, figures in medians.items():
            lines.append(f"{workload:14} {target:12} " + " ".join(f"{one:9.1f}" for one in asdict(figures).values()))
            if target != floor:
                times = ratios(figures, medians[floor]).values()
                lines.append(f"{'':14} {'× ' + floor:12} " + " ".join(f"{one:9.2f}" for one in times))
    return "\n".join(lines)
