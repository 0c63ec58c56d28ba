"""Who watches what administrators change, and who is behind with it: values in, values out.

A watcher is one stream of one bridge. It owes an acknowledgement for each revision that it was told of. Revisions rise,
and an acknowledgement is for everything up to it. Times are seconds of any clock that does not go back.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from credentiald.bridge_instances import Instance


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

    def __len__(self) -> int:
        return len(self._known)

    def joined(self, watcher_id: str, instance: Instance) -> None:
        """One more, that has acknowledged nothing."""
        self._known[watcher_id] = _Watcher(instance=instance)

    def left(self, watcher_id: str) -> None:
        """It watches no more, and owes nothing."""
        self._known.pop(watcher_id, None)

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

    def overdue(self, now_seconds: float, *, wait_seconds: float) -> list[str]:
        """The watchers that have owed an acknowledgement for longer than that."""
        return [
            watcher_id
            for watcher_id, one in self._known.items()
            if one.owed and now_seconds - one.owed[0][1] > wait_seconds
        ]

    def rows(self) -> Iterator[tuple[str, Instance, int]]:
        """Each watcher with its bridge and what it has acknowledged, for others to see."""
        return ((watcher_id, one.instance, one.acknowledged) for watcher_id, one in self._known.items())
