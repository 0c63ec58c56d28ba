"""How many requests a second each token may make. No clock, no I/O.

The generic cell rate algorithm (ITU-T I.371, the virtual scheduling form): a token has one number, the time at which
its next request would be due if they came evenly. A request that comes earlier than that by no more than the burst is
admitted and moves it on; any other has to wait by what is missing, and moves nothing. The burst is one second's worth.

A due time lies no more than a second ahead, and one that is past means nothing, so an entry matters for a second only:
tokens that somebody makes up cost memory for as long, and for no longer.
"""

from bridged.limits.recent import Recent

_SECOND = 1_000_000_000
# A due time is at most one second ahead.
_LASTS_SECONDS = 2.0
# More than a process can be asked in that time, so that nobody's entry goes before it is worthless.
_MOST = 1 << 16


class Rates:
    """The due time of each token. `per_second` is at least 1."""

    __slots__ = ("_burst_nanos", "_due", "_interval_nanos")

    def __init__(self, per_second: int) -> None:
        # In whole numbers, so that a second's worth is exactly that.
        self._interval_nanos = _SECOND // per_second
        self._burst_nanos = self._interval_nanos * (per_second - 1)
        self._due: Recent[int] = Recent(lasts_seconds=_LASTS_SECONDS, most=_MOST)

    def __len__(self) -> int:
        return len(self._due)

    def wait_seconds(self, token: int, now: float) -> float:
        """0 where a request of this token is admitted now, and it is counted; else how long it has to wait."""
        now_nanos = int(now * _SECOND)
        due_nanos = self._due.get(token)
        if due_nanos is None or due_nanos < now_nanos:
            due_nanos = now_nanos
        early_nanos = due_nanos - now_nanos - self._burst_nanos
        if early_nanos > 0:
            return early_nanos / _SECOND
        self._due.put(token, due_nanos + self._interval_nanos, now)
        return 0.0
