"""The demo upstream as a process of its own: logs, the listener, the end."""

import logging
import sys
from datetime import timedelta

import uvloop

from bridged.demo.server import running_demo_upstream
from daemonkit.binding import AddressTaken
from daemonkit.listen import Address
from daemonkit.logs import announce, running_logs
from daemonkit.stopping import stop_requested

log = logging.getLogger(__name__)


def run(address: Address, pace: timedelta) -> int:
    """Serve until asked to stop; the exit code."""
    with running_logs(human="", json="-", level=logging.INFO):
        try:
            uvloop.run(_serve(address, pace))
        except AddressTaken as taken:
            print(f"bridged: {taken}", file=sys.stderr)  # noqa: T201 - the log goes to stdout
            return 1
    return 0


async def _serve(address: Address, pace: timedelta) -> None:
    stop = stop_requested()
    async with running_demo_upstream(address, pace) as real_address:
        announce("demo", real_address)
        await stop
