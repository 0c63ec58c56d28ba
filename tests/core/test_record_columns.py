"""Columns of usual interceptions are read as the messages that say the same."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from drawbridge.v1 import record_service_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from credentiald import receipts
from credentiald.errors import InvalidArgument
from credentiald.receipts import Receipt
from credentiald.record_model import Decided, Noted, Rejection, Report
from credentiald.record_rules import KeepRule, KeepRules
from credentiald.rpc.record_codec import Frame, ReportReader
from credentiald.rpc.record_columns import ColumnsReader, columns_of
from credentiald.usual_report import Matched, report_of
from tests.support.records import SECOND, START, an_id, an_origin
from tests.support.usual import messages_of

KEY = b"k" * 32
NOW = START + 9 * SECOND
NOTHING: Mapping[bytes, Noted] = {}
ANY = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
COUNTS = st.integers(-1, 10**12) | st.integers(0, 100) | ANY
METADATA = st.sampled_from(["", "{}", '{"a":1}', '{"b": 2, "a": 1}', '{"a":-5}'])
COLUMNS = {
    "end_micros": st.just(0) | st.integers(START - 5, NOW + 5) | st.integers(10**6, 2**55),
    "http_statuses": st.integers(-(2**31), 2**31 - 1) | st.just(200),
    "duration_micros": ANY | st.integers(0, 10**9),
    "first_byte_micros": st.integers(-1, 10**9) | st.integers(2**53, 2**60),
    "upstream_request_ids": TEXTS,
    "response_ids": TEXTS,
    "input_tokens": COUNTS,
    "output_tokens": COUNTS,
    "cache_read_input_tokens": COUNTS,
    "cache_write_input_tokens": COUNTS,
    "token_metadata": METADATA,
    "prompts": TEXTS,
    "prompt_bytes": st.integers(-1, 2**62),
}
SOUND: dict[str, Any] = dict.fromkeys(COLUMNS, 0) | {
    "upstream_request_ids": "", "response_ids": "", "token_metadata": "", "prompts": "",
}  # fmt: skip
RULES = [KeepRules(), KeepRules(prompts=KeepRule(most_bytes=7)), KeepRules(prompts=KeepRule(by_provider={"corp": 0}))]


def a_receipt(number: int, **origin: str) -> Receipt:
    return Receipt(an_id(number), an_id(10**6 + number), an_origin(**origin), START)


def columns(rows: Sequence[dict[str, Any]], *, receipt: bytes | None = None, **more: Any) -> pb.UsualInterceptions:
    made = [receipts.write(KEY, a_receipt(number)) if receipt is None else receipt for number in range(len(rows))]
    values: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS}
    values |= {"receipts": made, "facts": [pb.InterceptionFacts(client="Codex")], "facts_indexes": [0] * len(rows)}
    return pb.UsualInterceptions(**values | more)


def read(
    usual: pb.UsualInterceptions,
    rules: KeepRules = RULES[0],
    service_id: str | None = None,
    noted: Mapping[bytes, Noted] = NOTHING,
) -> list[Any]:
    """Rejections, and reports as they would be of messages."""
    # What is noted is known without the key.
    reader = ColumnsReader(receipts.reader(b"" if noted else KEY, noted), noted)
    frame = Frame("bridge-1", rules, NOW)
    found = reader.read(columns_of(usual), an_origin().service_id if service_id is None else service_id, frame)
    told = found.reports() if isinstance(found, Matched) else found
    return [one if isinstance(one, Rejection) else report_of(one) for one in told]


def noted(count: int) -> dict[bytes, Noted]:
    """What is noted of the interceptions of so many rows."""
    written = [a_receipt(number) for number in range(count)]
    return {
        one.interception_id.encode(): (
            one.interception_id.encode(),
            one.resolution_id.encode(),
            Decided(one.origin, "openai.responses", None, True),
            "gpt-5",
            "Codex",
            "bridge-1",
            receipts.mac_of(receipts.write(KEY, one)),
            one.resolve_time_micros,
        )
        for one in written
    }


@given(
    st.lists(st.fixed_dictionaries(COLUMNS) | st.just(SOUND), max_size=5),
    st.lists(
        st.builds(pb.InterceptionFacts, client=TEXTS, model=TEXTS, streaming=st.booleans()), min_size=1, max_size=3
    ),
    st.data(),
    st.sampled_from(RULES),
)
def test_a_row_is_the_report_that_its_message_would_be(rows, facts, data, rules):
    places = [data.draw(st.integers(0, len(facts) - 1)) for _ in rows]
    usual = columns(rows, facts=facts, facts_indexes=places)
    frame, reader = Frame("bridge-1", rules, NOW), ReportReader(receipts.reader(KEY))
    told = messages_of(usual, [an_id(number) for number in range(len(rows))])
    for message, row in zip(told, rows, strict=True):
        if not row["end_micros"]:
            message.end.ClearField("end_time")
    expected = [reader.report_of(message, a_receipt(number), frame) for number, message in enumerate(told)]
    found = read(usual, rules)
    # A count that cannot be is no usage at all in a message; -1 in a column says that there is none.
    assert [one._replace(is_whole=True) for one in found] == [one._replace(is_whole=True) for one in expected]
    assert found == read(usual, rules, noted=noted(len(rows)))
    for one, row in zip(found, rows, strict=True):
        assert one.is_whole == (row["input_tokens"] == -1 or bool(one.token_usages))


@pytest.mark.parametrize("text", ["[]", "{", '{"a":"x"}', '{"a":1.5}', '{"a":9223372036854775808}', "x" * 5000])
def test_metadata_that_is_no_object_of_counts_makes_a_usage_that_is_left_out(text):
    (report,) = read(columns([SOUND | {"token_metadata": text}]))
    assert isinstance(report, Report)
    assert (report.token_usages, report.is_whole, report.end is not None) == ((), False, True)


def test_receipts_are_judged_one_by_one():
    usual = columns([SOUND] * 2)
    usual.receipts[0] = b"x" * 200
    found = read(usual)
    assert found[0] is Rejection.RECEIPT_INVALID
    assert isinstance(found[1], Report)
    assert read(columns([SOUND]), service_id="another") == [Rejection.RECEIPT_OF_ANOTHER_SERVICE]
    nameless = Receipt("", an_id(5), an_origin(), START)
    assert read(columns([SOUND], receipt=receipts.write(KEY, nameless))) == [Rejection.RECEIPT_INVALID]


@pytest.mark.parametrize(
    "changes",
    [{name: []} for name in ("receipts", "facts_indexes", *COLUMNS)]
    + [{"facts": []}, {"facts_indexes": [1]}, {"facts_indexes": [-1]}, {"http_statuses": [200, 200]}]
    + [{"facts": [pb.InterceptionFacts()] * 1001}],
)
def test_columns_that_do_not_fit_together_are_refused(changes):
    with pytest.raises(InvalidArgument):
        read(columns([SOUND], **changes))


class Counted(list[Any]):
    """A column that tells what of it was looked at."""

    looked_at = 0

    def __getitem__(self, place):
        self.looked_at += 1
        return super().__getitem__(place)

    def __iter__(self):
        self.looked_at += 1
        return super().__iter__()


def test_nothing_is_read_of_columns_that_do_not_fit_together():
    """A message has room for two million numbers, and to put those within their bounds takes seconds."""
    usual = columns([SOUND])
    message = SimpleNamespace(**{name: Counted(getattr(usual, name)) for name in (*COLUMNS, "receipts", "facts")})
    message.facts_indexes = Counted([0])
    message.http_statuses = Counted([0] * 1000)
    with pytest.raises(InvalidArgument):
        columns_of(message)  # type: ignore[arg-type]
    assert [name for name, column in vars(message).items() if column.looked_at] == []


def test_what_is_noted_is_judged_as_its_receipts_would_be():
    usual = columns([SOUND] * 3)
    usual.receipts[1] = receipts.write(KEY, a_receipt(1, service_id="another"))
    expected = read(usual)
    assert [isinstance(one, Report) for one in expected] == [True, False, True]
    known = noted(3)
    one = an_id(1).encode()
    decided = Decided(a_receipt(1, service_id="another").origin, "openai.responses", None, True)
    known[one] = (*known[one][:2], decided, *known[one][3:6], receipts.mac_of(usual.receipts[1]), START)
    assert read(usual, noted=known) == expected
    usual.receipts[2] = usual.receipts[2][:-32] + bytes(32)
    assert read(usual, noted=known)[1:] == [Rejection.RECEIPT_OF_ANOTHER_SERVICE, Rejection.RECEIPT_INVALID]


def test_no_columns_are_no_reports():
    assert read(pb.UsualInterceptions()) == []
