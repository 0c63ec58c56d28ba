"""Reports are read as they were written, whatever a bridge leaves out or makes up."""

import pytest
from drawbridge.v1 import record_pb2
from drawbridge.v1 import record_service_pb2 as pb

from credentiald import receipts
from credentiald.errors import InvalidArgument
from credentiald.receipts import Receipt
from credentiald.record_model import DAY_MICROS, Facts
from credentiald.record_rules import KeepRule, KeepRules
from credentiald.rpc.record_codec import MOST_RECORDS, Frame, ReportReader
from tests.support.records import SECOND, START, an_id, an_origin

KEY = b"k" * 32
OWN = an_id(0xABCD)
RECEIPT = Receipt(OWN, an_id(1), an_origin(), START)
FRAME = Frame("bridge-1", KeepRules(), START + 9 * SECOND)


def read(message: pb.InterceptionRecords, reader: ReportReader | None = None):
    return (reader or ReportReader(receipts.reader(KEY))).report_of(message, RECEIPT, FRAME)


def test_facts_that_are_not_there_are_none_and_empty_ones_are_facts():
    reader = ReportReader(receipts.reader(KEY))
    absent, empty = pb.InterceptionRecords(), pb.InterceptionRecords(facts=pb.InterceptionFacts())
    assert [read(one, reader).facts for one in (absent, empty, absent)] == [None, Facts(), None]


def test_facts_are_read_whether_they_are_known_or_not():
    reader = ReportReader(receipts.reader(KEY))
    told = [
        pb.InterceptionFacts(client=client, streaming=True) for client in ("Codex", "x" * 2000, "Codex", "x" * 2000)
    ]
    facts = [read(pb.InterceptionRecords(facts=one), reader).facts for one in told]
    assert facts[:2] == facts[2:] == [Facts("Codex", streaming=True), Facts("x" * 256, streaming=True)]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (f"{OWN[:-4]}0000", f"{OWN[:-4]}0000"),
        (f"{OWN[:-4]}ffff", f"{OWN[:-4]}ffff"),
        (an_id(0x77).upper(), an_id(0x77)),
        ("0000", None),
        (f"{OWN[:8]}0000", None),
        (f"{OWN[:-4]}00000", None),
        (f"{OWN[:-4]}00g0", None),
        ("", None),
    ],
)
def test_ids_of_records_are_uuids_of_the_interception_or_any_other(told, kept):
    report = read(pb.InterceptionRecords(token_usages=[record_pb2.TokenUsage(id=told, input_tokens=1)]))
    assert [one.id for one in report.token_usages] == ([] if kept is None else [kept])
    assert report.is_whole == (kept is not None)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(("told_bytes", "read_bytes"), [(0, 3), (2, 3), (70, 70)])
def test_calls_and_thoughts_are_as_long_and_as_partial_as_the_bridge_says(partial, told_bytes, read_bytes):
    call = record_pb2.ToolCall(id=an_id(2), input='{"a', input_bytes=told_bytes, partial=partial)
    thought = record_pb2.ModelThought(id=an_id(3), content="hm,", content_bytes=told_bytes, partial=partial)
    report = read(pb.InterceptionRecords(tool_calls=[call], model_thoughts=[thought]))
    assert [(one.input_bytes, one.partial) for one in report.tool_calls] == [(read_bytes, partial)]
    assert [(one.content_bytes, one.partial) for one in report.model_thoughts] == [(read_bytes, partial)]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (KeepRule(), "no: Hi"),
        (KeepRule(most_bytes=0), ""),
        (KeepRule(most_bytes=3), "no:"),
        (KeepRule(by_provider={an_origin().provider_name: 0}), ""),
        (KeepRule(by_provider={"another": 0}), "no: Hi"),
    ],
)
def test_what_an_upstream_says_of_an_error_is_kept_as_prompts_are(rule, kept):
    """It may quote them."""
    end = pb.InterceptionEnd(outcome="INTERCEPTION_OUTCOME_UPSTREAM_ERROR", error_reason="r", error_message="no: Hi")
    frame = FRAME._replace(rules=KeepRules(prompts=rule))
    told = ReportReader(receipts.reader(KEY)).report_of(pb.InterceptionRecords(end=end), RECEIPT, frame).end
    assert told is not None
    assert (told.error_reason, told.error_message) == ("r", kept)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (START + 9 * SECOND, 0, 0, None)),
        ({"first_byte_micros": 0}, (START + 9 * SECOND, 0, 0, 0)),
        ({"end_time": {"seconds": START // SECOND + 3, "nanos": 5000}}, (START + 3 * SECOND + 5, 0, 0, None)),
        ({"end_time": {"seconds": START // SECOND - 3}}, (START, 0, 0, None)),
        ({"end_time": {"seconds": 1 << 40}}, (START + 9 * SECOND, 0, 0, None)),
        ({"http_status": -1, "duration_micros": -1}, (START + 9 * SECOND, 0, 0, None)),
        ({"http_status": 12345, "duration_micros": 1 << 60}, (START + 9 * SECOND, 999, 1 << 53, None)),
        ({"first_byte_micros": -7}, (START + 9 * SECOND, 0, 0, 0)),
    ],
)
def test_numbers_of_an_end_that_cannot_be_are_the_nearest_that_can(changes, expected):
    end = read(pb.InterceptionRecords(end=pb.InterceptionEnd(outcome=1, **changes))).end
    assert end is not None
    assert (end.end_micros, end.http_status, end.duration_micros, end.first_byte_micros) == expected


def test_attempts_are_of_the_same_interception_or_left_out():
    own = Receipt(OWN, an_id(2), an_origin(credential_id="key-2", provider_name="other"), START)
    receipts_told = [
        receipts.write(KEY, own),
        receipts.write(KEY, own._replace(interception_id=an_id(5))),
        receipts.write(KEY, own._replace(origin=an_origin("somebody"))),
        receipts.write(KEY, own._replace(origin=an_origin(service_id="another"))),
        receipts.write(b"x" * 32, own),
        b"",
    ]
    told = [
        pb.Attempt(
            id=an_id(number), receipt=one, http_status=429, error_category=3, error_reason="slow", duration_micros=-1
        )
        for number, one in enumerate(receipts_told)
    ]
    report = read(pb.InterceptionRecords(attempts=told))
    [attempt] = report.attempts
    assert not report.is_whole
    assert attempt == (
        *(an_id(0), START, an_id(2), own.origin.provider_id, "other", "CENTRAL_KEY", "key-2"),
        *(429, "RATE_LIMITED", "slow", "", 0),
    )
    assert read(pb.InterceptionRecords(attempts=told[:1])).is_whole


def test_a_record_without_a_time_has_that_of_the_beginning_and_no_other_is_a_day_off():
    moments = [{}, {"create_time": {"seconds": START // SECOND + 2}}, {"create_time": {"seconds": 5}}]
    prompts = [record_pb2.Prompt(id=an_id(number), **moment) for number, moment in enumerate(moments)]
    report = read(pb.InterceptionRecords(prompts=prompts))
    assert [one.create_micros for one in report.prompts] == [START, START + 2 * SECOND, START - DAY_MICROS]


@pytest.mark.parametrize("kind", ["token_usages", "prompts", "tool_calls", "model_thoughts", "attempts"])
def test_more_records_than_a_report_can_have_are_not_even_read(kind):
    message = pb.InterceptionRecords()
    for _ in range(MOST_RECORDS):
        getattr(message, kind).add()
    assert getattr(read(message), kind) == ()
    getattr(message, kind).add()
    with pytest.raises(InvalidArgument):
        read(message)
