"""What happens to records by itself: bridges that have vanished are noticed, and what is too old goes."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from credentiald.bridge_instances import SILENT_MICROS
from credentiald.errors import StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.prices import PriceTable
from credentiald.record_book import RecordBook, no_prices
from credentiald.store import record_retention
from credentiald.store.records import Records
from credentiald.store.times import from_micros, to_micros

if TYPE_CHECKING:
    from credentiald.tracing import Tracing

log = logging.getLogger(__name__)

# A bridge asks every second or so whether credentiald is there.
VANISHED_AFTER = timedelta(microseconds=SILENT_MICROS)
_PRESUMED_ROUND_SECONDS = 15.0
# By how much a round may come late, or the clock jump, before that counts as time in which nobody was heard.
_TOLERATED_GAP_SECONDS = 15.0
_PURGE_ROUND_SECONDS = 600.0
# Soon: what is started again more often than a round is long would never remove anything.
_FIRST_PURGE_SECONDS = 15.0
# The clock of a machine that was just started may be ahead by months, which must not cost all records. So one purge may
# go further than the one before by a tenth of the retention, or else waits until somebody has set the clock.
_PURGED_PARTS = 10
_DOUBTED = timedelta(hours=1)
# The same pages are written by one batch after the other: the longer this is, the fewer times into the file.
_CHECKPOINT_ROUND_SECONDS = 5.0
_FORGOTTEN_AFTER = timedelta(days=1)
# Nobody waits long for a purge's transaction: how much it removes is what took about so long before.
_PURGE_STEP_SECONDS = 0.01
# A purge writes more than all bridges together: it waits for what it has written to be copied into the file.
_PURGE_CHECKPOINT_SECONDS = 0.25
_FIRST_PURGED_AT_ONCE, _MOST_PURGED_AT_ONCE = 10, 200
_ENDED_AT_ONCE = 500


class Rounds:
    """The rounds of one process. Workers make the same rounds on one file, which does no harm."""

    def __init__(
        self,
        records: Records,
        book: RecordBook,
        metrics: Metrics,
        clock: Callable[[], datetime],
        *,
        retention: timedelta,
        vanished_after: timedelta = VANISHED_AFTER,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._book = book
        self._metrics = metrics
        self._clock = clock
        self._retention = retention
        self._vanished_after = vanished_after
        self._monotonic = monotonic
        # Up to when a purge that waits would go, and since when it waits, by the clock that nobody sets.
        self._doubted: tuple[datetime, float] | None = None
        self._purged_at_once = _FIRST_PURGED_AT_ONCE
        self._checkpoint_seconds = 0.0
        # Bridges could not be heard while nobody listened, so silence counts from here.
        self._start_time = clock()
        if retention:
            metrics.records.retention_began(self._start_time.timestamp())

    def was_away(self) -> None:
        """Time has passed in which no bridge could be heard, as while the machine slept."""
        self._start_time = self._clock()

    async def end_presumed(self) -> int:
        """End that of which nothing more will be heard; how many interceptions. StoreUnavailable."""
        return await self.end_left_behind() + await self.end_vanished()

    async def end_left_behind(self) -> int:
        """End what bridges have left open that are there, but know nothing of it any more; how many."""
        ended = 0
        for instance, mark in self._book.instances.settled().items():
            more = True
            while more:
                found = await self._records.read(
                    record_retention.left_behind, instance=instance, mark=mark, limit=_ENDED_AT_ONCE
                )
                now_micros = to_micros(self._clock())
                if found:
                    await self._book.end_presumed([(one, now_micros) for one in found])
                ended += len(found)
                more = len(found) == _ENDED_AT_ONCE
        if ended:
            log.info("ended what bridges know nothing of any more", extra={"interceptions": ended})
        return ended

    async def end_vanished(self) -> int:
        """End what vanished bridges have left open; how many."""
        # What this process has heard counts, written down already or not.
        await self._book.write_heard()
        now, ended = self._clock(), 0
        # What another worker has heard, it could not write down while the store took nothing.
        since = max(self._start_time, self._book.refused_time or self._start_time)
        if now - since < self._vanished_after:
            return 0
        before_micros, more = to_micros(now - self._vanished_after), True
        while more:
            found = await self._records.read(
                record_retention.left_open, before_micros=before_micros, limit=_ENDED_AT_ONCE
            )
            if found:
                await self._book.end_presumed(found)
            ended += len(found)
            more = len(found) == _ENDED_AT_ONCE
        if ended:
            log.warning("ended what bridges that are gone had left open", extra={"interceptions": ended})
        return ended

    async def purge(self) -> int:
        """Remove what is older than the retention, in small steps; how many interceptions. StoreUnavailable.

        Nothing is removed while the clock is in doubt.
        """
        now = self._clock()
        forgotten_micros = to_micros(now - _FORGOTTEN_AFTER)
        self._book.instances.forget(before_micros=forgotten_micros)
        await self._records.write(record_retention.forget_instances, before_micros=forgotten_micros)
        if not self._retention:
            return 0
        if await self._is_in_doubt(now - self._retention):
            return 0
        before_micros, purged = to_micros(now - self._retention), 0
        for step in (record_retention.purge, record_retention.purge_sums):
            while count := await self._step(step, before_micros):
                if step is record_retention.purge:
                    purged += count
                    self._metrics.records.purged(count)
        await self._records.write(record_retention.note_purged, before_micros=before_micros)
        self._doubted = None
        self._metrics.records.retention_succeeded(self._clock().timestamp())
        if purged:
            log.info("removed old records", extra={"interceptions": purged, "retention": str(self._retention)})
        return purged

    async def _is_in_doubt(self, before: datetime) -> bool:
        """Whether to remove what began before then has to wait: much of it is newer than what was removed until now.

        The clock may be ahead. Or retention was shortened, or credentiald was away for long: all that can wait an hour.
        """
        found = await self._records.read(record_retention.purgeable, before_micros=to_micros(before))
        most = max(self._retention / _PURGED_PARTS, _DOUBTED)
        if found is None or before - from_micros(found.purged_micros or found.oldest_micros) <= most:
            self._doubted = None
            return False
        now_seconds = self._monotonic()
        if self._doubted is not None:
            doubted, since_seconds = self._doubted
            waited = timedelta(seconds=now_seconds - since_seconds)
            # A clock that was set ahead meanwhile is in doubt anew.
            if before - doubted <= waited + most:
                return waited < _DOUBTED
        self._doubted = before, now_seconds
        log.warning(
            "old records are not removed for an hour: the clock may be ahead",
            extra={"now": (before + self._retention).isoformat(timespec="seconds"), "retention": str(self._retention)},
        )
        return True

    async def _step(self, step: Callable[..., int], before_micros: int) -> int:
        loop = asyncio.get_running_loop()
        started_seconds = loop.time()
        count = await self._records.write(step, before_micros=before_micros, limit=self._purged_at_once)
        seconds = loop.time() - started_seconds
        if seconds > _PURGE_STEP_SECONDS:
            self._purged_at_once = max(1, self._purged_at_once // 2)
        elif seconds < _PURGE_STEP_SECONDS / 2:
            self._purged_at_once = min(_MOST_PURGED_AT_ONCE, self._purged_at_once + _FIRST_PURGED_AT_ONCE)
        # As much time for the others as this took.
        await asyncio.sleep(seconds)
        if loop.time() - self._checkpoint_seconds > _PURGE_CHECKPOINT_SECONDS:
            await self._records.checkpoint()
            self._checkpoint_seconds = loop.time()
        return count


@asynccontextmanager
async def running_book(
    records: Records,
    metrics: Metrics,
    clock: Callable[[], datetime],
    *,
    retention: timedelta = timedelta(),
    writes_log: bool = False,
    read_prices: Callable[[], Awaitable[PriceTable]] = no_prices,
    tracing: "Tracing | None" = None,
) -> AsyncIterator[RecordBook]:
    """A book with its rounds, for the length of the block; what waits at its end is stored."""
    book = RecordBook(records, metrics, clock, writes_log=writes_log, read_prices=read_prices, tracing=tracing)
    rounds = Rounds(records, book, metrics, clock, retention=retention)
    tasks = [
        asyncio.create_task(_for_ever(rounds.end_presumed, _PRESUMED_ROUND_SECONDS, clock, rounds.was_away)),
        asyncio.create_task(_purge_for_ever(rounds, clock)),
        asyncio.create_task(_for_ever(records.checkpoint, _CHECKPOINT_ROUND_SECONDS, clock)),
    ]
    try:
        yield book
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await book.close()


async def _purge_for_ever(rounds: Rounds, clock: Callable[[], datetime]) -> None:
    await asyncio.sleep(_FIRST_PURGE_SECONDS)
    await _round(rounds.purge)
    await _for_ever(rounds.purge, _PURGE_ROUND_SECONDS, clock)


async def _for_ever(
    work: Callable[[], Awaitable[int]],
    seconds: float,
    clock: Callable[[], datetime],
    was_away: Callable[[], None] = lambda: None,
) -> None:
    while True:
        before = clock()
        await asyncio.sleep(seconds)
        if abs((clock() - before).total_seconds() - seconds) > _TOLERATED_GAP_SECONDS:
            was_away()
        await _round(work)


async def _round(work: Callable[[], Awaitable[int]]) -> None:
    try:
        await work()
    except StoreUnavailable:
        # The store has said so in the log; the next round tries again.
        return
    except Exception:
        log.exception("a round failed")
