"""Who watches what administrators change, and who is behind with it: values in, values out.

A watcher is one stream of one bridge. It owes an acknowledgement for each revision that it was told of. Revisions rise,
and an acknowledgement is for everything up to it. Times are seconds of any clock that does not go back.

A bridge whose stream ended without a word may live, and send what was decided before: it is lost, and counts as one
that has not obeyed until it watches again, says goodbye, or was not heard of for LOST_SECONDS.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from credentiald.bridge_instances import Instance

# A bridge sends nothing that was decided so long ago: it waits less for an answer and for a connection (bridged's
# --credentiald-timeout and --connect-timeout, with their defaults).
LOST_SECONDS = 15.0


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

    def heard_of(self, instance: Instance, now_seconds: float) -> None:
        """The bridge lives; one that is lost goes on being waited for."""
        if (lost := self._lost.get(instance)) is not None:
            lost.heard_seconds = now_seconds

    def lost_ones(self, now_seconds: float) -> dict[Instance, int]:
        """The bridges that are lost, each with the revision that it has obeyed."""
        self._forget(now_seconds)
        return {instance: lost.acknowledged for instance, lost in self._lost.items()}

    def _forget(self, now_seconds: float) -> None:
        over = [one for one, lost in self._lost.items() if now_seconds - lost.heard_seconds > LOST_SECONDS]
        for one in over:
            del self._lost[one]

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
        """The bridges that have not obeyed this revision."""
        return [one.instance for one in self._known.values() if one.acknowledged < revision]

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
        """Each watcher, and each that is lost."""
        self._forget(now_seconds)
        watching = [Row(watcher_id, one.instance, one.acknowledged, 0.0) for watcher_id, one in self._known.items()]
        lost = [
            Row(one.watcher_id, instance, one.acknowledged, max(0.0, now_seconds - one.heard_seconds))
            for instance, one in self._lost.items()
        ]
        return watching + lost
