"""Questions about records: pages of whatever is asked for, and that nothing looks through a whole table for them."""

import re
from collections import defaultdict
from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from credentiald.record_model import DAY_MICROS
from credentiald.store import record_facts, record_queries, record_retention, usage_queries
from credentiald.store.record_scan import Filter, Place
from credentiald.store.usage_queries import DIMENSIONS
from tests.support.records import (
    ALICE,
    BOB,
    START,
    a_prompt,
    a_report,
    a_thought,
    a_tool_call,
    a_usage,
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

# Of interceptions whose client names no session.
LONE = 20
CAROL = "00000000-0000-7000-8000-00000000000c"
USERS, PROVIDERS, MODELS, CLIENTS = (ALICE, BOB, CAROL), ("corp", "lab"), ("m-1", "m-2", "m-3"), ("Zed", "Codex")
COUNT = 60
TYPES = {"corp": "anthropic", "lab": "openai"}


def a_mixed(number):
    """Some interception; several begin at the same time."""
    provider = PROVIDERS[number % 7 == 0]
    return a_report(
        number,
        origin=an_origin(
            USERS[number % 3 % 2 + number % 11 // 10], provider_name=provider, provider_type=TYPES[provider]
        ),
        start_micros=START + number // 4 * DAY_MICROS // 3,
        facts=some_facts(
            model=MODELS[number % 5 % 3], client=CLIENTS[number % 13 == 0], client_session_id=f"s-{number % 6}"
        ),
        token_usages=(a_usage(input_tokens=number),),
        end=an_end(number),
    )


def a_lone(number):
    """One whose session is of no other, opened and reported at once; some begin when others do."""
    origin = an_origin(USERS[number % 2], provider_name="lab", provider_type="openai")
    start = START + (number - COUNT) // 3 * DAY_MICROS // 3
    report = a_report(
        number,
        origin=origin,
        start_micros=start,
        facts=some_facts(model=MODELS[number % 3], client="Zed"),
        token_usages=(a_usage(id=fact_id(number, 0), input_tokens=number),),
        prompts=(a_prompt(f"prompt {number}", id=fact_id(number, 1)),),
        end=an_end(number),
    )
    opening = an_opening(number, origin=origin, start_micros=start, model=MODELS[number % 3], client="Zed")
    return opening, report


def a_moment(number):
    """One of many, each a microsecond after the other."""
    origin, start = an_origin(ALICE), START + number
    report = a_report(number, origin=origin, start_micros=start, facts=some_facts(client="Zed"), end=an_end(number))
    return an_opening(number, origin=origin, start_micros=start, client="Zed"), report


@pytest.fixture(scope="module")
def conn(tmp_path_factory):
    with empty_records(tmp_path_factory.mktemp("records") / "records.db") as one:
        for start in range(0, COUNT, 9):
            put(one, *(a_mixed(number) for number in range(start, min(COUNT, start + 9))))
        for number in range(COUNT, COUNT + LONE):
            put(one, *a_lone(number))
        yield one


@pytest.fixture(autouse=True)
def _little_is_looked_through_at_once(monkeypatch):
    for name, value in {"SCANNED_ENTRIES": 5, "SCANNED_ROWS": 4}.items():
        monkeypatch.setattr(record_queries, name, value)
    monkeypatch.setattr(usage_queries, "SCANNED_DAYS", 6)


def some(*values):
    return st.sampled_from(["", *values, "none"])


some_time = st.none() | st.integers(-1, COUNT).map(lambda number: START + number * DAY_MICROS // 12)
filters = st.builds(
    Filter,
    user_id=some(*USERS),
    provider=some(*PROVIDERS),
    provider_type=some(*TYPES.values()),
    model=some(*MODELS),
    client=some(*CLIENTS),
    session_id=some("s-1", "s-5", an_id(COUNT), an_id(COUNT + 7)),
    after_micros=some_time,
    before_micros=some_time,
)
same_database = settings(max_examples=150, deadline=None)


def every_page(ask):
    items, after = [], None
    for _ in range(COUNT * 4):
        found, after = ask(after)
        items += found
        if after is None:
            return items
    raise AssertionError("the pages have no end")


@given(wanted=filters, limit=st.integers(1, 12))
@same_database
def test_pages_of_interceptions_have_each_that_is_asked_for_once_from_the_newest_on(conn, wanted, limit):
    listed = every_page(lambda after: record_queries.list_interceptions(conn, wanted, after=after, limit=limit))
    rows = conn.execute("SELECT * FROM interceptions ORDER BY start_time DESC, number DESC").fetchall()
    assert [one.row.id for one in listed] == [
        row["id"]
        for row in rows
        if wanted.user_id in ("", row["user_id"])
        and wanted.provider in ("", row["provider_name"])
        and wanted.provider_type in ("", row["provider_type"])
        and wanted.model in ("", row["model"])
        and wanted.client in ("", row["client"])
        and wanted.session_id in ("", row["session_id"])
        and (wanted.after_micros is None or row["start_time"] >= wanted.after_micros)
        and (wanted.before_micros is None or row["start_time"] < wanted.before_micros)
    ]
    assert all(one.tokens.input_tokens == int(one.row.id[-12:], 16) for one in listed)


@pytest.mark.parametrize("ask", [record_queries.list_interceptions, record_queries.list_sessions])
@pytest.mark.parametrize("user_id", ["", ALICE])
def test_a_page_looks_through_no_more_where_more_is_between_the_times_that_are_asked_for(tmp_path, ask, user_id):
    def steps(count):
        """Of SQLite, for the first page and one from the middle on, of all that has no such client."""
        ends = {"after_micros": START, "before_micros": START + count + 1}
        taken = []
        with empty_records(tmp_path / f"{count}.db") as one:
            put(one, *(each for number in range(1, count + 1) for each in a_moment(number)))
            for after in (None, Place(START + count // 2, count)):
                taken.append(0)

                def count_one():
                    taken[-1] += 1

                one.set_progress_handler(count_one, 1)
                page = ask(one, Filter(user_id=user_id, client="none", **ends), after=after, limit=10)
                one.set_progress_handler(None, 1)
                assert (page.items, page.next_place is None) == ([], False)
        return taken

    few, many = steps(100), steps(400)
    assert max(many) < min(few) * 1.5


@given(wanted=filters, limit=st.integers(1, 12))
@same_database
def test_pages_of_sessions_have_each_that_is_asked_for_once_the_latest_first(conn, wanted, limit):
    listed = every_page(lambda after: record_queries.list_sessions(conn, wanted, after=after, limit=limit))
    rows = [dict(row) | {"has_row": True} for row in conn.execute("SELECT * FROM sessions").fetchall()] + [
        dict(row)
        | {"has_row": False, "last_active_time": row["start_time"], "models": f'"{row["model"]}"'}
        | {"providers": f'"{row["provider_name"]}"', "provider_types": f'"{row["provider_type"]}"'}
        for row in conn.execute("SELECT * FROM interceptions WHERE is_session").fetchall()
    ]
    rows.sort(key=lambda row: (row["last_active_time"], row["has_row"], row["number"]), reverse=True)
    assert [(one.session_id, one.user_id) for one in listed] == [
        (row["session_id"], row["user_id"])
        for row in rows
        if wanted.user_id in ("", row["user_id"])
        and (not wanted.provider or f'"{wanted.provider}"' in row["providers"])
        and (not wanted.provider_type or f'"{wanted.provider_type}"' in row["provider_types"])
        and (not wanted.model or f'"{wanted.model}"' in row["models"])
        and wanted.client in ("", row["client"])
        and wanted.session_id in ("", row["session_id"])
        and (wanted.after_micros is None or row["last_active_time"] >= wanted.after_micros)
        and (wanted.before_micros is None or row["last_active_time"] < wanted.before_micros)
    ]


@given(
    wanted=filters,
    group_by=st.sampled_from([by for size in range(6) for by in combinations(DIMENSIONS, size)]),
    limit=st.integers(1, 12),
)
@example(wanted=Filter(), group_by=tuple(DIMENSIONS), limit=1)
@same_database
def test_pages_of_usage_add_up_what_is_asked_for_and_nothing_twice(conn, wanted, group_by, limit):
    def ask(after):
        page = usage_queries.query_usage(conn, wanted, group_by=group_by, after=after, limit=limit)
        assert len(page.rows) <= limit
        return page

    told = [
        ((one.day, one.user_id, one.provider, one.model, one.client), one.interceptions, one.tokens.input_tokens)
        for one in every_page(ask)
    ]
    expected = defaultdict(lambda: [0, 0])
    for row in conn.execute("SELECT * FROM interceptions").fetchall():
        day = row["start_time"] // DAY_MICROS
        if (
            wanted.user_id in ("", row["user_id"])
            and wanted.provider in ("", row["provider_name"])
            and wanted.model in ("", row["model"])
            and wanted.client in ("", row["client"])
            and (wanted.after_micros is None or day >= wanted.after_micros // DAY_MICROS)
            and (wanted.before_micros is None or day < -(-wanted.before_micros // DAY_MICROS))
        ):
            values = {"DAY": day, "USER": row["user_id"], "PROVIDER": row["provider_name"]}
            values |= {"MODEL": row["model"], "CLIENT": row["client"]}
            key = tuple(values[one] if one in group_by else ("" if one != "DAY" else None) for one in DIMENSIONS)
            expected[key][0] += 1
            expected[key][1] += int(row["id"][-12:], 16)
    assert told == sorted(
        ((key, *counts) for key, counts in expected.items()),
        # Users first, then days.
        key=lambda one: (one[0][1], one[0][0] or 0, one[0][2:]),
    )


def test_a_page_of_usage_by_user_passes_no_days_of_users_before_it(conn):
    taken, after = [], None
    while not taken or after is not None:
        taken.append(0)

        def count_one():
            taken[-1] += 1

        conn.set_progress_handler(count_one, 1)
        after = usage_queries.query_usage(conn, Filter(), group_by=["USER", "DAY"], after=after, limit=100).next_place
        conn.set_progress_handler(None, 1)
    # The last of them has next to none of his own.
    assert len(taken) == len(USERS)
    assert taken[-1] < taken[0] / 2


def test_a_page_of_usage_by_user_adds_up_the_days_of_some_users_only(conn):
    first = usage_queries.query_usage(conn, Filter(), group_by=["USER"], after=None, limit=100)
    assert [one.user_id for one in first.rows] == [ALICE]
    assert first.next_place == (ALICE,)


@pytest.mark.parametrize("group_by", [by for size in range(1, 6) for by in combinations(DIMENSIONS, size)])
def test_a_later_page_of_usage_passes_nothing_that_was_told(conn, monkeypatch, group_by):
    monkeypatch.setattr(usage_queries, "SCANNED_DAYS", 10_000)
    taken, after = [], None
    while not taken or after is not None:
        taken.append(0)

        def count_one():
            taken[-1] += 1

        conn.set_progress_handler(count_one, 1)
        after = usage_queries.query_usage(conn, Filter(), group_by=group_by, after=after, limit=1).next_place
        conn.set_progress_handler(None, 1)
    # What is compared with the place costs a little more.
    assert max(taken) < taken[0] * 2


def a_day_of(client, day=0, user_id=BOB):
    """One interception, told of by its client, its user and the day."""
    number = 1_000 * day + 10 * ord(client) + USERS.index(user_id)
    start = START + day * DAY_MICROS
    end = an_end(number, end_micros=start + 1)
    return a_report(number, origin=an_origin(user_id), start_micros=start, facts=some_facts(client=client), end=end)


@pytest.mark.parametrize("group_by", [("CLIENT",), ("USER", "CLIENT"), ("CLIENT", "USER"), ("MODEL", "CLIENT")])
@pytest.mark.parametrize("limit", [1, 3])
def test_what_comes_before_a_page_of_usage_doubles_nothing_of_it(tmp_path, group_by, limit):
    with empty_records(tmp_path / "records.db") as one:
        put(one, *map(a_day_of, "BCDEF"))
        page = usage_queries.query_usage(one, Filter(), group_by=group_by, after=None, limit=limit)
        put(one, a_day_of("A"), a_day_of("A", user_id=ALICE))
        told = [row.client for row in page.rows]
        while page.next_place is not None:
            page = usage_queries.query_usage(one, Filter(), group_by=group_by, after=page.next_place, limit=limit)
            told += [row.client for row in page.rows]
        assert told == list("BCDEF")


@pytest.mark.parametrize("group_by", [("DAY",), ("USER", "DAY"), ("PROVIDER", "DAY")])
def test_what_retention_removes_before_a_page_of_usage_hides_nothing_of_it(tmp_path, group_by):
    with empty_records(tmp_path / "records.db") as one:
        put(one, *(a_day_of("A", day) for day in range(6)))
        page = usage_queries.query_usage(one, Filter(), group_by=group_by, after=None, limit=3)
        record_retention.purge_sums(one, before_micros=START + 3 * DAY_MICROS, limit=200)
        told = [row.day for row in page.rows]
        while page.next_place is not None:
            page = usage_queries.query_usage(one, Filter(), group_by=group_by, after=page.next_place, limit=3)
            told += [row.day for row in page.rows]
        assert told == [START // DAY_MICROS + day for day in range(6)]


def test_of_sessions_without_a_row_no_more_is_looked_through_than_a_page_needs(conn, monkeypatch):
    monkeypatch.setattr(record_queries, "SCANNED_ENTRIES", 1_000)
    told = statements_of(conn, lambda: record_queries.list_sessions(conn, Filter(), after=None, limit=2))
    [bounded] = [sql for sql in told if "is_session = 1" in sql and "OFFSET" not in sql]
    assert "start_time >= " in bounded


def statements_of(conn, work):
    told = []
    conn.set_trace_callback(told.append)
    try:
        work()
    finally:
        conn.set_trace_callback(None)
    return [sql for sql in told if re.match("SELECT|INSERT|UPDATE|DELETE|WITH", sql)]


def plan_of(conn, sql):
    return [row["detail"] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]


def every_filter():
    ones = [
        {"user_id": ALICE}, {"provider": "corp"}, {"provider_type": "openai"}, {"model": "m-1"}, {"client": "Zed"},
        {"session_id": "s-1"}, {"after_micros": START}, {"before_micros": START + DAY_MICROS},
        {"after_micros": START, "before_micros": START + DAY_MICROS},
    ]  # fmt: skip
    yield Filter()
    for one, other in combinations([{}, *ones], 2):
        yield Filter(**{**one, **other})


def questions(conn):
    place = Place(START + 5 * DAY_MICROS, 30)
    for wanted in every_filter():
        for after in (None, place):
            record_queries.list_interceptions(conn, wanted, after=after, limit=5)
            record_queries.list_sessions(conn, wanted, after=after, limit=5)
        for size in range(len(DIMENSIONS) + 1):
            for group_by in combinations(DIMENSIONS, size):
                after = None
                for _ in range(3):
                    after = usage_queries.query_usage(conn, wanted, group_by=group_by, after=after, limit=5).next_place
                    if after is None:
                        break
    record_queries.list_sessions(conn, Filter(session_id=an_id(COUNT)), after=None, limit=5)
    record_queries.list_interceptions(conn, Filter(session_id=an_id(COUNT)), after=None, limit=5)
    for number in (1, 2, 59):
        record_queries.get_interception(conn, an_id(number), user_id="")
        record_facts.first_of(conn, an_id(number), most_bytes=10_000)


def changes(conn):
    answering = some_facts(correlating_tool_call_id="toolu_1", client_session_id="s-1")
    facts = {"prompts": (a_prompt(),), "model_thoughts": (a_thought(),), "token_usages": (a_usage(),)}
    put(conn, an_opening(101), a_report(102, tool_calls=(a_tool_call(),), facts=some_facts(), **facts))
    put(conn, a_report(101, facts=answering, **facts), a_report(102, end=an_end(102)))
    put(conn, vanished=tuple(record_retention.left_open(conn, before_micros=START + DAY_MICROS, limit=5)))
    put(conn, *(a_report(number, facts=answering, **facts) for number in range(110, 120)))
    put(conn, a_report(120, facts=some_facts(client_session_id=an_id(COUNT)), end=an_end(120)))
    # One that is answered already.
    made = {"tool_calls": (a_tool_call("toolu_0"), a_tool_call("toolu_9"))}
    put(conn, a_report(131, facts=some_facts(correlating_tool_call_id="toolu_9"), tool_calls=(a_tool_call("toolu_8"),)))
    put(conn, a_report(132, facts=some_facts(correlating_tool_call_id="toolu_8")))
    put(conn, a_report(130, facts=some_facts(), **made, end=an_end(130)))
    assert record_retention.purgeable(conn, before_micros=START + DAY_MICROS)
    record_retention.note_purged(conn, before_micros=START)
    record_retention.purge(conn, before_micros=START + DAY_MICROS, limit=5)
    record_retention.purge_sums(conn, before_micros=START + DAY_MICROS, limit=5)
    record_retention.forget_instances(conn, before_micros=START)


@pytest.mark.parametrize("work", [questions, changes])
def test_no_statement_looks_through_a_whole_table(tmp_path, work):
    with empty_records(tmp_path / "records.db") as one:
        put(one, *(a_mixed(number) for number in range(COUNT)))
        put(one, *(thing for number in range(COUNT, COUNT + LONE) for thing in a_lone(number)))
        told = statements_of(one, lambda: work(one))
        assert len(told) > 30
        # `SCAN` is allowed where an order is walked along that a LIMIT ends, and of an index of few rows.
        walked = re.compile(
            "interceptions USING (COVERING )?INDEX interceptions_(by_time|by_user)|i USING INDEX interceptions_open"
            "|sessions USING (COVERING )?INDEX sessions_by_(time|user)"
            "|(bridge_instances|keys|asked|call|own|many|told)$"
            "|[0-9]+ CONSTANT ROWS?|CONSTANT ROW"
        )
        for sql in dict.fromkeys(told):
            plan = plan_of(one, sql)
            for step in plan:
                assert not step.startswith("SCAN ") or walked.match(step[5:]), f"{step}: {sql}"
            # Nor are rows sorted that may be many: a name of a session is that of few, and so are the callers of a
            # call, or requests of a user, that are left when the latest have been taken.
            few = "GROUP BY" in sql or "IN (" in sql or "FROM sessions WHERE session_id = " in sql
            sorts = [step for step in plan if "TEMP B-TREE" in step]
            assert few or len(sorts) <= ("AS caller" in sql or "AS own" in sql), f"{sorts}: {sql}"


@pytest.mark.parametrize(
    ("wanted", "index"), [(Filter(model="m-1"), "by_time"), (Filter(model="m-1", user_id=ALICE), "by_user")]
)
def test_what_a_page_looks_through_is_in_an_index(conn, wanted, index):
    told = statements_of(conn, lambda: record_queries.list_interceptions(conn, wanted, after=None, limit=5))
    plans = [step for sql in told for step in plan_of(conn, sql)]
    # Their facts are found by their ids.
    looked = [step for step in plans if "(id=?)" not in step]
    assert any(f"COVERING INDEX interceptions_{index}" in step for step in plans), plans
    assert all("interceptions " not in step or f"interceptions_{index}" in step for step in looked), plans
    columns = {row["name"] for row in conn.execute(f"PRAGMA index_info(interceptions_{index})").fetchall()}
    assert columns >= {"start_time", "number", "provider_name", "provider_type", "model", "client"}


def test_nothing_here_is_empty(conn):
    assert len(rows_of(conn, "interceptions")) == COUNT + LONE
    assert len(sessions_of(conn)) == len(rows_of(conn, "sessions")) + LONE


def test_a_session_without_a_row_says_what_its_interception_does(conn):
    wanted = Filter(session_id=an_id(COUNT + 7))
    [session] = every_page(lambda after: record_queries.list_sessions(conn, wanted, after=after, limit=5))
    start = START + 2 * DAY_MICROS // 3
    assert session == (
        an_id(COUNT + 7), BOB, ["lab"], ["openai"], ["m-2"], "Zed", start, start, 1, 1, (67, 20, 30, 40), (0, 1),
        "prompt 67",
    )  # fmt: skip
