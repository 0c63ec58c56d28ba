"""The answers that the upstream of scripts/reconcile gives, step by step, each with what it has told by then.

What was told is put together here from what is said, not read out of the bytes: that is what records are held against.
Counts are of the records' kind (cached input is no input), as the APIs' documents say that they are to be read.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconcile_plan import Ending, Kind, Plan

from tests.support.event_stream import message


@dataclass(kw_only=True)
class Told:
    """What the upstream has told so far. `usage` is None before it told any."""

    usage: dict[str, int] | None = None
    # Id, name, input, one after the other.
    tools: list[list[str]] = field(default_factory=list)
    # Source and content.
    thoughts: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Some bytes of a body, and what was told when they are out. `extra`: the client that did not ask gets none."""

    data: bytes
    told: Told
    extra: bool = False


class Answer:
    """An answer that grows: `told` is changed, then what says so is added."""

    def __init__(self) -> None:
        self.told = Told()
        self.steps: list[Step] = []

    def say(self, data: bytes, *, extra: bool = False) -> None:
        """The next bytes, with which all that `told` has now is out."""
        self.steps.append(Step(data=data, told=copy.deepcopy(self.told), extra=extra))

    def sse(self, data: object, event: str = "", *, extra: bool = False) -> None:
        """The next event."""
        text = data if isinstance(data, str) else json.dumps(data)
        self.say((f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode(), extra=extra)

    def typed(self, data: Mapping[str, Any]) -> None:
        """The next event of an API that names them."""
        self.sse(data, data["type"])


@dataclass(frozen=True, kw_only=True)
class _Content:
    """What an answer is to say."""

    thoughts: list[str]
    words: list[str]
    tools: list[tuple[str, str, list[str]]]  # id, name, fragments of the input
    input: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int


def _content(plan: Plan, dice: random.Random) -> _Content:
    tools = []
    for place in range(dice.choice((0, 0, 1, 2))):
        text = json.dumps({"place": place, "path": "x" * dice.randrange(20)})
        cut = dice.randrange(1, len(text))
        tools.append((f"call_{plan.number}_{place}", dice.choice(("read", "write")), [text[:cut], text[cut:]]))
    output = dice.randrange(20, 900)
    return _Content(
        thoughts=[f"thought {place} of {plan.number}" for place in range(dice.choice((0, 0, 1, 2)))],
        words=[f"word{place} " for place in range(plan.words)],
        tools=tools,
        input=dice.randrange(1, 5000),
        cache_read=dice.choice((0, dice.randrange(1, 4000))),
        cache_write=dice.choice((0, dice.randrange(1, 2000))),
        output=output,
        reasoning=dice.randrange(output),
    )


def _counts(content: _Content, output: int, *, cache_write: bool = True, **further: int) -> dict[str, int]:
    return {
        "input": content.input,
        "output": output,
        "cache_read": content.cache_read,
        "cache_write": content.cache_write if cache_write else 0,
        **further,
    }


# Anthropic Messages


def _messages_usage(content: _Content, output: int) -> dict[str, int]:
    return {
        "input_tokens": content.input,
        "cache_read_input_tokens": content.cache_read,
        "cache_creation_input_tokens": content.cache_write,
        "output_tokens": output,
    }


def _messages_stream(plan: Plan, content: _Content, answer: Answer) -> None:
    told = answer.told
    start: dict[str, Any] = {"id": f"msg_{plan.number}", "type": "message", "role": "assistant", "model": plan.model}
    if plan.tells_usage:
        told.usage = _counts(content, 1)
        start["usage"] = _messages_usage(content, 1)
    answer.typed({"type": "message_start", "message": {**start, "content": []}})
    answer.typed({"type": "ping"})
    index = 0
    for thought in content.thoughts:
        block: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
        answer.typed({"type": "content_block_start", "index": index, "content_block": block})
        told.thoughts.append(["thinking", ""])
        for piece in (thought[:4], thought[4:]):
            told.thoughts[-1][1] += piece
            delta = {"type": "thinking_delta", "thinking": piece}
            answer.typed({"type": "content_block_delta", "index": index, "delta": delta})
        delta = {"type": "signature_delta", "signature": "c2ln"}
        answer.typed({"type": "content_block_delta", "index": index, "delta": delta})
        answer.typed({"type": "content_block_stop", "index": index})
        index += 1
    answer.typed({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}})
    for word in content.words:
        delta = {"type": "text_delta", "text": word}
        answer.typed({"type": "content_block_delta", "index": index, "delta": delta})
    answer.typed({"type": "content_block_stop", "index": index})
    for call_id, name, fragments in content.tools:
        index += 1
        told.tools.append([call_id, name, ""])
        block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        answer.typed({"type": "content_block_start", "index": index, "content_block": block})
        for fragment in fragments:
            told.tools[-1][2] += fragment
            delta = {"type": "input_json_delta", "partial_json": fragment}
            answer.typed({"type": "content_block_delta", "index": index, "delta": delta})
        answer.typed({"type": "content_block_stop", "index": index})
    # Cumulative, and told more than once.
    for output in (content.output // 2, content.output, content.output):
        event: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
        if plan.tells_usage:
            told.usage = _counts(content, output)
            event["usage"] = {"output_tokens": output}
        answer.typed(event)
    answer.typed({"type": "message_stop"})


def _messages_document(plan: Plan, content: _Content, told: Told) -> object:
    blocks: list[dict[str, Any]] = [{"type": "thinking", "thinking": one, "signature": "c"} for one in content.thoughts]
    blocks.append({"type": "text", "text": "".join(content.words)})
    for call_id, name, fragments in content.tools:
        blocks.append({"type": "tool_use", "id": call_id, "name": name, "input": json.loads("".join(fragments))})
    told.thoughts = [["thinking", one] for one in content.thoughts]
    document: dict[str, Any] = {"id": f"msg_{plan.number}", "type": "message", "role": "assistant", "content": blocks}
    if plan.tells_usage:
        told.usage = _counts(content, content.output)
        document["usage"] = _messages_usage(content, content.output)
    return document


def _messages_error(answer: Answer) -> None:
    answer.typed({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


# Chat


def _chat_usage(content: _Content) -> dict[str, Any]:
    return {
        "prompt_tokens": content.input + content.cache_read + content.cache_write,
        "completion_tokens": content.output,
        "prompt_tokens_details": {"cached_tokens": content.cache_read, "cache_write_tokens": content.cache_write},
        "completion_tokens_details": {"reasoning_tokens": content.reasoning},
    }


def _chat_chunk(plan: Plan, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": f"chatcmpl-{plan.number}", "model": plan.model, "choices": [choice]}


def _chat_stream(plan: Plan, content: _Content, answer: Answer) -> None:
    told = answer.told
    answer.sse(_chat_chunk(plan, {"role": "assistant", "content": ""}))
    for word in content.words:
        answer.sse(_chat_chunk(plan, {"content": word}))
    for place, (call_id, name, _) in enumerate(content.tools):
        told.tools.append([call_id, name, ""])
        call = {"index": place, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        answer.sse(_chat_chunk(plan, {"tool_calls": [call]}))
    # Calls grow side by side.
    for part in range(2):
        for place, (_, _, fragments) in enumerate(content.tools):
            told.tools[place][2] += fragments[part]
            function = {"arguments": fragments[part]}
            answer.sse(_chat_chunk(plan, {"tool_calls": [{"index": place, "function": function}]}))
    answer.sse(_chat_chunk(plan, {}, "stop"))
    if plan.tells_usage:
        told.usage = _counts(content, content.output, completion_reasoning=content.reasoning)
        answer.sse({"id": f"chatcmpl-{plan.number}", "choices": [], "usage": _chat_usage(content)}, extra=True)
    answer.sse("[DONE]")


def _chat_document(plan: Plan, content: _Content, told: Told) -> object:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": "".join(fragments)}}
        for call_id, name, fragments in content.tools
    ]
    turn = {"role": "assistant", "content": "".join(content.words), "tool_calls": calls}
    document: dict[str, Any] = {"id": f"chatcmpl-{plan.number}", "choices": [{"index": 0, "message": turn}]}
    if plan.tells_usage:
        told.usage = _counts(content, content.output, completion_reasoning=content.reasoning)
        document["usage"] = _chat_usage(content)
    return document


def _chat_error(answer: Answer) -> None:
    answer.sse({"error": {"type": "server_error", "message": "the model fell over"}})


# Responses


def _responses_end(plan: Plan, content: _Content, told: Told, status: str, **more: object) -> dict[str, Any]:
    response: dict[str, Any] = {"id": f"resp_{plan.number}", "model": plan.model, "status": status, **more}
    if plan.tells_usage:
        told.usage = _counts(content, content.output, output_reasoning=content.reasoning)
        response["usage"] = {
            "input_tokens": content.input + content.cache_read + content.cache_write,
            "input_tokens_details": {
                "cached_tokens": content.cache_read,
                "cache_write_tokens": content.cache_write,
            },
            "output_tokens": content.output,
            "output_tokens_details": {"reasoning_tokens": content.reasoning},
        }
    return response


def _responses_items(content: _Content) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if content.thoughts:
        parts = [{"type": "summary_text", "text": one} for one in content.thoughts]
        items.append({"type": "reasoning", "id": "rs_1", "summary": parts})
    for place, (call_id, name, fragments) in enumerate(content.tools):
        call = {"type": "function_call", "id": f"fc_{place}", "call_id": call_id, "name": name}
        items.append({**call, "arguments": "".join(fragments), "status": "completed"})
    return items


def _responses_stream(plan: Plan, content: _Content, answer: Answer) -> None:
    told = answer.told
    response = {"id": f"resp_{plan.number}", "model": plan.model, "status": "in_progress"}
    answer.typed({"type": "response.created", "response": response})
    for word in content.words:
        answer.typed({"type": "response.output_text.delta", "output_index": 9, "delta": word})
    items = _responses_items(content)
    for place, item in enumerate(items):
        answer.typed({"type": "response.output_item.added", "output_index": place, "item": {**item, "summary": []}})
        if item["type"] == "reasoning":
            told.thoughts += [["reasoning_summary", one] for one in content.thoughts]
        else:
            told.tools.append([item["call_id"], item["name"], item["arguments"]])
        answer.typed({"type": "response.output_item.done", "output_index": place, "item": item})
    how = "incomplete" if plan.number % 5 == 0 else "completed"
    response = _responses_end(plan, content, told, how, output=items)
    answer.typed({"type": f"response.{how}", "response": response})


def _responses_document(plan: Plan, content: _Content, told: Told) -> object:
    told.thoughts = [["reasoning_summary", one] for one in content.thoughts]
    return _responses_end(plan, content, told, "completed", output=_responses_items(content))


# Gemini


def _gemini_usage(content: _Content, told: Told, output: int) -> dict[str, int]:
    """Here thoughts are counted beside candidates, and both are output."""
    told.usage = _counts(content, output + content.reasoning, cache_write=False, output_reasoning=content.reasoning)
    return {
        "promptTokenCount": content.input + content.cache_read,
        "cachedContentTokenCount": content.cache_read,
        "candidatesTokenCount": output,
        "thoughtsTokenCount": content.reasoning,
    }


def _gemini_chunk(plan: Plan, parts: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    candidate = {"index": 0, "content": {"role": "model", "parts": parts}}
    return {"responseId": f"gen-{plan.number}", "modelVersion": plan.model, "candidates": [candidate], **more}


def _gemini_parts(content: _Content) -> list[dict[str, Any]]:
    return [
        {"functionCall": {"id": call_id, "name": name, "args": json.loads("".join(fragments))}}
        for call_id, name, fragments in content.tools
    ]


def _gemini_stream(plan: Plan, content: _Content, answer: Answer) -> None:
    told = answer.told
    for place, thought in enumerate(content.thoughts):
        # One thought, in pieces.
        if place:
            told.thoughts[-1][1] += thought
        else:
            told.thoughts.append(["thought", thought])
        answer.sse(_gemini_chunk(plan, [{"text": thought, "thought": True}]))
    for place, word in enumerate(content.words):
        more = {}
        # Cumulative, in some of the chunks.
        if plan.tells_usage and place % 4 == 0:
            more["usageMetadata"] = _gemini_usage(content, told, place + 1)
        answer.sse(_gemini_chunk(plan, [{"text": word}], **more))
    for part, (call_id, name, fragments) in zip(_gemini_parts(content), content.tools, strict=True):
        told.tools.append([call_id, name, "".join(fragments)])
        answer.sse(_gemini_chunk(plan, [part]))
    chunk = _gemini_chunk(plan, [])
    chunk["candidates"][0]["finishReason"] = "STOP"
    if plan.tells_usage:
        chunk["usageMetadata"] = _gemini_usage(content, told, content.output)
    answer.sse(chunk)


def _gemini_document(plan: Plan, content: _Content, told: Told) -> object:
    parts: list[dict[str, Any]] = [{"text": one, "thought": True} for one in content.thoughts]
    document = _gemini_chunk(plan, [*parts, {"text": "".join(content.words)}, *_gemini_parts(content)])
    document["candidates"][0]["finishReason"] = "STOP"
    told.thoughts = [["thought", "".join(content.thoughts)]] if content.thoughts else []
    if plan.tells_usage:
        document["usageMetadata"] = _gemini_usage(content, told, content.output)
    return document


def _gemini_error(answer: Answer) -> None:
    answer.sse({"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}})


# Converse


def _converse_usage(content: _Content) -> dict[str, int]:
    return {
        "inputTokens": content.input,
        "outputTokens": content.output,
        "cacheReadInputTokens": content.cache_read,
        "cacheWriteInputTokens": content.cache_write,
    }


def _converse_say(answer: Answer, event: str, payload: object) -> None:
    headers = {":message-type": "event", ":event-type": event, ":content-type": "application/json"}
    answer.say(message(headers, json.dumps(payload).encode()))


def _converse_stream(plan: Plan, content: _Content, answer: Answer) -> None:
    told = answer.told
    _converse_say(answer, "messageStart", {"role": "assistant"})
    index = 0
    for index, thought in enumerate(content.thoughts):
        told.thoughts.append(["reasoning_content", thought])
        delta = {"reasoningContent": {"text": thought}}
        _converse_say(answer, "contentBlockDelta", {"contentBlockIndex": index, "delta": delta})
        _converse_say(answer, "contentBlockStop", {"contentBlockIndex": index})
    index += 1
    for word in content.words:
        _converse_say(answer, "contentBlockDelta", {"contentBlockIndex": index, "delta": {"text": word}})
    _converse_say(answer, "contentBlockStop", {"contentBlockIndex": index})
    for call_id, name, fragments in content.tools:
        index += 1
        told.tools.append([call_id, name, ""])
        start = {"toolUse": {"toolUseId": call_id, "name": name}}
        _converse_say(answer, "contentBlockStart", {"contentBlockIndex": index, "start": start})
        for fragment in fragments:
            told.tools[-1][2] += fragment
            delta = {"toolUse": {"input": fragment}}
            _converse_say(answer, "contentBlockDelta", {"contentBlockIndex": index, "delta": delta})
        _converse_say(answer, "contentBlockStop", {"contentBlockIndex": index})
    _converse_say(answer, "messageStop", {"stopReason": "end_turn"})
    if plan.tells_usage:
        told.usage = _counts(content, content.output)
    usage = {"usage": _converse_usage(content)} if plan.tells_usage else {}
    _converse_say(answer, "metadata", {**usage, "metrics": {"latencyMs": 1}})


def _converse_document(plan: Plan, content: _Content, told: Told) -> object:
    blocks: list[dict[str, Any]] = [
        {"reasoningContent": {"reasoningText": {"text": one, "signature": "c"}}} for one in content.thoughts
    ]
    blocks.append({"text": "".join(content.words)})
    for call_id, name, fragments in content.tools:
        blocks.append({"toolUse": {"toolUseId": call_id, "name": name, "input": json.loads("".join(fragments))}})
    told.thoughts = [["reasoning_content", one] for one in content.thoughts]
    document: dict[str, Any] = {"output": {"message": {"role": "assistant", "content": blocks}}}
    if plan.tells_usage:
        told.usage = _counts(content, content.output)
        document["usage"] = _converse_usage(content)
    return document


def _converse_error(answer: Answer) -> None:
    headers = {":message-type": "exception", ":exception-type": "throttlingException"}
    answer.say(message(headers, b'{"message":"Too many requests"}'))


# All of them

_STREAMS: dict[Kind, Callable[[Plan, _Content, Answer], None]] = {
    Kind.MESSAGES: _messages_stream,
    Kind.CHAT: _chat_stream,
    Kind.RESPONSES: _responses_stream,
    Kind.GEMINI: _gemini_stream,
    Kind.CONVERSE: _converse_stream,
}
_DOCUMENTS: dict[Kind, Callable[[Plan, _Content, Told], object]] = {
    Kind.MESSAGES: _messages_document,
    Kind.CHAT: _chat_document,
    Kind.RESPONSES: _responses_document,
    Kind.GEMINI: _gemini_document,
    Kind.CONVERSE: _converse_document,
}
_ERRORS: dict[Kind, Callable[[Answer], None]] = {
    Kind.MESSAGES: _messages_error,
    Kind.CHAT: _chat_error,
    Kind.GEMINI: _gemini_error,
    Kind.CONVERSE: _converse_error,
}


def steps_of(plan: Plan) -> list[Step]:
    """The answer to a request, as far as the plan lets it come. The steps of one that the client leaves are all."""
    content, answer = _content(plan, plan.dice()), Answer()
    if not plan.streaming:
        answer.told.tools = [[call_id, name, "".join(fragments)] for call_id, name, fragments in content.tools]
        answer.say(json.dumps(_DOCUMENTS[plan.kind](plan, content, answer.told)).encode())
        return answer.steps
    _STREAMS[plan.kind](plan, content, answer)
    if plan.ending not in (Ending.FAILS, Ending.CUT):
        return answer.steps
    answer.steps = answer.steps[: _break_of(plan, len(answer.steps))]
    answer.told = copy.deepcopy(answer.steps[-1].told)
    if plan.ending is Ending.FAILS:
        if plan.kind is Kind.RESPONSES:
            error = {"code": "server_error", "message": "the model fell over"}
            response = _responses_end(plan, content, answer.told, "failed", error=error)
            answer.typed({"type": "response.failed", "response": response})
        else:
            _ERRORS[plan.kind](answer)
    return answer.steps


def leave_of(plan: Plan, steps: list[Step]) -> tuple[int, int]:
    """Of a client that leaves in the middle: which step is the last that it waits for, and which the last to be said.

    Up to the latter nothing is told that counts, so however far the bridge has come, what was told is the same.
    """
    waits_for = _break_of(plan, len(steps)) - 1
    while steps[waits_for].extra:
        waits_for -= 1
    said = waits_for
    while said + 2 < len(steps) and steps[said + 1].told == steps[waits_for].told:
        said += 1
    return waits_for, said


def _break_of(plan: Plan, count: int) -> int:
    """How many of the steps come in an answer that ends early: at least one, and never all."""
    return 1 + int(plan.share * (count - 1))
