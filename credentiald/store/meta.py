"""The one row about the database itself. That it is there means: this database is complete."""

from dataclasses import dataclass
from datetime import datetime

from credentiald.model import SealedSecret
from credentiald.sealing import SealContext, central_key_context, deployment_context, user_key_context
from credentiald.store.connection import Connection, Row
from credentiald.store.times import to_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """The identity of a database and its sealed deployment secret."""

    database_id: str
    deployment_secret: SealedSecret


def find(conn: Connection) -> Meta | None:
    """The row, or None while the database is being made. The table must be there."""
    row = conn.execute(
        "SELECT database_id, deployment_key_id, deployment_nonce, deployment_ciphertext FROM meta"
    ).fetchone()
    if row is None:
        return None
    sealed = SealedSecret(
        key_id=row["deployment_key_id"], nonce=row["deployment_nonce"], ciphertext=row["deployment_ciphertext"]
    )
    return Meta(database_id=row["database_id"], deployment_secret=sealed)


def create(conn: Connection, meta: Meta, *, now: datetime) -> None:
    """Complete a new database. It is no administrative change, so there is no revision for it."""
    sealed = meta.deployment_secret
    conn.execute(
        "INSERT INTO meta (id, database_id, deployment_key_id, deployment_nonce, deployment_ciphertext, create_time)"
        " VALUES (1, ?, ?, ?, ?, ?)",
        (meta.database_id, sealed.key_id, sealed.nonce, sealed.ciphertext, to_micros(now)),
    )


def sealed_samples(conn: Connection) -> list[tuple[SealedSecret, SealContext]]:
    """One sealed secret for each sealing key that something in this database needs, the deployment secret first."""
    found = find(conn)
    samples = [(found.deployment_secret, deployment_context(found.database_id))] if found else []
    for row in conn.execute(
        "SELECT key_id, nonce, ciphertext, provider_id, credential_id FROM central_keys"
        " WHERE credential_id IN (SELECT min(credential_id) FROM central_keys GROUP BY key_id)"
    ).fetchall():
        context = central_key_context(provider_id=row["provider_id"], credential_id=row["credential_id"])
        samples.append((sealed_of(row), context))
    for row in conn.execute(
        "SELECT key_id, nonce, ciphertext, user_id, provider_id, credential_id FROM user_keys"
        " WHERE credential_id IN (SELECT min(credential_id) FROM user_keys GROUP BY key_id)"
    ).fetchall():
        context = user_key_context(
            user_id=row["user_id"], provider_id=row["provider_id"], credential_id=row["credential_id"]
        )
        samples.append((sealed_of(row), context))
    return samples


def sealed_of(row: Row) -> SealedSecret:
    """What a row of a table with keys has sealed."""
    return SealedSecret(key_id=row["key_id"], nonce=row["nonce"], ciphertext=row["ciphertext"])


def sealing_key_ids(conn: Connection) -> set[str]:
    """The ids of the sealing keys that something in this database needs."""
    rows = conn.execute(
        "SELECT deployment_key_id AS key_id FROM meta"
        " UNION SELECT key_id FROM central_keys"
        " UNION SELECT key_id FROM user_keys"
    ).fetchall()
    return {str(row["key_id"]) for row in rows}
