"""Who watches what administrators change, and who is behind with it: values in, values out.

A watcher is one stream of one bridge. It owes an acknowledgement for each revision that it was told of. Revisions rise,
and an acknowledgement is for everything up to it. Times are seconds of any clock that does not go back.

A bridge whose stream ended without a word may live, and send what was decided before: it is lost, and counts as one
that has not obeyed until it watches again, says goodbye, or was not heard of for LOST_SECONDS. Where it is heard of
after that, it counts again: it may have been stopped, and gets answers on a connection that stood all the while.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from credentiald.bridge_instances import Instance

# A bridge sends nothing that was decided so long ago: an answer takes 5 s at most and a connection 10 s (bridged's
# --credentiald-timeout and --connect-timeout, with their defaults), 1 s more each for a process that is late and for a
# request that goes out again. The rest is for what was decided after it was heard of last: it pings once a second.
LOST_SECONDS = 20.0
# Those who were lost for long are forgotten for good only where there are so many.
MOST_LOST = 1024


class Row(NamedTuple):
    """A watcher, or one that is lost, as other processes see it. `since_seconds`: how long it was not heard of."""

    watcher_id: str
    instance: Instance
    acknowledged: int
    since_seconds: float


@dataclass(slots=True, kw_only=True)
class _Lost:
    watcher_id: str
    acknowledged: int
    heard_seconds: float

    def counts(self, now_seconds: float) -> bool:
        """Whether it may send what was decided before."""
        return now_seconds - self.heard_seconds <= LOST_SECONDS


@dataclass(slots=True, kw_only=True)
class _Watcher:
    instance: Instance
    acknowledged: int = -1
    # What it was told and has not acknowledged, oldest first, with the time.
    owed: deque[tuple[int, float]] = field(default_factory=deque)


class Watchers:
    """The watchers of one process, by an id of their stream."""

    def __init__(self) -> None:
        self._known: dict[str, _Watcher] = {}
        # First who was not heard of for longest.
        self._lost: dict[Instance, _Lost] = {}

    def __len__(self) -> int:
        return len(self._known)

    def joined(self, watcher_id: str, instance: Instance) -> None:
        """One more, that has acknowledged nothing."""
        self._known[watcher_id] = _Watcher(instance=instance)
        self._lost.pop(instance, None)

    def left(self, watcher_id: str) -> None:
        """It watches no more, and owes nothing."""
        watcher = self._known.pop(watcher_id, None)
        if watcher is not None:
            self._lost.pop(watcher.instance, None)

    def lost(self, watcher_id: str, now_seconds: float) -> None:
        """It watches no more, and nobody knows why."""
        watcher = self._known.pop(watcher_id, None)
        if watcher is not None and all(one.instance != watcher.instance for one in self._known.values()):
            self._lost[watcher.instance] = _Lost(
                watcher_id=watcher_id, acknowledged=watcher.acknowledged, heard_seconds=now_seconds
            )
            self._forget(now_seconds)

    def heard_of(self, instance: Instance, now_seconds: float) -> bool:
        """The bridge lives; one that is lost goes on being waited for. Whether it did not count any more."""
        lost = self._lost.pop(instance, None)
        if lost is None:
            return False
        counted = lost.counts(now_seconds)
        lost.heard_seconds = now_seconds
        self._lost[instance] = lost
        return not counted

    def lost_ones(self, now_seconds: float) -> dict[Instance, int]:
        """The bridges that are lost, each with the revision that it has obeyed."""
        return {instance: lost.acknowledged for instance, lost in self._counting(now_seconds)}

    def _counting(self, now_seconds: float) -> list[tuple[Instance, _Lost]]:
        return [(instance, lost) for instance, lost in self._lost.items() if lost.counts(now_seconds)]

    def _forget(self, now_seconds: float) -> None:
        while len(self._lost) > MOST_LOST:
            longest, lost = next(iter(self._lost.items()))
            if lost.counts(now_seconds):
                break
            del self._lost[longest]

    def told(self, watcher_id: str, revision: int, now_seconds: float) -> None:
        """It was told of everything up to this revision."""
        watcher = self._known.get(watcher_id)
        if watcher is not None and revision > watcher.acknowledged:
            watcher.owed.append((revision, now_seconds))

    def acknowledged(self, watcher_id: str, revision: int) -> bool:
        """It has obeyed everything up to this revision; whether that is news."""
        watcher = self._known.get(watcher_id)
        # Nobody can have obeyed what nobody was told.
        if watcher is None or not watcher.owed or revision <= watcher.acknowledged:
            return False
        watcher.acknowledged = min(revision, watcher.owed[-1][0])
        while watcher.owed and watcher.owed[0][0] <= revision:
            watcher.owed.popleft()
        return True

    def behind(self, revision: int) -> list[Instance]:
        """The bridges that watch and have not acknowledged this revision on any stream of theirs.

        One that has lost a connection without our knowing watches on another one by now.
        """
        obeyed = {one.instance for one in self._known.values() if one.acknowledged >= revision}
        return list(dict.fromkeys(one.instance for one in self._known.values() if one.instance not in obeyed))

    def has_obeyed(self, instance: Instance, revision: int) -> bool:
        """Whether this bridge has acknowledged this revision here."""
        return any(one.instance == instance and one.acknowledged >= revision for one in self._known.values())

    def overdue(self, now_seconds: float, *, wait_seconds: float) -> list[str]:
        """The watchers that have owed an acknowledgement for longer than that."""
        return [
            watcher_id
            for watcher_id, one in self._known.items()
            if one.owed and now_seconds - one.owed[0][1] > wait_seconds
        ]

    def rows(self, now_seconds: float) -> list[Row]:
        """Each watcher, and each that is lost and counts."""
        watching = [Row(watcher_id, one.instance, one.acknowledged, 0.0) for watcher_id, one in self._known.items()]
        lost = [
            Row(one.watcher_id, instance, one.acknowledged, max(0.0, now_seconds - one.heard_seconds))
            for instance, one in self._counting(now_seconds)
        ]
        return watching + lost
