"""Google's generateContent family. Errors: google.rpc.Status as JSON (aip.dev/193), our reason in an ErrorInfo.

Model and stream flag are in the path (routes.py), not in the body.
"""

import msgspec

from bridged.dialects.facts import NO_FACTS
from bridged.errors import status_of
from bridged.model import RequestFacts

# google.rpc.Code: the names that its HTTP mapping gives for these statuses.
_NAME_BY_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    426: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    431: "INVALID_ARGUMENT",
    504: "DEADLINE_EXCEEDED",
}


def error_body(status: int, reason: str, message: str, interception_id: str) -> bytes:
    """The body of an error answer."""
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "drawbridge",
        "metadata": {"interception_id": interception_id},
    }
    name = _NAME_BY_STATUS.get(status, "UNAVAILABLE")
    return msgspec.json.encode({"error": {"code": status, "message": message, "status": name, "details": [info]}})


def stream_error_event(reason: str, message: str, interception_id: str) -> bytes:
    """The chunk at which SDKs raise, for streams asked for with `alt=sse`."""
    return b"data: " + error_body(status_of(reason), reason, message, interception_id) + b"\n\n"


def read_request(body: bytes) -> RequestFacts:
    """Nothing: the body says neither model nor stream."""
    del body
    return NO_FACTS
