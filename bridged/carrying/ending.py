"""A request ends: the client is told, both sides are let go of, what was reserved is given back."""

import logging
from typing import TYPE_CHECKING

from bridged.dialects import stream_ending
from bridged.endings import CLIENT_GONE
from bridged.error_answer import error_answer
from bridged.http1.answer_framing import Framing
from bridged.model import Refused, Resolution

if TYPE_CHECKING:
    from bridged.interception import Interception

log = logging.getLogger(__name__)

# Looking a member up costs as much as a call.
_COUNTED = Framing.LENGTH


def tell(interception: "Interception", refused: Refused) -> None:
    """Tell the client, in the way that is left: a whole answer, the end of a stream, or a broken connection."""
    exchange, interception_id = interception.exchange, interception.interception_id
    try:
        relay = interception.relay
        if not exchange.head_sent:
            if interception.match is None:
                interception.dialect = interception.bridge.dialect_of(exchange.request)
            answer = error_answer(refused, interception.dialect, interception_id)
            interception.status = answer.status
            headers = (*answer.headers, interception.bridge.date())
            exchange.send_head(answer.status, headers, body=_COUNTED, length_bytes=len(answer.body))
            exchange.send(answer.body)
            exchange.finish()
        elif relay is not None and relay.stream_end is not None:
            relay.send_held()
            exchange.send(stream_ending(interception.dialect, relay.stream_end, refused, interception_id))
            exchange.finish()
        else:
            interception.status = None
            exchange.abort()
    except Exception:
        log.exception("a refusal could not be told", extra={"interception_id": interception_id})
        interception.status = None
        exchange.abort()


def end(interception: "Interception") -> None:
    """Let go of both sides, count, log. Once; whatever comes later does nothing."""
    if interception.is_over:
        return
    interception.is_over = True
    bridge, recording = interception.bridge, interception.recording
    if interception.question is not None:
        _let_go_of_question(interception)
    if interception.call is not None:
        interception.call.cancel()
        interception.call = None
    if interception.dumped is not None:
        interception.dumped.over(interception.error or "the request ended")
        interception.dumped = None
    if interception.failover is not None:
        leave_pool(interception)
    if interception.breaker_pass is not None:
        give_pass_back(interception)
    if interception.fallback is not None:
        interception.fallback.over()
        interception.fallback = None
    relay = interception.relay
    if relay is not None:
        relay.show_rest()
        interception.sent_bytes, interception.is_stream = relay.sent_bytes, relay.stream_end is not None
        # Each holds the other: together they would be a circle that only the collector could break.
        interception.relay = None
    if interception.error == CLIENT_GONE and recording is not None and not interception.is_paused:
        # SDKs and agents leave at an answer's last event, and do not wait for the end of the HTTP answer.
        interception.error = "" if recording.answer(whole=False).over else interception.error
    interception.early = []
    if interception.reserved_bytes:
        release(interception)
    if interception.slot is not None and bridge.entrance is not None:
        bridge.entrance.leave(interception.slot)
        interception.slot = None
    bridge.ended(interception)


def _let_go_of_question(interception: "Interception") -> None:
    def resolved_late(answer: Resolution) -> None:
        # credentiald had opened the interception when the client left.
        bridge, interception.resolution = interception.bridge, answer
        bridge.reporting.record(interception, bridge.now())

    # Another question's answer would say of which key nothing came.
    is_first = interception.recording is not None and interception.resolution is None
    interception.question.cancel(resolved_late if is_first else None)
    interception.question = None
    if interception.early and interception.match is not None and interception.match.reads_body:
        keep_turn(interception, interception.early[0])


def keep_turn(interception: "Interception", body: bytes) -> None:
    """Read what the request says of its conversation, or have it read: it is held no longer than that takes."""
    recording = interception.recording
    if recording is not None and not interception.is_turn_kept:
        interception.is_turn_kept = True
        conversation, interception.facts.conversation = interception.facts.conversation, None
        if not recording.takes_turn(conversation):
            interception.bridge.reporting.read_turn(recording, conversation, body)


def leave_pool(interception: "Interception") -> None:
    """No other key is asked for from now on."""
    if interception.failover is not None:
        interception.failover.over()
        interception.failover = None


def give_pass_back(interception: "Interception") -> None:
    """Nothing more will be known of the upstream than the breaker has heard."""
    if interception.breaker_pass is not None:
        interception.breaker_pass.give_back()
        interception.breaker_pass = None


def release(interception: "Interception") -> None:
    """The request's body is not held any more."""
    interception.bridge.release(interception.reserved_bytes)
    interception.reserved_bytes = 0
