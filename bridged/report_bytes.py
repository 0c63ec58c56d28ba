"""Reports as they stand in AppendRecords, put together from bytes instead of messages, as questions are.

A test holds these bytes against protobuf's own reading (protobuf.dev, "Encoding"). They hold prompts and receipts:
never print them.
"""

from collections.abc import Iterator

from drawbridge.v1 import record_pb2 as records
from drawbridge.v1 import record_service_pb2 as pb

from bridged.ids import new_id
from bridged.records import AnswerRecords, ErrorCategory, ModelThought, Outcome, Report, TokenUsage, ToolUsage
from daemonkit.varint import sized, varint

_LENGTH_DELIMITED, _VARINT = 2, 0
_ONE = b"\1"


def _tag(number: int, wire_type: int = _LENGTH_DELIMITED) -> bytes:
    """What stands before a field; one byte for field numbers below 16."""
    return bytes((number << 3 | wire_type,))


_INSTANCE = _tag(pb.AppendRecordsRequest.BRIDGE_INSTANCE_ID_FIELD_NUMBER)
_ITEM = _tag(pb.AppendRecordsRequest.INTERCEPTIONS_FIELD_NUMBER)

_RECEIPT = _tag(pb.InterceptionRecords.RECEIPT_FIELD_NUMBER)
_FACTS = _tag(pb.InterceptionRecords.FACTS_FIELD_NUMBER)
_USAGE = _tag(pb.InterceptionRecords.TOKEN_USAGES_FIELD_NUMBER)
_PROMPT = _tag(pb.InterceptionRecords.PROMPTS_FIELD_NUMBER)
_TOOL = _tag(pb.InterceptionRecords.TOOL_CALLS_FIELD_NUMBER)
_THOUGHT = _tag(pb.InterceptionRecords.MODEL_THOUGHTS_FIELD_NUMBER)
_END = _tag(pb.InterceptionRecords.END_FIELD_NUMBER)

_CLIENT = _tag(pb.InterceptionFacts.CLIENT_FIELD_NUMBER)
_AGENT = _tag(pb.InterceptionFacts.USER_AGENT_FIELD_NUMBER)
_SESSION = _tag(pb.InterceptionFacts.CLIENT_SESSION_ID_FIELD_NUMBER)
_CORRELATING = _tag(pb.InterceptionFacts.CORRELATING_TOOL_CALL_ID_FIELD_NUMBER)
_OPERATION = _tag(pb.InterceptionFacts.OPERATION_FIELD_NUMBER)
_MODEL = _tag(pb.InterceptionFacts.MODEL_FIELD_NUMBER)
_UPSTREAM_MODEL = _tag(pb.InterceptionFacts.UPSTREAM_MODEL_FIELD_NUMBER)
_STREAMING = _tag(pb.InterceptionFacts.STREAMING_FIELD_NUMBER, _VARINT) + _ONE

# Each kind of record begins alike.
_ID = _tag(records.TokenUsage.ID_FIELD_NUMBER)
_CREATE_TIME = _tag(records.TokenUsage.CREATE_TIME_FIELD_NUMBER)
_RESPONSE_ID = _tag(records.TokenUsage.RESPONSE_ID_FIELD_NUMBER)
_INPUT = _tag(records.TokenUsage.INPUT_TOKENS_FIELD_NUMBER, _VARINT)
_OUTPUT = _tag(records.TokenUsage.OUTPUT_TOKENS_FIELD_NUMBER, _VARINT)
_CACHE_READ = _tag(records.TokenUsage.CACHE_READ_INPUT_TOKENS_FIELD_NUMBER, _VARINT)
_CACHE_WRITE = _tag(records.TokenUsage.CACHE_WRITE_INPUT_TOKENS_FIELD_NUMBER, _VARINT)
_METADATA = _tag(records.TokenUsage.METADATA_FIELD_NUMBER)
_KEY, _VALUE = _tag(1), _tag(2, _VARINT)
_PARTIAL = _tag(records.TokenUsage.PARTIAL_FIELD_NUMBER, _VARINT) + _ONE
_TEXT = _tag(records.Prompt.TEXT_FIELD_NUMBER)
_TEXT_BYTES = _tag(records.Prompt.TEXT_BYTES_FIELD_NUMBER, _VARINT)
_CALL_ID = _tag(records.ToolCall.TOOL_CALL_ID_FIELD_NUMBER)
_ITEM_ID = _tag(records.ToolCall.ITEM_ID_FIELD_NUMBER)
_TOOL_NAME = _tag(records.ToolCall.TOOL_FIELD_NUMBER)
_TOOL_INPUT = _tag(records.ToolCall.INPUT_FIELD_NUMBER)
_CONTENT = _tag(records.ModelThought.CONTENT_FIELD_NUMBER)
_SOURCE = _tag(records.ModelThought.SOURCE_FIELD_NUMBER)

_END_TIME = _tag(pb.InterceptionEnd.END_TIME_FIELD_NUMBER)
_OUTCOME = _tag(pb.InterceptionEnd.OUTCOME_FIELD_NUMBER, _VARINT)
_CATEGORY = _tag(pb.InterceptionEnd.ERROR_CATEGORY_FIELD_NUMBER, _VARINT)
_REASON = _tag(pb.InterceptionEnd.ERROR_REASON_FIELD_NUMBER)
_MESSAGE = _tag(pb.InterceptionEnd.ERROR_MESSAGE_FIELD_NUMBER)
_STATUS = _tag(pb.InterceptionEnd.HTTP_STATUS_FIELD_NUMBER, _VARINT)
_REQUEST_ID = _tag(pb.InterceptionEnd.UPSTREAM_REQUEST_ID_FIELD_NUMBER)
_DURATION = _tag(pb.InterceptionEnd.DURATION_MICROS_FIELD_NUMBER, _VARINT)
_FIRST_BYTE = _tag(pb.InterceptionEnd.FIRST_BYTE_MICROS_FIELD_NUMBER, _VARINT)

# Timestamp and its fields (google/protobuf/timestamp.proto).
_SECONDS, _NANOS = _tag(1, _VARINT), _tag(2, _VARINT)

_OUTCOMES = {
    one: _OUTCOME + varint(records.InterceptionOutcome.Value(f"INTERCEPTION_OUTCOME_{one.value}")) for one in Outcome
}
_CATEGORIES = {
    one: _CATEGORY + varint(records.UpstreamErrorCategory.Value(f"UPSTREAM_ERROR_CATEGORY_{one.value}"))
    for one in ErrorCategory
}


def of_this_bridge(bridge_instance_id: str) -> bytes:
    """What every request of a bridge begins with; items follow."""
    return _INSTANCE + sized(bridge_instance_id)


def item(report: Report) -> bytes:
    """One report, as an item of a request. UnicodeEncodeError for what is no text."""
    time = _timestamp(report.end_micros)
    receipt, facts, end = report.receipt, _facts(report), _end(report, time)
    records_of_answer = _records(report, time)
    inner = b"".join(
        (
            _RECEIPT,
            varint(len(receipt)),
            receipt,
            _FACTS,
            varint(len(facts)),
            facts,
            *records_of_answer,
            _END,
            varint(len(end)),
            end,
        )
    )
    return b"".join((_ITEM, varint(len(inner)), inner))


def _facts(report: Report) -> bytes:
    return b"".join(
        (
            _CLIENT,
            sized(report.client),
            _AGENT,
            sized(report.user_agent),
            _SESSION,
            sized(report.session_id),
            _CORRELATING,
            sized(report.turn.correlating_tool_call_id),
            _OPERATION,
            sized(report.operation),
            _MODEL,
            sized(report.model),
            _UPSTREAM_MODEL,
            sized(report.upstream_model),
            _STREAMING if report.streaming else b"",
        )
    )


def _end(report: Report, time: bytes) -> bytes:
    ending = report.ending
    first_byte = report.first_byte_micros
    return b"".join(
        (
            _END_TIME,
            time,
            _OUTCOMES[ending.outcome],
            _CATEGORIES[ending.category],
            _REASON,
            sized(ending.reason),
            _MESSAGE,
            sized(ending.message),
            _STATUS,
            varint(report.http_status),
            _REQUEST_ID,
            sized(report.upstream_request_id),
            _DURATION,
            varint(report.duration_micros),
            b"" if first_byte is None else _FIRST_BYTE + varint(first_byte),
        )
    )


def _records(report: Report, time: bytes) -> Iterator[bytes]:
    answer, turn = report.answer, report.turn
    if answer.usage is not None:
        yield from _field(_USAGE, _usage(answer.usage, time))
    if turn.prompt is not None:
        prompt = b"".join((_beginning(answer.msg_id, time), _TEXT, sized(turn.prompt), *_whole(turn.prompt_bytes)))
        yield from _field(_PROMPT, prompt)
    for tool in answer.tools:
        yield from _field(_TOOL, _tool(tool, time))
    for thought in answer.thoughts:
        yield from _field(_THOUGHT, _thought(answer, thought, time))


def _field(tag: bytes, message: bytes) -> tuple[bytes, bytes, bytes]:
    return tag, varint(len(message)), message


def _beginning(response_id: str, time: bytes) -> bytes:
    return b"".join((_ID, sized(new_id()), _CREATE_TIME, time, _RESPONSE_ID, sized(response_id)))


def _whole(size_bytes: int) -> tuple[bytes, ...]:
    return (_TEXT_BYTES, varint(size_bytes)) if size_bytes else ()


def _usage(usage: TokenUsage, time: bytes) -> bytes:
    return b"".join(
        (
            _beginning(usage.msg_id, time),
            _INPUT,
            varint(usage.input_tokens),
            _OUTPUT,
            varint(usage.output_tokens),
            _CACHE_READ,
            varint(usage.cache_read_input_tokens),
            _CACHE_WRITE,
            varint(usage.cache_write_input_tokens),
            *(
                part
                for name, count in usage.metadata.items()
                for part in _field(_METADATA, b"".join((_KEY, sized(name), _VALUE, varint(count))))
            ),
            _PARTIAL if usage.partial else b"",
        )
    )


def _tool(tool: ToolUsage, time: bytes) -> bytes:
    return b"".join(
        (
            _beginning(tool.msg_id, time),
            _CALL_ID,
            sized(tool.tool_call_id),
            _ITEM_ID,
            sized(tool.item_id),
            _TOOL_NAME,
            sized(tool.tool),
            _TOOL_INPUT,
            sized(tool.input),
        )
    )


def _thought(answer: AnswerRecords, thought: ModelThought, time: bytes) -> bytes:
    return b"".join((_beginning(answer.msg_id, time), _CONTENT, sized(thought.content), _SOURCE, sized(thought.source)))


def _timestamp(micros: int) -> bytes:
    seconds, rest = divmod(micros, 1_000_000)
    moment = b"".join((_SECONDS, varint(seconds), _NANOS, varint(rest * 1000)))
    return varint(len(moment)) + moment
