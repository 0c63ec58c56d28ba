"""What bridges say of their circuit breakers: the last word of each, for administrators to look at."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from credentiald.bridge_instances import MOST_INSTANCES, Instance
from credentiald.errors import StoreUnavailable
from credentiald.store import bridge_words
from credentiald.store.records import Records
from credentiald.store.times import to_micros

# Of one bridge. Models are its clients' to invent.
MOST_BREAKERS = 64
_MOST_CHARACTERS = 16_384
# Of what is written down for one bridge; what changes more often is told again with its next word.
_PAUSE_MICROS = 1_000_000
# The bridge waits for its word to be heard, and takes us for lost if that takes long.
_STORE_SECONDS = 0.5


class Breaker(NamedTuple):
    """A breaker as a bridge describes it; `state` is CLOSED, OPEN or HALF_OPEN, `since_micros` 0 for not told."""

    provider: str
    operation: str
    model: str
    state: str
    since_micros: int
    failures: int
    last_error: str


def to_text(breakers: Iterable[Breaker]) -> str:
    """As many of them as there is room for, as the store keeps them; empty for none."""
    kept: list[str] = []
    length = 0
    for one in islice(breakers, MOST_BREAKERS):
        text = json.dumps(one, separators=(",", ":"))
        length += len(text)
        if length > _MOST_CHARACTERS:
            break
        kept.append(text)
    return f"[{','.join(kept)}]" if kept else ""


def from_text(text: str) -> Sequence[Breaker]:
    """What `to_text` wrote."""
    return [Breaker(*one) for one in json.loads(text)] if text else ()


class BreakerBook:
    """What one process has heard, so that only what is new is written down."""

    def __init__(self, records: Records, clock: Callable[[], datetime], *, most: int = MOST_INSTANCES) -> None:
        self._records = records
        self._clock = clock
        self._most = most
        # The hash of the last word of each bridge, and when it was written down; the oldest first.
        self._known: dict[Instance, tuple[int, int]] = {}

    async def tell(self, instance: Instance, breakers: Iterable[Breaker]) -> None:
        """Write down what this bridge says now. Where the store takes nothing, its next word is tried."""
        text = to_text(breakers)
        word, micros = hash(text), to_micros(self._clock())
        known = self._known.get(instance)
        if known is not None and (known[0] == word or 0 <= micros - known[1] < _PAUSE_MICROS):
            return
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            await self._write(instance, text, micros)
            self._known.pop(instance, None)
            if len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[instance] = word, micros

    async def _write(self, instance: Instance, text: str, micros: int) -> None:
        async with asyncio.timeout(_STORE_SECONDS):
            # Another process may have heard the last word before this one.
            if await self._records.read(bridge_words.breakers_of, instance) != text:
                await self._records.write(bridge_words.tell_breakers, instance, text, now_micros=micros)
