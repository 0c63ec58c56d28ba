"""Usage of a streamed Chat request that did not ask for it: the bridge asks, and takes the extra chunk out again.

Two edits of bytes, and the only ones that taps make. A request gets `stream_options.include_usage`; all else in it
stays. Of the answer one event is left out, the one with usage and no choices, and of the other chunks `"usage":null`,
which they have only where usage was asked for. (An upstream that has it always says the same without.)

Format: platform.openai.com, "Chat Completions", `stream_options`; WHATWG HTML, "9.2 Server-sent events".
"""

import re

import msgspec

from bridged.json_edit import JsonObject, MalformedJson, is_object
from bridged.taps.openai_chat import USAGE_MARK
from bridged.taps.typed_json import decoded

# The extra chunk is short. An open event that is longer is none, and is not held back.
MAX_HELD_BYTES = 16 * 1024

_OPTIONS = b'"stream_options":{"include_usage":true}'
# Two line ends in a row; atomic, so that a CR LF is never taken for two of them.
_EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
# In a text the quotes would be escaped, so what is found is a member.
_NULLS = (b',"usage":null', b', "usage": null')
_OPENING = re.compile(rb"[ \t\r\n]*\{")
# A blank line is of four bytes at most: this is what there may be of one that is cut.
_LONG_END_BYTES = 3
_BOM = b"\xef\xbb\xbf"
# A union with None would take nothing but null.
_NOTHING = msgspec.Raw()


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Asked(msgspec.Struct, gc=False):
    stream_options: _StreamOptions | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None
    error: msgspec.Raw = _NOTHING


_asked = msgspec.json.Decoder(_Asked)
_chunks = msgspec.json.Decoder(_Chunk)


def asking_for_usage(body: bytes) -> bytes | None:
    """The body of a streaming Chat request, asking for usage; None where it does already, or cannot be edited.

    The body is a JSON object that has been read before: it has `stream`, so it is not empty.
    """
    if body.rfind(b"stream_options") < 0:
        opening = _OPENING.match(body)
        return None if opening is None else opening[0] + _OPTIONS + b"," + body[opening.end() :]
    asked = decoded(_asked, body)
    if asked is None or (asked.stream_options is not None and asked.stream_options.include_usage):
        return None
    try:
        request = JsonObject(body)
        options = request.get("stream_options")
        if options is None or not is_object(options):
            options = b"{}"
        edited = JsonObject(options)
        edited.put("include_usage", b"true")
        request.put("stream_options", edited.encode())
        return request.encode()
    except MalformedJson:
        return None


class UsageChunkFilter:
    """Takes the extra chunk out of one stream, which may be cut anywhere.

    What is not whole yet is held back, as far as it may be the extra chunk; no client can read it before it is whole.

    While `is_between` holds, a piece that ends with a blank line (of LF) and has no USAGE_MARK need not be fed: it
    passes, but for each `null` in it.
    """

    __slots__ = ("_after_cr", "_has_begun", "_held", "_in_long", "_long_end", "_took_out", "is_between", "null")

    def __init__(self) -> None:
        self.null: bytes | None = None
        """How chunks say that they have no usage, if they do."""
        self._has_begun = False
        self._held = b""
        self.is_between = False
        """Whether nothing is held, nothing stands open, and it is not the beginning."""
        self._in_long = False  # inside an event that is too long to be it
        self._long_end = b""  # its last bytes: the blank line that ends it may be cut
        self._after_cr = False  # the last event ended with a CR: an LF that follows is a part of it
        self._took_out = False  # the last event was the extra chunk

    def feed(self, data: bytes) -> bytes:
        """What goes to the client now."""
        fed = self._without_null(self._feed_slowly(data))
        self.is_between = self._has_begun and not (self._held or self._after_cr or self._in_long)
        return fed

    def _feed_slowly(self, data: bytes) -> bytes:
        if not data:
            return data
        if self._after_cr:
            return self._after_line_end(data)
        if self._in_long:
            return self._after_long(data)
        return self._filtered(data)

    def end(self) -> bytes:
        """What was held back of an event that was cut."""
        held, self._held = self._held, b""
        return self._without_null(held)

    def _without_null(self, data: bytes) -> bytes:
        if not self._has_begun:
            # An upstream has it in every chunk of the answer or in none; Azure sends a chunk before those.
            begin = data.find(b'"delta"')
            self._has_begun = begin >= 0
            # The first of them tells; the rest of a long piece need not be looked through.
            end = data.find(b"\n\n", begin) if self._has_begun else -1
            self.null = next((null for null in _NULLS if data.find(null, 0, end if end >= 0 else None) >= 0), None)
        return data if self.null is None else data.replace(self.null, b"")

    def _after_line_end(self, data: bytes) -> bytes:
        """An LF behind the CR that an event ended with goes where the event went."""
        self._after_cr = False
        if not data.startswith(b"\n"):
            return self._feed_slowly(data)
        return (b"" if self._took_out else b"\n") + self._feed_slowly(data[1:])

    def _after_long(self, data: bytes) -> bytes:
        text = self._long_end + data
        found = _EVENT_END.search(text)
        if found is None:
            self._long_end = text[-_LONG_END_BYTES:]
            return data
        self._in_long = False
        end = max(found.end() - len(self._long_end), 0)
        self._after_cr, self._took_out = data[end - 1 :] == b"\r", False
        return data[:end] + self._filtered(data[end:])

    def _filtered(self, data: bytes) -> bytes:
        text = self._held + data
        if text.find(b"\r") < 0:
            return self._filtered_lines(text)
        passed: list[bytes] = []
        start = 0
        for found in _EVENT_END.finditer(text, max(len(self._held) - _LONG_END_BYTES, 0)):
            self._took_out = self._is_extra(text[start : found.start()])
            if not self._took_out:
                passed.append(text[start : found.end()])
            start = found.end()
            self._after_cr = start == len(text) and text.endswith(b"\r")
        passed.append(self._released(text[start:]))
        return b"".join(passed)

    def _filtered_lines(self, text: bytes) -> bytes:
        """Likewise where lines end in LF only, as nearly all do: nothing is taken apart that has no usage."""
        whole_end = text.rfind(b"\n\n") + 2
        if whole_end < 2:
            return self._released(text)
        place = text.find(USAGE_MARK, 0, whole_end)
        if place < 0 and whole_end == len(text):
            self._held = b""
            return text
        passed: list[bytes] = []
        kept = 0
        while place >= 0:
            begin = text.rfind(b"\n\n", kept, place)
            begin = kept if begin < 0 else begin + 2
            end = text.find(b"\n\n", place) + 2
            if self._is_extra(text[begin : end - 2]):
                passed.append(text[kept:begin])
                kept = end
            place = text.find(USAGE_MARK, end, whole_end)
        passed.append(text[kept:whole_end])
        passed.append(self._released(text[whole_end:]))
        return b"".join(passed)

    def _released(self, text: bytes) -> bytes:
        """What goes out at once of an event that is not whole: nothing, or all where it is too long to be the chunk."""
        if len(text) <= MAX_HELD_BYTES:
            self._held = text
            return b""
        self._held = b""
        self._long_end = text[-_LONG_END_BYTES:]
        self._in_long = True
        return text

    def _is_extra(self, event: bytes) -> bool:
        if event.find(USAGE_MARK) < 0:
            return False
        lines = [line[5:] for line in _LINE_END.split(event.removeprefix(_BOM)) if line.startswith(b"data:")]
        chunk = decoded(_chunks, b"\n".join(lines))
        return chunk is not None and chunk.choices == [] and bool(chunk.usage) and bytes(chunk.error) in (b"", b"null")
