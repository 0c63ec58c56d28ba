"""Reads answers of Bedrock: Converse in its own words, InvokeModel in those of the model's vendor.

Converse: `metadata` at the end has the usage; input tokens leave out cached ones already. InvokeModel: each `chunk` has
an event of the vendor in it. Of vendors other than Anthropic there is Bedrock's own count, in the last event of a
stream or in the headers of a whole answer, and nothing else; their fields may be named as Anthropic's and be others.

Format: AWS, "Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream" (Bedrock API Reference).
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from bridged.aws.event_stream import Message
from bridged.model import Headers, header_values
from bridged.records import AnswerRecords, Trouble
from bridged.taps.anthropic_messages import InvocationMetrics, MessagesReader
from bridged.taps.seen import Seen
from bridged.taps.typed_json import Count, decoded, last_object

_REASONING = "reasoning_content"
# The type of a call that is none of the client's.
_BEDROCK_RUNS_IT = "server_tool_use"
_METADATA, _START, _DELTA = "metadata", "contentBlockStart", "contentBlockDelta"
_COUNT_HEADERS = {
    "input": "x-amzn-bedrock-input-token-count",
    "output": "x-amzn-bedrock-output-token-count",
    "cache_read": "x-amzn-bedrock-cache-read-input-token-count",
    "cache_write": "x-amzn-bedrock-cache-write-input-token-count",
}
_MAX_COUNT_DIGITS = 15
_METRICS = b'"amazon-bedrock-invocationMetrics"'
_TYPES_OF_ANTHROPIC = frozenset({
    "message", "message_start", "message_delta", "message_stop", "content_block_start", "content_block_delta",
    "content_block_stop", "ping", "error",
})  # fmt: skip
# A union with None would take nothing but null.
_NOTHING = msgspec.Raw()


class _CacheDetail(msgspec.Struct, gc=False, rename="camel"):
    ttl: str | None = None
    input_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False, rename="camel"):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_write_input_tokens: Count | None = None
    cache_details: list[_CacheDetail] | None = None


class _ToolUse(msgspec.Struct, gc=False, rename="camel"):
    tool_use_id: str | None = None
    name: str | None = None
    type: str | None = None
    # Text in fragments of a stream, JSON in a whole answer.
    input: msgspec.Raw = _NOTHING


class _ReasoningText(msgspec.Struct, gc=False):
    text: str | None = None


class _Reasoning(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    reasoning_text: _ReasoningText | None = None


class _Block(msgspec.Struct, gc=False, rename="camel"):
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None


class _Event(msgspec.Struct, gc=False, rename="camel"):
    content_block_index: int = 0
    start: _Block | None = None
    delta: _Block | None = None
    usage: _Usage | None = None


class _MessageContent(msgspec.Struct, gc=False):
    content: list[_Block] | None = None


class _Output(msgspec.Struct, gc=False):
    message: _MessageContent | None = None


class _Document(msgspec.Struct, gc=False):
    output: _Output | None = None
    usage: _Usage | None = None


class _Chunk(msgspec.Struct, gc=False):
    data: bytes = msgspec.field(name="bytes", default=b"")


class _Exception(msgspec.Struct, gc=False):
    message: str | None = None


class _OfAnyVendor(msgspec.Struct, gc=False):
    type: Any = None
    metrics: InvocationMetrics | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


_events = msgspec.json.Decoder(_Event)
_documents = msgspec.json.Decoder(_Document)
_usages = msgspec.json.Decoder(_Usage)
_texts = msgspec.json.Decoder(str)
_chunks = msgspec.json.Decoder(_Chunk)
_exceptions = msgspec.json.Decoder(_Exception)
_of_any_vendor = msgspec.json.Decoder(_OfAnyVendor | list[msgspec.Raw])


class ConverseReader:
    """One answer of Converse or ConverseStream. Neither has an id of its own: `request_id` is AWS's."""

    marks: tuple[bytes, ...] = ()
    usage_key = b"usage"
    usual_end = b""

    __slots__ = ("seen",)

    def __init__(self, *, request_id: str) -> None:
        self.seen = Seen()
        self.seen.identify(request_id, None)

    def message(self, message: Message) -> None:
        """One message of a stream."""
        kind = message.headers.get(":event-type")
        payload = message.payload
        if kind is None:
            _fail(self.seen, message)
        elif kind == _DELTA:
            if b'"toolUse"' in payload or b'"reasoningContent"' in payload:
                self.event(payload)
        elif kind in (_START, _METADATA):
            self.event(payload)
            self.seen.finished = self.seen.finished or kind == _METADATA
        elif kind == "contentBlockStop":
            self._end_block(payload)

    def event(self, data: bytes) -> None:
        """The payload of a message."""
        event = decoded(_events, data)
        if event is None:
            self._salvage(data)
            return
        self._count(event.usage)
        index = event.content_block_index
        tool = event.start.tool_use if event.start else None
        if tool is not None and tool.type != _BEDROCK_RUNS_IT:
            self.seen.tool((index, 0), name=tool.name, call_id=tool.tool_use_id)
        if event.delta is not None:
            self._extend(index, event.delta)

    def overlong_event(self, begin: bytes, end: bytes) -> None:
        """Converse sends no event stream of this kind."""

    def last_events(self, events: Sequence[bytes]) -> None:
        """Converse sends no event stream of this kind."""

    def document(self, data: bytes) -> None:
        """A whole answer."""
        document = decoded(_documents, data)
        if document is None:
            self._salvage(data)
            return
        self.seen.finished = True
        self._count(document.usage)
        message = document.output.message if document.output else None
        for index, block in enumerate((message.content if message else None) or ()):
            self._take(index, block)

    def records(self, *, partial: bool) -> AnswerRecords:
        """What was seen; `partial` if the answer was cut."""
        return self.seen.records(self.seen.counts, partial=partial)

    def _extend(self, index: int, delta: _Block) -> None:
        if delta.tool_use is not None and (raw := bytes(delta.tool_use.input)):
            fragment = decoded(_texts, raw)
            if fragment is None:
                self.seen.troubles.add(Trouble.GARBAGE)
            elif self.seen.tool_at((index, 0)) is not None:
                self.seen.tool_input((index, 0), fragment)
        if delta.reasoning_content is not None:
            self.seen.thought((index, 0), delta.reasoning_content.text, source=_REASONING)

    def _end_block(self, payload: bytes) -> None:
        event = decoded(_events, payload)
        if event is not None:
            key = (event.content_block_index, 0)
            self.seen.default_tool_input(key, "{}")
            self.seen.tool_is_whole(key)
            self.seen.thought_is_whole(key)

    def _take(self, index: int, block: _Block) -> None:
        key = (index, 0)
        tool, reasoning = block.tool_use, block.reasoning_content
        if tool is not None and tool.type != _BEDROCK_RUNS_IT:
            self.seen.tool(key, name=tool.name, call_id=tool.tool_use_id)
            self.seen.tool_input(key, bytes(tool.input).decode("utf-8", "replace") or "{}")
            self.seen.tool_is_whole(key)
        if reasoning is not None and reasoning.reasoning_text is not None:
            self.seen.thought(key, reasoning.reasoning_text.text, source=_REASONING)
            self.seen.thought_is_whole(key)

    def _salvage(self, data: bytes) -> None:
        self.seen.troubles.add(Trouble.GARBAGE)
        found = last_object(data, self.usage_key)
        self._count(None if found is None else decoded(_usages, found))

    def _count(self, usage: _Usage | None) -> None:
        if usage is None:
            return
        lifetimes = {detail.ttl: detail.input_tokens for detail in usage.cache_details or ()}
        self.seen.count(
            (
                ("input", usage.input_tokens),
                ("output", usage.output_tokens),
                ("cache_read", usage.cache_read_input_tokens),
                ("cache_write", usage.cache_write_input_tokens),
                ("cache_ephemeral_1h_input", lifetimes.get("1h")),
                ("cache_ephemeral_5m_input", lifetimes.get("5m")),
            )
        )


class InvokeReader(MessagesReader, kw_only=True):
    """One answer of InvokeModel or InvokeModelWithResponseStream, read as one of Anthropic Messages."""

    request_id: str
    headers: Headers
    _has_begun: bool = False

    __repr__ = object.__repr__

    def message(self, message: Message) -> None:
        """One message of a stream."""
        kind = message.headers.get(":event-type")
        if kind is None:
            _fail(self.seen, message)
        elif kind == "chunk":
            chunk = decoded(_chunks, message.payload)
            if chunk is None:
                self.seen.troubles.add(Trouble.GARBAGE)
            elif not self._has_begun or self._matters(chunk.data):
                self._has_begun = True
                self.event(chunk.data)
                self.last_events((chunk.data,))

    def _matters(self, data: bytes) -> bool:
        return b"message_stop" in data or _METRICS in data or any(mark in data for mark in self.marks)

    def event(self, data: bytes) -> None:
        """An event of the vendor. With Bedrock's own count it is the last one, whosever it is."""
        super().event(data)
        if _METRICS in data:
            self.seen.finished = True

    def _salvage(self, data: bytes) -> bool:
        """What cannot be read as Anthropic's is another vendor's, unless it says that it is one of Anthropic's."""
        said = decoded(_of_any_vendor, data)
        if isinstance(said, list):
            return True
        is_other = said is not None and not (isinstance(said.type, str) and said.type in _TYPES_OF_ANTHROPIC)
        if is_other:
            self._count_last(data)
        else:
            super()._salvage(data)
        self._fall_back_to(said.metrics if said else None)
        return is_other

    def records(self, *, partial: bool) -> AnswerRecords:
        """What was seen; `partial` if the answer was cut."""
        seen = self.seen
        seen.identify(self.request_id, None)
        if "output" not in seen.counts:
            seen.count([(name, _header_count(self.headers, header)) for name, header in _COUNT_HEADERS.items()])
        return super().records(partial=partial)


def _fail(seen: Seen, message: Message) -> None:
    """An exception, or an error that has its words in headers."""
    name = message.headers.get(":exception-type") or message.headers.get(":error-code")
    said = message.headers.get(":error-message")
    if said is None:
        exception = decoded(_exceptions, message.payload)
        said = exception.message if exception else ""
    seen.fail(str(name or ""), str(said or ""))


def _header_count(headers: Headers, name: str) -> int | None:
    text = next(iter(header_values(headers, name)), "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_COUNT_DIGITS else None
