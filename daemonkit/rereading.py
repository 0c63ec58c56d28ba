"""Files that are changed while a daemon runs: read anew once a second, and at once on SIGHUP.

They are read, not only looked at: two writes within one tick of a file system's clock leave the same time behind. Each
is read on a thread of its own that nobody waits for, so a disk that hangs, or a pipe in place of a file, holds up
neither the others nor the end of the process.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from daemonkit.cancellation import end_if_cancelled

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0

T = TypeVar("T")


class _Read:
    """One that is read: by `read` on a thread of its own; what that returned is for `use`, on the loop."""

    def __init__(self, read: Callable[[], Any], use: Callable[[Any], None]) -> None:
        self._read = read
        self._use = use
        self._loop = asyncio.get_running_loop()
        # True for each time that it is to be read, then False. A thread that is started takes the loop's time, so there
        # is one for all times.
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_reading = False
        self._is_wanted = False
        self._is_over = False

    def begin(self, *, at_once: bool) -> None:
        """Read, unless that is under way: then once more after it, where it was wanted `at_once`."""
        if self._is_reading:
            self._is_wanted = self._is_wanted or at_once
            return
        if self._thread is None and not self._has_started():
            return
        self._is_reading = True
        self._orders.put(True)

    def end(self) -> None:
        """Use nothing more. What hangs is left to itself."""
        self._is_over = True
        self._orders.put(False)

    def _has_started(self) -> bool:
        thread = threading.Thread(target=self._on_thread, name="read a file anew", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # There are too many threads; a second later there may be room.
            log.exception("files could not be read anew")
            return False
        self._thread = thread
        return True

    def _on_thread(self) -> None:
        while self._orders.get():
            found, failure = None, None
            try:
                found = self._read()
            except Exception as error:
                failure = error
            # The loop may be closed by now.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._done, found, failure)
            # Nothing of it is held until the next time.
            del found, failure

    def _done(self, found: Any, failure: Exception | None) -> None:
        if self._is_over:
            return
        self._is_reading = False
        try:
            if failure is not None:
                raise failure
            self._use(found)
        except Exception:
            log.exception("files could not be read anew")
        if self._is_wanted:
            self._is_wanted = False
            self.begin(at_once=True)


class Rereading:
    """What is read again and again. Made by `rereading`."""

    def __init__(self) -> None:
        self._reads: list[_Read] = []
        self._wanted = asyncio.Event()

    def add(self, read: Callable[[], T], use: Callable[[T], None]) -> None:
        """Have `read` called on a thread from now on, and `use` on the loop with what it returned.

        Neither may raise for what is in the files; where one does all the same, it is logged and tried again.
        """
        self._reads.append(_Read(read, use))

    def at_once(self) -> None:
        """Read everything now instead of at the next second."""
        self._wanted.set()

    async def keep(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                try:
                    async with asyncio.timeout(INTERVAL_SECONDS):
                        await self._wanted.wait()
                except TimeoutError:
                    end_if_cancelled()
                at_once = self._wanted.is_set()
                self._wanted.clear()
                for one in self._reads:
                    one.begin(at_once=at_once)
        finally:
            for one in self._reads:
                one.end()


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
