"""What we accept, h11 and aiohttp read in the same way: on the corpus, and on what hypothesis makes of it."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.data.http1.smuggling.requests import ACCEPTED, Accepted
from tests.support.http1_mutations import CUTS, STREAMS, cut
from tests.support.http1_readers import disagreement, read_aiohttp, read_h11, read_ours

# They refuse what we accept on purpose, or read on where we stop.
H11_DIFFERS = {
    "an empty line before and between",
    "empty lines before",
    "HTTP/1.0 that stays",
    "a request after an upgrade",
    "Upgrade without Connection",
    "Chunked in capitals",
}
AIOHTTP_DIFFERS = {
    "a request after the last",
    "a request after one of HTTP/1.0",
    "close wins over keep-alive",
    "Upgrade without Connection",
}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """aiohttp's parser wants one; it is never run."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("row", [row for row in ACCEPTED if row.name not in H11_DIFFERS], ids=lambda row: row.name)
def test_h11_reads_what_we_accept_in_the_same_way(row: Accepted) -> None:
    assert read_h11(row.data).messages == read_ours([row.data]).messages


@pytest.mark.parametrize("row", [row for row in ACCEPTED if row.name not in AIOHTTP_DIFFERS], ids=lambda row: row.name)
def test_aiohttp_reads_what_we_accept_in_the_same_way(row: Accepted, loop: asyncio.AbstractEventLoop) -> None:
    assert read_aiohttp(row.data, loop).messages == read_ours([row.data]).messages


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=STREAMS, cuts=CUTS)
def test_no_change_to_a_request_makes_two_readers_disagree(
    loop: asyncio.AbstractEventLoop, data: bytes, cuts: list[int]
) -> None:
    assert disagreement(data, cut(data, cuts), loop) is None
