"""Who watches in which process, as the others see it; and what was changed since."""

from credentiald.store import revision, users, watchers
from tests.support.records import empty_records
from tests.support.store import NOW, a_user

ONE, TWO = ("service", "bridge-1"), ("service", "bridge-2")


def test_a_process_sees_the_watchers_of_others_and_not_its_own(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "here", [("a", ONE, 5)], now_micros=0)
        watchers.put(conn, "there", [("b", TWO, 7)], now_micros=0)
        assert watchers.elsewhere(conn, "here", now_micros=0) == [(TWO, 7)]
        assert watchers.elsewhere(conn, "there", now_micros=0) == [(ONE, 5)]


def test_what_a_process_writes_replaces_what_it_wrote(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "there", [("a", ONE, 5), ("b", TWO, 7)], now_micros=0)
        watchers.put(conn, "there", [("b", TWO, 8)], now_micros=1)
        assert watchers.elsewhere(conn, "here", now_micros=1) == [(TWO, 8)]
        watchers.put(conn, "there", [], now_micros=2)
        assert watchers.elsewhere(conn, "here", now_micros=2) == []


def test_watchers_of_a_process_that_died_do_not_count_and_are_removed(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "dead", [("a", ONE, 5)], now_micros=0)
        assert watchers.elsewhere(conn, "here", now_micros=watchers.DEAD_MICROS) == [(ONE, 5)]
        assert watchers.elsewhere(conn, "here", now_micros=watchers.DEAD_MICROS + 1) == []
        watchers.put(conn, "there", [("b", TWO, 7)], now_micros=watchers.DEAD_MICROS + 1)
        assert conn.execute("SELECT COUNT(*) FROM watchers").fetchone()[0] == 1


def test_a_bridge_that_watches_anew_is_not_behind_at_the_process_that_died(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "dead", [("a", ONE, 5), ("b", TWO, 5)], now_micros=0)
        watchers.put(conn, "here", [("c", ONE, 7)], now_micros=1)
        watchers.put(conn, "there", [("d", TWO, 6)], now_micros=1)
        assert watchers.elsewhere(conn, "here", now_micros=1) == [(TWO, 6)]
        assert watchers.elsewhere(conn, "there", now_micros=1) == [(ONE, 7)]


def test_changes_come_in_order_after_a_revision_and_no_more_than_wanted(conn):
    for name in ("ann", "bob", "eve"):
        users.create(conn, a_user(name))
    first = revision.changes_after(conn, 0, limit=2)
    assert [(one.revision, one.kind, one.name) for one in first] == [
        (1, "user.created", "ann"),
        (2, "user.created", "bob"),
    ]
    assert [one.name for one in revision.changes_after(conn, 2, limit=9)] == ["eve"]
    assert first[0].change_time == NOW
    assert revision.changes_after(conn, 3, limit=9) == []
