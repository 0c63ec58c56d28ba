"""Users. Usernames are unique without regard to case, and keep the case in which they were given."""

import unicodedata
from datetime import datetime

from credentiald.errors import AlreadyExists, UserNotFound
from credentiald.ids import canonical_uuid
from credentiald.model import User
from credentiald.store import revision
from credentiald.store.connection import Connection, Row
from credentiald.store.times import from_micros, to_micros


def find(conn: Connection, id_or_username: str) -> User | None:
    """The user of this id, else of this username, else None."""
    row = None
    user_id = canonical_uuid(id_or_username)
    if user_id is not None:
        row = conn.execute("SELECT * FROM users WHERE id = ?", (user_id,)).fetchone()
    if row is None:
        row = conn.execute("SELECT * FROM users WHERE username_key = ?", (_username_key(id_or_username),)).fetchone()
    return None if row is None else _user(row)


def get(conn: Connection, id_or_username: str) -> User:
    """The user of this id, else of this username, else UserNotFound."""
    user = find(conn, id_or_username)
    if user is None:
        raise UserNotFound(user=id_or_username)
    return user


def list_page(conn: Connection, *, after: str | None, limit: int) -> list[User]:
    """At most `limit` users by username, those that come after the username `after`; None starts at the first."""
    rows = conn.execute(
        "SELECT * FROM users WHERE username_key > ? ORDER BY username_key LIMIT ?",
        (_username_key(after or ""), limit),
    ).fetchall()
    return [_user(row) for row in rows]


def create(conn: Connection, user: User) -> User:
    """A new user. AlreadyExists for a taken id or username."""
    inserted = conn.execute(
        "INSERT INTO users (id, username, username_key, admin, suspended, version, create_time, update_time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            user.id,
            user.username,
            _username_key(user.username),
            user.admin,
            user.suspended,
            user.version,
            to_micros(user.create_time),
            to_micros(user.update_time),
        ),
    )
    if not inserted.rowcount:
        raise AlreadyExists(resource="user", name=user.username)
    _record(conn, "user.created", user, user.create_time)
    return get(conn, user.id)


def set_suspended(conn: Connection, id_or_username: str, suspended: bool, *, now: datetime) -> User:
    """The user, suspended or not from now on. UserNotFound. Nothing changes if it is so already."""
    user = get(conn, id_or_username)
    if user.suspended == suspended:
        return user
    conn.execute(
        "UPDATE users SET suspended = ?, version = version + 1, update_time = ? WHERE id = ?",
        (suspended, to_micros(now), user.id),
    )
    _record(conn, "user.suspended" if suspended else "user.resumed", user, now)
    return get(conn, user.id)


def delete(conn: Connection, id_or_username: str, *, now: datetime) -> None:
    """Remove the user with tokens and keys. UserNotFound."""
    user = get(conn, id_or_username)
    conn.execute("DELETE FROM users WHERE id = ?", (user.id,))
    _record(conn, "user.deleted", user, now)


def _username_key(username: str) -> str:
    """What makes two usernames the same: compatibility forms and case do not count (Unicode, UAX 15 and 3.13)."""
    return unicodedata.normalize("NFKC", username).casefold()


def _record(conn: Connection, kind: str, user: User, now: datetime) -> None:
    revision.record(conn, kind=kind, resource="user", resource_id=user.id, name=user.username, now=now)


def _user(row: Row) -> User:
    return User(
        id=row["id"],
        username=row["username"],
        admin=bool(row["admin"]),
        suspended=bool(row["suspended"]),
        version=row["version"],
        create_time=from_micros(row["create_time"]),
        update_time=from_micros(row["update_time"]),
    )
