"""What upstreams said of keys, on its way to credentiald, and what this bridge does not forget until it is there.

Invariants:
- Telling costs no client anything: a queue with a bound, emptied by a task of its own as long as there is something.
- Until credentiald has taken an outcome, the key is named in each question for that provider, so that this bridge is
  not given it again; a key whose rest is over is named no more, whoever was told.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from math import ceil
from typing import NamedTuple, final

from bridged.key_outcomes import KeyOutcome, Kind, ToldOutcome, rest_seconds
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution
from daemonkit.cancellation import end_if_cancelled

log = logging.getLogger(__name__)

MOST_WAITING = 4096
# As many as one message takes.
MOST_AT_ONCE = 100
_TRIES = 4
_PAUSE_SECONDS = (0.05, 0.15)
# At the end, for what waits then.
LAST_SECONDS = 1.0
# What will not be taken, however often it is sent.
_NEVER = frozenset({"UNIMPLEMENTED", "INVALID_ARGUMENT", "SERVICE_TOKEN_INVALID", "CALLER_NOT_ALLOWED"})
_ABOUT_A_KEY = frozenset({Kind.UNAUTHORIZED, Kind.RATE_LIMITED, Kind.SPEND_LIMITED})

# An outcome that says the same again so soon is on its way already.
_SAME_SECONDS = 1.0
# How long a key is named that credentiald does not act on, whose reasons only it knows.
_IGNORED_SECONDS = 60.0

EXHAUSTED = "KEY_POOL_EXHAUSTED"

# Tells of outcomes; how many credentiald does not act on, or why it was not told.
Send = Callable[[Sequence[ToldOutcome]], Awaitable[int | Refused]]


class Rest(NamedTuple):
    """Why a key is left alone, and until when by the bridge's clock."""

    kind: Kind
    until_seconds: float


@final
class Outcomes:
    """The queue of one process. `untold` is what credentiald has not taken yet: by provider, keys and their rests."""

    def __init__(self, send: Send, metrics: Metrics) -> None:
        self._send = send
        self._metrics = metrics
        self._now = time.monotonic
        self.untold: dict[str, dict[str, Rest]] = {}
        # Provider, id of the key and its rest with what is told.
        self._queue: deque[tuple[str, str, Rest | None, ToldOutcome]] = deque()
        self._telling: asyncio.Task[None] | None = None
        self._is_closed = False

    def tell(self, provider: str, resolution: Resolution, outcome: KeyOutcome, now_seconds: float) -> Rest | None:
        """Have credentiald know; the rest of the key, where the outcome is about it."""
        rest = None
        if outcome.kind in _ABOUT_A_KEY:
            rest = Rest(outcome.kind, now_seconds + rest_seconds(outcome))
            self._metrics.key_refused(outcome.kind.value)
            known = self._known(provider, resolution.credential_id)
            if known is not None and not resolution.probe and _says_nothing_new(known, rest):
                return known
            self._remember(provider, resolution.credential_id, rest)
        if self._is_closed or len(self._queue) >= MOST_WAITING:
            self._metrics.outcomes_lost(1)
            return rest
        self._queue.append((provider, resolution.credential_id, rest, (resolution.receipt, outcome)))
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell_all(), name="outcomes of keys")
        return rest

    def resting(self, provider: str, now_seconds: float) -> Mapping[str, Rest]:
        """The keys of this provider that credentiald may give out although the upstream refused them."""
        rests = self.untold.get(provider)
        if rests is None:
            return {}
        for credential_id in [one for one, rest in rests.items() if rest.until_seconds <= now_seconds]:
            self._forget(provider, credential_id)
        return rests

    async def close(self) -> None:
        """Tell what waits, within a moment; nothing after that."""
        self._is_closed = True
        telling = self._telling
        if telling is not None:
            await asyncio.wait([telling], timeout=LAST_SECONDS)
            telling.cancel()
            await asyncio.wait([telling])
        self._metrics.outcomes_lost(len(self._queue))
        self._queue.clear()

    async def _tell_all(self) -> None:
        try:
            tries = 0
            while self._queue:
                batch = list(islice(self._queue, MOST_AT_ONCE))
                told = await self._told(batch)
                tries += 1
                if isinstance(told, Refused):
                    end_if_cancelled()
                if isinstance(told, Refused) and told.reason not in _NEVER and tries < _TRIES:
                    await asyncio.sleep(random.uniform(*_PAUSE_SECONDS) * 2**tries)  # noqa: S311 - jitter
                    continue
                self._take_out(batch, told)
                tries = 0
        finally:
            self._telling = None

    async def _told(self, batch: Sequence[tuple[str, str, Rest | None, ToldOutcome]]) -> int | Refused:
        try:
            return await self._send([told for _, _, _, told in batch])
        except Exception:
            log.exception("outcomes of keys could not be told")
            return Refused("INTERNAL", "outcomes of keys could not be told")

    def _take_out(self, batch: Sequence[tuple[str, str, Rest | None, ToldOutcome]], told: int | Refused) -> None:
        for provider, credential_id, rest, _ in batch:
            self._queue.popleft()
            # A key that credentiald was not told of is named until its rest is over.
            if isinstance(told, Refused) or rest is None or self._known(provider, credential_id) is not rest:
                continue
            self._forget(provider, credential_id)
            if told:
                # Which of them it does not act on is not said, nor why: it may be too many.
                until_seconds = min(rest.until_seconds, self._now() + _IGNORED_SECONDS)
                self._remember(provider, credential_id, rest._replace(until_seconds=until_seconds))
        if isinstance(told, Refused):
            self._metrics.outcomes_lost(len(batch))
            log.warning("credentiald was not told of keys", extra={"reason": told.reason, "outcomes": len(batch)})

    def _known(self, provider: str, credential_id: str) -> Rest | None:
        return self.untold.get(provider, {}).get(credential_id)

    def _remember(self, provider: str, credential_id: str, rest: Rest) -> None:
        if sum(map(len, self.untold.values())) >= MOST_WAITING:
            oldest = next(iter(self.untold))
            self._forget(oldest, next(iter(self.untold[oldest])))
        self.untold.setdefault(provider, {})[credential_id] = rest

    def _forget(self, provider: str, credential_id: str) -> None:
        rests = self.untold[provider]
        del rests[credential_id]
        if not rests:
            del self.untold[provider]


def _says_nothing_new(known: Rest, rest: Rest) -> bool:
    return known.kind is rest.kind and rest.until_seconds < known.until_seconds + _SAME_SECONDS


def exhausted(rests: Iterable[Rest], refused: Refused | None, now_seconds: float) -> Refused:
    """The refusal where no key is left: with the shortest wait that anybody knows of, or for good where there is none.

    `refused` is credentiald's word, `rests` are of the keys that it was told of and of those that it may not know of.
    """
    waits = [max(1, ceil(one.until_seconds - now_seconds)) for one in rests if one.kind is not Kind.UNAUTHORIZED]
    if refused is not None and refused.retry_after_seconds is not None:
        if not waits or refused.retry_after_seconds <= min(waits):
            return refused
    elif not waits:
        return Refused(
            EXHAUSTED,
            "the upstream refused every key of this provider: an administrator sets others (`credentiald keys`)",
        )
    seconds = min(waits)
    return Refused(
        EXHAUSTED, f"every key of this provider is rate-limited: try again in {seconds} s", retry_after_seconds=seconds
    )
