from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credentiald.key_health import (
    FORGOTTEN_AFTER,
    Cause,
    Choice,
    Complaints,
    Cooldown,
    Exhausted,
    KeyState,
    Outcome,
    OutcomeKind,
    choose,
    judge,
    rest_of,
    state_of,
)
from credentiald.probe_claims import CLAIM, ProbeClaims

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEYS = ("k1", "k2", "k3")
HERE, THERE, ELSEWHERE = ("s1", "here"), ("s1", "there"), ("s2", "elsewhere")
TELLERS = (HERE, THERE, ELSEWHERE)
COMPLAINTS = (OutcomeKind.UNAUTHORIZED, OutcomeKind.RATE_LIMITED, OutcomeKind.SPEND_LIMITED)


def seconds(count):
    return timedelta(seconds=count)


def a_cooldown(key="k1", teller=HERE, until=60, **changes):
    values = {
        "credential_id": key,
        "provider_id": "p1",
        "teller": teller,
        "kind": OutcomeKind.UNAUTHORIZED,
        "since_time": NOW,
        "until_time": NOW + seconds(until),
        "strikes": 1,
        "error": "",
        "http_status": 401,
    }
    return Cooldown(**values | changes)


def an_outcome(key="k1", teller=HERE, kind=OutcomeKind.UNAUTHORIZED, retry_after=None, resolved=0, **changes):
    values = {
        "credential_id": key,
        "provider_id": "p1",
        "teller": teller,
        "kind": kind,
        "retry_after": None if retry_after is None else seconds(retry_after),
        "error": "",
        "http_status": 401,
        "resolve_time": NOW + seconds(resolved),
    }
    return Outcome(**values | changes)


def chosen(cooldowns=(), claims=None, asker=HERE, failed=(), now=0, keys=KEYS):
    return choose(keys, Complaints(cooldowns), claims or {}, asker=asker, failed=failed, now=NOW + seconds(now))


def key_of(choice):
    return KEYS[choice.place] if isinstance(choice, Choice) else choice.cause.value


@pytest.mark.parametrize(
    ("kind", "strikes", "retry_after", "wanted"),
    [
        (OutcomeKind.UNAUTHORIZED, 1, None, 60),
        (OutcomeKind.UNAUTHORIZED, 2, None, 120),
        (OutcomeKind.UNAUTHORIZED, 4, None, 480),
        (OutcomeKind.UNAUTHORIZED, 5, None, 900),
        (OutcomeKind.UNAUTHORIZED, 1_000_000, None, 900),
        (OutcomeKind.UNAUTHORIZED, 1, 5, 60),
        (OutcomeKind.RATE_LIMITED, 1, None, 60),
        (OutcomeKind.RATE_LIMITED, 9, None, 60),
        (OutcomeKind.RATE_LIMITED, 1, 7, 7),
        (OutcomeKind.RATE_LIMITED, 1, 0, 1),
        (OutcomeKind.RATE_LIMITED, 1, -5, 1),
        (OutcomeKind.RATE_LIMITED, 1, 1_000_000, 3600),
        (OutcomeKind.SPEND_LIMITED, 1, None, 3600),
        (OutcomeKind.SPEND_LIMITED, 3, 5, 4 * 3600),
        (OutcomeKind.SPEND_LIMITED, 6, None, 24 * 3600),
    ],
)
def test_how_long_a_key_rests(kind, strikes, retry_after, wanted):
    wish = None if retry_after is None else seconds(retry_after)
    assert rest_of(kind, strikes, wish) == seconds(wanted)


@pytest.mark.parametrize(
    ("cooldowns", "asker", "failed", "wanted", "is_probe"),
    [
        ([], HERE, (), "k1", False),
        ([], HERE, ("k1",), "k2", False),
        # Who told is not given the key, others after all that nobody complains of.
        ([a_cooldown("k1")], HERE, (), "k2", False),
        ([a_cooldown("k1")], THERE, (), "k2", False),
        ([a_cooldown("k1")], THERE, ("k2", "k3"), "k1", False),
        ([a_cooldown(key) for key in KEYS], THERE, (), "k1", False),
        ([a_cooldown(key) for key in KEYS], THERE, ("k1",), "k2", False),
        # Its rest over, a key is tried in its place of the order.
        ([a_cooldown("k1", until=0)], HERE, (), "k1", True),
        ([a_cooldown("k1", until=0)], ELSEWHERE, (), "k1", True),
        ([a_cooldown("k2", until=0)], HERE, (), "k1", False),
        # Over for one who told, and not for the other.
        ([a_cooldown("k1", until=0), a_cooldown("k1", THERE)], HERE, (), "k2", False),
        ([a_cooldown("k1", until=0), a_cooldown("k1", THERE)], HERE, ("k2", "k3"), "k1", True),
        ([a_cooldown("k1", until=0), a_cooldown("k1", THERE)], ELSEWHERE, ("k2", "k3"), "k1", False),
        ([a_cooldown("k1", until=0), a_cooldown("k1", THERE)], THERE, ("k2", "k3"), "unauthorized", False),
    ],
)
def test_which_key_a_request_gets(cooldowns, asker, failed, wanted, is_probe):
    found = chosen(cooldowns, asker=asker, failed=failed)
    assert key_of(found) == wanted
    assert isinstance(found, Exhausted) or found.is_probe == is_probe


@pytest.mark.parametrize(
    ("asker", "by", "wanted", "is_probe"),
    [
        # One at a time: while one tries it, others go on to the next key.
        (HERE, HERE, "k2", False),
        (THERE, HERE, "k2", False),
        (HERE, THERE, "k2", False),
    ],
)
def test_a_key_is_tried_by_one_request_at_a_time(asker, by, wanted, is_probe):
    claims = ProbeClaims()
    claims.take("k1", by, NOW)
    found = chosen([a_cooldown("k1", until=0)], claims.ends, asker=asker)
    assert (key_of(found), found.is_probe) == (wanted, is_probe)
    # Who says nothing is not waited for.
    late = CLAIM.total_seconds()
    assert chosen([a_cooldown("k1", until=0)], claims.ends, asker=asker, now=late).is_probe


def test_who_keeps_trying_a_key_for_ever_takes_it_from_nobody_else():
    claims = ProbeClaims()
    for key in KEYS:
        claims.take(key, ELSEWHERE, NOW)
    cooldowns = [a_cooldown(key, teller, until=0) for key in KEYS for teller in (HERE, ELSEWHERE)]
    assert chosen(cooldowns, claims.ends, asker=HERE) == Choice(place=0, is_probe=True, until_time=NOW + CLAIM)
    assert chosen(cooldowns, claims.ends, asker=THERE) == Choice(place=0, until_time=NOW + CLAIM)
    assert chosen(cooldowns, claims.ends, asker=ELSEWHERE) == Exhausted(cause=Cause.UNAUTHORIZED, wait=CLAIM)


@pytest.mark.parametrize(
    ("cooldowns", "failed", "cause", "wait"),
    [
        ([], KEYS, Cause.FAILED, 60),
        ([a_cooldown("k2", until=7)], KEYS, Cause.FAILED, 7),
        ([a_cooldown(key, until=30 + 10 * place) for place, key in enumerate(KEYS)], (), Cause.UNAUTHORIZED, 30),
        (
            [
                a_cooldown("k1", until=5),
                *(a_cooldown(key, until=40, kind=OutcomeKind.RATE_LIMITED) for key in KEYS[1:]),
            ],
            (),
            Cause.RATE_LIMITED,
            40,
        ),
        # Of what was tried already, the caller knows; the rest is what is told of.
        (
            [a_cooldown("k1", until=5, kind=OutcomeKind.RATE_LIMITED), a_cooldown("k2", until=50), a_cooldown("k3")],
            ("k1",),
            Cause.UNAUTHORIZED,
            50,
        ),
    ],
)
def test_what_is_said_when_no_key_is_left(cooldowns, failed, cause, wait):
    assert chosen(cooldowns, failed=failed) == Exhausted(cause=cause, wait=seconds(wait))


def told(history):
    """The complaints of k1 after (second, outcome) in this order."""
    complaints = {}
    for second, outcome in history:
        now = NOW + seconds(second)
        change = judge(outcome, complaints.values(), now)
        if change is None:
            continue
        for one in change.over:
            del complaints[one.teller]
        if change.rests is not None:
            complaints[change.rests.teller] = change.rests
    return complaints


def test_a_rest_is_doubled_while_the_probe_fails_and_ends_when_it_succeeds():
    history = [(0, an_outcome())]
    for second, wanted in ((60, 120), (180, 240), (420, 480), (900, 900), (1800, 900)):
        history.append((second, an_outcome(resolved=second)))
        assert told(history)[HERE].until_time == NOW + seconds(second + wanted)
    assert told(history)[HERE].since_time == NOW
    done = [*history, (2700, an_outcome(kind=OutcomeKind.ACCEPTED, resolved=2700))]
    assert told(done) == {}
    assert told([*done, (2701, an_outcome(resolved=2701))])[HERE].until_time == NOW + seconds(2761)


def test_what_was_on_its_way_is_no_failed_probe():
    late = told([(0, an_outcome()), (10, an_outcome(resolved=-1)), (70, an_outcome(resolved=-1))])[HERE]
    assert (late.strikes, late.until_time) == (1, NOW + seconds(130))
    assert judge(an_outcome(resolved=-1), [a_cooldown()], NOW + seconds(10)) is None


def test_a_good_answer_to_what_was_given_out_before_the_rest_was_over_changes_nothing():
    assert judge(an_outcome(kind=OutcomeKind.ACCEPTED, resolved=59), [a_cooldown()], NOW + seconds(61)) is None
    assert judge(an_outcome(kind=OutcomeKind.UNKNOWN, resolved=61), [a_cooldown()], NOW + seconds(61)) is None
    assert judge(an_outcome(kind=OutcomeKind.ACCEPTED), [], NOW) is None


def test_a_good_answer_ends_the_rests_that_were_over_of_whomever_they_are_and_no_other():
    over, going_on = a_cooldown("k1", THERE, until=5), a_cooldown("k1", ELSEWHERE, until=50)
    change = judge(an_outcome(kind=OutcomeKind.ACCEPTED, resolved=5), [over, going_on], NOW + seconds(6))
    assert change.over == (over,)


def test_a_limit_that_is_told_again_counts_only_where_it_is_later_by_something():
    limit = a_cooldown(until=20, kind=OutcomeKind.RATE_LIMITED)
    for wish, changes in ((20, False), (20.9, False), (21, True), (5, False), (None, False)):
        outcome = an_outcome(kind=OutcomeKind.RATE_LIMITED, retry_after=wish)
        assert (judge(outcome, [limit], NOW) is not None) == changes, wish


@pytest.mark.parametrize(
    ("untils", "wanted"),
    [
        ([], (KeyState.AVAILABLE, None)),
        ([5, 9], (KeyState.RESTING, NOW + seconds(9))),
        ([-5, 9], (KeyState.RESTING, NOW + seconds(9))),
        ([-5, 0], (KeyState.TO_BE_PROBED, None)),
    ],
)
def test_the_state_of_a_key(untils, wanted):
    assert state_of([a_cooldown(until=until) for until in untils], NOW) == wanted


moments = st.integers(0, 5000)
outcomes = st.builds(
    an_outcome,
    key=st.just("k1"),
    teller=st.sampled_from(TELLERS),
    kind=st.sampled_from(OutcomeKind),
    retry_after=st.none() | st.integers(-10, 10_000),
    resolved=moments,
)
histories = st.lists(st.tuples(moments, outcomes), max_size=12).map(
    # Nothing is told of before it was given out.
    lambda items: sorted(
        ((max(second, (one.resolve_time - NOW).seconds), one) for second, one in items), key=lambda i: i[0]
    )
)
pools = st.lists(
    st.builds(
        a_cooldown,
        key=st.sampled_from(KEYS),
        teller=st.sampled_from(TELLERS),
        until=st.integers(-3700, 100),
        kind=st.sampled_from(COMPLAINTS),
    ),
    max_size=9,
    unique_by=lambda one: (one.credential_id, one.teller),
)
claimed = st.dictionaries(
    st.sampled_from(KEYS),
    st.dictionaries(st.sampled_from(TELLERS), st.integers(-5, 30).map(lambda end: NOW + seconds(end)), min_size=1),
)
failures = st.sets(st.sampled_from(KEYS))


@given(histories)
def test_a_deadline_never_moves_to_an_earlier_time_unless_the_rest_is_over(history):
    for end in range(1, len(history) + 1):
        before, after = told(history[: end - 1]), told(history[:end])
        now = NOW + seconds(history[end - 1][0])
        for teller, one in before.items():
            if teller not in after:
                assert one.until_time <= now
            else:
                assert after[teller].until_time >= one.until_time


@given(histories, st.sampled_from(TELLERS))
def test_what_others_told_never_makes_a_rest_longer(history, teller):
    own = [(second, one) for second, one in history if one.teller == teller]
    # Good answers of others may end it.
    without = [(second, one) for second, one in history if one.kind is not OutcomeKind.ACCEPTED]
    assert told(without).get(teller) == told([i for i in own if i[1].kind is not OutcomeKind.ACCEPTED]).get(teller)


@given(pools, claimed, st.sampled_from(TELLERS), failures)
@settings(max_examples=400)
def test_nobody_is_given_a_key_that_failed_or_that_rests_for_them(pool, claims, asker, failed):
    found = chosen(pool, claims, asker, failed)
    if isinstance(found, Choice):
        key = KEYS[found.place]
        own = [one for one in pool if one.credential_id == key and one.teller == asker]
        assert key not in failed
        assert all(one.until_time <= NOW for one in own)
        # After its rest, who told gets it as a probe, one at a time.
        assert not own or found.is_probe
        assert not (own and claims.get(key, {}).get(asker, NOW) > NOW)


@given(pools, claimed, st.sampled_from(TELLERS), failures)
@settings(max_examples=400)
def test_only_who_told_of_all_keys_or_tried_them_is_given_none(pool, claims, asker, failed):
    found = chosen(pool, claims, asker, failed)
    if isinstance(found, Exhausted):
        told_of = {one.credential_id for one in pool if one.teller == asker}
        assert told_of | failed == set(KEYS)
        assert found.wait > timedelta()
        assert (found.cause is Cause.FAILED) == (failed == set(KEYS))


@given(pools, claimed, st.sampled_from(TELLERS), failures)
@settings(max_examples=400)
def test_a_key_that_nobody_complains_of_comes_before_those_of_which_somebody_does(pool, claims, asker, failed):
    found = chosen(pool, claims, asker, failed)
    free = [key for key in KEYS if key not in failed and not any(one.credential_id == key for one in pool)]
    if free and not found.is_probe:
        assert KEYS[found.place] == free[0]


@given(pools, claimed, st.sampled_from(TELLERS), failures, st.data())
@settings(max_examples=400)
def test_a_choice_stays_the_same_until_the_time_that_it_names(pool, claims, asker, failed, data):
    found = chosen(pool, claims, asker, failed)
    if isinstance(found, Choice):
        last = 7200 if found.until_time is None else (found.until_time - NOW).total_seconds() - 0.001
        later = data.draw(st.floats(0, max(last, 0)))
        # The store leaves out what is forgotten.
        kept = [one for one in pool if one.until_time + FORGOTTEN_AFTER > NOW + seconds(later)]
        if all(one.until_time + FORGOTTEN_AFTER > NOW for one in pool):
            again = chosen(kept, claims, asker, failed, now=later)
            assert (again.place, again.is_probe, again.until_time) == (found.place, found.is_probe, found.until_time)


def test_claims_are_bounded_and_what_is_given_back_is_gone():
    claims = ProbeClaims(most=3)
    for place in range(10):
        claims.take(f"k{place}", HERE, NOW)
        claims.take(f"k{place}", HERE, NOW)
    assert (len(claims), set(claims.ends)) == (3, {"k7", "k8", "k9"})
    claims.give_back("k8", THERE)
    claims.give_back("k8", HERE)
    claims.give_back("k8", HERE)
    assert (len(claims), set(claims.ends)) == (2, {"k7", "k9"})
    claims.take("k1", THERE, NOW + CLAIM)
    assert (len(claims), set(claims.ends)) == (1, {"k1"})
