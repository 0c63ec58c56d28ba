"""Whether and how a request goes to its upstream: credentiald is asked, and what it says is done."""

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from bridged import attempt
from bridged.answer_relay import AnswerRelay
from bridged.carrying import ending
from bridged.client_token import ClientCredentials
from bridged.failover import Failover
from bridged.fallback import Fallback
from bridged.http1.upstream import UpstreamCall
from bridged.model import Refused, Resolution
from bridged.resolver import Callback, Question
from bridged.routes import RouteMatch

if TYPE_CHECKING:
    from bridged.interception import Interception

# So often one request is asked about while administrators change one thing after the other.
_MOST_QUESTIONS = 16


def ask(interception: "Interception", match: RouteMatch, client: ClientCredentials) -> None:
    """Ask credentiald about the request and the provider that it names."""
    bridge, provider = interception.bridge, interception.provider
    if not interception.asked_count:
        request = interception.exchange.request
        interception.recording = bridge.reporting.recording_of(interception.interception_id, match, request)
    untold = bridge.outcomes.resting(provider, bridge.now()) if bridge.outcomes.untold else ()
    submit(interception, match, client, untold, partial(_decided, interception), to=provider)


def submit(
    interception: "Interception",
    match: RouteMatch,
    client: ClientCredentials,
    refused_ids: Collection[str],
    answered: Callback,
    *,
    to: str,
) -> None:
    """Put one question to credentiald, about this provider and no key of these."""
    if client.token is None:
        raise Refused("ACCESS_TOKEN_MISSING", "the request carries no access token")
    if interception.asked_count >= _MOST_QUESTIONS:
        raise Refused("CREDENTIALD_UNREACHABLE", "what is configured changes all the time: try again")
    interception.asked_count += 1
    recording, trace = interception.recording, interception.trace
    question = Question(
        to,
        client.token,
        match.operation,
        interception.facts.model,
        client.presented is not None,
        interception.interception_id,
        recording.client if recording is not None else "",
        "" if trace is None else trace.asks(),
        refused_ids,
    )
    interception.question = interception.bridge.resolver.submit(question, answered)


def _decided(interception: "Interception", answer: Resolution | Refused) -> None:
    """The decision is there: send the request, or refuse."""
    try:
        match, client, bridge = interception.match, interception.client, interception.bridge
        if interception.is_over or match is None or client is None:
            return
        interception.question = None
        if interception.trace is not None:
            interception.trace.resolved(answer)
        if isinstance(answer, Refused):
            bridge.metrics.resolved(answer.reason)
            if answer.fallback_provider or interception.fallback is not None:
                body = _take_body(interception, match)
                _may_fall_back(interception, match, client, answer.fallback_provider, body)
            # Not raised: one refusal may be told to many, and would keep the frames of all of them, tokens and all.
            interception.refuse(bridge.with_known_wait(interception.provider, answer))
            return
        interception.resolution = answer
        if answer.revision < bridge.resolver.obeyed_revision:
            # It was on its way while an administrator changed something.
            ask_anew(interception, match, client)
            return
        bridge.metrics.resolved("OK")
        body = _take_body(interception, match)
        if answer.fallback_provider or interception.fallback is not None:
            _may_fall_back(interception, match, client, answer.fallback_provider, body)
        send(interception, match, client, answer, body)
        if interception.is_streamed and interception.call is not None:
            _send_early(interception, interception.call)
    except Exception as failure:
        interception.fail(failure)


def _may_fall_back(
    interception: "Interception", match: RouteMatch, client: ClientCredentials, provider: str, body: bytes | None
) -> None:
    """From now on a failure of the upstream may be followed by this provider, once; for turns of conversations."""
    if interception.fallback is not None and interception.fallback.is_over:
        return
    # A key that the request presents is for the provider that it was presented to.
    may = provider and match.intercepted and not interception.is_streamed and client.presented is None
    interception.fallback = Fallback(interception, interception.bridge, provider, body) if may else None


def ask_anew(interception: "Interception", match: RouteMatch, client: ClientCredentials) -> None:
    """What was decided counts no more: ask from the beginning."""
    interception.bridge.metrics.asked_again()
    ending.leave_pool(interception)
    ending.give_pass_back(interception)
    interception.call = interception.relay = None
    ask(interception, match, client)


def send(
    interception: "Interception",
    match: RouteMatch,
    client: ClientCredentials,
    resolution: Resolution,
    body: bytes | None,
) -> None:
    """Send the request to the upstream for the first time, or to that of the fallback provider."""
    bridge = interception.bridge
    if interception.failover is not None:
        ending.leave_pool(interception)
    if interception.breaker_pass is not None:
        ending.give_pass_back(interception)
    if interception.slot is not None and bridge.entrance is not None:
        bridge.entrance.resolved(interception.slot, resolution)
    if bridge.breaking is not None:
        interception.breaker_pass = bridge.breaking.admit(resolution, match.operation, interception.facts.model)
    relay = interception.relay
    if relay is None:
        relay = interception.relay = AnswerRelay(interception, bridge, interception.exchange)
    failover: Failover | None = None
    if resolution.pool_size > 1:
        failover = Failover(interception, bridge, resolution, body, can_send_again=not interception.is_streamed)
        interception.failover = failover
    request = interception.exchange.request
    call = interception.call = attempt.begin(
        interception, bridge, request, match, client, resolution, body, relay, failover, interception.fallback
    )
    if interception.is_paused:
        call.pause()


def _take_body(interception: "Interception", match: RouteMatch) -> bytes | None:
    """The body that was read, None where it is streamed."""
    if not match.reads_body:
        return None
    body = interception.early[0]
    if interception.recording is not None:
        ending.keep_turn(interception, body)
    return body


def _send_early(interception: "Interception", call: UpstreamCall) -> None:
    early, interception.early = interception.early, []
    for data in early:
        call.send_body(data)
        if interception.dumped is not None:
            interception.dumped.request_data(data)
    # The rest is let come by the call, which knows when there is a connection that takes it.
    if interception.has_body_ended:
        call.end_body()
        if interception.dumped is not None:
            interception.dumped.request_end()
