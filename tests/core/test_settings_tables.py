"""The settings of both daemons: names that are fixed, defaults, what is refused, and the page that documents them."""

import base64
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

import bridged.settings
import credentiald.settings
from bridged.limits.admission import AdmissionLimits
from bridged.settings_table import SECTION as BRIDGED
from credentiald.gateway_settings import SECTION as GATEWAY
from credentiald.settings_table import SECTION as CREDENTIALD
from daemonkit.listen import parse_addresses
from daemonkit.load import aligned_lines
from daemonkit.names import is_injected
from daemonkit.secret import Secret
from daemonkit.settings import ConfigErrors, rows
from daemonkit.tls import Listener, TlsFiles, listener_of, read_pem, server_context, tls_problem

ROOT = Path(__file__).resolve().parents[2]
ALL_ROWS = [row for section in (CREDENTIALD, GATEWAY, BRIDGED) for row in rows(section)]


def no_files(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def load_credentiald(flags=None, environ=None, read_file=no_files):
    return credentiald.settings.load(flags or {}, environ or {}, read_file=read_file)


def load_bridged(flags=None, environ=None, read_file=no_files):
    return bridged.settings.load(flags or {}, environ or {}, read_file=read_file)


FIXED = [
    (CREDENTIALD, "--listen", "CREDENTIALD_LISTEN", "127.0.0.1:7410"),
    (CREDENTIALD, "--admin-listen", "CREDENTIALD_ADMIN_LISTEN", "127.0.0.1:7411"),
    (CREDENTIALD, "--console-listen", "CREDENTIALD_CONSOLE_LISTEN", "127.0.0.1:7412"),
    (CREDENTIALD, "--metrics-listen", "CREDENTIALD_METRICS_LISTEN", "127.0.0.1:7419"),
    (CREDENTIALD, "--database", "CREDENTIALD_DATABASE", "sqlite:///credentiald.db"),
    (CREDENTIALD, "", "CREDENTIALD_SEALING_KEYS", ""),
    (CREDENTIALD, "--tls-cert", "CREDENTIALD_TLS_CERT", ""),
    (CREDENTIALD, "--admin-tls-key", "CREDENTIALD_ADMIN_TLS_KEY", ""),
    (CREDENTIALD, "--console-tls-client-ca", "CREDENTIALD_CONSOLE_TLS_CLIENT_CA", ""),
    (CREDENTIALD, "--metrics-tls-cert", "CREDENTIALD_METRICS_TLS_CERT", ""),
    (CREDENTIALD, "--insecure-plaintext", "CREDENTIALD_INSECURE_PLAINTEXT", "false"),
    (CREDENTIALD, "--config", "CREDENTIALD_CONFIG", ""),
    (CREDENTIALD, "--log-human", "CREDENTIALD_LOG_HUMAN", "stderr"),
    (CREDENTIALD, "--log-json", "CREDENTIALD_LOG_JSON", "none"),
    (CREDENTIALD, "--log-level", "CREDENTIALD_LOG_LEVEL", "info"),
    (GATEWAY, "--aibridge-enabled", "CODER_AIBRIDGE_ENABLED", "true"),
    (GATEWAY, "--aibridge-retention", "CODER_AIBRIDGE_RETENTION", "60d"),
    (GATEWAY, "--aibridge-structured-logging", "CODER_AIBRIDGE_STRUCTURED_LOGGING", "false"),
    (GATEWAY, "--aibridge-openai-key", "CODER_AIBRIDGE_OPENAI_KEY", ""),
    (GATEWAY, "--aibridge-openai-base-url", "CODER_AIBRIDGE_OPENAI_BASE_URL", ""),
    (GATEWAY, "--aibridge-bedrock-access-key-secret", "CODER_AIBRIDGE_BEDROCK_ACCESS_KEY_SECRET", ""),
    (BRIDGED, "--listen", "BRIDGED_LISTEN", "127.0.0.1:4001"),
    (BRIDGED, "--metrics-listen", "BRIDGED_METRICS_LISTEN", "127.0.0.1:4009"),
    (BRIDGED, "--credentiald", "BRIDGED_CREDENTIALD", "127.0.0.1:7410"),
    (BRIDGED, "", "BRIDGED_CREDENTIALD_TOKEN", ""),
    (BRIDGED, "--credentiald-ca", "BRIDGED_CREDENTIALD_CA", ""),
    (BRIDGED, "--max-body", "BRIDGED_MAX_BODY", "32MiB"),
    (BRIDGED, "--grace", "BRIDGED_GRACE", "30s"),
    (BRIDGED, "--credentiald-timeout", "BRIDGED_CREDENTIALD_TIMEOUT", "5s"),
    (BRIDGED, "--connect-timeout", "BRIDGED_CONNECT_TIMEOUT", "10s"),
    (BRIDGED, "--first-byte-timeout", "BRIDGED_FIRST_BYTE_TIMEOUT", "600s"),
    (BRIDGED, "--idle-timeout", "BRIDGED_IDLE_TIMEOUT", "600s"),
]


@pytest.mark.parametrize(("section", "flag", "env", "default"), FIXED)
def test_fixed_names_and_defaults_stand(section, flag, env, default):
    (row,) = [row for row in rows(section) if row.env == env]
    assert (row.flag, row.declaration.default) == (flag, default)


def test_no_setting_has_a_name_that_container_platforms_inject():
    assert [name for row in ALL_ROWS for name in row.env_names if is_injected(name)] == []


def test_every_default_is_a_good_value():
    assert load_credentiald().settings.grace == timedelta(seconds=5)
    assert load_bridged().settings.max_body == 32 * 1024 * 1024


def test_without_any_settings_the_gateway_is_on_and_lets_users_bring_keys():
    gateway = load_credentiald().gateway
    assert (gateway.enabled, gateway.allow_byok, gateway.send_actor_headers) == (True, True, False)
    assert load_credentiald(environ={"CODER_AIBRIDGE_ENABLED": "false"}).gateway.enabled is False
    assert load_credentiald({"aibridge_allow_byok": "false"}).gateway.allow_byok is False


def test_what_the_commands_read_is_left_alone_by_serve():
    environ = dict.fromkeys(credentiald.settings.READ_BY_COMMANDS, "dbu_not-judged-here")
    assert {"CREDENTIALD_ADMIN", "CREDENTIALD_ADMIN_TOKEN", "CREDENTIALD_ADMIN_TOKEN_FILE", "CREDENTIALD_TOKEN"} <= set(
        environ
    )
    assert load_credentiald(environ=environ).warnings == ()


def test_each_daemon_leaves_alone_what_is_the_others():
    theirs = dict.fromkeys(bridged.settings.READ_BY_CREDENTIALD, "anything")
    theirs |= {f"{prefix}0_KEY": "anything" for prefix in bridged.settings.PREFIXES_READ_BY_CREDENTIALD}
    theirs |= {"CREDENTIALD_NONSENSE": "1"}
    assert load_bridged(environ=theirs).settings.credentiald == "127.0.0.1:7410"
    ours = dict.fromkeys(credentiald.settings.READ_BY_BRIDGED, "anything") | {"BRIDGED_NONSENSE": "1"}
    assert load_credentiald(environ=ours).gateway.environment_providers == ()


def test_the_two_daemons_share_out_the_names_of_the_gateway():
    gateway = {name for row in rows(GATEWAY) for name in row.env_names}
    left_alone = {name for name in gateway if name.startswith(bridged.settings.PREFIXES_READ_BY_CREDENTIALD)}
    assert gateway - left_alone == bridged.settings.READ_BY_CREDENTIALD
    aliases = {name for row in rows(BRIDGED) for name in row.declaration.aliases}
    assert aliases == credentiald.settings.READ_BY_BRIDGED


@pytest.mark.parametrize("name", ["CODER_AIBRIDGE_DUMP_DIR", "BRIDGED_DUMP_DIR"])
def test_the_folder_of_dumps_has_the_gateways_name_too_and_none_by_default(name):
    assert load_bridged(environ={}).settings.dump_dir == ""
    assert load_bridged(environ={name: " /var/dumps "}).settings.dump_dir == "/var/dumps"


def test_limits_have_the_gateways_names_too_and_none_by_default():
    environ = {
        "CODER_AIBRIDGE_MAX_CONCURRENCY": "100",
        "BRIDGED_MAX_PROVIDER_CONCURRENCY": "50",
        "BRIDGED_MAX_USER_CONCURRENCY": "5",
        "CODER_AIBRIDGE_RATE_LIMIT": "3",
        "BRIDGED_WORKERS": "4",
    }
    divided = AdmissionLimits(bridge=25, provider=13, user=2, rate_per_second=1)
    assert load_bridged(environ=environ).settings.limits() == divided
    assert load_bridged().settings.limits().are_none


@pytest.mark.parametrize("text", ["-1", "1.5", "ten", "1000001", "１"])
def test_a_limit_that_is_no_number_is_refused(text):
    with pytest.raises(ConfigErrors, match=r"BRIDGED_RATE_LIMIT: .*: write a whole number from 0 to 1000000"):
        load_bridged(environ={"BRIDGED_RATE_LIMIT": text})


def test_a_misspelled_name_of_the_gateway_is_an_error_at_the_bridge_too():
    with pytest.raises(ConfigErrors, match="did you mean CODER_AIBRIDGE_RATE_LIMIT"):
        load_bridged(environ={"CODER_AIBRIDGE_RATE_LIMITS": "5"})


def test_the_bridges_token_is_found_in_the_working_folder():
    def read_file(path: str) -> str:
        return "dbs_from_file\n" if path == "credentiald.bridge-token" else no_files(path)

    loaded = load_bridged(read_file=read_file)
    assert loaded.settings.credentiald_token == Secret("dbs_from_file")
    assert loaded.warnings == ()
    assert load_bridged(environ={"BRIDGED_CREDENTIALD_TOKEN": "dbs_set"}, read_file=read_file).settings == (
        load_bridged(environ={"BRIDGED_CREDENTIALD_TOKEN": "dbs_set"}).settings
    )
    assert "there is no service token" in load_bridged().warnings[0]


def test_a_key_given_as_a_flag_works_and_is_warned_about():
    loaded = load_credentiald({"aibridge_openai_key": "sk-canary"})
    assert len(loaded.gateway.environment_providers) == 1
    assert "--aibridge-openai-key shows the key" in loaded.warnings[0]
    assert "canary" not in repr(loaded) + "\n".join(aligned_lines(loaded.effective))


def test_config_check_shows_every_setting_with_its_origin_and_no_secret():
    loaded = load_credentiald(
        {"grace": "9s"}, {"CREDENTIALD_SEALING_KEYS": f"k1:{CANARY_KEY}", "CODER_AIBRIDGE_PROVIDER_0_TYPE": "copilot"}
    )
    lines = aligned_lines(loaded.effective)
    words = {line.split("=")[0].strip(): line for line in lines}
    assert words["grace"].split() == ["grace", "=", "9s", "(flag", "--grace)"]
    assert words["sealing_keys"].endswith("<set>" + words["sealing_keys"].split("<set>")[1])
    assert "(environment CREDENTIALD_SEALING_KEYS)" in words["sealing_keys"]
    assert "type=copilot" in words["provider copilot"]
    assert len(lines) == len([*rows(CREDENTIALD), *rows(GATEWAY)]) + 1
    assert CANARY_KEY not in "\n".join(lines)


def test_config_check_shows_what_a_provider_of_the_environment_does_when_something_fails():
    prefix = "CODER_AIBRIDGE_PROVIDER_0_"
    given = {
        "TYPE": "anthropic",
        "KEYS": "canary-1,canary-2",
        "FALLBACK_PROVIDER": "other",
        "IDLE_TIMEOUT": "1m30s",
        "CONNECT_TIMEOUT": "500ms",
    }
    loaded = load_credentiald({}, {prefix + name: value for name, value in given.items()})
    line = next(line for line in aligned_lines(loaded.effective) if line.startswith("provider "))
    assert "keys=<2 set>" in line
    assert "fallback_provider=other connect_timeout=0.5s idle_timeout=90s" in line
    assert "canary" not in line


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:canary@h/db", "PostgreSQL is not supported yet"),
        ("postgres://u:canary@h/db", "PostgreSQL is not supported yet"),
        ("mysql://u:canary@h/db", "write sqlite:///PATH"),
        ("credentiald.db", "write sqlite:///PATH"),
        ("sqlite:///", "write sqlite:///PATH"),
    ],
)
def test_other_databases_are_refused_without_quoting_the_url(url, message):
    with pytest.raises(ConfigErrors) as refused:
        load_credentiald(environ={"CREDENTIALD_DATABASE": url})
    assert message in refused.value.errors[0]
    assert "canary" not in refused.value.errors[0]


CANARY_KEY = base64.b64encode(b"canary-sealing-key-of-32-bytes!!").decode()
# Not the console: it is not built yet, so what it is told has no effect.
LISTENERS = ["listen", "admin_listen", "metrics_listen"]


def test_the_settings_of_the_console_are_accepted_and_have_no_effect():
    environ = {"CREDENTIALD_CONSOLE_LISTEN": "0.0.0.0:7410", "CREDENTIALD_CONSOLE_TLS_CERT": "/nowhere"}
    assert load_credentiald(environ=environ).settings.console_listen


def test_sealing_keys_that_cannot_be_read_are_an_error_of_the_settings_that_does_not_quote_them():
    with pytest.raises(ConfigErrors) as refused:
        load_credentiald(environ={"CREDENTIALD_SEALING_KEYS": "canary-nonsense", "CREDENTIALD_GRACE": "x"})
    assert len(refused.value.errors) == 2
    assert "canary" not in "".join(refused.value.errors)


@pytest.mark.parametrize("name", LISTENERS)
def test_plaintext_off_loopback_is_refused_on_every_listener(name):
    with pytest.raises(ConfigErrors) as refused:
        load_credentiald({name: "0.0.0.0:7000"})
    assert refused.value.errors[0].startswith(f"{name}: 0.0.0.0:7000 can be reached")
    allowed = load_credentiald({name: "0.0.0.0:7000", "insecure_plaintext": "true"})
    assert allowed.settings.listener(name).addresses == parse_addresses("0.0.0.0:7000")


@pytest.mark.parametrize(
    ("target", "flags", "ok"),
    [
        ("credentiald:7410", {}, False),
        ("credentiald:7410", {"credentiald_ca": "ca.pem"}, True),
        ("credentiald:7410", {"insecure_plaintext": "true"}, True),
        ("unix:/run/x", {}, True),
        ("localhost:7410", {"credentiald_cert": "c", "credentiald_key": "k"}, False),
        ("localhost:7410", {"credentiald_cert": "c", "credentiald_ca": "ca"}, False),
        ("localhost:7410", {"credentiald_cert": "c", "credentiald_key": "k", "credentiald_ca": "ca"}, True),
        ("", {}, False),
        ("a b", {}, False),
    ],
)
def test_the_way_to_credentiald_is_local_or_has_tls(target, flags, ok):
    try:
        load_bridged({"credentiald": target, **flags})
    except ConfigErrors as refused:
        assert not ok, refused.errors  # noqa: PT017
    else:
        assert ok


MAIN = TlsFiles(cert="c", key="k", client_ca="ca")


@pytest.mark.parametrize(
    ("cert", "key", "client_ca", "main", "files"),
    [
        ("", "", "", None, None),
        ("c", "k", "", None, TlsFiles(cert="c", key="k")),
        ("", "", "", MAIN, MAIN),
        ("c2", "k2", "", MAIN, TlsFiles(cert="c2", key="k2", client_ca="ca")),
        ("c2", "k2", "none", MAIN, TlsFiles(cert="c2", key="k2")),
        ("", "", "ca2", MAIN, TlsFiles(cert="c", key="k", client_ca="ca2")),
        ("none", "", "", MAIN, None),
    ],
)
def test_a_listener_without_files_of_its_own_uses_the_main_ones(cert, key, client_ca, main, files):
    listener = Listener(
        name="admin_listen", addresses=(), tls_name="admin_tls", cert=cert, key=key, client_ca=client_ca, main=main
    )
    assert listener.tls == files
    assert list(listener.errors()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"tls_cert": "c"}, "tls_key is missing"),
        ({"tls_key": "k"}, "tls_cert is missing"),
        ({"admin_tls_cert": "c"}, "admin_tls_key is missing"),
        ({"tls_client_ca": "ca"}, "tls_client_ca needs tls_cert and tls_key"),
        ({"listen": "127.0.0.1:7411"}, "admin_listen: 127.0.0.1:7411 is already the address of listen"),
    ],
)
def test_settings_that_contradict_each_other_are_errors(flags, message):
    with pytest.raises(ConfigErrors) as refused:
        load_credentiald(flags)
    assert [error for error in refused.value.errors if message in error]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate for localhost, its key, and the authority that made it."""
    folder = tmp_path_factory.mktemp("pem")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    names = {name: str(folder / name) for name in ("cert", "key", "client_ca")}
    issued.cert_chain_pems[0].write_to_path(names["cert"])
    issued.private_key_pem.write_to_path(names["key"])
    authority.cert_pem.write_to_path(names["client_ca"])
    return TlsFiles(**names)


def test_tls_files_that_fit_are_accepted(pem):
    assert tls_problem(pem) is None
    assert server_context(pem).verify_mode.name == "CERT_REQUIRED"
    assert server_context(TlsFiles(cert=pem.cert, key=pem.key)).verify_mode.name == "CERT_NONE"
    assert b"PRIVATE KEY" in read_pem(pem).key
    assert "PRIVATE" not in repr(read_pem(pem))


def test_tls_files_that_do_not_fit_are_a_sentence(pem, tmp_path):
    other = trustme.CA().issue_cert("localhost")
    other.private_key_pem.write_to_path(str(tmp_path / "other-key"))
    (tmp_path / "text").write_text("no pem")
    wrong = [
        (TlsFiles(cert=pem.cert, key="/away"), "cannot read '/away': No such file"),
        (TlsFiles(cert=pem.cert, key=str(tmp_path / "other-key")), "are not a certificate and its key"),
        (TlsFiles(cert=str(tmp_path / "text"), key=pem.key), "are not a certificate and its key"),
        (TlsFiles(cert=pem.cert, key=pem.key, client_ca=str(tmp_path / "text")), "holds no certificate"),
        (TlsFiles(cert=pem.cert, key=pem.key, client_ca="/away"), "cannot read '/away'"),
    ]
    for files, message in wrong:
        assert message in (tls_problem(files) or "")


def test_an_encrypted_key_is_refused_without_asking_on_the_terminal(pem, tmp_path):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(pem.key).read_bytes(), password=None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    (tmp_path / "key").write_bytes(encrypted)
    assert "the private key is encrypted" in (tls_problem(TlsFiles(cert=pem.cert, key=str(tmp_path / "key"))) or "")


def test_loading_opens_tls_files_and_reports_them_with_everything_else(tmp_path):
    params = {"tls_cert": str(tmp_path / "c"), "tls_key": str(tmp_path / "k"), "grace": "x"}
    with pytest.raises(ConfigErrors) as refused:
        credentiald.settings.load_from_cli(params, {})
    assert [error.split(" ")[0] for error in refused.value.errors] == ["--grace:", "tls:"]


@pytest.mark.parametrize(
    ("reflection", "addresses", "on"),
    [
        ("auto", "127.0.0.1:1,unix:/x", True),
        ("auto", "127.0.0.1:1,10.0.0.1:1", False),
        ("on", "10.0.0.1:1", True),
        ("off", "127.0.0.1:1", False),
    ],
)
def test_reflection_is_on_where_only_this_machine_can_ask(reflection, addresses, on):
    settings = load_credentiald({"reflection": reflection}).settings
    assert settings.reflection_on(parse_addresses(addresses)) is on


def test_listeners_are_found_by_the_name_of_their_setting():
    settings = load_credentiald({"tls_cert": "c", "tls_key": "k", "metrics_tls_cert": "none"}).settings
    assert listener_of(settings, "admin_listen").tls == TlsFiles(cert="c", key="k")
    assert settings.listener("metrics_listen").tls is None


def test_the_settings_page_is_what_the_tables_say():
    script = [sys.executable, str(ROOT / "scripts" / "gen_settings_doc")]
    made = subprocess.run(script, capture_output=True, check=True, text=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert made.stdout == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8"), (
        "run scripts/gen_settings_doc --write"
    )


def test_every_setting_is_on_the_settings_page():
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    names = [name for row in ALL_ROWS for name in (row.flag, *row.env_names, *row.yaml_names) if name]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_reading_settings_loads_no_heavy_library():
    code = (
        "import sys; from credentiald import settings as c; from bridged import settings as b;"
        "c.load_from_cli({}, {}); b.options();"
        "print(sorted({'grpc', 'aiohttp', 'yaml', 'sqlite_utils', 'cryptography'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, cwd=ROOT)
    assert ran.stdout == "[]\n"
