"""Where in an event stream we stand, so that an error event can follow a stream that broke anywhere.

Format: WHATWG HTML, "9.2.6 Interpreting an event stream". Lines end with CR LF, LF or CR; a blank line dispatches the
event. Whatever the length of stream, event or line, a few bytes are remembered.
"""

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")
# "data:", one space, one byte of value: enough to tell what kind of line stands open.
_HEAD_BYTES = 7


class StreamEnd:
    """Follows what was sent to a client, in chunks that may be cut anywhere, even inside a CR LF."""

    __slots__ = ("_after_cr", "_has_data", "_head")

    def __init__(self) -> None:
        self._head = b""  # the beginning of the open line; empty at the start of a line
        self._after_cr = False  # the last byte was a CR: an LF that follows belongs to it
        self._has_data = False  # the open event has a whole data line that is not empty

    def feed(self, chunk: bytes) -> None:
        """Take note of bytes that were sent."""
        if not chunk:
            return
        if chunk.endswith(b"\n\n"):
            # Nearly every chunk ends with an event.
            self._head, self._has_data, self._after_cr = b"", False, False
            return
        # What lies before the last blank line is over.
        start = _after_last(b"\n\n", chunk)
        if chunk.find(b"\r") >= 0:
            start = max(start, _after_last(b"\r\n\r\n", chunk))
        if start:
            self._head, self._has_data = b"", False
        elif self._after_cr and chunk.startswith(b"\n"):
            start = 1
        self._feed_lines(chunk, start)
        self._after_cr = chunk.endswith(b"\r")

    def _feed_lines(self, chunk: bytes, start: int) -> None:
        for end in _LINE_END.finditer(chunk, start):
            self._close_line(self._head + chunk[start : min(end.start(), start + _HEAD_BYTES)])
            start = end.end()
        self._head = (self._head + chunk[start : start + _HEAD_BYTES])[:_HEAD_BYTES]

    def _close_line(self, head: bytes) -> None:
        self._head = b""
        if not head:
            self._has_data = False
        elif _has_value(head):
            self._has_data = True

    @property
    def is_open(self) -> bool:
        """Whether a line or an event with data stands open: what ends here was cut."""
        return bool(self._head) or self._has_data

    @property
    def is_between(self) -> bool:
        """Whether the last byte ended an event, whatever follows. Whole events with LF that follow change nothing."""
        return not (self._head or self._has_data or self._after_cr)

    def closing_bytes(self, *, join: bool = False) -> bytes:
        """What to send before an error event, so that it stands on lines of its own.

        An open line is ended. An event whose data lines are whole is dispatched: the client gets all that arrived. An
        event without data yet is not, and the error event takes its place: parsers of SDKs dispatch on any blank
        line, and then fail on empty data.

        A data line that was cut is data, nothing can unsay it. Clients that go by the event's name (`join`, Anthropic)
        get the error event into the same event: the later name wins, and their SDKs report an error with the text. For
        those that parse the data first, the cut event is dispatched alone: some skip it and read the error
        event that follows, the others (OpenAI's SDKs) raise at the broken JSON. Never does a cut event look whole.
        """
        data_is_cut = _has_value(self._head)
        ending = b"\n" if self._head or self._after_cr else b""
        dispatched = not join if data_is_cut else self._has_data
        return ending + b"\n" if dispatched else ending


def _has_value(head: bytes) -> bool:
    """Whether a line that begins so is a data line with something in it."""
    return head.startswith(b"data:") and head not in (b"data:", b"data: ")


def _after_last(mark: bytes, chunk: bytes) -> int:
    found = chunk.rfind(mark)
    return found + len(mark) if found >= 0 else 0
