"""How an answer's body is delimited for the client that asked, and the bytes of its head. Decisions only.

request             body is   leaves as
HEAD                any       nothing; the head as it would be
any, 1xx 204 304    any       nothing
any                 NONE      nothing
any                 LENGTH    as it is, counted against Content-Length
HTTP/1.1            CHUNKED   chunked by us
HTTP/1.0            CHUNKED   as it is, ended by the end of the connection
"""

from enum import Enum
from http import HTTPStatus

from bridged.http1.fields import field_lines
from bridged.http1.framing import Request
from bridged.model import Headers


class Framing(Enum):
    """What the caller has: a body of the length that its headers say, pieces, or none."""

    LENGTH = "length"
    CHUNKED = "chunked"
    NONE = "none"


class Coding(Enum):
    """How the body leaves."""

    NOTHING = "nothing"
    COUNTED = "counted"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


# Looking a member up costs as much as a call.
_NOTHING, _COUNTED, _CHUNKED, _UNTIL_CLOSE = Coding
_LENGTH, _PIECES, _NONE = Framing


# The head's bytes, how the body leaves, its length where it is counted, and whether the connection stays.
AnswerHead = tuple[bytes, Coding, int, bool]


_REASONS = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in _REASONS.items()}


def answer_head(
    request: Request,
    status: int,
    headers: Headers | bytes,
    framing: Framing,
    *,
    keep_alive: bool,
    length_bytes: int | None,
) -> AnswerHead:
    """The head of an answer. ValueError for what cannot be sent, which is a fault of the caller.

    `headers` are without Connection and Transfer-Encoding, which are written here; bytes are lines that are known to be
    such, each with its line end. `length_bytes` is what their Content-Length says, for a caller that knows, as one with
    lines has to; otherwise it is looked up.
    """
    # RFC 9110, 6.4.1.
    may_have_body = status >= 200 and status != 204 and status != 304
    length = 0
    if framing is _NONE or request.method == "HEAD" or not may_have_body:
        coding = _NOTHING
    elif framing is _LENGTH:
        coding = _COUNTED
    else:
        coding = _UNTIL_CLOSE if request.http_10 else _CHUNKED
    if coding is _COUNTED:
        length = _declared_length(headers) if length_bytes is None else length_bytes
    elif coding is _UNTIL_CLOSE:
        keep_alive = False
    data = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    data += headers if isinstance(headers, bytes) else field_lines(headers)
    if framing is _PIECES and not request.http_10 and may_have_body:
        data += b"Transfer-Encoding: chunked\r\n"
    if not keep_alive:
        # Who sends Upgrade, as a 426 must, says so in Connection (RFC 9110, 7.8), of which there is one line.
        data += b"Connection: close\r\n" if status != 426 else b"Connection: Upgrade, close\r\n"
    elif request.http_10:
        data += b"Connection: keep-alive\r\n"
    return data + b"\r\n", coding, length, keep_alive


def _declared_length(headers: Headers | bytes) -> int:
    if isinstance(headers, bytes):
        raise ValueError("the length of an answer whose head is in lines is told")  # noqa: TRY004 - as the others
    values = [value for name, value in headers if name.lower() == "content-length"]
    if len(values) != 1 or not (values[0].isascii() and values[0].isdigit()):
        raise ValueError("an answer of known length has one Content-Length")
    return int(values[0])
