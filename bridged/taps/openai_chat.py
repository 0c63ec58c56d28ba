"""Reads answers of OpenAI Chat Completions, and of the many upstreams that answer likewise.

Usage stands in a chunk of its own near the end, or, cumulative, in many: the last value of each field wins. A tool call
comes in fragments, and several calls side by side; upstreams that leave out or repeat the index are told by the id.
Prompt tokens count cached ones too, which are taken out. Thoughts that only the total counts (Gemini, Grok) are output.

Format: platform.openai.com, "Chat Completions"; `cache_write_tokens` as OpenAI's SDK has it. LiteLLM has
`cache_creation_tokens` there, and `cache_creation_input_tokens` beside the totals (docs.litellm.ai, "Prompt Caching").
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from bridged.records import AnswerRecords, Trouble, UsualAnswer
from bridged.taps.seen import (
    COLUMNS,
    MAX_ITEMS,
    MAX_NAME_CHARACTERS,
    GoodCount,
    GoodId,
    Key,
    Seen,
    further_texts,
    plain_answer,
    usual_answer,
    without_cached,
)
from bridged.taps.typed_json import Count, decoded, last_object, text_of

# Of `completion_tokens`, which all usage has. Texts and other members of chunks share few letters with this part of it,
# so that it takes half the time to see that it is not there.
USAGE_MARK = b"etion_tokens"
_DONE, _ERROR = b"[DONE]", b'"error"'
# Why the model stopped, where it is no null.
_REASON = re.compile(rb'"finish_reason"[ \t\r\n]*:[ \t\r\n]*"')

C = TypeVar("C")
# Of counts that only some upstreams tell: of 0 at most where none is expected.
S = TypeVar("S")


class _PromptDetails(msgspec.Struct, Generic[C, S], gc=False):
    cached_tokens: C | None = None
    audio_tokens: C | None = None
    cache_write_tokens: C | None = None
    # LiteLLM's.
    cache_creation_tokens: S | None = None


class _CompletionDetails(msgspec.Struct, Generic[C], gc=False):
    reasoning_tokens: C | None = None
    audio_tokens: C | None = None
    accepted_prediction_tokens: C | None = None
    rejected_prediction_tokens: C | None = None


class _Usage(msgspec.Struct, Generic[C, S], gc=False):
    prompt_tokens: C | None = None
    completion_tokens: C | None = None
    total_tokens: C | None = None
    prompt_tokens_details: _PromptDetails[C, S] | None = None
    completion_tokens_details: _CompletionDetails[C] | None = None
    # Kimi's, and DeepSeek's.
    cached_tokens: S | None = None
    prompt_cache_hit_tokens: S | None = None
    # LiteLLM's.
    cache_creation_input_tokens: S | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    # Text with JSON in it; some upstreams send the JSON itself.
    arguments: Any = None
    # Of custom tools.
    input: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    tool_calls: list[_ToolCall] | None = None


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    # Of upstreams that tell no type; a number, from some.
    code: Any = None
    message: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    # Kimi's, in streams.
    usage: _Usage[Count, Count] | None = None
    # OpenRouter's, of the upstream that it asked.
    error: _Error | str | None = None


class _Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage[Count, Count] | None = None
    error: _Error | str | None = None


# Fields are in the order in which OpenAI sends them: a decoder expects the next one first.
class _UsualMessage(msgspec.Struct, gc=False):
    tool_calls: Annotated[list[_ToolCall], msgspec.Meta(max_length=0)] | None = None


class _UsualChoice(msgspec.Struct, gc=False):
    index: int | None = None
    message: _UsualMessage | None = None
    finish_reason: str | None = None
    delta: _UsualMessage | None = None
    # Where usage is told twice, a reader takes what comes last.
    usage: None = None
    error: None = None


class _UsualAnswer(msgspec.Struct, gc=False, kw_only=True):
    """A whole answer that `usual` takes, and nothing else is one: with good counts, and neither calls nor an error."""

    id: GoodId | None = None
    model: str | None = None
    choices: list[_UsualChoice] | None = None
    usage: _Usage[GoodCount, Literal[0]]
    error: None = None


_NO_PROMPT_DETAILS: _PromptDetails[Any, Any] = _PromptDetails()
_NO_COMPLETION_DETAILS: _CompletionDetails[Any] = _CompletionDetails()
# Under which counts are recorded.
_NAMES = (
    *COLUMNS, "prompt_audio", "completion_reasoning", "completion_audio", "completion_accepted_prediction",
    "completion_rejected_prediction",
)  # fmt: skip
# Not recorded: the sum of others, nearly everywhere.
_TOTAL = "total"
_COUNTED = (*_NAMES, _TOTAL)
_further = further_texts(_NAMES)
_chunks = msgspec.json.Decoder(_Chunk)
_usual_answers = msgspec.json.Decoder(_UsualAnswer)
_usages = msgspec.json.Decoder(_Usage[Count, Count])


class ChatReader(msgspec.Struct):
    """One answer."""

    marks: ClassVar[tuple[bytes, ...]] = (USAGE_MARK, b"tool_calls")
    usage_key: ClassVar[bytes] = b"usage"
    usual_end: ClassVar[bytes] = _DONE

    seen: Seen = msgspec.field(default_factory=Seen)
    # Where the call at an index of a choice is gathered: not at that index, where an upstream repeats it.
    _calls: dict[Key, int] = msgspec.field(default_factory=dict)
    _last_place: int = -1

    def event(self, data: bytes) -> None:
        """One event of a stream."""
        if data == _DONE:
            return
        chunk = decoded(_chunks, data)
        if chunk is None:
            self._salvage(data)
        else:
            self._read(chunk)

    def overlong_event(self, begin: bytes, end: bytes) -> None:
        """How an event begins and ends that was too long: it may have usage."""
        del begin
        self._count_last(end)

    def last_events(self, events: Sequence[bytes]) -> None:
        """The events that a stream ended with. Its end is `[DONE]`; some have a reason to finish only."""
        finished = self.seen.finished = _DONE in [data.strip() for data in events]
        for data in events:
            # What has ended needs no reason.
            if data.find(_ERROR) >= 0 or not (finished or _REASON.search(data) is None):
                self._end(data)

    def _end(self, data: bytes) -> None:
        chunk = decoded(_chunks, data)
        if chunk is None:
            return
        if self._has_failed(chunk):
            self.seen.has_reason_to_finish = False
        elif any(choice.finish_reason for choice in chunk.choices or ()):
            self.seen.has_reason_to_finish = True

    def document(self, data: bytes) -> None:
        """A whole answer."""
        chunk = decoded(_chunks, data)
        if chunk is None:
            self._salvage(data)
            return
        self.seen.finished = True
        self._read(chunk)
        self._has_failed(chunk)

    def records(self, *, partial: bool) -> AnswerRecords:
        """What was seen; `partial` if the answer was cut."""
        return self.seen.records(without_cached(_with_thoughts(self.seen.counts, self.seen.model)), partial=partial)

    def _read(self, chunk: _Chunk) -> None:
        self.seen.identify(chunk.id, chunk.model)
        if chunk.usage is not None:
            self._count(chunk.usage)
        for choice in chunk.choices or ():
            if choice.usage is not None:
                self._count(choice.usage)
            message = choice.delta or choice.message
            if message is not None and message.tool_calls:
                self._gather(choice.index or 0, message.tool_calls)

    def _gather(self, choice: int, calls: Sequence[_ToolCall]) -> None:
        told: set[Key] = set()
        for call in calls:
            function = call.function or call.custom
            # Without an index a call goes on where the last one did.
            key = (choice, -2 if call.index is None else call.index)
            self._extend(key, function, call_id=call.id or "", is_beside=key in told)
            told.add(key)

    def _extend(self, key: Key, function: _Function | None, *, call_id: str, is_beside: bool) -> None:
        """A fragment of the call at an index; `is_beside`: another stands before it in the same list."""
        seen = self.seen
        place = self._calls.get(key)
        if place is None and len(self._calls) >= MAX_ITEMS:
            seen.troubles.add(Trouble.TEXT_BOUND)
            return
        name = (function.name if function else None) or ""
        if place is None or (name and self._is_another((key[0], place), name, call_id, is_beside=is_beside)):
            self._last_place += 1
            place = self._calls[key] = self._last_place
        where = (key[0], place)
        seen.tool(where, name=name, call_id=call_id)
        if function is not None:
            seen.tool_input(where, text_of(function.input if function.arguments is None else function.arguments))

    def _is_another(self, where: Key, name: str, call_id: str, *, is_beside: bool) -> bool:
        """Whether what names a function is a call of its own, though its index is that of a call that is there.

        Some upstreams repeat the index, some have no ids, and some a new id in each fragment; but each call is named.
        """
        known_name, known_id = self.seen.tool_at(where) or ("", "")
        if call_id and known_id:
            return call_id[:MAX_NAME_CHARACTERS] != known_id
        # A name may come in fragments where the first has an id.
        return is_beside or (not known_id and bool(known_name) and name[:MAX_NAME_CHARACTERS] != known_name)

    def _has_failed(self, chunk: _Chunk) -> bool:
        """Whether it tells of an error, which is taken note of."""
        error = chunk.error
        for choice in chunk.choices or ():
            error = choice.error if error is None else error
        if error is None:
            return False
        if isinstance(error, str):
            error = _Error(message=error)
        self.seen.fail(error.type or str(error.code or ""), error.message)
        return True

    def _salvage(self, data: bytes) -> None:
        self.seen.troubles.add(Trouble.GARBAGE)
        self._count_last(data)

    def _count_last(self, data: bytes) -> None:
        found = last_object(data, self.usage_key)
        usage = None if found is None else decoded(_usages, found)
        if usage is not None:
            self._count(usage)

    def _count(self, usage: _Usage[Count, Count]) -> None:
        cached = usage.prompt_cache_hit_tokens if usage.cached_tokens is None else usage.cached_tokens
        if cached is not None:
            self.seen.count((("cache_read", cached),))
        written = usage.cache_creation_input_tokens
        if written is None and usage.prompt_tokens_details is not None:
            written = usage.prompt_tokens_details.cache_creation_tokens
        if written is not None:
            self.seen.count((("cache_write", written),))
        self.seen.count(zip(_COUNTED, (*_counts(usage), usage.total_tokens), strict=True))


def usual(data: bytes) -> UsualAnswer | None:
    """A whole answer of text and usage alone, at once; None for what a reader has to look at."""
    try:
        answer = _usual_answers.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    usage = answer.usage
    new, out, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    if total is not None and total > (new or 0) + (out or 0):
        return None
    if usage.prompt_tokens_details is None and usage.completion_tokens_details is None:
        return plain_answer(answer.id, new, out)
    counts = _counts(usage)
    return usual_answer(answer.id, counts, _further, input_has_cached=True)


def _with_thoughts(counts: dict[str, int], model: str) -> dict[str, int]:
    """The counts without the total, and with thoughts that it alone counts as output.

    Grok tells how many they are, Gemini does not. Whatever else a total may have in it is none of ours.
    """
    rest = dict(counts)
    more = rest.pop(_TOTAL, 0) - rest.get("input", 0) - rest.get("output", 0)
    if more <= 0 or not ("input" in rest and "output" in rest):
        return rest
    if more == rest.get("completion_reasoning") or ("gemini" in model and "completion_reasoning" not in rest):
        rest["output"] += more
    return rest


def _counts(usage: _Usage[C, Any]) -> tuple[C | None, ...]:
    """As `_NAMES` names them."""
    of_prompt = usage.prompt_tokens_details or _NO_PROMPT_DETAILS
    of_completion = usage.completion_tokens_details or _NO_COMPLETION_DETAILS
    return (
        usage.prompt_tokens,
        usage.completion_tokens,
        of_prompt.cached_tokens,
        of_prompt.cache_write_tokens,
        of_prompt.audio_tokens,
        of_completion.reasoning_tokens,
        of_completion.audio_tokens,
        of_completion.accepted_prediction_tokens,
        of_completion.rejected_prediction_tokens,
    )
