"""Trying out what a provider's requests are made with, for an administrator who asks.

Stored keys are opened; nothing is sent to the upstream with it. What the base URL alone says about whether bridges may
go there is told as well; where its name leads is theirs to judge. A provider that reaches AWS has its credential
fetched now, by the same steps as for a request, and AWS is asked who that is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from credentiald.aws.access import ROLE, SOURCE, refusal_of
from credentiald.aws.probe import Probe, Probed
from credentiald.aws.regions import Identity, Placement, host_parts
from credentiald.aws.role_request import session_name
from credentiald.aws.steps import IDENTITY, Step, answered_by
from credentiald.catalog import wire_of
from credentiald.errors import CentralKeyMissing, KeyPoolExhausted, Refusal, UpstreamNotAllowed
from credentiald.key_health import Cause
from credentiald.model import AwsKeyPairMaterial, BedrockOptions, Material, Provider, SealedSecret, Source
from credentiald.plane import Plane
from credentiald.sealing import central_key_context
from credentiald.store import providers
from credentiald.store.connection import Connection
from credentiald.validation import destination_hints, destination_problem

CHECK_SECONDS = 25.0
_PLACE_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found. `refusal` is what a request would meet; `source` is None where there is nothing central."""

    provider: Provider
    source: Source | None = None
    refusal: Refusal | None = None
    message: str = ""
    steps: tuple[Step, ...] = ()
    account: str = ""
    arn: str = ""
    expire_time: datetime | None = None
    placement: Placement | None = None
    role_session_name: str = ""

    @property
    def answered_by(self) -> str:
        """The step that gave the credential."""
        gave = [step for step in self.steps if step.name != IDENTITY]
        return "" if self.refusal else answered_by(gave)


_KEY_OPENS = (
    "the stored key can be opened; it was sent nowhere, so the first request shows whether the upstream takes it"
)
_USERS_BRING = "users bring their own keys: there is nothing central to try"
_AWS_GIVES = "AWS gives a credential"
_AWS_DOES_NOT_SAY = "AWS gives a credential, but did not say whose it is"


async def check_provider(plane: Plane, name: str, *, username: str) -> Checked:
    """What is found, ProviderNotFound included; `username` is who asks, for the name of a role's session."""
    provider, sealed = await plane.db.read(_look_up, plane, name)
    if not all(plane.sealing_keys.has(one.key_id) for one in sealed):
        await plane.sealing_keys.refresh()
    try:
        problem = destination_problem(provider.base_url)
        if problem is not None:
            raise UpstreamNotAllowed(base_url=provider.base_url, problem=problem)
        checked = await _checked(plane, provider, sealed, username)
        hints = destination_hints(provider.name, provider.base_url)
        return replace(checked, message="; ".join([checked.message, *hints]))
    except Refusal as refusal:
        return Checked(provider=provider, refusal=refusal, message=str(refusal))


def _look_up(conn: Connection, plane: Plane, name: str) -> tuple[Provider, Sequence[SealedSecret]]:
    provider = plane.find_provider(conn, name)
    stored = [] if name in plane.environment else providers.sealed_central_keys(conn, provider.id)
    return provider, [sealed for _, sealed in stored]


async def _checked(plane: Plane, provider: Provider, sealed: Sequence[SealedSecret], username: str) -> Checked:
    if not provider.policy.central_key_enabled:
        return Checked(provider=provider, message=_USERS_BRING)
    material = _opened(plane, provider, sealed)
    if wire_of(provider) != "bedrock":
        if material is None:
            raise CentralKeyMissing(provider=provider.name)
        return Checked(provider=provider, source=Source.CENTRAL_KEY, message=_KEY_OPENS)
    return await _checked_at_aws(plane, provider, material, username)


def _opened(plane: Plane, provider: Provider, sealed: Sequence[SealedSecret]) -> Material | None:
    """The first central key; the others are opened too, so that what is wrong with one is found."""
    configured = plane.environment.get(provider.name)
    if configured is not None:
        return configured.materials[0] if configured.materials else None
    materials = [
        plane.sealer.open_material(blob, central_key_context(provider_id=provider.id, credential_id=key.credential_id))
        for key, blob in zip(provider.central_keys, sealed, strict=True)
    ]
    return materials[0] if materials else None


async def _checked_at_aws(plane: Plane, provider: Provider, material: Material | None, username: str) -> Checked:
    options = provider.bedrock or BedrockOptions()
    pair = material if isinstance(material, AwsKeyPairMaterial) else None
    identity = Identity.AMBIENT if material is None else Identity.PAIR if pair else Identity.BEARER
    source = Source.AMBIENT if material is None else Source.CENTRAL_KEY
    placement = await plane.aws.placed(provider, identity, seconds=_PLACE_SECONDS)
    if identity is Identity.BEARER:
        return Checked(provider=provider, source=source, message=_KEY_OPENS, placement=placement)
    probe = Probe(provider=provider.name, options=options, region=placement.region.name, username=username, pair=pair)
    probed, steps = await plane.aws.probe(provider, probe, seconds=CHECK_SECONDS - _PLACE_SECONDS)
    refusal, message = _judged(provider, placement, probed, steps)
    return Checked(
        provider=provider,
        source=source,
        refusal=refusal,
        message=message,
        steps=steps,
        account=probed.account,
        arn=probed.arn,
        expire_time=probed.expire_time,
        placement=placement,
        role_session_name=session_name(username) if options.role_arn else "",
    )


def _judged(
    provider: Provider, placement: Placement, probed: Probed, steps: tuple[Step, ...]
) -> tuple[Refusal | None, str]:
    """What a request would meet, and a sentence about it."""
    if probed.failed:
        kind = ROLE if probed.failed_at_role else SOURCE
        role_arn = provider.bedrock.role_arn if provider.bedrock else ""
        refusal = refusal_of(kind, provider.name, role_arn, probed.failed, steps)
        return refusal, str(refusal)
    if not probed.denied:
        return None, _AWS_GIVES if probed.arn else _AWS_DOES_NOT_SAY
    if host_parts(placement.base_url) is None:
        return None, f"there is a credential, but {probed.denied}: right only where the base URL is another gateway's"
    refused = KeyPoolExhausted(provider=provider.name, retry_after_seconds="0", cause=Cause.UNAUTHORIZED.value)
    return refused, f"no credential of AWS: {probed.denied}"
