"""The file of records: made and checked beside its database, opened for the length of a block."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import final

from credentiald.store import migrations, sqlite
from credentiald.store.connections import Connections, trouble_is_refused

_READERS = 2
# The same pages are written by one batch after the other: the fewer checkpoints, the fewer times into the file.
_CHECKPOINT_PAGES = 4000


@final
class Records(Connections):
    """The open file. Made by `open_records`, closed at the end of its block."""


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
    """The records of the database at `url`, for the length of the block. They must have been prepared (bootstrap.py).

    ValueError for a URL that is not supported, StoreUnavailable.
    """
    records = await asyncio.to_thread(_open, records_path(sqlite.database_path(url)))
    try:
        yield records
    finally:
        await records.close()


def _open(path: Path) -> Records:
    with trouble_is_refused(), ExitStack() as opened:
        writer = sqlite.connect(path)
        opened.callback(writer.close)
        sqlite.checkpoint_every(writer, _CHECKPOINT_PAGES)
        readers = []
        for _ in range(_READERS):
            readers.append(sqlite.connect(path, query_only=True))
            opened.callback(readers[-1].close)
        records = Records(writer, readers, name="records")
        opened.pop_all()
        return records
