"""Answers of Anthropic Messages as the vendor writes them, blocking and streamed, and what they say.

Shapes and the order of events: platform.claude.com, "Streaming messages", "Extended thinking", "Prompt caching",
"Handling stop reasons", "Web search tool".
"""

import json
from collections.abc import Sequence
from typing import Any

from tests.support.kept_records import Sent

Event = dict[str, Any]

USAGE = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 42,
    "service_tier": "standard",
    "inference_geo": "not_available",
}
CACHED = {
    **USAGE,
    "input_tokens": 3,
    "cache_creation_input_tokens": 1030,
    "cache_read_input_tokens": 20480,
    "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 1000},
}


def text(words: str) -> Event:
    return {"type": "text", "text": words}


def thinking(words: str) -> Event:
    return {"type": "thinking", "thinking": words, "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk="}


def tool(name: str, call_id: str, **arguments: Any) -> Event:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


SEARCH: Sequence[Event] = (
    {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "weather in Köln"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01", "content": [
        {"type": "web_search_result", "url": "https://example.com", "title": "Weather", "encrypted_content": "Eqg=",
         "page_age": None}]},
)  # fmt: skip

# Name: blocks, why it stopped, usage.
TURNS: dict[str, tuple[Sequence[Event], str, Event]] = {
    "text": ([text("Hello, “world”.")], "end_turn", USAGE),
    "tool": (
        [text("I look."), tool("get_weather", "toolu_01", city="Köln", unit="°C", days=[1, 2])],
        "tool_use",
        USAGE,
    ),
    "parallel-tools": (
        [tool("get_weather", "toolu_a", city="Rome"), tool("list_cities", "toolu_b"),
         tool("get_weather", "toolu_c", city='"quoted" \\ {}')],
        "tool_use",
        USAGE,
    ),
    "thinking": (
        [thinking("Two steps:\nfirst this, then that."), {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"},
         thinking("Now I know."), text("42"), tool("done", "toolu_d")],
        "tool_use",
        {**USAGE, "output_tokens": 900, "output_tokens_details": {"thinking_tokens": 850}},
    ),
    "hidden-thinking": ([thinking(""), text("42")], "end_turn", USAGE),
    "cached": ([text("From the cache.")], "end_turn", CACHED),
    "refusal": ([], "refusal", {**USAGE, "output_tokens": 1}),
    "server-tools": (
        [text("I search."), *SEARCH, text("It rains.")],
        "end_turn",
        {**USAGE, "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0}},
    ),
}  # fmt: skip


def document(name: str) -> Event:
    """The blocking answer."""
    blocks, stop_reason, usage = TURNS[name]
    refused = {"stop_details": {"type": "refusal", "category": "cyber", "explanation": None}}
    return {
        "id": f"msg_{name}", "type": "message", "role": "assistant", "model": "claude-opus-4-8", "content": blocks,
        "stop_reason": stop_reason, "stop_sequence": None, "usage": usage, **({} if blocks else refused),
    }  # fmt: skip


def events(name: str) -> list[Event]:
    """The streamed answer: pieces are short, and the counts at its start are not those at its end."""
    whole = document(name)
    usage = whole["usage"]
    start = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    start["usage"].pop("server_tool_use", None)
    start["usage"].pop("output_tokens_details", None)
    start.pop("stop_details", None)
    made: list[Event] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(whole["content"]):
        made += _block_events(index, block)
        if index == 0:
            made.append({"type": "ping"})
    told = {key: value for key, value in usage.items() if key.endswith(("_tokens", "_tokens_details", "_tool_use"))}
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    return [*made, {"type": "message_delta", "delta": delta, "usage": told}, {"type": "message_stop"}]


def _block_events(index: int, block: Event) -> list[Event]:
    kind = block["type"]
    if kind == "text":
        start, deltas = {**block, "text": ""}, [{"type": "text_delta", "text": part} for part in _parts(block["text"])]
    elif kind == "thinking":
        start = {**block, "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": part} for part in _parts(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind in ("tool_use", "server_tool_use"):
        start = {**block, "input": {}}
        written = "" if not block["input"] else json.dumps(block["input"], ensure_ascii=False)
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in ["", *_parts(written)]]
    else:
        start, deltas = block, []
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _parts(words: str) -> list[str]:
    return [words[at : at + 9] for at in range(0, len(words), 9)]


def said(whole: Event, *, over: bool = True, usage: Event | None = None) -> Sent:
    """What a message says."""
    counts = whole["usage"] | (usage or {})
    details, cache = counts.get("output_tokens_details"), counts["cache_creation"]
    searches = counts.get("server_tool_use")
    return Sent(
        response_id=whole["id"],
        tokens=(
            counts["input_tokens"],
            counts["output_tokens"],
            counts["cache_read_input_tokens"],
            counts["cache_creation_input_tokens"],
        ),
        metadata={
            "cache_ephemeral_5m_input": cache["ephemeral_5m_input_tokens"],
            "cache_ephemeral_1h_input": cache["ephemeral_1h_input_tokens"],
            **({"output_reasoning": details["thinking_tokens"]} if details else {}),
            **(searches or {}),
        },
        tools=tuple(
            (block["name"], block["id"], "", block["input"] if isinstance(block["input"], str)
             else json.dumps(block["input"], ensure_ascii=False))
            for block in whole["content"] if block["type"] == "tool_use"
        ),
        thoughts=tuple(("thinking", block["thinking"]) for block in whole["content"]
                       if block["type"] == "thinking" and block["thinking"]),
        over=over,
    )  # fmt: skip


def said_so_far(sent: Sequence[Event]) -> Sent:
    """What a stream says that came as far as this."""
    if not sent:
        return Sent(over=False)
    message = {**sent[0]["message"], "content": []}
    usage: Event = {}
    blocks: list[Event] = message["content"]
    for event in sent[1:]:
        if event["type"] == "content_block_start":
            block = event["content_block"]
            blocks.append({**block, "input": ""} if block["type"] == "tool_use" else dict(block))
        elif event["type"] == "content_block_delta":
            for key, field in (("thinking", "thinking"), ("partial_json", "input")):
                if key in event["delta"] and blocks[-1]["type"] in ("thinking", "tool_use"):
                    blocks[-1][field] += event["delta"][key]
        elif event["type"] == "content_block_stop" and blocks[-1].get("input") == "":
            blocks[-1]["input"] = "{}"
        elif event["type"] == "message_delta":
            usage = event["usage"]
    return said(message, usage=usage, over=sent[-1]["type"] == "message_stop")
