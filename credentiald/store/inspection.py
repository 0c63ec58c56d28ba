"""Looking into a database without changing anything, whoever may be at work in it.

SQLite has no single way to do this: a reader of a database in write-ahead logging makes -wal and -shm files and
rebuilds the latter. So a database at rest is read as immutable; one that others have open, or that a crash left open,
through the files that are there already. Only a -wal whose -shm was lost gets a new -shm, which holds no data.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from credentiald.store import sqlite
from credentiald.store.connection import Connection

T = TypeVar("T")

_RETRY_SECONDS = 10.0
_POLL_SECONDS = 0.02

_Marks = dict[str, tuple[int, int] | None]


def inspect(path: Path, query: Callable[[Connection], T]) -> T:
    """What `query(connection)` finds in one snapshot of the database at `path`. sqlite3.Error.

    `query` may be asked again, if somebody else worked on the database meanwhile; it should judge nothing itself.
    """
    deadline = time.monotonic() + _RETRY_SECONDS
    while True:
        before = _marks(path)
        options = _options(before)
        try:
            with closing(sqlite.open_file(path, options)) as conn, sqlite.transaction(conn, write=False):
                result = query(conn)
            if "immutable" not in options or _marks(path) == before:
                return result
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorname == "SQLITE_READONLY_ROLLBACK":
                _recover(path)
            elif _marks(path) == before or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _marks(path: Path) -> _Marks:
    """Size and time of change of the database and the files beside it, None for those that are not there."""
    return {suffix: _mark(path.with_name(path.name + suffix)) for suffix in ("", "-wal", "-shm", "-journal")}


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _options(marks: _Marks) -> str:
    if not _has_content(marks["-wal"]) and not _has_content(marks["-journal"]):
        return "mode=ro&immutable=1"
    if marks["-wal"] is not None and marks["-shm"] is not None:
        return "mode=ro&readonly_shm=1"
    return "mode=ro"


def _has_content(mark: tuple[int, int] | None) -> bool:
    return mark is not None and mark[0] > 0


def _recover(path: Path) -> None:
    """Undo what a crash left half-written in a rollback journal; one cannot read before.

    Ours have such a journal for the first write to an empty file only, so there is nothing in it to lose.
    """
    with closing(sqlite.open_file(path, "mode=rw")) as conn:
        conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
