"""What bridges say of themselves, in the file of records."""

from collections.abc import Iterator

from credentiald.bridge_instances import Instance
from credentiald.store.connection import Connection

# Bridges of one service whose words are kept; those that were heard of last. They choose the ids of their instances.
MOST_OF_ONE_SERVICE = 256


def breakers_of(conn: Connection, instance: Instance) -> str:
    """What this bridge said of its breakers; empty for nothing."""
    row = conn.execute("SELECT breakers FROM bridge_instances WHERE service_id = ? AND id = ?", instance).fetchone()
    return str(row["breakers"]) if row else ""


def tell_breakers(conn: Connection, instance: Instance, breakers: str, *, now_micros: int) -> None:
    """What this bridge says of its breakers, in place of what it said before. It was heard of now."""
    conn.execute(
        "INSERT INTO bridge_instances (service_id, id, seen_time, breakers) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (service_id, id) DO UPDATE SET breakers = excluded.breakers,"
        " seen_time = MAX(seen_time, excluded.seen_time)",
        (*instance, now_micros, breakers),
    )
    service_id, _ = instance
    conn.execute(
        "UPDATE bridge_instances SET breakers = '' WHERE service_id = ? AND breakers <> '' AND id IN"
        " (SELECT id FROM bridge_instances WHERE service_id = ? AND breakers <> ''"
        " ORDER BY seen_time DESC, id LIMIT -1 OFFSET ?)",
        (service_id, service_id, MOST_OF_ONE_SERVICE),
    )


def breakers_since(conn: Connection, *, since_micros: int) -> Iterator[tuple[Instance, int, str]]:
    """Of each bridge that was heard of since that time and says anything: when it was heard of, and what it says."""
    rows = conn.execute(
        "SELECT service_id, id, seen_time, breakers FROM bridge_instances WHERE seen_time >= ? AND breakers != ''"
        " ORDER BY seen_time DESC, id",
        (since_micros,),
    ).fetchall()
    return ((((row["service_id"], row["id"]), row["seen_time"], row["breakers"])) for row in rows)
