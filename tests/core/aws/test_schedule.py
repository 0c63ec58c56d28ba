"""When a credential is served, fetched anew, or refused: tables and properties."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.aws.schedule import Failures, Span, Verdict, decide, look_again_time

T0 = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SERVE, SERVE_AND_FETCH, FETCH, WAIT, REFUSE = (
    Verdict.SERVE,
    Verdict.SERVE_AND_FETCH,
    Verdict.FETCH,
    Verdict.WAIT,
    Verdict.REFUSE,
)


def at(seconds):
    return T0 + timedelta(seconds=seconds)


def span(lifetime):
    return Span(fetch_time=T0, expire_time=None if lifetime is None else at(lifetime))


def failed(count, last):
    return Failures(count=count, first_time=T0, last_time=at(last))


@pytest.mark.parametrize(
    ("lifetime", "refresh", "serve_until"),
    [
        (3600, 2700, 3540),
        (6 * 3600, 5 * 3600 + 45 * 60, 6 * 3600 - 60),
        (900, 675, 840),
        (20, 15, 18),
        (1, 0.75, 0.9),
        (0, 0, 0),
        (-100, -100, -100),
        (None, 300, 3600),
    ],
)
def test_when_credentials_are_renewed_and_until_when_they_are_served(lifetime, refresh, serve_until):
    one = span(lifetime)
    assert (one.refresh_time, one.serve_until) == (at(refresh), at(serve_until))


@pytest.mark.parametrize(
    ("now", "held", "failures", "fetching", "stuck", "verdict"),
    [
        (0, None, Failures(), False, False, FETCH),
        (0, None, Failures(), True, False, WAIT),
        (0, None, Failures(), True, True, REFUSE),
        (0.5, None, failed(1, 0), False, False, REFUSE),
        (1, None, failed(1, 0), False, False, FETCH),
        (14.9, None, failed(9, 0), False, False, REFUSE),
        (15, None, failed(9, 0), False, False, FETCH),
        (10, span(3600), Failures(), False, False, SERVE),
        (2700, span(3600), Failures(), False, False, SERVE_AND_FETCH),
        (2700, span(3600), Failures(), True, False, SERVE),
        (2700, span(3600), Failures(), True, True, SERVE),
        (2700.5, span(3600), failed(1, 2700), False, False, SERVE),
        (2701, span(3600), failed(1, 2700), False, False, SERVE_AND_FETCH),
        (3540, span(3600), Failures(), False, False, FETCH),
        (3540, span(3600), Failures(), True, False, WAIT),
        (3540, span(3600), failed(5, 3539), False, False, REFUSE),
        # The clock was set back: neither an old failure nor a new credential may count for ever.
        (-60, span(3600), Failures(), False, False, SERVE_AND_FETCH),
        (-60, None, failed(3, 0), False, False, FETCH),
    ],
)
def test_what_becomes_of_a_request(now, held, failures, fetching, stuck, verdict):
    assert decide(at(now), held, failures, fetching=fetching, stuck=stuck) is verdict


def test_the_pauses_after_failures_grow_to_a_limit():
    failures, pauses = Failures(), []
    for _ in range(7):
        failures = failures.after_another(T0)
        pauses.append((failures.retry_time - T0).total_seconds())
    assert pauses == [1, 2, 4, 8, 15, 15, 15]
    assert failures.first_time == T0


seconds = st.floats(min_value=-10_000, max_value=100_000, allow_nan=False)
spans = st.none() | st.builds(span, st.none() | st.floats(min_value=-10, max_value=90_000, allow_nan=False))
failures_of_any_kind = st.just(Failures()) | st.builds(failed, st.integers(1, 20), seconds)


@given(seconds, spans, failures_of_any_kind, st.booleans(), st.booleans())
def test_nothing_that_has_ended_is_served_and_never_two_attempts(now, held, failures, fetching, stuck):
    moment = at(now)
    verdict = decide(moment, held, failures, fetching=fetching, stuck=fetching and stuck)
    served = verdict in (SERVE, SERVE_AND_FETCH)
    assert served == (held is not None and held.is_served(moment))
    if served and held.expire_time is not None:
        assert moment < held.expire_time
    if verdict in (FETCH, SERVE_AND_FETCH):
        assert not fetching
        assert failures.allow(moment)


@given(seconds, st.builds(span, st.none() | st.floats(min_value=1, max_value=90_000, allow_nan=False)))
def test_an_answer_counts_no_longer_than_its_credential(now, held):
    moment = at(now)
    if held.is_served(moment):
        assert moment < look_again_time(moment, held) <= held.serve_until


@given(st.floats(min_value=5, max_value=7200), st.integers(1, 5), st.integers(50, 150))
def test_a_working_source_is_asked_about_once_a_period_and_no_request_waits_after_the_first(lifetime, periods, parts):
    """Continuous load over some lifetimes, with a fetch that takes one step."""
    step = lifetime / parts
    held, fetch_ends, fetches, waited, now = None, None, 0, 0, 0.0
    while now < lifetime * periods:
        moment = at(now)
        if fetch_ends is not None and now >= fetch_ends:
            held, fetch_ends = Span(fetch_time=moment, expire_time=at(now + lifetime)), None
        verdict = decide(moment, held, Failures(), fetching=fetch_ends is not None, stuck=False)
        waited += verdict in (FETCH, WAIT)
        if verdict in (FETCH, SERVE_AND_FETCH):
            fetches, fetch_ends = fetches + 1, now + step
        now += step
    assert waited <= 2
    assert fetches <= periods / 0.75 + 2


@given(st.integers(1, 12).map(lambda tens: 10 * tens), st.sampled_from([0.5, 1]))
def test_a_dead_source_is_asked_at_most_once_a_pause_and_the_credential_is_used_until_its_end(lifetime, step):
    held, failures, attempts, last_served, now = span(lifetime), Failures(), [], 0, 0
    while now < lifetime * 2:
        moment = at(now)
        verdict = decide(moment, held, failures, fetching=False, stuck=False)
        if verdict in (SERVE, SERVE_AND_FETCH):
            last_served = now
        if verdict in (FETCH, SERVE_AND_FETCH):
            attempts.append(now)
            failures = failures.after_another(moment)
        now += step
    margin = min(60, lifetime / 10)
    assert last_served == lifetime - margin - step
    gaps = [after - before for before, after in itertools.pairwise(attempts)]
    assert all(gap >= pause for gap, pause in zip(gaps, [1, 2, 4, 8, *[15] * len(gaps)], strict=False))
