"""Finds the few events of an event stream that matter, in chunks that may be cut anywhere, even inside a CR LF.

Most of a stream is text that no tap wants. So nothing is taken apart that does not hold one of the marks that a reader
asks for: each is a part of one JSON token, so that white space and line ends between tokens do not matter. A mark in
a text costs a look at its event and nothing else.

Format: WHATWG HTML, "9.2.6 Interpreting an event stream". The end of a stream ends its last event too, which browsers
discard: upstreams forget the blank line after `[DONE]`.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

MAX_EVENT_BYTES = 1024 * 1024
# Of what is over that bound, enough to find usage in, which stands near the end, and what kind of event it is, which
# stands at the beginning.
KEPT_OF_OVERLONG_BYTES = 64 * 1024
_BEGIN_BYTES = 4096
# Looking at many short pieces costs little more than at one, so they are put together, before they come here, to such.
TOGETHER_BYTES = 4096
# The last events say how a stream ended; errors may have a few kilobytes of words.
_TAIL_BYTES = 4096
_LAST_EVENTS = 4
# What is open is put before the next piece, as long as it is so short that copying it costs nothing.
_SHORT_BYTES = 4096

_BOM = b"\xef\xbb\xbf"
_BLANK = b"\n\n"
_DATA = b"data: "
_ERROR = b'"error"'
_LINE_FEED = 0x0A


class Reader(Protocol):
    """Who is told. Empty `marks` stand for "all events"; they may change with each event. The
    longer, the faster they are found. Of an event that is too long `overlong_event` is told how its lines begin and
    end. `usual_end` is the data of the last event of a whole stream, if that is always the same; others are empty.
    Where it is there, of `last_events` only errors matter."""

    @property
    def marks(self) -> tuple[bytes, ...]: ...

    @property
    def usual_end(self) -> bytes: ...

    def event(self, data: bytes) -> None: ...

    def overlong_event(self, begin: bytes, end: bytes) -> None: ...

    def last_events(self, events: Sequence[bytes]) -> None: ...


class EventScanner:
    """Follows one stream. Holds at most one event that is not whole yet, and some kilobytes."""

    __slots__ = (
        "_after_cr", "_at_start", "_before_tail", "_begin", "_is_between", "_open", "_overlong", "_reader", "_tail",
        "found_overlong",
    )  # fmt: skip

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._open = bytearray()  # of the event that is not whole yet; of an overlong one only its end
        self._overlong = False
        self._begin = b""  # of an overlong one
        self._after_cr = False  # the last byte was a CR: an LF that follows belongs to it
        self._at_start = True
        # Behind a whole event, and not the first: nothing is held, and the reader asks for some events only.
        self._is_between = False
        self._tail = self._before_tail = b""
        self.found_overlong = False

    def feed(self, chunk: bytes) -> None:
        """Tell the reader of the events that became whole and matter, in order."""
        # What has no mark needs no other look, whatever its lines end with.
        if self._is_between and chunk[-2:] == _BLANK and not self._has_mark(chunk):
            self._keep_tail(chunk)
            return
        self._feed_slowly(chunk)
        reader = self._reader
        is_between = not (self._open or self._after_cr or self._at_start or self._overlong)
        self._is_between = is_between and bool(reader.marks)

    def _feed_slowly(self, chunk: bytes) -> None:
        # Not `in`, which first tries whether it is asked for a number.
        if self._after_cr or chunk.find(b"\r") >= 0:
            chunk = self._behind_line_end(chunk)
        if self._open and len(self._open) <= _SHORT_BYTES and not self._overlong:
            chunk = bytes(self._open) + chunk
            self._open.clear()
        if self._open:
            chunk = self._closed(chunk)
        elif not chunk.endswith(_BLANK):
            # Nearly every chunk ends with an event.
            end = chunk.rfind(_BLANK) + 2
            if end == 1:
                end = 0
            self._open += chunk[end:]
            self._bound()
            chunk = chunk[:end]
        if not chunk:
            return
        self._keep_tail(chunk)
        if self._at_start:
            chunk = chunk[self._first(chunk) :]
        marks = self._reader.marks
        if not marks:
            self._tell_all(chunk)
            return
        places = [chunk.find(mark) for mark in marks]
        if max(places) >= 0:
            self._tell_marked(chunk, places)

    def _keep_tail(self, chunk: bytes) -> None:
        """Keep what is around the last data, however many comments follow it."""
        last = chunk.rfind(b"data:")
        if last < 0:
            return
        # References to short pieces cost nothing, where adding them up would.
        self._before_tail = self._tail
        self._tail = chunk if len(chunk) <= _SHORT_BYTES else chunk[max(last - _TAIL_BYTES, 0) : last + _TAIL_BYTES]

    def _has_mark(self, chunk: bytes) -> bool:
        # A loop costs less than `any`.
        for mark in self._reader.marks:  # noqa: SIM110
            if chunk.find(mark) >= 0:
                return True
        return False

    def end(self) -> None:
        """The stream is over: what is open is taken for an event, and the last events are shown as such."""
        if self._open and not self._overlong:
            self._feed_slowly(_BLANK)
        # Either part may end in a cut event, or in a comment.
        between = b"" if self._before_tail.endswith(_BLANK) else _BLANK
        text = self._before_tail + between + self._tail
        usual_end = self._reader.usual_end
        if usual_end and _ends_with(text, usual_end):
            self._reader.last_events([usual_end])
        else:
            self._reader.last_events(_last_data(_with_line_feeds(text)))

    def _behind_line_end(self, chunk: bytes) -> bytes:
        """The lines that begin in this piece, with LF at their ends."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return chunk
        self._after_cr = chunk.endswith(b"\r")
        return _with_line_feeds(chunk)

    def _closed(self, chunk: bytes) -> bytes:
        """The events that are whole now, the open one first. What is left stays open."""
        held = self._open
        # The blank line may have been cut.
        start = len(held) - 1
        held += chunk
        end = held.rfind(_BLANK, start)
        if end < 0:
            self._bound()
            return b""
        if self._overlong:
            first = held.find(_BLANK, start)
            self._overlong = False
            self._reader.overlong_event(self._begin, bytes(held[:first]))
            whole = bytes(held[first + 2 : end + 2])
        else:
            whole = bytes(held[: end + 2])
        del held[: end + 2]
        self._bound()
        return whole

    def _bound(self) -> None:
        if len(self._open) > MAX_EVENT_BYTES or (self._overlong and len(self._open) > 2 * KEPT_OF_OVERLONG_BYTES):
            if not self._overlong:
                self._begin = bytes(self._open[:_BEGIN_BYTES])
            del self._open[:-KEPT_OF_OVERLONG_BYTES]
            self._overlong = self.found_overlong = True

    def _first(self, chunk: bytes) -> int:
        """Show the first event, which has the answer's id, whatever is in it; where the rest begins."""
        start = 0
        while start < len(chunk):
            end = chunk.find(_BLANK, start)
            if end < 0:
                return len(chunk)
            data = _data_of(chunk[start:end].removeprefix(_BOM))
            start = end + 2
            if data:
                self._at_start = False
                self._reader.event(data)
                break
        return start

    def _tell_all(self, chunk: bytes) -> None:
        for data in _data(chunk.split(_BLANK)):
            self._reader.event(data)

    def _tell_marked(self, chunk: bytes, places: list[int]) -> None:
        """Tell of the events with a mark; `places` says where the first of each is, -1 where there is none."""
        if chunk.find(_BLANK) == len(chunk) - len(_BLANK):
            # A piece that is one event, as they come from a model that takes its time.
            if data := _data_of(chunk[: -len(_BLANK)]):
                self._reader.event(data)
            return
        for event in self._marked(chunk, places):
            if data := _data_of(event):
                self._reader.event(data)

    def _marked(self, chunk: bytes, places: list[int]) -> Iterator[bytes]:
        """The events with a mark. The chunk is searched once for each; they are asked for again after each event."""
        reader = self._reader
        # Of what was asked for before: where the next one is does not change.
        known: dict[tuple[bytes, ...], list[int]] = {}
        start = 0
        marks = reader.marks
        length = len(chunk)
        places = [length if place < 0 else place for place in places]
        while True:
            if marks is not reader.marks:
                known[marks] = places
                marks = reader.marks
                places = known.get(marks) or [-1] * len(marks)
            for number, place in enumerate(places):
                if place < start:
                    found = chunk.find(marks[number], start)
                    places[number] = length if found < 0 else found
            place = min(places)
            if place >= length:
                return
            begin = chunk.rfind(_BLANK, start, place)
            begin = start if begin < 0 else begin + 2
            end = chunk.find(_BLANK, place)
            end = length if end < 0 else end
            yield chunk[begin:end]
            start = end


def _with_line_feeds(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if data.find(b"\r") >= 0 else data


def _ends_with(text: bytes, usual_end: bytes) -> bool:
    """Whether the last events are data to their ends, the very last this one, and none of them an error."""
    before, *events = text.rsplit(_BLANK, _LAST_EVENTS + 1)
    if len(events) <= _LAST_EVENTS or events[-1] or events[-2] != _DATA + usual_end:
        return False
    for event in events[:-2]:
        if not event.startswith(_DATA):
            return False
    return text.find(_ERROR, len(before)) < 0


def _last_data(text: bytes) -> list[bytes]:
    """The data of the last events, in order. Comments and names are none."""
    # Nearly always they are what stands behind the last few blank lines.
    for blanks in (_LAST_EVENTS + 1, 3 * _LAST_EVENTS):
        found = _data(text.rsplit(_BLANK, blanks)[1:])
        if len(found) >= _LAST_EVENTS:
            return found[-_LAST_EVENTS:]
    return _data(text.split(_BLANK))[-_LAST_EVENTS:]


def _data(events: list[bytes]) -> list[bytes]:
    return [data for event in events if event and (data := _data_of(event))]


def _data_of(event: bytes) -> bytes:
    """The data of an event, empty if it has none. Comments, names and other fields are passed over."""
    data = event.removeprefix(b"data: ")
    if len(data) < len(event) and not data.partition(b"\n")[1]:
        # Nearly always it is on one line.
        return data
    at = event.find(b"data:")
    if at >= 0 and (at == 0 or event[at - 1] == _LINE_FEED) and event.find(b"\n", at) < 0:
        # Or it is the last line, behind a name.
        return event[at + 5 :].removeprefix(b" ")
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)
