"""Records that are lost: counted at once by reason, and named in the log, all of them, in lines of at most a hundred.

While a queue is full they may be thousands in a second. Those are gathered and told once in each.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import final

from bridged.metrics import Metrics

log = logging.getLogger(__name__)

# The reasons, as the metric has them.
QUEUE_FULL, REJECTED, REFUSED, UNREADABLE, STOPPED = "queue_full", "rejected", "refused", "unreadable", "stopped"
REASONS = (QUEUE_FULL, REJECTED, REFUSED, UNREADABLE, STOPPED)

GATHER_SECONDS = 1.0
# Not much more than is written in one piece (daemonkit/logs.py).
_IDS_IN_LINE = 100


@final
class Losses:
    """Of one recorder."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._without_room: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        for reason in REASONS:
            # There as 0 before it happens: the first of a series is no increase to who reads it.
            metrics.records_lost(reason, 0)

    def lost(self, reason: str, ids: Sequence[str]) -> None:
        """These interceptions have lost their records. What has no id told of an opening only, and is no loss."""
        ids = [interception_id for interception_id in ids if interception_id]
        if ids:
            self._metrics.records_lost(reason, len(ids))
            _tell(reason, ids)

    def no_room(self, interception_id: str) -> None:
        """The queue is full for the records of this one, and very likely for those of the next."""
        self._metrics.records_lost(QUEUE_FULL, 1)
        self._without_room.append(interception_id)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self.tell_gathered)

    def tell_gathered(self) -> None:
        """Log now what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ids, self._without_room = self._without_room, []
        _tell(QUEUE_FULL, ids)


def _tell(reason: str, ids: Sequence[str]) -> None:
    for start in range(0, len(ids), _IDS_IN_LINE):
        some = ids[start : start + _IDS_IN_LINE]
        facts = {"reason": reason, "interceptions": len(some), "interception_ids": some}
        log.error("records of interceptions are lost", extra=facts)
