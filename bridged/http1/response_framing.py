"""What an upstream's bytes mean: where the head ends, how the body is framed, where the answer ends. No sockets here.

Heads are read line by line, by the grammar of RFC 9112 without anything that it allows "for robustness"; then come the
rules about what two readers of the same bytes could understand differently (2.2, 5, 6, 11.2). Chunked bodies are judged
by llhttp (httptools, in its strict mode), which reads their heads as well. Whatever breaks a rule is a BadResponse, and
nothing of the read that broke it goes on.

Bodies come out plain, without their chunk framing. Forwarding the framing as it came would be 6 µs cheaper for a burst
of 200 events in one read (4 µs against 10, of about 100 for the whole exchange). It would also hand the upstream's
extensions, trailers and half-sent chunks to the client, where no error event can follow a chunk that broke in the
middle. What makes this cheap: `on_body` is the `append` of a list, so that llhttp calls C for every chunk and Python
for none. With a method in its place the burst costs 13 µs, with `on_chunk_header` and `on_chunk_complete` beside it 22.
Bodies of known length, and those that end with the connection, never go through the parser.
"""

import math
import re
from collections.abc import Callable, Iterable
from enum import Enum

from httptools import HttpParserError, HttpResponseParser

from bridged.http1.fields import LINE_BYTES, TEXT, FieldLines, NotAField
from bridged.model import Headers

# All heads of one answer together, interim ones too; and one line of it.
MAX_HEAD_BYTES = 64 * 1024
MAX_FIELD_BYTES = 32 * 1024
# What may come of a chunked body without a byte of content: extensions, trailers.
MAX_OVERHEAD_BYTES = 64 * 1024

_HEAD_END = b"\r\n\r\n"
_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_VERSION_START = b"HTTP/1."
_STATUS_LINE = re.compile(rf"HTTP/1\.([01]) ([0-9]{{3}})(?: {TEXT}*+)?")
# More digits than any body has, and few enough for every reader's integers.
_LENGTH = re.compile(r"[0-9]{1,18}")
# Of Keep-Alive, which HTTP/1.1 leaves to custom (RFC 2068, 19.7.1): "timeout=5, max=1000".
_TIMEOUT = re.compile(r"\btimeout=([0-9]{1,9})\b", re.IGNORECASE)
# So long before the upstream's own time is over its connection is not used any more: a request takes time to arrive.
KEPT_MARGIN_SECONDS = 1.0
_FOR_EVER = math.inf
_NOT_HTTP = "its answer is not HTTP/1.1"
_HEAD_TOO_LARGE = f"its answer's head is over {MAX_HEAD_BYTES} bytes"
_NOT_WELL_FORMED = "its answer's head is not well-formed HTTP"
_REMEMBERED_STARTS = 256
_LONGEST_START_BYTES = 128


class BadResponse(Exception):
    """These bytes are not an answer that can be passed on. The text is for people and quotes nothing of them."""


class BodyFraming(Enum):
    """How the upstream marked its body's end. For LENGTH it stands in Content-Length, for NONE that means nothing."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


# Looking a member up costs as much as a call, and this is on the path of every read.
_NO_BODY, _COUNTED, _IN_CHUNKS, _UNTIL_CLOSE = BodyFraming


class ResponseReader:
    """Reads one answer after another off one connection: `begin`, then `feed` until `complete`.

    Attributes
        seen       a byte of this answer has come
        framing    None until the final head is complete; then `status` and `headers` are there too
        complete   the answer is over
        is_cleanly_ended   once complete: certainly nothing came after its end
        kept_seconds       with `framing`: how long the upstream keeps the connection without a request; 0: not at all
    """

    __slots__ = (
        "_ends_at",
        "_head",
        "_head_bytes",
        "_is_head_request",
        "_left_bytes",
        "_overhead_bytes",
        "_parse",
        "_parts",
        "complete",
        "framing",
        "headers",
        "is_cleanly_ended",
        "kept_seconds",
        "on_body",
        "seen",
        "status",
    )

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        self.begin(is_head_request=False)

    def begin(self, *, is_head_request: bool) -> None:
        """A request has gone out: what comes now is its answer."""
        self._is_head_request = is_head_request
        self._head = b""
        self._head_bytes = 0
        self._left_bytes = 0
        self._overhead_bytes = 0
        self._ends_at: int | None = None
        self._parse: Callable[[bytes], None] = _no_chunks
        self.seen = False
        self.framing: BodyFraming | None = None
        self.status = 0
        self.headers: Headers = ()
        self.complete = False
        self.is_cleanly_ended = True
        self.kept_seconds = 0.0

    @property
    def is_reusable(self) -> bool:
        """Whether nothing stands against another request on this connection, once the answer is complete."""
        return self.kept_seconds > KEPT_MARGIN_SECONDS and self.is_cleanly_ended

    def feed(self, data: bytes) -> bytes:
        """The plain body bytes that `data` brings, which may be cut anywhere. BadResponse: close the connection.

        What follows the end of the answer is dropped, and makes the connection unusable.
        """
        framing = self.framing
        if framing is None:
            self.seen = True
            return self._feed_head(data)
        if framing is _IN_CHUNKS:
            return self._feed_chunked(data)
        if framing is _COUNTED:
            return self._feed_counted(data)
        return data

    def feed_eof(self) -> None:
        """The upstream has closed its side. BadResponse if that cuts the answer."""
        if self.framing is _UNTIL_CLOSE:
            self.complete = True
        elif not self.complete:
            raise BadResponse("it closed the connection in the middle of its answer")

    def close(self) -> None:
        """Nothing more is read: let go of the parser, which points back here."""
        self._parse = _no_chunks

    def _feed_head(self, data: bytes) -> bytes:
        held_bytes = len(self._head)
        rest = self._head + data if held_bytes else data
        while True:
            end = rest.find(_HEAD_END, max(0, held_bytes - 3)) + 4
            if end < 4:
                self._hold(rest)
                return b""
            self._head_bytes += end
            if self._head_bytes > MAX_HEAD_BYTES:
                raise BadResponse(_HEAD_TOO_LARGE)
            head, rest = rest[:end], rest[end:]
            if self._take_head(head):
                break
            held_bytes = 0
        self._head = b""
        if self.framing is _NO_BODY or (self.framing is _COUNTED and not self._left_bytes):
            self.complete = True
            self.is_cleanly_ended = not rest
            return b""
        return self.feed(rest) if rest else b""

    def _hold(self, beginning: bytes) -> None:
        """Keep the beginning of a head for the next read."""
        # Whatever does not begin as HTTP/1 never will: no need to wait for more of it.
        if not beginning.startswith(_VERSION_START[: len(beginning)]):
            raise BadResponse(_NOT_HTTP)
        if self._head_bytes + len(beginning) > MAX_HEAD_BYTES:
            raise BadResponse(_HEAD_TOO_LARGE)
        self._head = beginning

    def _take_head(self, head: bytes) -> bool:
        """Whether this head is the final one; interim ones (1xx) are judged and forgotten."""
        status, is_latest, headers, verdicts = read_head(head)
        framing, left_bytes, kept_seconds = framing_of(
            status, verdicts, is_latest=is_latest, is_head_request=self._is_head_request
        )
        if status < 200:
            return False
        self.framing, self._left_bytes, self.kept_seconds = framing, left_bytes, kept_seconds
        self.status, self.headers = status, headers
        if framing is _IN_CHUNKS:
            self._begin_chunked(head)
        return True

    def _begin_chunked(self, head: bytes) -> None:
        self._ends_at = None
        parser = HttpResponseParser(self)
        try:
            parser.feed_data(head)
        except HttpParserError:
            raise BadResponse(_NOT_WELL_FORMED) from None
        # A head alone can be all of a message for llhttp; what counts here is the end of chunks.
        self._ends_at = None
        self._parse = parser.feed_data

    def _feed_counted(self, data: bytes) -> bytes:
        left_bytes = self._left_bytes - len(data)
        if left_bytes > 0:
            self._left_bytes = left_bytes
            return data
        self.complete = True
        if left_bytes == 0:
            return data
        self.is_cleanly_ended = False
        return data[:left_bytes]

    def _feed_chunked(self, data: bytes) -> bytes:
        parts = self._parts
        try:
            self._parse(data)
        except HttpParserError:
            if self._ends_at is None:
                parts.clear()
                raise BadResponse("its answer's chunks are not well-formed HTTP") from None
            self.is_cleanly_ended = False
        if self._ends_at is not None:
            self._end_chunked(data)
        if not parts:
            self._overhead_bytes += len(data)
            if self._overhead_bytes > MAX_OVERHEAD_BYTES:
                raise BadResponse("its answer's chunks hold too little")
            return b""
        self._overhead_bytes = 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return body

    def _end_chunked(self, data: bytes) -> None:
        self.complete = True
        del self._parts[self._ends_at :]
        # llhttp skips empty lines before the next answer without a word. So a connection is good for another request
        # only if this read ends with the end that is usual; one with trailers, or cut inside that end, is given up.
        if not data.endswith(b"0\r\n\r\n"):
            self.is_cleanly_ended = False

    # What llhttp calls.

    def on_message_begin(self) -> None:
        if self._ends_at is not None:
            self.is_cleanly_ended = False

    def on_message_complete(self) -> None:
        if self._ends_at is None:
            self._ends_at = len(self._parts)


def _no_chunks(data: bytes) -> None:
    """Stands where no chunked body is being read."""


# What a field means for framing: its name, and its value as far as that counts. A wrong one is told when all are known.
Verdict = tuple[str, str | int | None]


def _judge_length(value: str) -> Verdict:
    value = value.strip(" \t")
    return "content-length", None if _LENGTH.fullmatch(value) is None else int(value)


def _judge_encoding(value: str) -> Verdict:
    return "transfer-encoding", value.strip(" \t").lower()


def _judge_connection(value: str) -> Verdict:
    return "connection", int("close" in [option.strip(" \t").lower() for option in value.split(",")])


def _judge_keep_alive(value: str) -> Verdict:
    match = _TIMEOUT.search(value)
    return "keep-alive", int(match[1]) if match else None


JUDGES = {
    "connection": _judge_connection,
    "content-length": _judge_length,
    "keep-alive": _judge_keep_alive,
    "transfer-encoding": _judge_encoding,
}
_starts: dict[bytes, tuple[int, bool]] = {}
_fields: FieldLines[Verdict] = FieldLines(JUDGES)


def read_head(head: bytes) -> tuple[int, bool, Headers, list[Verdict]]:
    """Status, whether it is HTTP/1.1, headers, and what of them counts for framing. BadResponse if it is no head."""
    start, *lines = head.split(b"\r\n")
    pairs: list[tuple[str, str]] = []
    verdicts: list[Verdict] = []
    try:
        status, is_latest = _starts.get(start) or _read_start(start)
        # What follows the last line end, and the empty line before it, are the end of the head.
        for line in lines[:-2]:
            pair, found = _fields[line]
            pairs.append(pair)
            if found is not None:
                verdicts.append(found)
    except NotAField:
        raise BadResponse(_what_is_wrong(head)) from None
    if len(head) > MAX_FIELD_BYTES and max(map(len, lines)) > MAX_FIELD_BYTES:
        raise BadResponse(f"its answer's head has a field over {MAX_FIELD_BYTES} bytes")
    if status == 101:
        # We never ask for an upgrade; what follows would not be HTTP.
        raise BadResponse("it switched protocols, which nobody asked for")
    return status, is_latest, tuple(pairs), verdicts


def _read_start(line: bytes) -> tuple[int, bool]:
    match = _STATUS_LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise NotAField
    start = (int(match[2]), match[1] == "1")
    if len(line) <= _LONGEST_START_BYTES:
        if len(_starts) >= _REMEMBERED_STARTS:
            _starts.clear()
        _starts[line] = start
    return start


def _what_is_wrong(head: bytes) -> str:
    """Why these bytes are no head."""
    if not head.startswith(_VERSIONS):
        return _NOT_HTTP
    # Every byte that is not text must be part of a CR LF: no bare CR or LF, no NUL, no other control character.
    if len(head.translate(None, LINE_BYTES)) != 2 * head.count(b"\r\n"):
        return "its answer's head has control characters"
    # Folded lines (obs-fold): RFC 9112, 5.2.
    if b"\r\n " in head or b"\r\n\t" in head:
        return "its answer's head has folded lines"
    return _NOT_WELL_FORMED


def framing_of(
    status: int, verdicts: Iterable[Verdict], *, is_latest: bool, is_head_request: bool
) -> tuple[BodyFraming, int, float]:
    """How an answer's body ends, its length where that is known, and for how many seconds the connection may be kept.

    RFC 9112, 6.3, with every choice that it leaves taken to the safe side: what one reader may see differently from
    the next is a BadResponse. `is_latest`: HTTP/1.1; a connection of HTTP/1.0 is never kept.
    """
    length: int | None = None
    encoding: str | None = None
    kept_seconds = _FOR_EVER if is_latest else 0.0
    for key, found in verdicts:
        if key == "connection":
            if found:
                kept_seconds = 0.0
        elif key == "content-length":
            if length is not None:
                raise BadResponse("its answer has two Content-Lengths")
            if not isinstance(found, int):
                raise BadResponse("its answer's Content-Length is not a number")
            length = found
        elif key == "keep-alive":
            if isinstance(found, int):
                kept_seconds = min(kept_seconds, found)
        elif encoding is not None:
            raise BadResponse("its answer has two Transfer-Encodings")
        else:
            encoding = str(found)
    if encoding is not None or status <= 204:
        _check_together(status, length, encoding, is_latest=is_latest)
    if is_head_request or status == 204 or status == 304:
        return _NO_BODY, 0, kept_seconds
    if encoding is not None:
        return _IN_CHUNKS, 0, kept_seconds
    if length is not None:
        return _COUNTED, length, kept_seconds
    return _UNTIL_CLOSE, 0, 0.0


def _check_together(status: int, length: int | None, encoding: str | None, *, is_latest: bool) -> None:
    if status < 100:
        raise BadResponse("its answer's status is not one of HTTP")
    if encoding is not None:
        if length is not None:
            raise BadResponse("its answer has both Content-Length and Transfer-Encoding")
        if encoding != "chunked" or not is_latest:
            raise BadResponse("its answer's Transfer-Encoding is not chunked")
    if status < 200 and (length is not None or encoding is not None):
        raise BadResponse("its interim answer has a body")
    if status == 204 and length:
        raise BadResponse("its answer without content has a length")
