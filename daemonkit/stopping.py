"""How a daemon is asked to stop: SIGTERM or SIGINT once to drain, twice to stop at once."""

import asyncio
import os
import signal
from collections.abc import Callable


def stop_requested(at_once: Callable[[], None] | None = None) -> asyncio.Future[signal.Signals]:
    """Done with the first SIGTERM or SIGINT; a second one then ends the process at once, with 128 and its number.

    Before that end `at_once` is called, which must not wait. Call this once in a process, before anybody can know that
    the daemon is there: from this call on a signal drains instead of killing. The handlers stay until the loop is
    closed.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if asked.done():
            if at_once is not None:
                at_once()
            # Nothing is awaited and no exit function runs: what hangs in the drain may hang there as well.
            os._exit(128 + number)
        asked.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return asked
