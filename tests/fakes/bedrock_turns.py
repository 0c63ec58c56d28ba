"""What a model at Bedrock says, in each of the forms in which Bedrock puts it.

A turn is a list of blocks. InvokeModel answers with Anthropic's message, InvokeModelWithResponseStream with Anthropic's
events in base64 inside frames, Converse and ConverseStream with words of their own.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

from tests.support.event_stream import event


@dataclass(frozen=True)
class Text:
    text: str = "Hello from Bedrock"


@dataclass(frozen=True)
class Thinking:
    thinking: str
    signature: str = "c2lnbmVk"


@dataclass(frozen=True)
class ToolUse:
    name: str
    input: dict[str, Any]
    id: str = "toolu_bdrk_1"


Block = Text | Thinking | ToolUse


@dataclass(frozen=True)
class Turn:
    """One answer of a model. `stop_reason` follows from the blocks where it is None."""

    blocks: tuple[Block, ...] = (Text(),)
    stop_reason: str | None = None
    input_tokens: int = 11
    output_tokens: int = 7

    @property
    def reason(self) -> str:
        if self.stop_reason:
            return self.stop_reason
        return "tool_use" if any(isinstance(block, ToolUse) for block in self.blocks) else "end_turn"


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def halves(text: str) -> list[str]:
    """A text as two deltas, so that a client has to put them together."""
    middle = (len(text) + 1) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


# InvokeModel


def message(turn: Turn, model: str) -> dict[str, Any]:
    return {
        **_message_head(model),
        "content": [_content(block) for block in turn.blocks],
        "stop_reason": turn.reason,
        "stop_sequence": None,
        "usage": {"input_tokens": turn.input_tokens, "output_tokens": turn.output_tokens},
    }


def message_events(turn: Turn, model: str) -> list[dict[str, Any]]:
    """Anthropic's events; the last has the metrics that Bedrock adds to it."""
    usage = {"input_tokens": turn.input_tokens, "output_tokens": 1}
    start = {**_message_head(model), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(turn.blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": _begun(block)})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in _deltas(block)]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": turn.reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": turn.output_tokens}})
    metrics = {
        "inputTokenCount": turn.input_tokens,
        "outputTokenCount": turn.output_tokens,
        "invocationLatency": 320,
        "firstByteLatency": 120,
    }
    return [*events, {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}]


def chunk(data: bytes) -> bytes:
    """A frame of InvokeModelWithResponseStream. `p` is padding, as Bedrock sends it."""
    return event("chunk", compact({"bytes": base64.b64encode(data).decode(), "p": "abcdefghijklmnop"}))


def invoke_frames(turn: Turn, model: str) -> list[bytes]:
    return [chunk(compact(one)) for one in message_events(turn, model)]


def _message_head(model: str) -> dict[str, Any]:
    return {"model": model, "id": "msg_bdrk_1", "type": "message", "role": "assistant"}


def _content(block: Block) -> dict[str, Any]:
    match block:
        case Text(text):
            return {"type": "text", "text": text}
        case Thinking(thinking, signature):
            return {"type": "thinking", "thinking": thinking, "signature": signature}
        case ToolUse(name, arguments, id_):
            return {"type": "tool_use", "id": id_, "name": name, "input": arguments}


def _begun(block: Block) -> dict[str, Any]:
    match block:
        case Text():
            return _content(Text(""))
        case Thinking():
            return _content(Thinking("", ""))
        case ToolUse(name, _, id_):
            return _content(ToolUse(name, {}, id_))


def _deltas(block: Block) -> list[dict[str, Any]]:
    match block:
        case Text(text):
            return [{"type": "text_delta", "text": part} for part in halves(text)]
        case Thinking(thinking, signature):
            parts = [{"type": "thinking_delta", "thinking": part} for part in halves(thinking)]
            return [*parts, {"type": "signature_delta", "signature": signature}]
        case ToolUse(_, arguments, _):
            whole = compact(arguments).decode()
            return [{"type": "input_json_delta", "partial_json": part} for part in halves(whole)]


# Converse


def converse(turn: Turn) -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [_converse_content(block) for block in turn.blocks]}},
        "stopReason": turn.reason,
        **_converse_end(turn),
    }


def converse_frames(turn: Turn) -> list[bytes]:
    events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    for index, block in enumerate(turn.blocks):
        if isinstance(block, ToolUse):
            tool = {"toolUse": {"toolUseId": block.id, "name": block.name}}
            events.append(("contentBlockStart", {"start": tool, "contentBlockIndex": index}))
        events += [
            ("contentBlockDelta", {"delta": delta, "contentBlockIndex": index}) for delta in _converse_deltas(block)
        ]
        events.append(("contentBlockStop", {"contentBlockIndex": index}))
    events += [("messageStop", {"stopReason": turn.reason}), ("metadata", _converse_end(turn))]
    return [event(kind, compact({**data, "p": "abcdefgh"})) for kind, data in events]


def _converse_end(turn: Turn) -> dict[str, Any]:
    usage = {
        "inputTokens": turn.input_tokens,
        "outputTokens": turn.output_tokens,
        "totalTokens": turn.input_tokens + turn.output_tokens,
    }
    return {"usage": usage, "metrics": {"latencyMs": 320}}


def _converse_content(block: Block) -> dict[str, Any]:
    match block:
        case Text(text):
            return {"text": text}
        case Thinking(thinking, signature):
            return {"reasoningContent": {"reasoningText": {"text": thinking, "signature": signature}}}
        case ToolUse(name, arguments, id_):
            return {"toolUse": {"toolUseId": id_, "name": name, "input": arguments}}


def _converse_deltas(block: Block) -> list[dict[str, Any]]:
    match block:
        case Text(text):
            return [{"text": part} for part in halves(text)]
        case Thinking(thinking, signature):
            parts: list[dict[str, Any]] = [{"reasoningContent": {"text": part}} for part in halves(thinking)]
            return [*parts, {"reasoningContent": {"signature": signature}}]
        case ToolUse(_, arguments, _):
            return [{"toolUse": {"input": part}} for part in halves(compact(arguments).decode())]


# The control plane

_PROFILE_ID = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
INFERENCE_PROFILE = {
    "inferenceProfileName": "US Claude Sonnet 4.5",
    "inferenceProfileId": _PROFILE_ID,
    "inferenceProfileArn": f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{_PROFILE_ID}",
    "models": [
        {"modelArn": "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0"},
    ],
    "status": "ACTIVE",
    "type": "SYSTEM_DEFINED",
}
FOUNDATION_MODEL = {
    "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0",
    "modelId": "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "modelName": "Claude Sonnet 4.5",
    "providerName": "Anthropic",
    "inputModalities": ["TEXT", "IMAGE"],
    "outputModalities": ["TEXT"],
    "responseStreamingSupported": True,
    "inferenceTypesSupported": ["INFERENCE_PROFILE"],
    "modelLifecycle": {"status": "ACTIVE"},
}
