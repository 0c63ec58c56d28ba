"""Services: programs that call gRPC, each known by one token, of which only the hash is here, or by its certificates.

For a while after a rotation the token before the present one counts, too. A service without a token has the hash of
nothing that anybody knows.
"""

import json
import secrets
from collections.abc import Sequence
from datetime import datetime

from credentiald.errors import AlreadyExists, InvalidArgument, ServiceNotFound
from credentiald.model import Role, Service
from credentiald.store import revision
from credentiald.store.connection import Connection, Row
from credentiald.store.times import from_micros, from_micros_or_null, to_micros, to_micros_or_null

_HASH_BYTES = 32


def get(conn: Connection, name: str) -> Service:
    """The service of this name, or ServiceNotFound."""
    row = conn.execute("SELECT * FROM services WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise ServiceNotFound(service=name)
    return _service(conn, row)


def by_hash(conn: Connection, token_hash: bytes) -> Service | None:
    """The service whose present token has this hash, or None."""
    row = conn.execute("SELECT * FROM services WHERE token_hash = ?", (token_hash,)).fetchone()
    return None if row is None else _service(conn, row)


def by_old_hash(conn: Connection, token_hash: bytes, *, now: datetime) -> Service | None:
    """The service whose token before the present one has this hash and is still valid, or None."""
    row = conn.execute(
        "SELECT * FROM services WHERE old_token_hash = ? AND old_token_expire_time > ?", (token_hash, to_micros(now))
    ).fetchone()
    return None if row is None else _service(conn, row)


def by_sans(conn: Connection, sans: Sequence[str]) -> list[Service]:
    """The services that certificates with these names are: none, one, or (of a certificate for several) more."""
    found: dict[str, Row] = {}
    for san in sans:
        row = conn.execute(
            "SELECT services.* FROM services JOIN service_certificates ON service_id = id WHERE san = ?", (san,)
        ).fetchone()
        if row is not None:
            found[row["name"]] = row
    return [_service(conn, found[name]) for name in sorted(found)]


def list_page(conn: Connection, *, after: str | None, limit: int) -> list[Service]:
    """At most `limit` services by name, those that come after the name `after`; None starts at the first."""
    rows = conn.execute("SELECT * FROM services WHERE name > ? ORDER BY name LIMIT ?", (after or "", limit)).fetchall()
    return [_service(conn, row) for row in rows]


def names(conn: Connection) -> dict[str, str]:
    """Name of every service, by id."""
    return {row["id"]: row["name"] for row in conn.execute("SELECT id, name FROM services").fetchall()}


def create(conn: Connection, service: Service, token_hash: bytes | None) -> Service:
    """A new service, without a token where there is no hash of one. AlreadyExists for a taken id, name or SAN."""
    inserted = conn.execute(
        "INSERT INTO services (id, name, role, token_hash, has_token, may_act_for_users, act_for_providers,"
        " create_time, rotate_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            service.id,
            service.name,
            service.role.value,
            token_hash or secrets.token_bytes(_HASH_BYTES),
            token_hash is not None,
            service.may_act_for_users,
            json.dumps(service.act_for_providers),
            to_micros(service.create_time),
            to_micros(service.rotate_time or service.create_time),
        ),
    )
    if not inserted.rowcount:
        raise AlreadyExists(resource="service", name=service.name)
    _put_sans(conn, service.id, service.certificate_sans)
    _record(conn, "service.created", service, service.create_time)
    return get(conn, service.name)


def rotate(
    conn: Connection, name: str, token_hash: bytes, *, now: datetime, old_until: datetime | None = None
) -> Service:
    """The service with another token. ServiceNotFound.

    The one before stops counting with this transaction, or at `old_until`; what an earlier rotation kept does so now.
    A service has two tokens at most: InvalidArgument where both are to be kept, since that may be the one in use.
    """
    service = get(conn, name)
    kept_until = service.old_token_expire_time
    if old_until is not None and kept_until is not None and kept_until > now:
        raise InvalidArgument(
            field="keep_old",
            problem=f"an older token is still kept, until {kept_until:%Y-%m-%dT%H:%M:%SZ}, and may be the one in use:"
            " revoke that one first, or keep none",
        )
    keeps = old_until is not None and service.rotate_time is not None
    conn.execute(
        "UPDATE services SET old_token_hash = CASE WHEN ? THEN token_hash END, old_token_expire_time = ?,"
        " token_hash = ?, has_token = 1, rotate_time = ? WHERE id = ?",
        (keeps, to_micros_or_null(old_until if keeps else None), token_hash, to_micros(now), service.id),
    )
    _record(conn, "service.rotated", service, now)
    return get(conn, name)


def revoke_old_token(conn: Connection, name: str, *, now: datetime) -> Service:
    """The service without the token that a rotation kept; nothing changes where there is none. ServiceNotFound."""
    service = get(conn, name)
    if service.old_token_expire_time is None:
        return service
    conn.execute("UPDATE services SET old_token_hash = NULL, old_token_expire_time = NULL WHERE id = ?", (service.id,))
    _record(conn, "service.old_token_revoked", service, now)
    return get(conn, name)


def set_sans(conn: Connection, name: str, sans: Sequence[str], *, now: datetime) -> Service:
    """The service with these names of certificates in place of those that it had. ServiceNotFound, AlreadyExists."""
    service = get(conn, name)
    conn.execute("DELETE FROM service_certificates WHERE service_id = ?", (service.id,))
    _put_sans(conn, service.id, sans)
    _record(conn, "service.certificates_set", service, now)
    return get(conn, name)


def exists(conn: Connection, name: str) -> bool:
    """Whether there is a service of this name."""
    return conn.execute("SELECT 1 FROM services WHERE name = ?", (name,)).fetchone() is not None


def delete(conn: Connection, name: str, *, now: datetime) -> None:
    """Remove the service; its tokens and certificates stop counting. ServiceNotFound."""
    service = get(conn, name)
    conn.execute("DELETE FROM services WHERE id = ?", (service.id,))
    _record(conn, "service.deleted", service, now)


def _put_sans(conn: Connection, service_id: str, sans: Sequence[str]) -> None:
    for san in sans:
        inserted = conn.execute(
            "INSERT INTO service_certificates (san, service_id) VALUES (?, ?) ON CONFLICT DO NOTHING", (san, service_id)
        )
        if not inserted.rowcount:
            raise AlreadyExists(resource="certificate name", name=san)


def _record(conn: Connection, kind: str, service: Service, now: datetime) -> None:
    revision.record(conn, kind=kind, resource="service", resource_id=service.id, name=service.name, now=now)


def _service(conn: Connection, row: Row) -> Service:
    sans = conn.execute("SELECT san FROM service_certificates WHERE service_id = ? ORDER BY san", (row["id"],))
    return Service(
        id=row["id"],
        name=row["name"],
        role=Role(row["role"]),
        may_act_for_users=bool(row["may_act_for_users"]),
        act_for_providers=tuple(json.loads(row["act_for_providers"])),
        create_time=from_micros(row["create_time"]),
        rotate_time=from_micros(row["rotate_time"]) if row["has_token"] else None,
        old_token_expire_time=from_micros_or_null(row["old_token_expire_time"]),
        certificate_sans=tuple(one["san"] for one in sans.fetchall()),
    )
