"""Reports that are not on the disk yet: each call waits until all that it brought is, up to a bound."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile

from credentiald.errors import StoreUnavailable
from credentiald.record_model import Rejection
from credentiald.usual_report import Matched, Told, joined_matched

# How long reports wait for others, and how many wait no longer: a bridge sends no more before these are stored. Bridges
# gather by themselves for longer: this is for several that report at once.
REPORT_SECONDS = 0.025
ENOUGH_REPORTS = 500
MOST_REPORTS = 50_000
MOST_REPORT_BYTES = 64 * 1024 * 1024
# Of one transaction.
REPORT_BYTES_AT_ONCE = 4 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Call:
    """What came with one call: reports, and after them in its places those that are matched."""

    reports: Sequence[Told]
    matched: Sequence[Matched]
    size_bytes: int
    # On the loop's clock.
    since_seconds: float
    done: "asyncio.Future[Mapping[int, Rejection]]"
    rejections: dict[int, Rejection] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reports) + sum(map(len, self.matched))


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

    def add(self, reports: Sequence[Told], matched: Sequence[Matched], size_bytes: int) -> Call:
        """One call more. StoreUnavailable."""
        loop = asyncio.get_running_loop()
        one = Call(reports, matched, size_bytes, loop.time(), loop.create_future())
        if self._reports + len(one) > MOST_REPORTS or self._bytes + size_bytes > MOST_REPORT_BYTES:
            raise StoreUnavailable
        self._waiting.append(one)
        self._reports += len(one)
        self._bytes += size_bytes
        return one

    def take(self) -> Sequence[Call]:
        """Those that are stored next: to be acknowledged, or refused."""
        sizes = accumulate(one.size_bytes for one in self._waiting)
        # Up to the one that makes it enough.
        count = 1 + sum(1 for _ in takewhile(lambda size_bytes: size_bytes < REPORT_BYTES_AT_ONCE, sizes))
        self._storing, self._waiting = self._waiting[:count], self._waiting[count:]
        return self._storing

    def take_all(self) -> Sequence[Call]:
        """All that wait: nothing more is stored."""
        self._storing, self._waiting = self._waiting, []
        return self._storing

    def acknowledge(self, calls: Sequence[Call]) -> None:
        """They are on the disk, but for what was rejected."""
        self._leave(calls)
        for one in calls:
            if not one.done.done():
                one.done.set_result(one.rejections)

    def refuse(self, calls: Sequence[Call], reason: Exception) -> None:
        """They are not, and may come again."""
        self._leave(calls)
        for one in calls:
            if not one.done.done():
                one.done.set_exception(reason)

    def _leave(self, calls: Sequence[Call]) -> None:
        self._reports -= sum(map(len, calls))
        self._bytes -= sum(one.size_bytes for one in calls)
        self._storing = ()


def told_in(calls: Sequence[Call]) -> tuple[list[Told], Matched]:
    """The reports of all of these, and all that are matched."""
    reports = [report for one in calls for report in one.reports]
    return reports, joined_matched([some for one in calls for some in one.matched])


def places_of(calls: Sequence[Call]) -> list[Place]:
    """Where each report of these is: first the reports, then those that are matched, as `told_in` has them."""
    reports = [(one, place) for one in calls for place in range(len(one.reports))]
    return reports + [(one, place) for one in calls for place in range(len(one.reports), len(one))]


def reject(places: Sequence[Place], rejection: Rejection) -> None:
    """These are never stored."""
    for one, place in places:
        one.rejections[place] = rejection
