"""Reads answers of OpenAI Responses.

Every item of the output is told as a whole when it is done, and again within the response at the end; upstreams that
keep nothing leave it out there. Usage is in the response at the end, however that came: completed, incomplete, failed.
Input tokens count cached ones too, which are taken out.

Format: platform.openai.com, "Responses" and its "Streaming events".
"""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from bridged.records import AnswerRecords, Trouble, UsualAnswer
from bridged.taps.response_items import Item, Part, ToldItem, ToldItems, told_item
from bridged.taps.seen import (
    COLUMNS,
    GoodCount,
    GoodId,
    Key,
    Seen,
    further_texts,
    plain_answer,
    usual_answer,
    without_cached,
)
from bridged.taps.typed_json import Count, decoded, last_object

_FAILED = "response.failed"
_OVER = frozenset({"response.completed", "response.incomplete", _FAILED})
# The status of an item that the model did not come to the end of.
_INCOMPLETE = "incomplete"
# The type of an event of which only the beginning or the end is there. It is none of what stands deeper, because no
# bracket is between it and that edge.
_FIRST_TYPE = re.compile(rb'[^{]*\{[^{}\[\]]*?"type"[ \t\r\n]*:[ \t\r\n]*"([^"\\]*)"')
_LAST_TYPE = re.compile(rb'"type"[ \t\r\n]*:[ \t\r\n]*"([^"\\]*)"[^{}\[\]]*\}[^{}\[\]]*')

C = TypeVar("C")


class _InputDetails(msgspec.Struct, Generic[C], gc=False):
    cached_tokens: C | None = None
    cache_write_tokens: C | None = None


class _OutputDetails(msgspec.Struct, Generic[C], gc=False):
    reasoning_tokens: C | None = None


class _Usage(msgspec.Struct, Generic[C], gc=False):
    input_tokens: C | None = None
    output_tokens: C | None = None
    input_tokens_details: _InputDetails[C] | None = None
    output_tokens_details: _OutputDetails[C] | None = None


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    # A number, from some upstreams.
    code: Any = None
    message: str | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: _Usage[Count] | None = None
    output: list[Item] | None = None
    error: _Error | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    output_index: int | None = None
    item: Item | None = None
    response: _Response | None = None
    # An error event has its fields at the top, or in an object.
    error: _Error | None = None
    code: Any = None
    message: str | None = None


class _UsualItem(msgspec.Struct, gc=False):
    type: Literal["message"]
    phase: None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    status: str | None = None
    summary: list[Part] | None = None
    content: list[Part] | None = None


class _UsualAnswer(msgspec.Struct, gc=False):
    """A whole answer that `usual` takes, and nothing else is one: with good counts, messages only, and no error."""

    usage: _Usage[GoodCount]
    id: GoodId | None = None
    model: str | None = None
    output: list[_UsualItem] | None = None
    error: None = None


_NO_INPUT_DETAILS: _InputDetails[Any] = _InputDetails()
_NO_OUTPUT_DETAILS: _OutputDetails[Any] = _OutputDetails()
# Under which counts are recorded.
_NAMES = (*COLUMNS, "output_reasoning")
_further = further_texts(_NAMES)
_events = msgspec.json.Decoder(_Event)
_documents = msgspec.json.Decoder(_Response)
_usual_answers = msgspec.json.Decoder(_UsualAnswer)
_usages = msgspec.json.Decoder(_Usage[Count])
_errors = msgspec.json.Decoder(_Error)


class ResponsesReader(msgspec.Struct):
    """One answer."""

    marks: ClassVar[tuple[bytes, ...]] = (b"response.output_item.done", b'"response"')
    usage_key: ClassVar[bytes] = b"usage"
    usual_end: ClassVar[bytes] = b""

    seen: Seen = msgspec.field(default_factory=Seen)
    _told: ToldItems = msgspec.field(default_factory=ToldItems)

    def event(self, data: bytes) -> None:
        """One event of a stream."""
        event = decoded(_events, data)
        if event is None:
            self._salvage(data)
            return
        response = event.response
        if response is not None:
            self.seen.identify(response.id, response.model)
            if event.type in _OVER:
                self._end(response)
        elif event.item is not None and event.type == "response.output_item.done":
            told = told_item(event.output_index, event.item)
            if told is not None:
                self._gather(told)

    def overlong_event(self, begin: bytes, end: bytes) -> None:
        """How an event begins and ends that was too long: the last one repeats all images, for example."""
        self._count_last(end)
        kind = _type_of(begin, end)
        self.seen.finished = self.seen.finished or kind in _OVER
        if kind == _FAILED:
            found = last_object(begin, b"error") or last_object(end, b"error")
            self._fail((found and decoded(_errors, found)) or _Error())

    def last_events(self, events: Sequence[bytes]) -> None:
        """The events that a stream ended with."""
        for data in events:
            event = decoded(_events, data) if data.find(b'"error"') >= 0 else None
            if event is not None and (event.type == "error" or (not event.type and event.error is not None)):
                # What stands between us and the upstream may know nothing of types.
                self._fail(event.error or _Error(code=event.code, message=event.message))

    def document(self, data: bytes) -> None:
        """A whole answer."""
        response = decoded(_documents, data)
        if response is None:
            self._salvage(data)
            return
        self.seen.identify(response.id, response.model)
        self._end(response)

    def records(self, *, partial: bool) -> AnswerRecords:
        """What was seen; `partial` if the answer was cut."""
        return self.seen.records(without_cached(self.seen.counts), partial=partial)

    def _end(self, response: _Response) -> None:
        self.seen.finished = True
        if response.usage is not None:
            self._count(response.usage)
        if response.error is not None:
            self._fail(response.error)
        for told in self._told.untold(response.output or ()):
            self._gather(told)

    def _gather(self, told: ToldItem) -> None:
        place = self._told.place_of(told)
        if place is None:
            return
        if told.call is not None:
            self._call((place, 0), told.item, *told.call)
        for part, (source, text) in enumerate(told.thoughts):
            self.seen.thought((place, part), text, source=source)
            if told.item.status == _INCOMPLETE:
                self.seen.thought_is_cut((place, part))
            else:
                self.seen.thought_is_whole((place, part))

    def _call(self, key: Key, item: Item, name: str, asked: str) -> None:
        seen = self.seen
        seen.tool(key, name=name, call_id=item.call_id, item_id=item.id)
        seen.tool_input(key, asked)
        if item.status == _INCOMPLETE:
            seen.tool_is_cut(key)
        else:
            seen.tool_is_whole(key)

    def _fail(self, error: _Error) -> None:
        self.seen.fail(str(error.code or error.type or ""), error.message)

    def _salvage(self, data: bytes) -> None:
        self.seen.troubles.add(Trouble.GARBAGE)
        self._count_last(data)

    def _count_last(self, data: bytes) -> None:
        found = last_object(data, self.usage_key)
        usage = None if found is None else decoded(_usages, found)
        if usage is not None:
            self._count(usage)

    def _count(self, usage: _Usage[Count]) -> None:
        self.seen.count(zip(_NAMES, _counts(usage), strict=True))


def _type_of(begin: bytes, end: bytes) -> str:
    """The type of the event that begins and ends so; empty if neither has it."""
    found = _FIRST_TYPE.match(begin) or _LAST_TYPE.fullmatch(end, max(end.rfind(b'"type"'), 0))
    return "" if found is None else found[1].decode("utf-8", "replace")


def usual(data: bytes) -> UsualAnswer | None:
    """A whole answer of text and usage alone, at once; None for what a reader has to look at."""
    try:
        answer = _usual_answers.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    usage = answer.usage
    if usage.input_tokens_details is None and usage.output_tokens_details is None:
        return plain_answer(answer.id, usage.input_tokens, usage.output_tokens)
    counts = _counts(usage)
    return usual_answer(answer.id, counts, _further, input_has_cached=True)


def _counts(usage: _Usage[C]) -> tuple[C | None, ...]:
    """As `_NAMES` names them."""
    of_input = usage.input_tokens_details or _NO_INPUT_DETAILS
    of_output = usage.output_tokens_details or _NO_OUTPUT_DETAILS
    return (
        usage.input_tokens,
        usage.output_tokens,
        of_input.cached_tokens,
        of_input.cache_write_tokens,
        of_output.reasoning_tokens,
    )
