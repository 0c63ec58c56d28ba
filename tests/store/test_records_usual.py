"""The short way into the file leaves there what the long one does, for whatever comes together."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credentiald.model import ModelPrices
from credentiald.record_model import Opening, Report
from credentiald.store import lone_sessions, record_queries, record_writing, sqlite
from credentiald.store.record_scan import Filter
from credentiald.store.record_writing import Batch, Stored
from credentiald.usual_report import usual_of
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
from tests.support.usual import matched_batch

PRICES = {
    ("provider-1", "claude-sonnet-4-5"): ModelPrices(3_000_000, 15_000_000, 300_000, 3_750_000),
    ("provider-1", "mapped"): ModelPrices(1_000_000, 1_000_000, 1_000_000, 1_000_000),
}
ENDS = (
    {},
    {},
    {"outcome": "CLIENT_GONE", "http_status": 0, "first_byte_micros": None},
    {"outcome": "UPSTREAM_ERROR", "error_category": "OVERLOADED", "error_reason": "overloaded_error"},
)
FACTS = (
    {},
    {},
    {"client_session_id": "s-1"},
    {"client_session_id": "s-1", "client": "Codex", "model": "gpt-5", "streaming": True},
    # A session that has the name of an interception.
    {"client_session_id": an_id(1)},
    {"correlating_tool_call_id": "toolu_1"},
)


@st.composite
def interceptions(draw, number: int) -> list[Opening | Report]:
    """What is told of one: mostly an opening and a report, else a part of it, more of it, or another's."""
    origin = draw(st.sampled_from([an_origin(), an_origin(), an_origin(BOB)]))
    opening = an_opening(number, origin=origin, upstream_model=draw(st.sampled_from(["", "mapped"])))
    # Ids as bridges make them, and others.
    id_of = draw(st.sampled_from([lambda place: fact_id(number, place), lambda place: an_id(100 * number + place)]))
    usages = [
        a_usage(id=id_of(10 * place), input_tokens=place, partial=bool(place), metadata='{"audio": 1}')
        for place in draw(st.lists(st.integers(0, 2), max_size=3))
    ]
    report = a_report(
        number,
        origin=origin,
        facts=some_facts(**draw(st.sampled_from(FACTS))),
        token_usages=tuple(usages),
        prompts=tuple(a_prompt(text, id=id_of(1)) for text in draw(st.sampled_from([[f"prompt {number}"], [""], []]))),
        tool_calls=tuple(
            a_tool_call(f"toolu_{call}", id=an_id(100 * number + 20 + call), partial=call == 2)
            for call in draw(st.lists(st.integers(1, 3), max_size=2))
        ),
        model_thoughts=tuple(
            a_thought(id=an_id(100 * number + 30), partial=partial)
            for partial in draw(st.sampled_from([(), (False,), (True,)]))
        ),
        end=an_end(number, **draw(st.sampled_from(ENDS))),
    )
    tried = (an_attempt(1),)
    again = report._replace(prompts=(), end=an_end(number, outcome="COMPLETED", http_status=201))
    return draw(
        st.sampled_from(
            [
                [opening, report],
                [opening, report],
                [opening, report],
                [report],
                [opening],
                [opening, report, again],
                [opening, again, report],
                [opening, report._replace(end=None), again],
                [opening, report._replace(facts=None)],
                [opening._replace(resolution_id=an_id(3_000_000 + number)), report],
                # Resolved again, with attempts in between; also where the earlier opening comes late.
                [opening._replace(start_micros=START + number), report],
                [opening._replace(start_micros=START + number), opening, report],
                [opening, report._replace(attempts=tried)],
                [opening, report._replace(attempts=tried), again._replace(attempts=(*tried, an_attempt(2)))],
                [opening, report._replace(origin=an_origin("somebody"))],
            ]
        )
    )


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_told_at_once_is_stored_as_if_openings_had_come_long_before(data):
    told = [one for number in range(1, 7) for one in data.draw(interceptions(number))]
    told = data.draw(st.permutations(told))
    openings = [one for one in told if isinstance(one, Opening)]
    reports = [one for one in told if isinstance(one, Report)]
    earlier = data.draw(st.lists(st.sampled_from(openings), unique=True, max_size=2)) if openings else []
    # Something was told before, and may be told again.
    begun = data.draw(st.lists(st.sampled_from(reports), unique=True, max_size=2)) if reports else []
    before = Batch(openings=earlier, reports=[one._replace(end=None) for one in begun])
    prices = data.draw(st.sampled_from([{}, PRICES]))
    # As columns bring them.
    in_rows = [data.draw(st.sampled_from([one, usual_of(one) or one])) for one in reports]
    # In two pieces of which neither is usual, so by the long way.
    pieces = [piece for one in reports for piece in (one._replace(end=None), one)]
    batches = {
        "together": [Batch(openings=openings, reports=reports)],
        "in rows": [Batch(openings=openings, reports=in_rows)],
        "openings before": [Batch(openings=openings), Batch(reports=in_rows)],
        "long": [Batch(openings=openings), Batch(reports=pieces)],
    }
    found = {
        name: contents_after([before, *batches], prices, pieces_each=2 if name == "long" else 1)
        for name, batches in batches.items()
    }
    assert found["together"] == found["long"]
    batch, places = matched_batch(openings, in_rows)
    assert contents_after([before, batch], prices, places=places) == found["long"]
    assert found["in rows"] == found["long"]
    assert found["openings before"] == found["long"]


def test_what_was_opened_before_is_completed_once(tmp_path):
    report = a_report(1, facts=some_facts(), prompts=(a_prompt(),), end=an_end(1))
    with empty_records(tmp_path / "records.db") as conn:
        stored(conn, Batch(openings=[an_opening(1), an_opening(2)]), {})
        done = stored(conn, Batch(reports=[report, a_report(3, facts=some_facts(), end=an_end(3))]), {})
        again = stored(conn, Batch(reports=[report]), {})
        [session, _] = contents(conn)["sessions"]
    assert [(group.reports(), group.is_new) for group in done.usual.groups] == [([report], False)]
    assert not again.usual.groups
    assert session["interceptions"] == 1


def test_most_take_the_short_way_and_what_is_odd_the_long_one(tmp_path):
    numbers = range(1, 10)
    openings = [an_opening(number) for number in numbers]
    reports = [
        a_report(number, facts=some_facts(), token_usages=(a_usage(),), end=an_end(number)) for number in numbers
    ]
    reports[3] = reports[3]._replace(facts=some_facts(correlating_tool_call_id="toolu_1"))
    reports[4] = reports[4]._replace(end=an_end(5, error_reason="overloaded_error"))
    reports[5] = reports[5]._replace(token_usages=(a_usage(id=an_id(70)), a_usage(id=an_id(70))))
    with empty_records(tmp_path / "records.db") as conn:
        stored(conn, Batch(openings=openings[:1]), {})
        done = stored(conn, Batch(openings=openings, reports=[*reports, reports[8]._replace(facts=None)]), {})
        again = stored(conn, Batch(openings=openings, reports=reports), {})
        assert len(contents(conn)["token_usages"]) == 9
    usual = {one: group.is_new for group in done.usual.groups for one in group.told.interception_id}
    assert usual == {an_id(number): True for number in (2, 3, 7, 8, 9)}
    assert [(tally.new, *tally.sums, kind.outcome) for kind, tally in done.usual.tallies.items()] == [
        (5, 5, 5, 50, 100, 150, 200, 0, 5, "COMPLETED")
    ]
    assert not again.usual.groups


def test_what_is_told_twice_at_once_counts_as_told_once(tmp_path):
    openings = [an_opening(1), an_opening(2)]
    first, second = (
        a_report(one, facts=some_facts(), token_usages=(a_usage(id=an_id(one)),), end=an_end(one)) for one in (1, 2)
    )
    for name, reports in (("once", [first, second]), ("twice", [first, first, second])):
        with empty_records(tmp_path / f"{name}.db") as conn:
            done = stored(conn, Batch(openings=openings, reports=reports), {})
            assert [list(group.places) for group in done.usual.groups] == [[0, len(reports) - 1]]
            (tally,) = done.usual.tallies.values()
            assert (tally.new, tally.sums[1]) == (2, 2)
            found = contents(conn)
        if name == "once":
            expected = found
    assert found == expected


@pytest.mark.parametrize("usage", [{}, {"partial": True}, {"cache_read_input_tokens": 7}])
def test_many_at_once_are_stored_as_each_by_itself(tmp_path, usage):
    """Where many in a row have the same, it is handed over once; one of these has another usage than all others."""
    numbers = range(1, 130)
    openings = [an_opening(number) for number in numbers]
    reports = [
        a_report(
            number,
            facts=some_facts(),
            token_usages=(a_usage(id=an_id(number), **(usage if number == 20 else {})),),
            prompts=(a_prompt(f"prompt {number % 2}", id=an_id(number)),),
            end=an_end(number, upstream_request_id="" if number % 40 else "request"),
        )
        for number in numbers
    ]
    batches = {
        "apart": [Batch(openings=[one], reports=[report]) for one, report in zip(openings, reports, strict=True)],
        "together": [Batch(openings=openings, reports=reports)],
        "openings before": [Batch(openings=openings), Batch(reports=reports)],
    }
    found = {}
    for name, some in batches.items():
        with empty_records(tmp_path / f"{name}.db") as conn:
            done = [stored(conn, batch, PRICES) for batch in some]
            assert sum(len(group.places) for one in done for group in one.usual.groups) == len(reports)
            found[name] = contents(conn)
    assert found["together"] == found["apart"]
    assert found["openings before"] == found["apart"]


def test_of_what_a_session_says_the_latest_word_counts_whatever_the_order(tmp_path):
    # Number: client, prompt.
    told = {1: ("Codex", "one"), 2: ("Claude Code", "two"), 3: ("Codex", "three"), 4: ("Zed", ""), 5: ("", "")}
    reports = [
        a_report(
            number,
            facts=some_facts(client_session_id="s-1", client=client),
            prompts=(a_prompt(prompt, id=an_id(number)),),
            token_usages=(a_usage(id=an_id(number), input_tokens=number),),
            end=an_end(number),
        )
        for number, (client, prompt) in told.items()
    ]
    openings = [an_opening(number, client=client) for number, (client, _) in told.items()]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 2, 4, 0, 1]):
        with empty_records(tmp_path / f"{order}.db") as conn:
            done = stored(conn, Batch(openings=openings, reports=[reports[place] for place in order]), {})
            assert sum(len(group.places) for group in done.usual.groups) == 5
            (session,) = rows_of(conn, "sessions")
        found = session["client"], session["last_prompt"], session["last_prompt_time"], session["last_active_time"]
        assert found == ("Zed", "three", START + 3 * SECOND, START + 5 * SECOND)
        assert (session["start_time"], session["interceptions"], session["threads"]) == (START + SECOND, 5, 5)
        assert (session["input_tokens"], session["unpriced_token_usages"]) == (15, 5)


def test_interceptions_after_which_sessions_are_named_are_counted_in_these(tmp_path):
    reports = [a_report(number, facts=some_facts(), end=an_end(number)) for number in (1, 2, 3)]
    named = [
        a_report(10 + number, facts=some_facts(client_session_id=an_id(number)), end=an_end(10 + number))
        for number in (1, 2)
    ]
    with empty_records(tmp_path / "records.db") as conn:
        stored(conn, Batch(openings=[an_opening(11), an_opening(12)], reports=named), {})
        done = stored(conn, Batch(openings=[an_opening(number) for number in (1, 2, 3)], reports=reports), {})
        sessions = {one["session_id"]: one["interceptions"] for one in sessions_of(conn)}
    # The long way looks at what is there.
    assert [group.told.interception_id for group in done.usual.groups] == [(an_id(3),)]
    assert sessions == {an_id(1): 2, an_id(2): 2, an_id(3): 1}


@pytest.mark.parametrize("opened", ["at once", "before"])
@pytest.mark.parametrize(
    "more",
    [
        [
            a_report(
                2, facts=some_facts(correlating_tool_call_id="toolu_1"), prompts=(a_prompt("and then?", id=an_id(71)),)
            )
        ],
        [a_report(2, facts=some_facts(client_session_id=an_id(1), model="gpt-5"), end=an_end(2))],
        [an_opening(2), a_report(2, facts=some_facts(client_session_id=an_id(1), model="gpt-5"), end=an_end(2))],
        [a_report(1, token_usages=(a_usage(id=an_id(72), input_tokens=5),))],
        [a_report(1, prompts=(a_prompt("else", id=an_id(73)),)), a_report(1, attempts=(an_attempt(1),))],
        [a_report(1, facts=some_facts(), tool_calls=(a_tool_call("toolu_2", id=an_id(74)),))],
        # Of another user, who may call a session by any name.
        [a_report(2, origin=an_origin(BOB), facts=some_facts(client_session_id=an_id(1)), end=an_end(2))],
        [a_report(1, prompts=(a_prompt("", id=an_id(75)),))],
        # What is left out has a length.
        [a_report(1, prompts=(a_prompt("", text_bytes=9, id=an_id(75)),))],
        [a_report(2, facts=some_facts(client_session_id=an_id(1)), prompts=(a_prompt("", text_bytes=9),))],
    ],
)
def test_a_session_of_one_interception_gets_its_row_when_more_is_told_of_it(tmp_path, opened, more):
    """And is then what it would have been with a row from its beginning, which the long way writes."""
    one = a_report(
        1,
        facts=some_facts(),
        token_usages=(a_usage(id=an_id(61), input_tokens=3),),
        prompts=(a_prompt("x" * 700, id=an_id(62)),),
        tool_calls=(a_tool_call("toolu_1", id=an_id(63)),),
        end=an_end(1),
    )
    short = [[an_opening(1)], [one]] if opened == "before" else [[an_opening(1), one]]
    found = {}
    for name, first in {"short": short, "long": [[one._replace(end=None)], [one]]}.items():
        with empty_records(tmp_path / f"{name}.db") as conn:
            for things in first:
                put(conn, *things, prices=PRICES)
            assert len(rows_of(conn, "sessions")) == (name == "long")
            assert [session["last_prompt"] for session in sessions_of(conn)] == ["x" * 500]
            put(conn, *more, prices=PRICES)
            found[name] = contents(conn), of_session(conn, an_id(1))
    assert found["short"] == found["long"]


@pytest.mark.parametrize("prompt", ["a\0b", "\0", "é" * 700, "a" + "😀" * 700, "x" * 499 + "é\0"])
def test_the_last_prompt_of_a_session_is_the_same_with_a_row_and_without(tmp_path, prompt):
    one = a_report(1, facts=some_facts(), prompts=(a_prompt(prompt, id=fact_id(1, 1)),), end=an_end(1))
    with empty_records(tmp_path / "records.db") as conn:
        put(conn, an_opening(1), one)
        assert not rows_of(conn, "sessions")
        assert [session["last_prompt"] for session in sessions_of(conn)] == [prompt[:500]]
        # Something joins it.
        put(conn, a_report(2, facts=some_facts(client_session_id=an_id(1)), end=an_end(2)))
        assert [row["last_prompt"] for row in rows_of(conn, "sessions")] == [prompt[:500]]


@pytest.mark.parametrize("place", [1, 7])
def test_a_session_without_a_row_whose_prompt_is_left_out_gets_no_older_one(tmp_path, place):
    left_out = a_prompt("", text_bytes=9, id=fact_id(2, place))
    first = a_report(2, facts=some_facts(), token_usages=(a_usage(id=fact_id(2, 0)),), prompts=(left_out,))
    with empty_records(tmp_path / "records.db") as conn:
        put(conn, an_opening(2), first._replace(end=an_end(2)))
        assert not rows_of(conn, "sessions")
        put(conn, a_report(1, facts=some_facts(client_session_id=an_id(2)), prompts=(a_prompt("older"),)))
        assert [session["last_prompt"] for session in sessions_of(conn)] == [""]


def test_a_session_without_a_row_is_counted_once_however_many_prompts_without_a_text_there_are(tmp_path):
    first = a_report(1, facts=some_facts(), token_usages=(a_usage(),), prompts=(a_prompt(""),), end=an_end(1))
    with empty_records(tmp_path / "records.db") as conn:
        put(conn, an_opening(1), first)
        put(conn, a_report(1, prompts=(a_prompt(""), a_prompt(""))))
        [session] = sessions_of(conn)
        assert (session["interceptions"], session["tokens"]) == (1, (10, 20, 30, 40))
        put(conn, a_report(2, facts=some_facts(client_session_id=an_id(1)), end=an_end(2)))
        [session] = sessions_of(conn)
        assert (session["interceptions"], session["tokens"]) == (2, (10, 20, 30, 40))


def test_sessions_between_the_ids_of_a_batch_are_not_all_looked_at(tmp_path):
    named = [a_report(9_000 + one, facts=some_facts(client_session_id=an_id(2 * one))) for one in range(1, 2_000)]
    with empty_records(tmp_path / "records.db") as conn:
        put(conn, *named)
        steps = []
        conn.set_progress_handler(lambda: steps.append(1), 1)
        for ids in (an_id(1), an_id(1_000), an_id(3_999)), (an_id(3), an_id(1_001)), (an_id(1), an_id(3)), ():
            assert lone_sessions.with_rows(conn, ids) == set(ids) & {an_id(1_000)}
        assert len(steps) < 500


@given(st.data())
def test_a_row_says_what_its_report_does(data):
    (report,) = [one for one in data.draw(interceptions(1)) if isinstance(one, Report)][:1] or [a_report(1)]
    row = usual_of(report)
    assert row is None or row.report() == report
    assert row is None or row.without_usage().without_prompt().report() == report._replace(token_usages=(), prompts=())


def contents_after(batches: list[Batch], prices, *, pieces_each: int = 1, places: list[int] | None = None):
    """What is in a new file after these, and what of them goes to log and metrics. `places` are those of the reports
    where these come in another order."""
    with TemporaryDirectory() as folder, empty_records(Path(folder) / "records.db") as conn:
        told = [stored(conn, batch, prices) for batch in batches]
        if pieces_each > 1:
            assert not any(one.usual.groups for one in told)
        taken = {(places[place] if places else place) // pieces_each for place in told[-1].taken}
        return contents(conn), news(told), taken


def stored(conn, batch: Batch, prices) -> Stored:
    with sqlite.transaction(conn, write=True):
        return record_writing.store(conn, batch, prices)


def of_session(conn, session_id):
    """The ids of its interceptions, of all users and of each, page by page."""
    found = {}
    for user_id in ("", ALICE, BOB):
        wanted, after, is_end = Filter(session_id=session_id, user_id=user_id), None, False
        found[user_id] = []
        while not is_end:
            items, after = record_queries.list_interceptions(conn, wanted, after=after, limit=1)
            found[user_id] += [one.row.id for one in items]
            is_end = after is None
    return found


def contents(conn):
    """What is in the file. Names in a session stand in the order in which they were stored, which may be another, and
    whether one has a row is no matter."""
    found = everything(conn)
    found["sessions"] = sessions_of(conn)
    for session in found["sessions"]:
        for names in ("providers", "provider_types", "models"):
            session[names].sort()
    for row in found["interceptions"]:
        del row["is_session"]
    return found


def news(told: list[Stored]):
    """What goes to log and metrics, in one order; rows are compared in the file."""
    unfolded = [one.unfolded() for one in told]
    started = sorted(draft.id for one in unfolded for draft in one.started)
    ended = sorted((draft.id, draft.outcome, draft.session_id, draft.client) for one in unfolded for draft in one.ended)
    return started, ended, sorted((draft.id, repr(fact)) for one in unfolded for draft, fact in one.facts)
