"""How a daemon is asked to stop: SIGTERM or SIGINT once to drain, twice to stop at once."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from daemonkit.logs import end_logs

log = logging.getLogger(__name__)


def stop_requested(at_once: Callable[[], None] | None = None) -> asyncio.Future[signal.Signals]:
    """Done with the first SIGTERM or SIGINT; a second one then ends the process at once, with 128 and its number.

    Before that end `at_once` is called, which must not wait for long. Call this once in a process, before anybody can
    know that the daemon is there: from this call on a signal drains instead of killing. The handlers stay until the
    loop is closed.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if asked.done():
            end_at_once(128 + number, at_once)
        asked.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return asked


def end_at_once(code: int, at_once: Callable[[], None] | None = None) -> NoReturn:
    """End the process with this code, after `at_once`; what was logged is written, if anybody reads it."""
    try:
        if at_once is not None:
            _try(at_once)
        end_logs()
    finally:
        # Nothing is awaited and no exit function runs: what hangs in the drain may hang there as well.
        os._exit(code)


def _try(at_once: Callable[[], None]) -> None:
    try:
        at_once()
    except Exception:
        log.exception("unhandled error at the end")
