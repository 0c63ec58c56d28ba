"""Worker threads of one provider's own."""

import asyncio
import threading

from credentiald.aws.lane import Lane


async def test_work_runs_elsewhere_and_brings_what_it_returns_or_raises():
    lane = Lane("x")
    here = threading.get_ident()
    assert await lane.submit(threading.get_ident) != here
    error = await lane.submit(lambda: 1 // 0)
    assert isinstance(error, ZeroDivisionError)
    assert lane.idle


async def test_no_more_threads_than_so_many_and_nothing_is_lost():
    lane, gate, lock = Lane("x", most=3), threading.Event(), threading.Lock()
    running, most = 0, 0

    def work(number):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(10)
        with lock:
            running -= 1
        return number

    futures = [lane.submit(lambda number=number: work(number)) for number in range(20)]
    while most < 3:
        await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*futures) == list(range(20))
    assert most == 3
    assert lane.idle


def test_a_thread_that_ends_after_its_loop_troubles_nobody():
    gate = threading.Event()

    async def begin():
        Lane("x").submit(lambda: gate.wait(10))

    asyncio.run(begin())
    gate.set()
    for thread in [one for one in threading.enumerate() if one.name == "aws-x"]:
        thread.join(10)
        assert not thread.is_alive()


async def test_a_machine_without_threads_is_a_failure_and_not_the_end_of_the_lane():
    lane = Lane("x", most=1)
    usual = threading.stack_size(1 << 46)  # more than any machine has
    try:
        refused, waited = lane.submit(int), lane.submit(int)
        assert isinstance(await refused, RuntimeError)
        assert isinstance(await waited, RuntimeError)
    finally:
        threading.stack_size(usual)
    assert lane.idle
    assert await lane.submit(lambda: 3) == 3
