"""Work that is done a little after what it is about."""

import asyncio
import logging

import pytest

from bridged.afterwards import ENOUGH, ENOUGH_BYTES, Afterwards


async def test_work_is_done_soon_a_pile_at_a_time_in_the_order_of_piles() -> None:
    afterwards, done, all_done = Afterwards(), list[list[str]](), asyncio.Event()
    first, then, last = (
        afterwards.pile(done.append),
        afterwards.pile(done.append),
        afterwards.pile(lambda _: all_done.set()),
    )
    for pile, piece in ((then, "then-1"), (first, "first-1"), (then, "then-2"), (first, "first-2"), (last, "")):
        pile.append(piece)
        afterwards.added()
    assert not done
    await asyncio.wait_for(all_done.wait(), 5)
    assert done == [["first-1", "first-2"], ["then-1", "then-2"]]


@pytest.mark.parametrize(("count", "held_bytes"), [(ENOUGH, 0), (1, ENOUGH_BYTES)])
async def test_when_there_is_enough_it_is_done_in_the_next_turn(count: int, held_bytes: int) -> None:
    afterwards, done = Afterwards(), list[int]()
    pile = afterwards.pile(done.extend)
    for number in range(count):
        pile.append(number)
        afterwards.added(held_bytes)
    assert not done
    await asyncio.sleep(0)
    assert done == list(range(count))


async def test_what_is_added_while_it_is_done_is_done_later(caplog: pytest.LogCaptureFixture) -> None:
    afterwards, done = Afterwards(), list[str]()

    def more(pieces: list[str]) -> None:
        done.extend(pieces)
        if pieces == ["one"]:
            pile.append("two")
            afterwards.added()

    pile = afterwards.pile(more)
    pile.append("one")
    afterwards.added()
    afterwards.do_all()
    assert done == ["one"]
    afterwards.do_all()
    assert done == ["one", "two"]
    assert not caplog.records


async def test_work_that_fails_is_logged_and_no_trouble_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    afterwards, done = Afterwards(), list[str]()

    def failing(_: list[str]) -> None:
        raise RuntimeError("a bug")

    with caplog.at_level(logging.ERROR):
        for pile in (afterwards.pile(failing), afterwards.pile(done.extend)):
            pile.append("piece")
            afterwards.added()
        afterwards.do_all()
    assert done == ["piece"]
    assert "a bug" in caplog.text
