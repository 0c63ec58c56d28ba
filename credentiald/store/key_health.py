"""What bridges told of the keys of pools. All workers read and write it, so they agree, also after a restart.

It is no administrative state: no revision, no row of the change log. But a commit is a commit, after which kept answers
are decided anew, so it is written only when something changes.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from credentiald.key_health import FORGOTTEN_AFTER, Cooldown, OutcomeKind
from credentiald.store.connection import Connection, Row
from credentiald.store.times import from_micros, to_micros

# Complaints of one key that one service may have. Bridges choose the ids of their instances.
MOST_OF_ONE_SERVICE = 64


def of_provider(conn: Connection, provider_id: str, *, now: datetime) -> list[Cooldown]:
    """The complaints of a provider's keys that count for anything."""
    rows = conn.execute(
        "SELECT * FROM key_cooldowns WHERE provider_id = ? AND until_time > ?",
        (provider_id, to_micros(now - FORGOTTEN_AFTER)),
    ).fetchall()
    return [_cooldown(row) for row in rows]


def all_cooldowns(conn: Connection, *, now: datetime) -> list[Cooldown]:
    """Those of all providers."""
    rows = conn.execute(
        "SELECT * FROM key_cooldowns WHERE until_time > ?", (to_micros(now - FORGOTTEN_AFTER),)
    ).fetchall()
    return [_cooldown(row) for row in rows]


def put(conn: Connection, cooldown: Cooldown) -> None:
    """A complaint, in place of the bridge's earlier one. Of too many of one service, those that end first go."""
    service_id, instance_id = cooldown.teller
    conn.execute(
        "INSERT OR REPLACE INTO key_cooldowns (provider_id, credential_id, service_id, instance_id, kind, since_time,"
        " until_time, strikes, error, http_status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            cooldown.provider_id,
            cooldown.credential_id,
            service_id,
            instance_id,
            cooldown.kind.value,
            to_micros(cooldown.since_time),
            to_micros(cooldown.until_time),
            cooldown.strikes,
            cooldown.error,
            cooldown.http_status,
        ),
    )
    of_service = (cooldown.provider_id, cooldown.credential_id, service_id)
    conn.execute(
        "DELETE FROM key_cooldowns WHERE provider_id = ? AND credential_id = ? AND service_id = ? AND instance_id IN"
        " (SELECT instance_id FROM key_cooldowns WHERE provider_id = ? AND credential_id = ? AND service_id = ?"
        " ORDER BY until_time DESC, instance_id LIMIT -1 OFFSET ?)",
        (*of_service, *of_service, MOST_OF_ONE_SERVICE),
    )


def remove(conn: Connection, cooldowns: Iterable[Cooldown]) -> None:
    """Complaints that are over."""
    for one in cooldowns:
        conn.execute(
            "DELETE FROM key_cooldowns WHERE provider_id = ? AND credential_id = ? AND service_id = ?"
            " AND instance_id = ?",
            (one.provider_id, one.credential_id, *one.teller),
        )


def remove_old(conn: Connection, *, now: datetime) -> None:
    """Complaints that do not count for anything any more."""
    conn.execute("DELETE FROM key_cooldowns WHERE until_time <= ?", (to_micros(now - FORGOTTEN_AFTER),))


def keep_only(conn: Connection, provider_id: str, credential_ids: Sequence[str]) -> None:
    """The provider has no other keys than these: what was told of others goes with them."""
    marks = ", ".join("?" * len(credential_ids))
    conn.execute(
        f"DELETE FROM key_cooldowns WHERE provider_id = ? AND credential_id NOT IN ({marks})",  # noqa: S608 - marks
        (provider_id, *credential_ids),
    )


def _cooldown(row: Row) -> Cooldown:
    return Cooldown(
        credential_id=row["credential_id"],
        provider_id=row["provider_id"],
        teller=(row["service_id"], row["instance_id"]),
        kind=OutcomeKind(row["kind"]),
        since_time=from_micros(row["since_time"]),
        until_time=from_micros(row["until_time"]),
        strikes=row["strikes"],
        error=row["error"],
        http_status=row["http_status"],
    )
