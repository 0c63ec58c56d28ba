"""A request goes out another time: with another key of the pool (failover.py says when), or without an edit of ours."""

from functools import partial
from typing import TYPE_CHECKING

from bridged import attempt
from bridged.carrying import deciding
from bridged.http1.upstream import ResponseReceiver
from bridged.model import Refused, Resolution

if TYPE_CHECKING:
    from bridged.interception import Interception

# What was decided so long ago does not go out: where the way to credentiald is broken, this bridge may take a while to
# notice that it does not hear any more what counts no more.
_OLD_SECONDS = 5.0


def as_the_client_made_it(interception: "Interception", body: bytes, receiver: ResponseReceiver) -> None:
    """The upstream would not be asked for usage: send the request without that."""
    try:
        match, client, bridge = interception.match, interception.client, interception.bridge
        resolution, relay = interception.resolution, interception.relay
        if interception.is_over or match is None or client is None or resolution is None or relay is None:
            return
        relay.usage_filter = None
        is_old = bridge.now() - interception.started_seconds > _OLD_SECONDS
        if is_old or resolution.revision < bridge.resolver.obeyed_revision:
            interception.is_usage_refused = True
            deciding.ask_anew(interception, match, client)
            return
        request, failover, fallback = interception.exchange.request, interception.failover, interception.fallback
        call = interception.call = attempt.again(
            interception, bridge, request, match, client, resolution, body, receiver, failover, fallback
        )
        if interception.is_paused:
            call.pause()
    except Exception as failure:
        interception.fail(failure)


def ask_for_another_key(interception: "Interception") -> None:
    """The upstream refused the key: ask credentiald for another one."""
    try:
        match, client, failover = interception.match, interception.client, interception.failover
        if interception.is_over or match is None or client is None or failover is None:
            return
        interception.call = None
        bridge, provider = interception.bridge, interception.provider
        untold = bridge.outcomes.resting(provider, bridge.now())
        refused_ids = dict.fromkeys((*failover.refused_ids, *untold))
        deciding.submit(interception, match, client, refused_ids, partial(_decided, interception), to=provider)
    except Exception as failure:
        interception.fail(failure)


def _decided(interception: "Interception", answer: Resolution | Refused) -> None:
    """The decision about another key is there: what it says now is what counts."""
    try:
        match, client, bridge = interception.match, interception.client, interception.bridge
        relay, failover = interception.relay, interception.failover
        if interception.is_over or match is None or client is None or relay is None or failover is None:
            return
        interception.question = None
        if interception.trace is not None:
            interception.trace.resolved(answer)
        if isinstance(answer, Refused):
            bridge.metrics.resolved(answer.reason)
            failover.refused(answer)
            return
        if answer.revision < bridge.resolver.obeyed_revision:
            bridge.metrics.asked_again()
            ask_for_another_key(interception)
            return
        bridge.metrics.resolved("OK")
        if not failover.goes_again(answer):
            return
        interception.resolution = answer
        body, replay = failover.body, failover.replay
        if answer.pool_size <= 1:
            # The policy or the pool is another one now.
            failover.over()
            interception.failover = None
        relay.usage_filter = None
        request, still, fallback = interception.exchange.request, interception.failover, interception.fallback
        if replay is not None and body is not None:
            call = attempt.again(interception, bridge, request, match, client, answer, body, replay, still, fallback)
        else:
            call = attempt.begin(interception, bridge, request, match, client, answer, body, relay, still, fallback)
        interception.call = call
        if interception.is_paused:
            call.pause()
    except Exception as failure:
        interception.fail(failure)
