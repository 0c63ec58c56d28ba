"""Files that are read again and again: on time, on a signal, and whatever happens in between."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable

import pytest

from daemonkit.rereading import INTERVAL_SECONDS, rereading

DEADLINE_SECONDS = 10.0


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


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


async def test_what_hangs_keeps_nothing_else_from_being_read_and_nobody_waits_for_it():
    goes_on, hangs, reads = threading.Event(), threading.Event(), 0
    again = asyncio.Event()

    def hang() -> None:
        hangs.set()
        goes_on.wait()

    def use(_: None) -> None:
        nonlocal reads
        reads += 1
        if reads == 3:
            again.set()
        files.at_once()

    late: list[object] = []
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            async with rereading() as files:
                files.add(hang, late.append)
                files.add(lambda: None, use)
                files.at_once()
                await again.wait()
                # Its thread may be a late one.
                await until(hangs.is_set)
            await asyncio.get_running_loop().shutdown_default_executor()
    finally:
        goes_on.set()
    assert late == []


async def test_what_is_wanted_while_it_is_read_is_read_once_more():
    # It may have changed behind the place where it was read.
    goes_on, begun, done = threading.Event(), asyncio.Event(), asyncio.Event()
    used: list[int] = []
    loop = asyncio.get_running_loop()

    def read() -> int:
        loop.call_soon_threadsafe(begun.set)
        goes_on.wait()
        return len(used)

    def use(number: int) -> None:
        used.append(number)
        if number:
            done.set()

    began = loop.time()
    async with asyncio.timeout(DEADLINE_SECONDS), rereading() as files:
        files.add(read, use)
        files.at_once()
        await begun.wait()
        files.at_once()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        goes_on.set()
        await done.wait()
    assert used == [0, 1]
    assert loop.time() - began < INTERVAL_SECONDS


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
            # The thread of what fails may be a late one.
            await until(lambda: bool(errors_in(caplog)))

    assert used[:3] == [1, 1, 1]
    assert errors_in(caplog) == {"files could not be read anew"}


def errors_in(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {one.getMessage() for one in caplog.records if one.levelno == logging.ERROR}
