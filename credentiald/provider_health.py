"""How providers are, by what bridges have told: which keys rest and why, and which breakers are not closed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from credentiald.breaker_book import Breaker, from_text
from credentiald.key_health import Cooldown, KeyState, state_of
from credentiald.model import CentralKey, Provider
from credentiald.plane import Plane
from credentiald.store import bridge_words, key_health, services
from credentiald.store.connection import Connection
from credentiald.store.records import Records
from credentiald.store.times import from_micros, to_micros

# How lately a bridge must have been heard of to be shown. They are heard of every few seconds.
_HEARD_WITHIN = timedelta(seconds=60)
# What is shown of one key and of one provider, so that no bridge can make it too much to be looked at.
MOST_COMPLAINTS = 64
MOST_BRIDGES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHealth:
    """One key; `rest_until_time` is set for RESTING, `complaints` come the latest first."""

    key: CentralKey
    state: KeyState
    rest_until_time: datetime | None
    complaints: tuple[Cooldown, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeHealth:
    """What one bridge says of a provider."""

    service_id: str
    instance_id: str
    heard_time: datetime
    breakers: Sequence[Breaker]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderHealth:
    """One provider, with the names of the services by their ids."""

    provider: Provider
    keys: Sequence[KeyHealth]
    bridges: Sequence[BridgeHealth]
    service_names: Mapping[str, str]


async def health_of(plane: Plane, records: Records, name: str) -> ProviderHealth:
    """That of one provider. ProviderNotFound."""

    def look(conn: Connection) -> tuple[list[Provider], list[Cooldown], dict[str, str]]:
        found = plane.find_provider(conn, name)
        return [found], key_health.of_provider(conn, found.id, now=plane.clock()), services.names(conn)

    return _put_together(plane, *await plane.db.read(look), await _said(plane, records))[0]


async def list_health(plane: Plane, records: Records, *, after: str, limit: int) -> list[ProviderHealth]:
    """That of at most `limit` providers by name, those after `after`."""

    def look(conn: Connection) -> tuple[list[Provider], list[Cooldown], dict[str, str]]:
        page = plane.page_of_providers(conn, after=after, limit=limit)
        return page, key_health.all_cooldowns(conn, now=plane.clock()), services.names(conn)

    return _put_together(plane, *await plane.db.read(look), await _said(plane, records))


def resting_keys(conn: Connection, plane: Plane) -> dict[str, int]:
    """How many keys of each provider rest, by the providers' names."""
    now = plane.clock()
    resting = {one.credential_id for one in key_health.all_cooldowns(conn, now=now) if one.until_time > now}
    return {
        provider.name: sum(key.credential_id in resting for key in provider.central_keys) if _is_pool(provider) else 0
        for provider in plane.all_providers(conn)
    }


async def _said(plane: Plane, records: Records) -> Sequence[BridgeHealth]:
    since_micros = to_micros(plane.clock() - _HEARD_WITHIN)

    def look(conn: Connection) -> list[BridgeHealth]:
        # Here, in the thread of the read: there may be much of it.
        return [
            BridgeHealth(
                service_id=service_id,
                instance_id=instance_id,
                heard_time=from_micros(seen_micros),
                breakers=from_text(text),
            )
            for (service_id, instance_id), seen_micros, text in bridge_words.breakers_since(
                conn, since_micros=since_micros
            )
        ]

    return await records.read(look)


def _put_together(
    plane: Plane,
    page: Sequence[Provider],
    cooldowns: Sequence[Cooldown],
    service_names: Mapping[str, str],
    said: Sequence[BridgeHealth],
) -> list[ProviderHealth]:
    now = plane.clock()
    bridges = _by_provider(said)
    complaints: dict[str, list[Cooldown]] = {}
    for one in cooldowns:
        complaints.setdefault(one.credential_id, []).append(one)
    return [
        ProviderHealth(
            provider=provider,
            keys=[_key(key, complaints.get(key.credential_id, ()), provider, now) for key in provider.central_keys],
            bridges=bridges.get(provider.name, ())[:MOST_BRIDGES],
            service_names=service_names,
        )
        for provider in page
    ]


def _by_provider(said: Iterable[BridgeHealth]) -> dict[str, list[BridgeHealth]]:
    """What bridges say, by the names of the providers that it is about."""
    found: dict[str, list[BridgeHealth]] = {}
    for one in said:
        breakers: dict[str, list[Breaker]] = {}
        for breaker in one.breakers:
            breakers.setdefault(breaker.provider, []).append(breaker)
        for name, about in breakers.items():
            found.setdefault(name, []).append(replace(one, breakers=about))
    return found


def _key(key: CentralKey, cooldowns: Sequence[Cooldown], provider: Provider, now: datetime) -> KeyHealth:
    # A provider's only key has nobody to stand in for it: what was told of it while there were others is nothing.
    complaints = sorted(cooldowns, key=lambda one: one.until_time, reverse=True) if _is_pool(provider) else []
    state, until_time = state_of(complaints, now)
    return KeyHealth(key=key, state=state, rest_until_time=until_time, complaints=tuple(complaints[:MOST_COMPLAINTS]))


def _is_pool(provider: Provider) -> bool:
    return len(provider.central_keys) > 1
