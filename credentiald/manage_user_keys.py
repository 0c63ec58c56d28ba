"""A user's own keys: store, remove, list with the status that the policy function gives them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from credentiald.errors import ProviderDisabled, UserKeysNotAllowed
from credentiald.ids import uuid7
from credentiald.key_rules import checked_key
from credentiald.model import ApiKeyMaterial, Gateway, Provider, Source, UserKey
from credentiald.plane import Plane, policy_inputs, refusal_of
from credentiald.policy import choose_source
from credentiald.sealing import user_key_context
from credentiald.store import user_keys, users
from credentiald.store.connection import Connection
from daemonkit.secret import Secret


class Status(StrEnum):
    """What a user is told about one provider."""

    KEY_SAVED = "KEY_SAVED"
    USING_SHARED_KEY = "USING_SHARED_KEY"
    NO_KEY = "NO_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserKeyView:
    """One provider as a user sees it. `key` is None without a stored one."""

    provider: Provider
    status: Status
    key: UserKey | None


async def list_user_keys(plane: Plane, *, user: str, after: str, limit: int) -> list[UserKeyView]:
    """At most `limit` enabled providers that allow user keys, by name, those after `after`."""
    return await plane.db.read(_views, plane, user, after, limit)


def _views(conn: Connection, plane: Plane, user_name: str, after: str, limit: int) -> list[UserKeyView]:
    user = users.get(conn, user_name)
    keys = user_keys.list_for_user(conn, user.id)
    views: list[UserKeyView] = []
    while len(views) < limit:
        page = plane.page_of_providers(conn, after=after, limit=limit)
        shown = (one for one in page if one.enabled and one.policy.user_keys_allowed)
        views.extend(view_of(plane.gateway, one, keys.get(one.id)) for one in shown)
        if len(page) < limit:
            break
        after = page[-1].name
    return views[:limit]


def view_of(gateway: Gateway, provider: Provider, key: UserKey | None) -> UserKeyView:
    """The status: "shared" only if the policy would really fall back to something."""
    outcome = choose_source(policy_inputs(gateway, provider, user_has_key=key is not None))
    if outcome is Source.USER_KEY:
        status = Status.KEY_SAVED
    elif outcome in (Source.CENTRAL_KEY, Source.AMBIENT):
        status = Status.USING_SHARED_KEY
    else:
        status = Status.NO_KEY
    return UserKeyView(provider=provider, status=status, key=key)


async def set_user_key(plane: Plane, *, user: str, provider: str, key: Secret) -> UserKeyView:
    """Store the key, sealed for this user and provider, in place of an earlier one."""
    material = ApiKeyMaterial(value=checked_key(key, provider=provider))
    return await plane.db.write(_set, plane, user, provider, material, now=plane.clock())


def _set(
    conn: Connection, plane: Plane, user_name: str, provider_name: str, material: ApiKeyMaterial, *, now: datetime
) -> UserKeyView:
    user = users.get(conn, user_name)
    provider = plane.find_provider(conn, provider_name)
    if not provider.enabled:
        raise ProviderDisabled(provider=provider.name)
    if not provider.policy.user_keys_allowed:
        raise refusal_of(UserKeysNotAllowed, provider)
    credential_id = uuid7(now)
    sealed = plane.seal(
        conn, material, user_key_context(user_id=user.id, provider_id=provider.id, credential_id=credential_id)
    )
    stored = user_keys.put(
        conn, user_id=user.id, provider_id=provider.id, credential_id=credential_id, sealed=sealed, now=now
    )
    return view_of(plane.gateway, provider, stored)


async def delete_user_key(plane: Plane, *, user: str, provider: str) -> None:
    """Remove the user's key; without one, do nothing."""
    await plane.db.write(_delete, plane, user, provider, now=plane.clock())


def _delete(conn: Connection, plane: Plane, user_name: str, provider_name: str, *, now: datetime) -> None:
    user = users.get(conn, user_name)
    provider = plane.find_provider(conn, provider_name)
    user_keys.delete(conn, user_id=user.id, provider_id=provider.id, now=now)
