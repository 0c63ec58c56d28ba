"""Taps: each is fed a copy of an answer's body as it comes, and says at its end what was in it.

A tap is a framing (event stream, JSON, AWS's binary stream) around the reader of a dialect. Whatever the bytes, it
raises nothing and holds a bounded amount of memory.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from bridged.aws.event_stream import EventStreamBroken, EventStreamDecoder, Message
from bridged.records import AnswerRecords, Trouble
from bridged.taps.content_coding import CodingBroken, Decoding
from bridged.taps.scanner import EventScanner
from bridged.taps.seen import Seen
from bridged.taps.typed_json import last_object

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
KEPT_OF_OVERLONG_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 4 * 1024 * 1024


class AnswerReader(Protocol):
    """Reads the answers of one dialect."""

    seen: Seen

    @property
    def marks(self) -> tuple[bytes, ...]: ...

    @property
    def usage_key(self) -> bytes: ...

    @property
    def usual_end(self) -> bytes: ...

    def event(self, data: bytes) -> None: ...

    def overlong_event(self, begin: bytes, end: bytes) -> None: ...

    def last_events(self, events: Sequence[bytes]) -> None: ...

    def document(self, data: bytes) -> None: ...

    def records(self, *, partial: bool) -> AnswerRecords: ...


class MessageReader(Protocol):
    """Reads the messages of one of Bedrock's streams."""

    seen: Seen

    def message(self, message: Message) -> None: ...

    def records(self, *, partial: bool) -> AnswerRecords: ...


class AnswerTap(Protocol):
    """What the bridge sees of a tap."""

    def feed(self, data: bytes) -> None: ...

    def end(self, *, whole: bool) -> AnswerRecords:
        """What was seen. `whole`: the HTTP answer came to its end. That of a cut stream may, too, so what the stream
        says of itself counts as well. To be called once."""


class EventsTap:
    """Reads server-sent events."""

    __slots__ = ("_reader", "_scanner", "feed")

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader
        self._scanner = EventScanner(reader)
        # A call less for each piece of an answer.
        self.feed = self._scanner.feed

    def end(self, *, whole: bool) -> AnswerRecords:
        """As AnswerTap says. A stream that said that it is over is whole, however its connection ended."""
        self._scanner.end()
        seen = self._reader.seen
        if self._scanner.found_overlong:
            seen.troubles.add(Trouble.OVERLONG)
        return self._reader.records(partial=not (seen.finished or (whole and seen.has_reason_to_finish)))


class DocumentTap(msgspec.Struct):
    """Reads one JSON text, when all of it is there."""

    _reader: AnswerReader
    _first: bytes = b""
    _data: bytearray = msgspec.field(default_factory=bytearray)
    _overlong: bool = False

    # Nothing of what was said: a Struct would print it all.
    __repr__ = object.__repr__

    def feed(self, data: bytes) -> None:
        """Some more of it. Of a text that is too long only the end is kept, where usage stands."""
        held = self._data
        if not held:
            if not self._first:
                # Most texts come in one piece.
                self._first = data
                return
            held += self._first
        held += data
        if len(held) > MAX_DOCUMENT_BYTES or (self._overlong and len(held) > 2 * KEPT_OF_OVERLONG_BYTES):
            self._overlong = True
            del held[:-KEPT_OF_OVERLONG_BYTES]

    def end(self, *, whole: bool) -> AnswerRecords:
        """As AnswerTap says. A text that can be read is whole, however its connection ended."""
        del whole
        reader, data = self._reader, bytes(self._data) or self._first
        self._data.clear()
        if self._overlong:
            reader.seen.troubles.add(Trouble.OVERLONG)
            found = last_object(data, reader.usage_key)
            data = b"" if found is None else b'{"' + reader.usage_key + b'":' + found + b"}"
        if data:
            reader.document(data)
        return reader.records(partial=self._overlong or not reader.seen.finished)


class MessagesTap:
    """Reads application/vnd.amazon.eventstream."""

    __slots__ = ("_broken", "_decoder", "_reader")

    def __init__(self, reader: MessageReader) -> None:
        self._reader = reader
        self._decoder = EventStreamDecoder(max_message_bytes=MAX_MESSAGE_BYTES)
        self._broken = False

    def feed(self, data: bytes) -> None:
        """Some more of it. Nothing can be read after what is corrupt."""
        if self._broken:
            return
        try:
            messages = self._decoder.feed(data)
        except EventStreamBroken as broken:
            self._broken = True
            self._reader.seen.troubles.add(Trouble.GARBAGE)
            messages = broken.messages
        for message in messages:
            self._reader.message(message)

    def end(self, *, whole: bool) -> AnswerRecords:
        """As AnswerTap says. A stream that said that it is over is whole, however its connection ended."""
        del whole
        return self._reader.records(partial=not self._reader.seen.finished)


class DecodingTap:
    """Reads an answer that came compressed, though it was asked for as it is."""

    __slots__ = ("_broken", "_decoding", "_tap")

    def __init__(self, tap: AnswerTap, decoding: Decoding | None) -> None:
        """`decoding` None: the coding is not known, and nothing can be seen."""
        self._tap = tap
        self._decoding = decoding
        self._broken = decoding is None

    def feed(self, data: bytes) -> None:
        """Some more of it. Nothing can be read after what is corrupt or expands too much."""
        if self._broken or self._decoding is None:
            return
        try:
            for piece in self._decoding.feed(data):
                self._tap.feed(piece)
        except CodingBroken:
            self._broken = True

    def end(self, *, whole: bool) -> AnswerRecords:
        """As AnswerTap says."""
        records = self._tap.end(whole=whole and not self._broken)
        if not self._broken:
            return records
        return msgspec.structs.replace(records, troubles=records.troubles | {Trouble.CODING})
