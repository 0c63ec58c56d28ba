"""Users' own keys, at most one for each user and provider; for providers from the environment too."""

from datetime import datetime

from credentiald.model import SealedSecret, UserKey
from credentiald.store import revision, users
from credentiald.store.connection import Connection, Row
from credentiald.store.times import from_micros, to_micros


def put(
    conn: Connection, *, user_id: str, provider_id: str, credential_id: str, sealed: SealedSecret, now: datetime
) -> UserKey:
    """Store the key, in place of the one before if there is one. UserNotFound.

    That the provider exists is for the caller to check, since the store does not know those from the environment.
    """
    user = users.get(conn, user_id)
    conn.execute(
        "INSERT INTO user_keys (user_id, provider_id, credential_id, key_id, nonce, ciphertext, update_time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (user_id, provider_id) DO UPDATE SET credential_id = excluded.credential_id,"
        " key_id = excluded.key_id, nonce = excluded.nonce, ciphertext = excluded.ciphertext,"
        " update_time = excluded.update_time",
        (user.id, provider_id, credential_id, sealed.key_id, sealed.nonce, sealed.ciphertext, to_micros(now)),
    )
    _record(conn, "user_key.set", user.id, provider_id, user.username, now)
    return UserKey(user_id=user.id, provider_id=provider_id, credential_id=credential_id, update_time=now)


def find(conn: Connection, *, user_id: str, provider_id: str) -> tuple[UserKey, SealedSecret] | None:
    """The user's key for the provider, still sealed, or None."""
    row = conn.execute(
        "SELECT * FROM user_keys WHERE user_id = ? AND provider_id = ?", (user_id, provider_id)
    ).fetchone()
    if row is None:
        return None
    return _user_key(row), SealedSecret(key_id=row["key_id"], nonce=row["nonce"], ciphertext=row["ciphertext"])


def list_for_user(conn: Connection, user_id: str) -> dict[str, UserKey]:
    """What the user has stored, by the id of the provider."""
    rows = conn.execute(
        "SELECT user_id, provider_id, credential_id, update_time FROM user_keys WHERE user_id = ? ORDER BY provider_id",
        (user_id,),
    ).fetchall()
    return {row["provider_id"]: _user_key(row) for row in rows}


def delete(conn: Connection, *, user_id: str, provider_id: str, now: datetime) -> bool:
    """Remove the user's key for the provider; whether there was one. UserNotFound."""
    user = users.get(conn, user_id)
    deleted = conn.execute("DELETE FROM user_keys WHERE user_id = ? AND provider_id = ?", (user.id, provider_id))
    if not deleted.rowcount:
        return False
    _record(conn, "user_key.deleted", user.id, provider_id, user.username, now)
    return True


def _record(conn: Connection, kind: str, user_id: str, provider_id: str, username: str, now: datetime) -> None:
    """The resource is `<user id>/<provider id>`: the pair is what a key is looked up by."""
    resource_id = f"{user_id}/{provider_id}"
    revision.record(conn, kind=kind, resource="user_key", resource_id=resource_id, name=username, now=now)


def _user_key(row: Row) -> UserKey:
    return UserKey(
        user_id=row["user_id"],
        provider_id=row["provider_id"],
        credential_id=row["credential_id"],
        update_time=from_micros(row["update_time"]),
    )
