"""The files that a start finds: the database, with what is in it already, and those with secrets beside it."""

import logging
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path

from credentiald import private_files
from credentiald.bootstrap.refusals import StartRefused
from credentiald.model import SealedSecret
from credentiald.sealing import SealContext
from credentiald.store import inspection, meta, migrations, sealing_rows, sqlite
from credentiald.store.connection import Connection
from credentiald.store.meta import Meta
from credentiald.store.sealing_rows import KnownKey
from daemonkit.secret import Secret

_LOCK_WAIT_SECONDS = 30.0
_LOCK_POLL_SECONDS = 0.02

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the check of an existing database looks at."""

    meta: Meta
    key_ids: set[str]
    known: tuple[KnownKey, ...]
    samples: list[tuple[SealedSecret, SealContext]]
    migrations_pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The bare facts about a database file; `meta` and `key_ids` only where the schema is one that we know."""

    migrations_applied: list[str]
    has_tables: bool
    meta: Meta | None = None
    key_ids: set[str] = field(default_factory=set)
    known: tuple[KnownKey, ...] = ()
    samples: list[tuple[SealedSecret, SealContext]] = field(default_factory=list)


def path_of(database_url: str) -> Path:
    """The file that the URL names, in a folder that is there. StartRefused."""
    try:
        path = sqlite.database_path(database_url)
    except ValueError as error:
        raise StartRefused(str(error)) from None
    if not path.parent.is_dir():
        raise StartRefused(f"the folder of the database does not exist: make {path.parent}")
    return path


def connect_waiting(path: Path, *, page_bytes: int | None = None) -> sqlite3.Connection:
    """A connection that waits for others that prepare the same database.

    SQLite does not wait by itself when two connections turn write-ahead logging on at once.
    """
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while True:
        try:
            conn = sqlite.connect(path, page_bytes=page_bytes)
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            conn.execute(f"PRAGMA busy_timeout = {int(_LOCK_WAIT_SECONDS * 1000)}")
            return conn


def inspect(path: Path) -> Found | None:
    """What is in the database, or None if it has still to be made. Changes nothing."""
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        look = inspection.inspect(path, _look)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname != "SQLITE_NOTADB":
            raise
        raise StartRefused(f"{path} is not a SQLite database: name another file, or move this one away") from error
    pending = migrations.pending_after(look.migrations_applied)
    if look.has_tables and not look.migrations_applied:
        raise StartRefused(f"{path} is a database of another program: name another file")
    if look.meta is None:
        return None
    return Found(
        meta=look.meta,
        key_ids=look.key_ids,
        known=look.known,
        samples=look.samples,
        migrations_pending=bool(pending),
    )


def _look(conn: Connection) -> _Look:
    has_tables = conn.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
    applied = migrations.applied(conn)
    if not applied or not migrations.are_known(applied):
        return _Look(migrations_applied=applied, has_tables=has_tables)
    return _Look(
        migrations_applied=applied,
        has_tables=has_tables,
        meta=meta.find(conn),
        key_ids=meta.sealing_key_ids(conn) | _active(conn, applied),
        known=_known(conn, applied),
        samples=meta.sealed_samples(conn),
    )


def _active(conn: Connection, applied: list[str]) -> set[str]:
    """The key that seals from now on, by its id; none in a database that is older than this is noted."""
    active = sealing_rows.active_key_id(conn) if migrations.SEALING_KEYS in applied else ""
    return {active} - {""}


def _known(conn: Connection, applied: list[str]) -> tuple[KnownKey, ...]:
    return tuple(sealing_rows.known_keys(conn)) if migrations.SEALING_KEYS in applied else ()


def secret_in(path: Path) -> Secret | None:
    """What a secret file holds, with a warning if others may read it."""
    try:
        content = private_files.find(path)
    except ValueError as error:
        raise StartRefused(f"the file {path} cannot be used: {error}") from None
    if content is not None and private_files.is_open_to_others(path):
        log.warning("others may read a secret file: chmod 600", extra={"path": str(path)})
    return content
