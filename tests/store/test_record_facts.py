"""How much of a thread is read: what was asked for, then the newest, and never more than an answer has room for."""

import tracemalloc

import pytest

from credentiald.record_model import ToolCall
from credentiald.rpc import usage_codec
from credentiald.store import record_facts, record_queries
from tests.support.records import (
    START,
    a_prompt,
    a_report,
    a_thought,
    a_tool_call,
    a_usage,
    an_attempt,
    an_end,
    an_id,
    empty_records,
    fact_id,
    put,
    some_facts,
)

ODD = '\U0010ffff模\x00\x1b"\\'


@pytest.fixture
def conn(tmp_path):
    with empty_records(tmp_path / "records.db") as one:
        yield one


def a_turn(number, characters, **changes):
    """One of a thread: it answers the call of the one before, and has an input so long."""
    facts = some_facts(correlating_tool_call_id=f"call_{number - 1}" if number > 1 else "")
    call = a_tool_call(f"call_{number}", create_micros=START + number, input="x" * characters)
    return a_report(number, **{"facts": facts, "tool_calls": (call,), "end": an_end(number)} | changes)


def asked(conn, number):
    """Of each turn of its thread: number, length of its inputs, whether all is there."""
    found, thread = record_queries.get_interception(conn, an_id(number), user_id="")
    assert found.row.id == an_id(number)
    return [
        (
            int(one.interception.row.id[-12:], 16),
            sum(len(fact.input) for fact in one.facts if isinstance(fact, ToolCall)),
            one.is_whole,
        )
        for one in thread
    ]


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_thread_has_the_records_of_what_was_asked_for_and_of_the_newest_that_fit(conn, monkeypatch, number):
    monkeypatch.setattr(record_queries, "THREAD_BYTES", 10_000)
    for each in range(1, 7):
        put(conn, a_turn(each, 3_000))
    whole = {number, *[one for one in (6, 5, 4) if one != number][:2]}
    assert asked(conn, number) == [(one, 3_000 if one in whole else 0, one in whole) for one in range(1, 7)]


def test_what_does_not_fit_hides_what_is_older_and_nothing_that_is_newer(conn, monkeypatch):
    monkeypatch.setattr(record_queries, "THREAD_BYTES", 10_000)
    for number, characters in enumerate((10, 9_000, 10, 10), 1):
        put(conn, a_turn(number, characters))
    assert asked(conn, 4) == [(1, 10, True), (2, 9_000, True), (3, 10, True), (4, 10, True)]
    put(conn, a_turn(5, 2_000))
    assert asked(conn, 5) == [(1, 0, False), (2, 0, False), (3, 10, True), (4, 10, True), (5, 2_000, True)]
    assert asked(conn, 2) == [(1, 0, False), (2, 9_000, True), (3, 0, False), (4, 0, False), (5, 0, False)]


def test_a_thread_of_any_length_takes_no_more_memory_than_an_answer(conn):
    for number in range(1, 61):
        put(conn, a_turn(number, 400_000))
    tracemalloc.start()
    try:
        told = asked(conn, 60)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [whole for _, _, whole in told] == [False] * 54 + [True] * 6
    assert peak_bytes < 2 * record_queries.THREAD_BYTES


@pytest.mark.parametrize("is_usual", [True, False])
def test_of_one_that_is_more_than_any_answer_the_first_records_of_each_kind_are_told(conn, monkeypatch, is_usual):
    monkeypatch.setattr(record_queries, "MOST_OF_ONE_BYTES", 10_000)
    usual = {
        "token_usages": (a_usage(id=fact_id(1, 0)),),
        "prompts": (a_prompt("p" * 2_000, id=fact_id(1, 1)),),
    }
    put(conn, a_turn(1, 0, **(usual if is_usual else {}), tool_calls=()))
    ids = [f"0190e2f4-0000-7000-8000-{number:012x}" for number in range(0xF000, 0xF00A)]
    for one in reversed(ids):
        put(conn, a_report(1, tool_calls=(a_tool_call(one, id=one, input="x" * 2_000),)))
    _, [detail] = record_queries.get_interception(conn, an_id(1), user_id="")
    assert not detail.is_whole
    told = [fact.id for fact in detail.facts]
    assert told == [fact_id(1, 0), fact_id(1, 1), *ids[:3]] if is_usual else ids[:4]


@pytest.mark.parametrize("is_usual", [True, False])
def test_records_are_never_more_in_a_message_than_they_were_taken_for(conn, is_usual):
    count = 1 if is_usual else 20
    usages = [
        a_usage(
            response_id=ODD * 50, metadata='{"' + "m" * 256 + '":1000000000000}', input_tokens=10**12, cost_micros=7
        )
        for _ in range(count)
    ]
    prompts = [a_prompt(ODD * 100, text_bytes=10**12, response_id=ODD * 50) for _ in range(count)]
    if is_usual:
        usages, prompts = [usages[0]._replace(id=fact_id(1, 0))], [prompts[0]._replace(id=fact_id(1, 1))]
    more = {
        "tool_calls": tuple(a_tool_call(ODD, input=ODD, invocation_error=ODD, server_url=ODD) for _ in range(20)),
        "model_thoughts": tuple(a_thought("") for _ in range(20)),
        "attempts": tuple(an_attempt(number) for number in range(20)),
    }
    end = an_end(1)
    put(conn, a_report(1, facts=some_facts(), token_usages=tuple(usages), prompts=tuple(prompts), end=end))
    if not is_usual:
        put(conn, a_report(1, **more))
    _, [detail] = record_queries.get_interception(conn, an_id(1), user_id="")
    message = usage_codec.detail(detail, {})
    message.ClearField("interception")
    row = conn.execute("SELECT number, id FROM interceptions").fetchone()
    [bound] = record_facts.sizes(conn, [row]).values()
    assert len(detail.facts) == (2 if is_usual else 100)
    assert message.ByteSize() <= bound <= 3 * message.ByteSize()
