"""A database with sealed secrets of every kind, and what is in it when every one of them is opened."""

import sqlite3
from pathlib import Path

from credentiald import bootstrap, ids
from credentiald.model import ApiKeyMaterial, KeyKind
from credentiald.sealing import (
    DeploymentSecret,
    Keyring,
    Sealer,
    central_key_context,
    deployment_context,
    user_key_context,
)
from credentiald.store import meta, providers, sealing_rows, sqlite, user_keys, users
from credentiald.store.providers import StoredKey
from daemonkit.secret import Secret
from tests.support.store import NOW, a_provider, a_user

DATABASE = "credentiald.db"


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder / DATABASE}"


def fill(folder: Path, *, user_key_count: int) -> None:
    """Make the database, with a pool of three keys and so many users with a key of their own."""
    sealer = bootstrap.prepare(url_in(folder), None, now=NOW).sealer
    conn = sqlite.connect(folder / DATABASE)
    with sqlite.transaction(conn, write=True):
        key_id = sealing_rows.active_key_id(conn)
        provider = a_provider("corp", type="openai")
        pool = []
        for number in range(3):
            credential_id = ids.uuid7(NOW)
            sealed = sealer.seal_material(
                ApiKeyMaterial(value=Secret(f"sk-central-{number}")),
                central_key_context(provider_id=provider.id, credential_id=credential_id),
                key_id=key_id,
            )
            pool.append(StoredKey(credential_id=credential_id, kind=KeyKind.API_KEY, sealed=sealed))
        providers.create(conn, provider, pool, now=NOW)
        for number in range(user_key_count):
            user, credential_id = users.create(conn, a_user(f"u{number}")), ids.uuid7(NOW)
            sealed = sealer.seal_material(
                ApiKeyMaterial(value=Secret(f"sk-user-{number}")),
                user_key_context(user_id=user.id, provider_id=provider.id, credential_id=credential_id),
                key_id=key_id,
            )
            user_keys.put(
                conn, user_id=user.id, provider_id=provider.id, credential_id=credential_id, sealed=sealed, now=NOW
            )
    conn.close()


def opened(folder: Path, keyring: Keyring | None = None) -> dict[str, bytes]:
    """Every secret of the database by what it belongs to, opened with the keys that are kept."""
    if keyring is None:
        keyring = Keyring.parse((folder / "credentiald.sealing").read_text())
    sealer = Sealer(keyring)
    conn = sqlite.connect(folder / DATABASE, query_only=True)
    try:
        found = meta.find(conn)
        assert found is not None
        DeploymentSecret.open(found.deployment_secret, sealer, found.database_id)
        secrets = {"deployment": sealer.open(found.deployment_secret, deployment_context(found.database_id))}
        for row in conn.execute("SELECT * FROM central_keys").fetchall():
            context = central_key_context(provider_id=row["provider_id"], credential_id=row["credential_id"])
            secrets[row["credential_id"]] = sealer.open(meta.sealed_of(row), context)
        for row in conn.execute("SELECT * FROM user_keys").fetchall():
            context = user_key_context(
                user_id=row["user_id"], provider_id=row["provider_id"], credential_id=row["credential_id"]
            )
            secrets[row["credential_id"]] = sealer.open(meta.sealed_of(row), context)
        return secrets
    finally:
        conn.close()


def key_ids_in(folder: Path) -> set[str]:
    """The ids of the keys that seal anything."""
    conn = sqlite3.connect(folder / DATABASE)
    try:
        rows = conn.execute(
            "SELECT deployment_key_id FROM meta UNION SELECT key_id FROM central_keys"
            " UNION SELECT key_id FROM user_keys"
        ).fetchall()
    finally:
        conn.close()
    return {row[0] for row in rows}
