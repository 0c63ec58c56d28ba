"""The server side of bridged.http1: no bytes may be read differently by us, h11 and aiohttp.

Make what is found a row of tests/data/http1/smuggling before mending it. The first two bytes of an input say where the
network cuts the rest.
"""

import asyncio

from tests.support.http1_mutations import MORSELS, fuzzed
from tests.support.http1_mutations import SEEDS as STREAMS
from tests.support.http1_readers import disagreement

WORDS = MORSELS
SEEDS = [b"\0\0" + seed for seed in STREAMS]
LOOP = asyncio.new_event_loop()


def one_input(data: bytes) -> None:
    stream, parts = fuzzed(data)
    problem = disagreement(stream, parts, LOOP)
    assert problem is None, f"{problem}: {stream!r} as {parts!r}"
