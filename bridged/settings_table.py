"""The settings of bridged, one field each."""

# ruff: noqa: RUF009 - `setting` is a field specifier like dataclasses.field

from dataclasses import dataclass
from datetime import timedelta

from bridged.egress import parse_networks, parse_plaintext_upstreams
from bridged.limits.admission import AdmissionLimits
from bridged.provider_switch import ProviderSwitch, parse_provider_switch
from bridged.trace_headers import TraceHeaders, parse_trace_headers
from bridged.watch import EndsOn, parse_ends_on
from daemonkit import trace_settings
from daemonkit.durations import parse_duration, parse_timeout
from daemonkit.listen import Address, parse_addresses
from daemonkit.logs import parse_log_target
from daemonkit.parsers import (
    parse_boolean,
    parse_count,
    parse_log_level,
    parse_positive_count,
    parse_secret,
    parse_size_bytes,
    parse_text,
    parse_workers,
)
from daemonkit.reachable import IpNetwork
from daemonkit.secret import Secret
from daemonkit.settings import Section, setting
from daemonkit.tls import Listener, listener_of

# credentiald makes this file beside its database; in the working folder it needs no setting.
TOKEN_FILE = "credentiald.bridge-token"  # noqa: S105 - the name of a file
# Settings of the gateway have names that begin with this, and credentiald reads most of them.
GATEWAY_PREFIX = "CODER_AIBRIDGE_"

# A word of --without-records.
REFUSE = "refuse"

_LISTEN_HELP = "HOST:PORT or unix:PATH, several with commas."


def _parse_target(text: str) -> str:
    target = text.strip()
    if not target or any(character.isspace() for character in target):
        raise ValueError(f"{text!r} is not a gRPC target: write HOST:PORT, dns:///HOST:PORT or unix:PATH")
    return target


def _parse_without_records(text: str) -> str:
    word = text.strip().lower()
    if word not in ("serve", REFUSE):
        raise ValueError(f"{text!r} is not possible: write serve or refuse")
    return word


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What bridged is told. File names are empty where none was given."""

    config: str = setting("", "YAML file with settings.", parse_text, yaml=False, metavar="FILE")
    listen: tuple[Address, ...] = setting(
        "127.0.0.1:4001", f"HTTP for LLM clients: {_LISTEN_HELP}", parse_addresses, metavar="ADDRESS"
    )
    metrics_listen: tuple[Address, ...] = setting(
        "127.0.0.1:4009",
        f"HTTP for /metrics, /healthz and /readyz: {_LISTEN_HELP}",
        parse_addresses,
        metavar="ADDRESS",
    )
    credentiald: str = setting(
        "127.0.0.1:7410",
        "Where credentiald is: any gRPC target, HOST:PORT, dns:///HOST:PORT or unix:PATH.",
        _parse_target,
        metavar="TARGET",
    )
    credentiald_token: Secret | None = setting(
        "",
        f"Service token of this bridge; default: the file {TOKEN_FILE} in the working folder, if there.",
        parse_secret,
        secret=True,
        fallback_file=TOKEN_FILE,
    )
    credentiald_ca: str = setting(
        "",
        "PEM file with the authorities of credentiald's certificate; turns TLS to it on.",
        parse_text,
        metavar="FILE",
    )
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
        "",
        "Certificate chain of --metrics-listen; default: the main listener's; none: no TLS here.",
        parse_text,
        metavar="FILE",
    )
    metrics_tls_key: str = setting("", "Private key of --metrics-listen.", parse_text, metavar="FILE")
    metrics_tls_client_ca: str = setting(
        "",
        "Client authorities of --metrics-listen; default: the main listener's; none: anyone may connect.",
        parse_text,
        metavar="FILE",
    )
    insecure_plaintext: bool = setting(
        "false",
        "Allow listeners, and a way to credentiald, without TLS that other machines can reach.",
        parse_boolean,
        bare="true",
        metavar="true|false",
    )
    workers: int = setting(
        "1",
        "How many processes serve; with more than one a supervisor runs them, and no listener may be a unix socket.",
        parse_workers,
        metavar="N",
    )
    max_body: int = setting("32MiB", "The largest request body.", parse_size_bytes, metavar="SIZE")
    grace: timedelta = setting(
        "30s", "How long running requests may go on after the signal to stop.", parse_duration, metavar="DURATION"
    )
    credentiald_timeout: timedelta = setting(
        "5s", "How long credentiald may take to answer.", parse_timeout, metavar="DURATION"
    )
    end_streams_on: frozenset[EndsOn] = setting(
        "tokens,users,keys",
        "What ends running requests once it is taken away: tokens, users, keys, providers, policy, or none.",
        parse_ends_on,
        metavar="LIST",
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
    allow_upstream_networks: tuple[IpNetwork, ...] = setting(
        "none",
        "Which private networks upstreams may be in: none, private (all), or some of them, such as "
        "10.0.0.0/8,fd12::/16. Link-local, metadata and reserved addresses are always refused, public ones never.",
        parse_networks,
        metavar="none|private|NETWORKS",
    )
    allow_upstream_loopback: bool = setting(
        "true", "Whether upstreams may be on this machine.", parse_boolean, bare="true", metavar="true|false"
    )
    plaintext_upstreams: frozenset[str] = setting(
        "none",
        "Which providers' upstreams may be asked over plain http beyond this machine: none, or names of providers "
        "with commas. Whoever is on the way can read prompts, answers and keys.",
        parse_plaintext_upstreams,
        metavar="none|PROVIDERS",
    )
    record_queue: int = setting(
        "64MiB",
        "How much of the records that credentiald has not stored yet may wait in memory.",
        parse_size_bytes,
        metavar="SIZE",
    )
    without_records: str = setting(
        "serve",
        "What happens to requests while their records cannot be kept: serve or refuse.",
        _parse_without_records,
        metavar="serve|refuse",
    )
    ask_for_usage: ProviderSwitch = setting(
        "on",
        "Whether streamed Chat requests that do not ask for usage are made to (stream_options.include_usage): on or "
        "off; for single providers add ,PROVIDER= and one of these, such as on,lab=off. An upstream that answers 400 "
        "or 422 for it is sent the request again as the client made it, and is not asked again.",
        parse_provider_switch,
        metavar="on|off",
    )
    max_concurrency: int = setting(
        "0",
        "How many requests run at once, shared fairly among users; 0 is no limit. This one and the three below are "
        "divided among workers and rounded up.",
        parse_count,
        metavar="N",
        aliases=(GATEWAY_PREFIX + "MAX_CONCURRENCY",),
    )
    max_provider_concurrency: int = setting(
        "0",
        "How many requests to one provider run at once, shared fairly among users; 0 is no limit.",
        parse_count,
        metavar="N",
    )
    max_user_concurrency: int = setting(
        "0", "How many requests of one user run at once; 0 is no limit.", parse_count, metavar="N"
    )
    rate_limit: int = setting(
        "0",
        "Requests a second for each token, with bursts of one second's worth; 0 is no limit.",
        parse_count,
        metavar="N",
        aliases=(GATEWAY_PREFIX + "RATE_LIMIT",),
    )
    circuit_breaker_enabled: bool = setting(
        "false",
        "Whether an upstream that fails time after time is left alone for a while (BREAKER_OPEN), by provider, "
        "operation and model.",
        parse_boolean,
        bare="true",
        metavar="true|false",
        aliases=(GATEWAY_PREFIX + "CIRCUIT_BREAKER_ENABLED",),
    )
    circuit_breaker_failure_threshold: int = setting(
        "5",
        "Failures in a row that open a breaker.",
        parse_positive_count,
        metavar="N",
        aliases=(GATEWAY_PREFIX + "CIRCUIT_BREAKER_FAILURE_THRESHOLD",),
    )
    circuit_breaker_interval: timedelta = setting(
        "10s",
        "How often a closed breaker forgets failures; 0 is never.",
        parse_duration,
        metavar="DURATION",
        aliases=(GATEWAY_PREFIX + "CIRCUIT_BREAKER_INTERVAL",),
    )
    circuit_breaker_timeout: timedelta = setting(
        "30s",
        "How long a breaker stays open, before it lets probes through.",
        parse_timeout,
        metavar="DURATION",
        aliases=(GATEWAY_PREFIX + "CIRCUIT_BREAKER_TIMEOUT",),
    )
    circuit_breaker_max_requests: int = setting(
        "3",
        "How many probes a half-open breaker lets through; as many successes close it.",
        parse_positive_count,
        metavar="N",
        aliases=(GATEWAY_PREFIX + "CIRCUIT_BREAKER_MAX_REQUESTS",),
    )
    dump_dir: str = setting(
        "",
        "Folder for files with every request and answer, prompts and all, credentials masked; empty: none are written "
        "(docs/dump.md).",
        parse_text,
        metavar="FOLDER",
        aliases=(GATEWAY_PREFIX + "DUMP_DIR",),
    )
    max_dump: int = setting(
        "1GiB",
        "How much of a disk the files of --dump-dir may take; beyond that the oldest are removed.",
        parse_size_bytes,
        metavar="SIZE",
    )
    send_trace_headers: TraceHeaders | None = setting(
        "none",
        "Which upstreams get traceparent, tracestate and baggage: none, all, or names of providers with commas.",
        parse_trace_headers,
        metavar="none|all|PROVIDERS",
    )
    debuggable: bool = setting(
        "false",
        "Let debuggers and profilers of the same user look into the process, and the kernel write core dumps: there "
        "are keys in its memory.",
        parse_boolean,
        bare="true",
        metavar="true|false",
    )
    traces: str = setting("auto", trace_settings.HELP, trace_settings.parse_traces, metavar="auto|on|off")
    log_human: str = setting(
        "stderr",
        "Log for people: stderr, - for stdout, a file, or none.",
        parse_log_target,
        bare="stderr",
        metavar="PATH",
    )
    log_json: str = setting(
        "none",
        "Log as one JSON object a line: - for stdout, stderr, a file, or none.",
        parse_log_target,
        metavar="PATH",
    )
    log_level: int = setting("info", "The least that is logged.", parse_log_level, metavar="debug|info|warning|error")

    def limits(self) -> AdmissionLimits:
        """What one process may take on: its part of what all workers may."""
        return AdmissionLimits(
            bridge=self.max_concurrency,
            provider=self.max_provider_concurrency,
            user=self.max_user_concurrency,
            rate_per_second=self.rate_limit,
        ).of_worker(self.workers)

    def listener(self, name: str) -> Listener:
        """The listener of a setting, `listen` or `metrics_listen`, with the TLS that applies to it."""
        return listener_of(self, name)


SECTION = Section(table=Settings, env_prefix="BRIDGED_")
LISTENERS = ("listen", "metrics_listen")
