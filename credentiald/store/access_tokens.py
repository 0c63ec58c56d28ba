"""Access tokens of users, by the hash of the token: the token itself is never here."""

from datetime import datetime

from credentiald.errors import AlreadyExists, TokenNotFound
from credentiald.ids import canonical_uuid
from credentiald.model import Token, User
from credentiald.store import revision, users
from credentiald.store.connection import Connection, Row
from credentiald.store.times import from_micros, from_micros_or_null, to_micros, to_micros_or_null


def create(conn: Connection, token: Token, token_hash: bytes) -> Token:
    """A new token of an existing user. AlreadyExists for a taken id, UserNotFound."""
    user = users.get(conn, token.user_id)
    inserted = conn.execute(
        "INSERT INTO tokens (id, user_id, token_hash, create_time, expire_time, revoke_time)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            token.id,
            user.id,
            token_hash,
            to_micros(token.create_time),
            to_micros_or_null(token.expire_time),
            to_micros_or_null(token.revoke_time),
        ),
    )
    if not inserted.rowcount:
        raise AlreadyExists(resource="token", name=token.id)
    _record(conn, "token.created", token.id, user.username, token.create_time)
    return get(conn, token.id)


def by_hash(conn: Connection, token_hash: bytes) -> tuple[Token, User] | None:
    """The token of this hash with its user, or None. Whether it still counts is for the caller to judge."""
    row = conn.execute(
        "SELECT t.*, u.username FROM tokens AS t JOIN users AS u ON u.id = t.user_id WHERE t.token_hash = ?",
        (token_hash,),
    ).fetchone()
    return None if row is None else (_token(row), users.get(conn, row["user_id"]))


def list_page(conn: Connection, *, user_id: str | None, after: str | None, limit: int) -> list[Token]:
    """At most `limit` tokens, oldest first, those after the id `after`; of one user, or of all."""
    rows = conn.execute(
        "SELECT t.*, u.username FROM tokens AS t JOIN users AS u ON u.id = t.user_id"
        " WHERE t.id > ? AND (t.user_id = ? OR ? IS NULL) ORDER BY t.id LIMIT ?",
        (after or "", user_id, user_id, limit),
    ).fetchall()
    return [_token(row) for row in rows]


def revoke(conn: Connection, token_id: str, *, now: datetime) -> Token:
    """The token, revoked. TokenNotFound. One that was revoked before keeps its first time."""
    token = get(conn, canonical_uuid(token_id) or token_id)
    if token.revoke_time is not None:
        return token
    conn.execute("UPDATE tokens SET revoke_time = ? WHERE id = ?", (to_micros(now), token.id))
    _record(conn, "token.revoked", token.id, token.username, now)
    return get(conn, token.id)


def get(conn: Connection, token_id: str) -> Token:
    """The token of this id, or TokenNotFound."""
    row = conn.execute(
        "SELECT t.*, u.username FROM tokens AS t JOIN users AS u ON u.id = t.user_id WHERE t.id = ?", (token_id,)
    ).fetchone()
    if row is None:
        raise TokenNotFound(id=token_id)
    return _token(row)


def _record(conn: Connection, kind: str, token_id: str, username: str, now: datetime) -> None:
    revision.record(conn, kind=kind, resource="token", resource_id=token_id, name=username, now=now)


def _token(row: Row) -> Token:
    return Token(
        id=row["id"],
        user_id=row["user_id"],
        username=row["username"],
        create_time=from_micros(row["create_time"]),
        expire_time=from_micros_or_null(row["expire_time"]),
        revoke_time=from_micros_or_null(row["revoke_time"]),
    )
