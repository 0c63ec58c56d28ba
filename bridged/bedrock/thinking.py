"""How much a model may think: the client's words in those that the model at Bedrock takes.

Sources: platform.claude.com, "Adaptive thinking", "Extended thinking" (a budget is at least 1024 and below max_tokens)
and "Effort".
"""

from collections.abc import Mapping

from bridged.bedrock.families import Thinking
from bridged.json_edit import JsonObject, decoded, is_object
from bridged.model import Refused

LEAST_BUDGET_TOKENS = 1024
# What of max_tokens is for thinking, in percent, by output_config.effort.
PERCENT_BY_EFFORT: Mapping[str, int] = {"low": 20, "medium": 50, "high": 80, "max": 95}
USUAL_EFFORT = "high"

_DISABLED = b'{"type":"disabled"}'
_ADAPTIVE = b'"adaptive"'


def convert_thinking(body: JsonObject, thinking: Thinking, *, effort: str) -> None:
    """Write the body's `thinking` in the way that the family takes; other ways than these two stay as they are.

    INVALID_BODY where a budget is to be made and max_tokens is not a whole number.
    """
    wanted = kind_of_thinking(body)
    if wanted == "adaptive" and thinking is Thinking.BUDGET_ONLY:
        body.put("thinking", _budget(body, effort))
    elif wanted == "enabled" and thinking is Thinking.ADAPTIVE_ONLY:
        edited = JsonObject(body.get("thinking") or b"{}")
        edited.put("type", _ADAPTIVE)
        edited.remove("budget_tokens")
        body.put("thinking", edited.encode())


def kind_of_thinking(body: JsonObject) -> str:
    """`thinking.type`; empty where there is none."""
    value = body.get("thinking")
    if value is None or not is_object(value):
        return ""
    kind = decoded(JsonObject(value).get("type") or b"null")
    return kind if isinstance(kind, str) else ""


def _budget(body: JsonObject, effort: str) -> bytes:
    percent = PERCENT_BY_EFFORT.get(effort, PERCENT_BY_EFFORT[USUAL_EFFORT])
    tokens = _max_tokens(body) * percent // 100
    return b'{"type":"enabled","budget_tokens":%d}' % tokens if tokens >= LEAST_BUDGET_TOKENS else _DISABLED


def _max_tokens(body: JsonObject) -> int:
    found = decoded(body.get("max_tokens") or b"null")
    if found is None:
        raise Refused("INVALID_BODY", "max_tokens: field required")
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if not isinstance(found, int) or isinstance(found, bool):
        raise Refused("INVALID_BODY", "max_tokens: must be a whole number")
    return found
