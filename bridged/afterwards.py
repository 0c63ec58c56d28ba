"""Work that no client waits for: it is done a little after what it is about, many at a time.

So it is on nobody's way; and work of one kind that is done in a row costs half of what it costs in between.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import final

log = logging.getLogger(__name__)

# As much as is done in one turn of the loop: somewhat less than a millisecond.
ENOUGH = 128
LATEST_SECONDS = 0.02
# What the work holds until it is done, bodies above all.
ENOUGH_BYTES = 4 * 1024 * 1024


@final
class Afterwards:
    """Pieces of work: first those that are to be done first, then the others, each kind in its order.

    One that fails is logged, and nobody else's trouble.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._first: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self._then: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self._held_bytes = 0
        self._timer: asyncio.Handle | None = None
        self._is_soon = False

    def do(self, work: Callable[..., None], *args: object, first: bool = False, held_bytes: int = 0) -> None:
        """Call `work` with these arguments soon; they hold so many bytes."""
        (self._first if first else self._then).append((work, args))
        self._held_bytes += held_bytes
        if len(self._first) + len(self._then) >= ENOUGH or self._held_bytes >= ENOUGH_BYTES:
            if not self._is_soon:
                self._is_soon = True
                self._start(self._loop.call_soon(self.do_all))
        elif self._timer is None:
            self._start(self._loop.call_later(LATEST_SECONDS, self.do_all))

    def do_all(self) -> None:
        """Do now what there is to do."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_soon = False
        work, self._first, self._then, self._held_bytes = [*self._first, *self._then], [], [], 0
        for one, args in work:
            try:
                one(*args)
            except Exception:
                log.exception("unhandled error in what is done afterwards")

    def _start(self, timer: asyncio.Handle) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer
