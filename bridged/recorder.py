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
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import final

from bridged.afterwards import Afterwards
from bridged.metrics import Metrics
from bridged.model import Refused
from bridged.report_messages import Row, request_parts
from daemonkit.cancellation import end_if_cancelled

log = logging.getLogger(__name__)

# The reasons why records are lost, as the metric has them.
QUEUE_FULL, REJECTED, REFUSED, UNREADABLE, STOPPED = "queue_full", "rejected", "refused", "unreadable", "stopped"
REASONS = (QUEUE_FULL, REJECTED, REFUSED, UNREADABLE, STOPPED)

# What a server reads by default is 4 MiB.
MAX_BATCH_BYTES = 3_500_000
MAX_BATCH_ITEMS = 500
# How long a report waits for others. With credentiald's own waiting, a record is stored well within a second.
GATHER_SECONDS = 0.2
_PAUSE_SECONDS = 0.1
_MOMENT_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0
# Records that nobody has taken for so long are not being kept.
OVERDUE_SECONDS = 10.0
# At the end, for a credentiald that restarts at the same time.
LAST_SECONDS = 5.0
_IDS_IN_LOG = 100
# What will not be taken, however often it is sent: the batch is too large for the peer, or malformed for it.
_NEVER = frozenset({"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"})

# Sends the parts of a request (report_messages.request_parts); the places of those that will never be stored with why,
# or why not all of them were stored.
Send = Callable[[Sequence[bytes]], Awaitable[Sequence[tuple[int, str]] | Refused]]


# Id, report, its size, and when it was added.
_Waiting = tuple[str, bytes | Row, int, float]


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
        # The oldest is sent first. An opening has no id, and is not counted.
        self._queue: deque[_Waiting] = deque()
        self._queue_bytes = 0
        self._most_items = MAX_BATCH_ITEMS
        self._closed = False
        self._was_keeping = True
        self._trouble = ""
        self._added = asyncio.Event()
        # Set for good where the queue is to be emptied now, else for one try.
        self._hurry = asyncio.Event()
        self._flushing = False
        self._empty = asyncio.Event()
        self._empty.set()
        metrics.watch_records(lambda: len(self._queue), lambda: self._queue_bytes)
        for reason in REASONS:
            # There as 0 before it happens: the first of a series is no increase to who reads it.
            metrics.records_lost(reason, 0)

    def add(self, reports: Sequence[tuple[str, bytes | Row]]) -> None:
        """Take reports on their way, each with the id of its interception."""
        now_seconds, queue_bytes = self._now(), self._queue_bytes
        taken: list[_Waiting] = []
        for interception_id, report in reports:
            size_bytes = report.size_bytes if isinstance(report, Row) else len(report)
            if self._closed or queue_bytes + size_bytes > self._bound_bytes:
                self._lost(STOPPED if self._closed else QUEUE_FULL, [interception_id])
            else:
                queue_bytes += size_bytes
                taken.append((interception_id, report, size_bytes, now_seconds))
        self._take(taken, queue_bytes)

    def add_opening(self, opening: bytes) -> None:
        """Take along that an interception is there, where there is room: only with this bridge it would be lost."""
        queue_bytes = self._queue_bytes + len(opening)
        if not self._closed and queue_bytes <= self._bound_bytes:
            self._take([("", opening, len(opening), self._now())], queue_bytes)

    def _take(self, taken: Sequence[_Waiting], queue_bytes: int) -> None:
        """These are in the queue from now on, which holds so many bytes with them."""
        if taken:
            self._queue.extend(taken)
            self._queue_bytes = queue_bytes
            self._added.set()
            self._empty.clear()

    def unreadable(self, interception_id: str) -> None:
        """A report could not be made; the cause is in the log."""
        self._lost(UNREADABLE, [interception_id])

    @property
    def is_keeping(self) -> bool:
        """Whether records are being taken off: the queue has room, and nothing in it is overdue."""
        queue = self._queue
        return not queue or (
            self._queue_bytes < self._bound_bytes * 9 // 10 and self._now() - queue[0][-1] < OVERDUE_SECONDS
        )

    def oldest_id(self) -> str | None:
        """The smallest id that waits; ids rise with time."""
        self.afterwards.do_all()
        return min((one[0] for one in self._queue if one[0]), default=None)

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
        if self.is_keeping == self._was_keeping:
            return
        self._was_keeping = not self._was_keeping
        if self._was_keeping:
            log.info("credentiald stores records again")
        else:
            log.warning(
                "credentiald does not store records: they wait here, and --without-records says what requests do",
                extra={"reason": self._trouble, "reports": len(self._queue), "bytes": self._queue_bytes},
            )

    def try_again(self) -> None:
        """credentiald is there again: what waits for the next try waits no longer."""
        self._hurry.set()

    async def flush(self) -> None:
        """Send what waits now, as soon as it can be."""
        self.afterwards.do_all()
        self._flushing = True
        self._hurry.set()
        await self._empty.wait()

    def close(self) -> None:
        """What still waits is lost, and what comes from now on."""
        self.afterwards.do_all()
        self._closed = True
        ids = [one[0] for one in self._queue]
        self._queue.clear()
        self._queue_bytes = 0
        self._lost(STOPPED, ids)

    async def _gathered(self, seconds: float) -> None:
        """Let others join, for so long at most; a full batch leaves at once."""
        if len(self._queue) < self._most_items:
            await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or a moment only where all is in a hurry: the peer may be away, and the loop is not ours."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)
            await asyncio.sleep(min(seconds, _MOMENT_SECONDS))

    async def _send_batch(self) -> bool:
        """One batch there, and out of the queue if it arrived; whether it did."""
        batch = self._batch()
        rows = [report for _, report, _, _ in batch if isinstance(report, Row)]
        items: list[bytes] = []
        if len(rows) < len(batch):
            # In the order in which the answer counts them.
            batch.sort(key=lambda one: isinstance(one[1], Row))
            items = [report for _, report, _, _ in batch if isinstance(report, bytes)]
        outcome = await self._sent(items, rows)
        if isinstance(outcome, Refused):
            self._metrics.report_failed()
            self._trouble = outcome.reason
            if outcome.reason not in _NEVER:
                return False
            if len(batch) > 1:
                # Which of them it is shows when they go by themselves.
                self._most_items = max(1, len(batch) // 2)
                return True
            log.error("credentiald refuses a report", extra={"reason": outcome.reason})
            self._lost(REFUSED, [batch[0][0]])
        else:
            # What is not in the batch is nothing that a peer can reject.
            rejected = {place: why for place, why in outcome if place < len(batch)}
            lost = [batch[place][0] for place in rejected]
            self._metrics.reported(_interceptions([one[0] for one in batch]) - _interceptions(lost))
            for place, why in rejected.items():
                log.error("credentiald rejects a report", extra={"interception_id": batch[place][0], "why": why})
            self._lost(REJECTED, lost)
            self._most_items = min(self._most_items * 2, MAX_BATCH_ITEMS)
        self._take_out(batch)
        return True

    async def _sent(self, items: Sequence[bytes], rows: Sequence[Row]) -> Sequence[tuple[int, str]] | Refused:
        try:
            return await self._send(request_parts(items, rows))
        except Exception:
            log.exception("a report could not be sent")
            return Refused("INTERNAL", "a report could not be sent")

    def _batch(self) -> list[_Waiting]:
        """The oldest, as many as may go together."""
        if self._queue_bytes <= MAX_BATCH_BYTES:
            return list(islice(self._queue, self._most_items))
        batch: list[_Waiting] = []
        all_bytes = 0
        for place, one in enumerate(islice(self._queue, self._most_items)):
            all_bytes += one[2]
            if all_bytes > MAX_BATCH_BYTES and place:
                break
            batch.append(one)
        return batch

    def _take_out(self, batch: Sequence[_Waiting]) -> None:
        self._queue_bytes -= sum([size_bytes for _, _, size_bytes, _ in batch])
        take_first = self._queue.popleft
        for _ in batch:
            take_first()
        if not self._queue:
            self._added.clear()
            self._empty.set()

    def _lost(self, reason: str, ids: Sequence[str]) -> None:
        ids = [interception_id for interception_id in ids if interception_id]
        if not ids:
            return
        self._metrics.records_lost(reason, len(ids))
        facts = {"reason": reason, "interceptions": len(ids), "interception_ids": list(ids[:_IDS_IN_LOG])}
        log.error("records of interceptions are lost", extra=facts)


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
