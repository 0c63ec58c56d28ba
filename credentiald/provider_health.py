"""How providers are, by what bridges have told: which keys rest and why, and which breakers are not closed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


def resting_keys(conn: Connection, plane: Plane, names: Mapping[str, str]) -> dict[str, int]:
    """How many keys of each provider rest, by the providers' names; `names` are by their ids."""
    now = plane.clock()
    resting = {
        (one.provider_id, one.credential_id)
        for one in key_health.all_cooldowns(conn, now=now)
        if one.until_time > now and one.provider_id in names
    }
    counts = dict.fromkeys(names.values(), 0)
    for provider_id, _ in resting:
        counts[names[provider_id]] += 1
    return counts


async def _said(plane: Plane, records: Records) -> Sequence[BridgeHealth]:
    since_micros = to_micros(plane.clock() - _HEARD_WITHIN)
    return [
        BridgeHealth(
            service_id=service_id,
            instance_id=instance_id,
            heard_time=from_micros(seen_micros),
            breakers=from_text(text),
        )
        for (service_id, instance_id), seen_micros, text in await records.read(
            bridge_words.breakers_since, since_micros=since_micros
        )
    ]


def _put_together(
    plane: Plane,
    page: Sequence[Provider],
    cooldowns: Sequence[Cooldown],
    service_names: Mapping[str, str],
    said: Sequence[BridgeHealth],
) -> list[ProviderHealth]:
    now = plane.clock()
    return [
        ProviderHealth(
            provider=provider,
            keys=_keys(provider, cooldowns, now),
            bridges=list(_of_provider(said, provider.name)),
            service_names=service_names,
        )
        for provider in page
    ]


def _of_provider(said: Iterable[BridgeHealth], name: str) -> Iterable[BridgeHealth]:
    for one in said:
        breakers = [breaker for breaker in one.breakers if breaker.provider == name]
        if breakers:
            yield BridgeHealth(
                service_id=one.service_id, instance_id=one.instance_id, heard_time=one.heard_time, breakers=breakers
            )


def _keys(provider: Provider, cooldowns: Iterable[Cooldown], now: datetime) -> list[KeyHealth]:
    # A provider's only key has nobody to stand in for it: what was told of it while there were others is nothing.
    counted = list(cooldowns) if len(provider.central_keys) > 1 else []
    found = []
    for key in provider.central_keys:
        complaints = [one for one in counted if one.credential_id == key.credential_id]
        state, until_time = state_of(complaints, now)
        complaints.sort(key=lambda one: one.until_time, reverse=True)
        found.append(KeyHealth(key=key, state=state, rest_until_time=until_time, complaints=tuple(complaints)))
    return found
