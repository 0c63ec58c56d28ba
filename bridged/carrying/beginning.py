"""A request begins: whose it is, whether there is room for it, how its body is read."""

from typing import TYPE_CHECKING

from bridged.carrying import deciding, ending
from bridged.client_token import find_client_token
from bridged.dialects import request_facts
from bridged.http1.answer_framing import Framing
from bridged.http_types import BodyBroken, BodyTimeout, BodyTooLarge
from bridged.model import Refused
from bridged.paths import Target
from bridged.routes import RouteMatch

if TYPE_CHECKING:
    from bridged.interception import Interception

# Looking a member up costs as much as a call.
_NO_BODY = Framing.NONE
BodyError = BodyTooLarge | BodyBroken | BodyTimeout


def begin_body(interception: "Interception", target: Target, match: RouteMatch) -> None:
    """Take the client's token and have the body read: as a whole, or as a stream, about which is asked at once."""
    exchange, bridge = interception.exchange, interception.bridge
    request, limit_bytes = exchange.request, bridge.max_body_bytes
    interception.client = client = find_client_token(request.headers, target.query)
    if client.token is None:
        raise Refused(
            "ACCESS_TOKEN_MISSING",
            "the request carries no access token: send the token an administrator made for you, "
            "for example as 'Authorization: Bearer dbu_…' or as the API key of the SDK",
        )
    if (request.content_length or 0) > limit_bytes:
        raise refused_body(BodyTooLarge(), limit_bytes)
    entrance = bridge.entrance
    if entrance is not None:
        interception.slot = entrance.enter(client.token, target.provider)
    if match.reads_body:
        # Held until the upstream has begun to answer: it may have to be sent again.
        interception.reserved_bytes = bridge.reserve(limit_bytes if request.chunked else request.content_length or 0)
        exchange.read_whole(limit_bytes)
        return
    interception.is_streamed = request.has_body
    interception.facts = request_facts(match, request.headers, None)
    exchange.read_stream(limit_bytes)
    exchange.pause_body()
    deciding.ask(interception, match, client)


def refused_body(error: BodyError, limit_bytes: int) -> Refused:
    """What the client is told of a body that does not come to its end."""
    if isinstance(error, BodyTooLarge):
        return Refused("BODY_TOO_LARGE", f"the body is over the limit of {limit_bytes} bytes: send less")
    if isinstance(error, BodyTimeout):
        return Refused("REQUEST_TIMEOUT", "the body stopped arriving: send it again, faster")
    return Refused("INVALID_REQUEST", "the body is not well-formed HTTP, or shorter than its Content-Length")


def answer_probe(interception: "Interception") -> None:
    """Claude Code asks with HEAD whether there is anybody; nobody else needs to be asked for that."""
    interception.status = 200
    exchange, date = interception.exchange, interception.bridge.date()
    headers = (("X-Interception-Id", interception.interception_id), ("Content-Length", "0"), date)
    exchange.send_head(200, headers, body=_NO_BODY)
    exchange.finish()
    ending.end(interception)
