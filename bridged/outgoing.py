"""What leaves for the upstream: the client's request, with another address and another credential."""

from bridged import adapters
from bridged.client_token import ClientCredentials
from bridged.head_lines import request_lines
from bridged.headers import actor_headers
from bridged.http1.framing import Request
from bridged.http1.request_head import OutgoingRequest
from bridged.model import Refused, Resolution
from bridged.routes import RouteMatch


def outgoing_request(
    request: Request, match: RouteMatch, client: ClientCredentials, resolution: Resolution, body: bytes | None
) -> OutgoingRequest:
    """The request as it leaves. `body` None: it is streamed, if there is one.

    The refusals of the adapters, of request_lines, and ACCESS_TOKEN_MISSING.
    """
    if client.token is None:
        raise Refused("ACCESS_TOKEN_MISSING", "the request carries no access token")
    address = adapters.address(resolution, match, query=client.query_without_key, presented=client.presented)
    added = address.headers
    if resolution.send_actor_headers:
        added = (*added, *actor_headers(resolution))
    streamed = body is None and request.has_body
    return OutgoingRequest(
        method=request.method,
        scheme=address.scheme,
        host=address.host,
        port=address.port,
        target=address.target,
        lines=request_lines(request.headers, client.token, intercepted=match.intercepted),
        headers=added,
        body=body,
        streamed=streamed,
        content_length=request.content_length if streamed else None,
    )
