"""When a batch leaves, who collects it, and what is in it."""

import asyncio

import pytest

from bridged.resolve_queue import ENOUGH_ITEMS, MAX_BATCH_BYTES, MAX_ITEMS, Queue, Waiting


def item(size_bytes: int = 100) -> Waiting:
    return Waiting(bytes(size_bytes), lambda _: None, 0.0, 1.0)


async def collected(queue: Queue) -> list[Waiting]:
    """What the owner of the next batch takes."""
    await queue.wait_for_company()
    batch = queue.take(0.0)
    queue.release()
    return batch


async def test_questions_leave_in_their_order_and_those_that_come_back_go_first():
    queue = Queue()
    items = [item() for _ in range(5)]
    for each in items[1:]:
        queue.add(each)
    queue.add_first(items[0])

    assert queue.claim()
    assert await collected(queue) == items
    assert not queue.claim()


async def test_a_batch_is_bounded_in_number_and_size_and_holds_at_least_one():
    queue = Queue()
    for _ in range(MAX_ITEMS + 1):
        queue.add(item())
    sizes = []
    while queue.claim():
        sizes.append(len(await collected(queue)))
    assert sizes == [MAX_ITEMS, 1]

    for _ in range(5):
        queue.add(item(MAX_BATCH_BYTES // 2))
    queue.add(item(MAX_BATCH_BYTES * 2))
    sizes = []
    while queue.claim():
        sizes.append(len(await collected(queue)))
    assert sizes == [2, 2, 1, 1]


async def test_one_stream_collects_at_a_time_and_idle_ones_take_turns():
    queue = Queue()
    turns = []
    parked = {name: queue.park() for name in "ab"}
    for _ in range(6):
        queue.add(item())
        queue.add(item())
        [name] = [name for name, future in parked.items() if future.done()]
        assert parked[name].result() is True
        assert not queue.claim()
        turns.append(name)
        assert len(await collected(queue)) == 2
        parked[name] = queue.park()

    assert turns == ["a", "b"] * 3


async def test_what_is_left_wakes_the_next_stream():
    queue = Queue()
    first, second = queue.park(), queue.park()
    for _ in range(MAX_ITEMS + 1):
        queue.add(item())
    assert first.done()
    assert not second.done()
    assert len(await collected(queue)) == MAX_ITEMS
    assert second.result() is True
    assert len(await collected(queue)) == 1


async def test_a_stream_that_is_gone_is_not_woken():
    queue = Queue()
    gone, ended, alive = queue.park(), queue.park(), queue.park()
    gone.cancel()
    ended.set_result(False)
    queue.add(item())
    assert alive.result() is True


async def test_sockets_that_are_ready_join_the_batch():
    queue = Queue()
    loop = asyncio.get_running_loop()
    queue.add(item())
    assert queue.claim()
    # As the loop calls protocols one after the other, and each of them submits.
    for _ in range(20):
        loop.call_soon(queue.add, item())
    assert len(await collected(queue)) == 21


def leave(queue: Queue, now: float, *, questions: int = 1, came_meanwhile: int = 0) -> float:
    """One batch goes and comes back; how long it had to wait for company."""
    for _ in range(questions):
        queue.add(item())
    gap_seconds = queue.gap_seconds(now)
    assert queue.claim()
    assert len(queue.take(now)) == questions
    queue.release()
    for _ in range(came_meanwhile):
        queue.add(item())
    queue.came_back()
    return gap_seconds


def test_a_question_that_is_alone_never_waits_for_company():
    queue = Queue()
    assert [leave(queue, now=number * 0.0003) for number in range(50)] == [0.0] * 50


@pytest.mark.parametrize("load", [{"questions": 2}, {"came_meanwhile": 1}])
def test_under_load_a_batch_leaves_two_milliseconds_after_the_one_before_it(load):
    queue = Queue()
    leave(queue, 10.0, **load)

    assert queue.gap_seconds(10.0004) == pytest.approx(0.0016)
    assert queue.gap_seconds(10.002) == 0.0
    assert queue.gap_seconds(11.0) == 0.0


def test_a_batch_that_is_large_enough_waits_for_nobody():
    queue = Queue()
    leave(queue, 10.0, questions=2)
    for _ in range(ENOUGH_ITEMS):
        queue.add(item())

    assert queue.gap_seconds(10.0) == 0.0


async def test_a_batch_leaves_when_it_has_become_large_enough():
    queue = Queue()
    # So that the time for it does not come.
    leave(queue, asyncio.get_running_loop().time() + 1000, questions=2)
    queue.add(item())
    assert queue.claim()
    collecting = asyncio.create_task(collected(queue))
    for _ in range(ENOUGH_ITEMS - 2):
        queue.add(item())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not collecting.done()
    queue.add(item())

    assert len(await asyncio.wait_for(collecting, 5)) == ENOUGH_ITEMS


def test_company_is_forgotten_after_four_batches_that_were_alone():
    queue = Queue()
    leave(queue, 10.0, questions=2)

    assert [leave(queue, 10.0 + number * 0.0005) > 0 for number in range(1, 7)] == [True] * 4 + [False] * 2
