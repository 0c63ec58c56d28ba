"""The legacy providers: CODER_AIBRIDGE_OPENAI_*, CODER_AIBRIDGE_ANTHROPIC_* and CODER_AIBRIDGE_BEDROCK_*.

They are named `openai` and `anthropic` and come before the indexed ones. The first exists if it has a key; the second
if it has a key or Bedrock is configured by a region, a base URL or an access key (models alone do not count).
"""

from collections.abc import Iterator

from credentiald.environment_fields import ACCESS_KEY, ACCESS_KEY_SECRET, KEY, Entry, key_problems
from credentiald.gateway_settings import PREFIX, GatewaySettings
from daemonkit.secret import Secret


def legacy_entries(settings: GatewaySettings) -> Iterator[tuple[str, Entry]]:
    """The legacy providers, each with the variable that made it."""
    if settings.openai_key is not None:
        yield f"{PREFIX}OPENAI_KEY", _entry("openai", f"{PREFIX}OPENAI_", settings.openai_base_url, settings.openai_key)
    if settings.anthropic_key is not None or has_bedrock(settings):
        yield _anthropic(settings)


def legacy_errors(settings: GatewaySettings) -> Iterator[str]:
    """What is wrong with the legacy settings taken together."""
    if settings.anthropic_key is not None and has_bedrock(settings):
        yield f"{PREFIX}ANTHROPIC_KEY and {PREFIX}BEDROCK_* are mutually exclusive"


def legacy_warnings(settings: GatewaySettings) -> Iterator[str]:
    """Settings that have no effect."""
    if settings.openai_base_url and settings.openai_key is None:
        yield f"{PREFIX}OPENAI_BASE_URL has no effect without {PREFIX}OPENAI_KEY"
    if settings.anthropic_base_url and settings.anthropic_key is None:
        yield f"{PREFIX}ANTHROPIC_BASE_URL has no effect without {PREFIX}ANTHROPIC_KEY"


def has_bedrock(settings: GatewaySettings) -> bool:
    """Whether the legacy settings configure Bedrock."""
    pair = (settings.bedrock_access_key, settings.bedrock_access_key_secret)
    return bool(settings.bedrock_region or settings.bedrock_base_url) or any(half is not None for half in pair)


def _anthropic(settings: GatewaySettings) -> tuple[str, Entry]:
    if settings.anthropic_key is not None:
        entry = _entry("anthropic", f"{PREFIX}ANTHROPIC_", settings.anthropic_base_url, settings.anthropic_key)
        return f"{PREFIX}ANTHROPIC_KEY", entry
    fields = {
        "TYPE": "anthropic",
        "BEDROCK_REGION": settings.bedrock_region,
        "BEDROCK_BASE_URL": settings.bedrock_base_url,
        "BEDROCK_MODEL": settings.bedrock_model,
        "BEDROCK_SMALL_FAST_MODEL": settings.bedrock_small_fast_model,
    }
    halves = {ACCESS_KEY: settings.bedrock_access_key, ACCESS_KEY_SECRET: settings.bedrock_access_key_secret}
    keys = {name: (key.stripped(),) for name, key in halves.items() if key is not None}
    entry = Entry(
        label=f"{PREFIX}BEDROCK_*",
        origin=f"legacy {PREFIX}BEDROCK_*",
        fields={name: text for name, text in fields.items() if text},
        keys=keys,
        errors=tuple(f"{name}: {one}" for name, key in keys.items() for one in key_problems(key, unique=True)),
    )
    return f"{PREFIX}BEDROCK_*", entry


def _entry(kind: str, prefix: str, base_url: str, key: Secret) -> Entry:
    keys = (key.stripped(),)
    return Entry(
        label=f"{prefix}*",
        origin=f"legacy {prefix}*",
        fields={"TYPE": kind, **({"BASE_URL": base_url} if base_url else {})},
        keys={KEY: keys},
        errors=tuple(f"KEY: {problem}" for problem in key_problems(keys, unique=True)),
    )
