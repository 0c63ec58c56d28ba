"""The write-ahead log of the records: copied beside the writers, and begun anew when nobody reads in it."""

from contextlib import asynccontextmanager, closing

import pytest

from credentiald.errors import StoreUnavailable
from credentiald.store import record_writing, records, sqlite
from credentiald.store.record_writing import Batch
from tests.support.records import a_prompt, a_report, empty_records

PAGES = 2000


@asynccontextmanager
async def open_in(folder, page_bytes=records.PAGE_BYTES):
    """Open records in an empty folder, and another connection to their file."""
    path = records.records_path(folder / "credentiald.db")
    path.touch(mode=0o600)
    with closing(sqlite.connect(path, page_bytes=page_bytes)), empty_records(path):
        pass
    async with records.open_records(f"sqlite:///{folder / 'credentiald.db'}") as one:
        with closing(sqlite.connect(path)) as other:
            yield one, other


async def write(one, first, count=PAGES):
    reports = [a_report(number, prompts=(a_prompt("x" * 4096),)) for number in range(first, first + count)]
    await one.write(record_writing.store, Batch(reports=reports))


def log_of(conn):
    return sqlite.checkpoint(conn, "PASSIVE")


def count_of(conn):
    return conn.execute("SELECT COUNT(*) FROM prompts").fetchone()[0]


# As SQLite makes them by itself, too: older files have such pages.
@pytest.mark.parametrize("page_bytes", [4096, records.PAGE_BYTES])
async def test_a_commit_does_not_copy_the_log_and_a_checkpoint_does_and_begins_it_anew(tmp_path, page_bytes):
    async with open_in(tmp_path, page_bytes) as (one, other):
        assert sqlite.page_bytes_of(other) == page_bytes
        await write(one, 0)
        size = (tmp_path / "credentiald.records.db").stat().st_size
        assert size < PAGES * page_bytes
        assert await one.checkpoint() >= PAGES
        assert (tmp_path / "credentiald.records.db").stat().st_size >= PAGES * page_bytes
        await write(one, PAGES, 1)
        pages, _ = log_of(other)
        assert 0 < pages < 100


async def test_who_reads_in_the_log_neither_loses_it_nor_stops_writers_and_it_is_begun_anew_later(tmp_path):
    async with open_in(tmp_path) as (one, other):
        await write(one, 0)
        other.execute("BEGIN")
        assert count_of(other) == PAGES
        await write(one, PAGES)
        await one.checkpoint()
        assert count_of(other) == PAGES
        await write(one, 2 * PAGES, 1)
        other.execute("COMMIT")
        assert log_of(other)[0] > 2 * PAGES
        await one.checkpoint()
        await write(one, 3 * PAGES, 1)
        assert log_of(other)[0] < 100
        assert count_of(other) == 2 * PAGES + 2


async def test_nothing_is_written_into_a_file_that_is_not_in_its_place_any_more(tmp_path, caplog):
    path, aside = tmp_path / "credentiald.records.db", tmp_path / "aside.db"
    async with open_in(tmp_path) as (one, other):
        await write(one, 0, 1)
        path.rename(aside)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await write(one, 1, 1)
            path.write_bytes(b"another")
        assert {record.file for record in caplog.records} == {str(path)}
        assert "removed or replaced" in caplog.text
        aside.replace(path)
        await write(one, 2, 1)
        assert count_of(other) == 2
