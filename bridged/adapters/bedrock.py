"""Bedrock: where each operation goes, in whose words, and with whose signature or token.

    anthropic.messages       POST /model/{id}/invoke[-with-response-stream]   translated both ways
    anthropic.count_tokens   POST /model/{id}/count-tokens                    translated both ways
    bedrock.*                the same path                                    as sent; the lists at the control plane

and where the provider's protocol is Mantle, which speaks the vendors' own APIs:

    anthropic.*              /anthropic + the same path                       as sent
    openai.*                 the same path                                    as sent

What changes even in a body that goes as sent is a model that the provider maps. Sources: AWS, "Amazon Bedrock API
Reference", "Endpoints supported by Amazon Bedrock" and "Bedrock API keys" (a bearer token in Authorization).
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import unquote

from bridged.adapters.auth import AuthShape, credential_headers
from bridged.adapters.destination import Address, Base, parse_base_url
from bridged.aws.sigv4 import SigningKeys, UnfitCredential, sign
from bridged.bedrock.answers import Answer, PassingAnswer
from bridged.bedrock.messages_answer import EVENT_STREAM, CountAnswer, InvokeAnswer
from bridged.bedrock.messages_request import (
    BETA_HEADER,
    countable_model,
    messages_to_count,
    messages_to_invoke,
    model_path,
)
from bridged.http1.request_head import authority_of, port_of
from bridged.json_edit import JsonObject, MalformedJson
from bridged.model import (
    AwsKeys,
    BedrockOptions,
    BedrockProtocol,
    Headers,
    PresentedKey,
    Refused,
    Resolution,
    Source,
    header_values,
)
from bridged.routes import RouteMatch

WIRE_TYPE = "bedrock"
BEARER = AuthShape(header="Authorization", presented=("authorization", "x_api_key"))
_SERVICE, _MANTLE_SERVICE = "bedrock", "bedrock-mantle"
_MANTLE_ANTHROPIC = "/anthropic"
_LISTS = frozenset({"bedrock.list_inference_profiles", "bedrock.list_foundation_models"})
_USERS_OWN = frozenset({Source.USER_KEY, Source.PRESENTED_KEY})

# Of AWS's clients: about the signature that ends here (SigV4 wants every x-amz- header signed).
_AWS_PREFIX = "x-amz-"
_REWRITTEN = frozenset({"content-type"})
# In the body or the path of what is translated; Accept names a format that is not Bedrock's.
_TRANSLATED = _REWRITTEN | {"accept", BETA_HEADER, "anthropic-version"}
_JSON = ("Content-Type", "application/json")


@dataclass(slots=True, kw_only=True)
class ClientRequest:
    """What the client sent. `headers` and `query` are without its token, `model` is what it called it."""

    match: RouteMatch
    method: str
    query: str
    headers: Headers
    body: bytes
    model: str
    presented: PresentedKey | None


@dataclass(slots=True, kw_only=True)
class BedrockRequest:
    """A request to Bedrock as it leaves.

    `client_headers` are those of the client's that may go along; what goes for every upstream (headers.py) is still to
    be applied to them. `address.headers` are the others: content type, credential or signature. `answer` translates
    the answer; None: it passes as it comes.
    """

    address: Address
    client_headers: Headers
    body: bytes
    answer: Answer | None


@dataclass(slots=True, kw_only=True)
class _Plan:
    """Where and what, before it is signed. `target` is below `base`; `left_out` are headers of the client's."""

    base: Base
    target: str
    body: bytes
    headers: Headers
    left_out: frozenset[str]
    service: str = _SERVICE
    answer: Answer | None = None


def prepare(
    resolution: Resolution, request: ClientRequest, *, now: datetime, signing_keys: SigningKeys
) -> BedrockRequest:
    """The request for Bedrock.

    OPERATION_NOT_ALLOWED for what the protocol does not have; INVALID_BODY as messages_request says; REGION_REQUIRED,
    AWS_CREDENTIALS_INCOMPLETE and UPSTREAM_UNREACHABLE for what an administrator has to mend; the refusals of auth.py.
    """
    options = resolution.bedrock or BedrockOptions()
    operation = request.match.operation
    if not request.match.reads_body:
        # Nothing is sent whose body is not at hand: it could not be signed, and would leave empty.
        raise _no_such_operation()
    if options.protocol is BedrockProtocol.MANTLE:
        plan = _mantle(resolution, request)
    elif operation.startswith("bedrock."):
        plan = _as_sent(resolution, request, options)
    elif operation == "anthropic.messages":
        plan = _invoke(resolution, request, options)
    elif operation == "anthropic.count_tokens":
        plan = _count(resolution, request, options)
    else:
        raise _no_such_operation()
    target = plan.base.path + plan.target
    answer = plan.answer
    if answer is None and resolution.source not in _USERS_OWN:
        answer = PassingAnswer()
    if resolution.source != Source.PRESENTED_KEY and isinstance(resolution.credential, AwsKeys):
        credential = _signature(request.method, target, plan, resolution.credential, options.region, now, signing_keys)
    else:
        credential = credential_headers(BEARER, resolution, request.presented)
    return BedrockRequest(
        address=Address(
            scheme=plan.base.scheme,
            host=plan.base.host,
            port=plan.base.port,
            target=target,
            headers=(*plan.headers, *credential),
        ),
        client_headers=tuple([pair for pair in request.headers if not _is_left_out(pair[0], plan.left_out)]),
        body=plan.body,
        answer=answer,
    )


def _invoke(resolution: Resolution, request: ClientRequest, options: BedrockOptions) -> _Plan:
    _refuse_compressed(request.headers)
    model = resolution.upstream_model or request.model
    body, stream = messages_to_invoke(
        request.body, request.headers, model=model, asked_for=request.model, options=options
    )
    return _Plan(
        base=parse_base_url(resolution.base_url),
        target=model_path(model, "invoke-with-response-stream" if stream else "invoke"),
        body=body,
        headers=(_JSON, ("Accept", EVENT_STREAM if stream else "application/json")),
        left_out=_TRANSLATED,
        answer=InvokeAnswer(credential_is_the_users=resolution.source in _USERS_OWN),
    )


def _count(resolution: Resolution, request: ClientRequest, options: BedrockOptions) -> _Plan:
    _refuse_compressed(request.headers)
    model = resolution.upstream_model or request.model
    body = messages_to_count(request.body, request.headers, model=model, asked_for=request.model, options=options)
    return _Plan(
        base=parse_base_url(resolution.base_url),
        target=model_path(countable_model(model), "count-tokens"),
        body=body,
        headers=(_JSON, ("Accept", "application/json")),
        left_out=_TRANSLATED,
        answer=CountAnswer(credential_is_the_users=resolution.source in _USERS_OWN),
    )


def _as_sent(resolution: Resolution, request: ClientRequest, options: BedrockOptions) -> _Plan:
    match, mapped = request.match, resolution.upstream_model
    at_control_plane = match.operation in _LISTS and options.control_base_url
    path = match.path
    if mapped and match.path_facts.model not in ("", mapped):
        asked = countable_model(mapped) if match.operation == "bedrock.count_tokens" else mapped
        path = model_path(asked, path.rpartition("/")[2])
    return _Plan(
        base=parse_base_url(options.control_base_url if at_control_plane else resolution.base_url),
        target=path + _without_signature(request.query),
        body=request.body,
        headers=_content_type(request.headers),
        left_out=_REWRITTEN,
    )


def _mantle(resolution: Resolution, request: ClientRequest) -> _Plan:
    api = request.match.operation.partition(".")[0]
    if api not in ("anthropic", "openai"):
        raise _no_such_operation()
    base = parse_base_url(resolution.base_url)
    # A base URL is the endpoint's, or Anthropic's below it: both are written.
    path = base.path.removesuffix(_MANTLE_ANTHROPIC)
    prefix = _MANTLE_ANTHROPIC if api == "anthropic" else ""
    body = request.body
    if resolution.upstream_model not in ("", request.model):
        _refuse_compressed(request.headers)
        body = _with_model(body, resolution.upstream_model)
    return _Plan(
        base=replace(base, path=path),
        target=prefix + request.match.path + _without_signature(request.query),
        body=body,
        headers=_content_type(request.headers),
        left_out=_REWRITTEN,
        service=_MANTLE_SERVICE,
    )


def _signature(
    method: str, target: str, plan: _Plan, keys: AwsKeys, region: str, now: datetime, signing_keys: SigningKeys
) -> Headers:
    if not region:
        raise Refused("REGION_REQUIRED", "the provider has no AWS region to sign for: an administrator may set one")
    base = plan.base
    try:
        return sign(
            method=method,
            host=authority_of(base.host, port_of(base.scheme, base.port), default_port=port_of(base.scheme, None)),
            target=target,
            headers=plan.headers,
            body=plan.body,
            keys=keys,
            region=region,
            service=plan.service,
            now=now,
            signing_keys=signing_keys,
        )
    except UnfitCredential:
        raise Refused(
            "AWS_CREDENTIALS_INCOMPLETE",
            "the provider's AWS credentials have characters that none have: an administrator may store them again",
        ) from None


def _is_left_out(name: str, left_out: frozenset[str]) -> bool:
    folded = name.lower().replace("_", "-")
    return folded in left_out or folded.startswith(_AWS_PREFIX)


def _without_signature(query: str) -> str:
    """The query without what a presigned one has of a signature: it ends here, like the one in headers."""
    if not query:
        return query
    kept = [part for part in query[1:].split("&") if not unquote(part).lower().startswith(_AWS_PREFIX)]
    return "?" + "&".join(kept) if kept else ""


def _content_type(headers: Headers) -> Headers:
    """The client's, once: it is signed, so exactly this has to be sent."""
    return tuple([("Content-Type", value) for value in header_values(headers, "content-type")[:1]])


def _with_model(body: bytes, model: str) -> bytes:
    try:
        edited = JsonObject(body)
    except MalformedJson:
        raise Refused("INVALID_BODY", "the body is not a well-formed JSON object") from None
    edited.put("model", json.dumps(model).encode())
    return edited.encode()


def _refuse_compressed(headers: Headers) -> None:
    if any(value.lower() not in ("", "identity") for value in header_values(headers, "content-encoding")):
        raise Refused("INVALID_BODY", "the body is compressed, and for this provider it is translated: send it plain")


def _no_such_operation() -> Refused:
    return Refused(
        "OPERATION_NOT_ALLOWED", "this provider has no such path: check the path against its type and protocol"
    )
