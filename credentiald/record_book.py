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
from datetime import datetime
from typing import TYPE_CHECKING

from credentiald import record_log, storing_apart
from credentiald.bridge_instances import Instance, Instances
from credentiald.errors import Refusal, StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.prices import NO_PRICES, PriceTable
from credentiald.record_model import Noted, Rejection
from credentiald.store import record_writing
from credentiald.store.record_writing import Batch, Stored
from credentiald.store.records import Records
from credentiald.store.times import to_micros
from credentiald.usual_report import NONE_MATCHED, Matched, Told
from credentiald.waiting_openings import WaitingOpenings, opening_rows
from credentiald.waiting_reports import Call, WaitingReports, places_of, told_in

if TYPE_CHECKING:
    from credentiald.tracing import Tracing

log = logging.getLogger(__name__)

# How long an opening waits for the records of its interception.
OPENING_SECONDS = 0.7
_OPENING_MICROS = int(OPENING_SECONDS * 1_000_000)
# Between two times that openings are stored without a report.
_OPENINGS_PAUSE_SECONDS = 0.05
_RETRY_SECONDS = 1.0
# Where there is a bug in what is tried again.
_RETRY_FAILED_SECONDS = 10.0


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
        self._openings = WaitingOpenings()
        self._reports = WaitingReports()
        self._refused_time: datetime | None = None
        self._retry_seconds = 0.0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._flush = asyncio.Lock()
        self._flushing: set[asyncio.Task[None]] = set()
        metrics.records.watch_waiting(self.waiting, self.oldest_seconds)

    def waiting(self) -> int:
        """How many openings and reports are not on the disk."""
        return len(self._openings) + len(self._reports)

    def oldest_seconds(self) -> float:
        """How long the oldest of them has waited; 0 where none does."""
        ages = [0.0]
        if (opened_micros := self._openings.oldest_micros()) is not None:
            ages.append((to_micros(self._clock()) - opened_micros) / 1_000_000)
        if (reported_seconds := self._reports.oldest_seconds()) is not None:
            ages.append(asyncio.get_running_loop().time() - reported_seconds)
        return max(ages)

    @property
    def noted(self) -> Mapping[bytes, Noted]:
        """Openings that are not on the disk, by interception."""
        return self._openings.by_interception

    @property
    def refused_time(self) -> datetime | None:
        """When the store did not take something for the last time."""
        return self._refused_time

    def note(self, noted: Sequence[Noted]) -> None:
        """Openings of interceptions that have been answered."""
        if not noted:
            return
        dropped = self._openings.add(noted)
        _, _, decided, _, _, instance_id, _, micros = noted[-1]
        self.heard((decided.origin.service_id, instance_id), micros)
        if dropped:
            self._metrics.records.openings_dropped(dropped)
        if self._timer is None:
            self._later(OPENING_SECONDS)

    def heard(self, instance: Instance, micros: int) -> None:
        """A bridge was heard of."""
        if self.instances.heard(instance, micros) and self._timer is None:
            self._later(OPENING_SECONDS)

    async def append(
        self, reports: Sequence[Told], matched: Sequence[Matched] = (), *, size_bytes: int = 0
    ) -> Mapping[int, Rejection]:
        """Store reports, and those that are matched; the places of those that are not stored, in this order, and why.
        StoreUnavailable."""
        if self._closed:
            raise StoreUnavailable
        call = self._reports.add(reports, matched, size_bytes)
        self._later(self._reports.gather_seconds())
        return await call.done

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
        there_is_more = True
        while there_is_more:
            # Between two transactions others may write: bridges may bring more for as long as they like.
            async with self._flush:
                there_is_more = await self._flush_some(all_openings=all_openings)
        self._next_flush()

    async def _flush_some(self, *, all_openings: bool) -> bool:
        """Store what one transaction takes; whether there was more."""
        calls = self._reports.take()
        noted: list[Noted] = []
        try:
            batch = self._batch(calls, noted, all_openings=all_openings)
            if not (batch.has_reports or noted or batch.heard):
                return False
            stored = await self._stored(batch)
            self._openings.stored(noted)
            self.instances.written(batch.heard)
            if stored.taken:
                storing_apart.reject_taken(places_of(calls), stored)
        except Refusal as refusal:
            self._reports.refuse(calls, refusal)
            return False
        except Exception:
            log.exception("records could not be stored together")
            await self._store_apart(noted, calls)
            return False
        except BaseException:
            self._reports.refuse(calls, StoreUnavailable())
            raise
        self._reports.acknowledge(calls)
        # On the disk and acknowledged: what becomes of the lines is no concern of those who wait.
        await self._tell(stored)
        return self._reports.some_wait or self._openings.are_enough(noted)

    def _batch(self, calls: Sequence[Call], noted: list[Noted], *, all_openings: bool) -> Batch:
        """What is stored now. All that is noted of it is added to `noted`, also where the rest raises."""
        reports, matched = told_in(calls)
        due = self._openings.of(reports)
        if matched.noted and not self._openings.have(matched.noted, besides=due):
            # Some of it was stored meanwhile, or opened again.
            reports, matched = [*reports, *matched.reports()], NONE_MATCHED
            due = self._openings.of(reports)
        self._add_due(due, matched.noted, all_openings=all_openings)
        opened = [*due.values()]
        noted += [*opened, *matched.noted]
        return Batch(openings=opening_rows(opened), reports=reports, matched=matched, heard=self.instances.unwritten())

    async def _store_apart(self, noted: Sequence[Noted], calls: Sequence[Call]) -> None:
        """A bug that one record brings out must not be its neighbours' trouble, nor one call's that of the others."""
        try:
            done, lost = await storing_apart.openings(self._stored_and_told, noted)
            self._openings.stored(done)
            self._metrics.records.openings_dropped(lost)
            if len(done) < len(noted):
                self._retry_seconds = asyncio.get_running_loop().time() + _RETRY_FAILED_SECONDS
            bugs = await storing_apart.reports(self._stored_and_told, calls)
        except Refusal as refusal:
            self._reports.refuse(calls, refusal)
            return
        except BaseException:
            self._reports.refuse(calls, StoreUnavailable())
            raise
        for call, bug in zip(calls, bugs, strict=True):
            if bug is None:
                self._reports.acknowledge([call])
            else:
                self._reports.refuse([call], bug)

    async def _stored_and_told(self, batch: Batch) -> Stored:
        stored = await self._stored(batch)
        await self._tell(stored)
        return stored

    async def _stored(self, batch: Batch) -> Stored:
        loop = asyncio.get_running_loop()
        started_seconds = loop.time()
        try:
            prices = await self._read_prices() if batch.has_reports else NO_PRICES
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
        return self._tracing.commit(batch.interception_ids())

    async def _tell(self, stored: Stored) -> None:
        """Log what was stored."""
        if self._writes_log:
            try:
                await asyncio.to_thread(record_log.write, stored)
            except Exception:
                log.exception("records are stored but could not be logged")

    def _add_due(self, due: dict[bytes, Noted], matched: Sequence[Noted], *, all_openings: bool) -> None:
        """Add the oldest openings to those that are stored now with reports."""
        if not all_openings and asyncio.get_running_loop().time() < self._retry_seconds:
            return
        now_micros = to_micros(self._clock())
        young_micros = now_micros if all_openings else now_micros - _OPENING_MICROS
        self._openings.add_oldest(due, matched, young_micros=young_micros, now_micros=now_micros)

    def _next_flush(self) -> None:
        if self._reports.some_wait:
            self._later(self._reports.gather_seconds())
        elif (opened_micros := self._openings.oldest_micros()) is not None:
            waited_seconds = (to_micros(self._clock()) - opened_micros) / 1_000_000
            wait_seconds = min(max(OPENING_SECONDS - waited_seconds, _OPENINGS_PAUSE_SECONDS), OPENING_SECONDS)
            retry_seconds = self._retry_seconds - asyncio.get_running_loop().time()
            self._later(max(wait_seconds, retry_seconds))

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
        # Where the store failed at those before.
        self._reports.refuse(self._reports.take_all(), StoreUnavailable())
        self._metrics.records.openings_dropped(len(self._openings))
