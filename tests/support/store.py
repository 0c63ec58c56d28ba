"""Values to put into a store, and ways to open one."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from credentiald import ids
from credentiald.model import KeyKind, KeyPolicy, Model, ModelPrices, Provider, Role, SealedSecret, Service, Token, User
from credentiald.store import migrations, sqlite
from credentiald.store.providers import StoredKey

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
MISSING_ID = "00000000-0000-7000-8000-000000000000"


@contextmanager
def empty_store(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a new database with the schema and no rows."""
    path.touch(mode=0o600)
    conn = sqlite.connect(path)
    try:
        with sqlite.transaction(conn, write=True):
            migrations.apply_pending(conn)
        yield conn
    finally:
        conn.close()


def a_provider(name: str = "anthropic-corp", **changes: Any) -> Provider:
    values: dict[str, Any] = {
        "id": ids.uuid7(NOW),
        "name": name,
        "type": "anthropic",
        "policy": KeyPolicy(central_key_enabled=True, user_keys_allowed=True, central_key_fallback=False),
    }
    return Provider(**values | changes)


def a_user(username: str = "alice", **changes: Any) -> User:
    values: dict[str, Any] = {"id": ids.uuid7(NOW), "username": username, "create_time": NOW, "update_time": NOW}
    return User(**values | changes)


def a_token(user: User, **changes: Any) -> Token:
    values: dict[str, Any] = {
        "id": ids.uuid7(NOW),
        "user_id": user.id,
        "username": user.username,
        "create_time": NOW,
    }
    return Token(**values | changes)


def a_service(name: str = "bridge-2", **changes: Any) -> Service:
    values: dict[str, Any] = {
        "id": ids.uuid7(NOW),
        "name": name,
        "role": Role.BRIDGE,
        "create_time": NOW,
        "rotate_time": NOW,
    }
    return Service(**values | changes)


def a_model(name: str = "gpt-5", **changes: Any) -> Model:
    values: dict[str, Any] = {
        "id": ids.uuid7(NOW),
        "provider_id": "p-1",
        "provider_name": "corp",
        "name": name,
        "prices": ModelPrices(input_price_micros=1_250_000, output_price_micros=10_000_000),
        "create_time": NOW,
        "update_time": NOW,
    }
    return Model(**values | changes)


def sealed(mark: str) -> SealedSecret:
    """Something sealed, for tests that never open it."""
    return SealedSecret(key_id="k1", nonce=b"twelve bytes", ciphertext=mark.encode())


def a_key(mark: str = "first", **changes: Any) -> StoredKey:
    values: dict[str, Any] = {"credential_id": ids.uuid7(NOW), "kind": KeyKind.API_KEY, "sealed": sealed(mark)}
    return StoredKey(**values | changes)


def changes_of(conn: sqlite3.Connection) -> list[tuple[int, str, str, str]]:
    """The change log: revision, kind, resource id, name."""
    rows = conn.execute("SELECT revision, kind, resource_id, name FROM change_log ORDER BY revision").fetchall()
    return [tuple(row) for row in rows]


def last_change(conn: sqlite3.Connection) -> tuple[str, str, str]:
    """Kind, resource id and name of the newest change."""
    return changes_of(conn)[-1][1:]
