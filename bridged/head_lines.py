"""The headers of a message as lines, ready to be sent: what headers.py says, found out once for each header.

Nearly every header is judged by itself, and the same few come with every message; so the line that becomes of one is
remembered, and a head is put together with a look-up for each. What takes more than the header itself to tell goes
through headers.py each time: names in Connection, and anything that may hold a copy of a token. Headers whose name
hints at a secret, or that hold what looks like one, are not remembered.
"""

from bridged.client_token import may_carry_token, may_hold_any_token
from bridged.headers import (
    IDENTITY,
    MAX_ID_CHARACTERS,
    REQUEST_ID_HEADERS,
    Fate,
    fate_of_request,
    fate_of_response,
    is_event_stream,
    is_plain,
    is_plain_connection,
    request_headers,
    request_id_of,
    response_headers,
    without_token,
)
from bridged.http1.fields import field_lines, may_hold_secret
from bridged.model import Headers, Refused, header_values
from daemonkit.secret import Secret

_MOST = 4096
_LONGEST = 256
Pair = tuple[str, str]

# What a header tells of the answer as a whole.
_ODD = 1
_LENGTH = 2
_DATE = 4
_STREAM = 8
_ENCODED = 16
_CACHE = 32
_NOT_OF_STREAMS = 64
_ID = 128


def _line(pair: Pair) -> bytes | None:
    try:
        return field_lines((pair,))
    except ValueError:
        return None


class _RequestLines(dict[Pair, bytes | None]):
    """The line a client's header becomes; empty if it ends here, None if headers.py has to be asked."""

    def __init__(self, *, intercepted: bool) -> None:
        super().__init__()
        self._intercepted = intercepted

    def __missing__(self, pair: Pair) -> bytes | None:
        name, value = pair
        if may_carry_token(name) and value.isascii() and value.isprintable():
            # The client's token itself: it comes with every request, ends here, and is never remembered.
            return b""
        line = self._judged(pair)
        if len(name) + len(value) <= _LONGEST and not may_hold_secret(name, value):
            if len(self) >= _MOST:
                self.clear()
            self[pair] = line
        return line

    def _judged(self, pair: Pair) -> bytes | None:
        name, value = pair
        line, fate = _line(pair), fate_of_request(name)
        if line is None:
            return None
        if fate is Fate.DROPPED or (fate is Fate.CONNECTION and is_plain_connection(value)):
            return b""
        if fate is Fate.ENCODING and self._intercepted:
            return b""
        if fate is None or fate is Fate.CONNECTION or may_hold_any_token(value):
            return None
        return line


_INTERCEPTED = _RequestLines(intercepted=True)
_PASSED = _RequestLines(intercepted=False)
_IDENTITY_LINE = field_lines((IDENTITY,))


def request_lines(client_headers: Headers, token: Secret, *, intercepted: bool) -> bytes:
    """What goes upstream of a client's headers, without any that has the client's token in it.

    INVALID_REQUEST for names and values that HTTP does not allow.
    """
    table = _INTERCEPTED if intercepted else _PASSED
    lines = list(map(table.__getitem__, client_headers))
    if None not in lines:
        head = b"".join(lines)  # type: ignore[arg-type]
        if token.reveal().encode() not in head:
            return head + _IDENTITY_LINE if intercepted else head
    headers = request_headers(without_token(client_headers, token), intercepted=intercepted)
    try:
        return field_lines(headers)
    except ValueError:
        raise Refused("INVALID_REQUEST", "a header of the request is not well-formed") from None


class _ResponseLines(dict[Pair, tuple[bytes, int]]):
    """The line an upstream's header becomes, empty if it ends here, and what it tells of the answer as a whole."""

    def __missing__(self, pair: Pair) -> tuple[bytes, int]:
        name, value = pair
        judged = self._judged(pair)
        if len(name) + len(value) <= _LONGEST and not may_hold_secret(name, value):
            if len(self) >= _MOST:
                self.clear()
            self[pair] = judged
        return judged

    def _judged(self, pair: Pair) -> tuple[bytes, int]:
        name, value = pair
        line, fate = _line(pair), fate_of_response(name)
        if line is None or fate is None or (fate is Fate.CONNECTION and not is_plain_connection(value)):
            return b"", _ODD
        if fate is Fate.DROPPED or fate is Fate.CONNECTION:
            return b"", 0
        key = name.lower()
        if key == "content-type":
            return line, _STREAM if is_event_stream((pair,)) else 0
        if key == "content-encoding":
            return line, 0 if is_plain((pair,)) else _ENCODED
        return line, _MARKS.get(key, 0)


_MARKS = {
    "cache-control": _CACHE,
    "content-length": _LENGTH,
    "date": _DATE,
    "x-accel-buffering": _NOT_OF_STREAMS,
    "content_length": _NOT_OF_STREAMS,
    "x_accel_buffering": _NOT_OF_STREAMS,
    "x-accel_buffering": _NOT_OF_STREAMS,
    "x_accel-buffering": _NOT_OF_STREAMS,
    **dict.fromkeys(REQUEST_ID_HEADERS, _ID),
}
_RESPONSE = _ResponseLines()


# What goes to the client: the lines, whether the body is an event stream, and what Content-Length says. And what is
# recorded: whether the body is not compressed, and the upstream's own id of the request.
AnswerLines = tuple[bytes, bool, int | None, bool, str]


def response_lines(upstream_headers: Headers, *, interception_id: str, date: bytes, keeps_length: bool) -> AnswerLines:
    """The lines of an answer. `date` is the line of Date for one that has none (RFC 9110, 6.6.1).

    `keeps_length` False leaves Content-Length out: where another framing counts (RFC 9112, 6.3), and where there is no
    content (RFC 9110, 8.6). UPSTREAM_UNREACHABLE for names and values that HTTP does not allow.
    """
    lines: list[bytes] = []
    marks = 0
    length_bytes = None
    request_id = ""
    for pair in upstream_headers:
        line, mark = _RESPONSE[pair]
        lines.append(line)
        if mark:
            marks |= mark
            if mark == _LENGTH:
                length_bytes = int(pair[1])
            elif mark == _ID:
                request_id = request_id or pair[1][:MAX_ID_CHARACTERS]
    if marks & _ODD or (marks & _LENGTH and not keeps_length):
        return _by_headers(upstream_headers, interception_id, date, keeps_length=keeps_length)
    is_stream = marks & (_STREAM | _ENCODED) == _STREAM
    if is_stream:
        length_bytes = None
        if marks & (_LENGTH | _NOT_OF_STREAMS):
            kept = [_RESPONSE[pair] for pair in upstream_headers]
            lines = [line for line, mark in kept if not mark & (_LENGTH | _NOT_OF_STREAMS)]
    lines.append(f"X-Interception-Id: {interception_id}\r\n".encode())
    if is_stream:
        lines.append(b"X-Accel-Buffering: no\r\n" if marks & _CACHE else _UNCACHED_STREAM)
    if not marks & _DATE:
        lines.append(date)
    return b"".join(lines), is_stream, length_bytes, not marks & _ENCODED, request_id


_UNCACHED_STREAM = b"X-Accel-Buffering: no\r\nCache-Control: no-cache\r\n"


def _by_headers(upstream_headers: Headers, interception_id: str, date: bytes, *, keeps_length: bool) -> AnswerLines:
    headers = response_headers(upstream_headers, interception_id=interception_id)
    if not keeps_length:
        headers = tuple(pair for pair in headers if pair[0].lower() != "content-length")
    lengths = header_values(headers, "content-length")
    try:
        lines = field_lines(headers)
    except ValueError:
        raise Refused("UPSTREAM_UNREACHABLE", "the upstream's answer is not well-formed HTTP") from None
    if not header_values(headers, "date"):
        lines += date
    return (
        lines,
        is_event_stream(upstream_headers),
        int(lengths[0]) if lengths else None,
        is_plain(upstream_headers),
        request_id_of(upstream_headers),
    )
