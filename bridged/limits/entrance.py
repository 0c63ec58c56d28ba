"""Where an interception asks for its slot: what admission.py decides, as refusals, counted, and logged in sums.

Refusals by limits come by the thousand when they come, so they have no line each: one line a second says how many there
were of which kind. At level debug each has its line as any other request.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from typing import final

from bridged.limits.admission import Admission, AdmissionLimits, Limit, Over, Slot
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution
from daemonkit.secret import Secret

log = logging.getLogger(__name__)

_LOG_SECONDS = 1.0
# Reason and sentence of each limit. Numbers are not told: they are the operator's, and a worker's are other ones.
_REFUSALS: dict[Limit, tuple[str, str]] = {
    Limit.BRIDGE: ("CAPACITY", "the bridge has as many requests under way as it may: try again"),
    Limit.PROVIDER: ("CAPACITY", "this provider has as many requests under way as it may: try again"),
    Limit.USER: ("RATE_LIMITED", "you have as many requests under way as a user may: wait until one of them has ended"),
    Limit.RATE: ("RATE_LIMITED", "this token makes more requests a second than it may: wait as Retry-After says"),
}


@final
class Entrance:
    """Hands out slots. Every one that `enter` returns is given to `leave` once."""

    def __init__(self, limits: AdmissionLimits, metrics: Metrics) -> None:
        self._admission = Admission(limits)
        self._metrics = metrics
        self._now = time.monotonic
        self._untold: Counter[str] = Counter()

    @property
    def in_use(self) -> int:
        """How many requests have a slot."""
        return self._admission.in_use

    def enter(self, token: Secret, provider: str) -> Slot:
        """A slot for a request whose head is there; RATE_LIMITED or CAPACITY."""
        # Python's hash of a text is keyed anew by each process (PEP 456), and eight bytes of it stay, nowhere but here.
        entered = self._admission.enter(hash(token.reveal()), provider, self._now())
        if isinstance(entered, Over):
            raise self._refused(entered)
        return entered

    def resolved(self, slot: Slot, resolution: Resolution) -> None:
        """credentiald has answered: RATE_LIMITED or CAPACITY where its user or provider has too much under way."""
        over = self._admission.resolved(slot, resolution.provider_name, resolution.user_id, self._now())
        if over is not None:
            raise self._refused(over)

    def leave(self, slot: Slot) -> None:
        """The request is over."""
        self._admission.leave(slot)

    def _refused(self, over: Over) -> Refused:
        limit = over.limit.value
        self._metrics.limit_refused(limit)
        if not self._untold:
            asyncio.get_running_loop().call_later(_LOG_SECONDS, self._tell)
        self._untold[limit] += 1
        reason, sentence = _REFUSALS[over.limit]
        if not over.wait_seconds:
            return Refused(reason, sentence, limit=limit)
        return Refused(
            reason,
            sentence,
            retry_after_seconds=math.ceil(over.wait_seconds),
            retry_after_ms=math.ceil(over.wait_seconds * 1000),
            limit=limit,
        )

    def _tell(self) -> None:
        counts = {f"over_{limit}": count for limit, count in self._untold.items()}
        log.info("requests were refused by limits", extra=counts)
        self._untold.clear()
