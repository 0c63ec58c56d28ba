"""The settings of credentiald itself, one field each."""

# ruff: noqa: RUF009 - `setting` is a field specifier like dataclasses.field

from dataclasses import dataclass
from datetime import timedelta

from credentiald.record_rules import KeepRule, KeepRules, parse_keep_rule
from credentiald.sealing_source import SealingSource, parse_source
from credentiald.store.sqlite import database_path
from daemonkit import trace_settings
from daemonkit.durations import parse_duration
from daemonkit.listen import Address, parse_addresses
from daemonkit.logs import parse_log_target
from daemonkit.parsers import parse_boolean, parse_choice, parse_log_level, parse_secret, parse_text, parse_workers
from daemonkit.secret import Secret
from daemonkit.settings import Section, setting
from daemonkit.tls import Listener, listener_of

_KEEP_HELP = (
    "on, off, or a size to cut at; for single providers add ,PROVIDER= and one of these, such as on,lab=off,corp=4KiB."
)
_LISTEN_HELP = "HOST:PORT or unix:PATH, several with commas."
_TLS_HELP = "; default: the main listener's; none: no TLS here."
_CLIENT_CA_HELP = "; default: the main listener's; none: anyone may connect."


def _parse_database(text: str) -> str:
    url = text.strip()
    database_path(url)
    return url


def _parse_sealing_keys(text: str) -> Secret | None:
    secret = parse_secret(text)
    if secret is not None:
        # Imported late: the cipher is not needed where no keys are given.
        from credentiald.sealing import Keyring

        Keyring.parse(secret.reveal())
    return secret


def _parse_sources(text: str) -> tuple[SealingSource, ...]:
    return tuple(parse_source(one) for one in text.split(",") if one.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What credentiald itself is told. File names are empty where none was given."""

    config: str = setting("", "YAML file with settings.", parse_text, yaml=False, metavar="FILE")
    listen: tuple[Address, ...] = setting(
        "127.0.0.1:7410", f"gRPC for bridges, services and users: {_LISTEN_HELP}", parse_addresses, metavar="ADDRESS"
    )
    admin_listen: tuple[Address, ...] = setting(
        "127.0.0.1:7411", f"gRPC for administration: {_LISTEN_HELP}", parse_addresses, metavar="ADDRESS"
    )
    console_listen: tuple[Address, ...] = setting(
        "127.0.0.1:7412",
        "The web console; accepted, and without effect until it is built.",
        parse_addresses,
        metavar="ADDRESS",
    )
    metrics_listen: tuple[Address, ...] = setting(
        "127.0.0.1:7419",
        f"HTTP for /metrics, /healthz and /readyz: {_LISTEN_HELP}",
        parse_addresses,
        metavar="ADDRESS",
    )
    database: str = setting("sqlite:///credentiald.db", "Where the store is: sqlite:///PATH.", _parse_database)
    sealing_keys: Secret | None = setting(
        "",
        "Sealing keys, keyid:base64 of 32 bytes each, newest first; default: the file credentiald.sealing "
        "beside the database.",
        _parse_sealing_keys,
        secret=True,
    )
    sealing_key_source: SealingSource = setting(
        "local",
        "Who encrypts new sealing keys: local (nobody, they are kept on this machine), aws-kms:KEY_ARN, or "
        "vault:https://HOST:PORT/MOUNT/KEY (transit).",
        parse_source,
        metavar="SOURCE",
    )
    sealing_key_sources_before: tuple[SealingSource, ...] = setting(
        "",
        "Who encrypted older sealing keys and is still asked to decrypt them, with commas. Nobody else whom the "
        "database names is asked.",
        _parse_sources,
        metavar="SOURCES",
    )
    vault_token: Secret | None = setting(
        "", "Token for Vault; its file is read again each time.", parse_secret, secret=True
    )
    vault_ca: str = setting(
        "", "PEM file with the authorities of Vault's certificate; default: the system's.", parse_text, metavar="FILE"
    )
    vault_namespace: str = setting("", "Namespace of Vault (Enterprise).", parse_text, metavar="NAME")
    tls_cert: str = setting("", "PEM file with the certificate chain of --listen.", parse_text, metavar="FILE")
    tls_key: str = setting("", "PEM file with the private key of --listen.", parse_text, metavar="FILE")
    tls_client_ca: str = setting(
        "", "PEM file with the authorities that clients' certificates must come from.", parse_text, metavar="FILE"
    )
    admin_tls_cert: str = setting("", f"Certificate chain of --admin-listen{_TLS_HELP}", parse_text, metavar="FILE")
    admin_tls_key: str = setting("", "Private key of --admin-listen.", parse_text, metavar="FILE")
    admin_tls_client_ca: str = setting(
        "", f"Client authorities of --admin-listen{_CLIENT_CA_HELP}", parse_text, metavar="FILE"
    )
    console_tls_cert: str = setting("", f"Certificate chain of --console-listen{_TLS_HELP}", parse_text, metavar="FILE")
    console_tls_key: str = setting("", "Private key of --console-listen.", parse_text, metavar="FILE")
    console_tls_client_ca: str = setting(
        "", f"Client authorities of --console-listen{_CLIENT_CA_HELP}", parse_text, metavar="FILE"
    )
    metrics_tls_cert: str = setting("", f"Certificate chain of --metrics-listen{_TLS_HELP}", parse_text, metavar="FILE")
    metrics_tls_key: str = setting("", "Private key of --metrics-listen.", parse_text, metavar="FILE")
    metrics_tls_client_ca: str = setting(
        "", f"Client authorities of --metrics-listen{_CLIENT_CA_HELP}", parse_text, metavar="FILE"
    )
    insecure_plaintext: bool = setting(
        "false",
        "Allow listeners without TLS that other machines can reach.",
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
    reflection: str = setting(
        "auto",
        "gRPC reflection: on, off, or auto: on where only this machine can reach the listener.",
        parse_choice("auto", "on", "off"),
        metavar="auto|on|off",
    )
    grace: timedelta = setting(
        "5s", "How long running calls may go on after the signal to stop.", parse_duration, metavar="DURATION"
    )
    revoke_wait: timedelta = setting(
        "1s",
        "How long a command that takes something away waits until every bridge obeys; 0 for not at all.",
        parse_duration,
        metavar="DURATION",
    )
    record_prompts: KeepRule = setting(
        "on", f"What records keep of prompts: {_KEEP_HELP}", parse_keep_rule, metavar="RULE"
    )
    record_tool_inputs: KeepRule = setting(
        "on", f"What records keep of the inputs of tools: {_KEEP_HELP}", parse_keep_rule, metavar="RULE"
    )
    record_thoughts: KeepRule = setting(
        "on", f"What records keep of models' thoughts: {_KEEP_HELP}", parse_keep_rule, metavar="RULE"
    )
    debuggable: bool = setting(
        "false",
        "Let debuggers and profilers of the same user look into the process, and the kernel write core dumps: there "
        "are keys in its memory.",
        parse_boolean,
        bare="true",
        metavar="true|false",
    )
    audit: str = setting(
        "on",
        "Whether administrative acts and releases of credentials are written down: on; strict: nothing happens that "
        "cannot be written; off.",
        parse_choice("on", "strict", "off"),
        metavar="on|strict|off",
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

    def listener(self, name: str) -> Listener:
        """The listener of a setting, `listen` or `admin_listen` for example, with the TLS that applies to it."""
        return listener_of(self, name)

    def keep_rules(self) -> KeepRules:
        """What of the content of records is kept."""
        return KeepRules(
            prompts=self.record_prompts, tool_inputs=self.record_tool_inputs, thoughts=self.record_thoughts
        )

    def reflection_on(self, addresses: tuple[Address, ...]) -> bool:
        """Whether a gRPC listener at these addresses offers reflection."""
        return self.reflection == "on" or (self.reflection == "auto" and all(one.is_local for one in addresses))


# The console is not built yet: its settings are accepted, and nothing is made of them.
LISTENERS = ("listen", "admin_listen", "metrics_listen")

SECTION = Section(table=Settings, env_prefix="CREDENTIALD_")
