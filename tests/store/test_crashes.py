"""kill -9 anywhere: what was acknowledged is there, and the next start works."""

import random
import sqlite3
from pathlib import Path

import pytest

from credentiald import bootstrap, tokens
from credentiald.bootstrap.refusals import StartRefused
from credentiald.model import Role
from credentiald.store import meta, revision, services, sqlite, users
from tests.support import store_child
from tests.support.store import NOW, changes_of

CRASHES = 48
LINES_BETWEEN_CRASHES = 34
ROUNDS = 15


def assert_complete(folder: Path) -> None:
    """The database is whole, and the files beside it are the ones that belong to it."""
    files = {file.name for file in folder.iterdir()}
    assert {"store.db", "credentiald.sealing", "credentiald.admin-token", "credentiald.bridge-token"} <= files
    assert not [name for name in files if name.endswith(".new")]
    conn = sqlite.connect(folder / "store.db")
    try:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert meta.find(conn) is not None
        for name, role in (("admin", Role.ADMIN), ("bridge", Role.BRIDGE)):
            token = (folder / f"credentiald.{name}-token").read_text().strip()
            service = services.by_hash(conn, tokens.hash_of(token))
            assert service is not None
            assert (service.name, service.role) == (name, role)
        records = sqlite.connect(folder / "store.records.db", query_only=True)
        [(of,)] = records.execute("SELECT database_id FROM records_of").fetchall()
        records.close()
        assert of == meta.find(conn).database_id
        assert [change[1:2] + change[3:] for change in changes_of(conn)] == [
            ("service.created", "admin"),
            ("service.created", "bridge"),
        ]
    finally:
        conn.close()


def test_a_start_after_a_crash_at_any_point_of_the_first_start_makes_the_database(tmp_path):
    folders = [tmp_path / str(number) for number in range(CRASHES)]
    for folder in folders:
        folder.mkdir()
    child = store_child.start("crash", str(LINES_BETWEEN_CRASHES), *map(str, folders))
    died = int(child.communicate()[0])
    # The last ones got to the end, so the points reach from the first line to the last.
    assert died in range(CRASHES // 2, CRASHES)
    created = [bootstrap.prepare(store_child.url_in(folder), None, now=NOW).created for folder in folders]
    assert created[0] is True
    assert created[-1] is False
    for folder in folders:
        assert_complete(folder)


def test_a_crash_of_the_first_start_keeps_the_files_that_were_made(tmp_path):
    (tmp_path / "credentiald.sealing").write_text("k1:" + "A" * 43 + "=\n")
    admin_token = tokens.mint(tokens.SERVICE_PREFIX).reveal()
    (tmp_path / "credentiald.admin-token").write_text(admin_token)
    (tmp_path / ".credentiald.bridge-token.new").write_text("half a tok")
    prepared = bootstrap.prepare(store_child.url_in(tmp_path), None, now=NOW)
    assert prepared.created
    assert prepared.sealer.key_ids == ("k1",)
    assert (tmp_path / "credentiald.admin-token").read_text() == admin_token
    assert_complete(tmp_path)


def test_of_processes_that_start_at_once_one_makes_the_database_and_the_others_find_it(tmp_path):
    children = [store_child.start("prepare") for _ in range(4)]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for number in range(12):
            folder = tmp_path / str(number)
            folder.mkdir()
            for child in children:
                child.stdin.write(f"{folder}\n")
            answers = sorted(child.stdout.readline() for child in children)
            assert answers == ["created\n", "found\n", "found\n", "found\n"]
            assert_complete(folder)
    finally:
        for child in children:
            child.communicate()


def test_every_acknowledged_write_survives_kill_9(tmp_path):
    acknowledged: list[str] = []
    chance = random.Random(20261121)
    for number in range(ROUNDS):
        child = store_child.start("write", str(tmp_path), str(number * 1_000_000))
        acknowledged += [child.stdout.readline().strip() for _ in range(chance.randint(1, 60))]
        child.kill()
        # What was printed before the kill was acknowledged too; a cut last line was not read in full. `communicate`
        # would not give what has been read ahead of the lines that were asked for.
        acknowledged += [line.strip() for line in child.stdout if line.endswith("\n")]
        child.communicate()
    assert len(acknowledged) >= ROUNDS
    conn = sqlite.connect(tmp_path / "store.db")
    try:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert [name for name in acknowledged if users.find(conn, name) is None] == []
        (kept,) = conn.execute("SELECT count(*) FROM users").fetchone()
        assert kept - len(acknowledged) in range(4 * ROUNDS + 1)
        assert revision.current(conn) == len(changes_of(conn)) == kept + 2
    finally:
        conn.close()


def test_a_first_write_that_a_crash_left_in_a_rollback_journal_is_undone(tmp_path):
    # What SQLite has on the disk in the middle of the very first write: pages changed, the journal not yet deleted.
    path = tmp_path / "store.db"
    writing = sqlite3.connect(path, isolation_level=None)
    writing.execute("CREATE TABLE before_the_crash (id)")
    writing.execute("PRAGMA cache_size = 1")
    writing.execute("PRAGMA cache_spill = 1")
    writing.execute("BEGIN")
    writing.execute("DROP TABLE before_the_crash")
    for number in range(50):
        writing.execute(f"CREATE TABLE crashed_{number} (id)")
    crashed, journal = path.read_bytes(), Path(f"{path}-journal").read_bytes()
    writing.execute("ROLLBACK")
    writing.close()
    path.write_bytes(crashed)
    Path(f"{path}-journal").write_bytes(journal)
    with pytest.raises(StartRefused, match="another program"):
        bootstrap.prepare(store_child.url_in(tmp_path), None, now=NOW)
    conn = sqlite3.connect(path)
    assert [row[0] for row in conn.execute("SELECT name FROM sqlite_master").fetchall()] == ["before_the_crash"]
    conn.close()
