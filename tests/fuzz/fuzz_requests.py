"""Fuzzes the server side of bridged.http1 with atheris: no bytes may be read differently by us, h11 and aiohttp.

    scripts/fuzz 3600

Needs `atheris`. What it finds is printed and kept in the folder that scripts/fuzz names; make it a row of
tests/data/http1/smuggling before mending it.
"""

import asyncio
import sys

import atheris

with atheris.instrument_imports(include=["bridged.http1"]):
    from tests.support.http1_mutations import fuzzed
    from tests.support.http1_readers import disagreement

LOOP = asyncio.new_event_loop()


def one_input(data: bytes) -> None:
    """The first two bytes say where the network cuts the rest."""
    stream, parts = fuzzed(data)
    problem = disagreement(stream, parts, LOOP)
    if problem is not None:
        raise AssertionError(f"{problem}: {stream!r} as {parts!r}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
