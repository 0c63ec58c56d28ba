"""Work that is done a little after what it is about."""

import asyncio
import logging

import pytest

from bridged.afterwards import ENOUGH, ENOUGH_BYTES, Afterwards


async def test_work_is_done_soon_in_its_order_and_first_what_is_to_be_first() -> None:
    afterwards, done, all_done = Afterwards(), list[str](), asyncio.Event()
    afterwards.do(done.append, "then-1")
    afterwards.do(done.append, "first-1", first=True)
    afterwards.do(done.append, "then-2")
    afterwards.do(done.append, "first-2", first=True)
    afterwards.do(all_done.set)
    assert not done
    await asyncio.wait_for(all_done.wait(), 5)
    assert done == ["first-1", "first-2", "then-1", "then-2"]


@pytest.mark.parametrize(("count", "held_bytes"), [(ENOUGH, 0), (1, ENOUGH_BYTES)])
async def test_when_there_is_enough_it_is_done_in_the_next_turn(count: int, held_bytes: int) -> None:
    afterwards, done = Afterwards(), list[int]()
    for number in range(count):
        afterwards.do(done.append, number, held_bytes=held_bytes)
    assert not done
    await asyncio.sleep(0)
    assert done == list(range(count))


async def test_what_is_added_while_it_is_done_is_done_later(caplog: pytest.LogCaptureFixture) -> None:
    afterwards, done = Afterwards(), list[str]()

    def more() -> None:
        done.append("one")
        afterwards.do(done.append, "two")

    afterwards.do(more)
    afterwards.do_all()
    assert done == ["one"]
    afterwards.do_all()
    assert done == ["one", "two"]
    assert not caplog.records


async def test_work_that_fails_is_logged_and_no_trouble_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    afterwards, done = Afterwards(), list[str]()

    def failing() -> None:
        raise RuntimeError("a bug")

    with caplog.at_level(logging.ERROR):
        afterwards.do(failing)
        afterwards.do(done.append, "after")
        afterwards.do_all()
    assert done == ["after"]
    assert "a bug" in caplog.text
