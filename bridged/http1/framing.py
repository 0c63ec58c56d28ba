"""Request heads: which bytes are one, what it says, and every way in which it could be read differently.

Two readings must agree before a request exists. `read_head` is the first: regular expressions that are the grammar of
RFC 9112 without anything that it allows "for robustness", then the rules that no grammar expresses. llhttp
(`SecondReading`) is the other: it must accept the same bytes and see the message end where we do. What either refuses
is refused. All that is refused is in tests/data/http1/smuggling, a row each with its source.

Nothing here does I/O, and no text of an error quotes a byte that was sent.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import httptools

from bridged.http1.fields import TCHAR, FieldLines, NotAField
from bridged.model import Headers

# CONNECT is refused by name: with a path for a target llhttp would let it pass. Possessive throughout: a line that does
# not match fails in one pass.
_REQUEST_LINE = re.compile(rf"((?!CONNECT ){TCHAR}++) (/[!-~]*+) HTTP/1\.([01])")
_NEVER_IN_A_HEAD = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_EMPTY_LINES = re.compile(rb"(?:\r\n)*+")
_FIELD_NAME = re.compile(rf"{TCHAR}+")

# One space after the colon or none, as every sender writes them: odd ones are how two readers are set against each
# other. 18 digits fit into every reader's integer.
_CONTENT_LENGTH = re.compile(r" ?(0|[1-9][0-9]{0,17})")
_CHUNKED = re.compile(r" ?chunked", re.IGNORECASE)
# RFC 3986's host and port; user information and anything else has no place here (RFC 9112, 3.2).
_HOST = re.compile(r"[ \t]*(?:(?:[A-Za-z0-9\-._~!$&'()*+;=%]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?)?[ \t]*")
# A query may hold a key, so request lines with one are not remembered.
_REMEMBERED_STARTS = 1024
_LONGEST_START_BYTES = 256

# What a named tuple's own constructor ends in; that takes twice as long, and this is for every request.
_new = tuple.__new__

END_OF_HEAD = b"\r\n\r\n"
INVALID = "INVALID_REQUEST"
TOO_LARGE = "HEAD_TOO_LARGE"


class Malformed(Exception):
    """What came is no request. `reason` is a refusal's; `detail` says what is wrong without quoting it.

    `method`, `target` and `headers` are what is known all the same, for the shape of the answer: a HEAD request is
    refused without a body.
    """

    def __init__(
        self, detail: str, *, reason: str = INVALID, method: str = "", target: str = "/", headers: Headers = ()
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.method = method
        self.target = target
        self.headers = headers


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """How large a head may be: the whole with its empty line, each line of it, and how many fields."""

    head_bytes: int = 64 * 1024
    field_bytes: int = 32 * 1024
    fields: int = 256


class Request(NamedTuple):
    """One request head, complete and judged. Text stands for the bytes as sent (latin-1)."""

    method: str
    target: str
    headers: Headers
    content_length: int | None
    """None where the body is chunked, or where none was announced."""
    chunked: bool
    has_body: bool
    http_10: bool
    keep_alive: bool
    """Whether the client wants to use the connection again (RFC 9112, 9.3)."""
    expects_continue: bool
    upgrade: bool
    """An upgrade was asked for. We never switch; what follows such a request on its connection is not read."""


def empty_lines(data: bytes) -> int:
    """How many bytes of empty lines come first: before a request they are no part of it (RFC 9112, 2.2)."""
    match = _EMPTY_LINES.match(data)
    return match.end() if match else 0


def read_head(raw: bytes, limits: HeadLimits) -> Request:
    """The request whose head these bytes are, its empty line included. Raises Malformed."""
    if len(raw) > limits.head_bytes:
        raise Malformed(f"the head is over the limit of {limits.head_bytes} bytes", reason=TOO_LARGE)
    lines = raw.split(b"\r\n")
    start = lines[0]
    pairs: list[tuple[str, str]] = []
    judged: list[_Verdict] = []
    try:
        method, target, http_10 = _starts.get(start) or _read_start(start)
        # What follows the last line end, and the empty line before it, are the end of the head.
        for line in lines[1:-2]:
            pair, verdict = _fields[line]
            pairs.append(pair)
            if verdict is not None:
                judged.append(verdict)
    except NotAField:
        text = raw.decode("latin-1")
        raise Malformed(_what_is_wrong(text), method=_method_of(text)) from None
    headers = tuple(pairs)
    try:
        if len(raw) > limits.field_bytes or len(pairs) > limits.fields:
            _check_sizes(raw, headers, limits)
        return _judge(method, target, headers, judged, http_10=http_10)
    except Malformed as malformed:
        malformed.method, malformed.target, malformed.headers = method, target, headers
        raise


def _read_start(line: bytes) -> tuple[str, str, bool]:
    """Method, target, and whether the client speaks HTTP/1.0."""
    match = _REQUEST_LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise NotAField
    start = (match[1], match[2], match[3] == "0")
    if len(line) <= _LONGEST_START_BYTES and b"?" not in line:
        if len(_starts) >= _REMEMBERED_STARTS:
            _starts.clear()
        _starts[line] = start
    return start


# What a field means for framing: its name, and a number or words of its value. A wrong one is told when all are known.
_Verdict = tuple[str, int | None, Sequence[str]]


def _judge_host(value: str) -> _Verdict:
    return "host", None if _HOST.fullmatch(value) is None else 1, ()


def _judge_content_length(value: str) -> _Verdict:
    match = _CONTENT_LENGTH.fullmatch(value)
    return "content-length", None if match is None else int(match[1]), ()


def _judge_connection(value: str) -> _Verdict:
    return "connection", None, tuple([option.strip(" \t").lower() for option in value.split(",")])


def _judge_transfer_encoding(value: str) -> _Verdict:
    return "transfer-encoding", None if _CHUNKED.fullmatch(value) is None else 1, ()


def _judge_expect(value: str) -> _Verdict:
    return "expect", int(value.strip(" \t").lower() == "100-continue"), ()


def _judge_upgrade(value: str) -> _Verdict:
    del value
    return "upgrade", None, ()


_starts: dict[bytes, tuple[str, str, bool]] = {}
_fields: FieldLines[_Verdict] = FieldLines(
    {
        "connection": _judge_connection,
        "content-length": _judge_content_length,
        "expect": _judge_expect,
        "host": _judge_host,
        "transfer-encoding": _judge_transfer_encoding,
        "upgrade": _judge_upgrade,
    }
)


def _judge(method: str, target: str, headers: Headers, judged: Iterable[_Verdict], *, http_10: bool) -> Request:
    """The rules about several fields together."""
    hosts = 0
    content_length: int | None = None
    chunked = keeps = closes = upgrade = expects = upgrades = False
    for key, number, options in judged:
        if key == "host":
            hosts += 1
            if number is None:
                raise Malformed("Host is not a host with an optional port")
        elif key == "content-length":
            if number is None:
                raise Malformed("Content-Length is not a plain number")
            if content_length is not None:
                # RFC 9112, 6.3 would let equal ones pass; nobody sends them but to see who reads which.
                raise Malformed("Content-Length is there twice")
            content_length = number
        elif key == "connection":
            closes = closes or "close" in options
            keeps = keeps or "keep-alive" in options
            upgrades = upgrades or "upgrade" in options
        elif key == "transfer-encoding":
            if chunked or number is None:
                raise Malformed("the only Transfer-Encoding of a request is one 'chunked'")
            chunked = True
        elif key == "expect":
            expects = bool(number)
        else:
            upgrade = True
    if hosts > 1 or not (hosts or http_10):
        raise Malformed("a request has exactly one Host")
    if chunked:
        _check_chunked(content_length, http_10=http_10, upgrade=upgrade and upgrades)
    return _new(
        Request,
        (
            method,
            target,
            headers,
            content_length,
            chunked,
            chunked or bool(content_length),
            http_10,
            not closes and not upgrade and (keeps or not http_10),
            expects and not http_10,
            upgrade and upgrades,
        ),
    )


def _check_chunked(content_length: int | None, *, http_10: bool, upgrade: bool) -> None:
    if content_length is not None:
        raise Malformed("a request has Content-Length or Transfer-Encoding, not both")
    if http_10:
        raise Malformed("HTTP/1.0 has no Transfer-Encoding")
    if upgrade:
        raise Malformed("a request for an upgrade has no chunked body")


def _check_sizes(raw: bytes, headers: Headers, limits: HeadLimits) -> None:
    if len(headers) > limits.fields:
        raise Malformed(f"there are more than {limits.fields} header fields", reason=TOO_LARGE)
    if max(map(len, raw.split(b"\r\n"))) > limits.field_bytes:
        raise Malformed(f"a line of the head is over the limit of {limits.field_bytes} bytes", reason=TOO_LARGE)


def check_beginning(beginning: bytes | bytearray, scanned: int, limits: HeadLimits) -> None:
    """Raise Malformed if these bytes cannot become a head any more. `scanned` of them were checked before.

    Without this, a client that ends its lines with a bare LF, or that speaks something else, would only learn it from
    the time-out.
    """
    if len(beginning) >= limits.head_bytes:
        raise Malformed(f"the head is over the limit of {limits.head_bytes} bytes", reason=TOO_LARGE)
    if _NEVER_IN_A_HEAD.search(beginning, max(scanned - 2, 0)) is not None:
        raise Malformed("the head has control characters, or lines that do not end in CR LF")
    end = beginning.find(b"\r\n", max(scanned - 1, 0))
    if end >= 0 and beginning.find(b"\r\n") == end:
        line = bytes(beginning[:end]).decode("latin-1")
        if _REQUEST_LINE.fullmatch(line) is None:
            raise Malformed(_what_is_wrong_with_line(line), method=_method_of(line))


def _method_of(text: str) -> str:
    return "HEAD" if text.startswith("HEAD ") else ""


def _what_is_wrong(text: str) -> str:
    """Why a head is none, for the one who wrote it."""
    if _NEVER_IN_A_HEAD.search(text.encode("latin-1")) is not None:
        return "the head has control characters, or lines that do not end in CR LF"
    line, *fields = text.split("\r\n")
    if _REQUEST_LINE.fullmatch(line) is None:
        return _what_is_wrong_with_line(line)
    if any(field.startswith((" ", "\t")) for field in fields):
        return "a header field is folded over several lines"
    names = (field.partition(":") for field in fields[:-2])
    if not all(colon and _FIELD_NAME.fullmatch(name) for name, colon, _ in names):
        return "the name of a header field is not a token followed by a colon"
    return "the head is not well-formed HTTP"


def _what_is_wrong_with_line(line: str) -> str:
    method, _, rest = line.partition(" ")
    target, space, version = rest.rpartition(" ")
    if _FIELD_NAME.fullmatch(method) is None or not space or " " in target:
        return "the first line is not a method, a target and HTTP/1.1"
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        return "the bridge speaks HTTP/1.1 and HTTP/1.0"
    if method == "CONNECT":
        return "the bridge is no proxy: CONNECT is not supported"
    if not target.startswith("/"):
        return "the target is not a path that begins with '/'"
    return "the target has characters other than visible ASCII"


class _Ends:
    """How many messages llhttp has seen end."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def on_message_complete(self) -> None:
        """llhttp's word that a message is complete."""
        self.count += 1


class SecondReading:
    """llhttp's reading of the messages of one connection, in its strict mode.

    It is told nothing but the bytes and asked nothing but whether a message ended with them: no callback a field or a
    piece of a body, which is what makes a second opinion cheap.
    """

    __slots__ = ("__weakref__", "_ends", "_parser")

    def __init__(self) -> None:
        # The parser holds what it reports to: were that this reading, only the collector could end the two.
        self._ends = _Ends()
        self._parser = httptools.HttpRequestParser(self._ends)

    def confirms(self, part: bytes | memoryview, *, ends: bool) -> bool:
        """Whether llhttp accepts the next part of a message, and sees it end with the part's last byte or not at all.

        After False, after an upgrade and after a message that says `Connection: close` it is of no more use.
        """
        self._ends.count = 0
        try:
            self._parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            # Raised after a head that asks for an upgrade; llhttp takes no body after it for ours.
            return True
        except httptools.HttpParserError:
            return False
        return self._ends.count == ends
