"""A number of slots that several principals share, fairly when there are not enough. No clock, no I/O.

A request holds a slot from its beginning to its end; who gets none is refused at once, nobody waits. As long as there
are plenty, whoever asks gets one. The last ones are kept for those who hold less than the principal that holds the
most: who has none may take every one of them, who has half as many may take half of them, who has the most none. So
- a newcomer is refused only where every slot is taken, and of those that end it gets the next;
- a principal that asks ten times as often as the others takes what they leave, and once they ask for more, each end of
  one of its requests is a slot for them, until all hold about the same or have what they want;
- what is under way is never ended for it: with long streams this takes as long as they do.
How many the last ones are: enough that a few find one before the next request ends, five; no more than an eighth of
all, which would be missed, and no less than a twentieth. (Thresholds that shrink with what is free are those of shared
buffers in switches: Choudhury and Hahne, "Dynamic queue length thresholds", 1998.)

Who is alone may have all of them. Not alone is who shares them now, or did within the last half minute.

Requests whose token was not accepted yet come from STRANGERS, one principal together, and leave a quarter to the
others: whoever makes up tokens competes with those that do the same.
"""

from sys import maxsize

STRANGERS = ""
_RESERVED, _RESERVED_LEAST_PART, _RESERVED_MOST_PART = 5, 20, 8
_STRANGERS_LEAVE_PART = 4
# So long a principal is expected back: longer than a client waits after a refusal.
_EXPECTED_SECONDS = 30.0
_NEVER = float("-inf")


class Shares:
    """The slots. `limit` 0 is no limit; slots are counted all the same."""

    __slots__ = (
        "_before_time", "_held", "_holders", "_in_use", "_last", "_last_time", "_limit", "_most", "_reserved",
        "_strangers_most",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        self._limit = limit or maxsize
        self._reserved = _reserved_of(limit)
        self._strangers_most = self._limit - limit // _STRANGERS_LEAVE_PART
        self._in_use = 0
        self._held: dict[str, int] = {}
        # How many principals hold so many slots, by that number (of none it says nothing), and the greatest of these.
        self._holders = [0]
        self._most = 0
        # Who asked last and when, and when last anybody else did.
        self._last = STRANGERS
        self._last_time = self._before_time = _NEVER

    @property
    def in_use(self) -> int:
        """How many slots are taken."""
        return self._in_use

    def held_by(self, principal: str) -> int:
        """How many of them by this principal."""
        return self._held.get(principal, 0)

    def room_for(self, principal: str, now: float) -> bool:
        """Whether this principal, who asks now, may take a slot."""
        is_stranger = principal == STRANGERS
        # Nearly always there are plenty, and no more is to be looked at.
        there_is = (not is_stranger and self._limit - self._in_use > self._reserved) or self._is_there_room(
            principal, now
        )
        # A stranger that is let in is soon known, see `move`; perhaps it is who has the other slots.
        if not is_stranger or not there_is:
            self._note(principal, now)
        return there_is

    def _is_there_room(self, principal: str, now: float) -> bool:
        free = self._limit - self._in_use
        held = self._held.get(principal, 0)
        if principal == STRANGERS and held >= self._strangers_most:
            return False
        if free > self._reserved:
            return True
        if free <= 0:
            return False
        if held * (self._reserved + 1) <= self._most * free:
            return True
        others_time = self._before_time if principal == self._last else self._last_time
        return held == self._in_use and others_time <= now - _EXPECTED_SECONDS

    def take(self, principal: str) -> None:
        """A slot is this principal's now."""
        self._in_use += 1
        held, holders = self._held, self._holders
        before = held.get(principal, 0)
        held[principal] = after = before + 1
        if after == len(holders):
            holders.append(0)
        holders[before] -= 1
        holders[after] += 1
        if after > self._most:
            self._most = after

    def give_back(self, principal: str) -> None:
        """One of its slots is free again."""
        self._in_use -= 1
        held, holders = self._held, self._holders
        before = held[principal]
        after = before - 1
        if after:
            held[principal] = after
        else:
            del held[principal]
        holders[before] -= 1
        holders[after] += 1
        if before == self._most and not holders[before]:
            # By steps of one: whoever held the most is now where the most is.
            self._most = after

    def move(self, principal: str, to: str, now: float) -> None:
        """A slot turns out to be somebody else's, who has asked for it."""
        self.give_back(principal)
        self.take(to)
        self._note(to, now)

    def _note(self, principal: str, now: float) -> None:
        if principal != self._last:
            self._last, self._before_time = principal, self._last_time
        self._last_time = now


def _reserved_of(limit: int) -> int:
    if limit < 2:
        return 0
    return max(1, limit // _RESERVED_LEAST_PART, min(_RESERVED, limit // _RESERVED_MOST_PART))
