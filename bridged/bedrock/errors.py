"""AWS's errors as Anthropic's: one table, for answers and for exceptions inside a stream alike.

Sources: AWS, the errors of InvokeModel, InvokeModelWithResponseStream and CountTokens (Bedrock API Reference) and
"Common error types"; platform.claude.com, "Errors". Statuses stay as AWS sent them, so a client's own rules of when to
try again hold.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from bridged.model import Headers, Refused, header_values

_INVALID, _TOO_LARGE, _NOT_FOUND = "invalid_request_error", "request_too_large", "not_found_error"
_PERMISSION, _AUTHENTICATION = "permission_error", "authentication_error"
_RATE_LIMIT, _OVERLOADED = "rate_limit_error", "overloaded_error"
_TIMEOUT, _API = "timeout_error", "api_error"

# By the name of AWS's exception without "Exception", in lower case: streams write it with a small letter.
TYPE_BY_EXCEPTION: dict[str, str] = {
    "accessdenied": _PERMISSION,
    "conflict": _INVALID,
    "internalfailure": _API,
    "internalserver": _API,
    "malformedhttprequest": _INVALID,
    "modelerror": _API,
    "modelnotready": _OVERLOADED,
    "modelstreamerror": _API,
    "modeltimeout": _TIMEOUT,
    "notauthorized": _PERMISSION,
    "optinrequired": _PERMISSION,
    "requestentitytoolarge": _TOO_LARGE,
    "requesttimeout": _TIMEOUT,
    "resourcenotfound": _NOT_FOUND,
    "servicequotaexceeded": _RATE_LIMIT,
    "serviceunavailable": _OVERLOADED,
    "throttling": _RATE_LIMIT,
    "toomanyrequests": _RATE_LIMIT,
    "unknownoperation": _NOT_FOUND,
    "validation": _INVALID,
    "validationerror": _INVALID,
}

# What the exceptions that a stream can have are worth where they come alone (InvokeModelWithResponseStream, Errors).
_STATUS_BY_EXCEPTION = {
    "internalserver": 500,
    "modelstreamerror": 424,
    "modeltimeout": 408,
    "serviceunavailable": 503,
    "throttling": 429,
    "validation": 400,
}

# AWS does not take the credential that the bridge sent, whatever it was sent for.
CREDENTIAL_REFUSED = frozenset(
    {
        "expiredtoken",
        "incompletesignature",
        "invalidclienttokenid",
        "invalidsignature",
        "missingauthenticationtoken",
        "requestexpired",
        "signaturedoesnotmatch",
        "unrecognizedclient",
    }
)

_TYPE_BY_STATUS = {
    401: _AUTHENTICATION,
    403: _PERMISSION,
    404: _NOT_FOUND,
    408: _TIMEOUT,
    413: _TOO_LARGE,
    424: _API,
    429: _RATE_LIMIT,
    503: _OVERLOADED,
    504: _TIMEOUT,
    529: _OVERLOADED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsError:
    """What AWS says went wrong: `name` as in `ThrottlingException`, empty where it does not say."""

    name: str
    message: str


def anthropic_type(error: AwsError, status: int) -> str:
    """Anthropic's type of an error: by its name, else by its status."""
    key = _key(error.name)
    if key in CREDENTIAL_REFUSED:
        return _AUTHENTICATION
    return TYPE_BY_EXCEPTION.get(key) or _TYPE_BY_STATUS.get(status, _API if status >= 500 else _INVALID)


def refused_credential(headers: Headers, body: bytes) -> Refused | None:
    """A refusal of ours for an error answer that is about the credential which the bridge sent; else None.

    No client can do anything about the provider's credential, and one that read 401 or 403 would throw its own
    token away: it is a fault of what is behind the gateway, 502. AWS's words do not pass: where a signature does not
    match they quote the request, session token and all.
    """
    name = error_name(headers, body)
    if _key(name) not in CREDENTIAL_REFUSED:
        return None
    return Refused(
        "UPSTREAM_KEY_REFUSED",
        f"Bedrock refused the credential of this provider ({name}): try again; "
        "if it stays so, an administrator may check the provider's AWS credentials, its region, and the clock",
    )


def error_name(headers: Headers, body: bytes) -> str:
    """The name of AWS's exception, as in `ThrottlingException`; empty where the answer has none."""
    return _exception_name(headers, _decoded(body))


def anthropic_error(status: int, headers: Headers, body: bytes, *, request_id: str) -> bytes:
    """The body of an error answer in Anthropic's shape; another gateway's, which has it already, as it is."""
    found = _decoded(body)
    if found.get("type") == "error" and isinstance(found.get("error"), dict):
        return body
    error = AwsError(name=_exception_name(headers, found), message=_message(found))
    message = error.message or f"Bedrock answered with status {status} and without a message"
    return error_body(anthropic_type(error, status), message, request_id)


def error_body(kind: str, message: str, request_id: str) -> bytes:
    """Anthropic's error body; without the id where there is none."""
    body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    if request_id:
        body["request_id"] = request_id
    return msgspec.json.encode(body)


def stream_exception(name: str, payload: bytes) -> bytes:
    """The event for an exception inside a stream, `name` as in `throttlingException`."""
    return b"event: error\ndata: " + exception_body(name, payload, "") + b"\n\n"


def exception_body(name: str, payload: bytes, request_id: str) -> bytes:
    """The body of an error answer for an exception that came in place of a stream."""
    error = AwsError(name=_bare(name), message=_message(_decoded(payload)))
    message = error.message or f"Bedrock ended the stream with {error.name or 'an error'}"
    return error_body(anthropic_type(error, status_of_exception(name)), message, request_id)


def status_of_exception(name: str) -> int:
    """The status of an exception in a stream; 500 for those that the API does not have."""
    return _STATUS_BY_EXCEPTION.get(_key(_bare(name)), 500)


def _exception_name(headers: Headers, body: dict[str, Any]) -> str:
    in_header = next(iter(header_values(headers, "x-amzn-errortype")), "")
    in_body = next((body[key] for key in ("__type", "code") if isinstance(body.get(key), str)), "")
    return _bare(in_header or in_body)


def _key(name: str) -> str:
    """A name as the tables have it."""
    return name.lower().removesuffix("exception")


def _bare(name: str) -> str:
    """`X` of `namespace#X:http://…` (Smithy, AWS restJson1, "Operation error serialization"); else empty."""
    bare = name.partition(":")[0].rpartition("#")[2].strip()
    return bare if bare.isascii() and bare.isalnum() else ""


def _message(body: dict[str, Any]) -> str:
    # A stream's modelStreamErrorException has the model's own words beside its own.
    names = ("message", "Message", "originalMessage")
    return next((body[name] for name in names if isinstance(body.get(name), str) and body[name]), "")


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
