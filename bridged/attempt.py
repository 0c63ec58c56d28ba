"""One sending of a request to an upstream: what leaves, through which receivers its answer comes back.

An interception does this once, and again where an answer was held back and the request may be sent another time; so
nothing here remembers anything. Who decides whether there is another time are the receivers: failover.py where the key
is one of several, answer_to_asking.py where the bridge asked for usage.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bridged.adapters.bedrock import WIRE_TYPE as BEDROCK
from bridged.answer_relay import AnswerRelay
from bridged.answer_to_asking import AnswerToAsking
from bridged.answer_translator import AnswerTranslator
from bridged.client_token import ClientCredentials
from bridged.failover import Failover
from bridged.fallback import Fallback
from bridged.http1.framing import Request
from bridged.http1.request_head import OutgoingRequest
from bridged.http1.upstream import ResponseReceiver, UpstreamCall
from bridged.model import DialectName, Resolution
from bridged.outgoing import outgoing_request, outgoing_to_bedrock
from bridged.routes import RouteMatch
from bridged.taps.usage_chunk import UsageChunkFilter, asking_for_usage
from bridged.trace_headers import clients_trace_headers

if TYPE_CHECKING:
    from bridged.bridge import Bridge
    from bridged.interception import Interception

_CHAT = DialectName.OPENAI_CHAT


def begin(
    interception: "Interception",
    bridge: "Bridge",
    request: Request,
    match: RouteMatch,
    client: ClientCredentials,
    resolution: Resolution,
    body: bytes | None,
    relay: AnswerRelay,
    failover: Failover | None,
    fallback: Fallback | None,
) -> UpstreamCall:
    """Send the request as `resolution` says, with the edits that the bridge makes. `body` None: it is streamed.

    `failover` is there where the key is one of several, `fallback` where there is another provider.

    The refusals of `outgoing`.
    """
    receiver: ResponseReceiver = relay
    if resolution.wire_type == BEDROCK:
        outgoing, answer = outgoing_to_bedrock(
            request,
            match,
            client,
            resolution,
            body or b"",
            model=interception.facts.model,
            now=datetime.now(UTC),
            signing_keys=bridge.keys_for_signing(),
        )
        if answer is not None:
            receiver = AnswerTranslator(interception, relay, answer, bridge.metrics)
    else:
        sent = body
        if body is not None and match.dialect is _CHAT and interception.facts.stream:
            asking = _asking_for_usage(interception, bridge, resolution, body)
            if asking is not None:
                sent, receiver = asking, _receiver_of_asking(interception, bridge, resolution, body, relay)
        outgoing = outgoing_request(request, match, client, resolution, sent)
    if failover is not None:
        receiver = failover.before(receiver, resolution)
    if fallback is not None:
        receiver = fallback.before(receiver)
    if bridge.watches_calls:
        receiver = _watched(interception, bridge, request, client, resolution, outgoing, receiver)
    may_be_plain = resolution.provider_name in bridge.plaintext_upstreams
    return bridge.pool.send(outgoing, receiver, resolution.timeouts, may_be_plain=may_be_plain)


def again(
    interception: "Interception",
    bridge: "Bridge",
    request: Request,
    match: RouteMatch,
    client: ClientCredentials,
    resolution: Resolution,
    body: bytes,
    receiver: ResponseReceiver,
    failover: Failover | None,
    fallback: Fallback | None,
) -> UpstreamCall:
    """Send this body, without any edit, and let this receiver hear of it. The refusals of `outgoing`."""
    outgoing = outgoing_request(request, match, client, resolution, body)
    if failover is not None:
        failover.replay, failover.body = receiver, body
        receiver = failover.before(receiver, resolution)
    if fallback is not None:
        receiver = fallback.before(receiver)
    if bridge.watches_calls:
        receiver = _watched(interception, bridge, request, client, resolution, outgoing, receiver)
    may_be_plain = resolution.provider_name in bridge.plaintext_upstreams
    return bridge.pool.send(outgoing, receiver, resolution.timeouts, may_be_plain=may_be_plain)


def _asking_for_usage(
    interception: "Interception", bridge: "Bridge", resolution: Resolution, body: bytes
) -> bytes | None:
    """The body of a streaming Chat request that asks for usage; None where the client's stays as it is."""
    if (
        interception.recording is None
        or interception.is_usage_refused
        or not bridge.asks_for_usage.on_for(interception.provider)
    ):
        return None
    is_known = bridge.not_to_ask.has(resolution.base_url, interception.facts.model)
    return None if is_known else asking_for_usage(body)


def _receiver_of_asking(
    interception: "Interception", bridge: "Bridge", resolution: Resolution, body: bytes, relay: AnswerRelay
) -> AnswerToAsking:
    relay.usage_filter = UsageChunkFilter()
    not_to_ask, provider = bridge.not_to_ask, interception.provider
    base_url, model = resolution.base_url, interception.facts.model
    return AnswerToAsking(interception, relay, body, lambda: not_to_ask.add(base_url, model, provider=provider))


def _watched(
    interception: "Interception",
    bridge: "Bridge",
    request: Request,
    client: ClientCredentials,
    resolution: Resolution,
    outgoing: OutgoingRequest,
    receiver: ResponseReceiver,
) -> ResponseReceiver:
    """Tell the trace and the dump of the call, where there are such; who hears of its answer."""
    if bridge.traces_calls:
        _trace(interception, bridge, request, client, resolution, outgoing)
    if bridge.dumper is None:
        return receiver
    return bridge.dumper.begin(interception, request, client, resolution, outgoing, receiver)


def _trace(
    interception: "Interception",
    bridge: "Bridge",
    request: Request,
    client: ClientCredentials,
    resolution: Resolution,
    outgoing: OutgoingRequest,
) -> None:
    """The upstream is called: a span, and what the upstream is told of it, which is nothing unless it was named."""
    trace, sends = interception.trace, bridge.send_trace_headers
    if trace is not None:
        trace.calls(interception, resolution, outgoing)
    if sends is not None and client.token is not None and sends.go_to(resolution.provider_name):
        told = (
            clients_trace_headers(request.headers, client.token)
            if trace is None
            else trace.headers(request.headers, client.token)
        )
        outgoing.headers = (*outgoing.headers, *told)
