"""Where the administering commands call, with whose token, and when they refuse to."""

from pathlib import Path

import pytest

from credentiald.cli.errors import WrongUsage
from credentiald.cli.target import (
    ADMIN_TOKEN_FILE,
    DEFAULT_ADDRESS,
    DEFAULT_DATABASE,
    Flags,
    Target,
    find_target,
    stays_here,
    token_file_beside,
)

TOKEN = "dbs_" + "a" * 49


def find(environ: dict[str, str], *, flags: Flags | None = None, files: dict[str, bytes] | None = None, mine=False):
    def read_file(path: Path) -> bytes:
        try:
            return (files or {})[str(path)]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    return find_target(flags or Flags(), environ, read_file, mine=mine)


def refusal(*args, **kwargs) -> str:
    with pytest.raises(WrongUsage) as refused:
        find(*args, **kwargs)
    return "\n".join(refused.value.lines)


@pytest.mark.parametrize(
    ("flag", "variable", "address"),
    [
        ("", "", DEFAULT_ADDRESS),
        ("", "unix:/run/c.sock", "unix:/run/c.sock"),
        ("127.0.0.1:1", "unix:/run/c.sock", "127.0.0.1:1"),
    ],
)
def test_the_flag_wins_over_the_variable_and_that_over_the_default(flag, variable, address):
    environ = {"CREDENTIALD_ADMIN": variable, "CREDENTIALD_ADMIN_TOKEN": TOKEN}
    assert find(environ, flags=Flags(address=flag)).address == address


def test_the_defaults_are_those_of_the_daemon():
    from credentiald.bootstrap.first_services import ADMIN_TOKEN_FILE as made_file
    from credentiald.settings import Settings

    settings = Settings()
    assert settings.database == DEFAULT_DATABASE
    assert str(settings.admin_listen[0]) == DEFAULT_ADDRESS
    assert made_file == ADMIN_TOKEN_FILE


@pytest.mark.parametrize(
    ("environ", "files"),
    [
        ({"CREDENTIALD_ADMIN_TOKEN": TOKEN}, {}),
        ({"CREDENTIALD_ADMIN_TOKEN_FILE": "/secrets/t"}, {"/secrets/t": f"{TOKEN}\n".encode()}),
        ({}, {"credentiald.admin-token": f"{TOKEN}\n".encode()}),
        ({"CREDENTIALD_DATABASE": "sqlite:///data/c.db"}, {"data/credentiald.admin-token": TOKEN.encode()}),
        ({"CREDENTIALD_DATABASE": "sqlite:////data/c.db"}, {"/data/credentiald.admin-token": TOKEN.encode()}),
        ({"CREDENTIALD_ADMIN_TOKEN": TOKEN}, {"credentiald.admin-token": b"dbs_another"}),
        ({"CREDENTIALD_ADMIN_TOKEN": TOKEN, "CREDENTIALD_TOKEN": "dbu_mine"}, {}),
    ],
)
def test_the_administrators_token_comes_from_its_variables_or_from_beside_the_database(environ, files):
    assert find(environ, files=files).token.reveal() == TOKEN


@pytest.mark.parametrize(
    ("environ", "files"),
    [
        ({"CREDENTIALD_TOKEN": TOKEN, "CREDENTIALD_ADMIN_TOKEN": "dbs_other"}, {}),
        ({"CREDENTIALD_TOKEN_FILE": "/t"}, {"/t": TOKEN.encode(), "credentiald.admin-token": b"dbs_other"}),
    ],
)
def test_mine_takes_the_users_own_token_and_no_other(environ, files):
    assert find(environ, files=files, mine=True).token.reveal() == TOKEN


def test_mine_without_an_own_token_never_falls_back_to_the_administrators():
    message = refusal({"CREDENTIALD_ADMIN_TOKEN": TOKEN}, files={"credentiald.admin-token": b"dbs_other"}, mine=True)
    assert "CREDENTIALD_TOKEN" in message


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "credentiald.admin-token: No such file"),
        ({"CREDENTIALD_DATABASE": "postgresql://db/c"}, "set CREDENTIALD_ADMIN_TOKEN"),
        ({"CREDENTIALD_ADMIN_TOKEN": TOKEN, "CREDENTIALD_ADMIN_TOKEN_FILE": "/t"}, "both set"),
        ({"CREDENTIALD_ADMIN_TOKEN_FILE": "/gone"}, "/gone cannot be read"),
        ({"CREDENTIALD_ADMIN_TOKEN": "two words"}, "CREDENTIALD_ADMIN_TOKEN holds no token"),
        ({"CREDENTIALD_ADMIN_TOKEN": "dbs_é"}, "CREDENTIALD_ADMIN_TOKEN holds no token"),
    ],
)
def test_a_token_that_is_not_there_is_wrong_usage_and_says_what_to_set(environ, says):
    assert says in refusal(environ)


def test_what_is_no_token_is_not_repeated_in_the_message():
    assert "canary" not in refusal({"CREDENTIALD_ADMIN_TOKEN": "dbs canary"})


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:7411",
        "127.9.9.9:1",
        "localhost:7411",
        "LocalHost:7411",
        "[::1]:7411",
        "unix:credentiald.sock",
        "unix:///run/credentiald.sock",
        "unix-abstract:credentiald",
        "dns:///localhost:7411",
        "dns:localhost:7411",
        "ipv4:127.0.0.1:1,127.0.0.1:2",
        "ipv6:[::1]:7411",
    ],
)
def test_loopback_and_unix_sockets_stay_on_this_machine(address):
    assert stays_here(address)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:7411",
        "credentiald:7411",
        "localhost.example.com:7411",
        "127.0.0.1.example.com:7411",
        "dns://127.0.0.1/credentiald:7411",
        "dns://resolver.example.com/localhost:7411",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "localhost@example.com:7411",
        "example.com:7411#localhost:7411",
        "[2001:db8::1]:7411",
        "0.0.0.0:7411",
        "",
    ],
)
def test_everything_else_does_not(address):
    assert not stays_here(address)


def test_plaintext_to_another_machine_is_refused_before_a_token_is_looked_for():
    message = refusal({"CREDENTIALD_ADMIN": "credentiald:7411"})
    assert "--admin-ca" in message
    assert "--insecure-plaintext" in message


def test_plaintext_to_another_machine_is_possible_for_those_who_insist():
    flags = Flags(address="credentiald:7411", insecure_plaintext=True)
    assert find({"CREDENTIALD_ADMIN_TOKEN": TOKEN}, flags=flags).tls is None


FILES = {"/ca": b"CA", "/cert": b"CERT", "/key": b"KEY"}


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        (Flags(address="c:1", ca_file="/ca", certificate_file="/cert", key_file="/key"), {}),
        (
            Flags(address="c:1"),
            {"CREDENTIALD_ADMIN_CA": "/ca", "CREDENTIALD_ADMIN_CERT": "/cert", "CREDENTIALD_ADMIN_KEY": "/key"},
        ),
    ],
)
def test_tls_files_come_from_flags_or_variables(flags, environ):
    tls = find({"CREDENTIALD_ADMIN_TOKEN": TOKEN, **environ}, flags=flags, files=FILES).tls
    assert tls is not None
    assert (tls.ca, tls.certificate, tls.key.reveal() if tls.key else None) == (b"CA", b"CERT", "KEY")


@pytest.mark.parametrize("flags", [Flags(certificate_file="/cert"), Flags(key_file="/key")])
def test_a_certificate_without_its_key_is_wrong_usage(flags):
    assert "both" in refusal({"CREDENTIALD_ADMIN_TOKEN": TOKEN}, flags=flags, files=FILES)


def test_a_tls_file_that_is_not_there_is_named():
    assert "/gone" in refusal({"CREDENTIALD_ADMIN_TOKEN": TOKEN}, flags=Flags(ca_file="/gone"))


def test_a_target_prints_without_token_and_key():
    target = find(
        {"CREDENTIALD_ADMIN_TOKEN": TOKEN},
        flags=Flags(ca_file="/ca", certificate_file="/cert", key_file="/key"),
        files=FILES,
    )
    assert isinstance(target, Target)
    assert TOKEN not in repr(target)
    assert "KEY" not in repr(target)


@pytest.mark.parametrize("url", ["postgresql://h/d", "sqlite:///", "sqlite:c.db", "credentiald.db", ""])
def test_only_an_embedded_database_has_a_token_beside_it(url):
    assert token_file_beside(url) is None
