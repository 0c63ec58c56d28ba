"""What is stored before the request whose tool call it answers is in that one's thread once both are there."""

import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credentiald.store import late_parents, record_retention
from tests.store.test_records_moved import a_whole, assert_sums_are_those_of_the_rows, put_batch, usage_of
from tests.support.records import (
    BOB,
    SECOND,
    START,
    a_report,
    a_tool_call,
    an_end,
    an_id,
    an_opening,
    an_origin,
    empty_records,
    fact_id,
    put,
    rows_of,
    sessions_of,
    some_facts,
)

MOST = late_parents.MOST_MOVED


@pytest.fixture
def conn(tmp_path):
    with empty_records(tmp_path / "records.db") as one:
        yield one


def told(number: int, *, answers: str = "", calls: Sequence[str] = (), session: str = "", **changes: Any):
    """A request that answers a call and makes some."""
    made = tuple(a_tool_call(one, id=fact_id(number, 2 + place)) for place, one in enumerate(calls))
    facts = some_facts(correlating_tool_call_id=answers, client_session_id=session)
    return a_whole(number, facts=facts, tool_calls=made, **changes)


def a_turn(number: int, of: int = 0, **changes: Any):
    """One that answers the call of another, and makes a call of its own."""
    return told(number, answers=f"call_{of}" if of else "", calls=[f"call_{number}"], **changes)


def places(conn: sqlite3.Connection):
    """Parent, root and session of each, by numbers where they are ids."""
    numbers = {an_id(number): number for number in range(2000)}
    return {
        numbers[row["id"]]: tuple(
            numbers.get(row[one], row[one]) for one in ("thread_parent_id", "thread_root_id", "session_id")
        )
        for row in rows_of(conn, "interceptions")
    }


@pytest.mark.parametrize("is_usual", [True, False])
def test_what_came_first_joins_the_thread_and_the_session_of_what_it_answers(conn, is_usual):
    put(conn, a_turn(2, 1))
    assert places(conn) == {2: ("", 2, 2)}
    # With its opening it is stored by the short way.
    put(conn, *([an_opening(1)] if is_usual else []), a_turn(1))
    assert places(conn) == {1: ("", 1, 1), 2: (1, 1, 1)}
    assert_sums_are_those_of_the_rows(conn)
    [session] = sessions_of(conn)
    assert (session["interceptions"], session["threads"], session["last_prompt"]) == (2, 1, "do it")


def test_what_hangs_on_it_moves_along_and_its_session_with_it(conn):
    for number in (4, 3, 2, 5):
        put(conn, a_turn(number, number - 1))
    assert places(conn) == {2: ("", 2, 2), 3: (2, 2, 2), 4: (3, 2, 2), 5: (4, 2, 2)}
    put(conn, told(1, calls=["call_1"], session="s-1"))
    assert places(conn) == {1: ("", 1, "s-1"), **{number: (number - 1, 1, "s-1") for number in (2, 3, 4, 5)}}
    assert_sums_are_those_of_the_rows(conn)


def test_a_session_that_the_client_names_is_kept_and_only_the_thread_is_joined(conn):
    put(conn, a_turn(2, 1, session="s-2"), a_turn(3, 2), a_turn(4, 3, session="s-4"), a_turn(5, 4))
    put(conn, a_turn(1, session="s-1"))
    assert places(conn) == {
        1: ("", 1, "s-1"), 2: (1, 1, "s-2"), 3: (2, 1, "s-2"), 4: (3, 1, "s-4"), 5: (4, 1, "s-4"),
    }  # fmt: skip
    assert_sums_are_those_of_the_rows(conn)


def test_a_session_that_others_were_put_into_by_its_name_stays(conn):
    put(conn, a_turn(2, 1))
    put(conn, told(3, session=an_id(2)))
    put(conn, a_turn(1))
    assert places(conn) == {1: ("", 1, 1), 2: (1, 1, 2), 3: ("", 3, 2)}
    assert_sums_are_those_of_the_rows(conn)


def test_another_users_request_with_the_same_id_of_a_call_is_no_parent(conn):
    put(conn, a_turn(2, 1))
    put(conn, a_turn(1, origin=an_origin(BOB)))
    assert places(conn)[2] == ("", 2, 2)
    assert_sums_are_those_of_the_rows(conn)


def test_of_several_that_made_the_call_the_latest_before_it_is_the_parent(conn):
    put(conn, told(5, answers="call"))
    put(conn, told(2, calls=["call"]), told(3, calls=["call"]), told(6, calls=["call"]))
    assert places(conn)[5] == (3, 3, 3)
    # And that is for good.
    put(conn, told(4, calls=["call"]))
    assert places(conn)[5] == (3, 3, 3)
    assert_sums_are_those_of_the_rows(conn)


def test_what_was_told_of_twice_or_given_up_joins_once(conn):
    put(conn, an_opening(2))
    put(conn, vanished=((an_id(2), START + 90 * SECOND),))
    put(conn, a_turn(1))
    put(conn, a_turn(3, 2), a_report(4, facts=some_facts(correlating_tool_call_id="call_2")))
    put(conn, a_turn(2, 1))
    put(conn, a_turn(2, 1), a_turn(1), a_report(4, token_usages=(usage_of(4),), end=an_end(4)))
    assert places(conn) == {1: ("", 1, 1), 2: (1, 1, 1), 3: (2, 1, 1), 4: (2, 1, 1)}
    assert_sums_are_those_of_the_rows(conn)


def test_after_a_purge_of_what_has_moved_nothing_is_left(conn):
    put(conn, a_turn(2, 1), a_turn(3, 2))
    put(conn, a_turn(1))
    assert record_retention.purge(conn, before_micros=START + 9 * SECOND, limit=10) == 3
    put(conn, a_turn(1))
    assert places(conn) == {1: ("", 1, 1)}


@pytest.mark.parametrize("more", [0, 1])
def test_no_more_rows_move_at_once_than_others_can_wait_for(conn, more):
    # For the child there is room beside the others, and so there is for one more.
    count = MOST + 1 + more
    put(conn, a_turn(2, 1), *(told(3 + number, answers="call_2") for number in range(count)))
    put(conn, told(1, calls=["call_1"]))
    assert places(conn)[2] == (("", 2, 2) if more else (1, 1, 1))
    assert_sums_are_those_of_the_rows(conn)


def test_all_turns_of_one_bridge_that_was_first_are_joined_by_those_of_the_other(conn):
    turns = [a_turn(number, number - 1) for number in range(1, 1200)]
    put(conn, *turns[::2])
    put(conn, *turns[1::2])
    assert {place[1:] for place in places(conn).values()} == {(1, 1)}
    assert_sums_are_those_of_the_rows(conn)


def statements_for(conn: sqlite3.Connection, *things: Any) -> list[str]:
    found: list[str] = []
    conn.set_trace_callback(found.append)
    put(conn, *things)
    conn.set_trace_callback(None)
    return [one for one in found if "interceptions_without_parent" in one]


def test_it_is_looked_for_once_in_a_batch_with_calls_and_never_in_another(conn):
    assert len(statements_for(conn, *(a_turn(number) for number in range(1, 200, 2)), an_opening(1))) <= 3
    assert statements_for(conn, an_opening(500), told(500), told(501), told(502, answers="call_1")) == []


def test_an_upstream_that_calls_every_call_the_same_makes_nothing_wait(conn):
    put(conn, *(told(number, answers="call_0") for number in range(10, 300)))
    put(conn, told(1, calls=["call_0"]))
    moved = [number for number, (parent, *_) in places(conn).items() if parent == 1]
    assert moved == list(range(10, 10 + len(moved)))
    assert 0 < len(moved) < 100
    assert_sums_are_those_of_the_rows(conn)


def forest(data: st.DataObject) -> list[Any]:
    """Turns of several threads: each answers an earlier one or none, some in sessions of their own."""
    count = data.draw(st.integers(2, 9))
    found = []
    for number in range(1, count + 1):
        of = data.draw(st.integers(0, number - 1))
        named = {"session": f"s-{number}"} if data.draw(st.integers(0, 4)) == 0 else {}
        turn = a_turn(number, of, **named)
        found.append([an_opening(number), turn] if data.draw(st.booleans()) else [turn])
    return found


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_in_whatever_order_and_depth_they_come_they_are_what_they_would_have_been_in_theirs(data):
    things = forest(data)
    with TemporaryDirectory() as folder:
        with empty_records(Path(folder) / "in_order.db") as conn:
            for thing in things:
                put(conn, *thing)
            expected = places(conn)
        order = data.draw(st.permutations(things))
        with empty_records(Path(folder) / "records.db") as conn:
            while order:
                size = data.draw(st.integers(1, len(order)))
                put_batch(conn, [one for thing in order[:size] for one in thing])
                assert_sums_are_those_of_the_rows(conn)
                order = order[size:]
            assert places(conn) == expected


def test_a_long_thread_in_any_order_is_one_thread(conn):
    turns = [a_turn(number, number - 1) for number in range(1, 300)]
    random.Random(7).shuffle(turns)
    for start in range(0, len(turns), 7):
        put(conn, *turns[start : start + 7])
    assert {place[1:] for place in places(conn).values()} == {(1, 1)}
    assert_sums_are_those_of_the_rows(conn)
