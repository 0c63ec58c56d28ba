"""Reports as messages: every field is there, and a request is its items one after the other."""

import uuid

import pytest
from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from bridged import report_messages
from bridged.records import (
    AnswerRecords,
    Ending,
    ErrorCategory,
    ModelThought,
    Outcome,
    Report,
    TokenUsage,
    ToolUsage,
    Turn,
)
from tests.support.usual import messages_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.sampled_from(["", "é" * 9000])
COUNTS = st.integers(0, 2**53)
TURNS = st.builds(
    Turn, prompt=st.none() | TEXTS, prompt_bytes=COUNTS, correlating_tool_call_id=TEXTS, session_id=st.just("")
)
USAGES = st.builds(
    TokenUsage,
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    cache_read_input_tokens=COUNTS,
    cache_write_input_tokens=COUNTS,
    metadata=st.dictionaries(TEXTS, COUNTS, max_size=3),
    partial=st.booleans(),
)
TOOLS = st.builds(
    ToolUsage,
    tool=TEXTS,
    input=TEXTS,
    tool_call_id=TEXTS,
    item_id=TEXTS,
    partial=st.booleans(),
    input_bytes=COUNTS,
)
THOUGHTS = st.builds(ModelThought, content=TEXTS, source=TEXTS, partial=st.booleans(), content_bytes=COUNTS)
ANSWERS = st.builds(
    AnswerRecords,
    msg_id=TEXTS,
    usage=st.none() | USAGES,
    tools=st.lists(TOOLS, max_size=3).map(tuple),
    thoughts=st.lists(THOUGHTS, max_size=3).map(tuple),
)
REPORTS = st.builds(
    Report,
    interception_id=st.uuids(version=4).map(lambda one: str(one).replace("-4", "-7", 1)),
    receipt=st.binary(max_size=300),
    client=TEXTS,
    user_agent=TEXTS,
    session_id=TEXTS,
    operation=TEXTS,
    model=TEXTS,
    upstream_model=TEXTS,
    streaming=st.booleans(),
    turn=TURNS,
    answer=ANSWERS,
    ending=st.builds(Ending, st.sampled_from(Outcome), st.sampled_from(ErrorCategory), TEXTS, TEXTS),
    http_status=st.integers(0, 599),
    upstream_request_id=TEXTS,
    end_micros=st.integers(1, 2**52),
    duration_micros=COUNTS,
    first_byte_micros=st.none() | COUNTS,
)


def usual(report: Report) -> Report:
    """The same without what makes it unusual."""
    report.ending = Ending(Outcome.COMPLETED)
    report.answer.tools = report.answer.thoughts = ()
    if report.answer.usage is not None:
        report.answer.usage.partial = False
    return report


def _category(ending: Ending) -> record_pb2.UpstreamErrorCategory:
    if not ending.reason:
        return record_pb2.UPSTREAM_ERROR_CATEGORY_UNSPECIFIED
    return record_pb2.UpstreamErrorCategory.Value(f"UPSTREAM_ERROR_CATEGORY_{ending.category.value}")


def _message(report: Report) -> pb.InterceptionRecords:
    """The message that protobuf makes of a report, without the ids of its records."""
    answer, turn, ending = report.answer, report.turn, report.ending
    message = pb.InterceptionRecords(
        receipt=report.receipt,
        facts=pb.InterceptionFacts(
            client=report.client,
            user_agent=report.user_agent,
            client_session_id=report.session_id,
            correlating_tool_call_id=turn.correlating_tool_call_id,
            operation=report.operation,
            model=report.model,
            upstream_model=report.upstream_model,
            streaming=report.streaming,
        ),
        end=pb.InterceptionEnd(
            outcome=record_pb2.InterceptionOutcome.Value(f"INTERCEPTION_OUTCOME_{ending.outcome.value}"),
            error_category=_category(ending),
            error_reason=ending.reason,
            error_message="" if not ending.reason else ending.message,
            http_status=report.http_status,
            upstream_request_id=report.upstream_request_id,
            duration_micros=report.duration_micros,
            first_byte_micros=report.first_byte_micros,
        ),
    )
    if (usage := answer.usage) is not None:
        message.token_usages.add(
            response_id=answer.msg_id,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            cache_write_input_tokens=usage.cache_write_input_tokens,
            metadata=usage.metadata,
            partial=usage.partial,
        )
    if turn.prompt is not None:
        message.prompts.add(response_id=answer.msg_id, text=turn.prompt, text_bytes=turn.prompt_bytes)
    for tool in answer.tools:
        message.tool_calls.add(
            response_id=answer.msg_id,
            tool_call_id=tool.tool_call_id,
            item_id=tool.item_id,
            tool=tool.tool,
            input=tool.input,
            partial=tool.partial,
            input_bytes=tool.input_bytes,
        )
    for thought in answer.thoughts:
        message.model_thoughts.add(
            response_id=answer.msg_id,
            content=thought.content,
            source=thought.source,
            partial=thought.partial,
            content_bytes=thought.content_bytes,
        )
    return message


@given(st.lists(REPORTS, max_size=3), TEXTS)
def test_a_report_reads_as_the_message_with_the_same_records(reports: list[Report], bridge: str) -> None:
    raw = report_messages.of_this_bridge(bridge) + b"".join(report_messages.item(one) for one in reports)
    found = pb.AppendRecordsRequest.FromString(raw)
    ids = set()
    for one, report in zip(found.interceptions, reports, strict=True):
        of_report = [*one.token_usages, *one.prompts, *one.tool_calls, *one.model_thoughts]
        # credentiald reads them in this order.
        assert [record.id for record in of_report] == sorted(record.id for record in of_report)
        for record in of_report:
            ids.add(record.id)
            assert str(uuid.UUID(record.id)) == record.id
            record.ClearField("id")
        assert one.end.end_time.ToMicroseconds() == report.end_micros
        one.end.ClearField("end_time")
    records = [len(one.token_usages) + len(one.prompts) + len(one.tool_calls) + len(one.model_thoughts) for one in
               found.interceptions]  # fmt: skip
    assert len(ids) == sum(records)
    assert found.bridge_instance_id == bridge
    assert list(found.interceptions) == [_message(one) for one in reports]


@given(st.lists(REPORTS, max_size=6), st.lists(REPORTS.map(usual), max_size=6), TEXTS)
def test_a_request_says_the_same_whether_its_reports_are_rows_or_messages(
    some: list[Report], others: list[Report], bridge: str
) -> None:
    reports = [*some, *others]
    made = [report_messages.item_of(one) for one in reports]
    items = [one for one in made if isinstance(one, bytes)]
    rows = [one for one in made if isinstance(one, report_messages.Row)]
    assert len(items) + len(rows) == len(reports)
    assert len(rows) >= len(others)
    parts = report_messages.request_parts(items, rows)
    found = pb.AppendRecordsRequest.FromString(report_messages.of_this_bridge(bridge) + b"".join(parts))
    told = [*found.interceptions, *messages_of(found.usual)]
    # In the order in which answers count them.
    in_order = sorted(zip(made, reports, strict=True), key=lambda one: isinstance(one[0], report_messages.Row))
    for one, (_, report) in zip(told, in_order, strict=True):
        for record in (*one.token_usages, *one.prompts, *one.tool_calls, *one.model_thoughts):
            record.ClearField("id")
        assert one.end.end_time.ToMicroseconds() == report.end_micros
        one.end.ClearField("end_time")
    assert told == [_message(report) for _, report in in_order]
    assert len({one.SerializeToString() for one in found.usual.facts}) == len(found.usual.facts)


@given(st.lists(REPORTS.map(usual), min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=12, max_size=40))
def test_many_rows_say_together_what_each_says_alone(reports: list[Report], order: list[int]) -> None:
    def told(rows: list[report_messages.Row]) -> list[pb.InterceptionRecords]:
        raw = b"".join(report_messages.request_parts([], rows))
        return list(messages_of(pb.AppendRecordsRequest.FromString(raw).usual))

    rows = [row for number in order if (row := report_messages.row_of(reports[number % len(reports)])) is not None]
    assert len(rows) == len(order)
    assert told(rows) == [one for row in rows for one in told([row])]


@given(REPORTS)
def test_the_size_of_a_report_is_about_that_of_its_bytes(report: Report) -> None:
    made = report_messages.item_of(report)
    sent = made if isinstance(made, bytes) else b"".join(report_messages.request_parts([], [made]))
    size_bytes = len(made) if isinstance(made, bytes) else made.size_bytes
    assert len(sent) <= size_bytes <= len(sent) + 200


@pytest.mark.parametrize("field", ["model", "upstream_request_id"])
def test_what_is_no_text_makes_no_row(field: str) -> None:
    report = usual(empty_report())
    setattr(report, field, "\ud800")
    with pytest.raises(ValueError, match="surrogate"):
        report_messages.row_of(report)


def test_nothing_that_is_printed_of_a_report_shows_its_receipt() -> None:
    report = empty_report()
    assert "canary" not in repr(report)
    report.turn = Turn(prompt="prompt-canary")
    assert "canary" not in repr(report_messages.row_of(report))
    report.model = "\ud800"
    with pytest.raises(ValueError):
        report_messages.item(report)


def empty_report() -> Report:
    return Report(
        interception_id="",
        receipt=b"receipt-canary",
        client="",
        user_agent="",
        session_id="",
        operation="",
        model="",
        upstream_model="",
        streaming=False,
        turn=Turn(),
        answer=AnswerRecords(),
        ending=Ending(Outcome.COMPLETED),
        http_status=200,
        upstream_request_id="",
        end_micros=1,
        duration_micros=1,
        first_byte_micros=None,
    )
