"""The book of the audit: what is to be written down is gathered for a moment and appended together.

- In the mode `on`, releases are written off the way of every answer, at most `RELEASE_SECONDS` later. Who has acted
  waits until the entry is on the disk.
- In the mode `strict`, releases wait likewise, and what cannot be written is refused: AuditUnavailable.
- What cannot be written waits, up to a bound. Beyond it the oldest is given up, counted, and told of by an entry as
  soon as one can be written.
- Whoever waits joins the next transaction: there is one at a time, and it takes all that is there.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from enum import StrEnum

from credentiald import audit_model
from credentiald.audit_chain import EMPTY, Head, Row
from credentiald.audit_metrics import AuditMetrics
from credentiald.audit_model import MOST_RELEASES, WRITTEN, Draft, Kind, Told
from credentiald.audit_refusals import AuditRefusals
from credentiald.audit_waiting import Entry, Lost, Releases, lost_draft, settle
from credentiald.errors import AuditUnavailable, StoreUnavailable
from credentiald.record_model import Noted
from credentiald.store import audit
from credentiald.store.audit import AuditFile
from credentiald.store.connection import Connection
from credentiald.store.times import to_micros

log = logging.getLogger("credentiald.audit")

# How long a release waits for others.
RELEASE_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_HEAD_SECONDS = 60.0
_MOST_RELEASES_WAITING = 100_000
_MOST_ENTRIES_WAITING = 5_000
# Of one transaction.
_BLOCKS_AT_ONCE, _ENTRIES_AT_ONCE = 8, 500


class Mode(StrEnum):
    """What is done where an entry cannot be written: go on and write it later, or refuse."""

    ON = "on"
    STRICT = "strict"


class AuditBook:
    """Made by `running_audit` for the length of a block."""

    def __init__(self, file: AuditFile, metrics: AuditMetrics, clock: Callable[[], datetime], *, mode: Mode) -> None:
        self._file = file
        self._metrics = metrics
        self._clock = clock
        self.mode = mode
        self._releases: deque[Releases] = deque()
        self._release_count = 0
        self._on_their_way = 0
        self._entries: deque[Entry] = deque()
        self._lost: Lost | None = None
        self.lost_count = 0
        self.refusals = AuditRefusals(self._tell_refusals)
        self._timer: asyncio.TimerHandle | None = None
        self._due_seconds = 0.0
        self._flushing: asyncio.Task[None] | None = None
        self._is_in_trouble = False
        self._closed = False
        self._last: Row | None = None
        self._told_head = EMPTY
        metrics.watch_waiting(self.waiting, self.oldest_seconds)

    @property
    def is_strict(self) -> bool:
        """Whether nothing happens that is not written down."""
        return self.mode is Mode.STRICT

    @property
    def is_in_trouble(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._is_in_trouble

    def waiting(self) -> int:
        """How much is not on the disk."""
        return self._release_count + len(self._entries)

    def oldest_seconds(self) -> float:
        """How long the oldest of it has waited; 0 where nothing does."""
        times = [one.draft.from_micros for one in (self._entries[0],)] if self._entries else []
        times += [self._releases[0].noted[0][-1]] if self._releases else []
        return max(0.0, (self._now() - min(times)) / 1_000_000) if times else 0.0

    # -- what is told -------------------------------------------------------------------------------------------------

    def released(self, noted: Sequence[Noted]) -> None:
        """Credentials have been given out. This is for every request: one entry in a queue for a batch."""
        if not noted:
            return
        self._releases.append(Releases(noted))
        self._release_count += len(noted)
        if self._release_count >= MOST_RELEASES:
            if self._release_count > _MOST_RELEASES_WAITING:
                self._give_up_releases()
            self._flush_within(0.0)
        elif self._timer is None:
            self._flush_within(RELEASE_SECONDS)

    async def release(self, noted: Sequence[Noted]) -> None:
        """Credentials are about to be given out: return when that is on the disk. AuditUnavailable."""
        if not noted:
            return
        if self._closed or self._release_count > _MOST_RELEASES_WAITING:
            raise AuditUnavailable
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._releases.append(Releases(noted, done))
        self._release_count += len(noted)
        self._flush_within(0.0, anyway=True)
        await done

    def tell(self, draft: Draft, *, is_strict: bool = False) -> "asyncio.Future[int]":
        """An entry: a future of its sequence, which may be waited for or not.

        With `is_strict` the entry is tried once; then the future is AuditUnavailable.
        """
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # Nobody may look at it.
        done.add_done_callback(lambda one: one.cancelled() or one.exception())
        if self._closed:
            done.set_exception(AuditUnavailable())
            return done
        self._entries.append(Entry(draft, done, is_strict))
        if len(self._entries) > _MOST_ENTRIES_WAITING:
            self._give_up(self._entries.popleft())
        self._flush_within(0.0, anyway=is_strict or not self._is_in_trouble)
        return done

    def _tell_refusals(self, told: Told) -> None:
        self.tell(Draft(Kind.REFUSALS, audit_model.body_of(told), self._now()))

    # -- the end of the chain -----------------------------------------------------------------------------------------

    async def head(self) -> Row:
        """The last row, whoever appended it. AuditUnavailable."""
        try:
            row = await self._file.read(audit.last_row)
        except StoreUnavailable as error:
            raise AuditUnavailable from error
        if row is None:
            raise AuditUnavailable
        return row

    async def begin(self) -> None:
        """Know the head that the chain begins with here, so that it is exported though nothing follows."""
        with suppress(StoreUnavailable):
            self._last = await self._file.read(audit.last_row)
        if self._last is not None:
            self._metrics.sequence.set(self._last.sequence)

    @property
    def last_head(self) -> Head:
        """The last end of the chain that this process has seen; EMPTY where it has seen none."""
        return EMPTY if self._last is None else Head(self._last.sequence, self._last.hash)

    def log_head(self) -> None:
        """Export what was appended since the last time: a head in the hands of somebody else holds the chain."""
        head = self.last_head
        if head != self._told_head:
            self._told_head = head
            log.info("audit head", extra={"sequence": head.sequence, "hash": head.hash.hex()})

    # -- writing ------------------------------------------------------------------------------------------------------

    def _flush_within(self, seconds: float, *, anyway: bool = False) -> None:
        """Write after this time at most; in trouble, when it is time to try again, but for who waits for it."""
        if self._closed or (self._is_in_trouble and not anyway and self._timer is not None):
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + (_RETRY_SECONDS if self._is_in_trouble and not anyway else seconds)
        if self._timer is not None:
            if self._due_seconds <= due:
                return
            self._timer.cancel()
        # Kept here: uvloop's timers that are due at once do not say when.
        self._due_seconds = due
        self._timer = loop.call_at(due, self._begin_flush)

    def _begin_flush(self) -> None:
        self._timer = None
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        while self._entries or self._releases or self._lost:
            if not await self._flush_some():
                self._flush_within(_RETRY_SECONDS)
                return
            if not (self._entries or self._release_count >= MOST_RELEASES or self._is_awaited()):
                break
        if self._releases:
            self._flush_within(RELEASE_SECONDS)

    def _is_awaited(self) -> bool:
        return bool(self._releases) and self._releases[0].done is not None

    async def _flush_some(self) -> bool:
        """Append what one transaction takes; whether it could."""
        batches, noted = self._due_releases()
        self._on_their_way = len(batches)
        entries = [self._entries[place] for place in range(min(len(self._entries), _ENTRIES_AT_ONCE))]
        lost, self._lost = self._lost, None
        last, gone = self._last, 0

        def append(conn: Connection) -> list[Row]:
            nonlocal gone
            gone = 0 if last is None else audit.gone_since(conn, last)
            drafts = [] if lost is None else [lost_draft(lost)]
            if gone:
                drafts.append(lost_draft(Lost(Counter({WRITTEN: gone}), self._now(), self._now())))
            # Encoded here, off the loop.
            drafts += [audit_model.block(noted[at : at + MOST_RELEASES]) for at in range(0, len(noted), MOST_RELEASES)]
            return audit.append(conn, [*drafts, *(one.draft for one in entries)], now_micros=self._now())

        loop = asyncio.get_running_loop()
        started_seconds = loop.time()
        try:
            try:
                rows = await self._file.write(append)
            finally:
                self._on_their_way = 0
        except Exception as error:
            if not isinstance(error, StoreUnavailable):
                log.exception("the audit could not be written")
            if lost is not None:
                self._lost = lost if self._lost is None else lost.with_more(self._lost)
            self._failed(batches, entries)
            return False
        if gone and last is not None:
            self._tell_gone(gone, last)
        self._wrote(rows, loop.time() - started_seconds, count=len(noted))
        self._remove(batches, entries)
        sequences = [row.sequence for row in rows[len(rows) - len(entries) :]]
        for batch in batches:
            settle(batch.done, rows[-1].sequence)
        for entry, sequence in zip(entries, sequences, strict=True):
            settle(entry.done, sequence)
        return True

    def _due_releases(self) -> tuple[list[Releases], list[Noted]]:
        batches: list[Releases] = []
        noted: list[Noted] = []
        for one in self._releases:
            if len(noted) + len(one.noted) > _BLOCKS_AT_ONCE * MOST_RELEASES:
                break
            batches.append(one)
            noted += one.noted
        return batches, noted

    def _remove(self, batches: Sequence[Releases], entries: Sequence[Entry]) -> None:
        """Take out what is written, or given up. What was given up meanwhile is gone already."""
        for batch in batches:
            if self._releases and self._releases[0] is batch:
                self._releases.popleft()
                self._release_count -= len(batch.noted)
        for entry in entries:
            if self._entries and self._entries[0] is entry:
                self._entries.popleft()

    def _wrote(self, rows: Sequence[Row], seconds: float, *, count: int) -> None:
        self._last = rows[-1]
        self._metrics.wrote(seconds, rows[-1].sequence)
        for kind, number in Counter(row.kind for row in rows).items():
            self._metrics.written(kind, count if kind == Kind.RELEASE else number)
        if self._is_in_trouble:
            self._is_in_trouble = False
            log.warning("the audit can be written again", extra={"lost": self.lost_count})

    def _failed(self, batches: Sequence[Releases], entries: Sequence[Entry]) -> None:
        if not self._is_in_trouble:
            self._is_in_trouble = True
            consequence = "nothing is released or acknowledged" if self.is_strict else "entries wait"
            log.error("the audit cannot be written", extra={"waiting": self.waiting(), "consequence": consequence})
        refused = [one for one in batches if one.done is not None]
        given_up = [one for one in entries if one.is_strict]
        if refused:
            self._releases = deque(one for one in self._releases if one not in refused)
            self._release_count -= sum(len(one.noted) for one in refused)
        if given_up:
            self._entries = deque(one for one in self._entries if one not in given_up)
        for done in (*(one.done for one in refused), *(one.done for one in given_up)):
            if done is not None and not done.done():
                done.set_exception(AuditUnavailable())

    def _give_up_releases(self) -> None:
        # The oldest that is not on its way to the disk at this moment: that may arrive.
        one = self._releases[min(self._on_their_way, len(self._releases) - 1)]
        self._releases.remove(one)
        self._release_count -= len(one.noted)
        self._lose(Kind.RELEASE, len(one.noted), one.noted[0][-1], one.noted[-1][-1])

    def _give_up(self, entry: Entry) -> None:
        self._lose(entry.draft.kind, 1, entry.draft.from_micros, entry.draft.from_micros)
        if not entry.done.done():
            entry.done.set_exception(AuditUnavailable())

    def _lose(self, kind: Kind, count: int, from_micros: int, until_micros: int) -> None:
        lost = Lost(Counter({kind.value: count}), from_micros, until_micros)
        self._lost = lost if self._lost is None else self._lost.with_more(lost)
        if not self.lost_count:
            log.error("the audit has lost entries: they could not be written for too long", extra={"kind": kind.value})
        self.lost_count += count
        self._metrics.lost(count)

    def _tell_gone(self, count: int, last: Row) -> None:
        """No head was exported since, perhaps: but for this nobody would ever know."""
        log.error(
            "entries of the audit that were written are gone: its file was changed",
            extra={"entries": count, "sequence": last.sequence, "hash": last.hash.hex()},
        )
        self.lost_count += count
        self._metrics.lost(count)

    def _now(self) -> int:
        return to_micros(self._clock())

    async def keep_telling_head(self) -> None:
        """Log the head at once and every minute in which something was appended, until cancelled."""
        while True:
            # At once: what the start has found may be all that will be written before somebody cuts it off.
            self.log_head()
            await asyncio.sleep(_HEAD_SECONDS)

    async def close(self) -> None:
        """Write what is there, once, and export the head."""
        self.refusals.close()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        while (self._entries or self._releases or self._lost) and await self._flush_some():
            pass
        if self.waiting():
            log.error("the audit could not be written to its end", extra={"lost": self.waiting()})
            self._metrics.lost(self.waiting())
        self.log_head()


@asynccontextmanager
async def running_audit(
    file: AuditFile, metrics: AuditMetrics, clock: Callable[[], datetime], *, mode: Mode
) -> AsyncIterator[AuditBook]:
    """A book for the length of the block; what waits at its end is written."""
    book = AuditBook(file, metrics, clock, mode=mode)
    await book.begin()
    telling = asyncio.create_task(book.keep_telling_head(), name="log the audit's head")
    try:
        yield book
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await book.close()
