"""What an upstream's bytes mean: where the head ends, where the body does, and with it the answer. No sockets here.

Heads are response_head.py's. Chunked bodies are judged by llhttp (httptools, in its strict mode), which reads their
heads as well. Whatever breaks a rule is a BadResponse, and nothing of the read that broke it goes on.

Bodies come out plain, without their chunk framing. Forwarding the framing as it came would be 6 µs cheaper for a burst
of 200 events in one read (4 µs against 10, of about 100 for the whole exchange). It would also hand the upstream's
extensions, trailers and half-sent chunks to the client, where no error event can follow a chunk that broke in the
middle. What makes this cheap: `on_body` is the `append` of a list, so that llhttp calls C for every chunk and Python
for none. With a method in its place the burst costs 13 µs, with `on_chunk_header` and `on_chunk_complete` beside it 22.
Bodies of known length, and those that end with the connection, never go through the parser.
"""

from collections.abc import Callable

from httptools import HttpParserError, HttpResponseParser

from bridged.http1.response_head import (
    NOT_HTTP,
    NOT_WELL_FORMED,
    BadResponse,
    BodyFraming,
    framing_of,
    read_head,
)
from bridged.model import Headers

# All heads of one answer together, interim ones too.
MAX_HEAD_BYTES = 64 * 1024
# What may come of a chunked body without a byte of content: extensions, trailers.
MAX_OVERHEAD_BYTES = 64 * 1024
# So long before the upstream's own time is over its connection is not used any more: a request takes time to arrive.
KEPT_MARGIN_SECONDS = 1.0

_HEAD_END = b"\r\n\r\n"
_VERSION_START = b"HTTP/1."
_HEAD_TOO_LARGE = f"its answer's head is over {MAX_HEAD_BYTES} bytes"


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
            raise BadResponse(NOT_HTTP)
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
            raise BadResponse(NOT_WELL_FORMED) from None
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
