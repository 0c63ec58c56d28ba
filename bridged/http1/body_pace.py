"""How long a body has been waited for, and whether enough of it came in that time. No clock, no I/O.

The gap between two reads alone would let a client hold a request open for ever with a byte now and then. Time in which
we did not read does not count: it is ours.
"""

from bridged.http1.limits import Limits

_NOT_WAITING = -1.0


class BodyPace:
    """For the body of one exchange after the other. Times are those of the last sweep, which is exact enough."""

    __slots__ = ("_limits", "_since", "_waited_seconds")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._since = _NOT_WAITING
        self._waited_seconds = 0.0

    def wait(self, now: float) -> float:
        """From now on the body is waited for; when its pace is to be judged."""
        self.rest(now)
        self._since = now
        return now + self._limits.body_seconds - self._waited_seconds

    def rest(self, now: float) -> None:
        """We do not read for now."""
        if self._since != _NOT_WAITING:
            self._waited_seconds += now - self._since
            self._since = _NOT_WAITING

    def end(self) -> None:
        """Nothing more of this body is wanted."""
        self._since = _NOT_WAITING
        self._waited_seconds = 0.0

    def enough_until(self, now: float, arrived_bytes: int) -> float:
        """Until when what has arrived is enough, if nothing more does. In the past: it came too slowly."""
        waited_seconds = self._waited_seconds + (now - self._since if self._since != _NOT_WAITING else 0.0)
        return now + arrived_bytes / self._limits.body_bytes_per_second - waited_seconds
