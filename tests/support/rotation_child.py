"""Rotates in processes that kill themselves: `python -m tests.support.rotation_child FOLDER …`."""

import asyncio
import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from credentiald import bootstrap
from credentiald.metrics import Metrics
from credentiald.sealing_keys import SealingKeys
from credentiald.sealing_places import LocalKeys
from credentiald.sealing_rounds import round_of
from credentiald.store.database import open_database
from tests.support.sealed_store import DATABASE, url_in
from tests.support.store import NOW
from tests.support.store_child import Countdown


async def rotate(folder: Path) -> None:
    """What `credentiald sealing rotate` and the work behind it do, to the end; then the old keys are retired."""
    sealer = bootstrap.prepare(url_in(folder), None, now=NOW).sealer
    async with open_database(url_in(folder), sealer) as db:
        keys = SealingKeys(db, sealer, LocalKeys(folder / DATABASE), lambda: datetime.now(UTC))
        await keys.rotate()
        await round_of(keys, Metrics("test"), rest_seconds=0)
        status = await keys.status()
        for key in status.keys:
            if key.id != status.active_key_id and key.kept_in:
                await keys.retire(key.id)


def traced(folder: str, lines: int) -> Countdown:
    """Rotate, in a process that kills itself after so many lines of our code."""
    countdown = Countdown(lines)
    threading.settrace(countdown)
    sys.settrace(countdown)
    asyncio.run(rotate(Path(folder)))
    return countdown


def lines_of(folder: str) -> int:
    """How many lines a rotation takes, as it is now."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, str(sys.maxsize - traced(folder, sys.maxsize).lines).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    with open(reading) as answer:
        return int(answer.read())


def main(*folders: str) -> None:
    """Each process gets a little further than the one before, the last one to the end; prints how many died."""
    *killed, last = folders
    step, died = lines_of(last) // len(killed), 0
    for number, folder in enumerate(killed, start=1):
        child = os.fork()
        if child == 0:
            traced(folder, number * step)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        died += os.WIFSIGNALED(status)
    print(died)


if __name__ == "__main__":
    main(*sys.argv[1:])
