"""Records in their file: each once, sums that add up, and what ends."""

import sqlite3
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credentiald import record_log
from credentiald.model import ModelPrices
from credentiald.record_model import DAY_MICROS, Cost
from credentiald.store import migrations, record_queries, record_retention, records, sqlite, usage_queries
from tests.support.records import (
    ALICE,
    BOB,
    SECOND,
    START,
    a_prompt,
    a_report,
    a_thought,
    a_tool_call,
    a_usage,
    an_attempt,
    an_end,
    an_id,
    an_opening,
    an_origin,
    empty_records,
    everything,
    fact_id,
    put,
    rows_of,
    sessions_of,
    some_facts,
)


@pytest.fixture
def conn(tmp_path):
    with empty_records(tmp_path / "records.db") as one:
        yield one


def a_whole(number, **changes):
    values = {
        "facts": some_facts(),
        "token_usages": (a_usage(),),
        "prompts": (a_prompt(),),
        "tool_calls": (a_tool_call(f"toolu_{number}"),),
        "model_thoughts": (a_thought(),),
        "end": an_end(number),
    }
    return a_report(number, **values | changes)


def days_of_users(conn):
    return [row for row in rows_of(conn, "usage_days") if row["user_id"]]


def test_a_report_that_is_repeated_stores_nothing_more(conn):
    report = a_whole(1)._replace(attempts=(an_attempt(1),))
    first = put(conn, an_opening(1), report)
    before = everything(conn)
    again = put(conn, an_opening(1), report, report)
    assert everything(conn) == before
    assert (len(first.started), len(first.ended), len(first.facts)) == (1, 1, 5)
    assert (again.started, again.ended, again.facts, again.taken) == ([], [], [], [])
    # A day has a row for its user and one for all users.
    assert {table: len(rows) for table, rows in before.items()} == dict.fromkeys(before, 1) | {"usage_days": 2}


def test_an_attempt_is_a_line_of_the_log_between_beginning_and_end(conn):
    stored = put(conn, an_opening(1), a_whole(1)._replace(attempts=(an_attempt(1),)))
    lines = list(record_log.lines(stored))
    kinds = [one["record_type"] for one in lines]
    assert kinds.index("attempt") not in (0, len(kinds) - 1)
    line = lines[kinds.index("attempt")]
    assert (line["interception_id"], line["credential_id"], line["provider_name"]) == (an_id(1), "key-1", "corp")
    assert (line["http_status"], line["error_type"], line["error_reason"]) == (429, "RATE_LIMITED", "rate_limit_error")


@pytest.mark.parametrize("opened_before", [True, False])
def test_after_a_fallback_ends_and_tokens_are_logged_with_the_provider_that_answered(conn, opened_before):
    put(conn, a_whole(1))
    first = [an_opening(2, upstream_model="mapped")]
    opened = list(record_log.lines(put(conn, *first))) if opened_before else []
    fallback = an_origin(
        provider_id="provider-2", provider_name="aws", provider_type="bedrock", source="USER_KEY", credential_id="key-2"
    )
    told = a_whole(
        2,
        resolution_id=an_id(3_000_000),
        origin=fallback,
        facts=some_facts(correlating_tool_call_id="toolu_1", upstream_model="eu.claude"),
        tool_calls=(),
    )
    lines = opened + list(record_log.lines(put(conn, *([] if opened_before else first), told)))
    start, end, tokens = (
        next(line for line in lines if line["record_type"] == kind)
        for kind in ("interception_start", "interception_end", "token_usage")
    )
    asked = {
        "provider": "bedrock",
        "provider_name": "aws",
        "model": "claude-sonnet-4-5",
        "upstream_model": "eu.claude",
    }
    known = asked | {
        "source": "USER_KEY",
        "credential_id": "key-2",
        "metadata": {"request_user_agent": "claude-cli/2.0"},
        "correlating_tool_call_id": "toolu_1",
        "thread_parent_id": an_id(1),
        "thread_root_id": an_id(1),
        "session_id": an_id(1),
    }
    assert {name: tokens[name] for name in asked} == asked
    assert {name: end[name] for name in known} == known
    # Those of a beginning are there before anything is known, too.
    assert start.keys() - end.keys() == {"started_at"}
    assert start["provider_name"] == ("anthropic-corp" if opened_before else "aws")


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_however_reports_are_cut_into_batches_and_repeated_the_file_is_the_same(data):
    usages = [a_usage(id=an_id(50 + place), input_tokens=place) for place in range(4)]
    pieces = [an_opening(1), a_report(1, facts=some_facts(client_session_id="s-1"))]
    pieces += [a_report(1, facts=some_facts(client_session_id="s-1"), token_usages=(one,)) for one in usages]
    ending = a_report(1, facts=some_facts(client_session_id="s-1"), prompts=(a_prompt(id=an_id(70)),), end=an_end(1))
    sent = data.draw(st.lists(st.sampled_from(pieces), max_size=12)) + data.draw(st.permutations([*pieces, ending]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=5)))
    with TemporaryDirectory() as folder:
        with empty_records(Path(folder) / "one.db") as one:
            put(one, *pieces, ending, prices={SONNET: PRICES})
            expected = everything(one)
        with empty_records(Path(folder) / "two.db") as two:
            for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
                put(two, *sent[start:end], prices={SONNET: PRICES})
            assert everything(two) == expected
    of_all, day = expected["usage_days"]
    assert of_all == day | {"user_id": ""}
    assert (day["input_tokens"], day["cost_micros"], day["unpriced_token_usages"]) == (6, 6 + 4 * 290, 0)


def test_what_a_bridge_says_of_an_interception_of_another_service_or_user_is_not_stored(conn):
    put(conn, an_opening(1), a_whole(1))
    before = everything(conn)
    forged = [a_whole(1, origin=an_origin(BOB)), a_whole(1, origin=an_origin(service_id="service-2"))]
    stored = put(conn, *forged, an_opening(1, origin=an_origin(BOB)))
    assert stored.taken == [0, 1]
    assert everything(conn) == before


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_interceptions_that_answer_tool_calls_are_one_thread_and_one_session(conn, in_one_batch):
    reports = [a_whole(1)]
    for number in (2, 3):
        answered = some_facts(correlating_tool_call_id=f"toolu_{number - 1}")
        reports.append(a_whole(number, facts=answered))
    for batch in [reports] if in_one_batch else [[one] for one in reports]:
        put(conn, *batch)
    rows = {row["id"]: row for row in rows_of(conn, "interceptions")}
    assert [rows[an_id(one)]["thread_parent_id"] for one in (1, 2, 3)] == ["", an_id(1), an_id(2)]
    assert {row["thread_root_id"] for row in rows.values()} == {an_id(1)}
    [session] = rows_of(conn, "sessions")
    assert (session["session_id"], session["interceptions"], session["threads"]) == (an_id(1), 3, 1)
    assert session["input_tokens"] == 30


@given(st.permutations(range(1, 6)), st.sets(st.integers(1, 4)))
@settings(max_examples=30, deadline=None)
def test_a_thread_is_the_same_however_its_interceptions_stand_in_a_batch(order, cuts):
    """Interceptions of one batch in any order; of several batches as they are answered, the earlier one first."""
    reports = {
        number: a_whole(number, facts=some_facts(correlating_tool_call_id=f"toolu_{number - 1}"))
        for number in range(1, 6)
    }
    with TemporaryDirectory() as folder, empty_records(Path(folder) / "one.db") as conn:
        for first, after in pairwise([1, *sorted(cuts - {1}), 6]):
            put(conn, *(reports[number] for number in order if first <= number < after))
        rows = {row["id"]: row for row in rows_of(conn, "interceptions")}
        assert {row["thread_root_id"] for row in rows.values()} == {an_id(1)}
        assert [rows[an_id(one)]["thread_parent_id"] for one in range(1, 6)] == ["", *map(an_id, range(1, 5))]
        [session] = rows_of(conn, "sessions")
        assert (session["interceptions"], session["threads"]) == (5, 1)


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_where_an_upstream_numbers_calls_anew_the_latest_one_before_is_answered(conn, in_one_batch):
    reports = [
        a_whole(number, tool_calls=(a_tool_call("call_0", create_micros=START + number * SECOND),))
        for number in (1, 3, 5, 9)
    ]
    reports.append(a_whole(7, facts=some_facts(correlating_tool_call_id="call_0"), tool_calls=()))
    for batch in [reports] if in_one_batch else [[one] for one in reports]:
        put(conn, *batch)
    [child] = [row for row in rows_of(conn, "interceptions") if row["id"] == an_id(7)]
    assert child["thread_parent_id"] == an_id(5)


def test_interceptions_that_answer_each_others_calls_make_no_circle(conn):
    put(
        conn,
        a_whole(1, facts=some_facts(correlating_tool_call_id="toolu_2")),
        a_whole(2, facts=some_facts(correlating_tool_call_id="toolu_1")),
    )
    rows = {row["id"]: row["thread_parent_id"] for row in rows_of(conn, "interceptions")}
    assert rows == {an_id(1): "", an_id(2): an_id(1)}


@pytest.mark.parametrize("has_session", [True, False])
def test_what_was_given_up_and_reported_after_all_is_as_if_it_had_never_been_given_up(conn, tmp_path, has_session):
    facts = some_facts(
        client="Codex",
        client_session_id="s-1" if has_session else "",
        correlating_tool_call_id="toolu_1",
    )
    steps = [[a_whole(1, facts=some_facts(client_session_id="s-1"))], [an_opening(2, client="")]]
    late = [[a_report(2, token_usages=(a_usage(),), facts=facts)], [a_report(2, end=an_end(2))]]
    for step in steps:
        put(conn, *step)
    put(conn, vanished=((an_id(2), START + 99 * SECOND),))
    assert sum(row["interceptions"] for row in rows_of(conn, "sessions")) == 2
    with empty_records(tmp_path / "other.db") as other:
        for step in [*steps, *late]:
            put(other, *step)
        for step in late:
            put(conn, *step)
        assert everything(conn) == everything(other)


def test_ids_and_marks_of_bridges_are_those_of_their_service(conn):
    put(conn, an_opening(1), an_opening(2), an_opening(3), an_opening(4, origin=an_origin(service_id="service-2")))
    put(conn, a_whole(2))
    found = record_retention.left_behind(conn, instance=("service-1", "bridge-1"), mark=an_id(3), limit=10)
    assert found == [an_id(1)]
    assert record_retention.left_behind(conn, instance=("service-2", "bridge-1"), mark=an_id(4), limit=10) == []
    with sqlite.transaction(conn, write=True):
        conn.execute(
            "INSERT INTO bridge_instances (service_id, id, seen_time) VALUES ('service-2', 'bridge-1', ?)",
            (START + 90 * SECOND,),
        )
    found = record_retention.left_open(conn, before_micros=START + 60 * SECOND, limit=10)
    assert sorted(one for one, _ in found) == [an_id(1), an_id(3)]


def test_a_tool_call_of_another_user_makes_no_thread(conn):
    put(conn, a_whole(1, origin=an_origin(BOB)))
    put(conn, a_whole(2, facts=some_facts(correlating_tool_call_id="toolu_1")))
    [mine] = [row for row in rows_of(conn, "interceptions") if row["user_id"] == ALICE]
    assert (mine["thread_parent_id"], mine["session_id"]) == ("", an_id(2))


@pytest.mark.parametrize(("others", "own", "parent"), [(63, 1, 2), (64, 1, 2), (200, 1, 2), (64, 60, 61), (64, 70, "")])
@pytest.mark.parametrize("ahead_seconds", [0, 1000])
def test_calls_of_others_with_the_same_id_hide_none_of_ones_own(conn, others, own, parent, ahead_seconds):
    """Some upstreams number calls anew in each conversation, and a bridge says when a call was."""

    def calling(number, user_id, call_id, ahead_seconds=0):
        call = a_tool_call(call_id, create_micros=START + (number + ahead_seconds) * SECOND)
        return a_whole(number, origin=an_origin(user_id), tool_calls=(call,))

    put(conn, calling(1, ALICE, "call_0"), calling(2, ALICE, "call_0"))
    put(conn, *[calling(number, ALICE, "call_1") for number in range(3, 2 + own)])
    if parent == own + 1:
        put(conn, calling(own + 1, ALICE, "call_0"))
    put(conn, *[calling(100 + number, BOB, "call_0", ahead_seconds) for number in range(others)])
    put(conn, a_whole(400, facts=some_facts(correlating_tool_call_id="call_0"), tool_calls=()))
    [child] = [row for row in rows_of(conn, "interceptions") if row["id"] == an_id(400)]
    assert child["thread_parent_id"] == (an_id(parent) if parent else "")


def test_calls_of_others_with_the_same_id_make_no_report_dearer(tmp_path):
    def steps(others):
        with empty_records(tmp_path / f"{others}.db") as conn:
            put(conn, *[a_whole(number, tool_calls=(a_tool_call("call_1"),)) for number in range(1, 70)])
            call = a_tool_call("call_0")
            put(conn, *[a_whole(100 + one, origin=an_origin(BOB), tool_calls=(call,)) for one in range(others)])
            taken = []
            conn.set_progress_handler(lambda: taken.append(1), 1)
            put(conn, a_whole(9_999, facts=some_facts(correlating_tool_call_id="call_0"), tool_calls=()))
            conn.set_progress_handler(None, 1)
            return len(taken)

    assert steps(1_000) < 1.1 * steps(100)


def test_two_users_who_name_the_same_session_have_one_each(conn):
    facts = some_facts(client_session_id="s-1")
    put(conn, a_whole(1, facts=facts), a_whole(2, facts=facts, origin=an_origin(BOB)))
    assert [row["user_id"] for row in rows_of(conn, "sessions")] == [ALICE, BOB]


def test_sums_by_session_and_day_are_those_of_the_records(conn):
    reports = []
    for number in range(40):
        facts = some_facts(client_session_id=f"s-{number % 3}", model=f"m-{number % 2}")
        usages = tuple(a_usage(input_tokens=number, output_tokens=place) for place in range(number % 4))
        start = START + number * DAY_MICROS // 10
        origin = an_origin(BOB if number % 5 == 0 else ALICE)
        reports.append(
            a_report(number, origin=origin, facts=facts, token_usages=usages, end=an_end(number), start_micros=start)
        )
    for start in range(0, 40, 7):
        put(conn, *reports[start : start + 7])
    records_of, sums = rows_of(conn, "token_usages"), Counter()
    days_of_all = [row for row in rows_of(conn, "usage_days") if not row["user_id"]]
    kept = {"sessions": rows_of(conn, "sessions"), "of users": days_of_users(conn), "of all": days_of_all}
    for what, rows in kept.items():
        for column in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens"):
            assert sum(row[column] for row in rows) == sum(row[column] for row in records_of), what
        sums[what] = sum(row["interceptions"] for row in rows)
    assert sums == {"sessions": 40, "of users": 40, "of all": 40}
    assert sum(row["token_usages"] for row in days_of_users(conn)) == len(records_of)
    assert sum(row["token_usages"] for row in days_of_all) == len(records_of)
    assert len(days_of_all) < len(days_of_users(conn))
    assert {row["models"] for row in rows_of(conn, "sessions")} == {'["m-0", "m-1"]', '["m-1", "m-0"]'}


# Ten, twenty, thirty and forty tokens of each kind make 300 micro-dollars.
PRICES = ModelPrices(1_000_000, 2_000_000, 3_000_000, 4_000_000)
SONNET = ("provider-1", "claude-sonnet-4-5")


def test_a_token_usage_keeps_the_cost_that_it_had_when_it_was_stored(conn):
    first, second = a_usage(), a_usage()
    report = a_report(1, facts=some_facts(), token_usages=(first,))
    put(conn, report, prices={SONNET: PRICES})
    dearer = PRICES._replace(input_price_micros=2_000_000)
    stored = put(conn, report, a_report(1, token_usages=(first, second), end=an_end(1)), prices={SONNET: dearer})
    assert [fact.cost_micros for _, fact in stored.facts] == [310]
    costs = {row["id"]: row["cost_micros"] for row in rows_of(conn, "token_usages")}
    assert costs == {first.id: 300, second.id: 310}
    [session], [day] = rows_of(conn, "sessions"), days_of_users(conn)
    assert (session["cost_micros"], day["cost_micros"]) == (610, 610)


def test_what_has_no_price_is_counted_and_adds_nothing(conn):
    facts = some_facts(client_session_id="s-1")
    unknown = some_facts(client_session_id="s-1", model="unknown")
    put(conn, a_report(1, facts=facts, token_usages=(a_usage(), a_usage())), prices={SONNET: PRICES})
    put(conn, a_report(2, facts=unknown, token_usages=(a_usage(), a_usage())), prices={SONNET: PRICES})
    put(conn, a_report(3, facts=facts, token_usages=(a_usage(),)), prices={SONNET: ModelPrices(0, 0, 0, 0)})
    put(conn, a_report(4, facts=facts, token_usages=(a_usage(),)), prices={SONNET: ModelPrices(0, 0, 0)})
    put(conn, a_report(5, facts=facts))
    found = record_queries.list_interceptions(conn, record_queries.Filter(), after=None, limit=9).items
    assert [one.cost for one in found] == [Cost(0, 0), Cost(0, 1), Cost(0, 0), Cost(0, 2), Cost(600, 0)]
    [session] = record_queries.list_sessions(conn, record_queries.Filter(), after=None, limit=9).items
    assert session.cost == Cost(600, 3)
    sums = usage_queries.query_usage(conn, record_queries.Filter(), group_by=["MODEL"], after=None, limit=9)
    assert [(one.model, one.token_usages, one.cost) for one in sums.rows] == [
        ("claude-sonnet-4-5", 4, Cost(600, 1)),
        ("unknown", 2, Cost(0, 2)),
    ]


def test_a_model_costs_what_the_provider_of_the_interception_takes_for_the_mapped_one(conn):
    prices = {
        ("provider-1", "mapped"): PRICES,
        ("provider-2", "claude-sonnet-4-5"): PRICES._replace(output_price_micros=0),
    }
    mapped, elsewhere = some_facts(upstream_model="mapped"), an_origin(provider_id="provider-2")
    put(conn, a_report(1, facts=mapped, token_usages=(a_usage(),)), prices=prices)
    put(conn, a_report(2, facts=mapped, token_usages=(a_usage(),), origin=elsewhere), prices=prices)
    put(conn, an_opening(3), a_report(3, token_usages=(a_usage(),)), prices=prices)
    costs = {row["interception_id"]: row["cost_micros"] for row in rows_of(conn, "token_usages")}
    assert costs == {an_id(1): 300, an_id(2): 260, an_id(3): None}


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_session_names_32_models_and_providers_at_most_however_they_came(conn, in_one_batch):
    facts, told = some_facts(client_session_id="s-1"), []
    for number in range(1, 41):
        origin, model = an_origin(provider_name=f"p-{number:02}"), f"m-{number:02}"
        told.append(a_report(number, origin=origin, facts=facts._replace(model=model), end=an_end(number)))
    if in_one_batch:
        put(conn, *told)
    for one in told:
        put(conn, one)
    [session] = sessions_of(conn)
    assert session["models"] == [f"m-{number:02}" for number in range(1, 33)]
    assert session["providers"] == [f"p-{number:02}" for number in range(1, 33)]


def test_a_session_says_the_prompt_of_its_latest_interception(conn):
    facts = some_facts(client_session_id="s-1")
    put(conn, a_whole(5, facts=facts, prompts=(a_prompt("the last"),)))
    put(conn, a_whole(2, facts=facts, prompts=(a_prompt("an earlier one"),)))
    [session] = rows_of(conn, "sessions")
    assert (session["last_prompt"], session["last_active_time"]) == ("the last", START + 5 * SECOND)


@pytest.mark.parametrize("in_one_batch", [True, False])
@pytest.mark.parametrize("way", ["short", "long"])
def test_a_prompt_whose_text_is_left_out_takes_an_older_ones_place_in_its_session(conn, way, in_one_batch):
    facts = some_facts(client_session_id="s-1")
    # What it told of in two parts takes the long way.
    further = {} if way == "short" else {"end": None}
    told = [
        a_whole(number, facts=facts, prompts=(a_prompt(text, text_bytes=9),), **further)
        for number, text in ((2, "kept"), (3, ""))
    ]
    openings = [an_opening(2), an_opening(3)]
    if in_one_batch:
        put(conn, *openings, *told)
    else:
        put(conn, openings[0], told[0])
        assert [row["last_prompt"] for row in rows_of(conn, "sessions")] == ["kept"]
        put(conn, openings[1], told[1])
    [session] = rows_of(conn, "sessions")
    assert (session["last_prompt"], session["last_prompt_time"]) == ("", START + 3 * SECOND)
    # An older one comes late, and the client goes on without saying anything.
    put(conn, an_opening(1), a_whole(1, facts=facts, prompts=(a_prompt("old"),), **further))
    put(conn, an_opening(4), a_whole(4, facts=facts, prompts=(), **further))
    put(conn, an_opening(5), a_whole(5, facts=facts, prompts=(a_prompt("", text_bytes=0),), **further))
    assert [row["last_prompt"] for row in rows_of(conn, "sessions")] == [""]
    put(conn, an_opening(6), a_whole(6, facts=facts, prompts=(a_prompt("new"),), **further))
    assert [row["last_prompt"] for row in rows_of(conn, "sessions")] == ["new"]


def test_of_an_interception_with_a_prompt_that_is_kept_and_one_that_is_not_its_session_shows_the_one(conn, tmp_path):
    kept, left_out = (a_report(1, prompts=(a_prompt(text, text_bytes=9, id=an_id(9)),)) for text in ("kept", ""))
    left_out = left_out._replace(prompts=(left_out.prompts[0]._replace(id=an_id(8)),))
    with empty_records(tmp_path / "other.db") as other:
        for one, told in ((conn, (kept, left_out)), (other, (left_out, kept))):
            for report in told:
                put(one, report)
            assert [row["last_prompt"] for row in rows_of(one, "sessions")] == ["kept"]


def test_what_a_silent_bridge_left_open_is_found_and_ended_once(conn):
    with sqlite.transaction(conn, write=True):
        conn.execute(
            "INSERT INTO bridge_instances (service_id, id, seen_time)"
            " VALUES ('service-1', 'bridge-1', ?), ('service-1', 'bridge-2', ?)",
            (START, START + 90 * SECOND),
        )
    put(conn, an_opening(1), an_opening(2, bridge_instance_id="bridge-2"), an_opening(3), a_whole(3))
    put(conn, an_opening(4, bridge_instance_id="never heard of", start_micros=START))
    found = record_retention.left_open(conn, before_micros=START + 60 * SECOND, limit=10)
    assert sorted(found) == [(an_id(1), START), (an_id(4), START)]
    ended = put(conn, vanished=tuple(found)).ended
    assert {one.outcome for one in ended} == {"BRIDGE_VANISHED"}
    assert record_retention.left_open(conn, before_micros=START + 60 * SECOND, limit=10) == []
    late = put(conn, a_whole(1))
    assert [one.outcome for one in late.ended] == ["COMPLETED"]
    assert sum(row["interceptions"] for row in days_of_users(conn)) == 3


def test_retention_removes_interceptions_with_all_their_records_and_nothing_younger(conn):
    put(conn, *(a_whole(number) for number in range(10)))
    steps = []
    while count := record_retention.purge(conn, before_micros=START + 7 * SECOND, limit=3):
        steps.append(count)
    assert steps == [3, 3, 1]
    kept = {an_id(one) for one in (7, 8, 9)}
    for table in ("token_usages", "prompts", "tool_calls", "model_thoughts"):
        assert {row["interception_id"] for row in rows_of(conn, table)} == kept, table
    assert {row["id"] for row in rows_of(conn, "interceptions")} == kept


def test_what_is_under_way_stays_until_it_has_its_end_however_old_it_is(conn):
    put(conn, an_opening(1), a_whole(2, end=None), a_whole(3))
    old = START + DAY_MICROS
    assert record_retention.purge(conn, before_micros=old, limit=10) == 1
    assert {row["id"] for row in rows_of(conn, "interceptions")} == {an_id(1), an_id(2)}
    put(conn, a_whole(1), a_report(2, end=an_end(2)))
    assert record_retention.purge(conn, before_micros=old, limit=10) == 2
    assert sum(row["interceptions"] for row in days_of_users(conn)) == 3
    assert sum(row["input_tokens"] for row in days_of_users(conn)) == 30


def test_sums_go_when_all_that_they_count_has_gone(conn):
    put(conn, a_whole(1), a_whole(2, start_micros=START + 2 * DAY_MICROS))
    steps = []
    while count := record_retention.purge_sums(conn, before_micros=START + DAY_MICROS, limit=1):
        steps.append(count)
    # A session and the day of its user; the day of all users.
    assert steps == [2, 1]
    assert [row["session_id"] for row in rows_of(conn, "sessions")] == [an_id(2)]
    assert [row["interceptions"] for row in rows_of(conn, "usage_days")] == [1, 1]


def test_a_session_that_goes_on_counts_what_retention_has_removed_and_a_day_is_whole_until_it_goes(conn):
    facts = some_facts(client_session_id="s-1")
    put(conn, a_whole(1, facts=facts), a_whole(2, facts=facts, start_micros=START + DAY_MICROS))
    cut = START + SECOND + 1
    assert record_retention.purge(conn, before_micros=cut, limit=10) == 1
    assert record_retention.purge_sums(conn, before_micros=cut, limit=10) == 0
    [session] = rows_of(conn, "sessions")
    assert (session["interceptions"], session["input_tokens"], session["start_time"]) == (2, 20, START + SECOND)
    assert [row["interceptions"] for row in days_of_users(conn)] == [1, 1]


@pytest.mark.parametrize("limit", [1, 10])
def test_what_sessions_that_go_on_show_of_a_prompt_goes_with_it(conn, limit):
    sessions = {
        "goes on without a prompt": ["old", None, ""],
        "says something again": ["old", "new", None],
        "is told of late": [None, "new", "newer"],
    }
    for place, (session_id, prompts) in enumerate(sessions.items()):
        for day, prompt in enumerate(prompts):
            number = 10 * place + day
            told = () if prompt is None else (a_prompt(prompt),)
            facts = some_facts(client_session_id=session_id)
            put(conn, a_whole(number, facts=facts, prompts=told, start_micros=START + day * DAY_MICROS))
    # Of the same name, and another user's.
    other = a_whole(90, origin=an_origin(BOB), facts=some_facts(client_session_id="goes on without a prompt"))
    put(conn, other._replace(start_micros=START + DAY_MICROS, prompts=(a_prompt("of another"),)))
    # Its interception stands for it.
    alone = a_whole(91, tool_calls=(), start_micros=START, prompts=(a_prompt("alone", id=fact_id(91, 1)),))
    put(conn, an_opening(91, start_micros=START), alone)
    expected = dict.fromkeys(sessions, "new") | {"is told of late": "newer", "goes on without a prompt": "old"}
    assert {
        row["session_id"]: row["last_prompt"] for row in rows_of(conn, "sessions") if row["user_id"] == ALICE
    } == expected
    cut = START + DAY_MICROS
    for step in (record_retention.purge, record_retention.purge_sums):
        while step(conn, before_micros=cut, limit=limit):
            pass
    shown = {(row["user_id"], row["session_id"]): row["last_prompt"] for row in sessions_of(conn)}
    assert shown == {
        (ALICE, "goes on without a prompt"): "",
        (ALICE, "says something again"): "new",
        (ALICE, "is told of late"): "newer",
        (BOB, "goes on without a prompt"): "of another",
    }


def test_bridges_are_forgotten_when_nothing_of_theirs_is_open(conn):
    with sqlite.transaction(conn, write=True):
        conn.execute(
            "INSERT INTO bridge_instances (id, service_id, seen_time)"
            " VALUES ('bridge-1', 'service-1', 1), ('bridge-2', 'service-1', 1), ('bridge-3', 'service-1', 9)"
        )
    put(conn, an_opening(1))
    record_retention.forget_instances(conn, before_micros=5)
    assert {row["id"] for row in rows_of(conn, "bridge_instances")} == {"bridge-1", "bridge-3"}


def test_records_of_another_database_are_refused(conn):
    with pytest.raises(migrations.SchemaMismatch, match="another database"), sqlite.transaction(conn, write=True):
        records.prepare(conn, "another")


def test_a_batch_that_fails_in_its_middle_leaves_nothing(conn):
    before = everything(conn)
    conn.execute("CREATE TRIGGER no BEFORE INSERT ON usage_days BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        put(conn, a_whole(1))
    assert everything(conn) == before
