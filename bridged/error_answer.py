"""Our own error answer as a whole: status, headers with the body's length, body in the shape of the route's API."""

from dataclasses import dataclass

from bridged.dialects import refusal_body, refusal_headers
from bridged.model import DialectName, Headers, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """What to send; the body is empty for nobody, a HEAD request's server leaves it out."""

    status: int
    headers: Headers
    body: bytes


def error_answer(refused: Refused, dialect: DialectName, interception_id: str) -> ErrorAnswer:
    """The answer that a refusal becomes."""
    body = refusal_body(dialect, refused, interception_id)
    headers = (*refusal_headers(dialect, refused, interception_id), ("Content-Length", str(len(body))))
    return ErrorAnswer(status=refused.http_status, headers=headers, body=body)
