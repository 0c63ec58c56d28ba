"""The file of the audit: made and checked beside its database, opened for the length of a block, appended to.

Several processes append to one file: each reads the end of the chain in the transaction in which it appends.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar, final

from credentiald import audit_chain, audit_model
from credentiald.audit_chain import Head, Row, Verdict
from credentiald.audit_model import WRITTEN, Draft, Kind, Revision, Told
from credentiald.store import inspection, migrations, revision, sqlite
from credentiald.store.connection import Connection, Value
from credentiald.store.connections import Connections, trouble_is_refused

_COLUMNS = "sequence, time, from_time, kind, body, hash"
_LAST = 2**63 - 1
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
    if not head_of(conn).sequence:
        body = audit_model.body_of(Told(database_id=database_id, revision=current_revision))
        append(conn, [Draft(Kind.GENESIS, body, now_micros)], now_micros=now_micros)
        return
    told = origin(conn)
    if told is None:
        raise migrations.SchemaMismatch(
            "its first entry was changed: see what 'credentiald audit verify' says, and move the file away"
        )
    if told.database_id != database_id:
        raise migrations.SchemaMismatch("it holds the audit of another database: move one of the two away")


def origin(conn: Connection) -> Told | None:
    """The entry that says of which database the audit is: the first, or the last one about what was archived."""
    row = conn.execute("SELECT body FROM entries WHERE sequence = 1").fetchone()
    return last_archived(conn) if row is None else _decoded(audit_model.told_of, row["body"])


def last_archived(conn: Connection) -> Told | None:
    """The last entry about a part that was archived."""
    row = conn.execute("SELECT body FROM entries WHERE kind = 'archived' ORDER BY sequence DESC LIMIT 1").fetchone()
    told = None if row is None else _decoded(audit_model.told_of, row["body"])
    return told if told is not None and told.archive is not None else None


def append(conn: Connection, drafts: Sequence[Draft], *, now_micros: int) -> list[Row]:
    """The drafts, in their order, as the next rows of the chain. Inside a write transaction.

    sqlite3.IntegrityError where the last is not there: somebody's trigger swallows rows, and the chain looks whole.
    """
    head, rows = head_of(conn), []
    for draft in drafts:
        sequence = head.sequence + 1
        hashed = audit_chain.hash_of(head.hash, sequence, now_micros, draft.from_micros, draft.kind.value, draft.body)
        rows.append(Row(sequence, now_micros, draft.from_micros, draft.kind.value, draft.body, hashed))
        head = Head(sequence, hashed)
    put(conn, rows)
    if head_of(conn) != head:
        raise sqlite3.IntegrityError("an entry was appended and is not there: look for triggers in the audit's file")
    return rows


def gone_since(conn: Connection, row: Row) -> int:
    """How many rows are gone at least, where this one was the last and is not there any more; else 0."""
    found = conn.execute("SELECT hash FROM entries WHERE sequence = ?", (row.sequence,)).fetchone()
    if found is not None and found["hash"] == row.hash:
        return 0
    if found is None and (told := last_archived(conn)) is not None and told.archive is not None:
        # Others have appended since, and have archived this one.
        archived = told.archive
        if row.sequence < archived.sequence or (row.sequence, row.hash.hex()) == (archived.sequence, archived.hash):
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
    since, told = accounted(audit)
    if not since or since > current:
        # A database that came back from a backup: what there is, is where it begins.
        return [], current
    changes = revision.changes_after(database, since, limit=current - since)
    missing = [
        Revision(one.revision, one.kind, one.resource, one.resource_id, one.name)
        for one in changes
        if one.revision not in told
    ]
    return missing, current


def accounted(audit: Connection, *, until: int = _LAST) -> tuple[int, set[int]]:
    """The revision up to which the entries up to this sequence tell of all changes, and those after it of which they
    do as well; 0 where no entry says where to begin."""
    starts = audit.execute(
        "SELECT sequence, body FROM entries WHERE kind IN ('genesis', 'start') AND sequence <= ?"
        " ORDER BY sequence DESC",
        (until,),
    )
    # One that was damaged is no reason not to start: `verify` says which.
    found = ((row["sequence"], _decoded(audit_model.told_of, row["body"])) for row in starts)
    sequence, start = next(((sequence, told) for sequence, told in found if told is not None), (0, None))
    starts.close()
    known: set[int] = set()
    if start is None and (start := last_archived(audit)) is not None and start.archive is not None:
        known.update(one for first, last in start.archive.ranges for one in range(first, last + 1))
    # One at a time: there may be very many.
    acts = audit.execute(
        "SELECT body FROM entries WHERE kind = 'act' AND sequence > ? AND sequence <= ?", (sequence, until)
    )
    known.update(
        one.revision
        for row in acts
        if (act := _decoded(audit_model.act_of, row["body"])) is not None
        for one in act.revisions
    )
    return (0 if start is None else start.revision), known


def _decoded(decode: Callable[[bytes], T], body: object) -> T | None:
    """What a body says; None for one that is none of ours."""
    try:
        return decode(body) if isinstance(body, bytes) else None
    except (ValueError, RecursionError):
        return None


def note_start(
    audit_conn: Connection,
    database: Connection,
    *,
    version: str,
    mode: str,
    now_micros: int,
    missing_head: Head | None = None,
) -> list[Revision]:
    """Append that a credentiald starts, and before it what was changed unseen; the latter. Inside a write transaction.

    `missing_head` is an end of the chain that the database knows, and that is not in this file.
    """
    missing, current = unattributed(audit_conn, database)
    drafts = []
    if missing_head is not None:
        gone = max(1, missing_head.sequence - head_of(audit_conn).sequence)
        told = Told(lost={WRITTEN: gone}, head=str(missing_head), until_micros=now_micros)
        drafts.append(Draft(Kind.LOST, audit_model.body_of(told), now_micros))
    drafts += [
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


def verify(path: Path, *, expected: Head | None, database_id: str | None, may_be_archive: bool = True) -> Verdict:
    """Follow the chain in the file, without changing anything and whoever appends. sqlite3.Error."""

    def followed(conn: Connection) -> Verdict:
        found = beginning_of(conn)
        return audit_chain.verify(
            _all(conn),
            expected=expected,
            database_id=database_id,
            beginning=found.head,
            is_archive=found.is_archive and may_be_archive,
        )

    return inspection.inspect(path, followed)


class Beginning(NamedTuple):
    """What the first entry of a file follows."""

    head: Head
    # Up to where entries may be removed.
    archived_sequence: int = 0
    is_archive: bool = False


def beginning_of(conn: Connection) -> Beginning:
    """Where the entries of this file begin; also of a file that an older release has made."""
    if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'beginning'").fetchone():
        return Beginning(audit_chain.EMPTY)
    row = conn.execute("SELECT sequence, hash, archived_sequence, is_archive FROM beginning").fetchone()
    # SQLite keeps whatever somebody wrote into a column; what is missing then shows in the chain.
    if row is None or [type(value) for value in row] != [int, bytes, int, int]:
        return Beginning(audit_chain.EMPTY)
    return Beginning(Head(row["sequence"], row["hash"]), row["archived_sequence"], bool(row["is_archive"]))


def hash_at(conn: Connection, sequence: int) -> bytes | None:
    """The hash of the entry at this place, None where there is none."""
    row = conn.execute("SELECT hash FROM entries WHERE sequence = ?", (sequence,)).fetchone()
    return None if row is None else row["hash"]


def rows_after(conn: Connection, after: int, *, until: int, limit: int) -> list[Row]:
    """At most `limit` rows after one, up to another, the earliest first."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM entries WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?",  # noqa: S608
        (after, until, limit),
    ).fetchall()
    return [Row(*row) for row in rows]


def put(conn: Connection, rows: Sequence[Row]) -> None:
    """Write rows as they are. Inside a write transaction."""
    for row in rows:
        conn.execute(f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)  # noqa: S608 - ours


def _all(conn: Connection) -> Iterator[Row]:
    # Not all at once: a file may have many gigabytes.
    cursor = conn.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY sequence")  # noqa: S608
    while (row := cursor.fetchone()) is not None:
        yield Row(*row)


@asynccontextmanager
async def open_audit(url: str) -> AsyncIterator[AuditFile]:
    """The audit of the database at `url`, for the length of the block. It must have been prepared (bootstrap/).

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
