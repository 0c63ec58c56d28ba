"""All settings of credentiald, and how they are loaded: every error at once, before anything is opened."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from credentiald import gateway_settings
from credentiald.environment import EnvironmentReading, read_environment
from credentiald.environment_fields import known_names
from credentiald.gateway_settings import GatewaySettings
from credentiald.model import EnvironmentProvider, Gateway
from credentiald.settings_table import LISTENERS, SECTION, Settings
from daemonkit.checks import LOOKS, NO_LOOKS, Looks, serving_errors
from daemonkit.load import click_options, open_sources
from daemonkit.names import unknown_keys, unknown_variables
from daemonkit.settings import (
    ConfigErrors,
    Effective,
    ReadFile,
    Sources,
    read,
    read_text_file,
    rows,
    secret_file,
)

if TYPE_CHECKING:
    import click

__all__ = [
    "READ_BY_BRIDGED",
    "SECTIONS",
    "Loaded",
    "Settings",
    "load",
    "load_from_cli",
    "options",
]

SECTIONS = (SECTION, gateway_settings.SECTION)

# The administering commands read these; `serve` may find them in its environment and leaves them alone.
READ_BY_COMMANDS = frozenset(
    {
        "CREDENTIALD_ADMIN",
        "CREDENTIALD_ADMIN_TOKEN",
        "CREDENTIALD_ADMIN_TOKEN_FILE",
        "CREDENTIALD_ADMIN_CA",
        "CREDENTIALD_ADMIN_CERT",
        "CREDENTIALD_ADMIN_KEY",
        "CREDENTIALD_TOKEN",
        "CREDENTIALD_TOKEN_FILE",
    }
)
# bridged reads these, and says itself which of them it cannot honour yet.
READ_BY_BRIDGED = frozenset(
    gateway_settings.PREFIX + name
    for name in (
        "MAX_CONCURRENCY",
        "RATE_LIMIT",
        "CIRCUIT_BREAKER_ENABLED",
        "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
        "CIRCUIT_BREAKER_INTERVAL",
        "CIRCUIT_BREAKER_TIMEOUT",
        "CIRCUIT_BREAKER_MAX_REQUESTS",
        "DUMP_DIR",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration without errors. `warnings` are sentences to log at start.

    `sealing_keys_path` and `vault_token_path` are the files that these were read from, empty where they came otherwise.
    """

    settings: Settings
    sealing_keys_path: str
    vault_token_path: str
    gateway_settings: GatewaySettings
    gateway: Gateway
    effective: tuple[Effective, ...]
    warnings: tuple[str, ...]


def options() -> list["click.Option"]:
    """The options of `credentiald serve` and `credentiald config check`."""
    return click_options(SECTIONS)


def load_from_cli(params: Mapping[str, str | None], environ: Mapping[str, str]) -> Loaded:
    """The configuration from click's parameters, the environment and the files of this machine, or ConfigErrors."""
    return load(params, environ, read_file=read_text_file, looks=LOOKS)


def load(
    flags: Mapping[str, str | None], environ: Mapping[str, str], *, read_file: ReadFile, looks: Looks = NO_LOOKS
) -> Loaded:
    """The configuration, or ConfigErrors with all that is wrong."""
    sources, errors = open_sources(flags, environ, read_file, config_env="CREDENTIALD_CONFIG")
    own = read(SECTION, sources)
    gateway = read(gateway_settings.SECTION, sources)
    providers = read_environment(sources, gateway.values)
    errors += _unknown_names(sources)
    errors += [*own.errors, *gateway.errors, *providers.errors]
    errors += serving_errors(own.values, LISTENERS, environ, looks)
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    return Loaded(
        settings=own.values,
        sealing_keys_path=secret_file(SECTION, "sealing_keys", sources),
        vault_token_path=secret_file(SECTION, "vault_token", sources),
        gateway_settings=gateway.values,
        gateway=_gateway(gateway.values, providers),
        effective=(
            *own.effective,
            *gateway.effective,
            *(_provider_row(one, providers.origins[one.provider.name]) for one in providers.providers),
        ),
        warnings=(*_visible_secrets(flags), *providers.warnings),
    )


def _gateway(values: GatewaySettings, providers: EnvironmentReading) -> Gateway:
    return Gateway(
        enabled=values.enabled,
        allow_byok=values.allow_byok,
        send_actor_headers=values.send_actor_headers,
        environment_providers=providers.providers,
    )


def _unknown_names(sources: Sources) -> Iterator[str]:
    names = {section.block: {name for row in rows(section) for name in row.env_names} for section in SECTIONS}
    yield from unknown_variables(
        sources.environ, prefix=SECTION.env_prefix, known=names[SECTION.block] | READ_BY_COMMANDS
    )
    indexed = f"{gateway_settings.PREFIX}PROVIDER_"
    yield from unknown_variables(
        sources.environ,
        prefix=gateway_settings.PREFIX,
        known=names[gateway_settings.BLOCK] | READ_BY_BRIDGED,
        read_elsewhere=(indexed,),
        examples={f"{indexed}<N>_{name}" for name in known_names()},
    )
    yield from unknown_keys(
        sources.document,
        SECTIONS,
        document_name=sources.document_name,
        read_elsewhere={f"{gateway_settings.BLOCK}.providers"},
    )


def _visible_secrets(flags: Mapping[str, str | None]) -> Iterator[str]:
    for section in SECTIONS:
        for row in rows(section):
            if row.declaration.secret and row.flag and flags.get(row.param):
                yield f"{row.flag} shows the key to other users of this machine: use {row.env} or {row.env}_FILE"


def _how_many(keys: int) -> str:
    return "<unset>" if not keys else "<set>" if keys == 1 else f"<{keys} set>"


def _provider_row(configured: EnvironmentProvider, origin: str) -> Effective:
    provider, policy = configured.provider, configured.provider.policy
    facts = {
        "type": provider.type,
        "base_url": provider.base_url,
        "keys": _how_many(len(configured.materials)),
        "central_key": policy.central_key_enabled,
        "allow_user_keys": policy.user_keys_allowed,
        "central_key_fallback": policy.central_key_fallback,
    }
    if provider.fallback_provider:
        facts["fallback_provider"] = provider.fallback_provider
    for name in ("connect", "first_byte", "idle"):
        timeout = getattr(provider.timeouts, name)
        if timeout is not None:
            facts[f"{name}_timeout"] = f"{timeout.total_seconds():g}s"
    text = " ".join(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in facts.items()
    )
    return Effective(name=f"provider {provider.name}", text=text, origin=origin)
