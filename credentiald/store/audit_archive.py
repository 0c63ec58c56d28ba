"""Taking the oldest entries out of the audit's file, into a file of their own, while others append to it.

1. They are copied and followed; the copy gets its name when it is whole and on the disk.
2. An entry says where the part ends that is in it, and where that file is.
3. They are removed, a few at a time.

A kill between any two steps loses nothing: the same command goes on. What is removed is never more than an entry says,
and the entry is never there before the file is.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from credentiald import audit_chain, audit_model, private_files
from credentiald.audit_chain import Head, Row, Verdict
from credentiald.audit_model import Archive, Draft, Kind, Told
from credentiald.store import audit, inspection, migrations, sqlite
from credentiald.store.connection import Connection

_COPIED_AT_ONCE = 200
# A block of releases has up to 100 kB: others wait for the length of such a transaction.
_REMOVED_AT_ONCE = 50


class ArchiveRefused(Exception):
    """Nothing was archived; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Entries that are in an archive: what they follow, and the last of them."""

    beginning: Head
    head: Head

    @property
    def count(self) -> int:
        """How many there are."""
        return self.head.sequence - self.beginning.sequence


def archive(path: Path, target: Path, *, before_micros: int, by: str, now_micros: Callable[[], int]) -> Part | None:
    """Move what was written before that time from the audit at `path` to the new file `target`; None where nothing was.

    Where a kill has interrupted it, `target` may be there: then what it holds is the part. ArchiveRefused,
    sqlite3.Error, OSError.
    """
    with _only_one(path.parent, target.parent), closing(sqlite.connect(path)) as conn:
        _check_schema(conn)
        # What another one has left.
        is_rest_removed = _remove(conn)
        part = _finished(conn, target) if target.exists() else _copied(conn, target, before_micros)
        if part is None:
            return None
        if part.head == audit.beginning_of(conn).head:
            if not is_rest_removed:
                raise _there(target)
            return part
        told = _told(conn, part, target, by=by)
        with sqlite.transaction(conn, write=True):
            _tell(conn, part, told, now_micros=now_micros())
        _remove(conn)
        return part


@contextmanager
def _only_one(folder: Path, target_folder: Path) -> Iterator[None]:
    """Not beside another one of the same audit, and after those that write into the same folder.

    The lock of a folder is nobody else's, and ends with whoever holds it.
    """
    with ExitStack() as opened:
        waits = {}
        for one, how in ((target_folder, fcntl.LOCK_EX), (folder, fcntl.LOCK_EX | fcntl.LOCK_NB)):
            descriptor = os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            found = os.fstat(descriptor)
            # One folder may have two names.
            waits[found.st_dev, found.st_ino] = descriptor, how
        # In the same order for all: two that archive into the folders of each other would wait for ever.
        for _, (descriptor, how) in sorted(waits.items()):
            try:
                fcntl.flock(descriptor, how)
            except BlockingIOError:
                raise ArchiveRefused("another archive is being made of it, or into its folder") from None
        yield


def is_linked(path: Path, head: Head) -> bool:
    """Whether the chain in this file goes on from there: what an archive ends with. sqlite3.Error."""
    return inspection.inspect(path, lambda conn: _is_linked(conn, head))


def _is_linked(conn: Connection, head: Head) -> bool:
    return audit.beginning_of(conn).head == head or audit.hash_at(conn, head.sequence) == head.hash


def _check_schema(conn: sqlite3.Connection) -> None:
    try:
        pending = migrations.pending_after(migrations.applied(conn, migrations.AUDIT), migrations.AUDIT)
    except migrations.SchemaMismatch as mismatch:
        raise ArchiveRefused(str(mismatch)) from None
    if pending:
        raise ArchiveRefused("its schema is older: start this release of credentiald with it first")
    if audit.beginning_of(conn).is_archive:
        raise ArchiveRefused("it is an archive itself")


# -- the file ---------------------------------------------------------------------------------------------------------


def _copied(conn: sqlite3.Connection, target: Path, before_micros: int) -> Part | None:
    beginning = audit.beginning_of(conn).head
    last = _last_before(conn, before_micros)
    if last <= beginning.sequence:
        return None
    unfinished = target.with_name(f".{target.name}.new")
    # A kill may have left one.
    for suffix in ("", "-journal"):
        unfinished.with_name(unfinished.name + suffix).unlink(missing_ok=True)
    private_files.touch(unfinished)
    try:
        with closing(sqlite.open_file(unfinished, "mode=rw")) as copy:
            _begin(copy, beginning)
            verdict = audit_chain.verify(_copying(conn, copy, beginning, last), beginning=beginning, is_archive=True)
        _refuse_damage(verdict)
        _bring_to_disk(unfinished)
        # Read back, as whoever needs it will.
        verdict = audit.verify(unfinished, expected=Head(last, audit.hash_at(conn, last) or b""), database_id=None)
        _refuse_damage(verdict)
        _name(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return Part(beginning=beginning, head=verdict.head)


def _last_before(conn: Connection, before_micros: int) -> int:
    """The last entry of those that stand before any that was written at that time or later."""
    row = conn.execute("SELECT sequence FROM entries WHERE time >= ? ORDER BY sequence LIMIT 1", (before_micros,))
    found = row.fetchone()
    return audit.head_of(conn).sequence if found is None else found["sequence"] - 1


def _begin(copy: sqlite3.Connection, beginning: Head) -> None:
    # It counts when it has its name: until then a power cut may have it.
    copy.execute("PRAGMA synchronous = OFF")
    with sqlite.transaction(copy, write=True):
        migrations.apply_pending(copy, migrations.AUDIT)
        copy.execute(
            "UPDATE beginning SET sequence = ?, hash = ?, is_archive = 1", (beginning.sequence, beginning.hash)
        )


def _copying(conn: sqlite3.Connection, copy: sqlite3.Connection, beginning: Head, last: int) -> Iterator[Row]:
    """The rows, each after it was copied."""
    after = beginning.sequence
    while rows := audit.rows_after(conn, after, until=last, limit=_COPIED_AT_ONCE):
        with sqlite.transaction(copy, write=True):
            audit.put(copy, rows)
        after = rows[-1].sequence
        yield from rows


def _refuse_damage(verdict: Verdict) -> None:
    if verdict.damage is not None:
        raise ArchiveRefused(f"entry {verdict.damage.sequence}: {verdict.damage.kind.value}: {verdict.damage.message}")


def _bring_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _name(unfinished: Path, target: Path) -> None:
    unfinished.replace(target)
    private_files.sync_folder(target.parent)


def _finished(conn: sqlite3.Connection, target: Path) -> Part:
    """The part that is in a file which is there already: of one that was killed."""
    try:
        begun = inspection.inspect(target, audit.beginning_of)
        verdict = audit.verify(target, expected=None, database_id=None)
    except sqlite3.Error:
        raise _there(target) from None
    part = Part(beginning=begun.head, head=verdict.head)
    fits = audit.beginning_of(conn).head in (part.beginning, part.head) and part.count > 0
    if verdict.damage or not begun.is_archive or not fits or not _is_linked(conn, part.head):
        raise _there(target)
    return part


def _there(target: Path) -> ArchiveRefused:
    return ArchiveRefused(f"{target} is there already: name another file")


# -- the entry, and the removal ---------------------------------------------------------------------------------------


def _told(conn: Connection, part: Part, target: Path, *, by: str) -> Told:
    """What the entry says. It is of what changes no more, and may take seconds: others append meanwhile."""
    origin = audit.origin(conn)
    revision, known = audit.accounted(conn, until=part.head.sequence)
    while revision and revision + 1 in known:
        revision += 1
    return Told(
        database_id="" if origin is None else origin.database_id,
        revision=revision,
        archive=Archive(
            sequence=part.head.sequence,
            hash=part.head.hash.hex(),
            count=part.count,
            file=str(target.absolute()),
            by=by,
            ranges=tuple(_ranges(sorted(one for one in known if one > revision))),
        ),
    )


def _tell(conn: Connection, part: Part, told: Told, *, now_micros: int) -> None:
    if audit.beginning_of(conn).head != part.beginning or audit.hash_at(conn, part.head.sequence) != part.head.hash:
        raise ArchiveRefused("somebody else has archived meanwhile: the file that was made is not needed")
    audit.append(conn, [Draft(Kind.ARCHIVED, audit_model.body_of(told), now_micros)], now_micros=now_micros)
    conn.execute("UPDATE beginning SET archived_sequence = ?", (part.head.sequence,))


def _ranges(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Numbers in their order as first and last of those that follow one another."""
    first = 0
    for place, number in enumerate(numbers):
        if place + 1 == len(numbers) or numbers[place + 1] != number + 1:
            yield numbers[first], number
            first = place + 1


def _remove(conn: sqlite3.Connection) -> bool:
    """Remove what was archived, with as much time for others as it takes; whether there was something."""
    is_removed = False
    while True:
        started_seconds = time.monotonic()
        with sqlite.transaction(conn, write=True):
            is_more = _remove_some(conn)
        if not is_more:
            return is_removed
        is_removed = True
        time.sleep(time.monotonic() - started_seconds)


def _remove_some(conn: Connection) -> bool:
    """Whether there was something to remove."""
    beginning = audit.beginning_of(conn)
    until = min(beginning.archived_sequence, beginning.head.sequence + _REMOVED_AT_ONCE)
    if until <= beginning.head.sequence:
        return False
    hashed = audit.hash_at(conn, until)
    if hashed is None:
        raise ArchiveRefused(f"entry {until} is missing: see what 'credentiald audit verify' says")
    conn.execute("DELETE FROM entries WHERE sequence <= ?", (until,))
    conn.execute("UPDATE beginning SET sequence = ?, hash = ?", (until, hashed))
    return True
