"""One request, start to end: whose it is, what credentiald says, the upstream's answer as it comes.

An Interception stands between two callback sides: it is the carrier behind an exchange with the client (http1/exchange)
and gives the upstream's answer a relay (answer_relay.py). No task and no future of its own; each step is called when
what it needs is there:

    begin → (body_whole) → resolved → answer_begins … → answer_ends

Until the first byte of an answer is out, anything that goes wrong is a refusal in the shape of the route's API. After
that an event stream is ended with the API's error event, and any other body by breaking the connection: nothing that
was cut ever looks whole. Whatever happens, `_end` is reached exactly once.
"""

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from bridged import attempt
from bridged.answer_relay import AnswerRelay
from bridged.answer_to_asking import AnswerToAsking
from bridged.breaking import BreakerPass
from bridged.client_token import ClientCredentials, find_client_token
from bridged.dialects import request_facts, stream_ending
from bridged.dialects.facts import NO_FACTS
from bridged.endings import CLIENT_GONE
from bridged.error_answer import error_answer
from bridged.failover import Failover
from bridged.fallback import Fallback
from bridged.http1.answer_framing import Framing
from bridged.http1.exchange import Exchange
from bridged.http1.upstream import ResponseReceiver, UpstreamCall
from bridged.http_types import BodyBroken, BodyTimeout, BodyTooLarge
from bridged.ids import new_id
from bridged.limits.admission import Slot
from bridged.model import DialectName, Headers, Refused, RequestFacts, Resolution
from bridged.paths import Target
from bridged.recording import Recording
from bridged.records import Attempt
from bridged.resolver import Callback, Question
from bridged.routes import RouteMatch
from bridged.watch import Taken

if TYPE_CHECKING:
    from bridged.bridge import Bridge

log = logging.getLogger(__name__)

# Looking a member up costs as much as a call.
_COUNTED, _NO_BODY = Framing.LENGTH, Framing.NONE
_UNKNOWN_DIALECT = DialectName.OPENAI_CHAT
# So often one request is asked about while administrators change one thing after the other.
_MOST_QUESTIONS = 16
BodyError = BodyTooLarge | BodyBroken | BodyTimeout


class Interception:
    """One client request through the bridge. Attributes without an underscore are for the record and the log line.

    `recording` gathers what is recorded, None where nothing is. `stopped`: the bridge ended it because it stops.
    `limit`: which limit refused it, empty where none did.
    """

    __slots__ = (
        "_asked_count", "_body_ended", "_breaker_pass", "_bridge", "_call", "_early", "_exchange", "_failover",
        "_fallback", "_is_turn_kept", "_over", "_paused", "_question", "_relay", "_reserved_bytes", "_slot",
        "_streamed", "attempts", "client", "dialect", "error", "facts", "first_byte_seconds", "interception_id",
        "is_stream", "limit", "match", "provider", "received_bytes", "recording", "resolution", "sent_bytes",
        "started_seconds", "status", "stopped", "trace",
    )  # fmt: skip

    def __init__(self, bridge: "Bridge", exchange: Exchange) -> None:
        self._bridge = bridge
        self._exchange = exchange
        self.client: ClientCredentials | None = None
        # The question to credentiald while it is under way, then the call to the upstream.
        self._question: Any = None
        self._call: UpstreamCall | None = None
        # None where no other provider may be asked.
        self._fallback: Fallback | None = None
        # None where there are no breakers.
        self._breaker_pass: BreakerPass | None = None
        # A streamed body that came before there was a call to give it to; the client is paused, so it stays small.
        # The body of a route that reads it is here until the answer begins: it may have to be sent again.
        self._early: list[bytes] = []
        self._asked_count = 0
        self._is_turn_kept = False
        self._reserved_bytes = 0
        # Its place among those under way, where there are limits.
        self._slot: Slot | None = None
        self._streamed = False
        self._body_ended = False
        self._paused = False
        self._over = False
        self._relay: AnswerRelay | None = None
        self._failover: Failover | None = None
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
        bridge, request = self._bridge, self._exchange.request
        try:
            bridge.check_open()
            target, match = bridge.place(request)
            self.provider = target.provider
            if match is None:
                self._answer_probe()
                return
            self.match, self.dialect = match, match.dialect
            self._begin_body(target, match)
        except Exception as failure:
            self.fail(failure)

    def _begin_body(self, target: Target, match: RouteMatch) -> None:
        exchange, limit_bytes = self._exchange, self._bridge.max_body_bytes
        request = exchange.request
        self.client = client = find_client_token(request.headers, target.query)
        if client.token is None:
            raise Refused(
                "ACCESS_TOKEN_MISSING",
                "the request carries no access token: send the token an administrator made for you, "
                "for example as 'Authorization: Bearer dbu_…' or as the API key of the SDK",
            )
        if (request.content_length or 0) > limit_bytes:
            raise self._refused_body(BodyTooLarge())
        entrance = self._bridge.entrance
        if entrance is not None:
            self._slot = entrance.enter(client.token, target.provider)
        if match.reads_body:
            # Held until the upstream has begun to answer: it may have to be sent again.
            self._reserved_bytes = self._bridge.reserve(limit_bytes if request.chunked else request.content_length or 0)
            exchange.read_whole(limit_bytes)
            return
        self._streamed = request.has_body
        self.facts = request_facts(match, request.headers, None)
        exchange.read_stream(limit_bytes)
        exchange.pause_body()
        self._ask(match, client)

    def body_whole(self, data: bytes) -> None:
        """The body of a route that reads it: read the few fields that are needed, ask."""
        try:
            match, client = self.match, self.client
            if match is None or client is None or self._over:
                return
            self.received_bytes = len(data)
            self.facts = request_facts(match, self._exchange.request.headers, data)
            self._early = [data]
            self._ask(match, client)
        except Exception as failure:
            self.fail(failure)

    def body_part(self, data: bytes) -> None:
        """Some of a streamed body."""
        try:
            self.received_bytes += len(data)
            if self._call is not None:
                self._call.send_body(data)
            elif not self._over:
                self._early.append(data)
        except Exception as failure:
            self.fail(failure)

    def body_end(self) -> None:
        """The streamed body is complete."""
        try:
            self._body_ended = True
            if self._call is not None and self._streamed:
                self._call.end_body()
        except Exception as failure:
            self.fail(failure)

    def body_failed(self, error: BodyError) -> None:
        """The body does not come to its end."""
        try:
            self.refuse(self._refused_body(error))
        except Exception as failure:
            self.fail(failure)

    def client_gone(self) -> None:
        """The client left: so does the request to the upstream."""
        if not self._over:
            self.error = CLIENT_GONE
            self._end()

    def pause(self) -> None:
        """The client reads slowly."""
        try:
            self._paused = True
            if self._call is not None:
                self._call.pause()
        except Exception as failure:
            self.fail(failure)

    def resume(self) -> None:
        """The client reads again."""
        try:
            self._paused = False
            if self._call is not None:
                self._call.resume()
        except Exception as failure:
            self.fail(failure)

    # -- credentiald's answer ---------------------------------------------------------------------------------------

    def _ask(self, match: RouteMatch, client: ClientCredentials) -> None:
        bridge = self._bridge
        if not self._asked_count:
            self.recording = bridge.recording_of(self.interception_id, match, self._exchange.request)
        untold = bridge.outcomes.resting(self.provider, bridge.now()) if bridge.outcomes.untold else ()
        self._submit(match, client, untold, self.resolved, to=self.provider)

    def _submit(
        self, match: RouteMatch, client: ClientCredentials, refused_ids: Collection[str], answered: Callback, *, to: str
    ) -> None:
        if client.token is None:
            raise Refused("ACCESS_TOKEN_MISSING", "the request carries no access token")
        if self._asked_count >= _MOST_QUESTIONS:
            raise Refused("CREDENTIALD_UNREACHABLE", "what is configured changes all the time: try again")
        self._asked_count += 1
        recording = self.recording
        question = Question(
            provider=to,
            access_token=client.token,
            operation=match.operation,
            model=self.facts.model,
            presented_key=client.presented is not None,
            interception_id=self.interception_id,
            client=recording.client if recording is not None else "",
            trace_parent="" if self.trace is None else self.trace.asks(),
            failed_credential_ids=refused_ids,
        )
        self._question = self._bridge.resolver.submit(question, answered)

    def resolved(self, answer: Resolution | Refused) -> None:
        """The decision is there: send the request, or refuse."""
        try:
            match, client = self.match, self.client
            if self._over or match is None or client is None:
                return
            self._question = None
            if self.trace is not None:
                self.trace.resolved(answer)
            if isinstance(answer, Refused):
                self._bridge.metrics.resolved(answer.reason)
                if answer.fallback_provider or self._fallback is not None:
                    self._may_fall_back(match, client, answer.fallback_provider, self._take_body(match))
                # Not raised: one refusal may be told to many, and would keep the frames of all of them, tokens and all.
                self.refuse(self._bridge.with_known_wait(self.provider, answer))
                return
            self.resolution = answer
            if answer.revision < self._bridge.resolver.obeyed_revision:
                # It was on its way while an administrator changed something.
                self._ask_anew(match, client)
                return
            self._bridge.metrics.resolved("OK")
            body = self._take_body(match)
            if answer.fallback_provider or self._fallback is not None:
                self._may_fall_back(match, client, answer.fallback_provider, body)
            self._send(match, client, answer, body)
            if self._streamed and self._call is not None:
                self._send_early(self._call)
        except Exception as failure:
            self.fail(failure)

    def _take_body(self, match: RouteMatch) -> bytes | None:
        """The body that was read, None where it is streamed."""
        if not match.reads_body:
            return None
        body = self._early[0]
        self._keep_turn(body)
        return body

    def _send(self, match: RouteMatch, client: ClientCredentials, resolution: Resolution, body: bytes | None) -> None:
        """Send the request to the upstream for the first time, or to that of the fallback provider."""
        bridge = self._bridge
        self._leave_pool()
        self._give_pass_back()
        if self._slot is not None and bridge.entrance is not None:
            bridge.entrance.resolved(self._slot, resolution)
        if bridge.breaking is not None:
            self._breaker_pass = bridge.breaking.admit(resolution, match.operation, self.facts.model)
        relay = self._relay
        if relay is None:
            relay = self._relay = AnswerRelay(self, bridge, self._exchange)
        failover: Failover | None = None
        if resolution.pool_size > 1:
            failover = Failover(self, bridge, resolution, body, can_send_again=not self._streamed)
            self._failover = failover
        request = self._exchange.request
        call = self._call = attempt.begin(
            self, bridge, request, match, client, resolution, body, relay, failover, self._fallback
        )
        if self._paused:
            call.pause()

    # -- another provider -------------------------------------------------------------------------------------------

    def _may_fall_back(self, match: RouteMatch, client: ClientCredentials, provider: str, body: bytes | None) -> None:
        """From now on a failure of the upstream may be followed by this provider, once; for turns of conversations."""
        if self._fallback is not None and self._fallback.is_over:
            return
        # A key that the request presents is for the provider that it was presented to.
        may = provider and match.intercepted and not self._streamed and client.presented is None
        self._fallback = Fallback(self, self._bridge, provider, body) if may else None

    def ask_fallback(self, fallback: Fallback) -> None:
        """The upstream failed: ask credentiald for the fallback provider."""
        try:
            match, client, bridge = self.match, self.client, self._bridge
            if self._over or match is None or client is None:
                return
            if self._call is not None:
                self._call.cancel()
                self._call = None
            self._give_pass_back()
            untold = bridge.outcomes.resting(fallback.provider, bridge.now())
            self._submit(match, client, untold, self._resolved_fallback, to=fallback.provider)
        except Exception as failure:
            self.fail(failure)

    def _resolved_fallback(self, answer: Resolution | Refused) -> None:
        """The decision about the fallback provider is there: the request goes there, or what there was first counts."""
        try:
            match, client, fallback = self.match, self.client, self._fallback
            if self._over or match is None or client is None or fallback is None:
                return
            self._question = None
            if self.trace is not None:
                self.trace.resolved(answer)
            taken = False
            if isinstance(answer, Resolution) and answer.revision < self._bridge.resolver.obeyed_revision:
                self._bridge.metrics.asked_again()
                self.ask_fallback(fallback)
                return
            if isinstance(answer, Refused):
                self._bridge.metrics.resolved(answer.reason)
            else:
                self._bridge.metrics.resolved("OK")
                taken = self._falls_back(match, client, answer, fallback)
            self._bridge.metrics.fell_back(taken=taken)
            if not taken:
                fallback.give_up()
        except Exception as failure:
            self.fail(failure)

    def _falls_back(
        self, match: RouteMatch, client: ClientCredentials, resolution: Resolution, fallback: Fallback
    ) -> bool:
        """Whether the request is on its way to the fallback provider's upstream."""
        first, first_failover = self.provider, self._failover
        self.provider, self.resolution, self._failover = resolution.provider_name, resolution, None
        if self._relay is not None:
            self._relay.usage_filter = None
        try:
            self._send(match, client, resolution, fallback.body)
        except Refused as refused:
            log.info(
                "the fallback provider cannot be used",
                extra={"interception_id": self.interception_id, "provider": self.provider, "reason": refused.reason},
            )
            self._leave_pool()
            self._give_pass_back()
            self.provider, self._failover = first, first_failover
            # Where the first provider was refused this is the only one, and credentiald has opened the interception.
            self.resolution = fallback.resolution or resolution
            return False
        if first_failover is not None:
            first_failover.over()
        fallback.over()
        return True

    def _leave_pool(self) -> None:
        """No other key is asked for from now on."""
        if self._failover is not None:
            self._failover.over()
            self._failover = None

    def _give_pass_back(self) -> None:
        """Nothing more will be known of the upstream than the breaker has heard."""
        if self._breaker_pass is not None:
            self._breaker_pass.give_back()
            self._breaker_pass = None

    def obey(self, revision: int, taken: Taken) -> None:
        """Administrators have changed something: end this, or decide it anew, where it contradicts that.

        What was decided at `revision` or later is not concerned. What was sent goes on unless it runs on what was
        taken away.
        """
        try:
            match, client, resolution, call = self.match, self.client, self.resolution, self._call
            if self._over or match is None or client is None or resolution is None or resolution.revision >= revision:
                return
            if not taken.concerns(resolution):
                return
            if call is not None and call.is_waiting:
                pieces = call.take_back()
                if not match.reads_body:
                    self._early = pieces
                self._ask_anew(match, client)
                return
            if self._question is not None:
                # About another key, or another provider: what runs is this question, and its answer says it.
                return
            refused = taken.why(resolution)
            if refused is None:
                if call is not None:
                    call.is_final = True
            else:
                self._bridge.metrics.revoked(refused.reason)
                self.refuse(refused)
        except Exception as failure:
            self.fail(failure)

    def _ask_anew(self, match: RouteMatch, client: ClientCredentials) -> None:
        """What was decided counts no more: ask from the beginning."""
        self._bridge.metrics.asked_again()
        self._leave_pool()
        self._give_pass_back()
        self._call = self._relay = None
        self._ask(match, client)

    def _keep_turn(self, body: bytes) -> None:
        """Have read what the request says of its conversation; it is held no longer than that takes."""
        if self.recording is not None and not self._is_turn_kept:
            self._is_turn_kept = True
            self._bridge.read_turn(self.recording, self.facts.conversation, body)
            self.facts.conversation = None

    def send_again(self, body: bytes, receiver: AnswerToAsking) -> None:
        """The upstream would not be asked for usage: send the request as the client made it."""
        try:
            match, client, resolution, relay = self.match, self.client, self.resolution, self._relay
            if self._over or match is None or client is None or resolution is None or relay is None:
                return
            relay.usage_filter = None
            if resolution.revision < self._bridge.resolver.obeyed_revision:
                self._ask_anew(match, client)
                return
            request = self._exchange.request
            call = self._call = attempt.again(
                self, self._bridge, request, match, client, resolution, body, receiver, self._failover, self._fallback
            )
            if self._paused:
                call.pause()
        except Exception as failure:
            self.fail(failure)

    def held_back(self, told: Attempt) -> None:
        """The client does not get this answer, and there is going to be another."""
        self.attempts = (*self.attempts, told)
        if self.trace is not None:
            self.trace.answer_held_back(told.http_status, told.reason)

    def is_not_held_back(self) -> None:
        """There is no other: the client gets the last one after all."""
        self.attempts = self.attempts[:-1]

    def ask_again(self) -> None:
        """The upstream refused the key: ask credentiald for another one."""
        try:
            match, client, failover = self.match, self.client, self._failover
            if self._over or match is None or client is None or failover is None:
                return
            self._call = None
            bridge = self._bridge
            untold = bridge.outcomes.resting(self.provider, bridge.now())
            refused_ids = dict.fromkeys((*failover.refused_ids, *untold))
            self._submit(match, client, refused_ids, self._resolved_again, to=self.provider)
        except Exception as failure:
            self.fail(failure)

    def _resolved_again(self, answer: Resolution | Refused) -> None:
        """The decision about another key is there: what it says now is what counts."""
        try:
            match, client, relay, failover = self.match, self.client, self._relay, self._failover
            if self._over or match is None or client is None or relay is None or failover is None:
                return
            self._question = None
            if self.trace is not None:
                self.trace.resolved(answer)
            if isinstance(answer, Refused):
                self._bridge.metrics.resolved(answer.reason)
                failover.refused(answer)
                return
            if answer.revision < self._bridge.resolver.obeyed_revision:
                self._bridge.metrics.asked_again()
                self.ask_again()
                return
            self._bridge.metrics.resolved("OK")
            if not failover.goes_again(answer):
                return
            self.resolution = answer
            body, replay = failover.body, failover.replay
            if answer.pool_size <= 1:
                # The policy or the pool is another one now.
                failover.over()
                self._failover = None
            relay.usage_filter = None
            request = self._exchange.request
            if replay is not None and body is not None:
                call = attempt.again(
                    self, self._bridge, request, match, client, answer, body, replay, self._failover, self._fallback
                )
            else:
                call = attempt.begin(
                    self, self._bridge, request, match, client, answer, body, relay, self._failover, self._fallback
                )
            self._call = call
            if self._paused:
                call.pause()
        except Exception as failure:
            self.fail(failure)

    def answer_goes_to(self, receiver: ResponseReceiver) -> None:
        """Another receiver hears the rest of the upstream's answer."""
        if self._call is not None and not self._call.is_over:
            self._call.receiver = receiver

    def _resolved_late(self, answer: Resolution) -> None:
        """credentiald had opened the interception when the client left."""
        self.resolution = answer
        self._bridge.record(self)

    def _send_early(self, call: UpstreamCall) -> None:
        early, self._early = self._early, []
        for data in early:
            call.send_body(data)
        # The rest is let come by the call, which knows when there is a connection that takes it.
        if self._body_ended:
            call.end_body()

    # -- the upstream's answer, for the relay ------------------------------------------------------------------------

    def upstream_answered(self, status: int) -> None:
        """The head of an answer is there that will not be asked for again."""
        if self._breaker_pass is not None:
            self._breaker_pass.answered(status)

    def upstream_failed(self, reason: str) -> None:
        """The upstream failed without an answer, or inside it, which is nothing new to who judges by its head."""
        if self._breaker_pass is not None:
            self._breaker_pass.unanswered(reason)

    def answer_begins(self, status: int, headers: Headers, *, is_stream: bool) -> Callable[[bytes], None] | None:
        """The answer's head goes to the client: the request's body is not needed any more.

        What takes a copy of the answer's body, if anything does.
        """
        self.status = status
        self.upstream_answered(status)
        if self._fallback is not None:
            self._fallback.answered()
        now_seconds = self._bridge.now()
        self.first_byte_seconds = now_seconds - self.started_seconds
        if self.resolution is not None:
            self._bridge.metrics.upstream_answered(self.resolution.provider_type, status)
        if self.trace is not None:
            self.trace.answer_begins(status)
        self._release()
        self._early = []
        recording = self.recording
        if recording is None:
            return None
        return recording.answer_begins(status, headers, is_stream=is_stream)

    def tap_failed(self) -> None:
        """What took a copy of the answer's body raised."""
        if self.recording is not None:
            self.recording.tap_failed()

    def answer_ends(self) -> None:
        """The client has the whole answer."""
        self._end()

    # -- the end ----------------------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """A step did not get through: a refusal is told to the client, anything else is a bug and told as INTERNAL.

        No step raises into whoever called back, so each has its `try`: a decorator would cost a call for each.
        """
        if not isinstance(error, Refused):
            log.error("unhandled error", exc_info=error, extra={"interception_id": self.interception_id})
            error = Refused("INTERNAL", "the bridge failed: the operator finds more in its log")
        self.refuse(error)

    def stop(self, refused: Refused) -> None:
        """End it because the bridge stops."""
        self.stopped = True
        self.refuse(refused)

    def refuse(self, refused: Refused) -> None:
        """Tell the client, in the way that is left: a whole answer, the end of a stream, or a broken connection."""
        if self._over:
            return
        exchange, fallback = self._exchange, self._fallback
        if fallback is not None and fallback.takes(refused):
            return
        self.error, self.limit = refused.reason, refused.limit
        try:
            if not exchange.head_sent:
                if self.match is None:
                    self.dialect = self._bridge.dialect_of(exchange.request)
                answer = error_answer(refused, self.dialect, self.interception_id)
                self.status = answer.status
                headers = (*answer.headers, self._bridge.date())
                exchange.send_head(answer.status, headers, body=_COUNTED, length_bytes=len(answer.body))
                exchange.send(answer.body)
                exchange.finish()
            elif self._relay is not None and self._relay.stream_end is not None:
                self._relay.send_held()
                exchange.send(stream_ending(self.dialect, self._relay.stream_end, refused, self.interception_id))
                exchange.finish()
            else:
                self.status = None
                exchange.abort()
        except Exception:
            log.exception("a refusal could not be told", extra={"interception_id": self.interception_id})
            self.status = None
            exchange.abort()
        self._end()

    def _end(self) -> None:
        """Let go of both sides, count, log."""
        if self._over:
            return
        self._over = True
        if self._question is not None:
            # Another question's answer would say of which key nothing came.
            is_first = self.recording is not None and self.resolution is None
            self._question.cancel(self._resolved_late if is_first else None)
            self._question = None
            if self._early and self.match is not None and self.match.reads_body:
                self._keep_turn(self._early[0])
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._leave_pool()
        self._give_pass_back()
        if self._fallback is not None:
            self._fallback.over()
            self._fallback = None
        if self._relay is not None:
            self.sent_bytes, self.is_stream = self._relay.sent_bytes, self._relay.stream_end is not None
            # Each holds the other: together they would be a circle that only the collector could break.
            self._relay = None
        if self.error == CLIENT_GONE and self.recording is not None and not self._paused:
            # SDKs and agents leave at an answer's last event, and do not wait for the end of the HTTP answer.
            self.error = "" if self.recording.answer(whole=False).over else self.error
        self._early = []
        self._release()
        if self._slot is not None and self._bridge.entrance is not None:
            self._bridge.entrance.leave(self._slot)
            self._slot = None
        self._bridge.ended(self)

    def _release(self) -> None:
        self._bridge.release(self._reserved_bytes)
        self._reserved_bytes = 0

    def _answer_probe(self) -> None:
        """Claude Code asks with HEAD whether there is anybody; nobody else needs to be asked for that."""
        self.status = 200
        headers = (("X-Interception-Id", self.interception_id), ("Content-Length", "0"), self._bridge.date())
        self._exchange.send_head(200, headers, body=_NO_BODY)
        self._exchange.finish()
        self._end()

    def _refused_body(self, error: BodyError) -> Refused:
        if isinstance(error, BodyTooLarge):
            limit_bytes = self._bridge.max_body_bytes
            return Refused("BODY_TOO_LARGE", f"the body is over the limit of {limit_bytes} bytes: send less")
        if isinstance(error, BodyTimeout):
            return Refused("REQUEST_TIMEOUT", "the body stopped arriving: send it again, faster")
        return Refused("INVALID_REQUEST", "the body is not well-formed HTTP, or shorter than its Content-Length")
