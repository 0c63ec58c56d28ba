"""Which bodies Bedrock takes, in AWS's words where it does not."""

import base64
import binascii
import json
from typing import Any

# Betas that InvokeModel takes; all others are an "invalid beta flag".
BETAS = frozenset({
    "computer-use-2025-01-24",
    "context-1m-2025-08-07",
    "context-management-2025-06-27",
    "dev-full-thinking-2025-05-14",
    "effort-2025-11-24",
    "interleaved-thinking-2025-05-14",
    "output-128k-2025-02-19",
    "token-efficient-tools-2025-02-19",
    "tool-examples-2025-10-29",
    "tool-search-tool-2025-10-19",
})  # fmt: skip

# Members of a body for an Anthropic model; those with a beta flag only beside it. AWS's documents do not name
# `metadata`, but Claude Code sends it in its Bedrock mode.
_MEMBERS = frozenset({
    "anthropic_beta", "anthropic_version", "max_tokens", "messages", "metadata", "stop_sequences", "system",
    "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
})  # fmt: skip
_MEMBERS_OF_BETAS = {
    "context_management": "context-management-2025-06-27",
    "output_config": "effort-2025-11-24",
}
# These take output_config without a flag.
_EFFORT_WITHOUT_BETA = ("opus-4-7", "opus-4-8")


def what_is_wrong(operation: str, model: str, data: bytes, betas: frozenset[str] | None) -> str | None:
    """What Bedrock would say about the body of a POST, None if it takes it. `betas` None takes any beta flag."""
    try:
        body = json.loads(data)
    except ValueError:
        return "Malformed input request, please reformat your input and try again."
    if not isinstance(body, dict):
        return "Malformed input request: expected type: JSONObject"
    match operation:
        case "invoke" | "invoke-with-response-stream":
            return _wrong_invocation(body, model, betas)
        case "converse" | "converse-stream":
            return None if isinstance(body.get("messages"), list) else "messages: Field required"
        case "count-tokens":
            return _wrong_count(body, model, betas)
        case _:
            return None if isinstance(body.get("model"), str) else "model: Field required"


def _wrong_invocation(body: dict[str, Any], model: str, betas: frozenset[str] | None) -> str | None:
    if not isinstance(body.get("anthropic_version"), str):
        return "anthropic_version: Field required"
    if type(body.get("max_tokens")) is not int:
        return "max_tokens: Field required"
    if not isinstance(body.get("messages"), list):
        return "messages: Field required"
    flags = body.get("anthropic_beta", [])
    if not isinstance(flags, list) or (betas is not None and not set(flags) <= betas):
        return "invalid beta flag"
    members = _MEMBERS | {member for member, flag in _MEMBERS_OF_BETAS.items() if flag in flags}
    if any(name in model for name in _EFFORT_WITHOUT_BETA):
        members |= {"output_config"}
    extra = [name for name in body if name not in members]
    return f"{extra[0]}: Extra inputs are not permitted" if extra else None


def _wrong_count(body: dict[str, Any], model: str, betas: frozenset[str] | None) -> str | None:
    match body:
        case {"input": {"converse": {"messages": list()}}}:
            return None
        case {"input": {"invokeModel": {"body": str(encoded)}}}:
            try:
                counted = json.loads(base64.b64decode(encoded, validate=True))
            except (binascii.Error, ValueError):
                return "input.invokeModel.body is not JSON in base64"
            return _wrong_invocation(counted, model, betas)
        case _:
            return "input: exactly one of invokeModel and converse"
