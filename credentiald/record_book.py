"""The book of records: what came in is gathered for a moment and stored together, off the way of every answer.

- An opening waits for the first report of its interception, so that most are written once; not for longer than
  `OPENING_SECONDS`. Openings that are lost with the process are made good by the receipts that bridges bring.
- A report is acknowledged when it is on the disk. While the store does not answer, bridges keep their reports, and
  openings wait here, up to a bound; what is dropped is counted.
- One transaction takes so much that whoever waits for the next is not kept long.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, islice, takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from credentiald import record_log, record_merge
from credentiald.bridge_instances import Instance, Instances
from credentiald.errors import Refusal, StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.prices import NO_PRICES, PriceTable
from credentiald.record_model import Noted, OpeningRow, Rejection
from credentiald.resolve import upstream_model
from credentiald.store import record_writing
from credentiald.store.record_writing import Batch, Stored
from credentiald.store.records import Records
from credentiald.store.times import to_micros
from credentiald.usual_report import Told

if TYPE_CHECKING:
    from credentiald.tracing import Tracing

T = TypeVar("T")

log = logging.getLogger(__name__)

# How long an opening waits for the records of its interception.
OPENING_SECONDS = 0.7
# How long reports wait for others, and how many wait no longer: a bridge sends no more before these are stored.
REPORT_SECONDS = 0.05
ENOUGH_REPORTS = 500
_OPENING_MICROS = int(OPENING_SECONDS * 1_000_000)
_RETRY_SECONDS = 1.0
_MOST_OPENINGS = 200_000
_MOST_REPORTS = 50_000
_MOST_REPORT_BYTES = 64 * 1024 * 1024
# Of one transaction.
_OPENINGS_AT_ONCE = 2000
_REPORT_BYTES_AT_ONCE = 4 * 1024 * 1024
# More reports than this that cannot be stored are no trouble of theirs.
_MOST_UNSTORABLE = 16


@dataclass(slots=True, eq=False)
class _Waiting:
    """What came with one call."""

    reports: Sequence[Told]
    size_bytes: int
    # On the loop's clock.
    since_seconds: float
    done: "asyncio.Future[Mapping[int, Rejection]]"
    rejections: dict[int, Rejection] = field(default_factory=dict)


async def no_prices() -> PriceTable:
    """Where nothing has a price."""
    return NO_PRICES


class RecordBook:
    """Made by `running_book` (record_rounds.py) for the length of a block."""

    def __init__(
        self,
        records: Records,
        metrics: Metrics,
        clock: Callable[[], datetime],
        *,
        writes_log: bool = False,
        read_prices: Callable[[], Awaitable[PriceTable]] = no_prices,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._records = records
        self._metrics = metrics
        self._clock = clock
        self._writes_log = writes_log
        self._read_prices = read_prices
        self._tracing = tracing
        self.instances = Instances()
        # In the order in which they came; each stays until it is on the disk.
        self._openings: dict[bytes, Noted] = {}
        self._waiting: list[_Waiting] = []
        # What is being stored has not arrived yet: it still waits.
        self._storing: Sequence[_Waiting] = ()
        self._waiting_reports = 0
        self._waiting_bytes = 0
        self._refused_time: datetime | None = None
        self._retry_seconds = 0.0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._flush = asyncio.Lock()
        self._flushing: set[asyncio.Task[None]] = set()
        metrics.records.watch_waiting(self.waiting, self.oldest_seconds)

    def waiting(self) -> int:
        """How many openings and reports are not on the disk."""
        return len(self._openings) + self._waiting_reports

    def oldest_seconds(self) -> float:
        """How long the oldest of them has waited; 0 where none does."""
        # All in the order in which they came.
        openings = islice(self._openings.values(), 1)
        ages = [0.0, *((to_micros(self._clock()) - one[-1]) / 1_000_000 for one in openings)]
        reports = (*self._storing[:1], *self._waiting[:1])
        ages += [asyncio.get_running_loop().time() - one.since_seconds for one in reports]
        return max(ages)

    @property
    def noted(self) -> Mapping[bytes, Noted]:
        """Openings that are not on the disk, by interception."""
        return self._openings

    @property
    def refused_time(self) -> datetime | None:
        """When the store did not take something for the last time."""
        return self._refused_time

    def note(self, noted: Sequence[Noted]) -> None:
        """Openings of interceptions that have been answered."""
        if not noted:
            return
        openings = self._openings
        fresh = {one[0]: one for one in noted}
        if len(fresh) == len(noted) and openings.keys().isdisjoint(fresh):
            openings.update(fresh)
        else:
            for one in noted:
                openings[one[0]] = record_merge.noted_again(openings.get(one[0]), one)
        _, _, decided, _, _, instance_id, _, micros = noted[-1]
        self.heard((decided.origin.service_id, instance_id), micros)
        excess = len(openings) - _MOST_OPENINGS
        if excess > 0:
            for key in list(islice(openings, excess)):
                del openings[key]
            self._metrics.records.openings_dropped(excess)
        if self._timer is None:
            self._later(OPENING_SECONDS)

    def heard(self, instance: Instance, micros: int) -> None:
        """A bridge was heard of."""
        if self.instances.heard(instance, micros) and self._timer is None:
            self._later(OPENING_SECONDS)

    async def append(self, reports: Sequence[Told], *, size_bytes: int = 0) -> Mapping[int, Rejection]:
        """Store reports; the places of those that are not stored, and why. StoreUnavailable."""
        if (
            self._closed
            or self._waiting_reports + len(reports) > _MOST_REPORTS
            or self._waiting_bytes + size_bytes > _MOST_REPORT_BYTES
        ):
            raise StoreUnavailable
        loop = asyncio.get_running_loop()
        one = _Waiting(reports, size_bytes, loop.time(), loop.create_future())
        self._waiting.append(one)
        self._waiting_reports += len(reports)
        self._waiting_bytes += size_bytes
        self._later(self._gather_seconds())
        return await one.done

    async def end_presumed(self, ends: Sequence[tuple[str, int]]) -> None:
        """End interceptions of which nothing more will be heard, at these times. StoreUnavailable."""
        async with self._flush:
            await self._tell(await self._stored(Batch(vanished=ends)))

    async def write_heard(self) -> None:
        """Write down which bridges were heard of up to now. StoreUnavailable."""
        async with self._flush:
            heard = self.instances.unwritten(all_newer=True)
            if heard:
                await self._stored(Batch(heard=heard))
                self.instances.written(heard)

    async def flush(self, *, all_openings: bool = True) -> None:
        """Store what waits: all reports with their openings, and openings that have waited long enough or all."""
        async with self._flush:
            while await self._flush_some(all_openings=all_openings):
                pass
        self._next_flush()

    async def _flush_some(self, *, all_openings: bool) -> bool:
        """Store what one transaction takes; whether there was more."""
        waiting = self._due_reports()
        reports = [report for one in waiting for report in one.reports]
        noted = self._due_openings(reports, all_openings=all_openings)
        heard = self.instances.unwritten()
        if not (reports or noted or heard):
            return False
        openings = _openings(noted)
        try:
            stored = await self._stored(Batch(openings=openings, reports=reports, heard=heard))
            self._stored_now(noted)
            self.instances.written(heard)
            _reject_taken(waiting, stored)
        except Refusal as refusal:
            self._refuse(waiting, refusal)
            return False
        except Exception:
            log.exception("records could not be stored together")
            await self._store_apart(noted, waiting)
            return False
        except BaseException:
            self._refuse(waiting, StoreUnavailable())
            raise
        self._acknowledge(waiting)
        # On the disk and acknowledged: what becomes of the lines is no concern of those who wait.
        await self._tell(stored)
        return bool(self._waiting) or len(noted) >= _OPENINGS_AT_ONCE

    async def _store_apart(self, noted: Sequence[Noted], waiting: Sequence[_Waiting]) -> None:
        """A bug that one record brings out must not be its neighbours' trouble."""
        places = [(one, place) for one in waiting for place in range(len(one.reports))]
        try:
            lost = await self._unstorable(noted, lambda some: Batch(openings=_openings(some)))
            self._stored_now(noted)
            self._metrics.records.openings_dropped(len(lost))
            failed = await self._unstorable(
                places, lambda some: Batch(reports=[one.reports[place] for one, place in some]), _reject_places
            )
        except Refusal as refusal:
            self._refuse(waiting, refusal)
            return
        if places and len(failed) == len(places):
            # Perhaps it is no fault of theirs.
            self._refuse(waiting, StoreUnavailable())
            return
        for one, place in failed:
            one.rejections[place] = Rejection.RECORD_INVALID
        self._acknowledge(waiting)

    async def _unstorable(
        self,
        items: Sequence[T],
        batch_of: Callable[[Sequence[T]], Batch],
        reject: Callable[[Sequence[T], Stored], None] = lambda _, __: None,
    ) -> list[T]:
        """Store those that can be stored; the others. StoreUnavailable, also where there are many of these."""
        failed: list[T] = []
        parts = [items] if items else []
        while parts:
            part = parts.pop()
            try:
                stored = await self._stored(batch_of(part))
            except Refusal:
                raise
            except Exception as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                log.exception("a record cannot be stored")
                failed += part
                if len(failed) > _MOST_UNSTORABLE:
                    raise StoreUnavailable from error
            else:
                reject(part, stored)
                await self._tell(stored)
        return failed

    async def _stored(self, batch: Batch) -> Stored:
        loop = asyncio.get_running_loop()
        started_seconds = loop.time()
        try:
            prices = await self._read_prices() if batch.reports else NO_PRICES
            with self._traced(batch):
                stored = await self._records.write(record_writing.store, batch, prices)
        except StoreUnavailable:
            self._refused_time = self._clock()
            self._retry_seconds = loop.time() + _RETRY_SECONDS
            raise
        self._metrics.records.stored(stored, loop.time() - started_seconds)
        return stored

    def _traced(self, batch: Batch) -> AbstractContextManager[None]:
        if self._tracing is None:
            return nullcontext()
        return self._tracing.commit([one[0] for one in (*batch.openings, *batch.reports)])

    async def _tell(self, stored: Stored) -> None:
        """Log what was stored."""
        if self._writes_log:
            try:
                await asyncio.to_thread(record_log.write, stored)
            except Exception:
                log.exception("records are stored but could not be logged")

    def _due_reports(self) -> Sequence[_Waiting]:
        sizes = accumulate(one.size_bytes for one in self._waiting)
        # Up to the one that makes it enough.
        count = 1 + sum(1 for _ in takewhile(lambda size_bytes: size_bytes < _REPORT_BYTES_AT_ONCE, sizes))
        self._storing, self._waiting = self._waiting[:count], self._waiting[count:]
        return self._storing

    def _due_openings(self, reports: Sequence[Told], *, all_openings: bool) -> list[Noted]:
        """The openings that are stored now: those of the reports, and the oldest."""
        openings = self._openings
        due = {key: openings[key] for key in [one[0].encode() for one in reports] if key in openings}
        if not all_openings and asyncio.get_running_loop().time() < self._retry_seconds:
            return list(due.values())
        now_micros = to_micros(self._clock())
        young_micros = now_micros if all_openings else now_micros - _OPENING_MICROS
        for key, one in openings.items():
            # In the order in which they came, so the rest is younger; from the future, where the clock was set back.
            if len(due) >= _OPENINGS_AT_ONCE or young_micros < one[-1] <= now_micros:
                break
            due[key] = one
        return list(due.values())

    def _stored_now(self, noted: Sequence[Noted]) -> None:
        openings = self._openings
        for one in noted:
            # One that was noted again meanwhile is another.
            if openings.get(one[0]) is one:
                del openings[one[0]]

    def _acknowledge(self, waiting: Sequence[_Waiting]) -> None:
        self._leave(waiting)
        for one in waiting:
            if not one.done.done():
                one.done.set_result(one.rejections)

    def _refuse(self, waiting: Sequence[_Waiting], refusal: Refusal) -> None:
        self._leave(waiting)
        for one in waiting:
            if not one.done.done():
                one.done.set_exception(refusal)

    def _leave(self, waiting: Sequence[_Waiting]) -> None:
        self._waiting_reports -= sum(len(one.reports) for one in waiting)
        self._waiting_bytes -= sum(one.size_bytes for one in waiting)
        self._storing = ()

    def _next_flush(self) -> None:
        if self._waiting:
            self._later(self._gather_seconds())
        elif self._openings:
            waited_seconds = (to_micros(self._clock()) - next(iter(self._openings.values()))[-1]) / 1_000_000
            wait_seconds = min(max(OPENING_SECONDS - waited_seconds, REPORT_SECONDS), OPENING_SECONDS)
            retry_seconds = self._retry_seconds - asyncio.get_running_loop().time()
            self._later(max(wait_seconds, retry_seconds))

    def _gather_seconds(self) -> float:
        """How long reports wait now."""
        return REPORT_SECONDS if self._waiting_reports < ENOUGH_REPORTS else 0.0

    def _later(self, seconds: float) -> None:
        """Flush after this time, or when that was said already if it comes earlier."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._begin_flush)

    def _begin_flush(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self.flush(all_openings=False))
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def close(self) -> None:
        """Store what is there, once."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing:
            await asyncio.gather(*self._flushing, return_exceptions=True)
        await self.flush()
        self._metrics.records.openings_dropped(len(self._openings))


def _openings(noted: Sequence[Noted]) -> list[OpeningRow]:
    """What was noted, as it is stored."""
    if not noted:
        return []
    columns: Any = zip(*noted, strict=True)
    ids, resolution_ids, decisions, models, clients, bridge_instance_ids, _, times = columns
    origins, operations, bedrock, *_ = zip(*decisions, strict=True)
    upstream_models = [
        # Few providers have models of their own.
        "" if options is None else upstream_model(options, model)
        for options, model in zip(bedrock, models, strict=True)
    ]
    texts = map(bytes.decode, ids), map(bytes.decode, resolution_ids)
    return list(
        zip(*texts, origins, bridge_instance_ids, operations, models, upstream_models, clients, times, strict=True)
    )


def _reject_taken(waiting: Sequence[_Waiting], stored: Stored) -> None:
    if stored.taken:
        _reject_places([(one, place) for one in waiting for place in range(len(one.reports))], stored)


def _reject_places(places: Sequence[tuple[_Waiting, int]], stored: Stored) -> None:
    for taken in stored.taken:
        one, place = places[taken]
        one.rejections[place] = Rejection.INTERCEPTION_TAKEN
