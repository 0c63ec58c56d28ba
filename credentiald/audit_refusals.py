"""Who was not let in, gathered for the audit: such callers cost nobody's disk a line each."""

import asyncio
from collections import Counter
from collections.abc import Callable

from credentiald import audit_model
from credentiald.audit_model import Refused, Told

# How long callers are gathered that were not let in, and how many kinds of them are told apart.
REFUSALS_SECONDS = 10.0
_MOST_REFUSALS = 16
# Of one caller in that time, further refused acts are only counted.
_REFUSED_ACTS = 20


class AuditRefusals:
    """What was refused since the last time that `tell` was called with it."""

    def __init__(self, tell: Callable[[Told], None]) -> None:
        self._tell = tell
        self._refused: Counter[tuple[str, str, str, str]] = Counter()
        self._others = 0
        self._acts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def refused(self, *, peer: str, what: str, reason: str, caller: str) -> None:
        """Somebody was not let in."""
        key = (audit_model.host_of(peer), what, reason, caller)
        if key in self._refused or len(self._refused) < _MOST_REFUSALS:
            self._refused[key] += 1
        else:
            self._others += 1
        self._gather()

    def may_tell_act(self, caller: str) -> bool:
        """Whether a refused act of this caller gets an entry of its own; else it is to be told of by `refused`."""
        self._acts[caller] += 1
        self._gather()
        return self._acts[caller] <= _REFUSED_ACTS

    def may_begin_act(self, caller: str) -> bool:
        """Whether this caller has not had so many acts refused of late that no further one is even announced."""
        return self._acts.get(caller, 0) < _REFUSED_ACTS

    def close(self) -> None:
        """Tell what is there; nothing is told after it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._tell_all()

    def _gather(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(REFUSALS_SECONDS, self._tell_all)

    def _tell_all(self) -> None:
        self._timer = None
        self._acts.clear()
        if not self._refused:
            return
        told = Told(refused=tuple(Refused(*key, count) for key, count in self._refused.items()), others=self._others)
        self._refused.clear()
        self._others = 0
        self._tell(told)
