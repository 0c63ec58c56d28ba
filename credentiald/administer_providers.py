"""What an administrator does with providers and their central keys.

Every change is one transaction; providers from the environment are read-only. Turning the central key off clears the
stored one; user keys survive every change of policy and go with the provider.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from credentiald.catalog import policy_with_defaults, shares_turns
from credentiald.errors import AlreadyExists, EtagMismatch, InvalidArgument, ProviderReadOnly
from credentiald.ids import canonical_uuid, uuid7
from credentiald.model import NO_TIMEOUTS, BedrockOptions, Material, Origin, Provider, Timeouts, kind_of
from credentiald.plane import Plane
from credentiald.provider_rules import (
    check_new_name,
    check_provider,
    check_role,
    check_type,
    checked_central_key,
    normalised,
)
from credentiald.sealing import central_key_context
from credentiald.store import providers
from credentiald.store.connection import Connection
from credentiald.store.providers import StoredKey

# What an update may do to a provider: takes the stored one, gives the draft.
Edit = Callable[[Provider], Provider]


async def list_providers(plane: Plane, *, after: str, limit: int) -> list[Provider]:
    """At most `limit` providers by name, those after `after`, from both origins."""
    return await plane.db.read(_list, plane, after, limit)


def _list(conn: Connection, plane: Plane, after: str, limit: int) -> list[Provider]:
    return plane.page_of_providers(conn, after=after, limit=limit)


async def get_provider(plane: Plane, name: str) -> Provider:
    """The provider, from either origin, or ProviderNotFound."""
    return await plane.db.read(_get, plane, name)


def _get(conn: Connection, plane: Plane, name: str) -> Provider:
    return plane.find_provider(conn, name)


def new_provider(  # one keyword for each field that a client may set
    *,
    name: str,
    type_name: str,
    display_name: str = "",
    base_url: str = "",
    enabled: bool = True,
    central_key_enabled: bool | None = None,
    user_keys_allowed: bool | None = None,
    central_key_fallback: bool | None = None,
    bedrock: BedrockOptions | None = None,
    send_actor_headers: bool | None = None,
    timeouts: Timeouts = NO_TIMEOUTS,
    fallback_provider: str = "",
    provider_id: str = "",
) -> Provider:
    """A draft with the defaults of its type; name and type are checked, the rest when it is saved."""
    check_new_name(name)
    check_type(type_name)
    given_id = canonical_uuid(provider_id) if provider_id else ""
    if given_id is None:
        raise InvalidArgument(field="provider.id", problem="must be a UUID")
    return Provider(
        id=given_id,
        name=name,
        type=type_name,
        display_name=display_name,
        base_url=base_url,
        enabled=enabled,
        policy=policy_with_defaults(
            type_name,
            central_key_enabled=central_key_enabled,
            user_keys_allowed=user_keys_allowed,
            central_key_fallback=central_key_fallback,
        ),
        origin=Origin.DATABASE,
        bedrock=bedrock,
        send_actor_headers=send_actor_headers,
        timeouts=timeouts,
        fallback_provider=fallback_provider,
    )


async def create_provider(plane: Plane, draft: Provider, *, central_key: Material | None) -> Provider:
    """Save a new provider, with its central key if one is given."""
    now = plane.clock()
    draft = normalised(replace(draft, id=draft.id or uuid7(now)))
    check_provider(draft, has_central_key=central_key is not None)
    material = checked_central_key(draft, central_key) if central_key else None
    check_role(draft, [kind_of(material)] if material else [])
    if draft.name in plane.environment:
        raise AlreadyExists(resource="provider", name=draft.name)
    if draft.id in plane.environment_ids:
        # User keys are bound to the id: two providers with one id would share them.
        raise AlreadyExists(resource="provider with the id", name=draft.id)
    return await plane.db.write(_create, plane, draft, material, now=now)


async def update_provider(
    plane: Plane,
    name: str,
    edit: Edit,
    *,
    expected_version: int | None,
    central_key: Material | None = None,
    clear_central_key: bool = False,
) -> Provider:
    """Apply the edit and the change of key, judge the whole, save it."""
    refuse_environment(plane, name)
    return await plane.db.write(
        _update, plane, name, edit, expected_version, central_key, clear_central_key, now=plane.clock()
    )


def _update(
    conn: Connection,
    plane: Plane,
    name: str,
    edit: Edit,
    expected_version: int | None,
    central_key: Material | None,
    clear_central_key: bool,
    *,
    now: datetime,
) -> Provider:
    before = providers.get(conn, name)
    if expected_version is not None and expected_version != before.version:
        raise EtagMismatch(resource="provider", name=name)
    draft = normalised(edit(before))
    clears = clear_central_key or not draft.policy.central_key_enabled
    check_provider(draft, has_central_key=central_key is not None or (before.central_key_set and not clears))
    material = checked_central_key(draft, central_key) if central_key else None
    kept = [] if clears else [key.kind for key in before.central_keys]
    check_role(draft, [kind_of(material)] if material else kept)
    keys: list[StoredKey] | None = None
    if material is not None:
        keys = [sealed_key(conn, plane, draft, material, now=now)]
    elif clears and before.central_key_set:
        keys = []
    _check_fallbacks(conn, plane, draft)
    return providers.update(conn, draft, keys=keys, expected_version=before.version, now=now)


def _create(conn: Connection, plane: Plane, draft: Provider, material: Material | None, *, now: datetime) -> Provider:
    _check_fallbacks(conn, plane, draft)
    keys = [sealed_key(conn, plane, draft, material, now=now)] if material else []
    return providers.create(conn, draft, keys, now=now)


def _check_fallbacks(conn: Connection, plane: Plane, draft: Provider) -> None:
    """Refuse a fallback provider that has no turn in common with this one, where there is one of that name."""
    name = draft.fallback_provider
    if not name:
        return
    configured = plane.environment.get(name)
    fallback = configured.provider if configured is not None else providers.find(conn, name)
    if fallback is not None and not shares_turns(draft, fallback):
        raise InvalidArgument(
            field="provider.fallback_provider", problem="names a provider that has no turn of a conversation in common"
        )


def sealed_key(conn: Connection, plane: Plane, provider: Provider, material: Material, *, now: datetime) -> StoredKey:
    """A new key of the provider, as it is stored."""
    credential_id = uuid7(now)
    return StoredKey(
        credential_id=credential_id,
        kind=kind_of(material),
        sealed=plane.seal(conn, material, central_key_context(provider_id=provider.id, credential_id=credential_id)),
    )


async def delete_provider(plane: Plane, name: str, *, expected_version: int | None) -> None:
    """Remove the provider with its central keys and models, and every user's key for it."""
    refuse_environment(plane, name)
    await plane.db.write(providers.delete, name, expected_version=expected_version, now=plane.clock())


def refuse_environment(plane: Plane, name: str) -> None:
    """ProviderReadOnly for a provider from the environment."""
    if name in plane.environment:
        raise ProviderReadOnly(provider=name)
