"""The way to another provider, once, where the upstream of a request's own provider fails.

Between the call to the first upstream and whatever else hears its answer. A failure is held back, within a bound,
while credentiald is asked for the fallback provider: with the same token and id, by that provider's own policy and
with its own credentials. If it says yes, the request goes out anew and the client hears of that answer only, whatever
it is; if not, the client gets what there was first. Never after a byte of an answer, and never with a key that the
request presents: that is for the provider that it was presented to.

Outermost of all receivers while it waits, and gone from the way with the first head that is no failure.
"""

import time
from typing import TYPE_CHECKING

from bridged.endings import category_of_reason, category_of_status
from bridged.headers import request_id_of
from bridged.held_answer import MAX_HELD_BYTES, HeldAnswer
from bridged.http1.response_head import BodyFraming
from bridged.http1.upstream import ResponseReceiver, UpstreamError
from bridged.model import Headers, Refused, Resolution
from bridged.records import Attempt

if TYPE_CHECKING:
    from bridged.bridge import Bridge
    from bridged.interception import Interception

_FAILURES = frozenset({500, 502, 503, 504, 529})
_EXHAUSTED = "KEY_POOL_EXHAUSTED"
# Refusals in whose place the fallback provider is asked.
_REFUSALS = frozenset({"BREAKER_OPEN", "UPSTREAM_UNREACHABLE", "UPSTREAM_TIMEOUT", _EXHAUSTED})


class Fallback:
    """Of one interception. `provider` is the name of the other one; `body` the request's as the client made it.

    `resolution` is that of the first provider, once the other is asked for; None where credentiald had no key for it.
    """

    __slots__ = (
        "_began_seconds", "_bridge", "_error", "_has_noted", "_held", "_inner", "_interception", "_is_over", "_refused",
        "body", "provider", "resolution",
    )  # fmt: skip

    def __init__(
        self,
        interception: "Interception",
        bridge: "Bridge",
        provider: str,
        body: bytes | None,
    ) -> None:
        self._interception = interception
        self._bridge = bridge
        self.provider = provider
        self.resolution: Resolution | None = None
        self.body = body
        self._inner: ResponseReceiver | None = None
        self._began_seconds = bridge.now()
        # What there was first: a refusal, or an answer as far as it came.
        self._refused: Refused | None = None
        self._held: HeldAnswer | None = None
        self._error: UpstreamError | None = None
        self._has_noted = False
        # The fallback provider was asked for, or there is no need to.
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether this is decided, one way or the other."""
        return self._is_over

    def before(self, receiver: ResponseReceiver) -> ResponseReceiver:
        """The receiver for a call to the first upstream, which goes on to the other one."""
        if self._is_over:
            return receiver
        self._inner = receiver
        self._began_seconds = self._bridge.now()
        return self

    def answered(self) -> None:
        """An answer goes to the client: there is no other from now on, and no need of the body."""
        self._is_over = True
        self.body = None

    def over(self) -> None:
        """The interception has ended, or the fallback provider has the request."""
        self._is_over = True
        self._inner = self.body = self._held = self._refused = self._error = None

    # -- the first upstream's answer --------------------------------------------------------------------------------

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None:
        """Status and headers of the upstream."""
        if status in _FAILURES:
            self._held = HeldAnswer(status, headers, body)
            self._interception.upstream_answered(status)
            return
        inner = self._receiver()
        self._interception.answer_goes_to(inner)
        inner.response_head(status, headers, body, more=more)

    def response_data(self, data: bytes, *, more: bool) -> None:
        """Some of the body: of one that is held back, or the rest of the read that brought the head."""
        if self._held is None:
            self._receiver().response_data(data, more=more)
            return
        self._held.body += data
        if len(self._held.body) > MAX_HELD_BYTES:
            self._pass_on(more=more)

    def response_end(self) -> None:
        """The upstream's answer is complete."""
        if self._held is None:
            self._receiver().response_end()
        else:
            self._ask()

    def response_failed(self, error: UpstreamError) -> None:
        """There is no answer, or no rest of it. The head of one that is held back says enough."""
        if self._held is None:
            self._receiver().response_failed(error)
        else:
            self._error = error
            self._ask()

    def pause_body(self) -> None:
        """The upstream reads slowly."""
        self._receiver().pause_body()

    def resume_body(self) -> None:
        """The upstream reads again."""
        self._receiver().resume_body()

    # -- the other provider -----------------------------------------------------------------------------------------

    def takes(self, refused: Refused) -> bool:
        """Whether the fallback provider is asked in place of this refusal, of which the client has heard nothing."""
        if self._is_over or refused.reason not in _REFUSALS:
            return False
        self._refused = refused
        self._ask()
        return True

    def give_up(self) -> None:
        """There is no other provider for this request: the client gets what there was first."""
        interception, refused = self._interception, self._refused
        if self._has_noted:
            interception.is_not_held_back()
        if refused is not None:
            interception.refuse(refused)
            return
        inner = self._pass_on(more=self._error is None)
        if inner is not None and self._error is not None:
            inner.response_failed(self._error)
        elif inner is not None:
            inner.response_end()

    def _ask(self) -> None:
        self._is_over = True
        self.resolution = self._interception.resolution
        self._note_attempt()
        self._interception.ask_fallback(self)

    def _note_attempt(self) -> None:
        """Of the first provider; the calls that exhausted a pool are noted already (failover.py)."""
        resolution, refused = self.resolution, self._refused
        if resolution is None or (refused is not None and refused.reason == _EXHAUSTED):
            return
        duration_micros = int((self._bridge.now() - self._began_seconds) * 1_000_000)
        held = self._held
        status, headers = (held.status, held.headers) if held is not None else (0, ())
        self._has_noted = True
        self._interception.held_back(
            Attempt(
                create_micros=time.time_ns() // 1000 - duration_micros,
                receipt=resolution.receipt,
                http_status=status,
                category=category_of_status(status) if refused is None else category_of_reason(refused.reason),
                reason=f"HTTP {status}" if refused is None else refused.reason,
                upstream_request_id=request_id_of(headers),
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
        self._is_over, self._held, self.body = True, None, None
        self._interception.answer_goes_to(inner)
        if held is not None:
            inner.response_head(held.status, held.headers, held.framing, more=bool(held.body) or more)
            if held.body and self._inner is not None:
                inner.response_data(bytes(held.body), more=more)
        return self._inner
