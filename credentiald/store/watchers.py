"""Who watches in which process, so that an administrator's rpc in one process waits for bridges of the others.

In the file of records, because each commit to the database makes every kept answer count no more. Processes that died
leave rows behind, which count for as long as `alive_time` says.
"""

from collections.abc import Iterable

from credentiald.bridge_instances import Instance
from credentiald.store.connection import Connection

# A row that was not renewed for so long is of a process that died; they are renewed much more often.
DEAD_MICROS = 15_000_000


def put(conn: Connection, process_id: str, rows: Iterable[tuple[str, Instance, int]], *, now_micros: int) -> None:
    """These are the watchers of the process: id, bridge, and up to which revision it has obeyed."""
    conn.execute("DELETE FROM watchers WHERE process_id = ? OR alive_time < ?", (process_id, now_micros - DEAD_MICROS))
    for watcher_id, (service_id, instance_id), revision in rows:
        conn.execute(
            "INSERT INTO watchers (id, process_id, service_id, bridge_instance_id, revision, alive_time)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (watcher_id, process_id, service_id, instance_id, revision, now_micros),
        )


def elsewhere(conn: Connection, process_id: str, *, now_micros: int) -> list[tuple[Instance, int]]:
    """The bridges that watch in other processes, each with the revision that it has obeyed.

    Where a bridge watches now counts, and not where it watched before: what a process that was killed wrote of it is
    behind for ever.
    """
    # SQLite takes the other columns from the row with the maximum.
    rows = conn.execute(
        "SELECT service_id, bridge_instance_id, process_id, revision, MAX(alive_time) FROM watchers"
        " WHERE alive_time >= ? GROUP BY service_id, bridge_instance_id",
        (now_micros - DEAD_MICROS,),
    ).fetchall()
    return [
        ((row["service_id"], row["bridge_instance_id"]), int(row["revision"]))
        for row in rows
        if row["process_id"] != process_id
    ]
