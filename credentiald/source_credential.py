"""The credential of the source that was chosen: which one of it, opened, and what AWS gives for it.

Never one of another source: when all have failed, that is the answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from credentiald.aws.access import Wanted
from credentiald.aws.regions import Identity, Placement
from credentiald.bridge_instances import Instance
from credentiald.errors import KeyPoolExhausted
from credentiald.key_health import Choice, Complaints, choose
from credentiald.model import AwsKeyPairMaterial, Material, Provider, SealedSecret, Source, User
from credentiald.plane import Plane
from credentiald.sealing import SealContext, central_key_context, user_key_context


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one read of the store brought: everything but the opened secret.

    `access_token_id` is empty where the caller named the user. `complaints` are those of a pool's keys.
    """

    provider: Provider
    user: User
    access_token_id: str
    expire_time: datetime | None
    source: Source
    sealed: tuple[tuple[str, SealedSecret], ...]
    complaints: Complaints
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The credential of the chosen source as it is stored, opened; `material` is None for ambient and presented.

    `is_probe` and `until_time` are those of key_health.Choice.
    """

    identity: Identity
    credential_id: str
    material: Material | None = None
    is_probe: bool = False
    until_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The credential that goes to the bridge, with its end, and when it is to be looked at again."""

    material: Material | None
    expire_time: datetime | None = None
    look_again_time: datetime | None = None


def chosen_of(plane: Plane, found: Found, failed: frozenset[str], asker: Instance, *, now: datetime) -> Chosen:
    """The one that is best for this request, opened. KeyPoolExhausted."""
    provider = found.provider
    if found.source is Source.PRESENTED_KEY:
        return Chosen(identity=Identity.BEARER, credential_id="")
    if found.source is Source.AMBIENT:
        ids = [plane.ambient_credential_id(provider)]
        choice = _choice(plane, found, ids, failed, asker, now=now)
        return Chosen(identity=Identity.AMBIENT, credential_id=ids[choice.place])
    configured = plane.environment.get(provider.name)
    if found.source is Source.CENTRAL_KEY and configured is not None:
        ids = [key.credential_id for key in provider.central_keys]
        choice = _choice(plane, found, ids, failed, asker, now=now)
        material = configured.materials[choice.place]
    else:
        ids = [credential_id for credential_id, _ in found.sealed]
        choice = _choice(plane, found, ids, failed, asker, now=now)
        material = plane.sealer.open_material(found.sealed[choice.place][1], _context(found, ids[choice.place]))
    return Chosen(
        identity=Identity.PAIR if isinstance(material, AwsKeyPairMaterial) else Identity.BEARER,
        credential_id=ids[choice.place],
        material=material,
        is_probe=choice.is_probe,
        until_time=choice.until_time,
    )


def _choice(
    plane: Plane, found: Found, ids: Sequence[str], failed: frozenset[str], asker: Instance, *, now: datetime
) -> Choice:
    choice = choose(ids, found.complaints, plane.probes.ends, asker=asker, failed=failed, now=now)
    if isinstance(choice, Choice):
        return choice
    raise KeyPoolExhausted(
        provider=found.provider.name,
        retry_after_seconds=str(max(1, math.ceil(choice.wait.total_seconds()))),
        cause=choice.cause.value,
        **({"fallback_provider": found.provider.fallback_provider} if found.provider.fallback_provider else {}),
    )


def held_of(plane: Plane, found: Found, chosen: Chosen, placement: Placement | None) -> Held:
    """What the bridge gets. The chain and roles are AWS's: a refusal, or NotFetchedYet, where they have nothing."""
    role_arn = found.provider.bedrock.role_arn if found.provider.bedrock else ""
    is_pair = isinstance(chosen.material, AwsKeyPairMaterial)
    if placement is None or (chosen.identity is not Identity.AMBIENT and not (is_pair and role_arn)):
        return Held(material=chosen.material)
    grant = plane.aws.credential(
        Wanted(
            provider=found.provider,
            user_id=found.user.id,
            username=found.user.username,
            region=placement.region.name,
            pair=chosen.material if isinstance(chosen.material, AwsKeyPairMaterial) else None,
            pair_id=chosen.credential_id if is_pair else "",
        )
    )
    return Held(material=grant.material, expire_time=grant.expire_time, look_again_time=grant.look_again_time)


def _context(found: Found, credential_id: str) -> SealContext:
    if found.source is Source.USER_KEY:
        return user_key_context(user_id=found.user.id, provider_id=found.provider.id, credential_id=credential_id)
    return central_key_context(provider_id=found.provider.id, credential_id=credential_id)
