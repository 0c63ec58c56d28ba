"""A request of Anthropic Messages as a body of Bedrock's InvokeModel or CountTokens: edited, not rebuilt.

    model, stream              out: they are in the path
    anthropic_version          written
    anthropic_beta             the flags of the headers and of the body that the model takes (families.py)
    thinking, output_config    what the model takes of them
    metadata and its like      out (families.DROPPED_FIELDS)
    messages of role system    of role user, in their place, for models that do not take them
    cache_control              without what Bedrock does not know (cache_control.py)

Sources: AWS, "Anthropic Claude Messages API" (Bedrock User Guide) and "CountTokens" (Bedrock API Reference).
"""

import base64
import re
from collections.abc import Iterator
from urllib.parse import quote

from bridged.bedrock.cache_control import strip_cache_control
from bridged.bedrock.families import DROPPED_FIELDS, EFFORT, Capabilities, Thinking, capabilities_of
from bridged.bedrock.thinking import USUAL_EFFORT, convert_thinking, kind_of_thinking
from bridged.json_edit import (
    MOST_PARTS,
    JsonArray,
    JsonObject,
    MalformedJson,
    TooManyParts,
    decoded,
    is_array,
    is_object,
    string_list,
)
from bridged.model import BedrockOptions, Headers, Refused, header_values

ANTHROPIC_VERSION = "bedrock-2023-05-31"
BETA_HEADER = "anthropic-beta"

_SYSTEM_ROLE = re.compile(rb'"role"[ \t\n\r]*:[ \t\n\r]*"system"')
# CountTokens wants a whole request. A limit on the answer is no input, so it changes no count; it has to be above the
# budget of the thinking, and high enough for thinking not to be turned off.
_COUNTED_MAX_TOKENS = 1
_COUNTED_MAX_TOKENS_WITH_THINKING = 8192
# "us." and its like before the id of a foundation model: a system-defined inference profile (AWS, "Supported Regions
# and models for inference profiles"). CountTokens knows foundation models only.
_PROFILE_PREFIX = re.compile(r"(?:[a-z]{2,6}(?:-gov)?)\.(?=anthropic\.)")
_PROFILE_ARN = re.compile(r"arn:[^/]*:inference-profile/")


def messages_to_invoke(
    body: bytes, headers: Headers, *, model: str, asked_for: str, options: BedrockOptions
) -> tuple[bytes, bool]:
    """The body for InvokeModel, and whether a stream was asked for.

    `model` is the id at Bedrock, `asked_for` what the client called it. INVALID_BODY for what is not an object, and as
    convert_thinking says.
    """
    capabilities = capabilities_of(model, asked_for=asked_for, rules=options.model_rules)
    try:
        edited = JsonObject(body)
        stream = decoded(edited.get("stream") or b"null") is True
        _edit(edited, headers, capabilities)
    except MalformedJson as error:
        raise _refused(error) from None
    return edited.encode(), stream


def messages_to_count(body: bytes, headers: Headers, *, model: str, asked_for: str, options: BedrockOptions) -> bytes:
    """The body for CountTokens: the body for InvokeModel in base64, with a max_tokens if it had none."""
    capabilities = capabilities_of(model, asked_for=asked_for, rules=options.model_rules)
    try:
        edited = JsonObject(body)
        if decoded(edited.get("max_tokens") or b"null") is None:
            edited.put("max_tokens", b"%d" % _max_tokens_for_counting(edited, capabilities))
        _edit(edited, headers, capabilities)
    except MalformedJson as error:
        raise _refused(error) from None
    return b'{"input":{"invokeModel":{"body":"%b"}}}' % base64.b64encode(edited.encode())


def model_path(model: str, action: str) -> str:
    """`/model/{id}/{action}`, the id percent-encoded as boto3 does it: `:` and the `/` of an ARN as well.

    INVALID_BODY for an id that is missing, or would be a dot segment.
    """
    if not model.strip("."):
        raise Refused("INVALID_BODY", "model: field required")
    return f"/model/{quote(model, safe='', errors='replace')}/{action}"


def countable_model(model: str) -> str:
    """The foundation model behind a system-defined inference profile; any other id as it is."""
    name = _PROFILE_ARN.sub("", model, count=1)
    without_prefix = _PROFILE_PREFIX.sub("", name, count=1)
    return without_prefix if without_prefix != name else model


def _edit(body: JsonObject, headers: Headers, capabilities: Capabilities) -> None:
    # Read before it is taken out.
    effort = _effort(body)
    betas = _passing_betas(body, headers, capabilities)
    for name in ("model", "stream", *_fields_to_drop(betas)):
        body.remove(name)
    convert_thinking(body, capabilities.family.thinking, effort=effort)
    _edit_output_config(body, capabilities, betas)
    if not capabilities.takes_system_messages:
        _make_system_messages_the_users(body)
    strip_cache_control(body, keep_ttl=capabilities.family.cache_ttl)
    body.remove("anthropic_beta")
    if betas:
        body.put("anthropic_beta", string_list(betas))
    body.put("anthropic_version", b'"%b"' % ANTHROPIC_VERSION.encode())


def _passing_betas(body: JsonObject, headers: Headers, capabilities: Capabilities) -> list[str]:
    """Every flag once, in the order of the headers and then of the body."""
    asked = dict.fromkeys((*_betas_of_headers(headers), *_betas_of_body(body)))
    return [flag for flag in asked if flag in capabilities.betas]


def _betas_of_headers(headers: Headers) -> Iterator[str]:
    for value in header_values(headers, BETA_HEADER):
        yield from filter(None, (flag.strip() for flag in value.split(",")))


def _betas_of_body(body: JsonObject) -> list[str]:
    found = decoded(body.get("anthropic_beta") or b"null")
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(flag, str) for flag in found):
        raise Refused("INVALID_BODY", "anthropic_beta: must be a list of strings")
    return found


def _fields_to_drop(betas: list[str]) -> list[str]:
    return [name for name, flag in DROPPED_FIELDS.items() if not flag or flag not in betas]


def _effort(body: JsonObject) -> str:
    value = body.get("output_config")
    if value is None or not is_object(value):
        return USUAL_EFFORT
    effort = decoded(JsonObject(value).get("effort") or b"null")
    return effort if isinstance(effort, str) else USUAL_EFFORT


def _edit_output_config(body: JsonObject, capabilities: Capabilities, betas: list[str]) -> None:
    """Effort is all that Bedrock takes of it: with its flag, or with models that know no budgets."""
    value = body.get("output_config")
    if value is None or EFFORT in betas:
        return
    if capabilities.family.thinking is not Thinking.ADAPTIVE_ONLY or not is_object(value):
        body.remove("output_config")
        return
    edited = JsonObject(value)
    edited.remove("format")
    body.put("output_config", edited.encode())


def _make_system_messages_the_users(body: JsonObject) -> None:
    """The words stay where they were said, so that everything before them is still in the prompt cache."""
    value = body.get("messages")
    if value is None or not is_array(value) or _SYSTEM_ROLE.search(value) is None:
        return
    messages, found = JsonArray(value), False
    for place, piece in messages:
        if _SYSTEM_ROLE.search(piece) is None or not is_object(piece):
            continue
        message = JsonObject(piece)
        if decoded(message.get("role") or b"null") == "system":
            message.put("role", b'"user"')
            messages.put(place, message.encode())
            found = True
    if found:
        body.put("messages", messages.encode())


def _max_tokens_for_counting(body: JsonObject, capabilities: Capabilities) -> int:
    kind = kind_of_thinking(body)
    if kind == "adaptive" and capabilities.family.thinking is Thinking.BUDGET_ONLY:
        return _COUNTED_MAX_TOKENS_WITH_THINKING
    if kind == "enabled" and capabilities.family.thinking is not Thinking.ADAPTIVE_ONLY:
        budget = decoded(JsonObject(body.get("thinking") or b"{}").get("budget_tokens") or b"null")
        if isinstance(budget, int) and not isinstance(budget, bool) and budget > 0:
            return budget + 1
    return _COUNTED_MAX_TOKENS


def _refused(error: MalformedJson) -> Refused:
    if isinstance(error, TooManyParts):
        return Refused("INVALID_BODY", f"the body has a list or an object with more than {MOST_PARTS} parts")
    return Refused("INVALID_BODY", "the body is not a well-formed JSON object")
