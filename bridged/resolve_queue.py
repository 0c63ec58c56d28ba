"""The questions that wait for credentiald, and when the next batch of them leaves.

A batch costs about as much as fifty questions, so what decides the price of a question is how many share a batch.
The rules: whoever comes first wakes one idle stream; that stream waits a few turns of the loop, in which sockets that
are ready bring their questions too; while a batch is away, questions gather, and leave right after its answer. Under
load small batches leave every two milliseconds at most; a question that is alone never waits for company.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import final

from bridged.model import Refused, Resolution

Outcome = Resolution | Refused
Callback = Callable[[Outcome], None]

MAX_ITEMS = 256
# Room for the framing below the 4 MiB that a gRPC server reads by default.
MAX_BATCH_BYTES = 3_500_000
# Turns of the loop before a batch leaves, about a microsecond each: sockets that are ready now are read in one turn,
# and what they bring is submitted in it or the next.
_TURNS = 3
# Under load a batch leaves when the last one left so long ago, or when it holds this many, which share its costs well
# enough: at 1,000 questions a second it holds two instead of one, for a quarter less CPU in all and 0.9 ms.
_GAP_SECONDS = 0.002
ENOUGH_ITEMS = 24
# Under load is when one of the last four batches had company: two questions at once, or one that came meanwhile.
_REMEMBERED = 0b1111


@final
class Waiting:
    """One question on its way. `item` is what is asked (resolver_question.item); times are of the loop's clock.

    `late` is called with a good answer that comes after nobody waits for it: credentiald has opened an interception.
    """

    __slots__ = ("callback", "deadline", "item", "late", "retried", "submit_time")

    def __init__(self, item: bytes, callback: Callback, submit_time: float, deadline: float) -> None:
        self.item = item
        self.callback: Callback | None = callback
        self.late: Callable[[Resolution], None] | None = None
        self.submit_time = submit_time
        self.deadline = deadline
        self.retried = False

    def cancel(self, late: Callable[[Resolution], None] | None = None) -> None:
        """Nobody wants the answer any more: the callback will not be called. `late` is, if it is on its way already."""
        self.callback = None
        self.late = late

    def __repr__(self) -> str:
        return "Waiting(…)"


_item_of = attrgetter("item")


@final
class Queue:
    """Questions in the order of their arrival, shared by the streams to all credentialds.

    A stream calls `claim` or `park`s until it is woken; then it owns the next batch, and `release`s that when it has
    taken it, whatever happens between. One stream collects at a time; idle ones take turns.
    """

    def __init__(self) -> None:
        self._items: deque[Waiting] = deque()
        self._parked: deque[asyncio.Future[bool]] = deque()
        self._collecting = False
        self._leave_time = float("-inf")
        self._company = 0
        # The end of a gap that is being waited for.
        self._gap: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Waiting) -> None:
        """A question that comes last."""
        self._items.append(item)
        if not self._collecting:
            self._wake()
        elif self._gap is not None and len(self._items) >= ENOUGH_ITEMS:
            self._end_gap()

    def add_first(self, item: Waiting) -> None:
        """A question that was on its way already."""
        self._items.appendleft(item)
        if not self._collecting:
            self._wake()

    def take_all(self) -> list[Waiting]:
        """Everything that waits, because no stream is left to take it."""
        items = list(self._items)
        self._items.clear()
        return items

    def claim(self) -> bool:
        """Whether there is something to collect and the caller may."""
        if self._collecting or not self._items:
            return False
        self._collecting = True
        return True

    def park(self) -> asyncio.Future[bool]:
        """A future that becomes True when its owner is to collect; it may set it to False itself."""
        parked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._parked.append(parked)
        return parked

    def unpark(self, parked: asyncio.Future[bool]) -> None:
        """Its owner waits no more."""
        if parked in self._parked:
            self._parked.remove(parked)

    def release(self) -> None:
        """The owner has taken its batch, or will take none."""
        self._collecting = False
        self._wake()

    def _wake(self) -> None:
        while self._items and self._parked and not self._collecting:
            parked = self._parked.popleft()
            if not parked.done():  # cancelled, or told that its stream is over
                self._collecting = True
                parked.set_result(True)

    def gap_seconds(self, now: float) -> float:
        """How long the next batch is to wait for company; nothing unless there is load."""
        if not self._company or len(self._items) >= ENOUGH_ITEMS:
            return 0.0
        return max(0.0, self._leave_time + _GAP_SECONDS - now)

    async def wait_for_company(self) -> None:
        """The owner lets others join before it takes the batch."""
        loop = asyncio.get_running_loop()
        gap_seconds = self.gap_seconds(loop.time())
        if gap_seconds:
            self._gap = loop.create_future()
            timer = loop.call_later(gap_seconds, self._end_gap)
            try:
                await self._gap
            finally:
                self._gap = None
                timer.cancel()
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def _end_gap(self) -> None:
        if self._gap is not None and not self._gap.done():
            self._gap.set_result(None)

    def take(self, now: float) -> list[Waiting]:
        """The next batch, of at most MAX_ITEMS questions and MAX_BATCH_BYTES; also those that were cancelled."""
        items, batch, size_bytes = self._items, list[Waiting](), 0
        if len(items) <= MAX_ITEMS and sum(map(len, map(_item_of, items))) <= MAX_BATCH_BYTES:
            # Nearly always all of them fit.
            batch = list(items)
            items.clear()
        while items and len(batch) < MAX_ITEMS:
            size_bytes += len(items[0].item)
            if size_bytes > MAX_BATCH_BYTES and batch:
                break
            batch.append(items.popleft())
        self._leave_time = now
        self._company = self._company << 1 & _REMEMBERED | (len(batch) > 1)
        return batch

    def came_back(self) -> None:
        """A batch was answered: what came meanwhile is company."""
        if self._items:
            self._company |= 1
