"""`credentiald records`: filters on their way to the service, and what is printed."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from drawbridge.v1 import record_pb2
from drawbridge.v1 import usage_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from tests.fakes.admin_service import FakePlane, serving
from tests.support.credentiald_cli import ADMIN_TOKEN, OWN_TOKEN, administer, administer_json

WHEN = Timestamp(seconds=1_795_000_000)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[FakePlane]:
    with serving(tmp_path) as one:
        yield one


def an_interception(number: int, **changes) -> pb.Interception:
    values = {"id": f"id-{number}", "username": "ann", "provider": "corp", "model": "gpt-5", "start_time": WHEN}
    return pb.Interception(**values | changes)


def test_filters_go_to_the_service_and_all_pages_come_up_to_the_limit(plane):
    plane.interceptions = [an_interception(number) for number in range(7)]
    rows = administer_json(
        plane, "records", "interceptions", "--user", "ann", "--provider", "corp", "--type", "openai",
        "--model", "gpt-5", "--client", "Codex", "--session", "s-1",
        "--since", "2026-11-22", "--until", "2026-11-22T09:30+01:00", "--limit", "5",
    )  # fmt: skip
    assert [row["id"] for row in rows] == [f"id-{number}" for number in range(5)]
    since, until = datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 22, 8, 30, tzinfo=UTC)
    assert plane.last.filter == pb.UsageFilter(
        user="ann", provider="corp", provider_type="openai", model="gpt-5", client="Codex", session_id="s-1",
        start_after=since, start_before=until,
    )  # fmt: skip
    assert (plane.last.page_size, plane.last_authorization) == (5, f"Bearer {ADMIN_TOKEN}")


def test_a_duration_is_that_long_ago_and_a_user_asks_with_its_own_token(plane):
    before = datetime.now(UTC)
    administer(plane, "records", "sessions", "--mine", "--since", "7d")
    since = plane.last.filter.start_after.ToDatetime(tzinfo=UTC)
    assert before - timedelta(days=7) <= since <= datetime.now(UTC) - timedelta(days=7)
    assert (plane.last.filter.user, plane.last_authorization) == ("", f"Bearer {OWN_TOKEN}")


@pytest.mark.parametrize("command", [("sessions",), ("interceptions",), ("usage", "--by", "user"), ("usage", "--csv")])
def test_mine_asks_for_ones_own_rows_and_prints_none_of_a_credentiald_that_has_not_understood(plane, command):
    plane.sessions, plane.usage = [pb.Session(session_id="s-1")], [pb.UsageRow(user_id="id-4")]
    plane.interceptions = [an_interception(1)]
    administer(plane, "records", *command, "--mine")
    assert (plane.last.filter.mine, plane.last.filter.user) == (True, "")
    plane.knows_mine = False
    refused = administer(plane, "records", *command, "--mine", code=1)
    assert refused.stdout == ""
    assert "older than this program" in refused.stderr
    administer(plane, "records", *command)
    assert not plane.last.filter.mine


@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions", "--since", "yesterday"),
        ("sessions", "--user", "ann", "--mine"),
        ("interceptions", "--limit", "0"),
        ("interceptions", "--type", "bedrok"),
        ("interceptions", "--since", "1h", "--until", "2h"),
        ("usage", "--by", "day,weather"),
        ("usage", "--by", "day,day"),
        ("usage", "--csv", "--json"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage_and_asks_nobody(plane, arguments):
    administer(plane, "records", *arguments, code=2)
    assert plane.calls == []


def test_a_session_is_one_line_whatever_its_prompt(plane):
    prompt = "fix\nthe \x1b[31mbug " + "x" * 100
    tokens = pb.TokenTotals(input_tokens=5, output_tokens=6)
    cost = pb.CostTotals(cost_micros=1_234_560, unpriced_token_usages=2)
    plane.sessions = [
        pb.Session(session_id="s-1", username="ann", last_prompt=prompt, tokens=tokens, cost=cost, interceptions=3)
    ]
    head, line = administer(plane, "records", "sessions").stdout.splitlines()
    assert head.split()[:2] == ["SESSION", "USER"]
    assert "fix the \\x1b[31mbug xxx" in line
    assert line.endswith("…")
    assert "1.23456 + unpriced 2" in line
    session = administer_json(plane, "records", "sessions")[0]
    assert session["last_prompt"] == prompt
    assert session["cost"] == {"cost_micros": 1_234_560, "unpriced_token_usages": 2}


@pytest.mark.parametrize(
    ("micros", "unpriced", "shown"),
    [(0, 0, "0"), (12, 0, "0.000012"), (0, 3, "unpriced 3"), (3_000_000, 1, "3 + unpriced 1")],
)
def test_the_cost_of_a_request_says_what_is_not_in_it(plane, micros, unpriced, shown):
    cost = pb.CostTotals(cost_micros=micros, unpriced_token_usages=unpriced)
    plane.interceptions = [an_interception(1, cost=cost, tokens=pb.TokenTotals(output_tokens=1))]
    head, line = administer(plane, "records", "interceptions").stdout.splitlines()
    assert line[head.index("COST USD") :] == shown


def test_a_request_of_which_no_usage_is_known_is_not_said_to_have_cost_nothing(plane):
    plane.interceptions = [an_interception(1, cost=pb.CostTotals(), tokens=pb.TokenTotals())]
    head, line = administer(plane, "records", "interceptions").stdout.splitlines()
    assert line[head.index("STATUS") :].split() == ["-"] * 6


@pytest.mark.parametrize("command", ["interceptions", "sessions"])
def test_tokens_of_a_cache_have_columns_because_most_of_an_agents_input_is_cached(plane, command):
    tokens = pb.TokenTotals(
        input_tokens=3, output_tokens=50, cache_read_input_tokens=90_000, cache_write_input_tokens=700
    )
    plane.interceptions = [an_interception(1, tokens=tokens)]
    plane.sessions = [pb.Session(session_id="s-1", tokens=tokens)]
    head, line = administer(plane, "records", command).stdout.splitlines()
    assert " ".join(head.split()).count("INPUT OUTPUT CACHE READ CACHE WRITE COST USD") == 1
    assert line[head.index("INPUT") :].split()[:5] == ["3", "50", "90000", "700", "0"]


def test_users_who_were_deleted_are_shown_by_their_ids(plane):
    one = an_interception(1, username="", user_id="id-of-ann")
    plane.interceptions, plane.sessions = [one], [pb.Session(session_id="s-1", user_id="id-of-ann")]
    plane.thread = pb.GetInterceptionResponse(interception=one, thread=[pb.InterceptionDetail(interception=one)])
    for command in (("interceptions",), ("sessions",), ("show", "id-1")):
        assert "id-of-ann" in administer(plane, "records", *command).stdout


def test_a_session_of_which_no_usage_is_known_is_not_said_to_have_cost_nothing(plane):
    plane.sessions = [pb.Session(session_id="s-1", interceptions=1, cost=pb.CostTotals(), tokens=pb.TokenTotals())]
    head, line = administer(plane, "records", "sessions").stdout.splitlines()
    assert line[head.index("INPUT") :].split() == ["-"] * 6


def test_a_request_is_shown_with_what_it_was_mapped_to_who_sent_it_and_what_its_tokens_were(plane):
    one = an_interception(1, upstream_model="up\x07-5", client="Unknown", user_agent="python-requests/2.32 \x1b[31m")
    metadata = {"output_reasoning": 12, "web_search_requests": 2, "prompt_audio": 0}
    tokens = record_pb2.TokenUsage(input_tokens=1, output_tokens=20, metadata=metadata, cost_micros=75)
    plane.thread = pb.GetInterceptionResponse(
        interception=one, thread=[pb.InterceptionDetail(interception=one, token_usages=[tokens])]
    )
    lines = administer(plane, "records", "show", "id-1").stdout.splitlines()
    assert lines[0].endswith("id-1  corp  gpt-5 as up\\x07-5  open")
    assert lines[1:] == [
        "    ann  Unknown (python-requests/2.32 \\x1b[31m)  session -",
        "    tokens: 1 input, 20 output, 0 cache_read_input, 0 cache_write_input; "
        "details: 12 output_reasoning, 2 web_search_requests; cost: 0.000075 USD",
    ]


def test_a_request_is_shown_with_its_thread_and_what_is_not_kept_is_said(plane):
    first, second = (
        an_interception(
            1,
            client="Codex",
            session_id="s-1",
            http_status=200,
            duration_micros=2_564_000,
            first_byte_micros=4_000,
            outcome=record_pb2.INTERCEPTION_OUTCOME_COMPLETED,
            credential_id="key-2",
        ),
        an_interception(
            2,
            session_id="s-1",
            upstream_request_id="req-7",
            outcome=record_pb2.INTERCEPTION_OUTCOME_UPSTREAM_ERROR,
            error_category=record_pb2.UPSTREAM_ERROR_CATEGORY_OVERLOADED,
            error_message="try \x07 later",
        ),
    )
    plane.thread = pb.GetInterceptionResponse(
        interception=second,
        thread=[
            pb.InterceptionDetail(
                interception=first,
                prompts=[record_pb2.Prompt(text="one\ntwo", text_bytes=7)],
                attempts=[
                    pb.PastAttempt(
                        provider="corp",
                        credential_id="key-1",
                        http_status=429,
                        error_category=record_pb2.UPSTREAM_ERROR_CATEGORY_RATE_LIMITED,
                        error_reason="requests",
                        duration_micros=12_000,
                        upstream_request_id="req-6",
                    )
                ],
                model_thoughts=[
                    record_pb2.ModelThought(content="", content_bytes=12, source="thinking"),
                    record_pb2.ModelThought(content="First, I", content_bytes=8, partial=True),
                ],
                tool_calls=[
                    record_pb2.ToolCall(tool="Bash", input='{"a', input_bytes=30),
                    record_pb2.ToolCall(tool="Read", input='{"path":"/et', input_bytes=12, partial=True),
                    record_pb2.ToolCall(tool="Edit", input='{"a', input_bytes=30, partial=True),
                ],
                token_usages=[
                    record_pb2.TokenUsage(input_tokens=1, output_tokens=2, partial=True),
                    record_pb2.TokenUsage(output_tokens=5, cost_micros=75),
                    record_pb2.TokenUsage(cost_micros=0),
                ],
            ),
            pb.InterceptionDetail(interception=second),
        ],
    )
    lines = administer(plane, "records", "show", "id-2").stdout.splitlines()
    assert lines[0].startswith("  2026-")
    assert lines[0].endswith("id-1  corp  gpt-5  COMPLETED")
    assert lines[1:] == [
        "    attempt  corp  key key-1  status 429  RATE_LIMITED  requests  0.012 s  upstream's id req-6",
        "    ann  Codex  key key-2  status 200  2.564 s, first byte 0.004 s  session s-1",
        "    prompt: one",
        "      two",
        "    thinking: [0 of 12 bytes kept]",
        "    thought (partial): First, I",
        '    tool Bash: {"a [3 of 30 bytes kept]',
        '    tool Read (partial): {"path":"/et',
        '    tool Edit (partial): {"a [3 of 30 bytes kept]',
        "    tokens: 1 input, 2 output, 0 cache_read_input, 0 cache_write_input (partial); cost: unpriced",
        "    tokens: 0 input, 5 output, 0 cache_read_input, 0 cache_write_input; cost: 0.000075 USD",
        "    tokens: 0 input, 0 output, 0 cache_read_input, 0 cache_write_input; cost: 0 USD",
        f"> {lines[13][2:]}",
        "    error: OVERLOADED  -  try \\x07 later",
        "    ann  session s-1  upstream's id req-7",
    ]
    assert plane.last == pb.GetInterceptionRequest(id="id-2")
    [told, _] = administer_json(plane, "records", "show", "id-2")["thread"]
    assert [one["partial"] for one in told["tool_calls"]] == [False, True, True]
    assert [one["partial"] for one in told["model_thoughts"]] == [False, True]


def test_of_what_has_no_room_in_an_answer_it_is_said_how_it_is_found(plane):
    first, second = an_interception(1), an_interception(2)
    plane.thread = pb.GetInterceptionResponse(
        interception=second,
        thread=[
            pb.InterceptionDetail(interception=first, records_left_out=True),
            pb.InterceptionDetail(interception=second, records_left_out=True),
        ],
    )
    lines = administer(plane, "records", "show", "id-2").stdout.splitlines()
    assert [line for line in lines if "left out" in line] == [
        "    left out: its records, for which there is no room here: 'records show id-1' has them",
        "    left out: further records, for which an answer has no room",
    ]


def test_usage_is_a_table_or_csv_that_no_spreadsheet_computes(plane):
    tokens = pb.TokenTotals(input_tokens=1, output_tokens=2, cache_read_input_tokens=3, cache_write_input_tokens=4)
    plane.usage = [
        pb.UsageRow(
            user_id="id-1",
            username="ann",
            model="=cmd()",
            interceptions=9,
            token_usages=8,
            tokens=tokens,
            cost=pb.CostTotals(cost_micros=75_000, unpriced_token_usages=3),
        ),
        pb.UsageRow(user_id="id-2", model="-x,y", interceptions=1),
        pb.UsageRow(
            user_id="id-3",
            username="cy",
            model="",
            interceptions=1,
            token_usages=2,
            tokens=tokens,
            cost=pb.CostTotals(unpriced_token_usages=2),
        ),
        pb.UsageRow(user_id="id-4", username="di", model="free", interceptions=1, token_usages=1, cost=pb.CostTotals()),
    ]
    table = administer(plane, "records", "usage", "--by", "user, model").stdout.splitlines()
    assert table[0].split() == ["USER", "MODEL", "REQUESTS", "UPSTREAM", "CALLS", "INPUT", "OUTPUT", "CACHE", "READ",
                                "CACHE", "WRITE", "COST", "USD", "UNPRICED"]  # fmt: skip
    assert table[1].split() == ["ann", "=cmd()", "9", "8", "1", "2", "3", "4", "0.075", "3"]
    assert table[3].split() == ["cy", "-", "1", "2", "1", "2", "3", "4", "-", "2"]
    printed = administer(plane, "records", "usage", "--by", "user,model", "--csv").stdout
    rows = list(csv.reader(io.StringIO(printed)))
    assert rows == [
        ["user", "model", "requests", "upstream_calls", "input", "output", "cache_read", "cache_write", "cost_usd",
         "unpriced"],
        ["ann", "'=cmd()", "9", "8", "1", "2", "3", "4", "0.075", "3"],
        ["id-2", "'-x,y", "1", "0", "0", "0", "0", "0", "0", "0"],
        ["cy", "-", "1", "2", "1", "2", "3", "4", "", "2"],
        ["di", "free", "1", "1", "0", "0", "0", "0", "0", "0"],
    ]  # fmt: skip
    assert list(plane.last.group_by) == [pb.USAGE_DIMENSION_USER, pb.USAGE_DIMENSION_MODEL]
    assert [row["model"] for row in administer_json(plane, "records", "usage")] == ["=cmd()", "-x,y", "", "free"]


def test_usage_is_in_the_order_of_what_it_is_asked_by_though_it_comes_by_users_first(plane):
    plane.usage = [
        pb.UsageRow(user_id=f"id-{name}", username=name, day=day, interceptions=1)
        for name in ("bob", "ann")
        for day in ("2026-11-21", "2026-11-22")
    ]
    printed = administer(plane, "records", "usage", "--by", "day,user", "--csv").stdout
    rows = [(row["day"], row["user"]) for row in csv.DictReader(io.StringIO(printed))]
    assert rows == [("2026-11-21", "ann"), ("2026-11-21", "bob"), ("2026-11-22", "ann"), ("2026-11-22", "bob")]
