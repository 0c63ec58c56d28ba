"""Worker threads of one provider's own, at most so many: what hangs there holds up neither the loop nor others."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

MOST_THREADS = 8


class Lane:
    """Runs work in daemon threads, so that a thread that hangs does not keep the process.

    What comes when all threads are busy waits for one. Used from the loop only.
    """

    def __init__(self, name: str, most: int = MOST_THREADS) -> None:
        self._name = name
        self._most = most
        self._running = 0
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._running

    def submit(self, work: Callable[[], T]) -> "asyncio.Future[T | Exception]":
        """What the work returns or raises, as the result of a future. Nobody has to look at it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T | Exception] = loop.create_future()

        def ended(outcome: T | Exception) -> None:
            self._running -= 1
            if not future.done():
                future.set_result(outcome)
            if self._waiting and self._running < self._most:
                self._waiting.popleft()()

        def run() -> None:
            outcome: T | Exception
            try:
                outcome = work()
            except Exception as error:
                outcome = error
            try:
                loop.call_soon_threadsafe(ended, outcome)
            except RuntimeError:  # the loop has been closed meanwhile: nobody waits any more
                return

        def start() -> None:
            self._running += 1
            try:
                threading.Thread(target=run, name=f"aws-{self._name}", daemon=True).start()
            except RuntimeError as error:  # the machine has no thread for us now: a failure like others, which may pass
                loop.call_soon(ended, error)

        if self._running < self._most:
            start()
        else:
            self._waiting.append(start)
        return future
