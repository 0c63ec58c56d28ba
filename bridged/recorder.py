"""The way of reports to credentiald: a queue with a bound, emptied batch by batch, off the way of every client's byte.

Invariants:
- Adding reports costs their bytes and nothing else: nobody waits for a batch.
- A report stays in the queue until credentiald has said that it is on its disk, or never will be. It may be sent more
  than once: each record in it has an id.
- What is lost is counted and logged, with the ids of the interceptions, and never silent.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import final

from bridged.afterwards import Afterwards
from bridged.losses import REFUSED, REJECTED, STOPPED, UNREADABLE, Losses
from bridged.metrics import Metrics
from bridged.model import Refused
from bridged.report_messages import Row, request_parts
from bridged.resolver_messages import FAILED, NEVER_TAKEN, unreachable
from bridged.waiting_reports import Next, Waiting, WaitingReports
from daemonkit.cancellation import end_if_cancelled

log = logging.getLogger(__name__)

# How long a report waits for others. With credentiald's own waiting, a record is stored well within a second.
GATHER_SECONDS = 0.2
_PAUSE_SECONDS = 0.1
_MOMENT_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0
# Records that nobody has taken for so long are not being kept.
OVERDUE_SECONDS = 10.0
# At the end, for a credentiald that restarts at the same time.
LAST_SECONDS = 5.0

# Sends the parts of a request (report_messages.request_parts); the places of those that will never be stored with why,
# or why not all of them were stored.
Send = Callable[[Sequence[bytes]], Awaitable[Sequence[tuple[int, str]] | Refused]]


@final
class Recorder:
    """The queue of one process. Made by `running_recorder` for the length of a block."""

    def __init__(self, send: Send, metrics: Metrics, *, bound_bytes: int) -> None:
        self._send = send
        # For what makes reports of interceptions.
        self.afterwards = Afterwards()
        self._metrics = metrics
        self._bound_bytes = bound_bytes
        self._now = asyncio.get_running_loop().time
        self._reports = WaitingReports()
        self._losses = Losses(metrics)
        self._closed = False
        self._was_keeping = True
        # Whether the latest try has stored anything.
        self._is_storing = False
        self._trouble = ""
        self._added = asyncio.Event()
        # Set for good where the queue is to be emptied now, else for one try.
        self._hurry = asyncio.Event()
        self._flushing = False
        self._empty = asyncio.Event()
        self._empty.set()
        metrics.watch_records(lambda: len(self._reports), lambda: self._reports.size_bytes)

    def add(self, reports: Sequence[tuple[str, bytes | Row]]) -> None:
        """Take reports on their way, each with the id of its interception.

        Where suspects have filled the queue, one goes in all the same: without it no suspect would ever be given up.
        """
        now_seconds, queue_bytes = self._now(), self._reports.size_bytes
        taken: list[Waiting] = []
        for interception_id, report in reports:
            size_bytes = report.size_bytes if isinstance(report, Row) else len(report)
            if self._closed:
                self._losses.lost(STOPPED, [interception_id])
            elif queue_bytes + size_bytes > self._bound_bytes and (taken or not self._reports.only_suspects):
                self._losses.no_room(interception_id)
            else:
                queue_bytes += size_bytes
                taken.append((interception_id, report, size_bytes, now_seconds))
        self._take(taken, queue_bytes)

    def add_opening(self, opening: bytes) -> None:
        """Take along that an interception is there, where there is room: only with this bridge it would be lost."""
        queue_bytes = self._reports.size_bytes + len(opening)
        if not self._closed and queue_bytes <= self._bound_bytes:
            self._take([("", opening, len(opening), self._now())], queue_bytes)

    def _take(self, taken: Sequence[Waiting], queue_bytes: int) -> None:
        """These are in the queue from now on, which holds so many bytes with them."""
        if taken:
            if self._reports.only_suspects:
                # The next try of these may be seconds away, and is none of the others' business.
                self._hurry.set()
            self._reports.add(taken, queue_bytes)
            self._added.set()
            self._empty.clear()

    def unreadable(self, interception_id: str) -> None:
        """A report could not be made; the cause is in the log."""
        self._losses.lost(UNREADABLE, [interception_id])

    @property
    def is_keeping(self) -> bool:
        """Whether records are being taken off: the queue has room, and nothing in it is overdue."""
        reports = self._reports
        if not reports:
            return True
        oldest_seconds = reports.oldest_seconds
        is_overdue = oldest_seconds is not None and self._now() - oldest_seconds >= OVERDUE_SECONDS
        return reports.pressing_bytes < self._bound_bytes * 9 // 10 and not is_overdue

    def oldest_id(self) -> str | None:
        """The smallest id that waits; ids rise with time."""
        self.afterwards.do_all()
        return min(self._reports.ids(), default=None)

    async def run(self) -> None:
        """Empty the queue, again and again, until cancelled."""
        pause_seconds = _PAUSE_SECONDS
        while True:
            await self._added.wait()
            await self._gathered(GATHER_SECONDS)
            is_sent = await self._send_batch()
            self._tell_operator()
            end_if_cancelled()
            if not is_sent:
                await self._pause(random.uniform(pause_seconds / 2, pause_seconds))  # noqa: S311 - jitter
            begins_anew = is_sent or self._hurry.is_set()
            pause_seconds = _PAUSE_SECONDS if begins_anew else min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
            if not self._flushing:
                self._hurry.clear()

    def _tell_operator(self) -> None:
        """Log it when records begin to be overdue, and when they are taken again."""
        is_keeping = self.is_keeping
        if is_keeping == self._was_keeping or (is_keeping and not self._is_storing):
            return
        self._was_keeping = is_keeping
        if is_keeping:
            log.info("credentiald stores records again")
        else:
            log.warning(
                "credentiald does not store records: they wait here, and --without-records says what requests do",
                extra={"reason": self._trouble, "reports": len(self._reports), "bytes": self._reports.size_bytes},
            )

    def try_again(self) -> None:
        """credentiald is there again: what waits for the next try waits no longer."""
        self._hurry.set()

    async def flush(self) -> None:
        """Send what waits now, as soon as it can be."""
        self.afterwards.do_all()
        self._flushing = self._reports.is_ending = True
        self._hurry.set()
        await self._empty.wait()

    def close(self) -> None:
        """What still waits is lost, and what comes from now on. It waits for nothing, and may be called again."""
        self.afterwards.do_all()
        self._closed = True
        ids = self._reports.ids()
        self._reports.clear()
        self._losses.lost(STOPPED, ids)
        self._losses.tell_gathered()

    async def _gathered(self, seconds: float) -> None:
        """Let others join, for so long at most; a batch that none can join leaves at once."""
        if not self._reports.has_a_batch:
            await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or a moment only where all is in a hurry: the peer may be away, and the loop is not ours."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)
            await asyncio.sleep(min(seconds, _MOMENT_SECONDS))

    async def _send_batch(self) -> bool:
        """One batch there, and out of the queue if it arrived or never will; whether to go on at once."""
        batch = self._reports.batch()
        self._is_storing = False
        try:
            parts = _parts(batch)
        except Exception as error:
            self._cannot_be_made(batch, error)
            # Nothing was waited for, and there may be many such.
            await asyncio.sleep(0)
            return True
        outcome = await self._sent(parts)
        if isinstance(outcome, Refused):
            return self._refused(batch, outcome)
        self._taken(batch, outcome)
        return True

    async def _sent(self, parts: Sequence[bytes]) -> Sequence[tuple[int, str]] | Refused:
        try:
            return await self._send(parts)
        except asyncio.CancelledError:
            # What gRPC says as well where the connection was closed: that ends this try, and not the recorder.
            end_if_cancelled()
            return unreachable("its connection was closed")
        except Exception:
            log.exception("a report could not be sent")
            return Refused(FAILED, "a report could not be sent")

    def _cannot_be_made(self, batch: Sequence[Waiting], error: Exception) -> None:
        """It is one of them, and will raise the same whenever it is tried."""
        if self._reports.refused_for_good(batch) is Next.GIVE_UP:
            log.error("a report could not be made", exc_info=error, extra={"interception_id": batch[0][0]})
            self._give_up(UNREADABLE, batch)

    def _refused(self, batch: Sequence[Waiting], refused: Refused) -> bool:
        """Whether to go on at once."""
        self._metrics.report_failed()
        self._trouble = refused.reason
        if refused.reason in NEVER_TAKEN:
            verdict = self._reports.refused_for_good(batch)
        elif refused.reason == FAILED:
            verdict = self._reports.failed(batch)
        else:
            verdict = self._reports.not_taken(batch)
        if verdict is Next.GIVE_UP:
            log.error("credentiald refuses a report", extra={"reason": refused.reason})
            self._give_up(REFUSED, batch)
        return verdict is not Next.WAIT

    def _taken(self, batch: Sequence[Waiting], rejections: Sequence[tuple[int, str]]) -> None:
        """All of it is on credentiald's disk, but for what was rejected."""
        if self._reports.is_control(batch):
            self._seen_again(batch, is_stored=not rejections)
            return
        # What is not in the batch is nothing that a peer can reject.
        rejected = {place: why for place, why in rejections if place < len(batch)}
        lost = [batch[place][0] for place in rejected]
        self._metrics.reported(_interceptions([one[0] for one in batch]) - _interceptions(lost))
        for place, why in rejected.items():
            log.error("credentiald rejects a report", extra={"interception_id": batch[place][0], "why": why})
        self._losses.lost(REJECTED, lost)
        # That credentiald rejects one does not say that it can store anything.
        stored = [one for place, one in enumerate(batch) if place not in rejected] if rejected else batch
        if stored:
            self._is_storing = True
            self._reports.went_well(stored)
        self._take_out(batch)

    def _seen_again(self, control: Sequence[Waiting], *, is_stored: bool) -> None:
        """What was sent to see whether it still goes well was counted when it was stored."""
        self._is_storing = is_stored
        if is_stored:
            self._reports.went_well(control)
        else:
            self._reports.not_taken(control)

    def _give_up(self, reason: str, batch: Sequence[Waiting]) -> None:
        self._losses.lost(reason, [one[0] for one in batch])
        self._take_out(batch)

    def _take_out(self, batch: Sequence[Waiting]) -> None:
        self._reports.take_out(batch)
        if not self._reports:
            self._added.clear()
            self._empty.set()


def _parts(batch: list[Waiting]) -> list[bytes]:
    """What is sent of a batch, which is put into the order in which the answer counts."""
    rows = [report for _, report, _, _ in batch if isinstance(report, Row)]
    items: list[bytes] = []
    if len(rows) < len(batch):
        batch.sort(key=lambda one: isinstance(one[1], Row))
        items = [report for _, report, _, _ in batch if isinstance(report, bytes)]
    return request_parts(items, rows)


def _interceptions(ids: Sequence[str]) -> int:
    """How many there are; what tells of an opening has no id."""
    return len(ids) - ids.count("")


@asynccontextmanager
async def running_recorder(send: Send, metrics: Metrics, *, bound_bytes: int) -> AsyncIterator[Recorder]:
    """A recorder for the length of the block. At its end it has a few seconds to empty its queue."""
    recorder = Recorder(send, metrics, bound_bytes=bound_bytes)
    running = asyncio.create_task(recorder.run(), name="recorder")
    try:
        yield recorder
    finally:
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(recorder.flush(), LAST_SECONDS)
        finally:
            running.cancel()
            await asyncio.wait([running])
            recorder.close()
