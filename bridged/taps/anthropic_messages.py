"""Reads answers of Anthropic Messages.

`message_start` has the answer's id and the first counts. `message_delta` has counts that are cumulative, corrected ones
among them: the last value of each wins. Input tokens leave out cached ones already. What it took to compact the
conversation within the call stands in `iterations` only, and is added; what other models took, which gave advice or
declined, is theirs, and is not.

Format: platform.claude.com, "Messages" and "Streaming messages".
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from bridged.records import AnswerRecords, Trouble, UsualAnswer
from bridged.taps.message_iterations import COMPACTION, DECLINED, MAX_BYTES, left_out
from bridged.taps.seen import COLUMNS, GoodCount, GoodId, Seen, further_texts, usual_answer
from bridged.taps.typed_json import Count, decoded, last_object

# In a block of text nothing matters but what ends it and what counts. What follows in blocks of other kinds does.
_IN_TEXT = (b'content_block_start"', b"output_tokens")
# Some upstreams begin with a ping.
_AT_START = (*_IN_TEXT, b'message_start"')
_IN_OTHERS = (*_IN_TEXT, b'input_json_delta"', b'thinking_delta"', b'content_block_stop"')

_THINKING = "thinking"
_TOOL = "tool_use"
# A union with None would take nothing but null.
_NOTHING = msgspec.Raw()

C = TypeVar("C")


class _CacheCreation(msgspec.Struct, Generic[C], gc=False):
    ephemeral_1h_input_tokens: C | None = None
    ephemeral_5m_input_tokens: C | None = None


class _ServerTools(msgspec.Struct, Generic[C], gc=False):
    web_search_requests: C | None = None
    web_fetch_requests: C | None = None


class _OutputDetails(msgspec.Struct, Generic[C], gc=False):
    thinking_tokens: C | None = None


class _Usage(msgspec.Struct, Generic[C], gc=False):
    input_tokens: C | None = None
    output_tokens: C | None = None
    cache_read_input_tokens: C | None = None
    cache_creation_input_tokens: C | None = None
    cache_creation: _CacheCreation[C] | None = None
    server_tool_use: _ServerTools[C] | None = None
    output_tokens_details: _OutputDetails[C] | None = None
    iterations: msgspec.Raw = _NOTHING


class InvocationMetrics(msgspec.Struct, gc=False, rename="camel"):
    """Bedrock's own count, in its last event; all that there is for models of other vendors."""

    input_token_count: Count | None = None
    output_token_count: Count | None = None
    cache_read_input_token_count: Count | None = None
    cache_write_input_token_count: Count | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    id: str | None = None
    name: str | None = None
    thinking: str | None = None
    input: msgspec.Raw = _NOTHING


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    message: str | None = None


class _Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: _Usage[Count] | None = None
    content: list[_Block] | None = None


class _Delta(msgspec.Struct, gc=False):
    partial_json: str | None = None
    thinking: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage[Count] | None = None
    error: _Error | None = None
    metrics: InvocationMetrics | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


class _Document(_Message, gc=False):
    type: str = ""
    error: _Error | None = None
    metrics: InvocationMetrics | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


class _TextBlock(msgspec.Struct, gc=False):
    type: Literal["text"]
    id: str | None = None
    name: str | None = None
    thinking: str | None = None


class _UsualAnswer(msgspec.Struct, gc=False):
    """A whole answer that `usual` takes, and one that is an error: with good counts, and text only."""

    usage: _Usage[GoodCount]
    id: GoodId | None = None
    model: str | None = None
    content: list[_TextBlock] | None = None
    type: str = ""
    error: _Error | None = None
    metrics: None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")


_NO_CACHE_CREATION: _CacheCreation[Any] = _CacheCreation()
_NO_SERVER_TOOLS: _ServerTools[Any] = _ServerTools()
_NO_OUTPUT_DETAILS: _OutputDetails[Any] = _OutputDetails()
# Parts of what went into a cache.
_LIFETIMES = ("cache_ephemeral_1h_input", "cache_ephemeral_5m_input")
# Under which counts are recorded.
_NAMES = (*COLUMNS, *_LIFETIMES, "web_search_requests", "web_fetch_requests", "output_reasoning")
_further = further_texts(_NAMES)
_events = msgspec.json.Decoder(_Event)
_documents = msgspec.json.Decoder(_Document)
_usual_answers = msgspec.json.Decoder(_UsualAnswer)
_usages = msgspec.json.Decoder(_Usage[Count])


class MessagesReader(msgspec.Struct):
    """One answer."""

    usage_key: ClassVar[bytes] = b"usage"
    usual_end: ClassVar[bytes] = b""

    marks: tuple[bytes, ...] = _AT_START
    seen: Seen = msgspec.field(default_factory=Seen)

    def event(self, data: bytes) -> None:
        """One event of a stream."""
        event = decoded(_events, data)
        if event is None:
            self._salvage(data)
            return
        if event.content_block is not None:
            self._begin_block(event.index, event.content_block)
        elif event.delta is not None:
            self._extend_block(event.index, event.delta)
        elif event.message is not None:
            self.seen.identify(event.message.id, event.message.model)
            self._count(event.message.usage)
        elif event.type == "content_block_stop":
            self._end_block(event.index)
        if event.usage is not None:
            self._count(event.usage)
        self._fall_back_to(event.metrics)

    def overlong_event(self, begin: bytes, end: bytes) -> None:
        """How an event begins and ends that was too long: it may have usage."""
        del begin
        self._count_last(end)

    def last_events(self, events: Sequence[bytes]) -> None:
        """The events that a stream ended with."""
        for data in events:
            if data.find(b"message_stop") >= 0 or data.find(b'"error"') >= 0:
                event = decoded(_events, data)
                if event is None:
                    continue
                if event.type == "message_stop":
                    self.seen.finished = True
                elif event.type == "error" or (not event.type and event.error is not None):
                    # What stands between us and the upstream may know nothing of types.
                    self._fail(event.error)

    def document(self, data: bytes) -> None:
        """A whole answer."""
        document = decoded(_documents, data)
        if document is None:
            self.seen.finished = self._salvage(data)
            return
        seen = self.seen
        seen.finished = True
        seen.identify(document.id, document.model)
        self._count(document.usage)
        self._fall_back_to(document.metrics)
        if document.type == "error":
            self._fail(document.error)
        for index, block in enumerate(document.content or ()):
            self._begin_block(index, block)
            self._end_block(index)

    def records(self, *, partial: bool) -> AnswerRecords:
        """What was seen; `partial` if the answer was cut."""
        counts = self.seen.counts
        if COMPACTION + "input" in counts:
            counts = {**counts, **{name: counts.get(name, 0) + counts[COMPACTION + name] for name in COLUMNS}}
        return self.seen.records(counts, partial=partial)

    def _begin_block(self, index: int, block: _Block) -> None:
        self.marks = _IN_TEXT if block.type == "text" else _IN_OTHERS
        if block.type == _TOOL:
            key = (index, 0)
            self.seen.tool(key, name=block.name, call_id=block.id)
            raw = bytes(block.input)
            # In a stream it is an empty object, and the input follows in fragments.
            if raw.strip() not in (b"", b"{}", b"null"):
                self.seen.tool_input(key, raw.decode("utf-8", "replace"))
        elif block.type == _THINKING:
            self.seen.thought((index, 0), block.thinking, source=_THINKING)

    def _extend_block(self, index: int, delta: _Delta) -> None:
        if delta.partial_json is not None:
            # Server tools have inputs too.
            if self.seen.tool_at((index, 0)) is not None:
                self.seen.tool_input((index, 0), delta.partial_json)
        elif delta.thinking is not None:
            self.seen.thought((index, 0), delta.thinking, source=_THINKING)

    def _end_block(self, index: int) -> None:
        key = (index, 0)
        self.seen.default_tool_input(key, "{}")
        self.seen.tool_is_whole(key)
        self.seen.thought_is_whole(key)

    def _salvage(self, data: bytes) -> bool:
        """Count what can be counted of what is no event and no answer; whether it is whole all the same."""
        self.seen.troubles.add(Trouble.GARBAGE)
        self._count_last(data)
        return False

    def _count_last(self, data: bytes) -> None:
        found = last_object(data, self.usage_key)
        if found is not None:
            self._count(decoded(_usages, found))

    def _fail(self, error: _Error | None) -> None:
        self.seen.fail(*((error.type, error.message) if error else (None, None)))

    def _count(self, usage: _Usage[Count] | None) -> None:
        if usage is None:
            return
        self.seen.count(zip(_NAMES, _counts(usage), strict=True))
        if usage.iterations:
            if len(usage.iterations) > MAX_BYTES:
                self.seen.troubles.add(Trouble.OVERLONG)
            else:
                self._count_left_out(usage)

    def _count_left_out(self, usage: _Usage[Count]) -> None:
        sums, counts = left_out(usage.iterations), self.seen.counts
        self.seen.count(sums.items())
        if DECLINED + "input" not in sums or usage.cache_creation is not None:
            return
        # The stream may have begun with those of the model that declined; no later event corrects them.
        if sum(counts.get(name, 0) for name in _LIFETIMES) != counts.get("cache_write", 0):
            for name in _LIFETIMES:
                counts.pop(name, None)

    def _fall_back_to(self, metrics: InvocationMetrics | None) -> None:
        if metrics is not None and "output" not in self.seen.counts:
            self.seen.count(
                (
                    ("input", metrics.input_token_count),
                    ("output", metrics.output_token_count),
                    ("cache_read", metrics.cache_read_input_token_count),
                    ("cache_write", metrics.cache_write_input_token_count),
                )
            )


def usual(data: bytes) -> UsualAnswer | None:
    """A whole answer of text and usage alone, at once; None for what a reader has to look at."""
    try:
        answer = _usual_answers.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if answer.type == "error":
        return None
    iterations = answer.usage.iterations
    if iterations and (len(iterations) > MAX_BYTES or left_out(iterations)):
        return None
    counts = _counts(answer.usage)
    return usual_answer(answer.id, counts, _further, input_has_cached=False)


def _counts(usage: _Usage[C]) -> tuple[C | None, ...]:
    """As `_NAMES` names them."""
    cached = usage.cache_creation or _NO_CACHE_CREATION
    tools = usage.server_tool_use or _NO_SERVER_TOOLS
    details = usage.output_tokens_details or _NO_OUTPUT_DETAILS
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
        cached.ephemeral_1h_input_tokens,
        cached.ephemeral_5m_input_tokens,
        tools.web_search_requests,
        tools.web_fetch_requests,
        details.thinking_tokens,
    )
