"""The demo's OpenAI Chat Completions (platform.openai.com, "Chat", "Chat streaming")."""

from collections.abc import Iterator
from typing import Any

from bridged.demo.conversation import Reply, Tool, Turn
from bridged.demo.wire import DONE, Event, plain_event, text_of


def read(body: dict[str, Any]) -> Turn:
    """The turn in a request to /chat/completions."""
    messages = [message for message in body.get("messages", []) if isinstance(message, dict)]
    users = [message for message in messages if message.get("role") == "user"]
    last = messages[-1] if messages else {}
    return Turn(
        model=str(body.get("model", "demo")),
        stream=body.get("stream") is True,
        prompt=text_of(users[-1].get("content")) if users else "",
        tool_result=text_of(last.get("content")) if last.get("role") == "tool" else None,
        tools=tuple(_tools(body)),
        size_characters=len(str(messages)),
    )


def wants_usage(body: dict[str, Any]) -> bool:
    """Whether the client asked for usage at the end of the stream."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _tools(body: dict[str, Any]) -> Iterator[Tool]:
    for tool in body.get("tools") or []:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict):
            yield Tool(name=str(function.get("name", "")), schema=function.get("parameters") or {})


def answer(reply: Reply) -> dict[str, Any]:
    """The blocking answer."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.tool:
        message["tool_calls"] = [_call(reply, reply.arguments)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(reply)}
    return _head(reply, "chat.completion") | {"choices": [choice], "usage": _usage(reply)}


def events(reply: Reply, *, usage: bool) -> Iterator[Event]:
    """The streamed answer; `usage` adds the chunk that `include_usage` asks for."""
    yield _chunk(reply, {"role": "assistant", "content": None if reply.tool else "", "refusal": None})
    if reply.tool:
        yield _chunk(reply, {"tool_calls": [{"index": 0, **_call(reply, "")}]})
    for piece in reply.argument_pieces:
        yield _chunk(reply, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    for piece in reply.pieces:
        yield _chunk(reply, {"content": piece})
    yield _chunk(reply, {}, finish_reason=_finish_reason(reply))
    if usage:
        yield plain_event(_head(reply, "chat.completion.chunk") | {"choices": [], "usage": _usage(reply)})
    yield DONE


def _chunk(reply: Reply, delta: dict[str, Any], *, finish_reason: str | None = None) -> Event:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return plain_event(_head(reply, "chat.completion.chunk") | {"choices": [choice]})


def _head(reply: Reply, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{reply.id}", "object": kind, "created": reply.created, "model": reply.model}


def _call(reply: Reply, arguments: str) -> dict[str, Any]:
    name = reply.tool.name if reply.tool else ""
    return {"id": f"call_{reply.id}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _finish_reason(reply: Reply) -> str:
    return "tool_calls" if reply.tool else "stop"


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }
