"""The demo's Anthropic Messages: requests read, answers and events built (docs.claude.com, "Messages", "Streaming")."""

from collections.abc import Iterator
from typing import Any

from bridged.demo.conversation import Reply, Tool, Turn
from bridged.demo.wire import Event, named_event, text_of


def read(body: dict[str, Any]) -> Turn:
    """The turn in a request to /v1/messages."""
    messages = [message for message in body.get("messages", []) if isinstance(message, dict)]
    users = [message for message in messages if message.get("role") == "user"]
    last = users[-1].get("content", "") if users else ""
    return Turn(
        model=str(body.get("model", "demo")),
        stream=body.get("stream") is True,
        prompt=text_of(last),
        tool_result=_tool_result(last),
        tools=tuple(_tools(body)),
        size_characters=len(str(messages)) + len(str(body.get("system", ""))),
    )


def _tool_result(content: Any) -> str | None:
    blocks = content if isinstance(content, list) else []
    results = [block for block in blocks if isinstance(block, dict) and block.get("type") == "tool_result"]
    return text_of(results[-1].get("content", "")) if results else None


def _tools(body: dict[str, Any]) -> Iterator[Tool]:
    # Tools that the API runs itself (web_search and the like) have a type and no schema.
    for tool in body.get("tools") or []:
        if isinstance(tool, dict) and isinstance(tool.get("input_schema"), dict):
            yield Tool(name=str(tool.get("name", "")), schema=tool["input_schema"])


def answer(reply: Reply, arguments: Any) -> dict[str, Any]:
    """The blocking answer. `arguments` are those of the tool call, decoded."""
    return _message(reply) | {
        "content": [_tool_block(reply, arguments) if reply.tool else {"type": "text", "text": reply.text}],
        "stop_reason": _stop_reason(reply),
        "usage": _usage(reply, reply.output_tokens),
    }


def events(reply: Reply) -> Iterator[Event]:
    """The streamed answer."""
    yield _event("message_start", message=_message(reply) | {"usage": _usage(reply, 1)})
    block = _tool_block(reply, {}) if reply.tool else {"type": "text", "text": ""}
    yield _event("content_block_start", index=0, content_block=block)
    yield _event("ping")
    for piece in reply.argument_pieces:
        yield _event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": piece})
    for piece in reply.pieces:
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    yield _event("content_block_stop", index=0)
    yield _event(
        "message_delta",
        delta={"stop_reason": _stop_reason(reply), "stop_sequence": None},
        usage={"output_tokens": reply.output_tokens},
    )
    yield _event("message_stop")


def _event(name: str, **fields: Any) -> Event:
    return named_event({"type": name, **fields})


def _message(reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _tool_block(reply: Reply, arguments: Any) -> dict[str, Any]:
    name = reply.tool.name if reply.tool else ""
    return {"type": "tool_use", "id": f"toolu_{reply.id}", "name": name, "input": arguments}


def _stop_reason(reply: Reply) -> str:
    return "tool_use" if reply.tool else "end_turn"


def _usage(reply: Reply, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": reply.input_tokens,
        "output_tokens": output_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
