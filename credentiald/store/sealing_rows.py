"""Which key seals what is stored, and everything that is sealed.

The database says which key seals from now on, so all processes agree in the transaction in which they store
something: once a key is not that one any more, nothing new is sealed with it, and when what it sealed before is
sealed anew, nothing ever needs it again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from credentiald.errors import Sealed
from credentiald.model import SealedSecret
from credentiald.sealing import (
    SealContext,
    Sealer,
    central_key_context,
    deployment_context,
    unknown_key,
    user_key_context,
)
from credentiald.store.connection import Connection, Row
from credentiald.store.times import from_micros, to_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """A sealing key that sealed something once. `wrapped` is None where the key is kept outside the database."""

    id: str
    source: str
    fingerprint: bytes
    wrapped: bytes | None
    create_time: datetime
    retire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a pass through all that is sealed has come: the table, the key, and the last id in both."""

    table: int = 0
    key_id: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one step of a pass did. `next` is None at its end; `unreadable` are credential ids."""

    resealed: int
    unreadable: tuple[str, ...]
    next: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A table with sealed secrets, by the names of its columns."""

    name: str
    id: str
    prefix: str
    columns: str
    context: Callable[[Row], SealContext]


def _central(row: Row) -> SealContext:
    return central_key_context(provider_id=row["provider_id"], credential_id=row["credential_id"])


def _personal(row: Row) -> SealContext:
    return user_key_context(user_id=row["user_id"], provider_id=row["provider_id"], credential_id=row["credential_id"])


def _deployment(row: Row) -> SealContext:
    return deployment_context(row["database_id"])


# Every place where something sealed is kept. The deployment secret is first: without it nothing starts.
_TABLES = (
    _Table(name="meta", id="database_id", prefix="deployment_", columns="", context=_deployment),
    _Table(name="central_keys", id="credential_id", prefix="", columns=", provider_id", context=_central),
    _Table(name="user_keys", id="credential_id", prefix="", columns=", user_id, provider_id", context=_personal),
)


_EVERYTHING = SealContext(purpose="rotation")


def active_key_id(conn: Connection) -> str:
    """The id of the key that seals from now on; empty before one was ever named."""
    row = conn.execute("SELECT sealing_key_id FROM meta").fetchone()
    return str(row["sealing_key_id"] or "") if row else ""


def checked_active_key_id(conn: Connection, sealer: Sealer, context: SealContext) -> str:
    """The id of the key that seals from now on, where it is at hand; SealingKeyUnknown for another of that id too.

    What is sealed with a key that only one process has would be lost with that process.
    """
    key_id, fingerprint = _active_key(conn)
    if not sealer.has(key_id, fingerprint):
        raise unknown_key(key_id, context)
    return key_id


def is_active_at_hand(conn: Connection, sealer: Sealer) -> bool:
    """Whether the key that seals from now on is at hand, and not another of its id."""
    return sealer.has(*_active_key(conn))


def _active_key(conn: Connection) -> tuple[str, bytes]:
    """Id and fingerprint of the key that seals; both empty where none is named."""
    row = conn.execute(
        "SELECT meta.sealing_key_id AS id, sealing_keys.fingerprint AS fingerprint FROM meta"
        " JOIN sealing_keys ON sealing_keys.id = meta.sealing_key_id"
    ).fetchone()
    return (str(row["id"]), row["fingerprint"]) if row else ("", b"")


def activate(
    conn: Connection,
    key_id: str,
    *,
    source: str,
    fingerprint: bytes,
    wrapped: bytes | None = None,
    now: datetime,
) -> None:
    """Seal with this key from now on. It has never sealed anything here."""
    conn.execute(
        "INSERT INTO sealing_keys (id, source, fingerprint, wrapped, create_time) VALUES (?, ?, ?, ?, ?)",
        (key_id, source, fingerprint, wrapped, to_micros(now)),
    )
    conn.execute("UPDATE meta SET sealing_key_id = ?", (key_id,))


def retire(conn: Connection, key_id: str, *, now: datetime) -> None:
    """Note that the key is not wanted any more, and forget it where it is kept here."""
    conn.execute("UPDATE sealing_keys SET retire_time = ?, wrapped = NULL WHERE id = ?", (to_micros(now), key_id))


def known_keys(conn: Connection) -> list[KnownKey]:
    """Every key that sealed something since this was noted, newest first."""
    rows = conn.execute("SELECT * FROM sealing_keys ORDER BY create_time DESC, id DESC").fetchall()
    return [
        KnownKey(
            id=row["id"],
            source=row["source"],
            fingerprint=row["fingerprint"],
            wrapped=row["wrapped"],
            create_time=from_micros(row["create_time"]),
            retire_time=None if row["retire_time"] is None else from_micros(row["retire_time"]),
        )
        for row in rows
    ]


def secrets_by_key(conn: Connection) -> dict[str, int]:
    """How many secrets each key seals, for those that seal any."""
    counts: dict[str, int] = {}
    for table in _TABLES:
        key = f"{table.prefix}key_id"
        rows = conn.execute(f"SELECT {key} AS key_id, count(*) AS secrets FROM {table.name} GROUP BY {key}").fetchall()  # noqa: S608 - names of ours
        for row in rows:
            counts[str(row["key_id"])] = counts.get(str(row["key_id"]), 0) + int(row["secrets"])
    return counts


def any_old(conn: Connection) -> bool:
    """Whether another key than the active one seals anything. Looks at the ends of indexes, not at all rows."""
    active = active_key_id(conn)
    for table in _TABLES:
        key = f"{table.prefix}key_id"
        for order in ("<", ">"):
            query = f"SELECT 1 FROM {table.name} WHERE {key} {order} ? LIMIT 1"  # noqa: S608 - names of ours
            if conn.execute(query, (active,)).fetchone() is not None:
                return True
    return False


def reseal(conn: Connection, sealer: Sealer, place: Place, *, limit: int) -> Pass:
    """Seal at most `limit` of the secrets behind `place` with the active key that an older one at hand seals.

    What does not open stays as it is. Nothing but the seal changes: no revision, no time, no id. SealingKeyUnknown
    where the active key is not at hand.
    """
    active = checked_active_key_id(conn, sealer, _EVERYTHING)
    table = _TABLES[place.table]
    key, nonce, ciphertext = (f"{table.prefix}{column}" for column in ("key_id", "nonce", "ciphertext"))
    old = sorted(key_id for key_id in sealer.key_ids if key_id != active and key_id >= place.key_id)
    if not old:
        return Pass(resealed=0, unreadable=(), next=_next_table(place))
    # One key at a time, so that an index has them in this order, however much there is.
    rows = conn.execute(
        f"SELECT {table.id} AS id, {table.id}, {key} AS key_id, {nonce} AS nonce, {ciphertext} AS ciphertext"  # noqa: S608
        f"{table.columns} FROM {table.name} WHERE {key} = ? AND {table.id} > ? ORDER BY {table.id} LIMIT ?",
        (old[0], place.after if old[0] == place.key_id else "", limit),
    ).fetchall()
    unreadable = []
    for row in rows:
        context = table.context(row)
        try:
            plaintext = sealer.open(
                SealedSecret(key_id=row["key_id"], nonce=row["nonce"], ciphertext=row["ciphertext"]), context
            )
        except Sealed:
            unreadable.append(str(row["id"]))
            continue
        sealed = sealer.seal(plaintext, context, key_id=active)
        conn.execute(
            f"UPDATE {table.name} SET {key} = ?, {nonce} = ?, {ciphertext} = ? WHERE {table.id} = ?",  # noqa: S608
            (sealed.key_id, sealed.nonce, sealed.ciphertext, row["id"]),
        )
    if len(rows) == limit:
        following: Place | None = Place(table=place.table, key_id=old[0], after=str(rows[-1]["id"]))
    elif len(old) > 1:
        following = Place(table=place.table, key_id=old[1])
    else:
        following = _next_table(place)
    return Pass(resealed=len(rows) - len(unreadable), unreadable=tuple(unreadable), next=following)


def _next_table(place: Place) -> Place | None:
    return Place(table=place.table + 1) if place.table + 1 < len(_TABLES) else None
