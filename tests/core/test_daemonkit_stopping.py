"""Signals, in a process of their own."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import asyncio, logging, sys
from daemonkit.logs import running_logs
from daemonkit.stopping import stop_requested

def last_words():
    logging.getLogger().warning("last words")
    raise RuntimeError("and a bug")

async def main():
    asking = stop_requested(last_words if sys.argv[1] == "tell" else None)
    print("waiting", flush=True)
    print(f"asked by {(await asking).name}", flush=True)
    if sys.argv[1] != "end":
        while True:
            await asyncio.sleep(60)

with running_logs(human="", json="-", level=logging.INFO):
    asyncio.run(main())
"""


@contextmanager
def started(mode: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_daemon_drain(number):
    with started("end") as process:
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
    assert output == f"asked by {number.name}\n"
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_it_at_once(number):
    with started("hang") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "asked by SIGTERM\n"
        process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number


def test_before_the_end_at_once_the_daemon_has_its_last_words_and_they_are_written():
    with started("tell") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "asked by SIGTERM\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    assert [json.loads(line)["msg"] for line in output.splitlines()] == ["last words", "unhandled error at the end"]
    assert process.returncode == 128 + signal.SIGTERM
