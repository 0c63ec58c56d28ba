"""The file of records: made and checked beside its database, opened for the length of a block."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import final

from credentiald.store import migrations, sqlite
from credentiald.store.connections import Connections, trouble_is_refused

# Of a new file. Twice what SQLite takes by itself: all that is stored goes to the kernel page by page, into the log and
# out of it again, and to hand over a page costs more than what is in it.
PAGE_BYTES = 8192
_READERS = 2
# The log of a busy file is copied and begun anew by `checkpoint`. A commit does it only where that cannot keep up, for
# then it has to wait for the disk: a commit that finds so much.
_LOG_BYTES_AT_MOST = 400 * 1024 * 1024
# A shorter log is not begun anew.
_LOG_BYTES_AT_LEAST = 4 * 1024 * 1024
# So much is copied while writers wait, and for so long they wait for readers to end.
_BYTES_COPIED_IN_TURN = 1024 * 1024
_COPIES = 4
_WAIT_FOR_READERS_SECONDS = 0.03


@final
class Records(Connections):
    """The open file. Made by `open_records`, closed at the end of its block."""

    def __init__(
        self, writer: sqlite3.Connection, readers: list[sqlite3.Connection], copier: sqlite3.Connection, *, path: Path
    ) -> None:
        super().__init__(writer, readers, path=path, name="records")
        self._copier = copier
        self._page_bytes = sqlite.page_bytes_of(writer)
        self._copy_thread = ThreadPoolExecutor(1, thread_name_prefix="records-copy")

    async def checkpoint(self) -> int:
        """Copy the write-ahead log into the file, most of it beside the writers; how many pages of it were copied.

        It begins anew when all of it is copied and nobody reads in it, which under steady load is never by chance: for
        the rest a writer waits its turn. StoreUnavailable.
        """
        for _ in range(_COPIES):
            # What was written meanwhile is less each time.
            pages, copied = await self._run(self._copy_thread, self._copy)
            is_little = (pages - copied) * self._page_bytes <= _BYTES_COPIED_IN_TURN
            if is_little:
                break
        if is_little and pages * self._page_bytes >= _LOG_BYTES_AT_LEAST:
            await self._run(self._write_thread, self._begin_log_anew)
        return copied

    def _copy(self) -> tuple[int, int]:
        with trouble_is_refused(self._path):
            return sqlite.checkpoint(self._copier, "PASSIVE")

    def _begin_log_anew(self) -> None:
        with trouble_is_refused(self._path):
            sqlite.wait_at_most(self._writer, _WAIT_FOR_READERS_SECONDS)
            try:
                sqlite.checkpoint(self._writer, "RESTART")
            finally:
                sqlite.wait_at_most(self._writer, sqlite.BUSY_TIMEOUT_SECONDS)

    def _close(self) -> None:
        self._copy_thread.shutdown()
        self._copier.close()
        super()._close()


def records_path(database_path: Path) -> Path:
    """Where the records of a database are: `credentiald.records.db` beside `credentiald.db`."""
    return database_path.with_name(f"{database_path.stem}.records{database_path.suffix}")


def prepare(conn: sqlite3.Connection, database_id: str) -> None:
    """Make the tables or bring them up to date, inside the caller's write transaction. SchemaMismatch.

    Records belong to one database: users and providers of another one are none of them.
    """
    migrations.apply_pending(conn, migrations.RECORDS)
    conn.execute("INSERT INTO records_of (id, database_id) VALUES (1, ?) ON CONFLICT DO NOTHING", (database_id,))
    (found,) = conn.execute("SELECT database_id FROM records_of").fetchone()
    if found != database_id:
        raise migrations.SchemaMismatch("it holds the records of another database: move one of the two away")


@asynccontextmanager
async def open_records(url: str) -> AsyncIterator[Records]:
    """The records of the database at `url`, for the length of the block. They must have been prepared (bootstrap/).

    ValueError for a URL that is not supported, StoreUnavailable.
    """
    records = await asyncio.to_thread(_open, records_path(sqlite.database_path(url)))
    try:
        yield records
    finally:
        await records.close()


def _open(path: Path) -> Records:
    with trouble_is_refused(path), ExitStack() as opened:
        writer = sqlite.connect(path)
        opened.callback(writer.close)
        sqlite.checkpoint_every(writer, _LOG_BYTES_AT_MOST // sqlite.page_bytes_of(writer))
        readers = []
        for _ in range(_READERS):
            readers.append(sqlite.connect(path, query_only=True))
            opened.callback(readers[-1].close)
        copier = sqlite.connect(path)
        opened.callback(copier.close)
        records = Records(writer, readers, copier, path=path)
        opened.pop_all()
        return records
