"""The gap-free number of the administrative state, with a row of the change log for each of its values.

Every store function that changes something calls `record` in the transaction of its change, so the number rises by
one with each change that was committed and by none that was not. Records of traffic do not touch it.
"""

from datetime import datetime

from credentiald.store.connection import Connection
from credentiald.store.times import to_micros


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
