"""A provider for every combination of what the policy looks at, below the API, which would refuse some of them."""

import itertools
from datetime import UTC, datetime
from uuid import uuid4

from credentiald.ids import uuid7
from credentiald.model import ApiKeyMaterial, BedrockOptions, KeyKind, KeyPolicy, Provider, Source
from credentiald.policy import TABLE
from credentiald.sealing import central_key_context, user_key_context
from credentiald.store import providers, user_keys
from credentiald.store.providers import StoredKey
from daemonkit.secret import Secret
from tests.support.credentiald import Running

CENTRAL, OWN = "sk-central-canary-1", "sk-own-canary-2"
COMBINATIONS = list(itertools.product(*[(True, False)] * 5))
DATABASE_ROWS = [(type_name, combination) for type_name in ("openai", "bedrock") for combination in COMBINATIONS]


async def write_row(
    one: Running, type_name: str, combination: tuple[bool, ...], user_id: str, base_url: str = ""
) -> str:
    """The name of a new provider that is as the combination says."""
    central, users, fallback, has_key, stored = combination
    now = datetime.now(UTC)
    name = f"{type_name}-{uuid4().hex[:8]}"
    provider = Provider(
        id=uuid7(now),
        name=name,
        type=type_name,
        base_url=base_url,
        policy=KeyPolicy(central_key_enabled=central, user_keys_allowed=users, central_key_fallback=fallback),
        bedrock=BedrockOptions() if type_name == "bedrock" else None,
    )
    keys = []
    if stored:
        context = central_key_context(provider_id=provider.id, credential_id=f"c-{name}")
        keys = [
            StoredKey(
                credential_id=f"c-{name}",
                kind=KeyKind.API_KEY,
                sealed=one.plane.sealer.seal_material(ApiKeyMaterial(value=Secret(CENTRAL)), context),
            )
        ]
    await one.plane.db.write(providers.create, provider, keys, now=now)
    if has_key:
        context = user_key_context(user_id=user_id, provider_id=provider.id, credential_id=f"u-{name}")
        sealed = one.plane.sealer.seal_material(ApiKeyMaterial(value=Secret(OWN)), context)
        await one.plane.db.write(
            user_keys.put, user_id=user_id, provider_id=provider.id, credential_id=f"u-{name}", sealed=sealed, now=now
        )
    return name


def expected_of(type_name: str, combination: tuple[bool, ...]) -> str:
    """The source or the reason of the refusal that the policy table has for the combination."""
    row = next(
        row
        for row in TABLE
        if all(value in admitted for value, admitted in zip(combination, row.conditions, strict=True))
    )
    outcome = row.bedrock if type_name == "bedrock" else row.plain
    return outcome.value if isinstance(outcome, Source) else outcome.reason()
