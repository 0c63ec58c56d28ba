"""Who is behind with what administrators change."""

from hypothesis import given
from hypothesis import strategies as st

from credentiald.watchers import Watchers

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
