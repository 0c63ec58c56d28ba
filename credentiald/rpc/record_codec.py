"""Reports of bridges to values. What cannot be stored is told apart, so that no bridge sends it for ever."""

import json
from collections.abc import Iterable

from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald.ids import uuid_bytes
from credentiald.receipts import Receipt
from credentiald.record_model import (
    End,
    Facts,
    ModelThought,
    Origin,
    Outcome,
    Prompt,
    Report,
    TokenUsage,
    ToolCall,
)
from credentiald.record_rules import KeepRules

# The longest of each that is kept; longer ones are cut.
_NAME_CHARACTERS = 256
_AGENT_CHARACTERS = 512
_MESSAGE_CHARACTERS = 1024
_LAST_SECOND = 253_402_300_799
_MOST_COUNT = 1 << 62
# No call takes a trillion tokens, and sums of nine million such calls fit into 64 bits.
_MOST_TOKENS = 1_000_000_000_000

_OUTCOMES = {
    record_pb2.InterceptionOutcome.Value(f"INTERCEPTION_OUTCOME_{one.value}"): one.value
    for one in Outcome
    if one is not Outcome.BRIDGE_VANISHED
}
_CATEGORIES = {
    value.number: value.name.removeprefix("UPSTREAM_ERROR_CATEGORY_") if value.number else ""
    for value in record_pb2.UpstreamErrorCategory.DESCRIPTOR.values
}


class RecordInvalid(Exception):
    """A record that no store takes; told to the bridge as a rejection."""


def report_of(
    message: pb.InterceptionRecords,
    receipt: Receipt,
    *,
    provider_name: str,
    provider_type: str,
    bridge_instance_id: str,
    rules: KeepRules,
) -> Report:
    """What the bridge says of one interception, with what the receipt says of it. RecordInvalid."""
    origin = Origin(
        receipt.service_id,
        receipt.user_id,
        receipt.provider_id,
        provider_name,
        provider_type,
        receipt.source,
        receipt.credential_id,
    )
    start = receipt.resolve_time_micros
    return Report(
        receipt.interception_id,
        receipt.resolution_id,
        origin,
        start,
        bridge_instance_id[:_NAME_CHARACTERS],
        _facts(message.facts) if message.HasField("facts") else None,
        tuple([_token_usage(one, start) for one in message.token_usages]),
        tuple([_prompt(one, start, rules, provider_name) for one in message.prompts]),
        tuple([_tool_call(one, start, rules, provider_name) for one in message.tool_calls]),
        tuple([_thought(one, start, rules, provider_name) for one in message.model_thoughts]),
        _end(message.end, start) if message.HasField("end") else None,
    )


def _facts(message: pb.InterceptionFacts) -> Facts:
    return Facts(
        message.client[:_NAME_CHARACTERS],
        message.user_agent[:_AGENT_CHARACTERS],
        message.client_session_id[:_NAME_CHARACTERS],
        message.correlating_tool_call_id[:_NAME_CHARACTERS],
        message.operation[:_NAME_CHARACTERS],
        message.model[:_NAME_CHARACTERS],
        message.upstream_model[:_NAME_CHARACTERS],
        message.streaming,
    )


def _end(message: pb.InterceptionEnd, start_micros: int) -> End:
    outcome = _OUTCOMES.get(message.outcome)
    if outcome is None:
        raise RecordInvalid("outcome")
    return End(
        max(_micros(message.end_time, start_micros), start_micros),
        outcome,
        # A newer bridge may know more of them.
        _CATEGORIES.get(message.error_category, "UNKNOWN"),
        message.error_reason[:_NAME_CHARACTERS],
        message.error_message[:_MESSAGE_CHARACTERS],
        message.http_status,
        message.upstream_request_id[:_NAME_CHARACTERS],
        _count(message.duration_micros),
        _count(message.first_byte_micros) if message.HasField("first_byte_micros") else None,
    )


def _token_usage(message: record_pb2.TokenUsage, start_micros: int) -> TokenUsage:
    return TokenUsage(
        _id(message.id),
        _micros(message.create_time, start_micros),
        message.response_id[:_NAME_CHARACTERS],
        _tokens(message.input_tokens),
        _tokens(message.output_tokens),
        _tokens(message.cache_read_input_tokens),
        _tokens(message.cache_write_input_tokens),
        _metadata(message.metadata.items()),
        message.partial,
    )


def _prompt(message: record_pb2.Prompt, start_micros: int, rules: KeepRules, provider: str) -> Prompt:
    return Prompt(
        _id(message.id),
        _micros(message.create_time, start_micros),
        message.response_id[:_NAME_CHARACTERS],
        rules.prompts.kept(message.text, provider),
        _count(message.text_bytes) or _size(message.text),
    )


def _tool_call(message: record_pb2.ToolCall, start_micros: int, rules: KeepRules, provider: str) -> ToolCall:
    return ToolCall(
        _id(message.id),
        _micros(message.create_time, start_micros),
        message.response_id[:_NAME_CHARACTERS],
        message.tool_call_id[:_NAME_CHARACTERS],
        message.item_id[:_NAME_CHARACTERS],
        message.tool[:_NAME_CHARACTERS],
        rules.tool_inputs.kept(message.input, provider),
        _count(message.input_bytes) or _size(message.input),
        message.server_url[:_AGENT_CHARACTERS],
        message.injected,
        message.invocation_error[:_MESSAGE_CHARACTERS],
    )


def _thought(message: record_pb2.ModelThought, start_micros: int, rules: KeepRules, provider: str) -> ModelThought:
    return ModelThought(
        _id(message.id),
        _micros(message.create_time, start_micros),
        message.response_id[:_NAME_CHARACTERS],
        rules.thoughts.kept(message.content, provider),
        _count(message.content_bytes) or _size(message.content),
        message.source[:_NAME_CHARACTERS],
    )


def _id(text: str) -> str:
    if uuid_bytes(text) is None:
        raise RecordInvalid("id")
    return text.lower()


def _count(number: int) -> int:
    if not 0 <= number < _MOST_COUNT:
        raise RecordInvalid("number")
    return number


def _tokens(number: int) -> int:
    if not 0 <= number <= _MOST_TOKENS:
        raise RecordInvalid("tokens")
    return number


def _micros(moment: Timestamp, start_micros: int) -> int:
    """The time, or that of the resolve for one that is not set."""
    seconds, nanos = moment.seconds, moment.nanos
    if not seconds:
        return start_micros
    if not 0 < seconds <= _LAST_SECOND or not 0 <= nanos < 1_000_000_000:
        raise RecordInvalid("time")
    return seconds * 1_000_000 + nanos // 1000


def _metadata(items: Iterable[tuple[str, int]]) -> str:
    found = {name[:_NAME_CHARACTERS]: number for name, number in items}
    return json.dumps(found, sort_keys=True) if found else "{}"


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
