"""Reports as they stand in AppendRecords. They hold prompts and receipts: never print them.

What is usual of a report goes as a row, which becomes a part of columns when it is sent; the rest as a message of its
own, whose fields are set one by one and not by keywords, which costs half.
"""

from collections.abc import Sequence
from functools import lru_cache

import msgspec
from drawbridge.v1 import record_pb2 as records
from drawbridge.v1 import record_service_pb2 as pb

from bridged.records import Attempt, ErrorCategory, Outcome, Report, TokenUsage, further_counts
from daemonkit.varint import varint

_LENGTH_DELIMITED = 2
_REMEMBERED = 512
# The place of the first attempt; other records are fewer than that.
_FIRST_ATTEMPT = 0xF000
# A request is a message with a repeated field, so its bytes are those of its items one after the other
# (protobuf.dev, "Encoding").
_ITEM = bytes((pb.AppendRecordsRequest.INTERCEPTIONS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED,))
_USUAL = bytes((pb.AppendRecordsRequest.USUAL_FIELD_NUMBER << 3 | _LENGTH_DELIMITED,))
# From so many entries on, a column that has the same in all of them is put together at once.
_MANY = 16
_OUTCOMES = {one: records.InterceptionOutcome.Value(f"INTERCEPTION_OUTCOME_{one.value}") for one in Outcome}
_CATEGORIES = {
    one: records.UpstreamErrorCategory.Value(f"UPSTREAM_ERROR_CATEGORY_{one.value}") for one in ErrorCategory
}
# What stands for "there is none" in columns of numbers.
NONE = -1
_NO_COUNTS = (NONE, 0, 0, 0, "")
NO_PROMPT = ("", NONE)
# Of a row without its texts, about.
_ROW_BYTES = 120
_COMPLETED = Outcome.COMPLETED

# Client, user agent, session, tool call that is answered, operation, model, upstream model, whether it streams.
Facts = tuple[str, str, str, str, str, str, str, bool]
# In the order of `_COLUMNS`, behind the first.
Entries = tuple[bytes, int, int, int, int, str, str, int, int, int, int, str, str, int]


class KnownFacts:
    """Facts that many have, and the size of a row with them without its own texts, about.

    Told apart by identity, which costs a fraction of going through eight texts.
    """

    __slots__ = ("facts", "size_bytes")

    def __init__(self, facts: Facts) -> None:
        """ValueError for what is no text."""
        self.facts = facts
        self.size_bytes = _ROW_BYTES + len("".join([text for text in facts if isinstance(text, str)]).encode())


class Row(msgspec.Struct, gc=False):
    """A usual report: its size, about, what its request says, and its entries of the columns."""

    size_bytes: int
    known: KnownFacts
    entries: Entries

    def __repr__(self) -> str:
        """How long it is, and none of what was said in it."""
        return f"Row({self.size_bytes} bytes)"


_COLUMNS = (
    "facts_indexes", "receipts", "end_micros", "http_statuses", "duration_micros", "first_byte_micros",
    "upstream_request_ids", "response_ids", "input_tokens", "output_tokens", "cache_read_input_tokens",
    "cache_write_input_tokens", "token_metadata", "prompts", "prompt_bytes",
)  # fmt: skip


def of_this_bridge(bridge_instance_id: str) -> bytes:
    """What every request of a bridge begins with; items follow."""
    return pb.AppendRecordsRequest(bridge_instance_id=bridge_instance_id).SerializeToString()


def item_of(report: Report) -> bytes | Row:
    """One report, as `request_parts` takes it. ValueError for what is no text."""
    return row_of(report) or item(report)


def request_parts(items: Sequence[bytes], rows: Sequence[Row]) -> list[bytes]:
    """What follows `of_this_bridge` in a request with these; answers count the rows behind the items."""
    return [*items, _columns(rows)] if rows else list(items)


def row_of(report: Report) -> Row | None:
    """The report, if it is usual: completed at once, without tools and thoughts. ValueError for what is no text."""
    answer, ending = report.answer, report.ending
    usage, turn = answer.usage, report.turn
    if (
        ending.outcome is not _COMPLETED
        or ending.reason
        or answer.tools
        or answer.thoughts
        or report.attempts
        or (usage is not None and usage.partial)
    ):
        return None
    facts = (
        report.client,
        report.user_agent,
        report.session_id,
        turn.correlating_tool_call_id,
        report.operation,
        report.model,
        report.upstream_model,
        report.streaming,
    )
    first_byte_micros = report.first_byte_micros
    new, out, read, written, metadata = _NO_COUNTS if usage is None else _counts(usage)
    prompt, prompt_bytes = (turn.prompt, turn.prompt_bytes) if turn.prompt is not None else NO_PROMPT
    entries = (
        report.receipt,
        report.end_micros,
        report.http_status,
        report.duration_micros,
        NONE if first_byte_micros is None else first_byte_micros,
        report.upstream_request_id,
        answer.msg_id,
        new,
        out,
        read,
        written,
        metadata,
        prompt,
        prompt_bytes,
    )
    return new_row(facts, entries)


def new_row(facts: Facts, entries: Entries) -> Row:
    """The row of these. ValueError for what is no text."""
    known = _known_facts(facts)
    receipt, _, _, _, _, request_id, response_id, _, _, _, _, metadata, prompt, _ = entries
    texts = f"{prompt}{request_id}{response_id}{metadata}"
    size_bytes = known.size_bytes + len(receipt) + (len(texts) if texts.isascii() else len(texts.encode()))
    return Row(size_bytes, known, entries)


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
        if tool.partial:
            call.partial = True
        if tool.input_bytes:
            call.input_bytes = tool.input_bytes
    for place, thought in enumerate(answer.thoughts, 2 + len(answer.tools)):
        told = message.model_thoughts.add()
        told.id, told.response_id = f"{head}{place:04x}", response_id
        told.content, told.source = thought.content, thought.source
        if thought.partial:
            told.partial = True
        if thought.content_bytes:
            told.content_bytes = thought.content_bytes
    if report.attempts:
        _add_attempts(message, report.attempts, head)
    return message


def _counts(usage: TokenUsage) -> tuple[int, int, int, int, str]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_write_input_tokens,
        further_counts(usage.metadata),
    )


_known_facts = lru_cache(maxsize=_REMEMBERED)(KnownFacts)


def _columns(rows: Sequence[Row]) -> bytes:
    """The columns of a request, as it holds them."""
    message = pb.AppendRecordsRequest()
    usual = message.usual
    places: dict[KnownFacts, int] = {}
    indexes = tuple([places.setdefault(row.known, len(places)) for row in rows])
    alike = b""
    for name, column in zip(_COLUMNS, (indexes, *zip(*[row.entries for row in rows], strict=True)), strict=True):
        one = column[0]
        is_alike = one == column[-1] and len(column) >= _MANY and column.count(one) == len(column)
        if is_alike and (not isinstance(one, int) or one >= 0):
            alike += _column_of(name, one, len(column))
        else:
            getattr(usual, name).extend(column)
    for known in places:
        client, user_agent, session_id, answered_call, operation, model, upstream_model, streaming = known.facts
        usual.facts.add(
            client=client,
            user_agent=user_agent,
            client_session_id=session_id,
            correlating_tool_call_id=answered_call,
            operation=operation,
            model=model,
            upstream_model=upstream_model,
            streaming=streaming,
        )
    # A message that stands in two parts is read as one (protobuf.dev, "Last One Wins").
    return message.SerializeToString() + (_USUAL + varint(len(alike)) + alike if alike else b"")


def _column_of(name: str, entry: bytes | str | int, count: int) -> bytes:
    """A column in which this stands so often, as it is sent: half of them are nearly always like that."""
    tag = varint(pb.UsualInterceptions.DESCRIPTOR.fields_by_name[name].number << 3 | _LENGTH_DELIMITED)
    if isinstance(entry, int):
        number = varint(entry)
        return tag + varint(len(number) * count) + number * count
    raw = entry.encode() if isinstance(entry, str) else entry
    return (tag + varint(len(raw)) + raw) * count


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
