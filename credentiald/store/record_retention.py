"""What ends: interceptions whose bridge has vanished, and records that are too old."""

from typing import NamedTuple

from credentiald.bridge_instances import Instance
from credentiald.record_model import DAY_MICROS
from credentiald.store import bulk, usual_facts
from credentiald.store.connection import Connection
from credentiald.store.record_rows import TABLES

_OLD = "FROM interceptions WHERE start_time < ? AND end_time IS NOT NULL ORDER BY start_time"
# Sessions that go on after the prompt that they show: all others go themselves. Rows of user, session and time.
_OLD_PROMPTS = (
    "SELECT sessions.number FROM",
    "AS keys CROSS JOIN sessions ON user_id = keys.column1 AND session_id = keys.column2"
    " WHERE last_prompt <> '' AND last_prompt_time < keys.column3 AND last_active_time >= keys.column3",
)


def left_open(conn: Connection, *, before_micros: int, limit: int) -> list[tuple[str, int]]:
    """At most `limit` interceptions without an end whose bridge was last heard of before that time, with that time."""
    rows = conn.execute(
        "SELECT i.id, COALESCE(b.seen_time, i.start_time) AS heard_time FROM interceptions AS i"
        " LEFT JOIN bridge_instances AS b ON b.service_id = i.service_id AND b.id = i.bridge_instance_id"
        " WHERE i.end_time IS NULL AND COALESCE(b.seen_time, i.start_time) < ? LIMIT ?",
        (before_micros, limit),
    ).fetchall()
    return [(row["id"], row["heard_time"]) for row in rows]


def left_behind(conn: Connection, *, instance: Instance, mark: str, limit: int) -> list[str]:
    """At most `limit` interceptions without an end that this bridge opened and whose ids are below the mark."""
    rows = conn.execute(
        "SELECT id FROM interceptions"
        " WHERE end_time IS NULL AND bridge_instance_id = ? AND service_id = ? AND id < ? LIMIT ?",
        (instance[1], instance[0], mark, limit),
    ).fetchall()
    return [row["id"] for row in rows]


class Purgeable(NamedTuple):
    """What a purge would begin with, and up to when an earlier one has removed everything."""

    oldest_micros: int
    purged_micros: int | None


def purgeable(conn: Connection, *, before_micros: int) -> Purgeable | None:
    """None where a purge of what began before that time would remove no interception."""
    oldest = conn.execute(f"SELECT start_time {_OLD} LIMIT 1", (before_micros,)).fetchone()
    (purged_micros,) = conn.execute("SELECT purged_time FROM records_of WHERE id = 1").fetchone()
    return None if oldest is None else Purgeable(oldest["start_time"], purged_micros)


def note_purged(conn: Connection, *, before_micros: int) -> None:
    """Nothing is left that began before that time and has ended."""
    conn.execute("UPDATE records_of SET purged_time = ? WHERE id = 1", (before_micros,))


def purge(conn: Connection, *, before_micros: int, limit: int) -> int:
    """Remove at most `limit` interceptions that began before that time, with all their records; how many.

    What their sessions show of their prompts goes with them: so no session has to be looked for by the time of its
    prompt.

    One that is under way stays until it has its end, which would make it anew without its beginning.
    """
    rows = conn.execute(
        f"SELECT id, number, user_id, session_id, is_session {_OLD} LIMIT ?",
        (before_micros, limit),
    ).fetchall()
    ids = [row["id"] for row in rows]
    for table in TABLES.values():
        bulk.change(conn, f"DELETE FROM {table} WHERE interception_id IN", ids)  # noqa: S608 - a name of ours
    usual_facts.delete(conn, [row["number"] for row in rows])
    bulk.change(conn, "DELETE FROM interceptions WHERE id IN", ids)
    sessions = {(row["user_id"], row["session_id"], before_micros) for row in rows if not row["is_session"]}
    old = bulk.select_for(conn, _OLD_PROMPTS[0], list(sessions), _OLD_PROMPTS[1])
    bulk.change(conn, "UPDATE sessions SET last_prompt = '' WHERE number IN", [row["number"] for row in old])
    return len(ids)


def purge_sums(conn: Connection, *, before_micros: int, limit: int) -> int:
    """Remove at most `limit` sessions and days that ended before that time; how many rows."""
    sessions = conn.execute(
        "DELETE FROM sessions WHERE number IN"
        " (SELECT number FROM sessions WHERE last_active_time < ? ORDER BY last_active_time LIMIT ?)",
        (before_micros, limit),
    )
    return sessions.rowcount + _purge_days(conn, before_day=before_micros // DAY_MICROS, limit=limit)


def _purge_days(conn: Connection, *, before_day: int, limit: int) -> int:
    # Not `IN` with a list of keys: for keys of several columns SQLite looks through the whole table.
    columns = ("start_day", "user_id", "provider_name", "model", "client")
    key = ", ".join(columns)
    old = conn.execute(
        f"SELECT {key} FROM usage_days WHERE start_day < ? ORDER BY {key} LIMIT ?",  # noqa: S608 - names of ours
        (before_day, limit),
    ).fetchall()
    if not old:
        return 0
    return conn.execute(
        f"DELETE FROM usage_days WHERE start_day <= ? AND ({key}) <= (?, ?, ?, ?, ?)",  # noqa: S608
        (old[-1]["start_day"], *(old[-1][column] for column in columns)),
    ).rowcount


def forget_instances(conn: Connection, *, before_micros: int) -> None:
    """Forget bridges that were last heard of before that time and have nothing open."""
    conn.execute(
        "DELETE FROM bridge_instances WHERE seen_time < ? AND NOT EXISTS"
        " (SELECT 1 FROM interceptions AS i WHERE i.bridge_instance_id = bridge_instances.id"
        " AND i.service_id = bridge_instances.service_id AND i.end_time IS NULL)",
        (before_micros,),
    )


def heard_since(conn: Connection, *, since_micros: int) -> int:
    """How many bridges were heard of since that time."""
    (count,) = conn.execute("SELECT count(*) FROM bridge_instances WHERE seen_time >= ?", (since_micros,)).fetchone()
    return int(count)
