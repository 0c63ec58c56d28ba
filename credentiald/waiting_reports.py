"""Reports that are not on the disk yet: each call waits until all that it brought is, up to a bound."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile

from credentiald.errors import Refusal, StoreUnavailable
from credentiald.record_model import Rejection
from credentiald.usual_report import Told

# How long reports wait for others, and how many wait no longer: a bridge sends no more before these are stored.
REPORT_SECONDS = 0.05
ENOUGH_REPORTS = 500
MOST_REPORTS = 50_000
MOST_REPORT_BYTES = 64 * 1024 * 1024
# Of one transaction.
REPORT_BYTES_AT_ONCE = 4 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Call:
    """What came with one call."""

    reports: Sequence[Told]
    size_bytes: int
    # On the loop's clock.
    since_seconds: float
    done: "asyncio.Future[Mapping[int, Rejection]]"
    rejections: dict[int, Rejection] = field(default_factory=dict)


Place = tuple[Call, int]


class WaitingReports:
    """In the order in which they came. What is being stored has not arrived yet: it still waits."""

    def __init__(self) -> None:
        self._waiting: list[Call] = []
        self._storing: Sequence[Call] = ()
        self._reports = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._reports

    @property
    def some_wait(self) -> bool:
        """Whether there are more than are being stored."""
        return bool(self._waiting)

    def oldest_seconds(self) -> float | None:
        """When the oldest came, on the loop's clock; None where there is none."""
        return next((one.since_seconds for one in (*self._storing[:1], *self._waiting[:1])), None)

    def gather_seconds(self) -> float:
        """How long reports wait now."""
        return REPORT_SECONDS if self._reports < ENOUGH_REPORTS else 0.0

    def add(self, reports: Sequence[Told], size_bytes: int) -> Call:
        """One call more. StoreUnavailable."""
        if self._reports + len(reports) > MOST_REPORTS or self._bytes + size_bytes > MOST_REPORT_BYTES:
            raise StoreUnavailable
        loop = asyncio.get_running_loop()
        one = Call(reports, size_bytes, loop.time(), loop.create_future())
        self._waiting.append(one)
        self._reports += len(reports)
        self._bytes += size_bytes
        return one

    def take(self) -> Sequence[Call]:
        """Those that are stored next: to be acknowledged, or refused."""
        sizes = accumulate(one.size_bytes for one in self._waiting)
        # Up to the one that makes it enough.
        count = 1 + sum(1 for _ in takewhile(lambda size_bytes: size_bytes < REPORT_BYTES_AT_ONCE, sizes))
        self._storing, self._waiting = self._waiting[:count], self._waiting[count:]
        return self._storing

    def acknowledge(self, calls: Sequence[Call]) -> None:
        """They are on the disk, but for what was rejected."""
        self._leave(calls)
        for one in calls:
            if not one.done.done():
                one.done.set_result(one.rejections)

    def refuse(self, calls: Sequence[Call], refusal: Refusal) -> None:
        """They are not, and may come again."""
        self._leave(calls)
        for one in calls:
            if not one.done.done():
                one.done.set_exception(refusal)

    def _leave(self, calls: Sequence[Call]) -> None:
        self._reports -= sum(len(one.reports) for one in calls)
        self._bytes -= sum(one.size_bytes for one in calls)
        self._storing = ()


def places_of(calls: Sequence[Call]) -> list[Place]:
    """Each report of these."""
    return [(one, place) for one in calls for place in range(len(one.reports))]


def reject(places: Sequence[Place], rejection: Rejection) -> None:
    """These are never stored."""
    for one, place in places:
        one.rejections[place] = rejection
