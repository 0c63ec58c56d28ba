"""Reports of bridges to values.

What no store takes is left out, and said, so that no bridge sends it for ever; all else of the report is kept, for an
interception must not lose its end to a count that makes no sense. This runs for every record of every request, so each
field of a message is read once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

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
    Attempt,
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
MOST_COUNT = 1_000_000_000_000
MOST_MICROS = 1 << 53
MOST_STATUS = 999
# Of one kind, in one report. Those that nothing is in take no room in a message, and to read a million takes seconds.
MOST_RECORDS = 4096

# Facts of so many bytes are remembered, and so many of them.
_MOST_KNOWN_BYTES = 1024
_MOST_KNOWN = 4096
_UUID_CHARACTERS = 36
_TAILS = frozenset(f"{number:04x}" for number in range(256))
# What a named tuple's own constructor ends in; that takes three times as long, and this is for each record.
_new = tuple.__new__

M = TypeVar("M")
T = TypeVar("T")
_Made = record_pb2.TokenUsage | record_pb2.Prompt | record_pb2.ToolCall | record_pb2.ModelThought | pb.Attempt

_OUTCOMES = {
    record_pb2.InterceptionOutcome.Value(f"INTERCEPTION_OUTCOME_{one.value}"): one.value
    for one in Outcome
    if one is not Outcome.BRIDGE_VANISHED
}
_CATEGORIES = {
    value.number: value.name.removeprefix("UPSTREAM_ERROR_CATEGORY_") if value.number else ""
    for value in record_pb2.UpstreamErrorCategory.DESCRIPTOR.values
}


class Frame(NamedTuple):
    """What the records of one message are read in."""

    bridge_instance_id: str
    rules: KeepRules
    now_micros: int


class _Of(NamedTuple):
    """The interception whose records are read, and what of them is kept."""

    interception_id: str
    start_micros: int
    # Of the end, if the message has it, else of the start.
    last_micros: int
    now_micros: int
    rules: KeepRules
    provider: str


def instance_of(service_id: str, bridge_instance_id: str) -> Instance:
    """The bridge that calls; INVALID_ARGUMENT for one that does not name itself."""
    if not 0 < len(bridge_instance_id) <= INSTANCE_CHARACTERS:
        raise InvalidArgument(field="bridge_instance_id", problem=f"must have 1 to {INSTANCE_CHARACTERS} characters")
    return service_id, bridge_instance_id


class ReportReader:
    """Makes reports of messages; knows the facts that it has read, which are the same for many."""

    def __init__(self, read_receipt: Callable[[bytes], Receipt | None]) -> None:
        self._read_receipt = read_receipt
        self._known: dict[bytes, Facts] = {}

    def report_of(self, message: pb.InterceptionRecords, receipt: Receipt, frame: Frame) -> Report:
        """What the bridge says of one interception, with what the receipt says of it. INVALID_ARGUMENT for too many
        records."""
        interception_id, resolution_id, origin, start_micros = receipt
        bridge_instance_id, rules, now_micros = frame
        end = _end(message.end, start_micros, now_micros)
        if end is not None and end.error_message:
            # It may quote what was asked.
            kept = rules.prompts.kept(end.error_message, origin.provider_name)
            end = end._replace(error_message=kept)
        last_micros = start_micros if end is None else end.end_micros
        of = _new(_Of, (interception_id, start_micros, last_micros, now_micros, rules, origin.provider_name))
        token_usages, prompts = _read(message.token_usages, _token_usage, of), _read(message.prompts, _prompt, of)
        # Most have none of these.
        tool_calls = _read(calls, _tool_call, of) if (calls := message.tool_calls) else ()
        thoughts = _read(thinking, _thought, of) if (thinking := message.model_thoughts) else ()
        attempts = self._attempts(told, receipt, of) if (told := message.attempts) else ()
        # Asked only where there is something to ask: it costs more than reading a field.
        says_end = end is not None or message.HasField("end")
        is_whole = not (
            (says_end and end is None)
            or None in token_usages
            or None in prompts
            or None in tool_calls
            or None in thoughts
            or None in attempts
        )
        if not is_whole:
            token_usages, prompts = tuple(filter(None, token_usages)), tuple(filter(None, prompts))
            tool_calls, thoughts = tuple(filter(None, tool_calls)), tuple(filter(None, thoughts))
            attempts = tuple(filter(None, attempts))
        return _new(
            Report,
            (
                interception_id,
                resolution_id,
                origin,
                start_micros,
                bridge_instance_id,
                self._facts(message),
                token_usages,
                prompts,
                tool_calls,
                thoughts,
                end,
                is_whole,
                attempts,
            ),
        )

    def _attempts(self, messages: Sequence[pb.Attempt], receipt: Receipt, of: _Of) -> tuple[Attempt | None, ...]:
        _check_count(len(messages))
        return tuple([self._attempt(one, receipt, of) for one in messages])

    def _attempt(self, message: pb.Attempt, receipt: Receipt, of: _Of) -> Attempt | None:
        """None also for one that another resolution than of this interception stands behind."""
        record_id, own = _record_id(message.id, of), self._read_receipt(message.receipt)
        if not record_id or own is None or own.interception_id != receipt.interception_id:
            return None
        origin = own.origin
        if (origin.service_id, origin.user_id) != (receipt.origin.service_id, receipt.origin.user_id):
            return None
        return Attempt(
            record_id,
            _create_micros(message, of, of.start_micros),
            own.resolution_id,
            origin.provider_id,
            origin.provider_name,
            origin.source,
            origin.credential_id,
            within(0, message.http_status, MOST_STATUS),
            _CATEGORIES.get(message.error_category, "UNKNOWN"),
            message.error_reason[:NAME_CHARACTERS],
            message.upstream_request_id[:NAME_CHARACTERS],
            within(0, message.duration_micros, MOST_MICROS),
        )

    def _facts(self, message: pb.InterceptionRecords) -> Facts | None:
        # Writing them costs a third of reading each.
        raw = message.facts.SerializeToString()
        if not raw and not message.HasField("facts"):
            return None
        facts = self._known.get(raw)
        if facts is None:
            facts = facts_of(message.facts)
            if len(raw) <= _MOST_KNOWN_BYTES:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[raw] = facts
        return facts


def _read(messages: Sequence[M], read_one: Callable[[M, _Of], T | None], of: _Of) -> tuple[T | None, ...]:
    count = len(messages)
    # Most have one or none of a kind; going through a repeated field ends in an exception that costs as much as one.
    if count == 0:
        return ()
    if count == 1:
        return (read_one(messages[0], of),)
    _check_count(count)
    return tuple([read_one(one, of) for one in messages])


def _check_count(count: int) -> None:
    if count > MOST_RECORDS:
        raise InvalidArgument(field="interceptions", problem=f"at most {MOST_RECORDS} records of one kind in a report")


def facts_of(message: pb.InterceptionFacts) -> Facts:
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


def _end(message: pb.InterceptionEnd, start_micros: int, now_micros: int) -> End | None:
    outcome = _OUTCOMES.get(message.outcome)
    if outcome is None:
        return None
    moment = message.end_time
    seconds = moment.seconds
    end_micros = seconds * 1_000_000 + moment.nanos // 1000 if seconds else now_micros
    http_status, duration_micros = message.http_status, message.duration_micros
    reason, text = message.error_reason, message.error_message
    first_byte_micros: int | None = message.first_byte_micros
    if not first_byte_micros and not message.HasField("first_byte_micros"):
        first_byte_micros = None
    # Almost all are within their bounds, and a call for each costs more than to look.
    if not start_micros <= end_micros <= now_micros:
        # By the bridge's clock, but neither before its beginning nor in the future by ours.
        end_micros = within(start_micros, end_micros, now_micros)
    if not 0 <= http_status <= MOST_STATUS:
        http_status = within(0, http_status, MOST_STATUS)
    if not 0 <= duration_micros <= MOST_MICROS:
        duration_micros = within(0, duration_micros, MOST_MICROS)
    if first_byte_micros is not None and not 0 <= first_byte_micros <= MOST_MICROS:
        first_byte_micros = within(0, first_byte_micros, MOST_MICROS)
    return _new(
        End,
        (
            end_micros,
            outcome,
            # A newer bridge may know more of them.
            _CATEGORIES.get(message.error_category, "UNKNOWN"),
            reason and reason[:NAME_CHARACTERS],
            text and text[:_MESSAGE_CHARACTERS],
            http_status,
            message.upstream_request_id[:NAME_CHARACTERS],
            duration_micros,
            first_byte_micros,
        ),
    )


def _token_usage(message: record_pb2.TokenUsage, of: _Of) -> TokenUsage | None:
    record_id = _record_id(message.id, of)
    input_tokens, output_tokens = message.input_tokens, message.output_tokens
    cache_read, cache_write = message.cache_read_input_tokens, message.cache_write_input_tokens
    if not (
        record_id
        and 0 <= input_tokens <= MOST_COUNT
        and 0 <= output_tokens <= MOST_COUNT
        and 0 <= cache_read <= MOST_COUNT
        and 0 <= cache_write <= MOST_COUNT
    ):
        return None
    return _new(
        TokenUsage,
        (
            record_id,
            _create_micros(message, of, of.last_micros),
            message.response_id[:NAME_CHARACTERS],
            input_tokens,
            output_tokens,
            cache_read,
            cache_write,
            metadata_text(kinds) if (kinds := message.metadata) else "{}",
            message.partial,
            None,
        ),
    )


def _prompt(message: record_pb2.Prompt, of: _Of) -> Prompt | None:
    record_id = _record_id(message.id, of)
    if not record_id:
        return None
    text = message.text
    return _new(
        Prompt,
        (
            record_id,
            _create_micros(message, of, of.start_micros),
            message.response_id[:NAME_CHARACTERS],
            of.rules.prompts.kept(text, of.provider),
            length_of(message.text_bytes, text),
        ),
    )


def _tool_call(message: record_pb2.ToolCall, of: _Of) -> ToolCall | None:
    record_id = _record_id(message.id, of)
    if not record_id:
        return None
    text = message.input
    return ToolCall(
        record_id,
        _create_micros(message, of, of.last_micros),
        message.response_id[:NAME_CHARACTERS],
        message.tool_call_id[:NAME_CHARACTERS],
        message.item_id[:NAME_CHARACTERS],
        message.tool[:NAME_CHARACTERS],
        of.rules.tool_inputs.kept(text, of.provider),
        length_of(message.input_bytes, text),
        message.server_url[:_AGENT_CHARACTERS],
        message.injected,
        message.invocation_error[:_MESSAGE_CHARACTERS],
        message.partial,
    )


def _thought(message: record_pb2.ModelThought, of: _Of) -> ModelThought | None:
    record_id = _record_id(message.id, of)
    if not record_id:
        return None
    text = message.content
    return ModelThought(
        record_id,
        _create_micros(message, of, of.last_micros),
        message.response_id[:NAME_CHARACTERS],
        of.rules.thoughts.kept(text, of.provider),
        length_of(message.content_bytes, text),
        message.source[:NAME_CHARACTERS],
        message.partial,
    )


def _record_id(text: str, of: _Of) -> str:
    """The id of a record in lower case, empty for what is no UUID."""
    # A bridge makes them of its interception's: all but the last digits need no look.
    if len(text) == _UUID_CHARACTERS and text[-4:] in _TAILS and of.interception_id.startswith(text[:-4]):
        return text
    return text.lower() if is_uuid(text) else ""


def _create_micros(message: _Made, of: _Of, unset_micros: int) -> int:
    """The time by the bridge's clock, which is taken for wrong where it is a day off."""
    # Asking is cheaper than reading a time that is not there.
    if not message.HasField("create_time"):
        return unset_micros
    start_micros = of.start_micros
    moment = _micros(message.create_time, unset_micros)
    return within(start_micros - DAY_MICROS, moment, of.now_micros + DAY_MICROS)


def _micros(moment: Timestamp, unset: int) -> int:
    seconds = moment.seconds
    return seconds * 1_000_000 + moment.nanos // 1000 if seconds else unset


def within(least: int, number: int, most: int) -> int:
    """The nearest to the number that can be; `least` where there is none."""
    if least <= number <= most:
        return number
    return least if number < least else max(least, most)


def length_of(told: int, text: str) -> int:
    """Of the whole text in bytes: as the bridge told, who may have cut it; no less than what is here."""
    here = len(text) if text.isascii() else len(text.encode())
    return min(told, MOST_COUNT) if told > here else here


def metadata_text(kinds: Mapping[str, int]) -> str:
    return json.dumps({name[:NAME_CHARACTERS]: kinds[name] for name in islice(sorted(kinds), _MOST_METADATA)})
