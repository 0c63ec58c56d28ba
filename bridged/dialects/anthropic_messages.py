"""Anthropic Messages. Error types by status, and `event: error` in streams: platform.claude.com, "Errors"."""

import msgspec

from bridged.dialects.facts import read_top_level as read_request
from bridged.errors import status_of

__all__ = ["error_body", "read_request", "stream_error_event"]

# What SDKs and agents know of a service that is to be left alone for a while.
_TYPE_BY_REASON = {"BREAKER_OPEN": "overloaded_error", "CAPACITY": "overloaded_error"}
_TYPE_BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}


def error_body(status: int, reason: str, message: str, interception_id: str) -> bytes:
    """The body of an error answer. The reason has no place in Anthropic's shape; it travels in a header."""
    return _error(status, reason, message, interception_id)


def stream_error_event(reason: str, message: str, interception_id: str) -> bytes:
    """The event that tells a reader of the stream that it ended before its time."""
    return b"event: error\ndata: " + _error(status_of(reason), reason, message, interception_id) + b"\n\n"


def _error(status: int, reason: str, message: str, interception_id: str) -> bytes:
    default = "api_error" if status >= 500 else "invalid_request_error"
    error_type = _TYPE_BY_REASON.get(reason) or _TYPE_BY_STATUS.get(status, default)
    error = {"type": error_type, "message": message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": interception_id})
