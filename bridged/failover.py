"""One request's way through a pool of keys: between each call to the upstream and whatever else hears its answer.

An answer that may be about the key is held back, within a bound. If it is about the key, credentiald hears of it and is
asked for another one, and the request goes out again as it did, with that; the client hears of the last answer only. So
it goes at most once for each key of the pool, and only where the whole request is at hand.

Outermost of all receivers: each key's answer is judged as the upstream gave it, before it is translated or judged for
anything else.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bridged.endings import category_of_status
from bridged.headers import request_id_of
from bridged.held_answer import MAX_HELD_BYTES, HeldAnswer
from bridged.http1.response_head import BodyFraming
from bridged.http1.upstream import ResponseReceiver, UpstreamError
from bridged.key_outcomes import NO_ANSWER, KeyOutcome, Kind, is_held, outcome_at_head, outcome_of
from bridged.model import Headers, Refused, Resolution
from bridged.outcomes import EXHAUSTED, Rest, exhausted
from bridged.quoted_keys import without_keys
from bridged.records import Attempt

if TYPE_CHECKING:
    from bridged.bridge import Bridge
    from bridged.interception import Interception

_FIRST_CLIENT_ERROR = 400
# Nobody could say which key is next: the upstream's own answer is better than none.
_NO_WORD = frozenset({"CREDENTIALD_UNREACHABLE", "STORE_UNAVAILABLE", "CAPACITY"})


class Failover:
    """Of one interception. `body` is the request's as the client made it, None where there is none or it is streamed.

    `replay` is the receiver of a request that goes out without the bridge's edits; None where they are to be made.
    """

    __slots__ = (
        "_began_seconds", "_bridge", "_can_send_again", "_held", "_inner", "_interception", "_is_told", "_resolution",
        "_rests", "body", "replay",
    )  # fmt: skip

    def __init__(
        self,
        interception: "Interception",
        bridge: "Bridge",
        resolution: Resolution,
        body: bytes | None,
        *,
        can_send_again: bool,
    ) -> None:
        self._interception = interception
        self._bridge = bridge
        self._resolution = resolution
        self._can_send_again = can_send_again
        self.body = body
        self.replay: ResponseReceiver | None = None
        self._inner: ResponseReceiver | None = None
        # By key that was refused.
        self._rests: dict[str, Rest] = {}
        self._is_told = False
        self._began_seconds = 0.0
        self._held: HeldAnswer | None = None

    def before(self, receiver: ResponseReceiver, resolution: Resolution) -> "Failover":
        """The receiver for a call with this key, which goes on to the other one."""
        if resolution is not self._resolution:
            self._resolution, self._is_told = resolution, False
        self._inner = receiver
        self._began_seconds = self._bridge.now()
        return self

    @property
    def refused_ids(self) -> Sequence[str]:
        """The keys that the upstream refused for this request."""
        return tuple(self._rests)

    # -- the upstream's answer --------------------------------------------------------------------------------------

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None:
        """Status and headers of the upstream."""
        try:
            resolution = self._resolution
            if status >= _FIRST_CLIENT_ERROR and is_held(resolution.wire_type, status):
                self._held = HeldAnswer(status, headers, body)
                return
            if resolution.probe:
                self._tell_probe(outcome_at_head(status))
            # Whoever wants to send it again after all has it (answer_to_asking.py).
            self.body = None
            inner = self._receiver()
            self._interception.answer_goes_to(inner)
            inner.response_head(status, headers, body, more=more)
        except Exception as failure:
            self._interception.fail(failure)

    def response_data(self, data: bytes, *, more: bool) -> None:
        """Some of the body: of one that is held back, or the rest of the read that brought the head."""
        try:
            if self._held is None:
                self._receiver().response_data(data, more=more)
                return
            self._held.body += data
            if len(self._held.body) > MAX_HELD_BYTES:
                outcome = self._judged()
                if outcome.kind is Kind.ACCEPTED:
                    self._tell_probe(outcome)
                else:
                    self._tell(outcome)
                self._pass_on(more=more)
        except Exception as failure:
            self._interception.fail(failure)

    def response_end(self) -> None:
        """The upstream's answer is complete."""
        try:
            if self._held is None:
                self._receiver().response_end()
            elif not self._goes_on() and (inner := self._pass_on(more=True)) is not None:
                inner.response_end()
        except Exception as failure:
            self._interception.fail(failure)

    def response_failed(self, error: UpstreamError) -> None:
        """There is no answer, or no rest of it. The head of one that is held back says enough."""
        try:
            if self._held is None:
                self._tell_probe(NO_ANSWER)
                self._receiver().response_failed(error)
            elif not self._goes_on() and (inner := self._pass_on(more=False)) is not None:
                inner.response_failed(error)
        except Exception as failure:
            self._interception.fail(failure)

    def pause_body(self) -> None:
        """The upstream reads slowly."""
        self._receiver().pause_body()

    def resume_body(self) -> None:
        """The upstream reads again."""
        self._receiver().resume_body()

    # -- another key ------------------------------------------------------------------------------------------------

    def refused(self, answer: Refused) -> None:
        """credentiald has no other key: the client hears that, or, where nobody could say, what the upstream said."""
        interception = self._interception
        if answer.reason == EXHAUSTED:
            self._end(answer)
        elif answer.reason in _NO_WORD and self._held is not None:
            interception.is_not_held_back()
            if (inner := self._pass_on(more=True)) is not None:
                inner.response_end()
        else:
            interception.refuse(answer)

    def goes_again(self, resolution: Resolution) -> bool:
        """Whether this is a key that may be tried; if not, the request has ended."""
        if resolution.credential_id in self._rests:
            # A credentiald that does not look at what it is told.
            self._end(None)
            return False
        self._held = None
        if resolution.base_url != self._resolution.base_url or resolution.wire_type != self._resolution.wire_type:
            self.replay = None
        return True

    def over(self) -> None:
        """The interception has ended: whatever comes now, nobody hears of it."""
        self._tell_probe(NO_ANSWER)
        self._inner = self.replay = None
        self.body = None

    def _goes_on(self) -> bool:
        """Whether what is held back was about the key, and there is an end to it without it."""
        outcome = self._judged()
        if outcome.kind is Kind.ACCEPTED:
            self._tell_probe(outcome)
            return False
        self._tell(outcome)
        if not self._can_send_again:
            return False
        self._note_attempt(outcome)
        if len(self._rests) < self._resolution.pool_size:
            self._interception.ask_again()
        else:
            self._end(None)
        return True

    def _end(self, refused: Refused | None) -> None:
        bridge, interception = self._bridge, self._interception
        now_seconds = bridge.now()
        untold = bridge.outcomes.resting(interception.provider, now_seconds)
        interception.refuse(exhausted((*self._rests.values(), *untold.values()), refused, now_seconds))

    def _judged(self) -> KeyOutcome:
        held = self._held
        if held is None:
            return NO_ANSWER
        now = datetime.now(UTC)
        outcome = outcome_of(self._resolution.wire_type, held.status, held.headers, bytes(held.body), now=now)
        # Upstreams have quoted keys in stranger places than the type of an error.
        error = without_keys(outcome.error, self._resolution, self._interception.client)
        return outcome._replace(error=error)

    def _tell(self, outcome: KeyOutcome) -> None:
        bridge, resolution = self._bridge, self._resolution
        self._is_told = True
        rest = bridge.outcomes.tell(self._interception.provider, resolution, outcome, bridge.now())
        if rest is not None:
            self._rests[resolution.credential_id] = rest

    def _tell_probe(self, outcome: KeyOutcome) -> None:
        if self._resolution.probe and not self._is_told:
            self._tell(outcome)

    def _note_attempt(self, outcome: KeyOutcome) -> None:
        held = self._held
        if held is None:
            return
        seconds = self._bridge.now() - self._began_seconds
        duration_micros = int(seconds * 1_000_000)
        self._interception.held_back(
            Attempt(
                create_micros=time.time_ns() // 1000 - duration_micros,
                receipt=self._resolution.receipt,
                http_status=held.status,
                category=category_of_status(held.status),
                reason=outcome.error or f"HTTP {held.status}",
                upstream_request_id=request_id_of(held.headers),
                duration_micros=duration_micros,
            )
        )

    # -- on its way -------------------------------------------------------------------------------------------------

    def _receiver(self) -> ResponseReceiver:
        if self._inner is None:
            raise RuntimeError("an answer without a request")
        return self._inner

    def _pass_on(self, *, more: bool) -> ResponseReceiver | None:
        """What was held back goes on its way; to whom the rest goes, if anybody wants it."""
        inner, held = self._receiver(), self._held
        self._interception.answer_goes_to(inner)
        if held is not None:
            self._held, self.body = None, None
            inner.response_head(held.status, held.headers, held.framing, more=bool(held.body) or more)
            if held.body and self._inner is not None:
                inner.response_data(bytes(held.body), more=more)
        return self._inner
