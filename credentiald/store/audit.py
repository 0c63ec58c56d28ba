"""The file of the audit: made and checked beside its database, opened for the length of a block, appended to.

Several processes append to one file: each reads the end of the chain in the transaction in which it appends.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar, final

from credentiald import audit_chain, audit_model
from credentiald.audit_chain import Head, Row, Verdict
from credentiald.audit_model import Draft, Kind, Revision, Told
from credentiald.store import inspection, migrations, revision, sqlite
from credentiald.store.connection import Connection, Value
from credentiald.store.connections import Connections, trouble_is_refused

_COLUMNS = "sequence, time, from_time, kind, body, hash"
# Of one entry about the change log.
_MOST_REVISIONS = 1000

T = TypeVar("T")


@final
class AuditFile(Connections):
    """The open file. Made by `open_audit`, closed at the end of its block."""

    def __init__(self, writer: sqlite3.Connection, reader: sqlite3.Connection, *, path: Path) -> None:
        super().__init__(writer, [reader], path=path, name="audit")


def audit_path(database_path: Path) -> Path:
    """Where the audit of a database is: `credentiald.audit.db` beside `credentiald.db`."""
    return database_path.with_name(f"{database_path.stem}.audit{database_path.suffix}")


def prepare(conn: sqlite3.Connection, database_id: str, *, current_revision: int, now_micros: int) -> None:
    """Make the table or bring it up to date, inside the caller's write transaction. SchemaMismatch.

    A new chain begins with the id of its database and the revision from which on it tells of changes.
    """
    migrations.apply_pending(conn, migrations.AUDIT)
    first = conn.execute("SELECT body FROM entries WHERE sequence = 1").fetchone()
    if first is None:
        body = audit_model.body_of(Told(database_id=database_id, revision=current_revision))
        append(conn, [Draft(Kind.GENESIS, body, now_micros)], now_micros=now_micros)
        return
    told = _decoded(audit_model.told_of, first["body"])
    if told is None:
        raise migrations.SchemaMismatch(
            "its first entry was changed: see what 'credentiald audit verify' says, and move the file away"
        )
    if told.database_id != database_id:
        raise migrations.SchemaMismatch("it holds the audit of another database: move one of the two away")


def append(conn: Connection, drafts: Sequence[Draft], *, now_micros: int) -> list[Row]:
    """The drafts, in their order, as the next rows of the chain. Inside a write transaction.

    sqlite3.IntegrityError where the last is not there: somebody's trigger swallows rows, and the chain looks whole.
    """
    head, rows = head_of(conn), []
    for draft in drafts:
        sequence = head.sequence + 1
        hashed = audit_chain.hash_of(head.hash, sequence, now_micros, draft.from_micros, draft.kind.value, draft.body)
        row = Row(sequence, now_micros, draft.from_micros, draft.kind.value, draft.body, hashed)
        conn.execute(f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)  # noqa: S608 - ours
        rows.append(row)
        head = Head(sequence, hashed)
    if head_of(conn) != head:
        raise sqlite3.IntegrityError("an entry was appended and is not there: look for triggers in the audit's file")
    return rows


def gone_since(conn: Connection, row: Row) -> int:
    """How many rows are gone at least, where this one was the last and is not there any more; else 0."""
    found = conn.execute("SELECT hash FROM entries WHERE sequence = ?", (row.sequence,)).fetchone()
    if found is not None and found["hash"] == row.hash:
        return 0
    return max(1, row.sequence - head_of(conn).sequence)


def head_of(conn: Connection) -> Head:
    """The end of the chain."""
    row = conn.execute("SELECT sequence, hash FROM entries ORDER BY sequence DESC LIMIT 1").fetchone()
    return audit_chain.EMPTY if row is None else Head(row["sequence"], bytes(row["hash"]))


def last_row(conn: Connection) -> Row | None:
    """The last row of the chain, None in an empty file."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY sequence DESC LIMIT 1").fetchone()  # noqa: S608
    return None if row is None else Row(*row)


def rows_back_from(
    conn: Connection, before: int, *, kind: str | None, since_micros: int | None, limit: int
) -> list[Row]:
    """At most `limit` rows with lower sequences than `before`, the latest first."""
    where = "sequence < ?"
    parameters: list[Value] = [before]
    if since_micros is not None:
        where += " AND time >= ?"
        parameters.append(since_micros)
    if kind is not None:
        # The second says to SQLite that the index of the others will do.
        where += " AND kind = ?" if kind == Kind.RELEASE else " AND kind = ? AND kind <> 'release'"
        parameters.append(kind)
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM entries WHERE {where} ORDER BY sequence DESC LIMIT ?",  # noqa: S608 - ours
        (*parameters, limit),
    ).fetchall()
    return [Row(*row) for row in rows]


# -- the change log ---------------------------------------------------------------------------------------------------


def unattributed(audit: Connection, database: Connection) -> tuple[list[Revision], int]:
    """The changes since the last start that no act tells of, and the revision that is looked at.

    They were made while nothing was audited, by `credentiald init`, or just before a kill.
    """
    current = revision.current(database)
    starts = audit.execute(
        "SELECT sequence, body FROM entries WHERE kind IN ('genesis', 'start') ORDER BY sequence DESC"
    )
    # One that was damaged is no reason not to start: `verify` says which.
    found = ((row["sequence"], _decoded(audit_model.told_of, row["body"])) for row in starts)
    sequence, since = next(((sequence, told.revision) for sequence, told in found if told is not None), (0, 0))
    starts.close()
    if not since or since > current:
        # A database that came back from a backup: what there is, is where it begins.
        return [], current
    # One at a time: there may be very many.
    acts = audit.execute("SELECT body FROM entries WHERE kind = 'act' AND sequence > ?", (sequence,))
    told = {
        one.revision
        for row in acts
        if (act := _decoded(audit_model.act_of, row["body"])) is not None
        for one in act.revisions
    }
    changes = revision.changes_after(database, since, limit=current - since)
    missing = [
        Revision(one.revision, one.kind, one.resource, one.resource_id, one.name)
        for one in changes
        if one.revision not in told
    ]
    return missing, current


def _decoded(decode: Callable[[bytes], T], body: object) -> T | None:
    """What a body says; None for one that is none of ours."""
    try:
        return decode(body) if isinstance(body, bytes) else None
    except (ValueError, RecursionError):
        return None


def note_start(
    audit_conn: Connection, database: Connection, *, version: str, mode: str, now_micros: int
) -> list[Revision]:
    """Append that a credentiald starts, and before it what was changed unseen; the latter. Inside a write
    transaction."""
    missing, current = unattributed(audit_conn, database)
    drafts = [
        Draft(
            Kind.UNATTRIBUTED,
            audit_model.body_of(Told(revisions=tuple(missing[at : at + _MOST_REVISIONS]))),
            now_micros,
        )
        for at in range(0, len(missing), _MOST_REVISIONS)
    ]
    drafts.append(
        Draft(Kind.START, audit_model.body_of(Told(version=version, mode=mode, revision=current)), now_micros)
    )
    append(audit_conn, drafts, now_micros=now_micros)
    return missing


# -- verifying, and opening -------------------------------------------------------------------------------------------


def verify(path: Path, *, expected: Head | None, database_id: str | None) -> Verdict:
    """Follow the chain in the file, without changing anything and whoever appends. sqlite3.Error."""

    def followed(conn: Connection) -> Verdict:
        return audit_chain.verify(_all(conn), expected=expected, database_id=database_id)

    return inspection.inspect(path, followed)


def _all(conn: Connection) -> Iterator[Row]:
    # Not all at once: a file may have many gigabytes.
    cursor = conn.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY sequence")  # noqa: S608 - ours
    while (row := cursor.fetchone()) is not None:
        yield Row(*row)


@asynccontextmanager
async def open_audit(url: str) -> AsyncIterator[AuditFile]:
    """The audit of the database at `url`, for the length of the block. It must have been prepared (bootstrap.py).

    ValueError for a URL that is not supported, StoreUnavailable.
    """
    file = await asyncio.to_thread(_open, audit_path(sqlite.database_path(url)))
    try:
        yield file
    finally:
        await file.close()


def _open(path: Path) -> AuditFile:
    with trouble_is_refused(path), ExitStack() as opened:
        writer = sqlite.connect(path)
        opened.callback(writer.close)
        reader = sqlite.connect(path, query_only=True)
        opened.callback(reader.close)
        file = AuditFile(writer, reader, path=path)
        opened.pop_all()
        return file
