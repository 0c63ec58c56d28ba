"""The embedded database: where its file is, and connections to it.

All connections use write-ahead logging, so readers and the writer do not wait for each other, and `synchronous=FULL`,
so a commit that was reported survives a power cut (sqlite.org/wal.html, sqlite.org/pragma.html), but for those that say
that they need not.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

BUSY_TIMEOUT_SECONDS = 5.0
_SCHEME = "sqlite"


def database_path(url: str) -> Path:
    """The absolute path of the file that a database URL names: `sqlite:///relative` or `sqlite:////absolute`.

    ValueError for everything else. Its text repeats the scheme only, since URLs may hold passwords.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError("the database is not a URL: write sqlite:///PATH")
    if scheme in ("postgresql", "postgres"):
        raise ValueError("PostgreSQL is not supported yet: use sqlite:///PATH")
    if scheme != _SCHEME:
        raise ValueError("the scheme of the database URL is not known: write sqlite:///PATH")
    if not rest.startswith("/"):
        raise ValueError("a SQLite URL has three slashes before a relative path and four before an absolute one")
    path = rest[1:]
    if path == ":memory:":
        raise ValueError("a database in memory would lose every key at a restart: name a file, sqlite:///PATH")
    if not path or path.endswith("/"):
        raise ValueError("the database URL names no file: write sqlite:///PATH")
    if any(character in path for character in "?#\0"):
        raise ValueError("the path in the database URL has options or a character that is not allowed: ? # or NUL")
    return Path(path).absolute()


def connect(path: Path, *, query_only: bool = False, page_bytes: int | None = None) -> sqlite3.Connection:
    """A connection to the existing file `path`, usable from one thread at a time.

    Transactions are the caller's: see `transaction`. SQLite gives the files beside it (-wal, -shm) the file's mode.
    `page_bytes` is for a file in which nothing is yet; any other keeps the pages that it has.
    """
    conn = open_file(path, "mode=rw")
    try:
        if page_bytes is not None:
            conn.execute(f"PRAGMA page_size = {page_bytes}")
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA synchronous = FULL")
        (mode,) = conn.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError("the file system of the database does not support write-ahead logging")
        if query_only:
            conn.execute("PRAGMA query_only = ON")
    except BaseException:
        conn.close()
        raise
    return conn


def never_wait(conn: sqlite3.Connection) -> None:
    """From now on a lock that somebody else holds is an error at once."""
    conn.execute("PRAGMA busy_timeout = 0").fetchall()


def page_bytes_of(conn: sqlite3.Connection) -> int:
    """How large the pages of the file are."""
    [(size,)] = conn.execute("PRAGMA page_size").fetchall()
    return int(size)


def checkpoint_every(conn: sqlite3.Connection, pages: int) -> None:
    """How long the write-ahead log grows before it goes into the file (sqlite.org/wal.html, "Checkpointing")."""
    conn.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()


def checkpoint(conn: sqlite3.Connection, mode: str) -> tuple[int, int]:
    """Copy the write-ahead log into the file (sqlite.org/pragma.html#pragma_wal_checkpoint): its pages, and how many of
    them are copied. Where a reader or another checkpoint is in the way, fewer are, or none."""
    [(_, pages, copied)] = conn.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    return max(pages, 0), max(copied, 0)


def wait_at_most(conn: sqlite3.Connection, seconds: float) -> None:
    """How long the connection waits for a lock from now on."""
    conn.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}").fetchall()


def data_version(cursor: sqlite3.Cursor) -> int:
    """A number that changes with every commit of another connection (sqlite.org/pragma.html#pragma_data_version).

    Asked for all the time, so with a cursor that the caller keeps.
    """
    # All rows: a statement that is not finished would keep its snapshot, and with it the write-ahead log, for ever.
    [(version,)] = cursor.execute("PRAGMA data_version").fetchall()
    return int(version)


@contextmanager
def transaction(conn: sqlite3.Connection, *, write: bool, synced: bool = True) -> Iterator[None]:
    """All of the block or nothing: commits at its end, rolls back on any exception.

    With `write` the lock is taken at once (waiting for others as long as the busy timeout), so that the block never
    finds in its middle that it may not write. Without, the block sees one snapshot. A commit that is not `synced` does
    not wait for the disk: it survives the end of the process, and a power cut only with the next one that is.
    """
    if not synced:
        conn.execute("PRAGMA synchronous = NORMAL")
    try:
        conn.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        yield
        conn.execute("COMMIT")
    finally:
        try:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
        finally:
            if not synced:
                conn.execute("PRAGMA synchronous = FULL")


def open_file(path: Path, options: str) -> sqlite3.Connection:
    """A bare connection with SQLite's URI `options` (sqlite.org/uri.html)."""
    conn = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?{options}",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    conn.row_factory = sqlite3.Row
    conn.text_factory = _text
    return conn


def _text(stored: bytes) -> str:
    """Text as it was stored. SQLite lets anybody write other bytes too, and its own error would print them."""
    return stored.decode("utf-8", "replace")
