"""Client wire formats, one module each, in one table: how errors look, and what a request says of itself."""

from collections.abc import Callable
from dataclasses import dataclass

from bridged.dialects import anthropic_messages, bedrock, google_generate, openai_chat, openai_responses
from bridged.dialects.facts import checked
from bridged.model import DialectName, Headers, Refused, RequestFacts, has_header, header_values
from bridged.routes import RouteMatch
from bridged.sse import StreamEnd

ERROR_CONTENT_TYPE = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One wire format.

    `error_headers` are those of its own, from status and interception id. `errors_by_event_name`: its clients go by an
    event's name before they parse its data.
    """

    error_body: Callable[[int, str, str, str], bytes]
    stream_error_event: Callable[[str, str, str], bytes]
    read_request: Callable[[bytes], RequestFacts]
    error_headers: Callable[[int, str], Headers] | None = None
    errors_by_event_name: bool = False


DIALECTS: dict[DialectName, Dialect] = {
    DialectName.ANTHROPIC_MESSAGES: Dialect(
        error_body=anthropic_messages.error_body,
        stream_error_event=anthropic_messages.stream_error_event,
        read_request=anthropic_messages.read_request,
        errors_by_event_name=True,
    ),
    DialectName.OPENAI_CHAT: Dialect(
        error_body=openai_chat.error_body,
        stream_error_event=openai_chat.stream_error_event,
        read_request=openai_chat.read_request,
    ),
    DialectName.OPENAI_RESPONSES: Dialect(
        error_body=openai_responses.error_body,
        stream_error_event=openai_responses.stream_error_event,
        read_request=openai_responses.read_request,
    ),
    DialectName.GOOGLE_GENERATE: Dialect(
        error_body=google_generate.error_body,
        stream_error_event=google_generate.stream_error_event,
        read_request=google_generate.read_request,
    ),
    DialectName.BEDROCK: Dialect(
        error_body=bedrock.error_body,
        stream_error_event=bedrock.stream_error_event,
        read_request=bedrock.read_request,
        error_headers=bedrock.error_headers,
    ),
}


def request_facts(match: RouteMatch, headers: Headers, body: bytes | None) -> RequestFacts:
    """What a request says of itself, in its path and, where the route reads it, in its body.

    A model in the path is the one: Azure goes by the deployment there, whatever model a client leaves in the body.
    `body` None is one that was not read. A compressed body is not looked into; it is forwarded all the same.
    INVALID_BODY as the dialect's `read_request` says,
    for turns of a conversation only.
    """
    in_path = match.path_facts
    if in_path.model:
        checked(in_path)
    if body is None or not match.reads_body:
        return in_path
    if has_header(headers, "content-encoding"):
        encodings = header_values(headers, "content-encoding")
        if not all(value.lower() in ("", "identity") for value in encodings):
            return in_path
    try:
        in_body = DIALECTS[match.dialect].read_request(body)
    except Refused:
        if match.intercepted:
            raise
        # Nobody here needs to understand it, and whoever translates it judges it again.
        return in_path
    if not in_path.model and not in_path.stream:
        return in_body
    return RequestFacts(
        model=in_path.model or in_body.model,
        stream=in_body.stream or in_path.stream,
        conversation=in_body.conversation,
    )


def refusal_body(dialect: DialectName, refused: Refused, interception_id: str) -> bytes:
    """The body of our own error answer, in the shape of the route's API."""
    return DIALECTS[dialect].error_body(refused.http_status, refused.reason, refused.message, interception_id)


def refusal_headers(dialect: DialectName, refused: Refused, interception_id: str) -> Headers:
    """The headers of our own error answer; Content-Length and Connection are the server's.

    `request-id` (Anthropic) and `x-request-id` (OpenAI) carry the interception id, so that every SDK shows it.
    """
    headers: Headers = (
        ("Content-Type", ERROR_CONTENT_TYPE),
        ("X-Drawbridge-Error", refused.reason),
        ("X-Interception-Id", interception_id),
        ("request-id", interception_id),
        ("x-request-id", interception_id),
    )
    error_headers = DIALECTS[dialect].error_headers
    if error_headers is not None:
        headers += error_headers(refused.http_status, interception_id)
    if refused.retry_after_seconds is not None:
        headers += (("Retry-After", str(refused.retry_after_seconds)),)
    if refused.retry_after_ms is not None:
        # What the SDKs of Anthropic and OpenAI ask for first.
        headers += (("retry-after-ms", str(refused.retry_after_ms)),)
    if refused.allow:
        headers += (("Allow", ", ".join(refused.allow)),)
    if refused.reason == "UPGRADE_NOT_SUPPORTED":
        # RFC 9110, 15.5.22: a 426 names what the server would speak instead.
        headers += (("Upgrade", "HTTP/1.1"),)
    return headers


def stream_ending(dialect: DialectName, end: StreamEnd, refused: Refused, interception_id: str) -> bytes:
    """The last bytes of an event stream that broke: what finishes the open line or event, then the error event."""
    chosen = DIALECTS[dialect]
    closing = end.closing_bytes(join=chosen.errors_by_event_name)
    return closing + chosen.stream_error_event(refused.reason, refused.message, interception_id)
