"""All credentialds together: which of them a question goes to, and what becomes of it when one is lost.

Invariants:
- Every question that is submitted is settled once, with an answer or a refusal, within its deadline or close to it.
- Questions wait only where somebody is about to take them; where nobody is, they are refused at once (fail closed).
- A question is asked once more after its batch was lost, on another stream or by itself, and once more by itself where
  credentiald says so (ASK_SINGLY); a single question is asked once.
- No answer is kept. Of what credentiald says only the highest revision stays, and it goes with its database.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from drawbridge.v1 import credential_service_pb2 as pb

from bridged.breaker import BreakerView
from bridged.ids import smallest_id
from bridged.key_outcomes import ToldOutcome
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution
from bridged.readiness import Readiness
from bridged.resolve_queue import Outcome, Queue, Waiting
from bridged.resolver_messages import FAILED, NEVER_TAKEN, UNREACHABLE, unreachable
from bridged.watch import News
from daemonkit.cancellation import end_if_cancelled

if TYPE_CHECKING:
    from bridged.resolver_peer import Peer

log = logging.getLogger(__name__)

MAX_WAITING = 16_384
# Less than this is not enough for another try.
_WORTH_ASKING_SECONDS = 0.01
# What a ping or a stream can be told about this bridge itself, which no waiting mends.
ABOUT_THIS_BRIDGE = frozenset(
    {"SERVICE_TOKEN_MISSING", "SERVICE_TOKEN_INVALID", "SERVICE_TOKEN_EXPIRED", "CALLER_NOT_ALLOWED"}
)
# Such a ping counts as one that was not answered: its cause may be over with the next.
_MISSED = frozenset({UNREACHABLE, "STORE_UNAVAILABLE"})


@final
class Pool:
    """The peers and the questions. `searching` as long as it is not known which peers there are."""

    def __init__(
        self,
        *,
        timeout_seconds: float,
        readiness: Readiness,
        metrics: Metrics,
        bridge_instance_id: str,
    ) -> None:
        self.bridge_instance_id = bridge_instance_id
        # The smallest id of an interception that is not over or not reported; Resolver.tell_oldest replaces it.
        self.oldest_id: Callable[[], str] = smallest_id
        # The breakers that are not closed; Resolver.tell_breakers replaces it.
        self.breakers: Callable[[], Sequence[BreakerView]] = tuple
        # Called whenever a credentiald answers that did not; Resolver.tell_return replaces it.
        self.returned: Callable[[], None] = lambda: None
        # Called with what administrators changed, and has obeyed when it returns; Resolver.tell_changes replaces it.
        self.obey: Callable[[News], None] = lambda _: None
        self.timeout_seconds = timeout_seconds
        self.metrics = metrics
        self._took = metrics.resolve_took
        self._now = asyncio.get_running_loop().time
        self.queue = Queue()
        self.trouble = asyncio.Event()
        self.revision = 0
        # No request goes out that was decided under an older revision than this.
        self.obeyed_revision = 0
        self._readiness = readiness
        self._peers: list[Peer] = []
        self._searching = True
        self._waiting = 0
        self._database_id = ""
        # Whether a stream takes what is queued, or is about to.
        self._taken = True

    def submit(self, item: Waiting) -> bool:
        """Send the question on its way; False if it was refused at once."""
        self._waiting += 1
        if self._waiting > MAX_WAITING:
            self.settle(item, Refused("CAPACITY", "too many requests wait for credentiald: try again"))
            return False
        if self._taken:
            self.queue.add(item)
            return True
        return self._ask_singly(item)

    def settle(self, item: Waiting, outcome: Outcome) -> None:
        """The end of a question."""
        self._waiting -= 1
        took_seconds = self._now() - item.submit_time
        self._took(took_seconds)
        if isinstance(outcome, Resolution):
            if outcome.revision > self.revision:
                self.revision = outcome.revision
            if took_seconds > self.timeout_seconds and item.callback is not None:
                # This process was stopped, or could not keep up: nobody waits for us to obey what came since.
                outcome = unreachable("its answer came too late")
        callback, late, item.callback, item.late = item.callback, item.late, None, None
        try:
            if callback is not None:
                callback(outcome)
            elif late is not None and isinstance(outcome, Resolution):
                late(outcome)
        except Exception:
            # Its neighbours in the batch are still to be told.
            log.exception("unhandled error after an answer of credentiald")

    async def append_records(self, parts: Sequence[bytes]) -> Sequence[tuple[int, str]] | Refused:
        """Have reports stored by one of the peers that answer; they take turns.

        What one failed at goes to the others: INTERNAL only where nobody stores it, nor says what is wrong with it.
        """
        failed: Refused | None = None
        for peer in [peer for peer in self._peers if peer.is_streaming or peer.is_unary]:
            if peer not in self._peers:
                continue
            self._peers.remove(peer)
            self._peers.append(peer)
            outcome = await peer.append_records(parts)
            if not isinstance(outcome, Refused) or outcome.reason in NEVER_TAKEN:
                return outcome
            if outcome.reason == FAILED:
                failed = outcome
            elif failed is None:
                return outcome
            end_if_cancelled()
        # Why a stream was refused says nothing of the reports: they are kept, and sent again.
        return failed or unreachable("it has no connection")

    async def report_outcomes(self, outcomes: Sequence[ToldOutcome]) -> int | Refused:
        """Have one of the peers that answer know what became of keys; they share what they know."""
        for place, peer in enumerate(self._peers):
            if peer.is_streaming or peer.is_unary:
                self._peers.append(self._peers.pop(place))
                return await peer.report_outcomes(outcomes)
        return unreachable("it has no connection")

    def joined(self, peer: "Peer") -> None:
        """One more credentiald."""
        self._peers.append(peer)
        self._searching = False
        self.review()

    def left(self, peer: "Peer") -> None:
        """One fewer."""
        self._peers.remove(peer)
        self.review()

    def not_found(self) -> None:
        """There is no credentiald under the name."""
        self._searching = False
        self.review()

    def changed(self, peer: "Peer", unanswered: list[Waiting]) -> None:
        """A peer is in another state; `unanswered` were asked on its stream and got no answer."""
        if not peer.is_streaming:
            self.trouble.set()
        for item in reversed(unanswered):
            self._again(item, peer)
        self.review()
        if peer.is_streaming or peer.is_unary:
            self.returned()

    def pinged(self, peer: "Peer", answer: pb.PingResponse | Refused) -> None:
        """A peer said whether it would answer, or did not say it."""
        state = answer.reason if isinstance(answer, Refused) else "OK"
        if state != peer.ping_state:
            peer.ping_state = state
            _log_change(state, peer.address, others_answer=any(each.ping_state == "OK" for each in self._peers))
        if not isinstance(answer, Refused):
            self._same_database(answer.database_id)
            self._readiness.answered(asyncio.get_running_loop().time())
        elif state not in _MISSED and not any(each.ping_state == "OK" for each in self._peers):
            self._readiness.refused(state)

    def place(self) -> tuple[str, int]:
        """Up to where changes are obeyed: database and revision."""
        return self._database_id, self.obeyed_revision

    def changed_by_administrators(self, news: News) -> None:
        """A peer told what administrators have changed: when this returns, nothing under way contradicts it."""
        self._same_database(news.database_id)
        self.revision = max(self.revision, news.revision)
        self.obeyed_revision = max(self.obeyed_revision, news.revision)
        if news.changes or news.snapshot:
            self.obey(news)

    async def say_goodbye(self) -> None:
        """Let every credentiald know that this bridge has nothing under way, and asks nothing any more."""
        await asyncio.gather(*(peer.say_goodbye() for peer in self._peers))

    def refuse_all(self) -> None:
        """Nobody will take what waits."""
        for item in self.queue.take_all():
            self.settle(item, self._why_not())

    def _again(self, item: Waiting, lost: "Peer") -> None:
        """Ask once more, elsewhere if there is another, where that can help and is still in time."""
        left_seconds = item.deadline - asyncio.get_running_loop().time()
        is_refused = lost.refused_us and not lost.hopes
        if item.callback is None or item.retried or is_refused or left_seconds < _WORTH_ASKING_SECONDS:
            self.settle(item, lost.refused)
            return
        item.retried = True
        if lost.hopes or any(peer.is_streaming for peer in self._peers):
            self.queue.add_first(item)
        else:
            (self._single() or lost).ask(item)

    def review(self) -> None:
        """After any change of the peers: does somebody take what waits?"""
        self._taken = self._searching or any(peer.takes for peer in self._peers)
        if not self._taken:
            for item in self.queue.take_all():
                self._ask_singly(item)

    def _ask_singly(self, item: Waiting) -> bool:
        peer = self._single()
        if peer is None:
            self.settle(item, self._why_not())
            return False
        peer.ask(item)
        return True

    def _single(self) -> "Peer | None":
        """A peer that takes single questions; they take turns."""
        for place, peer in enumerate(self._peers):
            if peer.is_unary:
                self._peers.append(self._peers.pop(place))
                return peer
        return None

    def _why_not(self) -> Refused:
        """Why nobody answers: credentiald's own words, if there are any."""
        refusals = sorted((peer.refused for peer in self._peers), key=lambda refused: refused.reason == UNREACHABLE)
        return refusals[0] if refusals else unreachable("it has no address")

    def _same_database(self, database_id: str) -> None:
        if database_id != self._database_id:
            # Revisions of two databases cannot be compared (PingResponse.database_id).
            self._database_id = database_id
            self.revision = self.obeyed_revision = 0


def _log_change(state: str, address: str, *, others_answer: bool) -> None:
    """One line for each change, not for each ping. `address` only where there are several."""
    facts = {"state": state, **({"peer": address} if address else {})}
    if state == "OK":
        log.info("credentiald answers", extra=facts)
    elif state in ABOUT_THIS_BRIDGE:
        log.error("credentiald refused this bridge: check its service token or certificate", extra=facts)
    elif others_answer:
        # Another replica, or the same one on the connection that it knows this bridge by.
        log.warning("credentiald does not answer on one of several connections: requests take the others", extra=facts)
    else:
        log.warning("credentiald does not answer: requests get 503 until it does", extra=facts)
