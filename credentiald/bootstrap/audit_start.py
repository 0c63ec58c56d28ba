"""The audit's file when credentiald starts: made where it is missing, and told what was changed unseen."""

import logging
from contextlib import closing
from datetime import datetime
from pathlib import Path

from credentiald import private_files
from credentiald.audit_chain import Head
from credentiald.bootstrap.files import connect_waiting, path_of
from credentiald.bootstrap.refusals import StartRefused, refusing
from credentiald.store import audit, audit_heads, revision, sqlite
from credentiald.store.connection import Connection
from credentiald.store.times import to_micros

log = logging.getLogger(__name__)


def prepare_audit(path: Path, database_path: Path, database_id: str, now: datetime, *, is_new: bool) -> None:
    """Begin the audit where it is missing. That one is missing which was there, `note_start` says."""
    with refusing(path):
        if not is_new and not path.exists():
            log.warning("there is no audit beside the database: a new chain begins", extra={"file": str(path)})
        private_files.touch(path)
        with (
            closing(connect_waiting(database_path)) as database,
            closing(connect_waiting(path)) as conn,
            sqlite.transaction(conn, write=True),
        ):
            audit.prepare(conn, database_id, current_revision=revision.current(database), now_micros=to_micros(now))


def note_start(database_url: str, *, version: str, mode: str, now: datetime) -> int:
    """Write into the audit that credentiald starts, and what was changed unseen; how many changes. StartRefused."""
    path = path_of(database_url)
    with (
        refusing(audit.audit_path(path)),
        closing(connect_waiting(path)) as database,
        closing(connect_waiting(audit.audit_path(path))) as conn,
    ):
        with sqlite.transaction(conn, write=True):
            missing_head = _missing_head(conn, database, mode=mode)
            # The lock of the audit is held while the change log is read: nobody's act is between the two.
            unseen = audit.note_start(
                conn, database, version=version, mode=mode, now_micros=to_micros(now), missing_head=missing_head
            )
            head = audit.head_of(conn)
        with sqlite.transaction(database, write=True):
            audit_heads.note(database, head)
        return len(unseen)


def _missing_head(conn: Connection, database: Connection, *, mode: str) -> Head | None:
    """An end of the audit that the database knows, and that is not in its file. StartRefused where that is strict."""
    known = audit_heads.known(database)
    if known is None or audit_heads.is_held(conn, known):
        return None
    if mode == "strict":
        raise StartRefused(
            f"the audit had an entry {known}, which its file does not hold: put that file back, or start once with"
            " --audit=on to go on without it"
        )
    log.error(
        "entries of the audit are gone: its file was moved away, replaced or cut off",
        extra={"sequence": known.sequence, "hash": known.hash.hex()},
    )
    return known
