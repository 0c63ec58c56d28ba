"""Asks credentiald, for every request, and brings back its answer or its refusal.

How the questions travel is the business of the modules beside this one: they share batches (resolve_queue.py) on
streams (resolve_stream.py), one a credentiald (resolver_peer.py); what cannot go that way goes singly
(resolver_unary.py); resolver_pool.py chooses. Messages carry tokens and keys, so none is ever printed.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from bridged import resolver_question
from bridged.breaker import BreakerView
from bridged.key_outcomes import ToldOutcome
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution
from bridged.readiness import Readiness
from bridged.resolve_queue import Callback, Outcome, Waiting
from bridged.resolver_addresses import Lookup, system_lookup
from bridged.resolver_identity import ClientTls, Identities, Identity
from bridged.resolver_peer import PING_INTERVAL_SECONDS
from bridged.resolver_peers import running_peers
from bridged.resolver_pool import Pool
from bridged.resolver_question import Question
from bridged.watch import News

__all__ = [
    "PING_INTERVAL_SECONDS",
    "Callback",
    "ClientTls",
    "Identities",
    "Identity",
    "Outcome",
    "Question",
    "Resolver",
    "running_resolver",
]

# A question is a token, three names and two ids. One that is larger would only crowd out its neighbours.
_MAX_QUESTION_BYTES = 256 * 1024


class Resolver:
    """Sends questions on their way. Keeps no answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._now = asyncio.get_running_loop().time
        self._revision = pool.revision
        self._of_this_bridge = resolver_question.of_this_bridge(pool.bridge_instance_id, self._revision)

    def submit(self, question: Question, callback: Callback) -> Waiting | None:
        """Ask, and have `callback` called with credentiald's answer, or with the refusal.

        CREDENTIALD_UNREACHABLE where there is no answer in time. The result is to cancel the question with, so that
        the callback is not called; None where it has been called already.
        """
        pool = self._pool
        if pool.revision != self._revision:
            self._revision = pool.revision
            self._of_this_bridge = resolver_question.of_this_bridge(pool.bridge_instance_id, self._revision)
        try:
            item = resolver_question.item(question, self._of_this_bridge)
        except ValueError:  # a half of a surrogate pair, which JSON may hold and UTF-8 may not
            callback(Refused("INVALID_ARGUMENT", "the name of the model or provider is not text"))
            return None
        if len(item) > _MAX_QUESTION_BYTES:
            callback(Refused("INVALID_ARGUMENT", "the name of the model, the token or the path is too long"))
            return None
        now = self._now()
        waiting = Waiting(item, callback, now, now + pool.timeout_seconds)
        return waiting if pool.submit(waiting) else None

    @property
    def obeyed_revision(self) -> int:
        """No request is to go out that was decided under an older revision."""
        return self._pool.obeyed_revision

    async def resolve(self, question: Question) -> Resolution:
        """credentiald's answer, or Refused."""
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiting = self.submit(question, lambda outcome: None if answered.done() else answered.set_result(outcome))
        try:
            outcome = await answered
        finally:
            if waiting is not None:
                waiting.cancel()
        if isinstance(outcome, Refused):
            # One refusal may be told to many.
            raise outcome.with_traceback(None)
        return outcome

    async def append_records(self, parts: Sequence[bytes]) -> Sequence[tuple[int, str]] | Refused:
        """Have reports stored (report_messages.request_parts); the places of those that never will be, with why."""
        return await self._pool.append_records(parts)

    async def report_outcomes(self, outcomes: Sequence[ToldOutcome]) -> int | Refused:
        """Tell credentiald what became of keys; how many it does not act on, or why it was not told."""
        return await self._pool.report_outcomes(outcomes)

    def tell_oldest(self, oldest_id: Callable[[], str]) -> None:
        """Whom to ask, at each ping, for the smallest id of an interception that is not over or not reported yet."""
        self._pool.oldest_id = oldest_id

    def tell_breakers(self, breakers: Callable[[], Sequence[BreakerView]]) -> None:
        """Whom to ask, at each ping, for the breakers that are not closed, with times of the wall clock."""
        self._pool.breakers = breakers

    def tell_changes(self, obey: Callable[[News], None]) -> None:
        """Whom to tell what administrators change; it has obeyed when it returns."""
        self._pool.obey = obey

    def tell_return(self, returned: Callable[[], None]) -> None:
        """Whom to tell whenever a credentiald answers that did not."""
        self._pool.returned = returned


@asynccontextmanager
async def running_resolver(
    target: str,
    identities: Identities,
    *,
    timeout_seconds: float,
    readiness: Readiness,
    metrics: Metrics,
    lookup: Lookup = system_lookup,
) -> AsyncIterator[Resolver]:
    """A resolver that keeps its streams, and `readiness`, for the length of the block.

    `target` is any gRPC target; of `dns:///NAME:PORT` every address is used. Where the identity changes, new
    connections take over from those that there are, and no question is lost.
    """
    pool = Pool(
        timeout_seconds=timeout_seconds,
        readiness=readiness,
        metrics=metrics,
        bridge_instance_id=str(uuid.uuid4()),
    )
    async with running_peers(pool, target, identities, lookup):
        yield Resolver(pool)
