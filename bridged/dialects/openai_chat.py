"""OpenAI Chat Completions, and whatever else has OpenAI's error shape.

Error object: `message`, `type`, `param`, `code` (platform.openai.com, "Error codes"); our reason, in lower case, is
the code, so that SDKs show it as `error.code`.
"""

import msgspec

from bridged.dialects.facts import read_top_level as read_request
from bridged.errors import status_of

__all__ = ["error_body", "error_object", "read_request", "stream_error_event"]

_TYPE_BY_STATUS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(status: int, reason: str, message: str, interception_id: str) -> bytes:
    """The body of an error answer. OpenAI's shape has no place for the interception id; it travels in headers."""
    del interception_id
    return msgspec.json.encode({"error": error_object(status, reason, message)})


def stream_error_event(reason: str, message: str, interception_id: str) -> bytes:
    """The event at which SDKs raise. No `[DONE]` follows it: the stream is not done."""
    return b"data: " + error_body(status_of(reason), reason, message, interception_id) + b"\n\n"


def error_object(status: int, reason: str, message: str) -> dict[str, str | None]:
    """OpenAI's error object."""
    default = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "message": message,
        "type": _TYPE_BY_STATUS.get(status, default),
        "param": None,
        "code": reason.lower(),
    }
