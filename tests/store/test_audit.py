"""The file of the audit: appended to only, by several processes at once, whatever kills them or fills the disk."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry

from credentiald import audit_model, bootstrap
from credentiald.audit_book import Mode, running_audit
from credentiald.audit_chain import NO_HASH, Head, Verdict, hash_of
from credentiald.audit_metrics import AuditMetrics
from credentiald.audit_model import Act, Draft, Kind, Revision, Who
from credentiald.bootstrap.audit_start import note_start
from credentiald.bootstrap.first_services import renew_tokens
from credentiald.bootstrap.refusals import StartRefused
from credentiald.cli.root import cli
from credentiald.model import User
from credentiald.store import audit, audit_archive, audit_heads, revision, sqlite, users
from credentiald.store.audit import open_audit
from credentiald.store.migrations import SchemaMismatch
from tests.support import audit_child
from tests.support.audit_child import an_act, prepare, together, url_in
from tests.support.store import MISSING_ID, NOW

ROUNDS = 4


def path_in(folder: Path) -> Path:
    return folder / "store.audit.db"


def followed(folder: Path, expected: Head | None = None) -> Verdict:
    return audit.verify(path_in(folder), expected=expected, database_id=None)


@pytest.fixture
def folder(tmp_path) -> Path:
    prepare(tmp_path)
    return tmp_path


@pytest.fixture
def conn(folder) -> Iterator[sqlite3.Connection]:
    with closing(sqlite.connect(path_in(folder))) as opened:
        yield opened


def append(conn: sqlite3.Connection, *names: str) -> Head:
    with sqlite.transaction(conn, write=True):
        audit.append(conn, [an_act(name) for name in names], now_micros=7)
    return audit.head_of(conn)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = x'00' WHERE sequence = 1",
        "DELETE FROM entries WHERE sequence = 2",
        "DELETE FROM entries",
        "INSERT OR REPLACE INTO entries VALUES (1, 1, 1, 'act', x'00', x'00')",
        "INSERT INTO entries VALUES (9, 1, 1, 'act', x'00', x'00')",
    ],
)
def test_no_statement_changes_or_removes_an_entry_or_leaves_one_out(conn, folder, statement):
    append(conn, "one", "two")
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute(statement)
    assert followed(folder).damage is None


def test_the_file_is_its_owners_alone_and_begins_with_its_database(folder):
    assert path_in(folder).stat().st_mode & 0o777 == 0o600
    with closing(sqlite.connect(folder / "store.db")) as database:
        [(database_id,)] = database.execute("SELECT database_id FROM meta").fetchall()
    verdict = followed(folder)
    assert (verdict.damage, verdict.database_id, verdict.kinds) == (None, database_id, {"genesis": 1})


def test_the_audit_of_another_database_is_refused(conn):
    with pytest.raises(SchemaMismatch, match="another database"):
        audit.prepare(conn, MISSING_ID, current_revision=1, now_micros=1)


def test_many_acts_that_are_told_at_once_share_commits_also_on_uvloop(folder):
    registry = CollectorRegistry()

    async def tell() -> list[int]:
        async with (
            open_audit(url_in(folder)) as file,
            running_audit(file, AuditMetrics(registry), lambda: datetime.now(UTC), mode=Mode.ON) as book,
        ):
            return await together(book) + await together(book)

    assert uvloop.run(tell()) == list(range(2, 102))
    assert registry.get_sample_value("credentiald_audit_write_duration_seconds_count") < 20
    assert registry.get_sample_value("credentiald_audit_entries_total", {"kind": "act"}) == 100


def test_processes_that_append_at_once_and_are_killed_leave_one_whole_chain(folder):
    chance = random.Random(20261122)
    acknowledged: dict[str, int] = {}
    for number in range(ROUNDS):
        children = [audit_child.start("append", str(folder), f"{number}-{name}", "on") for name in "ab"]
        read = [child.stdout.readline() for child in children for _ in range(chance.randint(1, 25))]
        for child in children:
            child.kill()
        # What was printed before the kill was acknowledged too; a cut last line was not read in full.
        read += [line for child in children for line in child.stdout]
        for child in children:
            child.communicate()
        acknowledged |= {line.split()[0]: int(line.split()[1]) for line in read if line.endswith("\n")}
    verdict = followed(folder)
    assert verdict.damage is None
    with closing(sqlite.connect(path_in(folder))) as conn:
        rows = conn.execute("SELECT sequence, body FROM entries WHERE kind = 'act'").fetchall()
    told = {audit_model.act_of(body).what: sequence for sequence, body in rows}
    assert len(acknowledged) > 2 * ROUNDS
    assert acknowledged.items() <= told.items()
    assert verdict.kinds["release"] > 0


def test_a_full_disk_loses_nothing_and_is_written_when_there_is_room(folder):
    child = audit_child.start("fill", str(folder))
    word, acknowledged, waiting, lost = child.communicate()[0].split()
    assert (word, lost) == ("full", "0")
    assert int(waiting) > 0
    verdict = followed(folder)
    assert verdict.damage is None
    with closing(sqlite.connect(path_in(folder))) as conn:
        bodies = conn.execute("SELECT body FROM entries WHERE kind = 'release'").fetchall()
    assert verdict.kinds["act"] >= int(acknowledged)
    assert sum(audit_model.common(body)[1] for (body,) in bodies) == 1000 * verdict.kinds["act"]


# -- what was changed unseen ------------------------------------------------------------------------------------------


def change(folder: Path, name: str) -> None:
    """A change of the database that nobody tells the audit of."""
    with closing(sqlite.connect(folder / "store.db")) as conn, sqlite.transaction(conn, write=True):
        users.create(conn, User(id=name, username=name, create_time=NOW, update_time=NOW))


def started(folder: Path) -> list[str]:
    """Note a start; the names of what was changed unseen, as the audit has it."""
    count = note_start(url_in(folder), version="1", mode="on", now=NOW)
    with closing(sqlite.connect(path_in(folder))) as conn:
        kinds = conn.execute("SELECT kind, body FROM entries ORDER BY sequence DESC LIMIT 2").fetchall()
    assert kinds[0]["kind"] == "start"
    if kinds[1]["kind"] != "unattributed":
        assert count == 0
        return []
    found = [one.name for one in audit_model.told_of(kinds[1]["body"]).revisions]
    assert count == len(found)
    return found


def test_what_was_changed_while_nobody_audited_is_told_at_the_next_start_and_once(folder):
    assert started(folder) == []
    change(folder, "ann")
    change(folder, "bob")
    assert started(folder) == ["ann", "bob"]
    assert started(folder) == []
    renew_tokens(bootstrap.prepare(url_in(folder), None, now=NOW).database_path, now=NOW)
    assert started(folder) == ["admin", "bridge"]
    assert followed(folder).damage is None


def test_all_that_was_changed_is_told_however_much_it_was(folder):
    started(folder)
    with closing(sqlite.connect(folder / "store.db")) as conn, sqlite.transaction(conn, write=True):
        for number in range(1001):
            users.create(conn, User(id=f"u{number}", username=f"u{number}", create_time=NOW, update_time=NOW))
    assert note_start(url_in(folder), version="1", mode="on", now=NOW) == 1001
    with closing(sqlite.connect(path_in(folder))) as conn:
        bodies = conn.execute("SELECT body FROM entries WHERE kind = 'unattributed'").fetchall()
    assert sum(len(audit_model.told_of(body).revisions) for (body,) in bodies) == 1001


def test_an_act_is_known_however_many_came_before_it(conn, folder):
    started(folder)
    change(folder, "ann")
    with closing(sqlite.connect(folder / "store.db")) as database:
        current = revision.current(database)
    act = Act(what="CreateUser", outcome="DONE", who=Who(), revisions=(Revision(current, "", "", "", ""),))
    with sqlite.transaction(conn, write=True):
        audit.append(conn, [an_act("another")] * 20_000, now_micros=7)
        audit.append(conn, [Draft(Kind.ACT, audit_model.body_of(act), 7)], now_micros=7)
    assert started(folder) == []


@pytest.mark.parametrize("body", ["x'00'", "x'7b7d5b'", "7", "'{}'"])
def test_damage_is_found_by_verify_and_is_no_reason_not_to_start(conn, folder, body):
    started(folder)
    change(folder, "ann")
    append(conn, "one")
    started(folder)
    change(folder, "bob")
    append(conn, "two")
    conn.execute("DROP TRIGGER entries_are_not_changed")
    # The latest start, and the act after it.
    last = audit.head_of(conn).sequence
    conn.execute(f"UPDATE entries SET body = {body} WHERE sequence >= {last - 1}")
    assert "bob" in started(folder)
    assert followed(folder).damage.sequence == last - 1
    conn.execute(f"UPDATE entries SET body = {body} WHERE sequence = 1")
    with pytest.raises(StartRefused, match="its first entry was changed"):
        prepare(folder)


def test_a_chain_that_begins_anew_beside_an_old_database_is_in_the_log(folder, caplog):
    prepare(folder)
    assert "a new chain begins" not in caplog.text
    path_in(folder).unlink()
    prepare(folder)
    assert "there is no audit beside the database: a new chain begins" in caplog.text


@pytest.mark.parametrize("how", ["moved away", "cut off", "put in its place"])
def test_a_file_that_does_not_hold_what_the_database_knows_is_missed(folder, conn, how, caplog):
    started(folder)
    gone = append(conn, "one", "two")
    # As when credentiald stops.
    with closing(sqlite.connect(folder / "store.db")) as database, sqlite.transaction(database, write=True):
        audit_heads.note_later(database, gone)
    assert verify(folder).exit_code == 0
    if how == "cut off":
        conn.execute("DROP TRIGGER entries_are_not_removed")
        conn.execute("DELETE FROM entries WHERE sequence >= ?", (gone.sequence,))
    else:
        conn.close()
        path_in(folder).unlink()
        prepare(folder)
    if how == "put in its place":
        with closing(sqlite.connect(path_in(folder))) as other:
            append(other, *"abcdef")
    found = verify(folder)
    assert (found.exit_code, found.output.splitlines()[-1].startswith(f"missing: the database knows of {gone}")) == (
        1,
        True,
    )
    with pytest.raises(StartRefused, match="put that file back"):
        note_start(url_in(folder), version="1", mode="strict", now=NOW)
    note_start(url_in(folder), version="1", mode="on", now=NOW)
    assert "entries of the audit are gone" in caplog.text
    with closing(sqlite.connect(path_in(folder))) as left:
        [(body,)] = left.execute("SELECT body FROM entries WHERE kind = 'lost'").fetchall()
    assert audit_model.told_of(body).head == str(gone)
    assert verify(folder).exit_code == 0
    note_start(url_in(folder), version="1", mode="strict", now=NOW)


def test_what_was_archived_since_is_not_missed(folder, conn):
    started(folder)
    append(conn, "one")
    audit_archive.archive(path_in(folder), folder / "old.db", before_micros=2**62, by="me", now_micros=lambda: 8)
    assert verify(folder).exit_code == 0
    note_start(url_in(folder), version="1", mode="strict", now=NOW)


# -- the command ------------------------------------------------------------------------------------------------------


def verify(folder: Path, *arguments: str) -> Result:
    # Beside whatever else has it open, as the daemon would.
    with closing(sqlite.connect(path_in(folder))) as conn:
        conn.execute("SELECT 1 FROM entries").fetchone()
        return CliRunner().invoke(cli, ["audit", "verify", str(path_in(folder)), *arguments])


def test_the_command_says_that_a_chain_is_whole_and_where_it_ends(conn, folder):
    head = append(conn, "one", "two")
    found = verify(folder, "--head", str(head))
    assert (found.exit_code, found.output) == (0, f"whole: 3 entries (1 genesis, 2 act)\nhead: {head}\n")


@pytest.mark.parametrize("kind", ["act", "genesis"])
def test_what_somebody_wrote_into_the_file_cannot_steer_the_terminal(conn, folder, kind):
    append(conn, "one")
    rows = conn.execute("SELECT * FROM entries ORDER BY sequence").fetchall()
    for [name] in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        conn.execute(f"DROP TRIGGER {name}")
    previous = NO_HASH
    for row in rows:
        changed = row["kind"] == kind
        entry = row["kind"] + "\x1b]0;owned\x07" if changed and kind == "act" else row["kind"]
        body = rb'{"database_id":"\u001b]0;owned\u0007"}' if changed and kind == "genesis" else row["body"]
        previous = hash_of(previous, row["sequence"], row["time"], row["from_time"], entry, body)
        values = (entry, body, previous, row["sequence"])
        conn.execute("UPDATE entries SET kind = ?, body = ?, hash = ? WHERE sequence = ?", values)
    arguments = () if kind == "act" else ("--database", url_in(folder))
    found = verify(folder, *arguments)
    assert found.exit_code == (kind == "genesis")
    assert "\\x1b]0;owned\\x07" in found.output
    assert found.output.replace("\n", "").isprintable()


DAMAGES = {
    "edit": "UPDATE entries SET body = x'7b7d' WHERE sequence = 3",
    "gap": "DELETE FROM entries WHERE sequence = 3",
    "reorder": "UPDATE entries SET sequence = CASE sequence WHEN 3 THEN -4 ELSE -3 END WHERE sequence IN (3, 4);"
    " UPDATE entries SET sequence = -sequence WHERE sequence < 0",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_command_names_the_first_entry_that_is_not_as_it_was_written(conn, folder, kind):
    append(conn, *"abcdef")
    for [name] in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        conn.execute(f"DROP TRIGGER {name}")
    conn.executescript(DAMAGES[kind])
    found = verify(folder)
    assert found.exit_code == 1
    assert found.output.startswith(f"entry 3: {kind}: ")


def test_the_command_finds_a_cut_end_and_a_foreign_beginning(conn, folder, tmp_path_factory):
    head = append(conn, "one")
    cut = Head(head.sequence + 1, head.hash)
    assert verify(folder, "--head", str(cut)).output.startswith("entry 3: truncation: ")
    other = tmp_path_factory.mktemp("other")
    prepare(other)
    conn.close()
    path_in(folder).rename(path_in(other))
    found = verify(other)
    assert (found.exit_code, found.output.split(":")[1]) == (1, " foreign genesis")


def test_the_command_reads_a_file_at_rest_without_making_another_and_refuses_what_is_none(folder):
    before = sorted(folder.iterdir())
    found = CliRunner().invoke(cli, ["audit", "verify", str(path_in(folder))])
    assert found.exit_code == 0
    assert sorted(folder.iterdir()) == before
    for arguments in (["verify", str(folder / "nothing.db")], ["verify", str(folder / "credentiald.sealing")]):
        assert CliRunner().invoke(cli, ["audit", *arguments]).exit_code == 1
    assert CliRunner().invoke(cli, ["audit", "verify", str(path_in(folder)), "--head", "7"]).exit_code == 2


@pytest.mark.parametrize("head", ["", "0:" + "0" * 64, "1:" + "0 " * 32])
def test_a_head_that_says_nothing_is_not_taken_for_one_that_fits(folder, head):
    assert verify(folder, "--head", head).exit_code == 2
