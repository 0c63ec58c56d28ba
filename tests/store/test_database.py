"""The seam between the event loop and SQLite, on real files."""

import asyncio
import sqlite3
import threading
import time

import pytest

from credentiald import bootstrap
from credentiald.errors import AlreadyExists, StoreUnavailable
from credentiald.store import migrations, revision, users
from credentiald.store.database import open_database
from tests.support.store import NOW, a_user, empty_store


@pytest.fixture
def prepared(tmp_path):
    return bootstrap.prepare(f"sqlite:///{tmp_path}/store.db", None, now=NOW)


@pytest.fixture
async def database(prepared):
    async with open_database(f"sqlite:///{prepared.database_path}", prepared.sealer) as opened:
        yield opened


def thread_name(conn):
    return threading.current_thread().name


async def test_what_was_written_is_read(database):
    written = await database.write(users.create, a_user("alice"))
    assert await database.read(users.get, "alice") == written


async def test_an_exception_rolls_all_of_a_write_back_and_reaches_the_caller(database):
    before = await database.read(revision.current)

    def two_users(conn):
        users.create(conn, a_user("alice"))
        users.create(conn, a_user("ALICE"))

    with pytest.raises(AlreadyExists):
        await database.write(two_users)
    assert await database.read(users.find, "alice") is None
    assert await database.read(revision.current) == before
    await database.write(users.create, a_user("alice"))


async def test_a_read_cannot_write(database):
    with pytest.raises(StoreUnavailable):
        await database.read(users.create, a_user("alice"))
    assert await database.read(users.find, "alice") is None


async def test_a_commit_waits_for_the_disk_but_for_one_that_says_that_it_need_not(database):
    def synchronous(conn):
        return conn.execute("PRAGMA synchronous").fetchone()[0]

    def failing(conn):
        raise ValueError

    # sqlite.org/pragma.html#pragma_synchronous: 1 is NORMAL, 2 is FULL.
    assert [await database.write(synchronous), await database.write_unsynced(synchronous)] == [2, 1]
    with pytest.raises(ValueError):
        await database.write_unsynced(failing)
    assert await database.write(synchronous) == 2


async def test_what_does_not_wait_for_the_disk_is_seen_by_others_all_the_same(prepared, database):
    state = database.state()
    await database.write_unsynced(users.create, a_user("alice"))
    assert database.state() != state
    async with open_database(f"sqlite:///{prepared.database_path}", prepared.sealer) as another:
        assert await another.read(users.find, "alice") is not None


async def test_queries_never_run_on_the_thread_of_the_loop(database):
    assert (await database.read(thread_name)).startswith("store-read")
    assert (await database.write(thread_name)).startswith("store-write")


async def test_one_read_sees_one_snapshot_while_a_write_commits(database):
    reading, written = threading.Event(), threading.Event()

    def read_twice(conn):
        before = users.find(conn, "alice")
        reading.set()
        assert written.wait(5)
        return before, users.find(conn, "alice")

    both = asyncio.create_task(database.read(read_twice))
    await asyncio.to_thread(reading.wait, 5)
    await database.write(users.create, a_user("alice"))
    assert await database.read(users.find, "alice") is not None
    written.set()
    assert await both == (None, None)


async def test_readers_do_not_wait_for_a_write_that_takes_its_time(database):
    writing, release = threading.Event(), threading.Event()

    def slow_write(conn):
        users.create(conn, a_user("alice"))
        writing.set()
        assert release.wait(5)

    write = asyncio.create_task(database.write(slow_write))
    await asyncio.to_thread(writing.wait, 5)
    assert await asyncio.gather(*(database.read(users.find, "alice") for _ in range(20))) == [None] * 20
    release.set()
    await write
    assert await database.read(users.find, "alice") is not None


async def test_the_loop_runs_on_while_the_store_is_busy(database):
    release = threading.Event()
    reads = [asyncio.create_task(database.read(lambda conn: release.wait(5))) for _ in range(10)]
    writes = [asyncio.create_task(database.write(lambda conn: release.wait(5)))]
    started = time.monotonic()
    for _ in range(100):
        await asyncio.sleep(0)
    assert time.monotonic() - started < 1
    release.set()
    assert all(await asyncio.gather(*reads, *writes))


async def test_concurrent_writes_are_all_there_and_numbered_without_a_gap(database):
    before = await database.read(revision.current)
    await asyncio.gather(*(database.write(users.create, a_user(f"user-{n}")) for n in range(50)))
    assert len(await database.read(users.list_page, after=None, limit=100)) == 50
    assert await database.read(revision.current) == before + 50


async def test_a_write_whose_task_is_cancelled_before_the_commit_changes_nothing(database):
    writing, release = threading.Event(), threading.Event()

    def slow_write(conn):
        writing.set()
        assert release.wait(5)
        return users.create(conn, a_user("alice"))

    task = asyncio.create_task(database.write(slow_write))
    await asyncio.to_thread(writing.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await database.write(users.create, a_user("bob"))
    assert await database.read(users.find, "alice") is None


async def test_a_write_that_has_not_begun_is_dropped_when_its_task_is_cancelled(database):
    writing, release = threading.Event(), threading.Event()

    def slow_write(conn):
        writing.set()
        assert release.wait(5)

    first = asyncio.create_task(database.write(slow_write))
    await asyncio.to_thread(writing.wait, 5)
    second = asyncio.create_task(database.write(users.create, a_user("alice")))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    await first
    await database.write(users.create, a_user("bob"))
    assert await database.read(users.find, "alice") is None


async def test_closing_finishes_writes_that_were_asked_for(prepared):
    url = f"sqlite:///{prepared.database_path}"
    writing, release = threading.Event(), threading.Event()

    def slow_write(conn):
        writing.set()
        assert release.wait(5)
        users.create(conn, a_user("alice"))

    async with open_database(url, prepared.sealer) as database:
        write = asyncio.create_task(database.write(slow_write))
        await asyncio.to_thread(writing.wait, 5)
        asyncio.get_running_loop().call_soon(release.set)
    await write
    async with open_database(url, prepared.sealer) as database:
        assert await database.read(users.find, "alice") is not None


async def test_a_closed_database_is_unavailable(prepared):
    async with open_database(f"sqlite:///{prepared.database_path}", prepared.sealer) as database:
        await database.ping()
    for ask in (database.ping(), database.read(revision.current), database.write(revision.current)):
        with pytest.raises(StoreUnavailable):
            await ask


async def test_a_lock_that_is_not_given_up_is_unavailable_and_logged_once(database, prepared, caplog):
    def impatient(conn):
        conn.execute("PRAGMA busy_timeout = 1")

    await database.write(impatient)
    with sqlite3.connect(prepared.database_path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable) as refused:
            await database.write(users.create, a_user("alice"))
        assert await database.read(users.find, "alice") is None
        other.execute("ROLLBACK")
    other.close()
    assert isinstance(refused.value.__cause__, sqlite3.OperationalError)
    assert [(record.message, record.sqlite_error) for record in caplog.records] == [
        ("the store does not answer", "SQLITE_BUSY")
    ]
    await database.write(users.create, a_user("alice"))


async def test_a_damaged_file_is_unavailable(prepared):
    content = bytearray(prepared.database_path.read_bytes())
    async with open_database(f"sqlite:///{prepared.database_path}", prepared.sealer) as database:
        await database.ping()
        prepared.database_path.write_bytes(bytes(reversed(content)))
        with pytest.raises(StoreUnavailable):
            await database.read(lambda conn: conn.execute("SELECT * FROM services, change_log").fetchall())
        prepared.database_path.write_bytes(content)


async def test_a_full_disk_is_unavailable_and_the_write_is_undone(database):
    def fill(conn):
        (pages,) = conn.execute("PRAGMA page_count").fetchone()
        conn.execute(f"PRAGMA max_page_count = {pages}")

    def many_users(conn):
        for number in range(5000):
            users.create(conn, a_user(f"user-{number}"))

    before = await database.read(revision.current)
    await database.write(fill)
    with pytest.raises(StoreUnavailable) as refused:
        await database.write(many_users)
    assert "full" in str(refused.value.__cause__)
    assert await database.read(revision.current) == before


@pytest.mark.parametrize("sql", ["INSERT INTO meta DEFAULT VALUES", "SELECT ?"])
async def test_a_statement_that_is_wrong_is_a_bug_and_no_trouble_of_the_store(database, sql):
    with pytest.raises((sqlite3.IntegrityError, sqlite3.ProgrammingError)):
        await database.write(lambda conn: conn.execute(sql))
    await database.write(users.create, a_user("alice"))


async def test_a_deletion_is_seen_at_once_by_every_reader(database):
    await database.write(users.create, a_user("alice"))
    await database.write(users.delete, "alice", now=NOW)
    assert await asyncio.gather(*(database.read(users.find, "alice") for _ in range(8))) == [None] * 8


async def test_identity_and_derived_keys_survive_a_restart(prepared):
    seen = set()
    for _ in range(2):
        async with open_database(f"sqlite:///{prepared.database_path}", prepared.sealer) as database:
            seen.add((database.database_id, database.deployment_key("receipts")))
            assert database.deployment_key("pages") != database.deployment_key("receipts")
            assert database.deployment_key("receipts").hex() not in repr(vars(database))
    assert len(seen) == 1


async def test_two_processes_worth_of_connections_share_one_database(prepared):
    url = f"sqlite:///{prepared.database_path}"
    async with open_database(url, prepared.sealer) as one, open_database(url, prepared.sealer) as two:
        before = await one.read(revision.current)
        await asyncio.gather(
            *(database.write(users.create, a_user(f"u{n}")) for n, database in enumerate((one, two) * 10))
        )
        assert await one.read(revision.current) == await two.read(revision.current) == before + 20


async def test_a_database_that_was_not_prepared_is_not_opened(tmp_path, prepared):
    with empty_store(tmp_path / "schema-only.db"):
        pass
    (tmp_path / "empty.db").touch()
    for name in ("schema-only.db", "empty.db"):
        with pytest.raises(migrations.SchemaMismatch):
            async with open_database(f"sqlite:///{tmp_path}/{name}", prepared.sealer):
                pass
    with pytest.raises(StoreUnavailable):
        async with open_database(f"sqlite:///{tmp_path}/missing.db", prepared.sealer):
            pass
    assert not (tmp_path / "missing.db").exists()


async def test_the_settings_of_the_connections_are_the_promised_ones(database):
    def pragmas(conn):
        return [
            conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")
        ]

    assert await database.write(pragmas) == ["wal", 2, 1]
    assert await database.read(pragmas) == ["wal", 2, 1]


async def test_the_state_stays_while_nothing_is_committed_and_moves_with_every_commit(database):
    states = [database.state()]
    await database.read(users.find, "alice")
    assert database.state() == states[0]
    for name in ("alice", "bob"):
        await database.write(users.create, a_user(name))
        states.append(database.state())
    assert len(set(states)) == 3
    await database.read(users.get, "alice")
    assert database.state() == states[-1]


async def test_the_state_moves_with_the_commits_of_others_on_the_same_file(prepared):
    url = f"sqlite:///{prepared.database_path}"
    async with open_database(url, prepared.sealer) as one, open_database(url, prepared.sealer) as two:
        before = one.state()
        await two.write(users.create, a_user("alice"))
        after = one.state()
        assert after != before
        assert one.state() == after


async def test_a_write_that_failed_may_move_the_state_and_never_leaves_an_older_one(database):
    before = database.state()
    with pytest.raises(AlreadyExists):
        await database.write(lambda conn: [users.create(conn, a_user("alice")) for _ in range(2)])
    assert database.state() >= before


async def test_asking_for_the_state_holds_no_snapshot(database, prepared):
    database.state()
    await database.write(users.create, a_user("alice"))
    with sqlite3.connect(prepared.database_path, isolation_level=None) as other:
        busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    other.close()
    assert busy == 0


async def test_a_closed_database_has_no_state(prepared):
    async with open_database(f"sqlite:///{prepared.database_path}", prepared.sealer) as database:
        pass
    with pytest.raises(StoreUnavailable):
        database.state()
