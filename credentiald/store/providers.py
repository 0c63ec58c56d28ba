"""Providers that administrators made, with their central keys. Environment providers never come here.

A provider's name never changes. Its central keys are part of it: they are read, replaced and deleted with it, in the
order in which they are tried.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from credentiald.errors import AlreadyExists, EtagMismatch, ProviderNotFound
from credentiald.model import (
    BedrockModelRule,
    BedrockOptions,
    BedrockProtocol,
    CentralKey,
    KeyKind,
    KeyPolicy,
    Origin,
    Provider,
    SealedSecret,
    Timeouts,
)
from credentiald.store import key_health, revision
from credentiald.store.connection import Connection, Row, Value
from credentiald.store.times import from_duration_micros, from_micros, to_duration_micros, to_micros
from credentiald.timeout_rules import TIMEOUT_FIELDS


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A central key on its way into the store."""

    credential_id: str
    kind: KeyKind
    sealed: SealedSecret


def find(conn: Connection, name: str) -> Provider | None:
    """The provider of this name, or None."""
    rows = conn.execute(
        "SELECT p.*, k.credential_id, k.kind AS key_kind, k.create_time AS key_create_time"
        " FROM providers AS p LEFT JOIN central_keys AS k ON k.provider_id = p.id"
        " WHERE p.name = ? ORDER BY k.position",
        (name,),
    ).fetchall()
    return _provider(rows) if rows else None


def get(conn: Connection, name: str) -> Provider:
    """The provider of this name, or ProviderNotFound."""
    provider = find(conn, name)
    if provider is None:
        raise ProviderNotFound(provider=name)
    return provider


def list_page(conn: Connection, *, after: str | None, limit: int) -> list[Provider]:
    """At most `limit` providers by name, those that come after the name `after`; None starts at the first."""
    rows = conn.execute(
        "SELECT p.*, k.credential_id, k.kind AS key_kind, k.create_time AS key_create_time"
        " FROM (SELECT * FROM providers WHERE name > ? ORDER BY name LIMIT ?) AS p"
        " LEFT JOIN central_keys AS k ON k.provider_id = p.id ORDER BY p.name, k.position",
        (after or "", limit),
    ).fetchall()
    return [_provider(list(group)) for _, group in itertools.groupby(rows, key=lambda row: row["name"])]


def names(conn: Connection) -> dict[str, tuple[str, str]]:
    """Name and type of every provider, by id."""
    rows = conn.execute("SELECT id, name, type FROM providers").fetchall()
    return {row["id"]: (row["name"], row["type"]) for row in rows}


def ids(conn: Connection) -> set[str]:
    """The ids of all providers."""
    return {str(row["id"]) for row in conn.execute("SELECT id FROM providers").fetchall()}


def create(conn: Connection, provider: Provider, keys: Sequence[StoredKey], *, now: datetime) -> Provider:
    """A new provider with its keys in the order of use, at version 1. AlreadyExists for a taken name or id."""
    inserted = conn.execute(
        "INSERT INTO providers (id, name, type, display_name, base_url, enabled, central_key_enabled,"
        " user_keys_allowed, central_key_fallback, bedrock_region, bedrock_role_arn, bedrock_external_id,"
        " bedrock_model, bedrock_small_fast_model, bedrock_models, bedrock_model_rules, bedrock_role_duration_seconds,"
        " bedrock_session_policy, bedrock_protocol, bedrock_set_source_identity, bedrock_session_tags,"
        " send_actor_headers, connect_timeout_micros, first_byte_timeout_micros, idle_timeout_micros,"
        " fallback_provider, version, create_time, update_time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (provider.id, provider.name, *_columns(provider), to_micros(now), to_micros(now)),
    )
    if not inserted.rowcount:
        raise AlreadyExists(resource="provider", name=provider.name)
    _insert_keys(conn, provider.id, keys, create_times={}, now=now)
    _record(conn, "provider.created", provider.id, provider.name, now)
    return get(conn, provider.name)


def update(
    conn: Connection,
    provider: Provider,
    *,
    keys: Sequence[StoredKey] | None,
    expected_version: int | None,
    now: datetime,
) -> Provider:
    """The provider with everything but id, name and creation as given, at the next version.

    `keys` replaces the central keys; None leaves them, an empty sequence clears them. A key that stays keeps its
    time of creation. With `expected_version`, EtagMismatch if the provider has changed since. ProviderNotFound if no
    provider has this id and name.
    """
    version = _check_version(conn, provider.name, provider_id=provider.id, expected_version=expected_version)
    conn.execute(
        "UPDATE providers SET type = ?, display_name = ?, base_url = ?, enabled = ?, central_key_enabled = ?,"
        " user_keys_allowed = ?, central_key_fallback = ?, bedrock_region = ?, bedrock_role_arn = ?,"
        " bedrock_external_id = ?, bedrock_model = ?, bedrock_small_fast_model = ?, bedrock_models = ?,"
        " bedrock_model_rules = ?, bedrock_role_duration_seconds = ?, bedrock_session_policy = ?,"
        " bedrock_protocol = ?, bedrock_set_source_identity = ?, bedrock_session_tags = ?, send_actor_headers = ?,"
        " connect_timeout_micros = ?, first_byte_timeout_micros = ?, idle_timeout_micros = ?,"
        " fallback_provider = ?, version = ?, update_time = ? WHERE id = ?",
        (*_columns(provider), version + 1, to_micros(now), provider.id),
    )
    if keys is not None:
        _replace_keys(conn, provider.id, keys, now=now)
    _record(conn, "provider.updated", provider.id, provider.name, now)
    return get(conn, provider.name)


def delete(conn: Connection, name: str, *, expected_version: int | None, now: datetime) -> None:
    """Remove the provider, its central keys, its models and all users' keys for it. ProviderNotFound, EtagMismatch."""
    provider_id = get(conn, name).id
    _check_version(conn, name, provider_id=provider_id, expected_version=expected_version)
    conn.execute("DELETE FROM user_keys WHERE provider_id = ?", (provider_id,))
    conn.execute("DELETE FROM models WHERE provider_id = ?", (provider_id,))
    key_health.keep_only(conn, provider_id, ())
    conn.execute("DELETE FROM providers WHERE id = ?", (provider_id,))
    _record(conn, "provider.deleted", provider_id, name, now)


def pool_of(conn: Connection, provider_id: str) -> list[str]:
    """The ids of the provider's central keys in the order of use; none for a provider that there is not."""
    rows = conn.execute(
        "SELECT credential_id FROM central_keys WHERE provider_id = ? ORDER BY position", (provider_id,)
    ).fetchall()
    return [row["credential_id"] for row in rows]


def sealed_central_keys(conn: Connection, provider_id: str) -> list[tuple[CentralKey, SealedSecret]]:
    """The central keys in the order of use, still sealed."""
    rows = conn.execute(
        "SELECT credential_id, kind AS key_kind, create_time AS key_create_time, key_id, nonce, ciphertext"
        " FROM central_keys WHERE provider_id = ? ORDER BY position",
        (provider_id,),
    ).fetchall()
    return [
        (_central_key(row), SealedSecret(key_id=row["key_id"], nonce=row["nonce"], ciphertext=row["ciphertext"]))
        for row in rows
    ]


def _check_version(conn: Connection, name: str, *, provider_id: str, expected_version: int | None) -> int:
    """The version of the row, which is the expected one if any was."""
    row = conn.execute("SELECT version FROM providers WHERE id = ? AND name = ?", (provider_id, name)).fetchone()
    if row is None:
        raise ProviderNotFound(provider=name)
    version = int(row["version"])
    if expected_version is not None and expected_version != version:
        raise EtagMismatch(resource="provider", name=name)
    return version


def _replace_keys(conn: Connection, provider_id: str, keys: Sequence[StoredKey], *, now: datetime) -> None:
    rows = conn.execute(
        "SELECT credential_id, create_time FROM central_keys WHERE provider_id = ?", (provider_id,)
    ).fetchall()
    create_times = {row["credential_id"]: from_micros(row["create_time"]) for row in rows}
    conn.execute("DELETE FROM central_keys WHERE provider_id = ?", (provider_id,))
    _insert_keys(conn, provider_id, keys, create_times=create_times, now=now)
    key_health.keep_only(conn, provider_id, [key.credential_id for key in keys])


def _insert_keys(
    conn: Connection,
    provider_id: str,
    keys: Sequence[StoredKey],
    *,
    create_times: dict[str, datetime],
    now: datetime,
) -> None:
    for position, key in enumerate(keys):
        sealed = key.sealed
        create_time = to_micros(create_times.get(key.credential_id, now))
        conn.execute(
            "INSERT INTO central_keys (credential_id, provider_id, position, kind, key_id, nonce, ciphertext,"
            " create_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key.credential_id,
                provider_id,
                position,
                key.kind.value,
                sealed.key_id,
                sealed.nonce,
                sealed.ciphertext,
                create_time,
            ),
        )


def _record(conn: Connection, kind: str, provider_id: str, name: str, now: datetime) -> None:
    revision.record(conn, kind=kind, resource="provider", resource_id=provider_id, name=name, now=now)


def _columns(provider: Provider) -> tuple[Value, ...]:
    """What an administrator may change, in the order of the statements above."""
    return (
        provider.type,
        provider.display_name,
        provider.base_url,
        provider.enabled,
        provider.policy.central_key_enabled,
        provider.policy.user_keys_allowed,
        provider.policy.central_key_fallback,
        *_bedrock_columns(provider.bedrock),
        provider.send_actor_headers,
        *(to_duration_micros(getattr(provider.timeouts, field)) for field in TIMEOUT_FIELDS),
        provider.fallback_provider,
    )


def _bedrock_columns(options: BedrockOptions | None) -> tuple[Value, ...]:
    """NULL in all of them means that the provider does not reach AWS; an option that is not set is an empty text."""
    if options is None:
        return (None,) * 12
    return (
        options.region,
        options.role_arn,
        options.external_id,
        options.model,
        options.small_fast_model,
        json.dumps(dict(options.models)),
        json.dumps([asdict(rule) for rule in options.model_rules]),
        options.role_duration_seconds,
        options.session_policy,
        options.protocol.value,
        options.set_source_identity,
        options.session_tags,
    )


def _provider(rows: Sequence[Row]) -> Provider:
    """One provider from its rows: one for each central key, or one without any."""
    row = rows[0]
    actor_headers = row["send_actor_headers"]
    return Provider(
        id=row["id"],
        name=row["name"],
        type=row["type"],
        display_name=row["display_name"],
        base_url=row["base_url"],
        enabled=bool(row["enabled"]),
        policy=KeyPolicy(
            central_key_enabled=bool(row["central_key_enabled"]),
            user_keys_allowed=bool(row["user_keys_allowed"]),
            central_key_fallback=bool(row["central_key_fallback"]),
        ),
        central_keys=tuple(_central_key(row) for row in rows if row["credential_id"] is not None),
        origin=Origin.DATABASE,
        bedrock=_bedrock(row),
        send_actor_headers=None if actor_headers is None else bool(actor_headers),
        timeouts=Timeouts(**{field: from_duration_micros(row[f"{field}_timeout_micros"]) for field in TIMEOUT_FIELDS}),
        fallback_provider=row["fallback_provider"] or "",
        version=row["version"],
        create_time=from_micros(row["create_time"]),
        update_time=from_micros(row["update_time"]),
    )


def _bedrock(row: Row) -> BedrockOptions | None:
    """The options that `_bedrock_columns` wrote."""
    if row["bedrock_region"] is None:
        return None
    return BedrockOptions(
        region=row["bedrock_region"],
        role_arn=row["bedrock_role_arn"],
        external_id=row["bedrock_external_id"],
        model=row["bedrock_model"],
        small_fast_model=row["bedrock_small_fast_model"],
        # The rest came later: NULL in rows that are older.
        models=tuple(json.loads(row["bedrock_models"] or "{}").items()),
        model_rules=tuple(
            BedrockModelRule(contains=rule["contains"], family=rule["family"], betas=tuple(rule["betas"]))
            for rule in json.loads(row["bedrock_model_rules"] or "[]")
        ),
        role_duration_seconds=row["bedrock_role_duration_seconds"] or 0,
        session_policy=row["bedrock_session_policy"] or "",
        protocol=BedrockProtocol(row["bedrock_protocol"] or BedrockProtocol.INVOKE_MODEL),
        set_source_identity=bool(row["bedrock_set_source_identity"]),
        session_tags=bool(row["bedrock_session_tags"]),
    )


def _central_key(row: Row) -> CentralKey:
    return CentralKey(
        credential_id=row["credential_id"],
        kind=KeyKind(row["key_kind"]),
        create_time=from_micros(row["key_create_time"]),
    )
