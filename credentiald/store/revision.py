"""The gap-free number of the administrative state, with a row of the change log for each of its values.

Every store function that changes something calls `record` in the transaction of its change, so the number rises by
one with each change that was committed and by none that was not. Records of traffic do not touch it.
"""

from dataclasses import dataclass
from datetime import datetime

from credentiald.store.connection import Connection
from credentiald.store.times import from_micros, to_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A row of the change log; see `record`."""

    revision: int
    change_time: datetime
    kind: str
    resource: str
    resource_id: str
    name: str


def current(conn: Connection) -> int:
    """The revision of the state that this transaction sees; 0 before the first change."""
    (revision,) = conn.execute("SELECT COALESCE(MAX(revision), 0) FROM change_log").fetchone()
    return int(revision)


def record(conn: Connection, *, kind: str, resource: str, resource_id: str, name: str, now: datetime) -> int:
    """Note a change and return the revision that it makes.

    `kind` is `<resource>.<what happened>`; `name` is what people call the thing. Writers are one at a time, so the
    next number is free.
    """
    revision = current(conn) + 1
    conn.execute(
        "INSERT INTO change_log (revision, change_time, kind, resource, resource_id, name) VALUES (?, ?, ?, ?, ?, ?)",
        (revision, to_micros(now), kind, resource, resource_id, name),
    )
    return revision


def changes_after(conn: Connection, revision: int, *, limit: int) -> list[Change]:
    """At most `limit` changes that came after that revision, in order."""
    rows = conn.execute(
        "SELECT revision, change_time, kind, resource, resource_id, name FROM change_log"
        " WHERE revision > ? ORDER BY revision LIMIT ?",
        (revision, limit),
    ).fetchall()
    return [
        Change(
            revision=row["revision"],
            change_time=from_micros(row["change_time"]),
            kind=row["kind"],
            resource=row["resource"],
            resource_id=row["resource_id"],
            name=row["name"],
        )
        for row in rows
    ]
