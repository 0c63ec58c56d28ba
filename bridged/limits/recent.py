"""What was last said of each key, forgotten after a while, within a bound, at no cost of its own.

Two generations of one dictionary: what is said goes into the young one; when that is old enough or full it becomes the
old one, and the old one goes. So an entry is there for as long as it has to last, unless so many others were made
meanwhile that the bound was met, and never more than twice the bound are held.
"""

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Entries last for at least `lasts_seconds`, or until `most` newer ones were made. Keys are hashes."""

    __slots__ = ("_lasts_seconds", "_most", "_old", "_turn_time", "_young")

    def __init__(self, *, lasts_seconds: float, most: int) -> None:
        self._lasts_seconds = lasts_seconds
        self._most = most
        self._young: dict[int, Value] = {}
        self._old: dict[int, Value] = {}
        self._turn_time = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: int) -> Value | None:
        """What was said last; None where nothing was, or too long ago."""
        value = self._young.get(key)
        return self._old.get(key) if value is None else value

    def put(self, key: int, value: Value, now: float) -> None:
        """Say it. `now` is of a clock that does not go back, in seconds."""
        if now >= self._turn_time or len(self._young) >= self._most:
            # After a long silence what is young is as old as what is old.
            self._old = self._young if now < self._turn_time + self._lasts_seconds else {}
            self._young = {}
            self._turn_time = now + self._lasts_seconds
        self._young[key] = value
