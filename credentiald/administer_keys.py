"""What an administrator does with single keys of a provider's pool.

A pool has up to five keys of one kind, no two alike. Each change makes the whole pool anew, in one transaction, and
leaves what bridges have told of the keys that stay.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from credentiald.administer_providers import refuse_environment, sealed_key
from credentiald.errors import EtagMismatch, InvalidArgument
from credentiald.model import MAX_CENTRAL_KEYS, ApiKeyMaterial, Material, Provider, kind_of
from credentiald.plane import Plane
from credentiald.provider_rules import check_provider, check_role, checked_central_key
from credentiald.sealing import central_key_context
from credentiald.store import providers
from credentiald.store.connection import Connection
from credentiald.store.providers import StoredKey

# Takes the transaction, the provider and its pool, gives the pool as it is to be.
_Rearrange = Callable[[Connection, Provider, list[StoredKey]], list[StoredKey]]


async def add_key(
    plane: Plane, name: str, material: Material, *, is_first: bool, expected_version: int | None
) -> Provider:
    """The provider with one more key, the first or the last."""
    now = plane.clock()

    def rearranged(conn: Connection, provider: Provider, pool: list[StoredKey]) -> list[StoredKey]:
        checked = checked_central_key(provider, material)
        if len(pool) >= MAX_CENTRAL_KEYS:
            raise InvalidArgument(field="central_key", problem=f"the provider has {MAX_CENTRAL_KEYS} keys, the most")
        if any(key.kind is not kind_of(checked) for key in pool):
            raise InvalidArgument(field="central_key", problem="all keys of a provider must be of one kind")
        if any(_are_alike(checked, _opened(plane, provider, key)) for key in pool):
            raise InvalidArgument(field="central_key", problem="the provider has this key already")
        added = sealed_key(conn, plane, provider, checked, now=now)
        return [added, *pool] if is_first else [*pool, added]

    return await _rearrange(plane, name, rearranged, expected_version=expected_version, now=now)


async def remove_key(plane: Plane, name: str, credential_id: str, *, expected_version: int | None) -> Provider:
    """The provider without this key."""

    def rearranged(conn: Connection, provider: Provider, pool: list[StoredKey]) -> list[StoredKey]:
        _check_known([credential_id], pool)
        return [key for key in pool if key.credential_id != credential_id]

    return await _rearrange(plane, name, rearranged, expected_version=expected_version, now=plane.clock())


async def order_keys(
    plane: Plane, name: str, credential_ids: Sequence[str], *, expected_version: int | None
) -> Provider:
    """The provider with these keys first, in this order; the others follow as they were."""

    def rearranged(conn: Connection, provider: Provider, pool: list[StoredKey]) -> list[StoredKey]:
        _check_known(credential_ids, pool)
        if not credential_ids or len(set(credential_ids)) < len(credential_ids):
            raise InvalidArgument(field="credential_ids", problem="must name keys, each once")
        places = {credential_id: place for place, credential_id in enumerate(credential_ids)}
        return sorted(pool, key=lambda key: places.get(key.credential_id, len(places)))

    return await _rearrange(plane, name, rearranged, expected_version=expected_version, now=plane.clock())


async def _rearrange(
    plane: Plane, name: str, rearranged: _Rearrange, *, expected_version: int | None, now: datetime
) -> Provider:
    refuse_environment(plane, name)

    def change(conn: Connection) -> Provider:
        provider = providers.get(conn, name)
        if expected_version is not None and expected_version != provider.version:
            raise EtagMismatch(resource="provider", name=name)
        stored = providers.sealed_central_keys(conn, provider.id)
        pool = [StoredKey(credential_id=key.credential_id, kind=key.kind, sealed=blob) for key, blob in stored]
        keys = rearranged(conn, provider, pool)
        check_provider(provider, has_central_key=bool(keys))
        check_role(provider, [key.kind for key in keys])
        return providers.update(conn, provider, keys=keys, expected_version=provider.version, now=now)

    return await plane.db.write(change)


def _check_known(credential_ids: Sequence[str], pool: Sequence[StoredKey]) -> None:
    known = {key.credential_id for key in pool}
    for credential_id in credential_ids:
        if credential_id not in known:
            raise InvalidArgument(field="credential_id", problem=f"'{credential_id}' is none of the provider's keys")


def _opened(plane: Plane, provider: Provider, key: StoredKey) -> Material:
    context = central_key_context(provider_id=provider.id, credential_id=key.credential_id)
    return plane.sealer.open_material(key.sealed, context)


def _are_alike(one: Material, other: Material) -> bool:
    """One key, or one access key: two secrets of one access key id are never both right."""
    if isinstance(one, ApiKeyMaterial) or isinstance(other, ApiKeyMaterial):
        return one == other
    return one.access_key_id == other.access_key_id
