"""A request goes to the fallback provider, where the upstream of its own provider fails; fallback.py says when."""

import logging
from functools import partial
from typing import TYPE_CHECKING

from bridged.carrying import deciding, ending
from bridged.client_token import ClientCredentials
from bridged.fallback import Fallback
from bridged.model import Refused, Resolution
from bridged.routes import RouteMatch

if TYPE_CHECKING:
    from bridged.interception import Interception

log = logging.getLogger(__name__)


def ask(interception: "Interception", fallback: Fallback) -> None:
    """The upstream failed: ask credentiald for the fallback provider."""
    try:
        match, client, bridge = interception.match, interception.client, interception.bridge
        if interception.is_over or match is None or client is None:
            return
        if interception.call is not None:
            interception.call.cancel()
            interception.call = None
        ending.give_pass_back(interception)
        untold = bridge.outcomes.resting(fallback.provider, bridge.now())
        deciding.submit(interception, match, client, untold, partial(_decided, interception), to=fallback.provider)
    except Exception as failure:
        interception.fail(failure)


def _decided(interception: "Interception", answer: Resolution | Refused) -> None:
    """The decision about the fallback provider is there: the request goes there, or what there was first counts."""
    try:
        match, client, fallback = interception.match, interception.client, interception.fallback
        if interception.is_over or match is None or client is None or fallback is None:
            return
        bridge, interception.question = interception.bridge, None
        if interception.trace is not None:
            interception.trace.resolved(answer)
        taken = False
        if isinstance(answer, Resolution) and answer.revision < bridge.resolver.obeyed_revision:
            bridge.metrics.asked_again()
            ask(interception, fallback)
            return
        if isinstance(answer, Refused):
            bridge.metrics.resolved(answer.reason)
        else:
            bridge.metrics.resolved("OK")
            taken = _goes_there(interception, match, client, answer, fallback)
        bridge.metrics.fell_back(taken=taken)
        if not taken:
            fallback.give_up()
    except Exception as failure:
        interception.fail(failure)


def _goes_there(
    interception: "Interception",
    match: RouteMatch,
    client: ClientCredentials,
    resolution: Resolution,
    fallback: Fallback,
) -> bool:
    """Whether the request is on its way to the fallback provider's upstream."""
    first, first_failover = interception.provider, interception.failover
    interception.provider, interception.resolution, interception.failover = resolution.provider_name, resolution, None
    if interception.relay is not None:
        interception.relay.usage_filter = None
    try:
        deciding.send(interception, match, client, resolution, fallback.body)
    except Refused as refused:
        log.info(
            "the fallback provider cannot be used",
            extra={
                "interception_id": interception.interception_id,
                "provider": interception.provider,
                "reason": refused.reason,
            },
        )
        ending.leave_pool(interception)
        ending.give_pass_back(interception)
        interception.provider, interception.failover = first, first_failover
        # Where the first provider was refused this is the only one, and credentiald has opened the interception.
        interception.resolution = fallback.resolution or resolution
        return False
    if first_failover is not None:
        first_failover.over()
    fallback.over()
    return True
