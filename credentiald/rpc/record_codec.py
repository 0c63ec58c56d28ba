"""Reports of bridges to values.

What no store takes is left out, and said, so that no bridge sends it for ever; all else of the report is kept, for an
interception must not lose its end to a count that makes no sense. This runs for every record of every request, so each
field of a message is read once.
"""

import json
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald.bridge_instances import INSTANCE_CHARACTERS, Instance
from credentiald.errors import InvalidArgument
from credentiald.ids import is_uuid
from credentiald.receipts import Receipt
from credentiald.record_model import (
    DAY_MICROS,
    NAME_CHARACTERS,
    End,
    Facts,
    ModelThought,
    Outcome,
    Prompt,
    Report,
    TokenUsage,
    ToolCall,
)
from credentiald.record_rules import KeepRules

# The longest of each that is kept; longer ones are cut.
_AGENT_CHARACTERS = 512
_MESSAGE_CHARACTERS = 1024
_MOST_METADATA = 64
# No call takes a trillion tokens, and sums of nine million such calls fit into 64 bits.
_MOST_COUNT = 1_000_000_000_000
_MOST_MICROS = 1 << 53
_MOST_STATUS = 999

_OUTCOMES = {
    record_pb2.InterceptionOutcome.Value(f"INTERCEPTION_OUTCOME_{one.value}"): one.value
    for one in Outcome
    if one is not Outcome.BRIDGE_VANISHED
}
_CATEGORIES = {
    value.number: value.name.removeprefix("UPSTREAM_ERROR_CATEGORY_") if value.number else ""
    for value in record_pb2.UpstreamErrorCategory.DESCRIPTOR.values
}


class _Frame(NamedTuple):
    """What the records of one interception are read in."""

    rules: KeepRules
    provider: str
    start_micros: int
    now_micros: int


def instance_of(service_id: str, bridge_instance_id: str) -> Instance:
    """The bridge that calls; INVALID_ARGUMENT for one that does not name itself."""
    if not 0 < len(bridge_instance_id) <= INSTANCE_CHARACTERS:
        raise InvalidArgument(field="bridge_instance_id", problem=f"must have 1 to {INSTANCE_CHARACTERS} characters")
    return service_id, bridge_instance_id


def report_of(
    message: pb.InterceptionRecords, receipt: Receipt, *, bridge_instance_id: str, rules: KeepRules, now_micros: int
) -> Report:
    """What the bridge says of one interception, with what the receipt says of it."""
    interception_id, resolution_id, origin, start_micros = receipt
    frame = _Frame(rules, origin.provider_name, start_micros, now_micros)
    token_usages = [_token_usage(one, frame) for one in message.token_usages]
    prompts = [_prompt(one, frame) for one in message.prompts]
    # Most have none of these, and asking is cheaper than going through none.
    tool_calls = [_tool_call(one, frame) for one in calls] if (calls := message.tool_calls) else []
    thoughts = [_thought(one, frame) for one in thinking] if (thinking := message.model_thoughts) else []
    says_end = message.HasField("end")
    end = _end(message.end, frame) if says_end else None
    return Report(
        interception_id,
        resolution_id,
        origin,
        start_micros,
        bridge_instance_id,
        _facts(message.facts) if message.HasField("facts") else None,
        tuple(filter(None, token_usages)),
        tuple(filter(None, prompts)),
        tuple(filter(None, tool_calls)),
        tuple(filter(None, thoughts)),
        end,
        not (
            (says_end and end is None)
            or None in token_usages
            or None in prompts
            or None in tool_calls
            or None in thoughts
        ),
    )


def _facts(message: pb.InterceptionFacts) -> Facts:
    return Facts(
        message.client[:NAME_CHARACTERS],
        message.user_agent[:_AGENT_CHARACTERS],
        message.client_session_id[:NAME_CHARACTERS],
        message.correlating_tool_call_id[:NAME_CHARACTERS],
        message.operation[:NAME_CHARACTERS],
        message.model[:NAME_CHARACTERS],
        message.upstream_model[:NAME_CHARACTERS],
        message.streaming,
    )


def _end(message: pb.InterceptionEnd, frame: _Frame) -> End | None:
    outcome = _OUTCOMES.get(message.outcome)
    if outcome is None:
        return None
    return End(
        # By the bridge's clock, but neither before its beginning nor in the future by ours.
        _within(frame.start_micros, _micros(message.end_time, frame.now_micros), frame.now_micros),
        outcome,
        # A newer bridge may know more of them.
        _CATEGORIES.get(message.error_category, "UNKNOWN"),
        message.error_reason[:NAME_CHARACTERS],
        message.error_message[:_MESSAGE_CHARACTERS],
        _within(0, message.http_status, _MOST_STATUS),
        message.upstream_request_id[:NAME_CHARACTERS],
        _within(0, message.duration_micros, _MOST_MICROS),
        _within(0, message.first_byte_micros, _MOST_MICROS) if message.HasField("first_byte_micros") else None,
    )


def _token_usage(message: record_pb2.TokenUsage, frame: _Frame) -> TokenUsage | None:
    record_id = message.id
    input_tokens, output_tokens = message.input_tokens, message.output_tokens
    cache_read, cache_write = message.cache_read_input_tokens, message.cache_write_input_tokens
    if not (
        is_uuid(record_id)
        and 0 <= input_tokens <= _MOST_COUNT
        and 0 <= output_tokens <= _MOST_COUNT
        and 0 <= cache_read <= _MOST_COUNT
        and 0 <= cache_write <= _MOST_COUNT
    ):
        return None
    return TokenUsage(
        record_id.lower(),
        _create_micros(message.create_time, frame),
        message.response_id[:NAME_CHARACTERS],
        input_tokens,
        output_tokens,
        cache_read,
        cache_write,
        _metadata(kinds) if (kinds := message.metadata) else "{}",
        message.partial,
    )


def _prompt(message: record_pb2.Prompt, frame: _Frame) -> Prompt | None:
    record_id = message.id
    if not is_uuid(record_id):
        return None
    text = message.text
    return Prompt(
        record_id.lower(),
        _create_micros(message.create_time, frame),
        message.response_id[:NAME_CHARACTERS],
        frame.rules.prompts.kept(text, frame.provider),
        _length(message.text_bytes, text),
    )


def _tool_call(message: record_pb2.ToolCall, frame: _Frame) -> ToolCall | None:
    record_id = message.id
    if not is_uuid(record_id):
        return None
    text = message.input
    return ToolCall(
        record_id.lower(),
        _create_micros(message.create_time, frame),
        message.response_id[:NAME_CHARACTERS],
        message.tool_call_id[:NAME_CHARACTERS],
        message.item_id[:NAME_CHARACTERS],
        message.tool[:NAME_CHARACTERS],
        frame.rules.tool_inputs.kept(text, frame.provider),
        _length(message.input_bytes, text),
        message.server_url[:_AGENT_CHARACTERS],
        message.injected,
        message.invocation_error[:_MESSAGE_CHARACTERS],
    )


def _thought(message: record_pb2.ModelThought, frame: _Frame) -> ModelThought | None:
    record_id = message.id
    if not is_uuid(record_id):
        return None
    text = message.content
    return ModelThought(
        record_id.lower(),
        _create_micros(message.create_time, frame),
        message.response_id[:NAME_CHARACTERS],
        frame.rules.thoughts.kept(text, frame.provider),
        _length(message.content_bytes, text),
        message.source[:NAME_CHARACTERS],
    )


def _create_micros(moment: Timestamp, frame: _Frame) -> int:
    """The time by the bridge's clock, which is taken for wrong where it is a day off."""
    start_micros = frame.start_micros
    return _within(start_micros - DAY_MICROS, _micros(moment, start_micros), frame.now_micros + DAY_MICROS)


def _micros(moment: Timestamp, unset: int) -> int:
    seconds = moment.seconds
    return seconds * 1_000_000 + moment.nanos // 1000 if seconds else unset


def _within(least: int, number: int, most: int) -> int:
    """The nearest to the number that can be; `least` where there is none."""
    if least <= number <= most:
        return number
    return least if number < least else max(least, most)


def _length(told: int, text: str) -> int:
    """Of the whole text in bytes: as the bridge told, who may have cut it; no less than what is here."""
    here = len(text) if text.isascii() else len(text.encode())
    return min(told, _MOST_COUNT) if told > here else here


def _metadata(kinds: Mapping[str, int]) -> str:
    return json.dumps({name[:NAME_CHARACTERS]: kinds[name] for name in islice(sorted(kinds), _MOST_METADATA)})
