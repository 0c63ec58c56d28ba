"""What is taken out of the audit is in a file of its own, whole, before it is gone; whatever kills who takes it out."""

import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import uvloop
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry

from credentiald import audit_model
from credentiald.audit_book import Mode, running_audit
from credentiald.audit_chain import DamageKind, Head, Row
from credentiald.audit_metrics import AuditMetrics
from credentiald.audit_model import Act, Draft, Kind, Revision, Who
from credentiald.bootstrap.audit_start import note_start
from credentiald.bootstrap.refusals import StartRefused
from credentiald.cli.root import cli
from credentiald.model import User
from credentiald.store import audit, audit_archive, revision, sqlite, users
from credentiald.store.audit import open_audit
from credentiald.store.audit_archive import ArchiveRefused, Part
from tests.support import audit_child
from tests.support.audit_child import an_act, prepare, url_in
from tests.support.store import NOW

# Acts of two times: the first are the ones that are archived.
OLD, NEW = 120, 10
ROUNDS = 5
EARLY_MICROS, LATE_MICROS = 2_000_000_000_000_000, 3_000_000_000_000_000


def live(folder: Path) -> Path:
    return folder / "store.audit.db"


def append(conn: sqlite3.Connection, count: int, now_micros: int) -> Head:
    with sqlite.transaction(conn, write=True):
        audit.append(conn, [an_act(str(number)) for number in range(count)], now_micros=now_micros)
    return audit.head_of(conn)


def rows_in(path: Path) -> list[Row]:
    with closing(sqlite.connect(path)) as conn:
        return audit.rows_after(conn, 0, until=2**62, limit=100_000)


def archive(folder: Path, name: str = "old.db", *, before_micros: int = LATE_MICROS) -> Part | None:
    return audit_archive.archive(
        live(folder), folder / name, before_micros=before_micros, by="me", now_micros=lambda: LATE_MICROS
    )


def verify(folder: Path, *arguments: object) -> Result:
    return CliRunner().invoke(
        cli, ["audit", "verify", "--database", url_in(folder), *(str(argument) for argument in arguments)]
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    prepare(tmp_path)
    with closing(sqlite.connect(live(tmp_path))) as conn:
        append(conn, OLD, EARLY_MICROS)
        append(conn, NEW, LATE_MICROS)
    return tmp_path


@pytest.fixture
def conn(folder) -> Iterator[sqlite3.Connection]:
    with closing(sqlite.connect(live(folder))) as opened:
        yield opened


def test_the_oldest_entries_move_into_a_file_and_both_are_whole(folder):
    before = rows_in(live(folder))
    part = archive(folder)
    assert (part.count, part.head) == (OLD + 1, Head(OLD + 1, before[OLD].hash))
    assert rows_in(folder / "old.db") == before[: OLD + 1]
    *kept, told = rows_in(live(folder))
    assert kept == before[OLD + 1 :]
    said = audit_model.told_of(told.body)
    assert (told.kind, said.archive.count, said.archive.file) == ("archived", OLD + 1, str(folder / "old.db"))
    assert (said.archive.sequence, said.archive.hash) == (part.head.sequence, part.head.hash.hex())
    assert (folder / "old.db").stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in folder.iterdir() if "old" in one.name) == ["old.db"]
    for arguments in ((), ("--archive", folder / "old.db"), (folder / "old.db",)):
        found = verify(folder, *arguments)
        assert found.exit_code == 0, found.output
    assert f"begins after: {part.head}\n" in verify(folder).output
    assert verify(folder, folder / "old.db").output.endswith(f"head: {part.head}\n")


def test_a_head_from_before_is_proved_with_the_archive_and_not_without(folder):
    early = Head(7, rows_in(live(folder))[6].hash)
    part = archive(folder)
    assert verify(folder, "--head", early).output.startswith("entry 7: archived: ")
    assert verify(folder, "--head", early).exit_code == 1
    assert verify(folder, "--head", part.head).exit_code == 0
    assert verify(folder, "--head", early, "--archive", folder / "old.db").exit_code == 0
    other = Head(7, part.head.hash)
    assert "rewritten" in verify(folder, "--head", other, "--archive", folder / "old.db").output


def test_archives_follow_one_another_and_one_that_is_not_given_is_a_gap(folder, conn):
    archive(folder, "one.db")
    append(conn, 5, LATE_MICROS + 1)
    assert archive(folder, "two.db", before_micros=LATE_MICROS + 1).count == NEW + 1
    both = ["--archive", folder / "two.db", "--archive", folder / "one.db"]
    assert verify(folder, *both).exit_code == 0
    assert verify(folder).exit_code == 0
    assert verify(folder, folder / "two.db").exit_code == 0
    for one, word in (("one.db", "does not go on"), ("two.db", "in another archive")):
        found = verify(folder, "--archive", folder / one)
        assert (found.exit_code, word in found.output) == (1, True)


def cut(conn: sqlite3.Connection, until: int, *, is_archive: int = 0) -> None:
    """What somebody does who can write to the file, and archives nothing."""
    hashed = audit.hash_at(conn, until)
    conn.execute("UPDATE beginning SET archived_sequence = ?", (until,))
    conn.execute("DELETE FROM entries WHERE sequence <= ?", (until,))
    conn.execute("UPDATE beginning SET sequence = ?, hash = ?, is_archive = ?", (until, hashed, is_archive))


@pytest.mark.parametrize("is_archive", [0, 1])
def test_a_beginning_that_nobody_archived_is_a_gap(folder, conn, is_archive):
    cut(conn, 5, is_archive=is_archive)
    assert verify(folder).output.startswith("entry 1: gap: entries 1 to 5 are missing")
    with pytest.raises(StartRefused, match="its first entry was changed"):
        prepare(folder)


def test_a_beginning_that_is_none_is_a_gap(folder, conn):
    archive(folder)
    conn.execute("UPDATE beginning SET hash = 'text'")
    assert verify(folder).output.startswith(f"entry 1: gap: entries 1 to {OLD + 1} are missing")


def test_more_than_was_archived_is_a_gap(folder, conn):
    archive(folder)
    cut(conn, OLD + 5)
    assert verify(folder).output.startswith(f"entry 1: gap: entries 1 to {OLD + 5} are missing")


def test_only_what_was_archived_can_be_removed(folder, conn):
    archive(folder)
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute("DELETE FROM entries WHERE sequence = ?", (OLD + 2,))


def test_what_was_changed_is_not_archived(folder, conn):
    conn.execute("DROP TRIGGER entries_are_not_changed")
    conn.execute("UPDATE entries SET body = x'7b7d' WHERE sequence = 9")
    with pytest.raises(ArchiveRefused, match="entry 9: edit"):
        archive(folder)
    assert len(rows_in(live(folder))) == 1 + OLD + NEW
    assert not [one.name for one in folder.iterdir() if "old" in one.name]


def test_an_archive_that_was_changed_or_is_of_another_time_does_not_fit(folder, conn):
    archive(folder)
    with closing(sqlite.connect(folder / "old.db")) as old:
        old.execute("DROP TRIGGER entries_are_not_removed")
        old.execute("DELETE FROM entries WHERE sequence = ?", (OLD + 1,))
    found = verify(folder, "--archive", folder / "old.db")
    assert (found.exit_code, "does not go on where its archive ends" in found.output) == (1, True)


def test_nothing_that_is_there_is_overwritten_and_nothing_old_makes_no_file(folder):
    (folder / "old.db").write_text("something else")
    with pytest.raises(ArchiveRefused, match="is there already"):
        archive(folder)
    assert archive(folder, "new.db", before_micros=0) is None
    assert not (folder / "new.db").exists()
    archive(folder, "new.db")
    with pytest.raises(ArchiveRefused, match="is there already"):
        archive(folder, "new.db")


# -- kills ------------------------------------------------------------------------------------------------------------

KILLS = [("_begin", 1), ("_bring_to_disk", 1), ("_name", 1), ("_tell", 1), ("_remove", 2), ("_remove_some", 3)]


def test_a_kill_at_any_step_loses_nothing_and_the_same_command_goes_on(tmp_path_factory):
    first = tmp_path_factory.mktemp("killed")
    prepare(first)
    with closing(sqlite.connect(live(first))) as conn:
        append(conn, OLD, EARLY_MICROS)
    rows = rows_in(live(first))
    folders = [Path(shutil.copytree(first, f"{first}-{number}")) for number in range(len(KILLS))]
    cases = [f"{one}:{name}:{number}" for one, (name, number) in zip(folders, KILLS, strict=True)]
    child = audit_child.start("archive", str(LATE_MICROS), *cases)
    assert child.communicate()[0].split() == ["-9"] * len(KILLS)
    for one in folders:
        found = verify(one)
        assert found.exit_code == 0, found.output
        left = {row.sequence: row for row in rows_in(live(one)) if row.kind != "archived"}
        if (one / "old.db").exists():
            left |= {row.sequence: row for row in rows_in(one / "old.db")}
        assert [left[sequence] for sequence in sorted(left)] == rows
        part = archive(one)
        assert part.head == Head(len(rows), rows[-1].hash)
        assert rows_in(one / "old.db") == rows
        assert verify(one, "--archive", one / "old.db").exit_code == 0
        assert not list(one.glob(".*.new"))


# -- those who archive at the same moment ------------------------------------------------------------------------------


def both(first: Callable[[], Part | None], second: Callable[[], Part | None]) -> list[Part | ArchiveRefused]:
    """What two that begin together end with: each its part, or why there is none."""
    start = threading.Barrier(2, timeout=20)

    def run(one: Callable[[], Part | None]) -> Part | ArchiveRefused:
        start.wait()
        try:
            return one()
        except ArchiveRefused as refused:
            return refused

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(run, (first, second), timeout=60))


def test_of_two_audits_that_are_archived_to_one_file_at_the_same_moment_one_gets_it_and_the_other_keeps_all(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        prepare(folder)
    for number in range(ROUNDS):
        target = tmp_path / f"{number}.db"
        for folder in folders:
            with closing(sqlite.connect(live(folder))) as conn:
                append(conn, OLD, EARLY_MICROS)
        before = [rows_in(live(folder)) for folder in folders]
        ends = both(*(partial(archive, folder, str(target), before_micros=2**62) for folder in folders))
        [winner] = [place for place, end in enumerate(ends) if isinstance(end, Part)]
        assert f"{target} is there already" in str(ends[1 - winner])
        assert rows_in(target) == before[winner]
        assert rows_in(live(folders[1 - winner])) == before[1 - winner]
    assert sorted(one.name for one in tmp_path.glob("*.db")) == [f"{number}.db" for number in range(ROUNDS)]


def test_beside_another_archive_of_the_same_audit_none_is_made(folder):
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ArchiveRefused, match="another archive is being made"):
            archive(folder)
    finally:
        os.close(held)
    assert archive(folder).count == OLD + 1


def test_the_folder_of_the_audit_by_another_name_is_not_somebody_else(folder, tmp_path_factory):
    other_name = tmp_path_factory.mktemp("links") / "link"
    other_name.symlink_to(folder)
    assert archive(folder, str(other_name / "old.db")).count == OLD + 1


# -- those who go on --------------------------------------------------------------------------------------------------


def test_a_process_that_appends_meanwhile_loses_nothing(folder):
    child = audit_child.start("append", str(folder), "a", "strict")
    read = [child.stdout.readline() for _ in range(3)]
    parts = [archive(folder, name, before_micros=2**62) for name in ("0.db", "1.db")]
    read += [child.stdout.readline() for _ in range(3)]
    child.kill()
    child.communicate()
    kept = [row for name in ("0.db", "1.db", "store.audit.db") for row in rows_in(folder / name)]
    assert [row.sequence for row in kept] == list(range(1, len(kept) + 1))
    told = {audit_model.act_of(row.body).what: row.sequence for row in kept if row.kind == "act"}
    assert {line.split()[0]: int(line.split()[1]) for line in read}.items() <= told.items()
    assert parts[0].count > OLD
    assert not any(row.kind == "lost" for row in kept)
    assert verify(folder, "--archive", folder / "0.db", "--archive", folder / "1.db").exit_code == 0


def test_who_wrote_what_is_archived_now_does_not_miss_it(folder, conn):
    async def write() -> str:
        async with (
            open_audit(url_in(folder)) as file,
            running_audit(file, AuditMetrics(CollectorRegistry()), lambda: datetime.now(UTC), mode=Mode.ON) as book,
        ):
            await book.tell(an_act("before"))
            append(conn, 1, LATE_MICROS)
            archive(folder, before_micros=2**62)
            await book.tell(an_act("after"))
            return ""

    uvloop.run(write())
    assert [row.kind for row in rows_in(live(folder))] == ["archived", "act"]
    assert verify(folder).exit_code == 0


def change(folder: Path, conn: sqlite3.Connection, name: str, *, is_told: bool) -> None:
    with closing(sqlite.connect(folder / "store.db")) as database, sqlite.transaction(database, write=True):
        users.create(database, User(id=name, username=name, create_time=NOW, update_time=NOW))
        current = revision.current(database)
    act = Act(what="CreateUser", outcome="DONE", who=Who(), revisions=(Revision(current, "", "", "", ""),))
    if is_told:
        with sqlite.transaction(conn, write=True):
            audit.append(conn, [Draft(Kind.ACT, audit_model.body_of(act), 7)], now_micros=LATE_MICROS)


def test_what_archived_entries_tell_is_known_at_the_next_start(folder, conn):
    note_start(url_in(folder), version="1", mode="on", now=NOW)
    for name, is_told in (("ann", True), ("bob", False), ("cid", True)):
        change(folder, conn, name, is_told=is_told)
    archive(folder, "one.db", before_micros=2**62)
    change(folder, conn, "dan", is_told=True)
    archive(folder, "two.db", before_micros=2**62)
    change(folder, conn, "eve", is_told=False)
    prepare(folder)
    assert note_start(url_in(folder), version="1", mode="on", now=NOW) == 2
    [unseen] = [row for row in rows_in(live(folder)) if row.kind == "unattributed"]
    assert [one.name for one in audit_model.told_of(unseen.body).revisions] == ["bob", "eve"]
    assert note_start(url_in(folder), version="1", mode="on", now=NOW) == 0


def test_a_chain_without_its_beginning_still_names_its_database(folder, tmp_path_factory):
    archive(folder)
    other = tmp_path_factory.mktemp("other")
    prepare(other)
    live(folder).rename(live(other))
    assert DamageKind.FOREIGN.value in verify(other).output
    with pytest.raises(StartRefused, match="another database"):
        prepare(other)


def test_the_command_says_what_it_archived(folder):
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["audit", "archive", "--database", url_in(folder), *arguments])

    done = run(str(folder / "old.db"), "--before", "2034-01-01")
    assert (done.exit_code, done.output.splitlines()[0]) == (0, f"archived: {OLD + 1} entries")
    again = run(str(folder / "old.db"), "--before", "2034-01-01")
    assert (again.exit_code, "is there already" in again.output) == (1, True)
    none = run(str(folder / "more.db"), "--before", "2034-01-01", "--json")
    assert none.exit_code == 0, none.output
    assert '"entries": 0' in none.output
