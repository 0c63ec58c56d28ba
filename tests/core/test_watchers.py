"""Who is behind with what administrators change."""

from hypothesis import given
from hypothesis import strategies as st

from credentiald.watchers import LOST_SECONDS, MOST_LOST, Row, Watchers

ONE, TWO = ("service", "bridge-1"), ("service", "bridge-2")


def test_one_that_joined_is_behind_until_it_acknowledges_what_it_was_told() -> None:
    watchers = Watchers()
    watchers.joined("a", ONE)
    assert watchers.behind(0) == [ONE]
    watchers.told("a", 5, 0.0)
    assert watchers.acknowledged("a", 5)
    assert watchers.behind(5) == []
    assert watchers.behind(6) == [ONE]


def test_nobody_can_acknowledge_what_nobody_was_told() -> None:
    watchers = Watchers()
    watchers.joined("a", ONE)
    assert not watchers.acknowledged("a", 1_000)
    watchers.told("a", 5, 0.0)
    watchers.acknowledged("a", 1_000)
    assert watchers.behind(6) == [ONE]


def test_one_that_left_is_not_waited_for() -> None:
    watchers = Watchers()
    watchers.joined("a", ONE)
    watchers.joined("b", TWO)
    watchers.left("a")
    watchers.left("a")
    assert watchers.behind(1) == [TWO]
    assert len(watchers) == 1


def lost_with_five() -> Watchers:
    watchers = Watchers()
    watchers.joined("a", ONE)
    watchers.told("a", 5, 0.0)
    watchers.acknowledged("a", 5)
    watchers.lost("a", 100.0)
    return watchers


def test_one_that_is_lost_keeps_what_it_acknowledged_for_a_while() -> None:
    watchers = lost_with_five()
    watchers.lost("a", 101.0)
    assert watchers.behind(6) == []
    assert not watchers.has_obeyed(ONE, 5)
    assert len(watchers) == 0
    assert watchers.rows(103.0) == [Row("a", ONE, 5, 3.0)]
    assert watchers.lost_ones(100.0 + LOST_SECONDS) == {ONE: 5}
    assert watchers.lost_ones(100.1 + LOST_SECONDS) == {}
    assert watchers.rows(100.1 + LOST_SECONDS) == []


def test_one_that_is_lost_and_lives_is_waited_for_longer() -> None:
    watchers = lost_with_five()
    assert not watchers.heard_of(ONE, 110.0)
    assert not watchers.heard_of(TWO, 110.0)
    assert watchers.lost_ones(110.0 + LOST_SECONDS) == {ONE: 5}
    assert watchers.lost_ones(110.1 + LOST_SECONDS) == {}


def test_one_that_was_stopped_for_long_counts_again_when_it_is_heard_of() -> None:
    watchers = lost_with_five()
    assert watchers.lost_ones(200.0) == {}
    assert watchers.heard_of(ONE, 200.0)
    assert watchers.lost_ones(200.0) == {ONE: 5}
    assert not watchers.heard_of(ONE, 201.0)
    watchers.joined("b", ONE)
    watchers.left("b")
    assert not watchers.heard_of(ONE, 300.0)
    assert watchers.lost_ones(300.0) == {}


def test_of_so_many_that_were_lost_those_are_forgotten_that_count_no_more() -> None:
    watchers = lost_with_five()
    for number in range(MOST_LOST):
        watchers.joined(str(number), ("service", str(number)))
    watchers.heard_of(ONE, 101.0)
    for number in range(MOST_LOST - 1):
        watchers.lost(str(number), 102.0)
    watchers.lost(str(MOST_LOST - 1), 101.0 + LOST_SECONDS)
    assert len(watchers.lost_ones(101.0 + LOST_SECONDS)) == MOST_LOST + 1, "who counts was forgotten"
    watchers.joined("last", TWO)
    watchers.lost("last", 101.1 + LOST_SECONDS)
    assert not watchers.heard_of(ONE, 200.0)
    assert watchers.heard_of(("service", "0"), 200.0)


def test_one_with_two_streams_has_obeyed_what_it_acknowledged_on_either() -> None:
    watchers = Watchers()
    for name in ("a", "b", "c"):
        watchers.joined(name, TWO if name == "c" else ONE)
        watchers.told(name, 5, 0.0)
    assert watchers.behind(5) == [ONE, TWO]
    watchers.acknowledged("b", 5)
    assert watchers.behind(5) == [TWO]


def test_one_that_was_lost_and_watches_again_is_behind_until_it_acknowledges() -> None:
    watchers = lost_with_five()
    watchers.joined("b", ONE)
    assert watchers.lost_ones(100.0) == {}
    assert watchers.behind(5) == [ONE]
    assert not watchers.has_obeyed(ONE, 5)
    watchers.told("b", 6, 100.0)
    watchers.acknowledged("b", 6)
    assert watchers.has_obeyed(ONE, 6)
    assert not watchers.has_obeyed(ONE, 7)
    assert not watchers.has_obeyed(TWO, 6)


def test_one_that_watches_on_another_stream_is_not_lost_with_one_of_them() -> None:
    watchers = Watchers()
    watchers.joined("a", ONE)
    watchers.joined("b", ONE)
    watchers.lost("a", 1.0)
    assert watchers.lost_ones(1.0) == {}
    watchers.lost("b", 2.0)
    assert watchers.lost_ones(2.0) == {ONE: -1}


def test_overdue_is_who_owes_the_oldest_for_too_long() -> None:
    watchers = Watchers()
    watchers.joined("a", ONE)
    watchers.joined("b", TWO)
    watchers.told("a", 5, 10.0)
    watchers.told("a", 6, 12.0)
    watchers.told("b", 6, 12.0)
    assert watchers.overdue(11.0, wait_seconds=1.0) == []
    assert watchers.overdue(11.1, wait_seconds=1.0) == ["a"]
    watchers.acknowledged("a", 5)
    assert watchers.overdue(12.9, wait_seconds=1.0) == []
    assert watchers.overdue(13.1, wait_seconds=1.0) == ["a", "b"]


@given(st.lists(st.tuples(st.sampled_from(["told", "acknowledged"]), st.integers(0, 20))))
def test_who_is_not_behind_was_told_and_has_acknowledged_so_much(steps: list[tuple[str, int]]) -> None:
    watchers, told, said = Watchers(), -1, -1
    watchers.joined("a", ONE)
    for step, revision in steps:
        if step == "told" and revision > told:
            told = revision
            watchers.told("a", revision, 0.0)
        elif step == "acknowledged":
            watchers.acknowledged("a", revision)
            said = max(said, min(revision, told))
    assert [one for one in range(25) if not watchers.behind(one)] == list(range(said + 1))
