"""The short form of scripts/overload, as anyone would run it: whether every verdict is good."""

import asyncio
import sys
from pathlib import Path

import pytest

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "overload"
DEADLINE_SECONDS = 120


async def test_the_pair_carries_on_under_ten_times_what_it_can_carry():
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, "--short", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    lines = output.decode().splitlines()

    assert process.returncode == 0, output.decode()
    assert lines[-1] == "all good"
    assert sum(line.startswith("ok ") for line in lines) == len(lines) - 1 == 13
