"""The demo's OpenAI Responses (platform.openai.com, "Responses", "Streaming events")."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from bridged.demo.conversation import Reply, Tool, Turn
from bridged.demo.wire import Event, named_event, text_of


def read(body: dict[str, Any]) -> Turn:
    """The turn in a request to /responses, whose `input` is a string or a list of items."""
    given = body.get("input", "")
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    users = [item for item in items if item.get("role") == "user"]
    last = items[-1] if items else {}
    return Turn(
        model=str(body.get("model", "demo")),
        stream=body.get("stream") is True,
        prompt=given if isinstance(given, str) else text_of(users[-1].get("content")) if users else "",
        tool_result=_output(last) if str(last.get("type", "")).endswith("_call_output") else None,
        tools=tuple(_tools(body, items)),
        size_characters=len(str(given)) + len(str(body.get("instructions", ""))),
    )


def _output(item: dict[str, Any]) -> str:
    output = item.get("output", "")
    return output if isinstance(output, str) else text_of(output)


def _tools(body: dict[str, Any], items: list[dict[str, Any]]) -> Iterator[Tool]:
    offered = list(body.get("tools") or [])
    # Codex may send its tools as an input item instead.
    for item in items:
        if item.get("type") == "additional_tools":
            offered += item.get("tools") or []
    for tool in offered:
        if isinstance(tool, dict) and tool.get("type") == "function":
            yield Tool(name=str(tool.get("name", "")), schema=tool.get("parameters") or {})


def answer(reply: Reply) -> dict[str, Any]:
    """The blocking answer, which is also what `response.completed` carries."""
    usage = {
        "input_tokens": reply.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }
    return _response(reply, "completed") | {"output": [_item(reply, done=True)], "usage": usage}


def events(reply: Reply) -> Iterator[Event]:
    """The streamed answer, numbered from 0."""
    numbers = count()

    def event(kind: str, /, **fields: Any) -> Event:
        return named_event({"type": kind, "sequence_number": next(numbers), **fields})

    yield event("response.created", response=_response(reply, "in_progress"))
    yield event("response.in_progress", response=_response(reply, "in_progress"))
    yield event("response.output_item.added", output_index=0, item=_item(reply, done=False))
    place: dict[str, Any] = {"item_id": _item_id(reply), "output_index": 0}
    if reply.tool:
        for piece in reply.argument_pieces:
            yield event("response.function_call_arguments.delta", **place, delta=piece)
        yield event("response.function_call_arguments.done", **place, name=reply.tool.name, arguments=reply.arguments)
    else:
        place["content_index"] = 0
        yield event("response.content_part.added", **place, part=_part(""))
        for piece in reply.pieces:
            yield event("response.output_text.delta", **place, delta=piece, logprobs=[])
        yield event("response.output_text.done", **place, text=reply.text, logprobs=[])
        yield event("response.content_part.done", **place, part=_part(reply.text))
    yield event("response.output_item.done", output_index=0, item=_item(reply, done=True))
    yield event("response.completed", response=answer(reply))


def _response(reply: Reply, status: str) -> dict[str, Any]:
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": reply.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def _item_id(reply: Reply) -> str:
    return f"fc_{reply.id}" if reply.tool else f"msg_{reply.id}"


def _item(reply: Reply, *, done: bool) -> dict[str, Any]:
    head = {"id": _item_id(reply), "status": "completed" if done else "in_progress"}
    if reply.tool:
        arguments = reply.arguments if done else ""
        call = {"type": "function_call", "call_id": f"call_{reply.id}", "name": reply.tool.name}
        return head | call | {"arguments": arguments}
    return head | {"type": "message", "role": "assistant", "content": [_part(reply.text)] if done else []}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
