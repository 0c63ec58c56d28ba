"""What a bridge knows of keys until credentiald knows it, and what it tells a client when none is left."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.key_outcomes import KeyOutcome, Kind, ToldOutcome
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution, Source
from bridged.outcomes import EXHAUSTED, MOST_AT_ONCE, MOST_WAITING, Outcomes, Rest, exhausted
from tests.support.bridge import until

LIMITED = KeyOutcome(Kind.RATE_LIMITED, 429, 30.0)
LOST = "bridged_key_outcomes_lost_total"


def resolution(number: int, *, probe: bool = False) -> Resolution:
    return Resolution(
        provider_id="p",
        provider_name="corp",
        provider_type="openai",
        wire_type="openai",
        base_url="https://upstream",
        user_id="u",
        username="ada",
        source=Source.CENTRAL_KEY,
        credential_id=f"key-{number}",
        receipt=f"receipt-{number}".encode(),
        pool_size=5,
        probe=probe,
    )


class Told:
    """A credentiald of this test: what it answers, and what it has heard."""

    def __init__(self, *answers: int | Refused) -> None:
        self.answers = list(answers)
        self.batches: list[list[ToldOutcome]] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def __call__(self, outcomes: Sequence[ToldOutcome]) -> int | Refused:
        await self.goes_on.wait()
        self.batches.append(list(outcomes))
        return self.answers.pop(0) if self.answers else 0


async def test_a_key_is_known_until_credentiald_has_taken_it() -> None:
    told, now = Told(), time.monotonic()
    told.goes_on.clear()
    outcomes = Outcomes(told, Metrics())
    outcomes.tell("corp", resolution(1), LIMITED, now)
    outcomes.tell("corp", resolution(2), KeyOutcome(Kind.UNAUTHORIZED, 401), now)
    outcomes.tell("lab", resolution(3), KeyOutcome(Kind.ACCEPTED, 200), now)
    assert list(outcomes.resting("corp", now)) == ["key-1", "key-2"]
    assert not outcomes.resting("lab", now)
    # Its rest is over before anybody was told.
    assert list(outcomes.resting("corp", now + 31)) == ["key-2"]
    told.goes_on.set()
    await until(lambda: not outcomes.untold)
    assert [receipt for batch in told.batches for receipt, _ in batch] == [b"receipt-1", b"receipt-2", b"receipt-3"]


async def test_the_same_again_is_told_once_and_a_probe_always() -> None:
    told, now = Told(), time.monotonic()
    outcomes = Outcomes(told, Metrics())
    for offset in (0.0, 0.1, 0.5):
        outcomes.tell("corp", resolution(1), LIMITED, now + offset)
    outcomes.tell("corp", resolution(1, probe=True), LIMITED, now + 0.5)
    # Longer, or for another reason: that is news.
    outcomes.tell("corp", resolution(1), LIMITED._replace(asked_seconds=90.0), now + 0.5)
    outcomes.tell("corp", resolution(1), KeyOutcome(Kind.UNAUTHORIZED, 401), now + 0.5)
    await until(lambda: not outcomes.untold)
    assert [outcome.kind for batch in told.batches for _, outcome in batch] == [
        *[Kind.RATE_LIMITED] * 3,
        Kind.UNAUTHORIZED,
    ]


async def test_what_is_not_taken_is_told_again_and_at_last_counted() -> None:
    away = Refused("CREDENTIALD_UNREACHABLE", "away")
    told, metrics, now = Told(away, away, 0, away, away, away, away), Metrics(), time.monotonic()
    outcomes = Outcomes(told, metrics)
    outcomes.tell("corp", resolution(1), LIMITED, now)
    await until(lambda: not outcomes.untold)
    assert (len(told.batches), metrics.registry.get_sample_value(LOST)) == (3, 0)
    outcomes.tell("corp", resolution(2), LIMITED, now)
    await until(lambda: metrics.registry.get_sample_value(LOST) == 1)
    assert len(told.batches) == 7
    assert list(outcomes.resting("corp", now)) == ["key-2"]


async def test_what_credentiald_does_not_act_on_is_named_a_minute_longer() -> None:
    told, now = Told(1), time.monotonic()
    outcomes = Outcomes(told, Metrics())
    outcomes.tell("corp", resolution(1), KeyOutcome(Kind.SPEND_LIMITED, 429), now)
    await until(lambda: bool(told.batches) and outcomes.untold["corp"]["key-1"].until_seconds < now + 1000)
    assert now + 50 < outcomes.untold["corp"]["key-1"].until_seconds < now + 90
    assert not outcomes.resting("corp", now + 90)


async def test_a_flood_of_outcomes_is_bounded_and_goes_in_batches() -> None:
    told, metrics, now = Told(), Metrics(), time.monotonic()
    told.goes_on.clear()
    outcomes = Outcomes(told, metrics)
    for number in range(MOST_WAITING + 10):
        outcomes.tell(f"p{number % 7}", resolution(number), LIMITED, now)
    assert sum(map(len, outcomes.untold.values())) == MOST_WAITING
    assert metrics.registry.get_sample_value(LOST) == 10
    told.goes_on.set()
    await until(lambda: sum(map(len, told.batches)) == MOST_WAITING)
    assert max(map(len, told.batches)) == MOST_AT_ONCE


async def test_at_the_end_what_waits_is_told_within_a_moment_and_nothing_after() -> None:
    told, metrics, now = Told(), Metrics(), time.monotonic()
    outcomes = Outcomes(told, metrics)
    outcomes.tell("corp", resolution(1), LIMITED, now)
    await outcomes.close()
    assert len(told.batches) == 1
    outcomes.tell("corp", resolution(2), LIMITED, now)
    assert metrics.registry.get_sample_value(LOST) == 1
    silent = Told()
    silent.goes_on.clear()
    hanging = Outcomes(silent, metrics)
    hanging.tell("corp", resolution(1), LIMITED, now)
    async with asyncio.timeout(5):
        await hanging.close()


RESTS = st.builds(
    Rest,
    st.sampled_from([Kind.UNAUTHORIZED, Kind.RATE_LIMITED, Kind.SPEND_LIMITED]),
    st.floats(-10, 4000, allow_nan=False),
)


@given(st.lists(RESTS, max_size=6), st.none() | st.integers(1, 4000), st.booleans())
def test_the_shortest_wait_that_anybody_knows_of_is_told(
    rests: list[Rest], told_seconds: int | None, was_asked: bool
) -> None:
    told = Refused(EXHAUSTED, "wait", retry_after_seconds=told_seconds) if was_asked else None
    refused = exhausted(rests, told, 0.0)
    waits = [one.until_seconds for one in rests if one.kind is not Kind.UNAUTHORIZED]
    if told is not None and told_seconds is not None:
        waits.append(told_seconds)
    assert refused.reason == EXHAUSTED
    if not waits:
        assert (refused.http_status, refused.retry_after_seconds) == (502, None)
    else:
        assert refused.http_status == 429
        assert refused.retry_after_seconds is not None
        assert max(1, min(waits)) <= refused.retry_after_seconds < max(1, min(waits)) + 1


@pytest.mark.parametrize("told", [None, Refused(EXHAUSTED, "credentiald's", retry_after_seconds=9)])
def test_keys_that_are_simply_wrong_add_no_wait(told: Refused | None) -> None:
    refused = exhausted([Rest(Kind.UNAUTHORIZED, 60.0)], told, 0.0)
    assert refused.http_status == (502 if told is None else 429)
