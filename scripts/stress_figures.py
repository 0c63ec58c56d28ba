"""What scripts/stress measures of a process, and what it makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

SAMPLE_SECONDS = 0.2
SLOPE_KIB_A_MINUTE = 256.0
LEAST_RISE_MIB = 4.0
# What a bridge says where credentiald, or its store, did not answer in time; a client is to come again.
TROUBLE = frozenset({"CREDENTIALD_UNREACHABLE", "STORE_UNAVAILABLE", "AUDIT_UNAVAILABLE"})
TROUBLE_ONE_IN = 10_000
# The bridge's time-out for credentiald, and a second for the answer itself: later than that is no honest trouble.
TROUBLE_SECONDS = 6.0
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One thing that must hold, with what was measured."""

    good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok' if self.good else 'FAILED':7}{self.text}"


def rss_mib(pid: int) -> float:
    """Memory of a process. Not PSS: that changes with the other processes that share its libraries."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MIB


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@asynccontextmanager
async def peak_of(measure: Callable[[], float]) -> AsyncIterator[Callable[[], float]]:
    """What is yielded says the largest value since the block began."""
    largest = measure()

    async def sample() -> None:
        nonlocal largest
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            largest = max(largest, measure())

    sampling = asyncio.create_task(sample())
    try:
        yield lambda: largest
    finally:
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling


async def settled(measure: Callable[[], float], limit: float, seconds: float) -> float:
    """The value once it is at the limit or below; after so many seconds whatever it is."""
    value = await asyncio.to_thread(measure)
    for _ in range(round(seconds / SAMPLE_SECONDS)):
        if value <= limit:
            break
        await asyncio.sleep(SAMPLE_SECONDS)
        value = await asyncio.to_thread(measure)
    return value


def at_most(text: str, value: float, limit: float, unit: str = "") -> Verdict:
    """That a value is not over its limit."""
    unit = f" {unit}" if unit else ""
    number, bound = (f"{item:.1f}" if isinstance(item, float) else str(item) for item in (value, limit))
    return Verdict(good=value <= limit, text=f"{text}: {number}{unit} (at most {bound}{unit})")


def none_of(text: str, found: Sequence[str]) -> Verdict:
    """That a list is empty; else how long it is, and how it begins."""
    shown = f": {len(found)}, first {found[0]}" if found else ": none"
    return Verdict(good=not found, text=text + shown)


def trouble_of(head: bytes) -> str:
    """The reason, where an answer says that the pair is in trouble and when to come again; empty for all else."""
    fields = dict(line.partition(b": ")[::2] for line in head.lower().split(b"\r\n")[1:])
    reason = fields.get(b"x-drawbridge-error", b"").decode("latin-1").upper()
    is_trouble = head.startswith(b"HTTP/1.1 503 ") and reason in TROUBLE and b"retry-after" in fields
    return reason if is_trouble else ""


def rise_verdict(name: str, points: Sequence[tuple[float, float]]) -> Verdict:
    """Whether memory rises: over the second half, in which caches are full. Points are minutes and MiB.

    What is held against the bound is the median of the slopes of all pairs. A rise below LEAST_RISE_MIB over the
    whole half is none: bodies under way, and pages of the store, move memory by as much, and in a short run that is
    steep.
    """
    half = points[0][0] + (points[-1][0] - points[0][0]) / 2
    measured = [point for point in points if point[0] >= half]
    minutes = measured[-1][0] - measured[0][0]
    rise_kib = slope(measured) * 1024
    bound_kib = max(SLOPE_KIB_A_MINUTE, LEAST_RISE_MIB * 1024 / minutes)
    return Verdict(
        good=rise_kib <= bound_kib,
        text=f"memory of {name}: {points[0][1]:.1f} MiB at the begin, {measured[0][1]:.1f} after {measured[0][0]:.1f} "
        f"minutes, {measured[-1][1]:.1f} at the end, {max(mib for _, mib in points):.1f} at the most; in the "
        f"second half it rises {rise_kib:.0f} KiB a minute (at most {bound_kib:.0f})",
    )


def trouble_verdict(requests: int, troubles: Sequence[str]) -> Verdict:
    """That at most one in TROUBLE_ONE_IN requests was told to come again, as it may happen on an overloaded machine."""
    allowed = requests // TROUBLE_ONE_IN
    first = f", first {troubles[0]}" if troubles else ""
    return Verdict(
        good=len(troubles) <= allowed,
        text=f"told to come again (503 with Retry-After, in time): {len(troubles)} of {requests} (at most {allowed})"
        + first,
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much the second value rises for one of the first: the median of the slopes of all pairs (Theil and Sen), so
    that single jumps do not count."""
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0])
