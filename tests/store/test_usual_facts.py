"""Token usage and prompt of a usual interception have its number; what is asked is answered as if each had its own."""

import pytest

from credentiald.model import ModelPrices
from credentiald.record_model import DAY_MICROS
from credentiald.store import record_queries, record_retention, usual_facts
from credentiald.store.record_scan import Filter
from tests.support.records import (
    SECOND,
    START,
    a_prompt,
    a_report,
    a_usage,
    an_end,
    an_id,
    an_opening,
    empty_records,
    fact_id,
    put,
    rows_of,
    sessions_of,
    some_facts,
)

PRICES = {("provider-1", "claude-sonnet-4-5"): ModelPrices(3_000_000, 15_000_000, 300_000, 3_750_000)}


@pytest.fixture
def conn(tmp_path):
    with empty_records(tmp_path / "records.db") as one:
        yield one


def a_usual(number, **changes):
    values = {
        "facts": some_facts(),
        "token_usages": (a_usage(id=fact_id(number, 0), create_micros=START + 7, metadata='{"audio":1}'),),
        "prompts": (a_prompt(f"prompt {number}", id=fact_id(number, 1), text_bytes=99),),
        "end": an_end(number),
    }
    return a_report(number, **values | changes)


def in_tables(conn):
    """How many usages and prompts have numbers, as many of each, and how many rows are in the tables of the kinds."""
    tables = (*usual_facts.TABLES, "token_usages", "prompts")
    usages, prompts, *others = [conn.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables]
    assert usages == prompts
    return [usages, *others]


def facts_of(conn, number):
    _, thread = record_queries.get_interception(conn, an_id(number), user_id="")
    return [fact for one in thread for fact in one.facts]


@pytest.mark.parametrize("is_opened_before", [True, False])
def test_a_usual_interception_is_told_of_as_it_was_stored(conn, is_opened_before):
    reports = [a_usual(number) for number in (1, 2, 3)]
    openings = [an_opening(number) for number in (3, 1, 2)]
    if is_opened_before:
        put(conn, *openings)
        put(conn, *reports)
    else:
        put(conn, *openings, *reports)
    assert in_tables(conn) == [3, 0, 0]
    for number, report in enumerate(reports, 1):
        assert facts_of(conn, number) == [*report.token_usages, *report.prompts]


@pytest.mark.parametrize(
    ("odd", "tables"),
    [
        ({"prompts": ()}, [1, 1, 0]),
        ({"token_usages": ()}, [1, 0, 1]),
        ({"token_usages": (), "prompts": ()}, [1, 0, 0]),
        ({"prompts": (a_prompt(id=fact_id(2, 2)),)}, [1, 1, 1]),
        ({"token_usages": (a_usage(id=an_id(7)),)}, [1, 1, 1]),
        ({"prompts": (a_prompt(id=fact_id(2, 1), response_id="msg_2"),)}, [1, 1, 1]),
    ],
)
def test_what_fits_in_no_such_row_has_rows_of_its_own(conn, odd, tables):
    report = a_usual(2, **odd)
    put(conn, an_opening(1), an_opening(2), a_usual(1), report)
    assert in_tables(conn) == tables
    assert facts_of(conn, 2) == [*report.token_usages, *report.prompts]


def test_facts_are_those_of_their_interception_where_others_of_the_batch_were_there(conn):
    put(conn, an_opening(2), a_report(2, facts=some_facts()))
    put(conn, *(an_opening(number) for number in (1, 2, 3)), *(a_usual(number) for number in (1, 2, 3)))
    assert in_tables(conn) == [2, 1, 1]
    assert {one["interception_id"]: one["text"] for one in rows_of(conn, "prompts")} == {
        an_id(number): f"prompt {number}" for number in (1, 2, 3)
    }


def test_what_is_told_again_is_stored_once_and_what_is_told_later_is_added(conn):
    put(conn, an_opening(1), a_usual(1), prices=PRICES)
    put(conn, a_usual(1), prices=PRICES)
    assert in_tables(conn) == [1, 0, 0]
    later = a_usage(id="00000000-0000-7000-8000-000000000000")
    put(conn, a_usual(1, token_usages=(*a_usual(1).token_usages, later)))
    assert in_tables(conn) == [1, 1, 0]
    [listed] = record_queries.list_interceptions(conn, Filter(), after=None, limit=5).items
    [session] = sessions_of(conn)
    for one in (listed.tokens, session["tokens"]):
        assert one == (20, 40, 60, 80)
    for one in (listed.cost, session["cost"]):
        # A price that was known when the first of the two was stored.
        assert one == (30 + 300 + 9 + 150, 1)
    assert [fact.id for fact in facts_of(conn, 1)] == [later.id, fact_id(1, 0), fact_id(1, 1)]


@pytest.mark.parametrize(("text_bytes", "shown"), [(9, ""), (0, "prompt 1")])
def test_no_session_shows_an_older_prompt_than_one_whose_text_is_left_out(conn, text_bytes, shown):
    put(conn, an_opening(2), a_usual(2, prompts=(a_prompt("", id=fact_id(2, 1), text_bytes=text_bytes),)))
    assert [one["last_prompt"] for one in sessions_of(conn)] == [""]
    put(conn, an_opening(1), a_usual(1, facts=some_facts(client_session_id=an_id(2))))
    assert [one["last_prompt"] for one in sessions_of(conn)] == [shown]


def test_retention_removes_them_with_their_interceptions(conn):
    put(conn, *(an_opening(number) for number in range(1, 6)), *(a_usual(number) for number in range(1, 6)))
    assert record_retention.purge(conn, before_micros=START + 4 * SECOND, limit=10) == 3
    assert in_tables(conn) == [2, 0, 0]
    assert {row["interception_id"] for row in rows_of(conn, "prompts")} == {an_id(4), an_id(5)}


def test_what_began_on_different_days_is_counted_on_each(conn):
    starts = {1: START, 2: START + DAY_MICROS, 3: START}
    openings = [an_opening(number, start_micros=start) for number, start in starts.items()]
    put(conn, *openings, *(a_usual(number, start_micros=start) for number, start in starts.items()))
    days = [row for row in rows_of(conn, "usage_days") if row["user_id"]]
    assert sorted((row["start_day"], row["interceptions"]) for row in days) == [
        (START // DAY_MICROS, 2), (START // DAY_MICROS + 1, 1),
    ]  # fmt: skip
