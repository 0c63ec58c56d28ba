"""Who watches in which process, as the others see it; and what was changed since."""

from credentiald.store import revision, users, watchers
from credentiald.watchers import LOST_SECONDS, Row
from tests.support.records import empty_records
from tests.support.store import NOW, a_user

ONE, TWO = ("service", "bridge-1"), ("service", "bridge-2")


def row(watcher_id, instance, revision, since_seconds=0.0):
    return Row(watcher_id, instance, revision, since_seconds)


def test_a_process_sees_the_watchers_of_others_and_not_its_own(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "here", [row("a", ONE, 5)], now_micros=0)
        watchers.put(conn, "there", [row("b", TWO, 7)], now_micros=0)
        assert watchers.elsewhere(conn, "here", now_micros=0) == {TWO: 7}
        assert watchers.elsewhere(conn, "there", now_micros=0) == {ONE: 5}


def test_what_a_process_writes_replaces_what_it_wrote(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "there", [row("a", ONE, 5), row("b", TWO, 7)], now_micros=0)
        watchers.put(conn, "there", [row("b", TWO, 8)], now_micros=1)
        assert watchers.elsewhere(conn, "here", now_micros=1) == {TWO: 8}
        watchers.put(conn, "there", [], now_micros=2)
        assert watchers.elsewhere(conn, "here", now_micros=2) == {}


def test_watchers_of_a_process_that_died_do_not_count_and_are_removed(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "dead", [row("a", ONE, 5)], now_micros=0)
        assert watchers.elsewhere(conn, "here", now_micros=watchers.LOST_MICROS) == {ONE: 5}
        assert watchers.elsewhere(conn, "here", now_micros=watchers.LOST_MICROS + 1) == {}
        watchers.put(conn, "there", [row("b", TWO, 7)], now_micros=watchers.LOST_MICROS + 1)
        assert conn.execute("SELECT COUNT(*) FROM watchers").fetchone()[0] == 1


def test_what_a_process_would_have_written_next_is_allowed_for(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "dead", [row("a", ONE, 5)], now_micros=0)
        # It was killed just before it would have written again, and until then the bridge asked it.
        killed_seconds = watchers.RENEW_SECONDS
        until_micros = int((killed_seconds + LOST_SECONDS) * 1_000_000)
        assert watchers.elsewhere(conn, "here", now_micros=until_micros) == {ONE: 5}


def test_one_that_is_lost_counts_from_when_it_was_heard_of_however_often_that_is_written(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "there", [row("a", ONE, 5, 1.0)], now_micros=1_000_000)
        watchers.put(conn, "there", [row("a", ONE, 5, 14.0)], now_micros=14_000_000)
        assert watchers.elsewhere(conn, "here", now_micros=watchers.LOST_MICROS) == {ONE: 5}
        assert watchers.elsewhere(conn, "here", now_micros=watchers.LOST_MICROS + 1) == {}


def test_a_bridge_has_obeyed_what_it_acknowledged_wherever_that_was(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "dead", [row("a", ONE, 5), row("b", TWO, 5)], now_micros=1)
        watchers.put(conn, "there", [row("c", ONE, 7)], now_micros=0)
        watchers.put(conn, "elsewhere", [row("d", TWO, -1)], now_micros=2)
        assert watchers.elsewhere(conn, "here", now_micros=2) == {ONE: 7, TWO: 5}


def test_nobody_waits_for_one_that_is_gone_wherever_it_was(tmp_path):
    with empty_records(tmp_path / "records.db") as conn:
        watchers.put(conn, "dead", [row("a", ONE, 5), row("b", TWO, 5)], now_micros=0)
        watchers.put(conn, "there", [], now_micros=0, gone=[ONE])
        assert watchers.elsewhere(conn, "here", now_micros=0) == {TWO: 5}


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
