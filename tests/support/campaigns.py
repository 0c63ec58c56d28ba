"""A script of the repository's, run as anyone would run it."""

import asyncio
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


async def campaign(script: str, *words: str, deadline_seconds: float = 120) -> list[str]:
    """The lines that a script of `scripts` prints, both streams as they come; it has to exit with 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPTS / script, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(deadline_seconds):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, output.decode()
    return output.decode().splitlines()
