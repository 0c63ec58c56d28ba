"""Who watches here, as the other processes see it, and who watches there.

Through the file of records: each process writes down its watchers, and those that it has lost.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from datetime import datetime

from credentiald.bridge_instances import Instance
from credentiald.errors import StoreUnavailable
from credentiald.store import watchers as stored_watchers
from credentiald.store.records import Records
from credentiald.store.times import to_micros
from credentiald.watchers import Watchers

log = logging.getLogger("credentiald.rpc")

_AFTER_TROUBLE_SECONDS = 0.5


class WatcherRows:
    """The rows of this process. `now` is the clock of `watchers`, `clock` that of all processes."""

    def __init__(
        self, watchers: Watchers, stored: Records, *, clock: Callable[[], datetime], now: Callable[[], float]
    ) -> None:
        self._watchers = watchers
        self._stored = stored
        self._clock = clock
        self._now = now
        self._process_id = str(uuid.uuid4())
        self._changed = asyncio.Event()
        # Whether something is written down that others may read.
        self._has_rows = False
        # The bridges that said goodbye, until that is written down.
        self._gone: set[Instance] = set()

    def changed(self) -> None:
        """Something is to be written."""
        self._changed.set()

    def said_goodbye(self, instance: Instance) -> None:
        """Nobody has to wait for this bridge, wherever it watched."""
        self._gone.add(instance)

    def began(self, instance: Instance) -> None:
        """This bridge watches here."""
        self._gone.discard(instance)

    async def behind(self, wanted: int) -> list[Instance]:
        """The bridges that watch in other processes, or are lost, and have not obeyed this revision."""
        now_micros = to_micros(self._clock())
        obeyed = await self._stored.read(stored_watchers.elsewhere, self._process_id, now_micros=now_micros)
        for instance, acknowledged in self._watchers.lost_ones(self._now()).items():
            obeyed[instance] = max(acknowledged, obeyed.get(instance, acknowledged))
        return [
            instance
            for instance, acknowledged in obeyed.items()
            if acknowledged < wanted and instance not in self._gone and not self._watchers.has_obeyed(instance, wanted)
        ]

    async def write(self, *, synced: bool = True) -> None:
        """Write it all down. What is not `synced` others see, and a power cut may take back."""
        self._changed.clear()
        gone, self._gone = self._gone, set()
        now_micros = to_micros(self._clock())
        rows = self._watchers.rows(self._now())
        self._has_rows = bool(rows)
        try:
            write = self._stored.write if synced else self._stored.write_unsynced
            await write(stored_watchers.put, self._process_id, rows, now_micros=now_micros, gone=gone)
        except BaseException:
            self._gone |= gone
            self._changed.set()
            raise

    async def keep_writing(self) -> None:
        """Write what has changed, and renew the rest, until cancelled; then once more, for whoever watched is lost."""
        try:
            while True:
                await set_within(self._changed, stored_watchers.RENEW_SECONDS)
                if not (self._has_rows or self._changed.is_set()):
                    continue
                try:
                    await self.write()
                except StoreUnavailable:
                    log.warning("the store does not take who watches: administrators at other workers may wait for it")
                    await asyncio.sleep(_AFTER_TROUBLE_SECONDS)
        finally:
            with contextlib.suppress(StoreUnavailable):
                await self.write()


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or the time is over. `wait_for` may lose a cancellation (Python 3.11)."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
