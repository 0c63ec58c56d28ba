"""Answers of OpenAI Responses as the vendor writes them, blocking and streamed, and what they say.

Shapes and the order of events: platform.openai.com, "The response object" and "Streaming events"; `phase` as models
for agents have it. Nothing follows the event with the whole response.
"""

from collections.abc import Sequence
from typing import Any

from tests.support.kept_records import Sent, body

Event = dict[str, Any]


def usage(given: int = 120, out: int = 44, *, cached: int = 0, written: int = 0, reasoning: int = 0) -> Event:
    return {
        "input_tokens": given, "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": out, "output_tokens_details": {"reasoning_tokens": reasoning}, "total_tokens": given + out,
    }  # fmt: skip


def message(item_id: str, text: str, **more: Any) -> Event:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [part], **more}


def refusal(item_id: str, words: str) -> Event:
    part = {"type": "refusal", "refusal": words}
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def reasoning(item_id: str, *summaries: str) -> Event:
    return {
        "id": item_id, "type": "reasoning", "encrypted_content": "gAAAAAB",
        "summary": [{"type": "summary_text", "text": text} for text in summaries],
    }  # fmt: skip


def function(item_id: str, call_id: str, name: str, arguments: str) -> Event:
    return {"id": item_id, "type": "function_call", "status": "completed", "call_id": call_id, "name": name,
            "arguments": arguments}  # fmt: skip


def custom(item_id: str, call_id: str, name: str, words: str) -> Event:
    return {"id": item_id, "type": "custom_tool_call", "status": "completed", "call_id": call_id, "name": name,
            "input": words}  # fmt: skip


def built_in(kind: str, item_id: str, call_id: str, field: str, asked: Event) -> Event:
    """A call of a tool that OpenAI defines and the client runs."""
    return {"id": item_id, "type": kind, "status": "completed", "call_id": call_id, field: asked}


BUILT_IN = {"local_shell_call": "local_shell", "shell_call": "shell", "apply_patch_call": "apply_patch",
            "computer_call": "computer"}  # fmt: skip
SEARCH: Event = {"id": "ws_1", "type": "web_search_call", "status": "completed",
                 "action": {"type": "search", "query": "weather", "queries": ["weather"]}}  # fmt: skip
# Name: the items of the output, usage, and the status with what belongs to it.
TURNS: dict[str, tuple[Sequence[Event], Event | None, Event]] = {
    "text": ([message("msg_1", "Hello, “world”.")], usage(), {}),
    "tool": ([function("fc_1", "call_t", "get_weather", '{"city":"Köln"}')], usage(), {}),
    "parallel-tools": (
        [function("fc_1", "call_a", "get_weather", '{"city":"Rome"}'), function("fc_2", "call_b", "list_cities", "{}"),
         custom("ctc_1", "call_c", "apply_patch", "*** Begin Patch\n+é \"x\"\n")],
        usage(),
        {},
    ),
    "built-in-tools": (
        [
            built_in("local_shell_call", "lsh_1", "call_l", "action", {"type": "exec", "command": ["ls", "-l"]}),
            built_in("shell_call", "sh_1", "call_s", "action", {"commands": ["echo \"é\""], "timeout_ms": 1000}),
            built_in("apply_patch_call", "ap_1", "call_p", "operation", {"type": "delete_file", "path": "a.py"}),
            built_in("computer_call", "cu_1", "call_c", "action", {"type": "click", "x": 1, "y": 2}),
        ],
        usage(),
        {},
    ),
    "thinking": (
        [reasoning("rs_1", "**Looking around**\n\nFirst this.", "Then that."),
         message("msg_1", "I will read two files.", phase="commentary"), SEARCH, reasoning("rs_2"),
         message("msg_2", "42", phase="final_answer"), function("fc_1", "call_d", "done", "{}")],
        usage(out=900, reasoning=832),
        {},
    ),
    "cached": ([message("msg_1", "From the cache.")], usage(given=4999, cached=4096, written=128), {}),
    "refusal": ([refusal("msg_1", "I cannot help with that.")], usage(out=9), {}),
    "incomplete": (
        [message("msg_1", "Too lo", status="incomplete")],
        usage(out=16),
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
    ),
}  # fmt: skip


def document(name: str) -> Event:
    """The blocking answer."""
    items, counts, status = TURNS[name]
    return {
        "id": f"resp_{name}", "object": "response", "created_at": 1_795_000_000, "status": "completed",
        "background": False, "error": None, "incomplete_details": None, "instructions": None,
        "max_output_tokens": None, "model": "gpt-5.2-codex", "output": list(items), "parallel_tool_calls": True,
        "previous_response_id": None, "prompt_cache_key": None, "reasoning": {"effort": "medium", "summary": "auto"},
        "service_tier": "default", "store": False, "temperature": 1.0, "text": {"format": {"type": "text"}},
        "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled", "usage": counts, "user": None,
        "metadata": {}, **status,
    }  # fmt: skip


def events(name: str) -> list[Event]:
    """The streamed answer."""
    whole = document(name)
    started = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    made: list[Event] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
    ]
    for index, item in enumerate(whole["output"]):
        made += [{**event, "output_index": index} for event in _item_events(item)]
    made.append({"type": f"response.{whole['status']}", "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(made)]


def failed(sent: Sequence[Event], code: str, words: str) -> Event:
    """How a stream ends that comes no further than this."""
    whole = {**sent[0]["response"], "status": "failed", "error": {"code": code, "message": words}}
    return {"type": "response.failed", "sequence_number": len(sent), "response": whole}


def _item_events(item: Event) -> list[Event]:
    added = {**item, "status": "in_progress"} if "status" in item else dict(item)
    added |= {field: empty for field, empty in (("content", []), ("summary", []), ("arguments", ""), ("input", ""))
              if field in item}  # fmt: skip
    made: list[Event] = [{"type": "response.output_item.added", "item": added}]
    for place, part in enumerate(item.get("content", ())):
        kind, field = part["type"], "text" if part["type"] == "output_text" else "refusal"
        where = {"item_id": item["id"], "content_index": place}
        made.append({"type": "response.content_part.added", **where, "part": {**part, field: ""}})
        made += [{"type": f"response.{kind}.delta", **where, "delta": piece, "logprobs": []}
                 for piece in _parts(part[field])]  # fmt: skip
        made.append({"type": f"response.{kind}.done", **where, field: part[field], "logprobs": []})
        made.append({"type": "response.content_part.done", **where, "part": part})
    for place, part in enumerate(item.get("summary", ())):
        where = {"item_id": item["id"], "summary_index": place}
        made.append({"type": "response.reasoning_summary_part.added", **where, "part": {**part, "text": ""}})
        made += [{"type": "response.reasoning_summary_text.delta", **where, "delta": piece}
                 for piece in _parts(part["text"])]  # fmt: skip
        made.append({"type": "response.reasoning_summary_text.done", **where, "text": part["text"]})
        made.append({"type": "response.reasoning_summary_part.done", **where, "part": part})
    for field, kind in (("arguments", "function_call_arguments"), ("input", "custom_tool_call_input")):
        if field in item:
            made += [{"type": f"response.{kind}.delta", "item_id": item["id"], "delta": piece}
                     for piece in _parts(item[field])]  # fmt: skip
            made.append({"type": f"response.{kind}.done", "item_id": item["id"], field: item[field],
                         "name": item["name"]})  # fmt: skip
    return [*made, {"type": "response.output_item.done", "item": item}]


def _parts(words: str) -> list[str]:
    return [words[at : at + 9] for at in range(0, len(words), 9)]


def said(whole: Event, *, over: bool = True) -> Sent:
    """What a response says."""
    counts, items = whole["usage"], whole["output"]
    tokens = None
    if counts is not None:
        of_input = counts["input_tokens_details"]
        cached, written = of_input["cached_tokens"], of_input["cache_write_tokens"]
        tokens = (counts["input_tokens"] - cached - written, counts["output_tokens"], cached, written)
    thoughts = [
        (source, part["text"])
        for item in items
        for source, parts in (
            ("reasoning_summary", item.get("summary", ())),
            ("commentary", item["content"] if item.get("phase") == "commentary" else ()),
        )
        for part in parts
    ]
    return Sent(
        response_id=whole["id"],
        tokens=tokens,
        metadata={} if counts is None else
        {"output_reasoning": counts["output_tokens_details"]["reasoning_tokens"]},
        tools=tuple(_tool(item) for item in items
                    if item["type"] in ("function_call", "custom_tool_call", *BUILT_IN)),
        thoughts=tuple(thoughts),
        over=over,
    )  # fmt: skip


def _tool(item: Event) -> tuple[str, str, str, str]:
    """Name, the two ids, and the input as it stands in the bytes."""
    if item["type"] in BUILT_IN:
        asked = item.get("action") or item["operation"]
        return BUILT_IN[item["type"]], item["call_id"], item["id"], body(asked).decode()
    return item["name"], item["call_id"], item["id"], item.get("arguments") or item.get("input")


def said_so_far(sent: Sequence[Event]) -> Sent:
    """What a stream says that came as far as this: an item counts when it is done, usage is in the last event."""
    if not sent:
        return Sent(over=False)
    if sent[-1]["type"] in ("response.completed", "response.incomplete"):
        return said(sent[-1]["response"])
    done = [event["item"] for event in sent if event["type"] == "response.output_item.done"]
    return said({**sent[0]["response"], "output": done}, over=False)
