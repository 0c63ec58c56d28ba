"""Reports on their way to credentiald, oldest first: which go next, and which of a batch is to blame where one fails.

A batch that is refused for good is halved until the report is found that it was refused for. So is one at which
credentiald itself fails (a bug there) time and again. But what fails now may go well tomorrow, and what fails for all
is the fault of none: a report that fails alone is put aside as a suspect, and the next ones are tried. Whenever a batch
of others went well, each suspect is tried once more by itself, and after these what went well is sent again, as a
control: only if that goes well once more have they failed while others did not. What did so often enough is given up.
No clock, no socket: recorder.py has these.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import final

from bridged.report_messages import Row

# What a server reads by default is 4 MiB.
MAX_BATCH_BYTES = 3_500_000
MAX_BATCH_ITEMS = 500
# How often credentiald may fail at the same batch before it is looked at more closely.
TRIES = 3
# How often it may fail at a suspect, each time between others that went well: where credentialds fail at half of all,
# at random, fewer than one in 30,000 reports that go alone are given up.
TRIES_OF_A_SUSPECT = 12
# So many may fail before it is seen whether others still go well.
UNCONFIRMED = 8
# More than this that were put aside one after the other, without any that went well, are no trouble of theirs.
MOST_IN_A_ROW = 16

# Id, report, its size, and when it was added. An opening has no id, and is not counted.
Waiting = tuple[str, bytes | Row, int, float]


class Next(Enum):
    """What becomes of a batch that failed."""

    WAIT = "wait"
    AT_ONCE = "at once"
    GIVE_UP = "give up"


@dataclass(slots=True)
class _Suspect:
    report: Waiting
    # How often it failed between others that went well.
    failures: int = 0


@final
class WaitingReports:
    """Those of one recorder. A report stays until it is taken out."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._queue: deque[Waiting] = deque()
        self._suspects: deque[_Suspect] = deque()
        self._most_items = MAX_BATCH_ITEMS
        self._tries = 0
        # From the first half until batches are whole again and go well.
        self._is_searching = False
        # How many suspects are still to be tried since others went well, and which of these have failed.
        self._round = 0
        self._failed: list[_Suspect] = []
        # Of what others went well. It is stored, and may be sent again: each record in it has an id.
        self._control: Waiting | None = None
        self._suspect_bytes = 0
        # How many were put aside since anything went well, and how many tries of suspects failed since the last was.
        self._in_a_row = 0
        self._idle_tries = 0
        # When the first of these was added.
        self._row_seconds = 0.0
        # At the end of the process others go first, whatever is known of suspects.
        self.is_ending = False

    def __len__(self) -> int:
        return len(self._queue) + len(self._suspects)

    @property
    def has_a_batch(self) -> bool:
        """Whether the next batch would not become larger by waiting."""
        return self._suspect_is_next or self._control_is_next or len(self._queue) >= self._most_items

    @property
    def only_suspects(self) -> bool:
        """Whether there are suspects, and no others."""
        return bool(self._suspects) and not self._queue

    @property
    def oldest_seconds(self) -> float | None:
        """When the oldest was added; None where there is none. Suspects count only if many were put aside in a row."""
        if self._suspects_count and self._in_a_row > MOST_IN_A_ROW:
            return self._row_seconds
        return self._queue[0][-1] if self._queue else None

    @property
    def pressing_bytes(self) -> int:
        """How much waits, without the suspects where these do not count."""
        return self.size_bytes if self._suspects_count else self.size_bytes - self._suspect_bytes

    @property
    def _suspects_count(self) -> bool:
        """Whether it may be more than the suspects' trouble that they wait.

        Not where others went well since the last was put aside; nor when many, or all, were tried once more in vain:
        who lets nobody in because of them would never learn whether others go well.
        """
        return self._in_a_row > 0 and self._idle_tries < min(len(self._suspects), MOST_IN_A_ROW + 1)

    def ids(self) -> list[str]:
        """Of all interceptions that have a report here."""
        reports = [*(suspect.report for suspect in self._suspects), *self._queue]
        return [one[0] for one in reports if one[0]]

    def add(self, reports: Sequence[Waiting], size_bytes: int) -> None:
        """More reports, with which all have this size."""
        self._queue.extend(reports)
        self.size_bytes = size_bytes

    def clear(self) -> None:
        """Forget all."""
        self._queue.clear()
        self._suspects.clear()
        self._failed.clear()
        self.size_bytes = self._suspect_bytes = self._round = self._in_a_row = 0

    def batch(self) -> list[Waiting]:
        """What goes next: a suspect or the control by itself where that says anything, else the oldest together."""
        if self._control_is_next and self._control is not None:
            return [self._control]
        if self._suspect_is_next:
            return [self._suspects[0].report]
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
        size_bytes = sum([one[2] for one in batch])
        self.size_bytes -= size_bytes
        if self._is_suspect(batch):
            self._suspects.popleft()
            self._suspect_bytes -= size_bytes
            self._round = max(0, self._round - 1)
            self._in_a_row = min(self._in_a_row, len(self._suspects))
            return
        for _ in batch:
            self._queue.popleft()
        self._tries = 0

    def is_control(self, batch: Sequence[Waiting]) -> bool:
        """Whether this was stored before, and is sent once more to see whether it still would be."""
        return batch[0] is self._control

    def went_well(self, batch: Sequence[Waiting]) -> None:
        """All of it was stored, so the next may be larger again; to be told before it is taken out."""
        for suspect in self._failed:
            suspect.failures += 1
        self._failed = []
        self._in_a_row = 0
        if self.is_control(batch):
            return
        self._control = batch[-1]
        if self._is_suspect(batch):
            return
        if self._most_items == MAX_BATCH_ITEMS:
            self._is_searching = False
        self._most_items = min(self._most_items * 2, MAX_BATCH_ITEMS)
        # The others have their turn again before all of many were tried.
        self._round = min(len(self._suspects), max(MOST_IN_A_ROW, len(self._suspects) // 8))

    def refused_for_good(self, batch: Sequence[Waiting]) -> Next:
        """It will be refused however often it is sent: which of them it is shows when they go by themselves."""
        if len(batch) > 1:
            return self._halve(batch)
        if self.is_control(batch):
            return self._not_confirmed()
        return Next.GIVE_UP

    def failed(self, batch: Sequence[Waiting]) -> Next:
        """credentiald failed at it, for what is in it or for reasons of its own."""
        if self.is_control(batch):
            return self._not_confirmed()
        if self._is_suspect(batch):
            return self._suspect_failed()
        self._tries += 1
        # Who looks for one already need not be told three times of each half.
        if self._tries < TRIES and not self._is_searching:
            return Next.WAIT
        if len(batch) > 1:
            self._is_searching = True
            return self._halve(batch)
        self._suspects.append(_Suspect(self._queue.popleft()))
        self._suspect_bytes += batch[0][2]
        self._tries = self._idle_tries = 0
        if not self._in_a_row:
            self._row_seconds = batch[0][-1]
        self._in_a_row += 1
        # Its neighbours need not wait. But if these fail as well, one after the other, it may be at everything.
        return Next.AT_ONCE if self._in_a_row <= MOST_IN_A_ROW else Next.WAIT

    def not_taken(self, batch: Sequence[Waiting]) -> Next:
        """credentiald is away, or cannot store anything, which says nothing of what is in the batch."""
        return self._not_confirmed()

    def _not_confirmed(self) -> Next:
        """It cannot be told whether others would have gone well when suspects failed."""
        self._failed = []
        self._round = 0
        return Next.WAIT

    def _suspect_failed(self) -> Next:
        suspect = self._suspects[0]
        if self._round:
            if suspect.failures >= TRIES_OF_A_SUSPECT:
                return Next.GIVE_UP
            self._round -= 1
            self._failed.append(suspect)
            self._suspects.rotate(-1)
            return Next.AT_ONCE
        # It is tried for want of others: perhaps credentiald has been mended.
        self._suspects.rotate(-1)
        self._idle_tries += 1
        return Next.WAIT

    def _halve(self, batch: Sequence[Waiting]) -> Next:
        self._most_items = max(1, len(batch) // 2)
        self._tries = 0
        return Next.AT_ONCE

    @property
    def _suspect_is_next(self) -> bool:
        return bool(self._suspects) and (not self._queue or (self._round > 0 and not self.is_ending))

    @property
    def _control_is_next(self) -> bool:
        is_due = bool(self._failed) and (not self._round or len(self._failed) >= UNCONFIRMED)
        return is_due and not self.is_ending

    def _is_suspect(self, batch: Sequence[Waiting]) -> bool:
        return bool(self._suspects) and batch[0] is self._suspects[0].report
