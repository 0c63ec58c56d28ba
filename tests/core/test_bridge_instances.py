"""Who was heard of, within bounds, and up to where bridges have told everything."""

from credentiald.bridge_instances import SILENT_MICROS, Instances

A, B, C = ("s-1", "a"), ("s-1", "b"), ("s-1", "c")
SECOND = 1_000_000


def test_a_bridge_is_written_down_when_it_is_new_and_then_every_ten_seconds():
    known = Instances()
    assert known.heard(A, 100 * SECOND)
    assert known.unwritten() == {A: 100 * SECOND}
    known.written({A: 100 * SECOND})
    assert not known.heard(A, 109 * SECOND)
    assert known.unwritten() == {}
    assert known.unwritten(all_newer=True) == {A: 109 * SECOND}
    assert known.heard(A, 110 * SECOND)


def test_invented_bridges_take_no_more_than_their_room_and_nobodys_place_who_is_there():
    known = Instances(most=2)
    for instance in (A, B):
        known.heard(instance, 100 * SECOND)
    known.written(known.unwritten())
    known.told(A, "5")
    for number in range(1000):
        assert not known.heard(("s-1", f"invented-{number}"), 101 * SECOND)
        known.told(("s-1", f"invented-{number}"), "9")
    assert known.heard(("s-2", "of another service"), 101 * SECOND)
    assert len(known) == 3
    known.settled()
    assert known.settled() == {A: "5"}
    known.heard(B, 150 * SECOND)
    assert known.heard(C, 100 * SECOND + SILENT_MICROS)
    assert set(known.unwritten(all_newer=True)) == {B, C, ("s-2", "of another service")}
    known.settled()
    assert known.settled() == {}


def test_what_is_settled_is_the_least_of_what_was_said_last_time_and_now():
    known = Instances()
    known.heard(A, 0)
    known.told(A, "5")
    assert known.settled() == {}
    known.told(A, "7")
    assert known.settled() == {A: "5"}
    known.told(A, "6")
    assert known.settled() == {A: "6"}
    known.told(A, "")
    assert known.settled() == {}
    known.told(A, "8")
    assert known.settled() == {}


def test_who_is_silent_for_long_is_forgotten():
    known = Instances()
    known.heard(A, 1)
    known.heard(B, 9)
    known.told(A, "1")
    known.forget(before_micros=5)
    assert len(known) == 1
    assert known.unwritten(all_newer=True) == {B: 9}
