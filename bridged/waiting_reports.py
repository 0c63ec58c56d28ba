"""Reports on their way to credentiald, oldest first: which go next, and which of a batch is to blame where one fails.

A batch that is refused for good is halved until the report is found that it was refused for. So is one at which
credentiald itself fails (a bug there) time and again. But what fails now may go well tomorrow, and what fails for all
is the fault of none: a report that fails alone is put aside as a suspect, and the next ones are tried. Only when some
of those went well, and it fails as often again, is it given up. No clock, no socket: recorder.py has these.
"""

from collections import deque
from collections.abc import Sequence
from enum import Enum
from itertools import islice
from typing import final

from bridged.report_messages import Row

# What a server reads by default is 4 MiB.
MAX_BATCH_BYTES = 3_500_000
MAX_BATCH_ITEMS = 500
# How often credentiald may fail at the same batch, and at a report alone, before either is looked at more closely.
TRIES = 3
# More than this that fail alone are no trouble of theirs.
MOST_SUSPECTS = 16

# Id, report, its size, and when it was added. An opening has no id, and is not counted.
Waiting = tuple[str, bytes | Row, int, float]


class Next(Enum):
    """What becomes of a batch that failed."""

    WAIT = "wait"
    AT_ONCE = "at once"
    GIVE_UP = "give up"


@final
class WaitingReports:
    """Those of one recorder. A report stays until it is taken out."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._queue: deque[Waiting] = deque()
        self._suspects: deque[Waiting] = deque()
        self._most_items = MAX_BATCH_ITEMS
        self._tries = 0
        # From the first half until the one is found, or batches are whole again and go well.
        self._is_searching = False
        # Whether anything did since the latest suspect was put aside.
        self._went_well = False

    def __len__(self) -> int:
        return len(self._queue) + len(self._suspects)

    @property
    def fill_a_batch(self) -> bool:
        """Whether the next batch is full already."""
        return len(self._queue) >= self._most_items

    @property
    def oldest_seconds(self) -> float | None:
        """When the oldest was added; None where there is none.

        A few suspects do not count: who lets nobody in because of them would never learn whether others go well.
        """
        oldest = self._suspects if len(self._suspects) > MOST_SUSPECTS else self._queue
        return oldest[0][-1] if oldest else None

    def ids(self) -> list[str]:
        """Of all interceptions that have a report here."""
        return [one[0] for reports in (self._suspects, self._queue) for one in reports if one[0]]

    def add(self, reports: Sequence[Waiting], size_bytes: int) -> None:
        """More reports, with which all have this size."""
        self._queue.extend(reports)
        self.size_bytes = size_bytes

    def clear(self) -> None:
        """Forget all."""
        self._queue.clear()
        self._suspects.clear()
        self.size_bytes = 0

    def batch(self) -> list[Waiting]:
        """What goes next: the oldest, as many as may go together; a suspect by itself where that says anything."""
        if self._suspects and (self._went_well or not self._queue):
            return [self._suspects[0]]
        if self.size_bytes <= MAX_BATCH_BYTES:
            return list(islice(self._queue, self._most_items))
        batch: list[Waiting] = []
        all_bytes = 0
        for place, one in enumerate(islice(self._queue, self._most_items)):
            all_bytes += one[2]
            if all_bytes > MAX_BATCH_BYTES and place:
                break
            batch.append(one)
        return batch

    def take_out(self, batch: Sequence[Waiting]) -> None:
        """It is stored, or given up."""
        self.size_bytes -= sum([size_bytes for _, _, size_bytes, _ in batch])
        take_first = self._suspects.popleft if self._is_suspect(batch) else self._queue.popleft
        for _ in batch:
            take_first()
        self._tries = 0

    def went_well(self) -> None:
        """A batch did: the next may be larger again."""
        if self._most_items == MAX_BATCH_ITEMS:
            self._is_searching = False
        self._most_items = min(self._most_items * 2, MAX_BATCH_ITEMS)
        self._went_well = True

    def refused_for_good(self, batch: Sequence[Waiting]) -> Next:
        """It will be refused however often it is sent: which of them it is shows when they go by themselves."""
        return Next.GIVE_UP if len(batch) == 1 else self._halve(batch)

    def failed(self, batch: Sequence[Waiting]) -> Next:
        """credentiald failed at it, for what is in it or for reasons of its own."""
        if self._is_suspect(batch) and not self._went_well:
            self._suspects.rotate(-1)
            return Next.WAIT
        self._tries += 1
        if self._is_suspect(batch):
            # Not the first time: of several credentialds, which take turns, perhaps only one fails.
            return Next.GIVE_UP if self._tries >= TRIES else Next.WAIT
        # Who looks for one already need not be told three times of each half.
        if len(batch) > 1 and (self._tries >= TRIES or self._is_searching):
            self._is_searching = True
            return self._halve(batch)
        if len(batch) == 1 and self._tries >= TRIES:
            self._suspects.append(self._queue.popleft())
            self._tries, self._went_well, self._is_searching = 0, False, False
        return Next.WAIT

    def not_taken(self, batch: Sequence[Waiting]) -> Next:
        """credentiald is away, or cannot store anything, which says nothing of what is in the batch."""
        if self._is_suspect(batch):
            # It might be kept for this reason only, and then goes with others.
            self._queue.appendleft(self._suspects.popleft())
        return Next.WAIT

    def _halve(self, batch: Sequence[Waiting]) -> Next:
        self._most_items = max(1, len(batch) // 2)
        self._tries = 0
        return Next.AT_ONCE

    def _is_suspect(self, batch: Sequence[Waiting]) -> bool:
        return bool(self._suspects) and batch[0] is self._suspects[0]
