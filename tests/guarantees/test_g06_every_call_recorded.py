"""The short form of scripts/reconcile, as anyone would run it: whether records are what the upstream counted."""

import asyncio
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reconcile"
DEADLINE_SECONDS = 120


async def test_records_are_what_the_upstream_counted_though_credentiald_is_killed():
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
    assert lines[-1] == "reconciled: no difference"
    assert "credentiald killed 0 times" not in lines[-2]
