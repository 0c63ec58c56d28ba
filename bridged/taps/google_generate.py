"""Reads answers of Gemini.

A stream is of whole answers, each with the next parts; without `alt=sse` it is an array of them. Usage is in every one
and cumulative: the last value of each field wins. Prompt tokens count cached ones too, which are taken out; those of
tool use and of thoughts are counted beside prompt and candidates, and belong to input and output.

Format: ai.google.dev, "GenerateContentResponse".
"""

import re
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from bridged.records import AnswerRecords, Trouble
from bridged.taps.seen import Seen
from bridged.taps.typed_json import Count, decoded, last_object, whole_elements

_ARRAY = re.compile(rb"[ \t\r\n]*\[")
# Why the model stopped, where it is told.
_REASON = re.compile(rb'"finishReason"[ \t\r\n]*:[ \t\r\n]*"[^"]')
# A union with None would take nothing but null.
_NOTHING = msgspec.Raw()


class _Usage(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: Count | None = None
    cached_content_token_count: Count | None = None
    candidates_token_count: Count | None = None
    thoughts_token_count: Count | None = None
    tool_use_prompt_token_count: Count | None = None


class _FunctionCall(msgspec.Struct, gc=False):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = _NOTHING


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    function_call: _FunctionCall | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Error(msgspec.Struct, gc=False):
    status: str | None = None
    message: str | None = None


class _Response(msgspec.Struct, gc=False, rename="camel"):
    response_id: str | None = None
    model_version: str | None = None
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    error: _Error | None = None


_responses = msgspec.json.Decoder(_Response)
_pieces = msgspec.json.Decoder(list[msgspec.Raw])
_usages = msgspec.json.Decoder(_Usage)


class GenerateReader(msgspec.Struct):
    """One answer."""

    # Nearly every event has usage, and there are few of them.
    marks: ClassVar[tuple[bytes, ...]] = ()
    usage_key: ClassVar[bytes] = b"usageMetadata"
    usual_end: ClassVar[bytes] = b""

    seen: Seen = msgspec.field(default_factory=Seen)
    _parts: int = 0
    _in_thought: bool = False

    def event(self, data: bytes) -> None:
        """One event of a stream."""
        response = decoded(_responses, data)
        if response is None:
            self._salvage(data)
        else:
            self._read(response)

    def overlong_event(self, begin: bytes, end: bytes) -> None:
        """How an event begins and ends that was too long, one with an image for example."""
        self._count_last(end)
        if _REASON.search(begin) or _REASON.search(end):
            self.seen.finished = True

    def last_events(self, events: Sequence[bytes]) -> None:
        """The events that a stream ended with: all of them were read."""

    def document(self, data: bytes) -> None:
        """A whole answer, or an array of the answers of a stream, which may be cut."""
        array = _ARRAY.match(data)
        if array is None:
            self.event(data)
            return
        pieces = decoded(_pieces, data)
        for piece in whole_elements(data, array.end()) if pieces is None else pieces:
            self.event(bytes(piece))
        if pieces is None:
            # The one that was cut may have its usage still.
            self._salvage(data)
            self.seen.finished = False

    def records(self, *, partial: bool) -> AnswerRecords:
        """What was seen; `partial` if the answer was cut."""
        return self.seen.records(_columns(self.seen.counts), partial=partial)

    def _read(self, response: _Response) -> None:
        seen = self.seen
        seen.identify(response.response_id, response.model_version)
        if response.usage_metadata is not None:
            self._count(response.usage_metadata)
        if response.error is not None:
            seen.fail(response.error.status, response.error.message)
        if response.prompt_feedback is not None and response.prompt_feedback.block_reason:
            seen.finished = True
        for candidate in response.candidates or ():
            if candidate.finish_reason:
                seen.finished = True
            for part in (candidate.content.parts if candidate.content else None) or ():
                self._gather(candidate.index or 0, part)

    def _gather(self, candidate: int, part: _Part) -> None:
        """Parts have no number. Thoughts that follow each other are one."""
        is_thought = bool(part.thought and part.text)
        if is_thought and self._in_thought:
            key = (candidate, self._parts)
        else:
            if self._in_thought:
                # What follows a thought ends it; nothing else says so.
                self.seen.thought_is_whole((candidate, self._parts))
            self._parts += 1
            key = (candidate, self._parts)
        self._in_thought = is_thought
        if is_thought:
            self.seen.thought(key, part.text, source="thought")
        call = part.function_call
        if call is not None:
            args = bytes(call.args) or b"{}"
            self.seen.tool(key, name=call.name, call_id=call.id)
            self.seen.tool_input(key, args.decode("utf-8", "replace"))
            self.seen.tool_is_whole(key)

    def _salvage(self, data: bytes) -> None:
        self.seen.troubles.add(Trouble.GARBAGE)
        self._count_last(data)

    def _count_last(self, data: bytes) -> None:
        found = last_object(data, self.usage_key)
        usage = None if found is None else decoded(_usages, found)
        if usage is not None:
            self._count(usage)

    def _count(self, usage: _Usage) -> None:
        self.seen.count(
            (
                ("prompt", usage.prompt_token_count),
                ("cached", usage.cached_content_token_count),
                ("candidates", usage.candidates_token_count),
                ("thoughts", usage.thoughts_token_count),
                ("tool_use_prompt", usage.tool_use_prompt_token_count),
            )
        )


def _columns(counts: dict[str, int]) -> dict[str, int]:
    if not counts:
        return {}
    cached = counts.get("cached", 0)
    tool_use, thoughts = counts.get("tool_use_prompt", 0), counts.get("thoughts", 0)
    columns = {
        "input": max(counts.get("prompt", 0) - cached, 0) + tool_use,
        "output": counts.get("candidates", 0) + thoughts,
        "cache_read": cached,
    }
    if "thoughts" in counts:
        columns["output_reasoning"] = thoughts
    if "tool_use_prompt" in counts:
        columns["input_tool_use"] = tool_use
    return columns
