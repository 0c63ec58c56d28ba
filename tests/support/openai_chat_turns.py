"""Answers of OpenAI Chat Completions as the vendor writes them, blocking and streamed, and what they say.

Shapes: platform.openai.com, "The chat completion object" and "The chat completion chunk object" with
`stream_options`: a last chunk without choices has the usage, and all others have `"usage":null`; without it none
has the member at all.
"""

import json
from collections.abc import Sequence
from typing import Any

from tests.support.kept_records import Sent

Event = dict[str, Any]


def usage(prompt: int = 120, completion: int = 44, *, cached: int = 0, reasoning: int = 0) -> Event:
    return {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0,
                                      "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    }  # fmt: skip


def call(call_id: str, name: str, arguments: str) -> Event:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def custom(call_id: str, name: str, words: str) -> Event:
    return {"id": call_id, "type": "custom", "custom": {"name": name, "input": words}}


# Name: text, refusal, calls, why it stopped, usage.
TURNS: dict[str, tuple[str | None, str | None, Sequence[Event], str, Event]] = {
    "text": ("Hello, “world”.", None, (), "stop", usage()),
    "tool": (None, None, [call("call_t", "get_weather", '{"city":"Köln","unit":"°C"}')], "tool_calls", usage()),
    "parallel-tools": (
        "I look.",
        None,
        [call("call_a", "get_weather", '{"city":"Rome"}'), call("call_b", "list_cities", "{}"),
         call("call_c", "get_weather", '{"city":"\\"quoted\\" \\\\ {}"}')],
        "tool_calls",
        usage(),
    ),
    "custom-tool": (None, None, [custom("call_x", "apply_patch", "*** Begin Patch\n+é\n")], "tool_calls", usage()),
    "reasoning": ("42", None, (), "stop", usage(completion=1200, reasoning=1152)),
    "cached": ("From the cache.", None, (), "stop", usage(prompt=2006, cached=1920)),
    "refusal": (None, "I cannot help with that.", (), "stop", usage(completion=9)),
    "length": ("Too lo", None, (), "length", usage(completion=2)),
}  # fmt: skip


def document(name: str) -> Event:
    """The blocking answer."""
    text, refusal, calls, reason, counts = TURNS[name]
    message: Event = {"role": "assistant", "content": text, "refusal": refusal, "annotations": []}
    if calls:
        message["tool_calls"] = calls
    return {
        "id": f"chatcmpl-{name}", "object": "chat.completion", "created": 1_795_000_000, "model": "gpt-5.2-2025-12-11",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": counts, "service_tier": "default", "system_fingerprint": None,
    }  # fmt: skip


def chunks(name: str) -> list[Event]:
    """The streamed answer where nobody asks for usage; the fragments of parallel calls are mixed."""
    text, refusal, calls, reason, _ = TURNS[name]
    deltas: list[Event] = [{"role": "assistant", "content": "" if text is not None else None, "refusal": None}]
    deltas += [{"content": part} for part in _parts(text or "")]
    deltas += [{"refusal": part} for part in _parts(refusal or "")]
    for index, one in enumerate(calls):
        kind = one["type"]
        field = "arguments" if kind == "function" else "input"
        deltas.append({"tool_calls": [{"index": index, **one, kind: {**one[kind], field: ""}}]})
    fragments = [
        [{"index": index, one["type"]: {field: part}} for field in ("arguments", "input")
         for part in _parts(one[one["type"]].get(field, ""))]
        for index, one in enumerate(calls)
    ]  # fmt: skip
    while any(fragments):
        deltas += [{"tool_calls": [left.pop(0)]} for left in fragments if left]
    return [*(_chunk(name, delta, None) for delta in deltas), _chunk(name, {}, reason)]


def with_usage(name: str) -> list[Event]:
    """The same where usage is asked for."""
    extra = {**_chunk(name, {}, None), "choices": [], "usage": TURNS[name][4]}
    return [*(chunk | {"usage": None} for chunk in chunks(name)), extra]


def _chunk(name: str, delta: Event, reason: str | None) -> Event:
    return {
        "id": f"chatcmpl-{name}", "object": "chat.completion.chunk", "created": 1_795_000_000,
        "model": "gpt-5.2-2025-12-11", "service_tier": "default", "system_fingerprint": None,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
    }  # fmt: skip


def _parts(words: str) -> list[str]:
    return [words[at : at + 7] for at in range(0, len(words), 7)]


def events(made: Sequence[Event], *, done: bool = True) -> list[bytes]:
    """As they are sent; separators as OpenAI has them."""
    packed = [b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n" for chunk in made]
    return [*packed, b"data: [DONE]\n\n"] if done else packed


def said(whole: Event, *, over: bool = True) -> Sent:
    """What a completion says; one without usage was cut."""
    (choice,) = whole["choices"]
    counts = whole.get("usage")
    return Sent(
        response_id=whole["id"],
        tokens=None if counts is None else _tokens(counts),
        metadata={} if counts is None else {
            "prompt_audio": 0,
            "completion_reasoning": counts["completion_tokens_details"]["reasoning_tokens"],
            "completion_audio": 0,
            "completion_accepted_prediction": 0,
            "completion_rejected_prediction": 0,
        },
        tools=tuple(
            (one[kind]["name"], one["id"], "", one[kind]["arguments" if kind == "function" else "input"])
            for one in choice["message"].get("tool_calls", ()) for kind in [one["type"]]
        ),
        over=over,
    )  # fmt: skip


def _tokens(counts: Event) -> tuple[int, int, int, int]:
    cached = counts["prompt_tokens_details"]["cached_tokens"]
    return counts["prompt_tokens"] - cached, counts["completion_tokens"], cached, 0


def said_so_far(sent: Sequence[Event], *, over: bool = False) -> Sent:
    """What a stream says that came as far as this."""
    if not sent:
        return Sent(over=over)
    calls: list[Event] = []
    whole: Event = {"id": sent[0]["id"], "choices": [{"message": {"tool_calls": calls}}]}
    for chunk in sent:
        if chunk.get("usage"):
            whole["usage"] = chunk["usage"]
        for choice in chunk["choices"]:
            for one in choice["delta"].get("tool_calls", ()):
                if "id" in one:
                    calls.append({**one, one["type"]: dict(one[one["type"]])})
                    continue
                for kind in ("function", "custom"):
                    for field, part in one.get(kind, {}).items():
                        calls[one["index"]][kind][field] += part
    return said(whole, over=over)
