"""What leaves for the upstream: the client's request, with another address and another credential."""

from datetime import datetime

from bridged import adapters
from bridged.adapters import bedrock
from bridged.aws.sigv4 import SigningKeys
from bridged.bedrock.answers import Answer
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
        request.method,
        address.scheme,
        address.host,
        address.port,
        address.target,
        added,
        request_lines(request.headers, client.token, intercepted=match.intercepted),
        body,
        streamed,
        request.content_length if streamed else None,
    )


def outgoing_to_bedrock(
    request: Request,
    match: RouteMatch,
    client: ClientCredentials,
    resolution: Resolution,
    body: bytes,
    *,
    model: str,
    now: datetime,
    signing_keys: SigningKeys,
) -> tuple[OutgoingRequest, Answer | None]:
    """The same for Bedrock, signed or with a bearer token, and what translates the answer; None: it passes as it comes.

    The refusals of adapters.bedrock, of request_lines, and ACCESS_TOKEN_MISSING.
    """
    if client.token is None:
        raise Refused("ACCESS_TOKEN_MISSING", "the request carries no access token")
    prepared = bedrock.prepare(
        resolution,
        bedrock.ClientRequest(
            match=match,
            method=request.method,
            query=client.query_without_key,
            headers=request.headers,
            body=body,
            model=model,
            presented=client.presented,
        ),
        now=now,
        signing_keys=signing_keys,
    )
    address = prepared.address
    added = address.headers
    if resolution.send_actor_headers:
        added = (*added, *actor_headers(resolution))
    outgoing = OutgoingRequest(
        method=request.method,
        scheme=address.scheme,
        host=address.host,
        port=address.port,
        target=address.target,
        lines=request_lines(prepared.client_headers, client.token, intercepted=True),
        headers=added,
        # A GET without a body does not say that it has none.
        body=prepared.body or None,
    )
    return outgoing, prepared.answer
