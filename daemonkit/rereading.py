"""Files that are changed while a daemon runs: read anew once a second, and at once on SIGHUP.

They are read, not only looked at: two writes within one tick of a file system's clock leave the same time behind. What
reads runs on a thread, so a disk that hangs holds nothing up but this.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from daemonkit.cancellation import end_if_cancelled

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0

T = TypeVar("T")


class Rereading:
    """What is read again and again. Made by `rereading`."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self._wanted = asyncio.Event()

    def add(self, read: Callable[[], T], use: Callable[[T], None]) -> None:
        """Have `read` called on a thread from now on, and `use` on the loop with what it returned.

        Neither may raise for what is in the files; where one does all the same, it is logged and tried again.
        """
        self._pairs.append((read, use))

    def at_once(self) -> None:
        """Read everything now instead of at the next second."""
        self._wanted.set()

    async def keep(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                end_if_cancelled()
            self._wanted.clear()
            for read, use in self._pairs:
                try:
                    use(await asyncio.to_thread(read))
                except Exception:
                    log.exception("files could not be read anew")


@asynccontextmanager
async def rereading(also: Callable[[], None] = lambda: None) -> AsyncIterator[Rereading]:
    """For the length of the block. From now on SIGHUP, which would end the process, has the files read at once.

    `also` is called on SIGHUP, too.
    """
    files = Rereading()

    def on_hangup() -> None:
        files.at_once()
        also()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)
    keeping = asyncio.create_task(files.keep(), name="read files anew")
    try:
        yield files
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
