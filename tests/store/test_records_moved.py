"""Sums are those of the rows also where an interception that is counted gets another provider, model, client or day."""

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credentiald.model import ModelPrices
from credentiald.record_model import DAY_MICROS
from credentiald.store import record_retention
from tests.support.records import (
    ALICE,
    SECOND,
    START,
    a_prompt,
    a_report,
    a_tool_call,
    a_usage,
    an_attempt,
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

MIDNIGHT = (START // DAY_MICROS + 1) * DAY_MICROS
FALLBACK = an_origin(provider_id="provider-2", provider_name="aws", provider_type="bedrock")
# The first provider has a price, and the fallback has none.
PRICES = {("provider-1", "claude-sonnet-4-5"): ModelPrices(3_000_000, 15_000_000, 300_000, 3_750_000)}
DAY = ("interceptions", "token_usages", "unpriced_token_usages")
TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")


@pytest.fixture
def conn(tmp_path):
    with empty_records(tmp_path / "records.db") as one:
        yield one


def again(number: int = 1) -> dict:
    """Of the second resolution, after midnight."""
    return {"resolution_id": an_id(3_000_000 + number), "origin": FALLBACK, "start_micros": MIDNIGHT + number}


def usage_of(number: int, place: int = 0):
    return a_usage(id=fact_id(number, place), input_tokens=10 + place)


def a_whole(number: int, **changes):
    """As nearly all are told of."""
    values = {
        "facts": some_facts(),
        "token_usages": (usage_of(number),),
        "prompts": (a_prompt(id=fact_id(number, 1)),),
        "end": an_end(number),
    }
    return a_report(number, **values | changes)


def days_of(conn):
    """What is kept of each day: provider, model, client and counts, by day and user."""
    return {
        (row["start_day"], row["user_id"], row["provider_name"], row["model"], row["client"]): tuple(
            row[one] for one in (*DAY, *TOKENS, "cost_micros")
        )
        for row in rows_of(conn, "usage_days")
    }


def days_by_rows(conn):
    """The same, counted anew: an interception counts when it has reported anything or ended."""
    usages, days = usages_by_interception(conn), defaultdict(lambda: (0,) * 8)
    for row in rows_of(conn, "interceptions"):
        for user_id in (row["user_id"], "") if row["session_id"] else ():
            key = (row["start_time"] // DAY_MICROS, user_id, row["provider_name"], row["model"], row["client"])
            days[key] = plus(days[key], (1, 0, 0, 0, 0, 0, 0, 0), *usages[row["id"]])
    return dict(days)


def usages_by_interception(conn):
    usages = defaultdict(list)
    for row in rows_of(conn, "token_usages"):
        cost = row["cost_micros"]
        usages[row["interception_id"]].append((0, 1, int(cost is None), *(row[one] for one in TOKENS), cost or 0))
    return usages


def plus(*counts):
    return tuple(map(sum, zip(*counts, strict=True)))


def sessions_listed(conn):
    """Of each session counts and beginning."""
    return {
        (one["user_id"], one["session_id"]): (one["interceptions"], one["threads"], one["tokens"], one["start_micros"])
        for one in sessions_of(conn)
    }


def sessions_by_rows(conn):
    usages, sessions = usages_by_interception(conn), defaultdict(list)
    for row in rows_of(conn, "interceptions"):
        if row["session_id"]:
            sessions[row["user_id"], row["session_id"]].append(row)
    return {
        key: (
            len(rows),
            sum(row["id"] == row["thread_root_id"] for row in rows),
            plus((0,) * 8, *(one for row in rows for one in usages[row["id"]]))[3:7],
            min(row["start_time"] for row in rows),
        )
        for key, rows in sessions.items()
    }


def assert_sums_are_those_of_the_rows(conn):
    assert days_of(conn) == days_by_rows(conn)
    assert sessions_listed(conn) == sessions_by_rows(conn)
    named = {(one["user_id"], one["session_id"]): one for one in sessions_of(conn)}
    for row in rows_of(conn, "interceptions"):
        if row["session_id"]:
            session = named[row["user_id"], row["session_id"]]
            for name in ("provider_name", "provider_type", "model"):
                assert not row[name] or row[name] in session[f"{name.removesuffix('_name')}s"]


EARLY, LATE = {"start_micros": MIDNIGHT - SECOND}, again()
FACTS = some_facts()
MOVES = {
    # A bridge says what is under way to a credentiald that was started again; then its first upstream fails.
    "told of before the fallback": [
        [an_opening(1, **EARLY)],
        [a_report(1, facts=FACTS, **EARLY)],
        [an_opening(1, **LATE)],
        [a_whole(1, attempts=(an_attempt(1),), **LATE)],
    ],
    "a usage before the fallback": [
        [a_report(1, facts=FACTS, token_usages=(usage_of(1),), **EARLY)],
        [an_opening(1, **LATE)],
        [a_report(1, token_usages=(usage_of(1, 2),), end=an_end(1), **LATE)],
    ],
    "presumed ended, then opened again": [
        [an_opening(1, **EARLY)],
        [(an_id(1), MIDNIGHT)],
        [an_opening(1, **LATE)],
        [a_whole(1, **LATE)],
    ],
    "presumed ended, and opened and told of at once": [
        [an_opening(1, **EARLY)],
        [(an_id(1), MIDNIGHT)],
        [an_opening(1, **LATE), a_whole(1, **LATE)],
    ],
    # Two workers of credentiald store what they have heard in either order.
    "its whole, then the earlier opening": [[an_opening(1, **LATE), a_whole(1, **LATE)], [an_opening(1, **EARLY)]],
    "its end, then its names": [
        [a_report(1, token_usages=(usage_of(1),), end=an_end(1))],
        [an_opening(1, client="Codex")],
        [a_report(1, facts=FACTS)],
    ],
}


def put_batch(conn, batch, prices=PRICES):
    """Store what is told of, and presumed ends, of which there are id and time."""
    ended = tuple(one for one in batch if type(one) is tuple)
    put(conn, *(one for one in batch if type(one) is not tuple), vanished=ended, prices=prices)


@pytest.mark.parametrize("batches", MOVES.values(), ids=list(MOVES))
def test_what_is_counted_and_moves_is_counted_where_it_is(conn, batches):
    for batch in batches:
        put_batch(conn, batch)
        assert_sums_are_those_of_the_rows(conn)
    assert sum(row["interceptions"] for row in rows_of(conn, "usage_days") if row["user_id"]) == 1


def test_what_moves_takes_the_costs_of_its_usages_along_and_nothing_of_others(conn):
    put_batch(conn, [a_whole(2, facts=FACTS, **EARLY), a_whole(1, end=None, **EARLY)])
    before = days_of(conn)
    put_batch(conn, [an_opening(1, **LATE)])
    put_batch(conn, [a_report(1, token_usages=(usage_of(1, 2),), end=an_end(1), **LATE)])
    day, names = EARLY["start_micros"] // DAY_MICROS, ("claude-sonnet-4-5", "Claude Code")
    (one,) = {counts[-1] for counts in before.values()}
    assert {key[1:3]: (*counts[:3], counts[-1]) for key, counts in days_of(conn).items()} == {
        (ALICE, "anthropic-corp"): (1, 1, 0, one // 2),
        ("", "anthropic-corp"): (1, 1, 0, one // 2),
        (ALICE, "aws"): (1, 2, 1, one // 2),
        ("", "aws"): (1, 2, 1, one // 2),
    }
    assert {(key[0], key[3:]) for key in days_of(conn)} == {(day, names)}


def test_where_retention_has_removed_the_day_that_something_leaves_nothing_is_below_zero(conn):
    put_batch(conn, [a_report(1, facts=FACTS, **EARLY)])
    assert record_retention.purge_sums(conn, before_micros=MIDNIGHT, limit=10)
    put_batch(conn, [an_opening(1, **LATE)])
    assert days_of(conn) == days_by_rows(conn)


def told_of(number: int, session_id: str, client: str):
    """What may be told of one interception: resolved for two providers, on either side of midnight, with the call that
    the one after it answers, which may come before."""
    found = [(an_id(number), MIDNIGHT + SECOND)]
    answering = some_facts(client_session_id=session_id, correlating_tool_call_id=f"call_{number - 1}")
    calls = (a_tool_call(f"call_{number}", id=fact_id(number, 3)),)
    for resolved in ({"start_micros": MIDNIGHT - number}, again(number)):
        facts = some_facts(client_session_id=session_id)
        found += [
            an_opening(number, client=client, **resolved),
            a_report(number, facts=facts, **resolved),
            a_report(number, token_usages=(usage_of(number, 2),), **resolved),
            a_report(number, facts=facts, token_usages=(usage_of(number),), **resolved),
            a_whole(number, facts=facts, **resolved),
            a_whole(number, facts=facts, tool_calls=calls, **resolved),
            a_whole(number, facts=answering, tool_calls=calls, **resolved),
            a_whole(number, facts=facts, attempts=(an_attempt(1),), **resolved),
        ]
    return found


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_in_whatever_order_it_comes_sums_are_those_of_the_rows(data):
    names = st.tuples(st.sampled_from(["", "s-1"]), st.sampled_from(["", "Codex"]))
    things = [one for number in (1, 2, 3) for one in told_of(number, *data.draw(names))]
    batches = st.lists(st.lists(st.sampled_from(things), min_size=1, max_size=4), min_size=2, max_size=6)
    prices = data.draw(st.sampled_from([{}, PRICES]))
    with TemporaryDirectory() as folder, empty_records(Path(folder) / "records.db") as conn:
        for batch in data.draw(batches):
            put_batch(conn, batch, prices)
            assert_sums_are_those_of_the_rows(conn)
