"""What bridges say of themselves, in the file of records."""

from collections.abc import Iterator

from credentiald.bridge_instances import Instance
from credentiald.store.connection import Connection

# Of the bridges that are shown, the ones that were heard of last.
_MOST_SHOWN = 1000


def breakers_of(conn: Connection, instance: Instance) -> str:
    """What this bridge said of its breakers; empty for nothing."""
    row = conn.execute("SELECT breakers FROM bridge_instances WHERE service_id = ? AND id = ?", instance).fetchone()
    return str(row["breakers"]) if row else ""


def tell_breakers(conn: Connection, instance: Instance, breakers: str, *, now_micros: int) -> None:
    """What this bridge says of its breakers, in place of what it said before."""
    conn.execute(
        "INSERT INTO bridge_instances (service_id, id, seen_time, breakers) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (service_id, id) DO UPDATE SET breakers = excluded.breakers",
        (*instance, now_micros, breakers),
    )


def breakers_since(conn: Connection, *, since_micros: int) -> Iterator[tuple[Instance, int, str]]:
    """Of each bridge that was heard of since that time and says anything: when it was heard of, and what it says."""
    rows = conn.execute(
        "SELECT service_id, id, seen_time, breakers FROM bridge_instances WHERE seen_time >= ? AND breakers != ''"
        " ORDER BY seen_time DESC LIMIT ?",
        (since_micros, _MOST_SHOWN),
    ).fetchall()
    return ((((row["service_id"], row["id"]), row["seen_time"], row["breakers"])) for row in rows)
