"""Bedrock's own paths: AWS's errors, a body with `message` and the exception's name in a header.

The answers' bodies are binary event streams and pass byte for byte; one that breaks is broken off, which AWS's SDKs
report. Source: Smithy, "AWS restJson1 protocol", operation error serialization; the names are those of Bedrock's API
Reference and of AWS's "Common error types".
"""

import msgspec

from bridged.dialects.facts import NO_FACTS
from bridged.errors import status_of
from bridged.model import Headers, RequestFacts

_EXCEPTION_BY_STATUS = {
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "RequestTimeoutException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
    504: "ModelTimeoutException",
}


def error_body(status: int, reason: str, message: str, interception_id: str) -> bytes:
    """The body of an error answer. Reason and id travel in headers."""
    del status, reason, interception_id
    return msgspec.json.encode({"message": message})


def error_headers(status: int, interception_id: str) -> Headers:
    """What boto3 shows as `Error.Code` and `RequestId`."""
    return (("x-amzn-ErrorType", _exception(status)), ("x-amzn-RequestId", interception_id))


def stream_error_event(reason: str, message: str, interception_id: str) -> bytes:
    """For a gateway behind us that answers with an event stream in text, which AWS does not."""
    del interception_id
    error = {"type": _exception(status_of(reason)), "message": message}
    return b"event: error\ndata: " + msgspec.json.encode({"error": error}) + b"\n\n"


def read_request(body: bytes) -> RequestFacts:
    """Nothing: the path has the model and says whether it streams; each vendor's models have bodies of their own."""
    del body
    return NO_FACTS


def _exception(status: int) -> str:
    default = "InternalServerException" if status >= 500 else "ValidationException"
    return _EXCEPTION_BY_STATUS.get(status, default)
