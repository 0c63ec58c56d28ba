"""The book of records: what came in is gathered for a moment and stored together, off the way of every answer.

- An opening waits for the first report of its interception, so that most are written once; not for longer than
  `OPENING_SECONDS`. Openings that are lost with the process are made good by the receipts that bridges bring.
- A report is acknowledged when it is on the disk. While the store does not answer, bridges keep their reports, and
  openings wait here, up to a bound; what is dropped is counted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from credentiald import record_log
from credentiald.errors import Refusal, StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.prices import NO_PRICES, PriceTable
from credentiald.record_model import Noted, Opening, Report
from credentiald.resolve import upstream_model
from credentiald.store import record_writing
from credentiald.store.record_writing import Batch, Stored
from credentiald.store.records import Records
from credentiald.store.times import to_micros

if TYPE_CHECKING:
    from credentiald.tracing import Tracing

log = logging.getLogger(__name__)

# How long an opening waits for the records of its interception.
OPENING_SECONDS = 0.7
# How long reports wait for others.
REPORT_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_MOST_OPENINGS = 200_000
_MOST_REPORTS = 50_000
# How often it is noted that a bridge is there.
_SEEN_MICROS = 10_000_000


class _Waiting(NamedTuple):
    reports: Sequence[Report]
    done: "asyncio.Future[list[int]]"


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
        self._openings: dict[bytes, Noted] = {}
        # The earlier ones of interceptions that were resolved again.
        self._earlier: list[Noted] = []
        self._waiting: list[_Waiting] = []
        self._waiting_reports = 0
        self._seen: dict[str, int] = {}
        self._seen_stored: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flush = asyncio.Lock()
        self._flushing: set[asyncio.Task[None]] = set()
        # On the loop's clock, when the reports that wait began to.
        self._reports_seconds = 0.0
        # What is being stored has not arrived yet: it still waits.
        self._storing = Batch()
        self._storing_seconds = 0.0
        metrics.records.watch_waiting(self.waiting, self.oldest_seconds)

    def note(self, noted: Sequence[Noted]) -> None:
        """Openings of interceptions that have been answered."""
        if not noted:
            return
        openings = self._openings
        keys = [one[0] for one in noted]
        if not openings.keys().isdisjoint(keys):
            self._earlier.extend(openings[key] for key in keys if key in openings)
        openings.update(zip(keys, noted, strict=True))
        *_, bridge_instance_id, micros = noted[-1]
        self.seen(bridge_instance_id, micros)
        excess = len(openings) - _MOST_OPENINGS
        if excess > 0:
            for key in list(islice(openings, excess)):
                del openings[key]
            self._metrics.records.openings_dropped(excess)
        if self._timer is None:
            self._later(OPENING_SECONDS)

    def seen(self, bridge_instance_id: str, micros: int) -> None:
        """A bridge was heard of."""
        if bridge_instance_id:
            self._seen[bridge_instance_id] = micros
            if micros - self._seen_stored.get(bridge_instance_id, 0) >= _SEEN_MICROS:
                self._later(OPENING_SECONDS)

    async def append(self, reports: Sequence[Report]) -> list[int]:
        """Store reports; the places of those whose interception is somebody else's. StoreUnavailable."""
        if self._waiting_reports + len(reports) > _MOST_REPORTS:
            raise StoreUnavailable
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._reports_seconds = asyncio.get_running_loop().time()
        self._waiting.append(_Waiting(reports, done))
        self._waiting_reports += len(reports)
        self._later(REPORT_SECONDS)
        return await done

    async def end_vanished(self, vanished: Sequence[tuple[str, int]]) -> None:
        """End interceptions whose bridge was last heard of at these times. StoreUnavailable."""
        async with self._flush:
            await self._store(Batch(vanished=vanished))

    async def flush(self, *, all_openings: bool = True) -> None:
        """Store what waits: all reports with their openings, and openings that have waited long enough or all."""
        async with self._flush:
            waiting, self._waiting = self._waiting, []
            self._waiting_reports = 0
            reports = [report for one in waiting for report in one.reports]
            noted = self._taken(reports, all_openings=all_openings)
            seen = self._due_seen()
            if not (reports or noted or seen):
                return
            openings = [_opening(one) for one in noted]
            try:
                stored = await self._store(Batch(openings=openings, reports=reports, seen=seen))
            except Refusal as refusal:
                # What was noted is tried again, before what has come since; reports are with their bridges.
                self._openings = {one[0]: one for one in noted} | self._openings
                _refuse(waiting, refusal)
                self._later(_RETRY_SECONDS)
                return
            except Exception:
                log.exception("records could not be stored together")
                await self._store_apart(openings, waiting)
                return
            self._seen_stored.update(seen)
            _acknowledge(waiting, stored.taken)
        if self._openings:
            self._later(OPENING_SECONDS)

    async def _store_apart(self, openings: Sequence[Opening], waiting: Sequence[_Waiting]) -> None:
        """A bug that one report brings out must not be its neighbours' trouble."""
        try:
            await self._store(Batch(openings=openings))
        except Exception:
            log.exception("openings could not be stored")
            self._metrics.records.openings_dropped(len(openings))
        for one in waiting:
            try:
                stored = await self._store(Batch(reports=one.reports))
            except Exception:
                log.exception("reports could not be stored")
                _refuse([one], StoreUnavailable())
            else:
                _acknowledge([one], stored.taken)

    async def _store(self, batch: Batch) -> Stored:
        loop = asyncio.get_running_loop()
        self._storing, self._storing_seconds = batch, loop.time()
        try:
            prices = await self._read_prices() if batch.reports else NO_PRICES
            with self._traced(batch):
                stored = await self._records.write(record_writing.store, batch, prices)
        finally:
            self._storing = Batch()
        self._metrics.records.stored(stored, loop.time() - self._storing_seconds)
        if self._writes_log:
            await asyncio.to_thread(record_log.write, stored)
        return stored

    def waiting(self) -> int:
        """How many openings and reports are not on the disk."""
        storing = self._storing
        return len(self._openings) + self._waiting_reports + len(storing.openings) + len(storing.reports)

    def oldest_seconds(self) -> float:
        """How long the oldest of them has waited; 0 where none does."""
        # Both in the order in which they came.
        noted = [one.start_micros for one in self._storing.openings[:1]]
        noted += [one[-1] for one in islice(self._openings.values(), 1)]
        ages = [0.0, *((to_micros(self._clock()) - micros) / 1_000_000 for micros in noted)]
        if self._storing.reports:
            ages.append(asyncio.get_running_loop().time() - self._storing_seconds)
        if self._waiting:
            ages.append(asyncio.get_running_loop().time() - self._reports_seconds)
        return max(ages)

    def _traced(self, batch: Batch) -> AbstractContextManager[None]:
        if self._tracing is None:
            return nullcontext()
        ids = [one.interception_id for one in batch.openings]
        return self._tracing.commit([*ids, *(one.interception_id for one in batch.reports)])

    def _taken(self, reports: Sequence[Report], *, all_openings: bool) -> list[Noted]:
        """The openings that are stored now; they are not held any more."""
        openings, noted = self._openings, self._earlier
        self._earlier = []
        if all_openings:
            noted.extend(openings.values())
            openings.clear()
            return noted
        for report in reports:
            found = openings.pop(report.interception_id.encode(), None)
            if found is not None:
                noted.append(found)
        oldest = to_micros(self._clock()) - int(OPENING_SECONDS * 1_000_000)
        old = []
        for key, one in openings.items():
            # In the order in which they came, so the rest is younger.
            if one[-1] > oldest:
                break
            old.append(key)
        noted.extend(openings.pop(key) for key in old)
        return noted

    def _due_seen(self) -> dict[str, int]:
        stored = self._seen_stored
        return {one: micros for one, micros in self._seen.items() if micros - stored.get(one, 0) >= _SEEN_MICROS}

    def forget_instances(self, *, before_micros: int) -> None:
        """Forget bridges that were last heard of before that time."""
        for one in [one for one, micros in self._seen.items() if micros < before_micros]:
            self._seen.pop(one)
            self._seen_stored.pop(one, None)

    def _later(self, seconds: float) -> None:
        """Flush after this time, or when that was said already if it comes earlier."""
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
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing:
            await asyncio.gather(*self._flushing)
        await self.flush()
        if self._timer is not None:
            self._timer.cancel()
        self._metrics.records.openings_dropped(len(self._openings))


def _opening(noted: Noted) -> Opening:
    interception_id, resolution_id, decided, model, client, bridge_instance_id, micros = noted
    return Opening(
        interception_id=interception_id.decode(),
        resolution_id=resolution_id.decode(),
        origin=decided.origin,
        bridge_instance_id=bridge_instance_id,
        operation=decided.operation,
        model=model,
        upstream_model=upstream_model(decided.bedrock, model),
        client=client,
        start_micros=micros,
    )


def _refuse(waiting: Sequence[_Waiting], refusal: Refusal) -> None:
    for one in waiting:
        if not one.done.done():
            one.done.set_exception(refusal)


def _acknowledge(waiting: Sequence[_Waiting], taken: Sequence[int]) -> None:
    first = 0
    for one in waiting:
        after = first + len(one.reports)
        if not one.done.done():
            one.done.set_result([place - first for place in taken if first <= place < after])
        first = after
