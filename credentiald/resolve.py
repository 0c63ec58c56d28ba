"""One question of a bridge: who is it, may they, and with which credential.

Checks in this order (contract.md): service, user, gateway, provider, disabled, operation, policy, secret. All but
the first, which the guard of the rpc server makes, happen here, in one read of the store, so that one request sees
one state. Nobody without a valid token learns which providers exist.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ParamSpec, TypeVar

from credentiald import receipts
from credentiald.authenticate import token_and_user_of
from credentiald.aws.supply import NotFetchedYet
from credentiald.catalog import effective_base_url, has_operation, wire_of
from credentiald.errors import (
    AccessTokenMissing,
    AskSingly,
    CallerNotAllowed,
    GatewayDisabled,
    OperationNotAllowed,
    ProviderDisabled,
    Refusal,
    SealingKeyUnknown,
    StoreUnavailable,
    UserNotFound,
    UserSuspended,
)
from credentiald.ids import canonical_uuid, uuid7
from credentiald.key_health import Complaints
from credentiald.model import (
    ApiKeyMaterial,
    BedrockOptions,
    Caller,
    Material,
    Provider,
    SealedSecret,
    Service,
    Source,
    Token,
    User,
)
from credentiald.plane import Plane, policy_inputs, refusal_of
from credentiald.policy import choose_source
from credentiald.record_model import Origin
from credentiald.source_credential import Found, chosen_of, held_of
from credentiald.store import key_health, providers, revision, user_keys, users
from credentiald.store.connection import Connection
from credentiald.store.times import to_micros
from daemonkit.secret import Secret

P = ParamSpec("P")
T = TypeVar("T")

# By provider, what bridges complain of.
_Read = dict[str, Complaints]
_NO_COMPLAINTS = Complaints(())

# How long a single question may wait for AWS where its caller names no time.
_WAIT_SECONDS = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a bridge or an internal service asks. Exactly one of `access_token` and `user_id` names the user.

    `instance_id` is the bridge's own, empty for who has none: keys that it complained of rest for it.
    """

    provider: str
    access_token: Secret | None = None
    user_id: str | None = None
    operation: str = ""
    model: str = ""
    presented_key: bool = False
    failed_credential_ids: frozenset[str] = frozenset()
    interception_id: str = ""
    instance_id: str = ""
    min_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The decision with its credential.

    `material` is None where the request presents its own key. `expire_time` is when this decision stops counting:
    with the user's token, or when the credential is to be looked at again; None for never.
    `credential_expire_time` is when the credential itself ends. `bedrock` has the region to sign for. `pool_size` is
    how many central keys there are, 0 for other sources. `is_probe`: the request tries a key after its rest.
    `by_health`: the bridges' complaints had a say, so the decision is for this bridge alone.
    """

    provider: Provider
    wire_type: str
    base_url: str
    control_base_url: str
    bedrock: BedrockOptions | None
    send_actor_headers: bool
    user: User
    access_token_id: str
    source: Source
    credential_id: str
    material: Material | None
    resolution_id: str
    upstream_model: str
    revision: int
    origin: Origin
    resolve_time_micros: int
    receipt: bytes
    expire_time: datetime | None
    credential_expire_time: datetime | None
    pool_size: int
    is_probe: bool
    by_health: bool


async def resolve(plane: Plane, caller: Caller, question: Question, *, wait_seconds: float = _WAIT_SECONDS) -> Answer:
    """The answer to one question, or a refusal.

    What AWS has to be asked first is waited for, `wait_seconds` in all.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_seconds
    while True:
        # Read anew after each wait: what was revoked meanwhile is revoked.
        now = plane.clock()
        found = await plane.db.read(_find, plane, caller.service, question, {}, now=now)
        try:
            return _answer(plane, caller, question, found, now=now)
        except NotFetchedYet as error:
            missing = error
        await missing.wait(end - loop.time())


async def resolve_many(plane: Plane, caller: Caller, questions: Sequence[Question]) -> list[Answer | Exception]:
    """For each question, in order, its answer, or what `resolve` would have raised; in one read of the store.

    What would have to wait for anything but the store is AskSingly instead, since its neighbours would wait too. A
    refusal of all of them (the store does not answer) is raised.
    """
    now = plane.clock()

    def find_each(conn: Connection) -> list[Found | Refusal]:
        read: _Read = {}
        return [_or_refusal(_find, conn, plane, caller.service, question, read, now=now) for question in questions]

    try:
        return [
            found if isinstance(found, Refusal) else _or_refusal(_answer, plane, caller, question, found, now=now)
            for question, found in zip(questions, await plane.db.read(find_each), strict=True)
        ]
    except Refusal:
        raise
    except Exception:
        # A bug that one question brings out must not be its neighbours' trouble.
        return [await _outcome(plane, caller, question) for question in questions]


async def _outcome(plane: Plane, caller: Caller, question: Question) -> Answer | Exception:
    try:
        return await resolve(plane, caller, question)
    except Exception as error:
        return error


def _or_refusal(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Refusal:
    try:
        return work(*args, **kwargs)
    except (NotFetchedYet, SealingKeyUnknown):
        # A single question waits until the key is looked up (guard.py).
        return AskSingly()
    except Refusal as refusal:
        return refusal


def _answer(plane: Plane, caller: Caller, question: Question, found: Found, *, now: datetime) -> Answer:
    """What was found, with the secret opened and the marks of this one request."""
    provider, gateway = found.provider, plane.gateway
    asker = (caller.service.id if caller.service else "", question.instance_id)
    chosen = chosen_of(plane, found, question.failed_credential_ids, asker, now=now)
    placement = plane.aws.placement(provider, chosen.identity) if wire_of(provider) == "bedrock" else None
    held = held_of(plane, found, chosen, placement)
    resolution_id = uuid7(now)
    origin = Origin(
        service_id=caller.service.id if caller.service else "",
        user_id=found.user.id,
        provider_id=provider.id,
        provider_name=provider.name,
        provider_type=provider.type,
        source=found.source.value,
        credential_id=chosen.credential_id,
    )
    receipt = receipts.Receipt(question.interception_id, resolution_id, origin, to_micros(now))
    if chosen.is_probe:
        # Last of all: what is refused or asked again tries nothing.
        plane.probes.take(chosen.credential_id, asker, now)
    return Answer(
        provider=provider,
        wire_type=wire_of(provider),
        base_url=placement.base_url if placement else effective_base_url(provider.type, provider.base_url),
        control_base_url=placement.control_base_url if placement else "",
        bedrock=replace(provider.bedrock or BedrockOptions(), region=placement.region.name) if placement else None,
        send_actor_headers=gateway.send_actor_headers
        if provider.send_actor_headers is None
        else provider.send_actor_headers,
        user=found.user,
        access_token_id=found.access_token_id,
        source=found.source,
        credential_id=chosen.credential_id,
        material=held.material,
        resolution_id=resolution_id,
        upstream_model=upstream_model(provider.bedrock, question.model),
        revision=found.revision,
        origin=origin,
        resolve_time_micros=receipt.resolve_time_micros,
        receipt=receipts.write(plane.receipt_key, receipt),
        expire_time=_earlier(_earlier(found.expire_time, held.look_again_time), chosen.until_time),
        credential_expire_time=held.expire_time,
        pool_size=len(provider.central_keys) if found.source is Source.CENTRAL_KEY else 0,
        is_probe=chosen.is_probe,
        by_health=bool(found.complaints),
    )


def _find(
    conn: Connection, plane: Plane, service: Service | None, question: Question, read: _Read, *, now: datetime
) -> Found:
    """Every check up to the policy, and the sealed secret of the source that it chose.

    `read` is what questions of the same batch have read already, in the same transaction.
    """
    seen = revision.current(conn)
    if seen < question.min_revision:
        # An older view must not answer, not even by refusing: the caller has seen changes that this store lacks.
        raise StoreUnavailable
    token, user = _token_and_user(conn, service, question, now=now)
    if not plane.gateway.enabled:
        raise GatewayDisabled
    provider = plane.find_provider(conn, question.provider)
    if not provider.enabled:
        raise ProviderDisabled(provider=provider.name)
    check_operation(provider, question.operation)
    user_key = user_keys.find(conn, user_id=user.id, provider_id=provider.id)
    inputs = policy_inputs(
        plane.gateway, provider, user_has_key=user_key is not None, presented_key=question.presented_key
    )
    source = choose_source(inputs)
    if not isinstance(source, Source):
        raise refusal_of(source, provider)
    sealed: tuple[tuple[str, SealedSecret], ...] = ()
    complaints = _NO_COMPLAINTS
    if source is Source.CENTRAL_KEY and len(provider.central_keys) > 1:
        if provider.id not in read:
            read[provider.id] = Complaints(key_health.of_provider(conn, provider.id, now=now))
        complaints = read[provider.id]
    if source is Source.USER_KEY and user_key is not None:
        sealed = ((user_key[0].credential_id, user_key[1]),)
    elif source is Source.CENTRAL_KEY and provider.name not in plane.environment:
        sealed = tuple((key.credential_id, blob) for key, blob in providers.sealed_central_keys(conn, provider.id))
    return Found(
        provider=provider,
        user=user,
        access_token_id=token.id if token else "",
        expire_time=token.expire_time if token else None,
        source=source,
        sealed=sealed,
        complaints=complaints,
        revision=seen,
    )


def _token_and_user(
    conn: Connection, service: Service | None, question: Question, *, now: datetime
) -> tuple[Token | None, User]:
    """The user the request is made for: the owner of its token, or the one a granted service names."""
    if question.access_token is not None:
        return token_and_user_of(conn, question.access_token.reveal(), now=now)
    if question.user_id is None:
        raise AccessTokenMissing
    if service is None or not _may_act(service, question.provider):
        role = service.role.value if service else "NONE"
        raise CallerNotAllowed(role=role, rpc="ResolveProvider for a user that it names")
    user_id = canonical_uuid(question.user_id)
    found = users.find(conn, user_id) if user_id else None
    if found is None:
        raise UserNotFound(user=question.user_id)
    if found.suspended:
        raise UserSuspended
    return None, found


def _may_act(service: Service, provider: str) -> bool:
    return service.may_act_for_users and (not service.act_for_providers or provider in service.act_for_providers)


def check_operation(provider: Provider, operation: str) -> None:
    """Refuse an operation that the provider's type does not have. Callers that name none are not judged."""
    if operation and not has_operation(wire_of(provider), operation, provider.bedrock):
        raise OperationNotAllowed(provider=provider.name, operation=operation)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return min(one, other)


def upstream_model(bedrock: BedrockOptions | None, model: str) -> str:
    """The model to ask the upstream for, empty where the provider maps none (source-2, BEDROCK_MODEL)."""
    if bedrock is None or not model:
        return ""
    for name, mapped in bedrock.models:
        if name == model:
            return mapped
    small = "haiku" in model and bedrock.small_fast_model
    return bedrock.small_fast_model if small else bedrock.model


def is_bearer(provider: Provider, material: Material) -> bool:
    """Whether the material goes out as a bearer token rather than as an API key: Bedrock's, and Copilot's."""
    return isinstance(material, ApiKeyMaterial) and wire_of(provider) in {"bedrock", "copilot"}
