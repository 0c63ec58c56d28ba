"""How commands end when credentiald refuses, does not answer, or is not there."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from credentiald.errors import (
    AccessTokenMissing,
    CallerNotAllowed,
    InvalidArgument,
    ServiceTokenInvalid,
    UserKeyRequired,
)
from tests.fakes.admin_service import FakePlane, serving
from tests.support.credentiald_cli import ADMIN_TOKEN, administer, run


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[FakePlane]:
    with serving(tmp_path) as plane:
        yield plane


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("users", "show", "bob"), "there is no user 'bob' (USER_NOT_FOUND)"),
        (("users", "delete", "bob"), "there is no user 'bob' (USER_NOT_FOUND)"),
        (("tokens", "revoke", "t"), "there is no token with the id 't' (TOKEN_NOT_FOUND)"),
        (("services", "rotate", "s"), "there is no service named 's' (SERVICE_NOT_FOUND)"),
        (
            ("providers", "show", "p"),
            "there is no provider named 'p': check the name in the URL (PROVIDER_NOT_FOUND)",
        ),
    ],
)
@pytest.mark.parametrize("json", [(), ("--json",)])
def test_a_refusal_is_its_own_words_on_stderr_and_exit_1(plane, arguments, message, json):
    result = administer(plane, *arguments, *json, code=1)
    assert (result.stdout, result.stderr) == ("", f"credentiald: {message}\n")


@pytest.mark.parametrize(
    "refusal",
    [
        ServiceTokenInvalid(),
        CallerNotAllowed(role="USER", rpc="ListUsers"),
        UserKeyRequired(provider="corp"),
        InvalidArgument(field="page_token", problem="it is not one of ours"),
    ],
)
def test_every_kind_of_refusal_reads_the_same_way(plane, refusal):
    plane.refusal = refusal
    result = administer(plane, "users", "list", code=1)
    assert result.stderr == f"credentiald: {refusal} ({refusal.reason()})\n"


@pytest.mark.parametrize("steering", ["\x1b[2J", "\x07", "\r", "\u202e"])
def test_a_refusal_cannot_steer_the_terminal(plane, steering):
    odd = type(f"Odd{steering}Reason", (InvalidArgument,), {})
    plane.refusal = odd(field="name", problem=f"before{steering}after")
    line = administer(plane, "users", "list", code=1).stderr.removesuffix("\n")
    assert line.isprintable()
    assert "beforeafter" not in line


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ((grpc.StatusCode.DEADLINE_EXCEEDED, "late"), "did not answer within 10 s"),
        ((grpc.StatusCode.UNIMPLEMENTED, "Method not found!"), "is it the listener for administration"),
        ((grpc.StatusCode.INTERNAL, "internal error"), "internal error (INTERNAL)"),
        ((grpc.StatusCode.UNAVAILABLE, "gone"), "cannot reach credentiald at"),
    ],
)
def test_a_status_without_a_reason_says_what_to_look_at(plane, status, says):
    plane.status = status
    result = administer(plane, "users", "list", code=1)
    assert result.stderr.startswith("credentiald: ")
    assert says in result.stderr


def test_nobody_at_the_address_is_exit_1_and_a_question(tmp_path):
    address = f"unix:{tmp_path}/nobody.sock"
    result = run("users", "list", env={"CREDENTIALD_ADMIN": address, "CREDENTIALD_ADMIN_TOKEN": ADMIN_TOKEN})
    assert result.exit_code == 1
    assert f"credentiald: cannot reach credentiald at {address}: is it running?\n" in result.stderr


def test_no_token_is_exit_2_and_says_what_to_set(plane, tmp_path):
    env = {"CREDENTIALD_ADMIN": plane.address, "CREDENTIALD_DATABASE": f"sqlite:///{tmp_path}/credentiald.db"}
    result = run("users", "list", env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "credentiald: no token to administer with" in result.stderr
    assert "CREDENTIALD_ADMIN_TOKEN" in result.stderr


def test_a_proxy_of_the_environment_is_not_asked(tmp_path):
    nobody = dict.fromkeys(("grpc_proxy", "https_proxy", "http_proxy"), "http://127.0.0.1:1")
    env = {"CREDENTIALD_ADMIN_TOKEN": ADMIN_TOKEN, "no_proxy": None, "no_grpc_proxy": None, **nobody}
    with serving(tmp_path, grpc.insecure_server_credentials()) as plane:
        result = run("users", "list", "--admin", plane.address, env=env)
    assert result.exit_code == 0, result.output


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """The authority, and a client certificate of it, as flags name them."""
    client = authority.issue_cert("client")
    written = {"--admin-ca": "ca.pem", "--admin-cert": "cert.pem", "--admin-key": "key.pem"}
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    client.private_key_pem.write_to_path(tmp_path / "key.pem")
    return {flag: str(tmp_path / name) for flag, name in written.items()}


@pytest.fixture
def tls_plane(authority: trustme.CA, tmp_path: Path) -> Iterator[FakePlane]:
    """The fake behind TLS, for clients with a certificate of the authority."""
    server = authority.issue_cert("localhost")
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    with serving(tmp_path, credentials) as plane:
        yield plane


def flags_of(files: dict[str, str]) -> list[str]:
    return [part for pair in files.items() for part in pair]


def test_tls_with_a_client_certificate_reaches_credentiald(tls_plane, files):
    administer(tls_plane, "users", "create", "ada", *flags_of(files))
    assert list(tls_plane.users) == ["ada"]


def test_another_authority_is_not_trusted_and_the_token_does_not_arrive(tls_plane, files, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    result = administer(
        tls_plane, "users", "list", *flags_of(files | {"--admin-ca": str(tmp_path / "other.pem")}), code=1
    )
    assert "cannot reach credentiald" in result.stderr
    assert "--admin-ca must have the authority of its certificate" in result.stderr
    assert tls_plane.calls == []


def test_without_tls_a_listener_that_speaks_it_is_named_as_a_possible_cause(tls_plane):
    result = administer(tls_plane, "users", "list", code=1)
    assert "speaks TLS there: --admin-ca is needed" in result.stderr


def test_a_certificate_that_is_no_service_is_named_where_no_token_came(tls_plane, files):
    tls_plane.refusal = AccessTokenMissing()
    result = administer(tls_plane, "users", "list", *flags_of(files), code=1)
    assert "no service is known by a name of the certificate" in result.stderr


def test_without_its_client_certificate_the_server_refuses(tls_plane, files):
    result = administer(tls_plane, "users", "list", "--admin-ca", files["--admin-ca"], code=1)
    assert "cannot reach credentiald" in result.stderr
    assert tls_plane.calls == []
