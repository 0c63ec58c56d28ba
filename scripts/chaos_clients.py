"""The clients of scripts/chaos beside those of scripts/reconcile: what each asked, and what became of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.raw_http import raw_client, request

BASE_PATH = "/api/v2/aibridge"
# Longer than anything that a bridge waits for here but an upstream.
DEADLINE_SECONDS = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request. Status 0: the connection was refused or broke off; `problem` says how."""

    lane: str
    mark: str
    began: float
    ended: float
    status: int
    reason: str = ""
    retry_after: str = ""
    complete: bool = True
    problem: str = ""

    @property
    def good(self) -> bool:
        """A whole answer of 200."""
        return self.status == 200 and self.complete

    def __str__(self) -> str:
        said = f"{self.status} {self.reason}" if self.status else self.problem
        return f"{self.lane} {self.mark}: {said}{'' if self.complete else ', broken off'}"


class Book:
    """What came of all requests: counts of all, and those that were not good."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.bad: list[Outcome] = []
        self.good_times: list[float] = []
        # The ids of interceptions that bridges refused because of credentiald; it may have answered all the same.
        self.refused: set[str] = set()
        # Bodies of our own errors, each once, to search for what must not be there.
        self.said: set[bytes] = set()
        self.longest_seconds = 0.0

    def enter(self, outcome: Outcome) -> None:
        """Take note of it."""
        what = f"{outcome.status} {outcome.reason}".strip() if outcome.status else "broken off"
        self.counts[outcome.lane, what] += 1
        self.longest_seconds = max(self.longest_seconds, outcome.ended - outcome.began)
        if outcome.good:
            self.good_times.append(outcome.ended)
        else:
            self.bad.append(outcome)

    def total(self, lane: str | None = None) -> int:
        """How many requests there were."""
        return sum(count for (one, _), count in self.counts.items() if lane in (None, one))


class Asker:
    """Asks with a token and enters what came of it. `said` are bodies of errors."""

    def __init__(self, book: Book, token: str) -> None:
        self.book = book
        self.token = token
        self._numbers = itertools.count()

    async def ask(
        self, lane: str, address: str, provider: str, mark: str = "", *, stream: bool = False, token: str | None = None
    ) -> Outcome:
        """One request on a connection of its own."""
        mark = mark or f"{lane}-{next(self._numbers)}"
        body = json.dumps({"model": mark, "stream": stream, "messages": []}, separators=(",", ":")).encode()
        headers = [
            ("Authorization", f"Bearer {self.token if token is None else token}"),
            ("User-Agent", f"chaos/{mark}"),
        ]
        data = request("POST", f"{BASE_PATH}/{provider}/v1/chat/completions", headers=headers, body=body)
        began = time.monotonic()

        def outcome(status: int, **more: object) -> Outcome:
            return Outcome(lane=lane, mark=mark, began=began, ended=time.monotonic(), status=status, **more)  # type: ignore[arg-type]

        try:
            async with raw_client(int(address.rpartition(":")[2]), timeout_seconds=DEADLINE_SECONDS) as client:
                await client.send(data)
                answer = await client.read_answer()
        except (OSError, EOFError) as problem:
            found = outcome(0, problem=f"{type(problem).__name__}: {problem}", complete=False)
        except (ValueError, IndexError) as problem:
            found = outcome(-1, problem=f"not HTTP: {problem}", complete=False)
        else:
            reason = answer.header("x-drawbridge-error") or ""
            if reason:
                self.book.said.add(answer.raw_head + answer.body)
                if answer.status == 503:
                    self.book.refused.add(answer.header("x-interception-id") or "")
            found = outcome(
                answer.status, reason=reason, retry_after=answer.header("retry-after") or "", complete=answer.complete
            )
        self.book.enter(found)
        return found

    async def keep_asking(
        self,
        lane: str,
        addresses: Callable[[], Sequence[str]],
        provider: str,
        *,
        stream: bool,
        rest_seconds: float,
    ) -> None:
        """For ever, at one address or another."""
        while True:
            if where := addresses():
                await self.ask(lane, random.choice(where), provider, stream=stream)
            await asyncio.sleep(random.uniform(0, 2 * rest_seconds))
