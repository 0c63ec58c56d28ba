"""How slowly a body may come."""

from hypothesis import given
from hypothesis import strategies as st

from bridged.http1.body_pace import BodyPace
from bridged.http1.limits import Limits

LIMITS = Limits(body_seconds=600, body_bytes_per_second=500)


def test_the_first_judgement_is_after_the_time_between_two_reads() -> None:
    assert BodyPace(LIMITS).wait(100.0) == 700.0


def test_the_average_is_over_the_time_since_the_body_was_wanted() -> None:
    pace = BodyPace(LIMITS)
    pace.wait(100.0)
    assert pace.enough_until(700.0, 300_000) == 700.0
    assert pace.enough_until(700.0, 299_000) < 700.0
    assert pace.enough_until(700.0, 400_000) == 900.0


def test_time_in_which_we_did_not_read_does_not_count() -> None:
    pace = BodyPace(LIMITS)
    pace.wait(0.0)
    pace.rest(100.0)
    pace.rest(200.0)
    assert pace.wait(5000.0) == 5500.0
    assert pace.enough_until(5500.0, 300_000) == 5500.0


def test_each_body_has_its_own_time() -> None:
    pace = BodyPace(LIMITS)
    pace.wait(0.0)
    pace.end()
    assert pace.wait(1000.0) == 1600.0
    assert pace.enough_until(1000.0, 0) == 1000.0


@given(steps=st.lists(st.tuples(st.booleans(), st.floats(0, 1e4)), max_size=30), arrived=st.integers(0, 10**8))
def test_what_counts_is_the_sum_of_the_times_of_waiting(steps: list[tuple[bool, float]], arrived: int) -> None:
    pace, now, waited, waiting = BodyPace(LIMITS), 0.0, 0.0, False
    for wait, seconds in steps:
        if wait:
            pace.wait(now)
        else:
            pace.rest(now)
        waiting = wait
        now += seconds
        waited += seconds if waiting else 0.0
    assert abs(pace.enough_until(now, arrived) - (now + arrived / 500 - waited)) < 1e-3
