"""All settings of bridged, and how they are loaded: every error at once, before anything is opened."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from daemonkit.durations import parse_duration, parse_timeout
from daemonkit.listen import Address, is_local_target, parse_addresses
from daemonkit.load import aligned_lines, click_options, open_sources
from daemonkit.logs import parse_log_target
from daemonkit.names import unknown_keys, unknown_variables
from daemonkit.parsers import parse_boolean, parse_log_level, parse_secret, parse_size_bytes, parse_text
from daemonkit.secret import Secret
from daemonkit.settings import (
    ConfigErrors,
    Effective,
    ReadFile,
    Section,
    Sources,
    read,
    read_text_file,
    rows,
    secret_text,
    setting,
)
from daemonkit.tls import Listener, TlsFiles, listener_errors, listener_of, tls_problem

if TYPE_CHECKING:
    import click

# credentiald makes this file beside its database; in the working folder it needs no setting.
TOKEN_FILE = "credentiald.bridge-token"  # noqa: S105 - the name of a file

_GATEWAY_PREFIX = "CODER_AIBRIDGE_"
# credentiald reads these and judges them.
READ_BY_CREDENTIALD = frozenset(
    _GATEWAY_PREFIX + name
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
    _GATEWAY_PREFIX + name for name in ("PROVIDER_", "OPENAI_", "ANTHROPIC_", "BEDROCK_")
)

_LISTEN_HELP = "HOST:PORT or unix:PATH, several with commas."


def _parse_target(text: str) -> str:
    target = text.strip()
    if not target or any(character.isspace() for character in target):
        raise ValueError(f"{text!r} is not a gRPC target: write HOST:PORT, dns:///HOST:PORT or unix:PATH")
    return target


def _not_supported_yet(text: str) -> None:
    if text.strip():
        raise ValueError("not supported yet: remove it")


def _unsupported(name: str, help_text: str) -> None:
    """A setting that is named already and refused until what it sets exists; a limit must not be dropped in silence."""
    return setting(
        "", f"{help_text} Not supported yet.", _not_supported_yet, flag=False, aliases=(_GATEWAY_PREFIX + name,)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What bridged is told. File names are empty where none was given."""

    config: str = setting("", "YAML file with settings.", parse_text, yaml=False, metavar="FILE")
    listen: tuple[Address, ...] = setting(
        "127.0.0.1:4001", f"HTTP for LLM clients: {_LISTEN_HELP}", parse_addresses, metavar="ADDRESS"
    )
    metrics_listen: tuple[Address, ...] = setting(
        "127.0.0.1:4009", f"HTTP for /metrics, /healthz and /readyz: {_LISTEN_HELP}", parse_addresses,
        metavar="ADDRESS",
    )  # fmt: skip
    credentiald: str = setting(
        "127.0.0.1:7410", "Where credentiald is: any gRPC target, HOST:PORT, dns:///HOST:PORT or unix:PATH.",
        _parse_target, metavar="TARGET",
    )  # fmt: skip
    credentiald_token: Secret | None = setting(
        "", f"Service token of this bridge; default: the file {TOKEN_FILE} in the working folder, if there.",
        parse_secret, secret=True,
    )  # fmt: skip
    credentiald_ca: str = setting(
        "", "PEM file with the authorities of credentiald's certificate; turns TLS to it on.", parse_text,
        metavar="FILE",
    )  # fmt: skip
    credentiald_cert: str = setting(
        "", "PEM file with the certificate that bridged shows to credentiald.", parse_text, metavar="FILE"
    )
    credentiald_key: str = setting("", "Private key of --credentiald-cert.", parse_text, metavar="FILE")
    tls_cert: str = setting("", "PEM file with the certificate chain of --listen.", parse_text, metavar="FILE")
    tls_key: str = setting("", "PEM file with the private key of --listen.", parse_text, metavar="FILE")
    tls_client_ca: str = setting(
        "", "PEM file with the authorities that clients' certificates must come from.", parse_text, metavar="FILE"
    )
    metrics_tls_cert: str = setting(
        "", "Certificate chain of --metrics-listen; default: the main listener's; none: no TLS here.", parse_text,
        metavar="FILE",
    )  # fmt: skip
    metrics_tls_key: str = setting("", "Private key of --metrics-listen.", parse_text, metavar="FILE")
    metrics_tls_client_ca: str = setting(
        "", "Client authorities of --metrics-listen; default: the main listener's; none: anyone may connect.",
        parse_text, metavar="FILE",
    )  # fmt: skip
    insecure_plaintext: bool = setting(
        "false", "Allow listeners, and a way to credentiald, without TLS that other machines can reach.",
        parse_boolean, bare="true", metavar="true|false",
    )  # fmt: skip
    max_body: int = setting("32MiB", "The largest request body.", parse_size_bytes, metavar="SIZE")
    grace: timedelta = setting(
        "30s", "How long running requests may go on after the signal to stop.", parse_duration, metavar="DURATION"
    )
    credentiald_timeout: timedelta = setting(
        "5s", "How long credentiald may take to answer.", parse_timeout, metavar="DURATION"
    )
    connect_timeout: timedelta = setting(
        "10s", "How long a connection to an upstream may take.", parse_timeout, metavar="DURATION"
    )
    first_byte_timeout: timedelta = setting(
        "600s", "How long an upstream may take to begin its answer.", parse_timeout, metavar="DURATION"
    )
    idle_timeout: timedelta = setting(
        "600s", "How long an upstream may pause inside its answer.", parse_timeout, metavar="DURATION"
    )
    max_concurrency: None = _unsupported("MAX_CONCURRENCY", "How many requests run at once; 0 is no limit.")
    rate_limit: None = _unsupported("RATE_LIMIT", "Requests a second for each token; 0 is no limit.")
    circuit_breaker_enabled: None = _unsupported("CIRCUIT_BREAKER_ENABLED", "Whether failing upstreams get a rest.")
    circuit_breaker_failure_threshold: None = _unsupported(
        "CIRCUIT_BREAKER_FAILURE_THRESHOLD", "Failures in a row that open a breaker."
    )
    circuit_breaker_interval: None = _unsupported(
        "CIRCUIT_BREAKER_INTERVAL", "How often a closed breaker forgets failures."
    )
    circuit_breaker_timeout: None = _unsupported("CIRCUIT_BREAKER_TIMEOUT", "How long a breaker stays open.")
    circuit_breaker_max_requests: None = _unsupported(
        "CIRCUIT_BREAKER_MAX_REQUESTS", "How many probes a half-open breaker admits."
    )
    dump_dir: None = _unsupported("DUMP_DIR", "Folder for dumps of requests and answers.")
    log_human: str = setting(
        "stderr", "Log for people: stderr, - for stdout, a file, or none.", parse_log_target, bare="stderr",
        metavar="PATH",
    )  # fmt: skip
    log_json: str = setting(
        "none", "Log as one JSON object a line: - for stdout, stderr, a file, or none.", parse_log_target,
        metavar="PATH",
    )  # fmt: skip
    log_level: int = setting("info", "The least that is logged.", parse_log_level, metavar="debug|info|warning|error")

    def listener(self, name: str) -> Listener:
        """The listener of a setting, `listen` or `metrics_listen`, with the TLS that applies to it."""
        return listener_of(self, name)


SECTION = Section(table=Settings, env_prefix="BRIDGED_")
_LISTENERS = ("listen", "metrics_listen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration without errors. `warnings` are sentences to log at start."""

    settings: Settings
    effective: tuple[Effective, ...]
    warnings: tuple[str, ...]


def options() -> list["click.Option"]:
    """The options of `bridged serve` and `bridged config check`."""
    return click_options([SECTION])


def load_from_cli(params: Mapping[str, str | None], environ: Mapping[str, str]) -> Loaded:
    """The configuration from click's parameters, the environment and the files of this machine, or ConfigErrors."""
    return load(params, environ, read_file=read_text_file, check_tls=tls_problem)


def config_check_lines(loaded: Loaded) -> list[str]:
    """The effective settings with their origin, a line each, without secrets."""
    return aligned_lines(loaded.effective)


def load(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    read_file: ReadFile,
    check_tls: Callable[[TlsFiles], str | None] | None = None,
) -> Loaded:
    """The configuration, or ConfigErrors with all that is wrong. `check_tls` tries TLS files, which is I/O."""
    sources, errors = open_sources(flags, environ, read_file, config_env="BRIDGED_CONFIG")
    own = read(SECTION, sources)
    settings, effective = own.values, own.effective
    errors += [*_unknown_names(sources), *own.errors, *_credentiald_errors(settings)]
    errors += listener_errors(
        [settings.listener(name) for name in _LISTENERS],
        insecure_plaintext=settings.insecure_plaintext,
        check_files=check_tls,
    )
    if settings.credentiald_token is None and not errors:
        try:
            token = _token_from_working_folder(read_file)
        except ValueError as error:
            errors.append(str(error))
        else:
            settings, effective = _with_token(settings, effective, token)
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    return Loaded(settings=settings, effective=effective, warnings=tuple(_warnings(settings)))


def _unknown_names(sources: Sources) -> Iterator[str]:
    known = {name for row in rows(SECTION) for name in row.env_names}
    yield from unknown_variables(sources.environ, prefix=SECTION.env_prefix, known=known)
    yield from unknown_variables(
        sources.environ,
        prefix=_GATEWAY_PREFIX,
        known={name for name in known if name.startswith(_GATEWAY_PREFIX)} | READ_BY_CREDENTIALD,
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


def _token_from_working_folder(read_file: ReadFile) -> Secret | None:
    try:
        text = read_file(TOKEN_FILE)
    except FileNotFoundError:
        return None
    except OSError:
        text = ""  # secret_text reads it again and says what is wrong
    return parse_secret(secret_text("", "", TOKEN_FILE, TOKEN_FILE, read_file) if not text else text.strip())


def _with_token(
    settings: Settings, effective: tuple[Effective, ...], token: Secret | None
) -> tuple[Settings, tuple[Effective, ...]]:
    if token is None:
        return settings, effective
    row = Effective(name="credentiald_token", text="<set>", origin=f"file {TOKEN_FILE}")
    return (
        replace(settings, credentiald_token=token),
        tuple(row if one.name == row.name else one for one in effective),
    )


def _warnings(settings: Settings) -> Iterator[str]:
    if settings.credentiald_token is None:
        yield (
            "there is no service token, so credentiald will refuse every call: "
            f"set BRIDGED_CREDENTIALD_TOKEN or its _FILE twin, or start in the folder of {TOKEN_FILE}"
        )
