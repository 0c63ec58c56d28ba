"""Work that no client waits for: it is done a little after what it is about, many pieces at a time.

So it is on nobody's way; and work of one kind that is done in a row costs half of what it costs in between.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar, final

log = logging.getLogger(__name__)

# As much as is done in one turn of the loop: somewhat less than a millisecond.
ENOUGH = 128
LATEST_SECONDS = 0.02
# What the work holds until it is done, bodies above all.
ENOUGH_BYTES = 4 * 1024 * 1024
# Counted for each beside what it holds: one sum tells of both.
_PIECE_BYTES = ENOUGH_BYTES // ENOUGH

T = TypeVar("T")


@final
class Afterwards:
    """Piles of work, one for each kind, which are done in the order in which the piles were made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._piles: list[tuple[Callable[[list[Any]], None], list[Any]]] = []
        self._room_bytes = ENOUGH_BYTES
        self._timer: asyncio.Handle | None = None
        self._is_soon = False

    def pile(self, work: Callable[[list[T]], None]) -> list[T]:
        """A new pile. What lies on it goes to `work`, together and in its order; each time, `added` has to be told.

        What `work` raises is logged, and costs what went to it: whose pieces can fail minds each by itself.
        """
        pile: list[T] = []
        self._piles.append((work, pile))
        return pile

    def added(self, held_bytes: int = 0) -> None:
        """A piece was put on a pile, which holds so many bytes."""
        self._room_bytes -= held_bytes + _PIECE_BYTES
        if self._room_bytes > 0:
            if self._timer is None:
                self._timer = self._loop.call_later(LATEST_SECONDS, self.do_all)
        elif not self._is_soon:
            self._is_soon = True
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_soon(self.do_all)

    def do_all(self) -> None:
        """Do now what there is to do."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_soon = False
        self._room_bytes = ENOUGH_BYTES
        # What is put on piles meanwhile is for the next time.
        taken = [(work, pile[:]) for work, pile in self._piles if pile]
        for _, pile in self._piles:
            pile.clear()
        for work, pieces in taken:
            try:
                work(pieces)
            except Exception:
                log.exception("unhandled error in what is done afterwards")
