"""Requests a second of a token: how many are admitted, how long the others wait, and what made-up tokens cost."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.limits.rates import Rates
from bridged.limits.recent import Recent

# A machine that has been up for a month: sums of fractions would show.
START = 2_592_000.123
RATES = st.integers(1, 1000)
PAUSES = st.lists(st.floats(0, 2), min_size=1, max_size=200)


@pytest.mark.parametrize("per_second", [1, 2, 3, 7, 10, 1000])
def test_a_burst_is_one_seconds_worth_and_the_next_waits_its_turn(per_second: int) -> None:
    rates = Rates(per_second)

    assert [rates.wait_seconds(1, START) for _ in range(per_second)] == [0.0] * per_second
    wait_seconds = rates.wait_seconds(1, START)
    assert wait_seconds == pytest.approx(1 / per_second, abs=1e-6)
    assert rates.wait_seconds(1, START + wait_seconds - 0.0001) > 0
    assert rates.wait_seconds(1, START + wait_seconds + 0.000001) == 0


def test_a_token_is_not_held_to_what_others_do() -> None:
    rates = Rates(1)

    assert [rates.wait_seconds(token, START) for token in range(100)] == [0.0] * 100
    assert rates.wait_seconds(50, START) > 0


@given(per_second=RATES, pauses=PAUSES)
def test_no_second_has_more_than_twice_the_rate_and_no_run_more_than_rate_and_burst(
    per_second: int, pauses: list[float]
) -> None:
    rates, now, admitted = Rates(per_second), START, list[float]()
    for pause in pauses:
        now += pause / per_second
        if rates.wait_seconds(1, now) == 0:
            admitted.append(now)

    for place, first in enumerate(admitted):
        run = [time for time in admitted[place:] if time < first + 1]
        assert len(run) <= 2 * per_second
    assert len(admitted) <= per_second + ceil((now - START) * per_second) + 1


@given(per_second=RATES, pauses=PAUSES)
def test_who_waits_as_long_as_it_was_told_is_admitted(per_second: int, pauses: list[float]) -> None:
    rates, now = Rates(per_second), START
    for pause in pauses:
        now += pause / per_second
        wait_seconds = rates.wait_seconds(1, now)
        if wait_seconds:
            assert wait_seconds <= 1
            # What is told to a client is in milliseconds, rounded up.
            now += ceil(wait_seconds * 1000) / 1000
            assert rates.wait_seconds(1, now) == 0


def test_who_comes_evenly_at_the_rate_never_waits() -> None:
    rates = Rates(7)

    assert {rates.wait_seconds(1, START + place / 7) for place in range(1000)} == {0.0}


def test_made_up_tokens_are_forgotten_within_seconds_and_free_nobody() -> None:
    rates = Rates(2)
    assert [rates.wait_seconds(-1, START) for _ in range(2)] == [0.0] * 2
    for number in range(50_000):
        rates.wait_seconds(number, START + number / 100_000)
    assert rates.wait_seconds(-1, START + 0.4) > 0

    rates.wait_seconds(-2, START + 2.5)
    rates.wait_seconds(-2, START + 5)
    assert len(rates) <= 2


@given(puts=st.lists(st.tuples(st.integers(0, 50), st.floats(0, 3)), max_size=300))
def test_an_entry_lasts_its_time_or_the_bounds_worth_of_others(puts: list[tuple[int, float]]) -> None:
    recent: Recent[int] = Recent(lasts_seconds=5.0, most=10)
    now, told = START, list[tuple[int, int, float]]()
    for value, (key, pause) in enumerate(puts):
        now += pause
        recent.put(key, value, now)
        told.append((key, value, now))
        assert len(recent) <= 20
        last = {each: (place, kept, then) for place, (each, kept, then) in enumerate(told)}
        for each, (place, kept, then) in last.items():
            if len(told) - place <= 10 and now - then < 5.0:
                assert recent.get(each) == kept
