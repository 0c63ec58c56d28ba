"""Files that are read again and again: on time, on a signal, and whatever happens in between."""

import asyncio
import logging
import os
import signal

import pytest

from daemonkit.rereading import INTERVAL_SECONDS, rereading

DEADLINE_SECONDS = 10.0


async def test_a_signal_and_a_request_have_the_files_read_at_once_and_a_second_does_without():
    now, times = asyncio.get_running_loop().time, []
    also = []
    read = asyncio.Event()

    def use(_: None) -> None:
        times.append(now())
        read.set()

    async def next_seconds() -> float:
        began = now()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await read.wait()
        read.clear()
        return now() - began

    async with rereading(also=lambda: also.append(1)) as files:
        files.add(lambda: None, use)
        assert await next_seconds() > 0.8 * INTERVAL_SECONDS
        began = now()
        for _ in range(4):
            os.kill(os.getpid(), signal.SIGHUP)
            await next_seconds()
            files.at_once()
            await next_seconds()
        # Without a signal it would have taken eight seconds.
        assert now() - began < 4 * INTERVAL_SECONDS
    assert also == [1] * 4


async def test_what_fails_keeps_nothing_else_from_being_read(caplog: pytest.LogCaptureFixture):
    used: list[int] = []
    enough = asyncio.Event()

    def fail() -> None:
        raise RuntimeError("a bug")

    def use(number: int) -> None:
        used.append(number)
        if len(used) == 3:
            enough.set()
        files.at_once()

    async with rereading() as files:
        files.add(fail, lambda _: None)
        files.add(lambda: 1, use)
        files.at_once()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await enough.wait()

    assert used[:3] == [1, 1, 1]
    assert {one.getMessage() for one in caplog.records if one.levelno == logging.ERROR} == {
        "files could not be read anew"
    }
