"""All settings of bridged, and how they are loaded: every error at once, before anything is opened."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridged.settings_table import GATEWAY_PREFIX, LISTENERS, SECTION, TOKEN_FILE, Settings
from daemonkit.checks import LOOKS, NO_LOOKS, Looks, serving_errors
from daemonkit.listen import is_local_target
from daemonkit.load import click_options, open_sources
from daemonkit.names import unknown_keys, unknown_variables
from daemonkit.settings import ConfigErrors, Effective, ReadFile, Sources, read, read_text_file, rows, secret_file

if TYPE_CHECKING:
    import click

__all__ = [
    "PREFIXES_READ_BY_CREDENTIALD",
    "READ_BY_CREDENTIALD",
    "Loaded",
    "Settings",
    "load",
    "load_from_cli",
    "options",
]

# credentiald reads these and judges them.
READ_BY_CREDENTIALD = frozenset(
    GATEWAY_PREFIX + name
    for name in (
        "ENABLED",
        "RETENTION",
        "STRUCTURED_LOGGING",
        "SEND_ACTOR_HEADERS",
        "ALLOW_BYOK",
        "INJECT_CODER_MCP_TOOLS",
    )
)
PREFIXES_READ_BY_CREDENTIALD = tuple(
    GATEWAY_PREFIX + name for name in ("PROVIDER_", "OPENAI_", "ANTHROPIC_", "BEDROCK_")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration without errors. `warnings` are sentences to log at start.

    `token_file` is where the service token was read, or is looked for; empty where it was given as a value.
    """

    settings: Settings
    effective: tuple[Effective, ...]
    warnings: tuple[str, ...]
    token_file: str = ""


def options() -> list["click.Option"]:
    """The options of `bridged serve` and `bridged config check`."""
    return click_options([SECTION])


def load_from_cli(params: Mapping[str, str | None], environ: Mapping[str, str]) -> Loaded:
    """The configuration from click's parameters, the environment and the files of this machine, or ConfigErrors."""
    return load(params, environ, read_file=read_text_file, looks=LOOKS)


def load(
    flags: Mapping[str, str | None], environ: Mapping[str, str], *, read_file: ReadFile, looks: Looks = NO_LOOKS
) -> Loaded:
    """The configuration, or ConfigErrors with all that is wrong."""
    sources, errors = open_sources(flags, environ, read_file, config_env="BRIDGED_CONFIG")
    own = read(SECTION, sources)
    settings = own.values
    errors += [*_unknown_names(sources), *own.errors, *_credentiald_errors(settings)]
    errors += serving_errors(settings, LISTENERS, environ, looks)
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    return Loaded(
        settings=settings,
        effective=own.effective,
        warnings=tuple(_warnings(settings)),
        token_file=secret_file(SECTION, "credentiald_token", sources),
    )


def _unknown_names(sources: Sources) -> Iterator[str]:
    known = {name for row in rows(SECTION) for name in row.env_names}
    yield from unknown_variables(sources.environ, prefix=SECTION.env_prefix, known=known)
    yield from unknown_variables(
        sources.environ,
        prefix=GATEWAY_PREFIX,
        known={name for name in known if name.startswith(GATEWAY_PREFIX)} | READ_BY_CREDENTIALD,
        read_elsewhere=PREFIXES_READ_BY_CREDENTIALD,
    )
    yield from unknown_keys(sources.document, [SECTION], document_name=sources.document_name)


def _credentiald_errors(settings: Settings) -> Iterator[str]:
    if bool(settings.credentiald_cert) != bool(settings.credentiald_key):
        missing = "credentiald_key" if settings.credentiald_cert else "credentiald_cert"
        yield f"{missing} is missing: a certificate and its key are given together"
    if settings.credentiald_ca:
        return
    if settings.credentiald_cert or settings.credentiald_key:
        yield "credentiald_ca is missing: without it there is no TLS to credentiald"
    elif not settings.insecure_plaintext and not is_local_target(settings.credentiald):
        yield (
            f"credentiald: {settings.credentiald} is another machine and there is no TLS to it: "
            "set --credentiald-ca, or give --insecure-plaintext"
        )


def _warnings(settings: Settings) -> Iterator[str]:
    if settings.credentiald_token is None and not settings.credentiald_cert:
        yield (
            "there is no service token and no client certificate, so credentiald will refuse every call: "
            f"set BRIDGED_CREDENTIALD_TOKEN or its _FILE twin, or start in the folder of {TOKEN_FILE}"
        )
