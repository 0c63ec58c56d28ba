"""What the database knows of the audit's chain: an end that it had, so that a file that is gone or cut off is missed.

It is written when credentiald starts and stops, and not with each entry: every commit to the database makes all kept
answers count no more.
"""

from credentiald.audit_chain import EMPTY, Head
from credentiald.store import audit
from credentiald.store.connection import Connection


def known(database: Connection) -> Head | None:
    """The last end of the chain that was noted; None where none was, as by an older release."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit_head'").fetchone():
        return None
    row = database.execute("SELECT sequence, hash FROM audit_head").fetchone()
    return None if row is None else Head(row["sequence"], row["hash"])


def note(database: Connection, head: Head) -> None:
    """This is the end of the chain from now on. Inside a write transaction."""
    database.execute("INSERT OR REPLACE INTO audit_head (id, sequence, hash) VALUES (1, ?, ?)", head)


def note_later(database: Connection, head: Head) -> None:
    """The chain has gone on up to there; where another process has seen a later end, that stays."""
    if head.sequence > (known(database) or EMPTY).sequence:
        note(database, head)


def is_held(conn: Connection, head: Head) -> bool:
    """Whether the file of this audit holds that end, or begins after it."""
    beginning = audit.beginning_of(conn).head
    if head.sequence < beginning.sequence or head == beginning:
        return True
    return audit.hash_at(conn, head.sequence) == head.hash
