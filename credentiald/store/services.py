"""Services: programs that call gRPC, each with one token, of which only the hash is here."""

import json
from datetime import datetime

from credentiald.errors import AlreadyExists, ServiceNotFound
from credentiald.model import Role, Service
from credentiald.store import revision
from credentiald.store.connection import Connection, Row
from credentiald.store.times import from_micros, to_micros


def get(conn: Connection, name: str) -> Service:
    """The service of this name, or ServiceNotFound."""
    row = conn.execute("SELECT * FROM services WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise ServiceNotFound(service=name)
    return _service(row)


def by_hash(conn: Connection, token_hash: bytes) -> Service | None:
    """The service whose present token has this hash, or None."""
    row = conn.execute("SELECT * FROM services WHERE token_hash = ?", (token_hash,)).fetchone()
    return None if row is None else _service(row)


def list_page(conn: Connection, *, after: str | None, limit: int) -> list[Service]:
    """At most `limit` services by name, those that come after the name `after`; None starts at the first."""
    rows = conn.execute("SELECT * FROM services WHERE name > ? ORDER BY name LIMIT ?", (after or "", limit)).fetchall()
    return [_service(row) for row in rows]


def names(conn: Connection) -> dict[str, str]:
    """Name of every service, by id."""
    return {row["id"]: row["name"] for row in conn.execute("SELECT id, name FROM services").fetchall()}


def create(conn: Connection, service: Service, token_hash: bytes) -> Service:
    """A new service. AlreadyExists for a taken id or name."""
    inserted = conn.execute(
        "INSERT INTO services (id, name, role, token_hash, may_act_for_users, act_for_providers, create_time,"
        " rotate_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            service.id,
            service.name,
            service.role.value,
            token_hash,
            service.may_act_for_users,
            json.dumps(service.act_for_providers),
            to_micros(service.create_time),
            to_micros(service.rotate_time),
        ),
    )
    if not inserted.rowcount:
        raise AlreadyExists(resource="service", name=service.name)
    _record(conn, "service.created", service, service.create_time)
    return get(conn, service.name)


def rotate(conn: Connection, name: str, token_hash: bytes, *, now: datetime) -> Service:
    """The service with another token; the one before stops counting with this transaction. ServiceNotFound."""
    service = get(conn, name)
    conn.execute(
        "UPDATE services SET token_hash = ?, rotate_time = ? WHERE id = ?", (token_hash, to_micros(now), service.id)
    )
    _record(conn, "service.rotated", service, now)
    return get(conn, name)


def exists(conn: Connection, name: str) -> bool:
    """Whether there is a service of this name."""
    return conn.execute("SELECT 1 FROM services WHERE name = ?", (name,)).fetchone() is not None


def delete(conn: Connection, name: str, *, now: datetime) -> None:
    """Remove the service; its token stops counting. ServiceNotFound."""
    service = get(conn, name)
    conn.execute("DELETE FROM services WHERE id = ?", (service.id,))
    _record(conn, "service.deleted", service, now)


def _record(conn: Connection, kind: str, service: Service, now: datetime) -> None:
    revision.record(conn, kind=kind, resource="service", resource_id=service.id, name=service.name, now=now)


def _service(row: Row) -> Service:
    return Service(
        id=row["id"],
        name=row["name"],
        role=Role(row["role"]),
        may_act_for_users=bool(row["may_act_for_users"]),
        act_for_providers=tuple(json.loads(row["act_for_providers"])),
        create_time=from_micros(row["create_time"]),
        rotate_time=from_micros(row["rotate_time"]),
    )
