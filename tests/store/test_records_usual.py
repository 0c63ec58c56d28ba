"""The short way into the file leaves there what the long one does, for whatever comes together."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from credentiald.model import ModelPrices
from credentiald.record_model import Opening, Report
from credentiald.store import record_writing, sqlite
from credentiald.store.record_writing import Batch, Stored
from tests.support.records import (
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
    everything,
    some_facts,
)

PRICES = {("provider-1", "claude-sonnet-4-5"): ModelPrices(3_000_000, 15_000_000, 300_000, 3_750_000)}
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
    usages = [
        a_usage(id=an_id(100 * number + place), input_tokens=place, partial=bool(place), metadata='{"audio": 1}')
        for place in draw(st.lists(st.integers(0, 2), max_size=3))
    ]
    report = a_report(
        number,
        origin=origin,
        facts=some_facts(**draw(st.sampled_from(FACTS))),
        token_usages=tuple(usages),
        prompts=(a_prompt(f"prompt {number}", id=an_id(100 * number + 10)),),
        tool_calls=tuple(
            a_tool_call(f"toolu_{call}", id=an_id(100 * number + 20 + call))
            for call in draw(st.lists(st.integers(1, 3), max_size=2))
        ),
        model_thoughts=draw(st.sampled_from([(), (a_thought(id=an_id(100 * number + 30)),)])),
        end=an_end(number, **draw(st.sampled_from(ENDS))),
    )
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
                [opening._replace(start_micros=START + number), report],
                [opening._replace(resolution_id=an_id(3_000_000 + number)), report],
                [opening, report._replace(origin=an_origin("somebody"))],
            ]
        )
    )


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_told_at_once_is_stored_as_if_openings_had_come_long_before(data):
    told = [one for number in range(1, 7) for one in data.draw(interceptions(number))]
    told = data.draw(st.permutations(told))
    openings = [one for one in told if isinstance(one, Opening)]
    reports = [one for one in told if isinstance(one, Report)]
    earlier = data.draw(st.lists(st.sampled_from(openings), unique=True, max_size=2)) if openings else []
    prices = data.draw(st.sampled_from([{}, PRICES]))
    with TemporaryDirectory() as folder:
        with empty_records(Path(folder) / "short.db") as conn:
            stored(conn, Batch(openings=earlier), prices)
            short = stored(conn, Batch(openings=openings, reports=reports), prices)
            found = contents(conn)
        with empty_records(Path(folder) / "long.db") as conn:
            stored(conn, Batch(openings=earlier), prices)
            stored(conn, Batch(openings=openings), prices)
            long = stored(conn, Batch(reports=reports), prices)
            assert not long.usual.wholes
            assert found == contents(conn)
    assert short.taken == long.taken
    assert news(short) == news(long)


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
    assert set(done.usual.wholes) == {an_id(number) for number in (2, 3, 7, 8, 9)}
    assert [(*tally.sums, kind.outcome) for kind, tally in done.usual.tallies.items()] == [
        (5, 5, 50, 100, 150, 200, 0, 5, "COMPLETED")
    ]
    assert not again.usual.wholes


def stored(conn, batch: Batch, prices) -> Stored:
    with sqlite.transaction(conn, write=True):
        return record_writing.store(conn, batch, prices)


def contents(conn):
    """What is in the file. Names in a session stand in the order in which they were stored, which may be another."""
    found = everything(conn)
    for session in found["sessions"]:
        for names in ("providers", "provider_types", "models"):
            session[names] = sorted(json.loads(session[names]))
    return found


def news(told: Stored):
    """What of a batch goes to the log and to the metrics, in one order; rows are compared in the file."""
    told = told.unfolded()
    ended = sorted((draft.id, draft.outcome, draft.session_id, draft.client) for draft in told.ended)
    return ended, sorted((draft.id, repr(fact)) for draft, fact in told.facts)
