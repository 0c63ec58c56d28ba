"""Who watches in which process, so that an administrator's rpc in one process waits for bridges of the others.

In the file of records, because each commit to the database makes every kept answer count no more. Processes that ended
leave rows behind, as bridges do that are lost (credentiald/watchers.py); they count for as long as `alive_time` says.
"""

from collections.abc import Iterable

from credentiald.bridge_instances import Instance
from credentiald.store.connection import Connection
from credentiald.watchers import LOST_SECONDS, Row

# How often a process renews its rows.
RENEW_SECONDS = 5.0
# A row that was not renewed for so long counts no more: its process may have heard of the bridge until it would have
# renewed it.
LOST_MICROS = int((LOST_SECONDS + RENEW_SECONDS) * 1_000_000)


def put(
    conn: Connection, process_id: str, rows: Iterable[Row], *, now_micros: int, gone: Iterable[Instance] = ()
) -> None:
    """These are the watchers of the process. Nobody waits for those any more that are gone, wherever they watched."""
    conn.execute("DELETE FROM watchers WHERE process_id = ? OR alive_time < ?", (process_id, now_micros - LOST_MICROS))
    for instance in gone:
        conn.execute("DELETE FROM watchers WHERE service_id = ? AND bridge_instance_id = ?", instance)
    for watcher_id, (service_id, instance_id), revision, since_seconds in rows:
        conn.execute(
            "INSERT INTO watchers (id, process_id, service_id, bridge_instance_id, revision, alive_time)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (watcher_id, process_id, service_id, instance_id, revision, now_micros - int(since_seconds * 1_000_000)),
        )


def elsewhere(conn: Connection, process_id: str, *, now_micros: int) -> dict[Instance, int]:
    """The bridges that watch in other processes, or did, each with the highest revision that it has obeyed there.

    It has obeyed that, wherever it said so. Where it watched before, it is behind for ever.
    """
    rows = conn.execute(
        "SELECT service_id, bridge_instance_id, MAX(revision) AS revision FROM watchers"
        " WHERE alive_time >= ? AND process_id <> ? GROUP BY service_id, bridge_instance_id",
        (now_micros - LOST_MICROS, process_id),
    ).fetchall()
    return {(row["service_id"], row["bridge_instance_id"]): int(row["revision"]) for row in rows}
