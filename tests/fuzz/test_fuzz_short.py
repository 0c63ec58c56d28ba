"""The fuzzers' short form: every seed, and as many changed ones as a test run has time for. scripts/fuzz goes on."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.http1_mutations import CUTS, SEEDS, STREAMS, cut, fuzzed
from tests.support.http1_readers import disagreement


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """aiohttp's parser wants one; it is never run."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_readers_agree_on_every_seed_and_on_every_two(seed: int, loop: asyncio.AbstractEventLoop) -> None:
    for second in SEEDS:
        data = SEEDS[seed] + second
        assert disagreement(data, cut(data, [len(SEEDS[seed])]), loop) is None


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=STREAMS, cuts=CUTS)
def test_readers_agree_on_changed_requests(loop: asyncio.AbstractEventLoop, data: bytes, cuts: list[int]) -> None:
    assert disagreement(data, cut(data, cuts), loop) is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_readers_agree_on_noise(loop: asyncio.AbstractEventLoop, data: bytes) -> None:
    stream, parts = fuzzed(data)
    assert disagreement(stream, parts, loop) is None
