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


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much the second value rises for one of the first: the median of the slopes of all pairs (Theil and Sen), so
    that single jumps do not count."""
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0])
