"""Reports as they stand in AppendRecords. They hold prompts and receipts: never print them.

Fields are set one by one and not by keywords, which costs half.
"""

from collections.abc import Sequence
from functools import lru_cache

from drawbridge.v1 import record_pb2 as records
from drawbridge.v1 import record_service_pb2 as pb

from bridged.records import Attempt, ErrorCategory, Outcome, Report, TokenUsage
from daemonkit.varint import varint

_LENGTH_DELIMITED = 2
_REMEMBERED = 512
# The place of the first attempt; other records are fewer than that.
_FIRST_ATTEMPT = 0xF000
# A request is a message with a repeated field, so its bytes are those of its items one after the other
# (protobuf.dev, "Encoding").
_ITEM = bytes((pb.AppendRecordsRequest.INTERCEPTIONS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED,))
_OUTCOMES = {one: records.InterceptionOutcome.Value(f"INTERCEPTION_OUTCOME_{one.value}") for one in Outcome}
_CATEGORIES = {
    one: records.UpstreamErrorCategory.Value(f"UPSTREAM_ERROR_CATEGORY_{one.value}") for one in ErrorCategory
}


def of_this_bridge(bridge_instance_id: str) -> bytes:
    """What every request of a bridge begins with; items follow."""
    return pb.AppendRecordsRequest(bridge_instance_id=bridge_instance_id).SerializeToString()


def item(report: Report) -> bytes:
    """One report, as an item of a request. ValueError for what is no text."""
    usual = _usual_facts(report.client, report.user_agent, report.operation, report.upstream_model, report.streaming)
    raw = message_of(report).SerializeToString()
    # A message that stands in two parts is read as one (protobuf.dev, "Last One Wins").
    return b"".join((_ITEM, varint(len(usual) + len(raw)), usual, raw))


def opening(report: Report) -> bytes:
    """Of one that goes on: that it is there, as an item of a request. ValueError for what is no text."""
    message = pb.InterceptionRecords(receipt=report.receipt)
    _set_facts(message.facts, report)
    usual = _usual_facts(report.client, report.user_agent, report.operation, report.upstream_model, report.streaming)
    raw = message.SerializeToString()
    return b"".join((_ITEM, varint(len(usual) + len(raw)), usual, raw))


def message_of(report: Report) -> pb.InterceptionRecords:
    """What is new in a report; what is the same for many is in `_usual_facts`. What is empty is not set."""
    message = pb.InterceptionRecords()
    message.receipt = report.receipt
    _set_facts(message.facts, report)
    _set_end(message.end, report)
    answer, turn = report.answer, report.turn
    # The ids are that of the interception with a place at its end (RFC 9562, 6.2): each is one of this report's own.
    # Records without a time have that of the end, prompts that of the beginning.
    head, response_id = report.interception_id[:-4], answer.msg_id
    if answer.usage is not None:
        usage = message.token_usages.add()
        usage.id, usage.response_id = head + "0000", response_id
        _set_usage(usage, answer.usage)
    if turn.prompt is not None:
        prompt = message.prompts.add()
        prompt.id, prompt.response_id, prompt.text = head + "0001", response_id, turn.prompt
        if turn.prompt_bytes:
            prompt.text_bytes = turn.prompt_bytes
    for place, tool in enumerate(answer.tools, 2):
        call = message.tool_calls.add()
        call.id, call.response_id, call.item_id = f"{head}{place:04x}", response_id, tool.item_id
        call.tool, call.input, call.tool_call_id = tool.tool, tool.input, tool.tool_call_id
    for place, thought in enumerate(answer.thoughts, 2 + len(answer.tools)):
        told = message.model_thoughts.add()
        told.id, told.response_id = f"{head}{place:04x}", response_id
        told.content, told.source = thought.content, thought.source
    if report.attempts:
        _add_attempts(message, report.attempts, head)
    return message


def _add_attempts(message: pb.InterceptionRecords, attempts: Sequence[Attempt], head: str) -> None:
    for place, attempt in enumerate(attempts, _FIRST_ATTEMPT):
        one = message.attempts.add(
            id=f"{head}{place:04x}",
            receipt=attempt.receipt,
            http_status=attempt.http_status,
            error_category=_CATEGORIES[attempt.category],
            error_reason=attempt.reason,
            upstream_request_id=attempt.upstream_request_id,
            duration_micros=attempt.duration_micros,
        )
        seconds, micros = divmod(attempt.create_micros, 1_000_000)
        one.create_time.seconds, one.create_time.nanos = seconds, micros * 1000


@lru_cache(maxsize=_REMEMBERED)
def _usual_facts(client: str, user_agent: str, operation: str, upstream_model: str, streaming: bool) -> bytes:
    facts = pb.InterceptionFacts(
        client=client,
        user_agent=user_agent,
        operation=operation,
        upstream_model=upstream_model,
        streaming=streaming,
    )
    return pb.InterceptionRecords(facts=facts).SerializeToString()


def _set_facts(facts: pb.InterceptionFacts, report: Report) -> None:
    facts.model = report.model
    if report.session_id:
        facts.client_session_id = report.session_id
    if report.turn.correlating_tool_call_id:
        facts.correlating_tool_call_id = report.turn.correlating_tool_call_id


def _set_end(end: pb.InterceptionEnd, report: Report) -> None:
    ending = report.ending
    moment = end.end_time
    seconds, micros = divmod(report.end_micros, 1_000_000)
    moment.seconds, moment.nanos = seconds, micros * 1000
    end.outcome = _OUTCOMES[ending.outcome]
    if ending.reason:
        end.error_category, end.error_reason = _CATEGORIES[ending.category], ending.reason
        end.error_message = ending.message
    end.http_status, end.duration_micros = report.http_status, report.duration_micros
    if report.upstream_request_id:
        end.upstream_request_id = report.upstream_request_id
    if report.first_byte_micros is not None:
        end.first_byte_micros = report.first_byte_micros


def _set_usage(message: records.TokenUsage, usage: TokenUsage) -> None:
    message.input_tokens, message.output_tokens = usage.input_tokens, usage.output_tokens
    if usage.cache_read_input_tokens:
        message.cache_read_input_tokens = usage.cache_read_input_tokens
    if usage.cache_write_input_tokens:
        message.cache_write_input_tokens = usage.cache_write_input_tokens
    if usage.partial:
        message.partial = True
    for name, count in usage.metadata.items():
        message.metadata[name] = count
