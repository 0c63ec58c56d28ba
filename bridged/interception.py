"""One request, start to end: whose it is, what credentiald says, the upstream's answer as it comes.

An Interception stands between two callback sides: it is the carrier behind an exchange with the client (http1/exchange)
and gives the upstream's answer a relay (answer_relay.py). No task and no future of its own; each step is called when
what it needs is there, and what it does is in a module of `carrying`:

    begin → (body_whole) → decided → answer_begins … → answer_ends

Until the first byte of an answer is out, anything that goes wrong is a refusal in the shape of the route's API. After
that an event stream is ended with the API's error event, and any other body by breaking the connection: nothing that
was cut ever looks whole. Whatever happens, `ending.end` does its work exactly once.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridged.answer_relay import AnswerRelay
from bridged.breaking import BreakerPass
from bridged.carrying import beginning, deciding, ending, obeying, other_provider, sending_again
from bridged.client_token import ClientCredentials
from bridged.dialects import request_facts
from bridged.dialects.facts import NO_FACTS
from bridged.dump.dumper import DumpedCall
from bridged.endings import CLIENT_GONE
from bridged.failover import Failover
from bridged.fallback import Fallback
from bridged.http1.exchange import Exchange
from bridged.http1.upstream import ResponseReceiver, UpstreamCall
from bridged.ids import new_id
from bridged.limits.admission import Slot
from bridged.model import DialectName, Headers, Refused, RequestFacts, Resolution
from bridged.recording import Recording
from bridged.records import Attempt
from bridged.routes import RouteMatch
from bridged.watch import Taken

if TYPE_CHECKING:
    from bridged.bridge import Bridge

log = logging.getLogger(__name__)

# Looking a member up costs as much as a call.
_UNKNOWN_DIALECT = DialectName.OPENAI_CHAT


class Interception:
    """One client request through the bridge: where it stands, and what both sides and the bridge tell it.

    The modules of `carrying` read and set where it stands; all others only tell it things, and read what is for the
    record and the log line. `recording` gathers what is recorded, None where nothing is. `stopped`: the bridge ended it
    because it stops. `limit`: which limit refused it, empty where none did.
    """

    __slots__ = (
        "asked_count", "attempts", "breaker_pass", "bridge", "call", "client", "dialect", "dumped", "early", "error",
        "exchange", "facts", "failover", "fallback", "first_byte_seconds", "has_body_ended", "interception_id",
        "is_over", "is_paused", "is_stream", "is_streamed", "is_turn_kept", "is_usage_refused", "limit", "match",
        "provider", "question", "received_bytes", "recording", "relay", "reserved_bytes", "resolution", "sent_bytes",
        "slot", "started_seconds", "status", "stopped", "trace",
    )  # fmt: skip

    def __init__(self, bridge: "Bridge", exchange: Exchange) -> None:
        self.bridge = bridge
        self.exchange = exchange
        self.client: ClientCredentials | None = None
        # The question to credentiald while it is under way, then the call to the upstream.
        self.question: Any = None
        self.call: UpstreamCall | None = None
        # What dumps the last call; None where there is no API dump.
        self.dumped: DumpedCall | None = None
        # None where no other provider may be asked.
        self.fallback: Fallback | None = None
        # None where there are no breakers.
        self.breaker_pass: BreakerPass | None = None
        # A streamed body that came before there was a call to give it to; the client is paused, so it stays small.
        # The body of a route that reads it is here until the answer begins: it may have to be sent again.
        self.early: list[bytes] = []
        self.asked_count = 0
        self.is_turn_kept = False
        # The upstream would not be asked for usage.
        self.is_usage_refused = False
        self.reserved_bytes = 0
        # Its place among those under way, where there are limits.
        self.slot: Slot | None = None
        self.is_streamed = False
        self.has_body_ended = False
        self.is_paused = False
        self.is_over = False
        self.relay: AnswerRelay | None = None
        self.failover: Failover | None = None
        self.interception_id = new_id()
        self.dialect = _UNKNOWN_DIALECT
        self.match: RouteMatch | None = None
        self.provider = ""
        self.facts: RequestFacts = NO_FACTS
        self.resolution: Resolution | None = None
        self.recording: Recording | None = None
        # Calls whose answers the client does not get, because there was another one.
        self.attempts: tuple[Attempt, ...] = ()
        self.stopped = False
        self.status: int | None = None
        self.error = ""
        self.limit = ""
        # Of the answer, once it has ended.
        self.is_stream = False
        self.sent_bytes = 0
        # Of the request's body so far.
        self.received_bytes = 0
        self.started_seconds = bridge.now()
        # From there to the upstream's answer.
        self.first_byte_seconds: float | None = None
        tracing = bridge.tracing
        self.trace = None if tracing is None else tracing.begin(exchange.request, self.interception_id)

    # -- the client's side ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Judge the head and decide how the body is read. A refusal is answered here."""
        bridge, request = self.bridge, self.exchange.request
        try:
            bridge.check_open()
            target, match = bridge.place(request)
            self.provider = target.provider
            if match is None:
                beginning.answer_probe(self)
                return
            self.match, self.dialect = match, match.dialect
            beginning.begin_body(self, target, match)
        except Exception as failure:
            self.fail(failure)

    def body_whole(self, data: bytes) -> None:
        """The body of a route that reads it: read the few fields that are needed, ask."""
        try:
            match, client = self.match, self.client
            if match is None or client is None or self.is_over:
                return
            self.received_bytes = len(data)
            self.facts = request_facts(match, self.exchange.request.headers, data)
            self.early = [data]
            deciding.ask(self, match, client)
        except Exception as failure:
            self.fail(failure)

    def body_part(self, data: bytes) -> None:
        """Some of a streamed body."""
        try:
            self.received_bytes += len(data)
            if self.call is not None:
                self.call.send_body(data)
                if self.dumped is not None:
                    self.dumped.request_data(data)
            elif not self.is_over:
                self.early.append(data)
        except Exception as failure:
            self.fail(failure)

    def body_end(self) -> None:
        """The streamed body is complete."""
        try:
            self.has_body_ended = True
            if self.call is not None and self.is_streamed:
                self.call.end_body()
                if self.dumped is not None:
                    self.dumped.request_end()
        except Exception as failure:
            self.fail(failure)

    def body_failed(self, error: beginning.BodyError) -> None:
        """The body does not come to its end."""
        try:
            self.refuse(beginning.refused_body(error, self.bridge.max_body_bytes))
        except Exception as failure:
            self.fail(failure)

    def client_gone(self) -> None:
        """The client left: so does the request to the upstream."""
        if not self.is_over:
            self.error = CLIENT_GONE
            ending.end(self)

    def pause(self) -> None:
        """The client reads slowly."""
        try:
            self.is_paused = True
            if self.call is not None:
                self.call.pause()
        except Exception as failure:
            self.fail(failure)

    def resume(self) -> None:
        """The client reads again."""
        try:
            self.is_paused = False
            if self.call is not None:
                self.call.resume()
        except Exception as failure:
            self.fail(failure)

    # -- the way to the upstream, for whoever stands on it ------------------------------------------------------------

    def send_again(self, body: bytes, receiver: ResponseReceiver) -> None:
        """The upstream would not be asked for usage: send the request as the client made it."""
        sending_again.as_the_client_made_it(self, body, receiver)

    def ask_again(self) -> None:
        """The upstream refused the key: ask credentiald for another one."""
        sending_again.ask_for_another_key(self)

    def ask_fallback(self, fallback: Fallback) -> None:
        """The upstream failed: ask credentiald for the fallback provider."""
        other_provider.ask(self, fallback)

    def held_back(self, told: Attempt) -> None:
        """The client does not get this answer, and there is going to be another."""
        self.attempts = (*self.attempts, told)
        if self.trace is not None:
            self.trace.answer_held_back(told.http_status, told.reason)

    def is_not_held_back(self) -> None:
        """There is no other: the client gets the last one after all."""
        self.attempts = self.attempts[:-1]

    def answer_goes_to(self, receiver: ResponseReceiver) -> None:
        """Another receiver hears the rest of the upstream's answer."""
        if self.call is not None and not self.call.is_over:
            self.call.receiver = receiver if self.dumped is None else self.dumped.before(receiver)

    # -- the upstream's answer, for the relay ------------------------------------------------------------------------

    def upstream_answered(self, status: int) -> None:
        """The head of an answer is there that will not be asked for again."""
        if self.breaker_pass is not None:
            self.breaker_pass.answered(status)

    def upstream_failed(self, reason: str) -> None:
        """The upstream failed without an answer, or inside it, which is nothing new to who judges by its head."""
        if self.breaker_pass is not None:
            self.breaker_pass.unanswered(reason)

    def answer_begins(
        self, status: int, headers: Headers, is_stream: bool, is_plain: bool, request_id: str, length_bytes: int | None
    ) -> Callable[[bytes], None] | None:
        """The answer's head goes to the client: the request's body is not needed any more.

        What takes a copy of the answer's body, if anything does. The rest as `response_lines` says it.
        """
        self.status = status
        if self.breaker_pass is not None:
            self.breaker_pass.answered(status)
        if self.fallback is not None:
            self.fallback.answered()
        now_seconds = self.bridge.now()
        self.first_byte_seconds = now_seconds - self.started_seconds
        if self.resolution is not None:
            self.bridge.metrics.upstream_answered(self.resolution.provider_type, status)
        if self.trace is not None:
            self.trace.answer_begins(status)
        if self.reserved_bytes:
            ending.release(self)
        self.early = []
        recording = self.recording
        if recording is None:
            return None
        return recording.answer_begins(status, headers, is_stream, is_plain, request_id, length_bytes)

    def tap_failed(self) -> None:
        """What took a copy of the answer's body raised."""
        if self.recording is not None:
            self.recording.tap_failed()

    def answer_ends(self) -> None:
        """The client has the whole answer."""
        ending.end(self)

    # -- the end ----------------------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """A step did not get through: a refusal is told to the client, anything else is a bug and told as INTERNAL.

        No step raises into whoever called back, so each has its `try`: a decorator would cost a call for each.
        """
        if not isinstance(error, Refused):
            log.error("unhandled error", exc_info=error, extra={"interception_id": self.interception_id})
            error = Refused("INTERNAL", "the bridge failed: the operator finds more in its log")
        self.refuse(error)

    def obey(self, revision: int, taken: Taken) -> None:
        """Administrators have changed something: end this, or decide it anew, where it contradicts that."""
        obeying.obey(self, revision, taken)

    def stop(self, refused: Refused) -> None:
        """End it because the bridge stops."""
        self.stopped = True
        self.refuse(refused)

    def refuse(self, refused: Refused) -> None:
        """Tell the client, in the way that is left: a whole answer, the end of a stream, or a broken connection."""
        if self.is_over:
            return
        if self.fallback is not None and self.fallback.takes(refused):
            return
        self.error, self.limit = refused.reason, refused.limit
        ending.tell(self, refused)
        ending.end(self)
