"""Where the administering commands find credentiald and whose token they carry: flags, then variables, then defaults.

A token leaves this machine only inside TLS, unless the user insists. Files are read through a callable, so that
everything here is a function of its arguments.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from credentiald.cli.errors import WrongUsage
from daemonkit.listen import is_loopback
from daemonkit.secret import Secret

DEFAULT_ADDRESS = "127.0.0.1:7411"
DEFAULT_DATABASE = "sqlite:///credentiald.db"
ADMIN_TOKEN_FILE = "credentiald.admin-token"  # noqa: S105 - a file name

ReadFile = Callable[[Path], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the flags said; empty strings where they said nothing."""

    address: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    insecure_plaintext: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """PEM material of one TLS client. Without `ca` the roots that gRPC brings judge the server."""

    ca: bytes | None
    certificate: bytes | None
    key: Secret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A gRPC target with what a call to it carries. `tls` None is plaintext; without a token its certificate speaks."""

    address: str
    token: Secret | None
    tls: ClientTls | None


def find_target(flags: Flags, environ: Mapping[str, str], read_file: ReadFile, *, mine: bool) -> Target:
    """The target that flags and variables name; `mine` takes the user's own token. Raises WrongUsage."""
    address = flags.address or environ.get("CREDENTIALD_ADMIN") or DEFAULT_ADDRESS
    tls = _client_tls(flags, environ, read_file)
    if tls is None and not flags.insecure_plaintext and not stays_here(address):
        raise WrongUsage(
            f"a token would travel to {address} in the clear: "
            "name the certificate authority of its TLS with --admin-ca, or insist with --insecure-plaintext"
        )
    is_certified = tls is not None and tls.certificate is not None
    token = _own_token(environ, read_file) if mine else _admin_token(environ, read_file, is_certified=is_certified)
    return Target(address=address, token=token, tls=tls)


def stays_here(address: str) -> bool:
    """Whether every byte to this gRPC target stays on this machine: unix sockets and loopback.

    Forms as in grpc's document "gRPC Name Resolution". What is not plainly local is not.
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    hosts = re.sub(r"^(dns:///|dns:(?!/)|ipv4:|ipv6:)", "", address)
    return all(_is_loopback(host) for host in hosts.split(","))


def _is_loopback(host_and_port: str) -> bool:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]+)?", host_and_port)
    return match is not None and is_loopback(match[1] or match[2])


def _client_tls(flags: Flags, environ: Mapping[str, str], read_file: ReadFile) -> ClientTls | None:
    ca_file = flags.ca_file or environ.get("CREDENTIALD_ADMIN_CA", "")
    certificate_file = flags.certificate_file or environ.get("CREDENTIALD_ADMIN_CERT", "")
    key_file = flags.key_file or environ.get("CREDENTIALD_ADMIN_KEY", "")
    if bool(certificate_file) != bool(key_file):
        raise WrongUsage("a client certificate needs both --admin-cert and --admin-key")
    if not ca_file and not certificate_file:
        return None
    return ClientTls(
        ca=_read(ca_file, read_file) if ca_file else None,
        certificate=_read(certificate_file, read_file) if certificate_file else None,
        key=Secret(_read_text(key_file, read_file)) if key_file else None,
    )


def _admin_token(environ: Mapping[str, str], read_file: ReadFile, *, is_certified: bool) -> Secret | None:
    """The token to administer with; None where there is none and a certificate may do instead."""
    given = _token_of("CREDENTIALD_ADMIN_TOKEN", environ, read_file)
    if given is not None:
        return given
    beside = token_file_beside(environ.get("CREDENTIALD_DATABASE") or DEFAULT_DATABASE)
    if beside is None:
        if is_certified:
            return None
        raise WrongUsage("no token to administer with: set CREDENTIALD_ADMIN_TOKEN or CREDENTIALD_ADMIN_TOKEN_FILE")
    try:
        return _token(read_file(beside), str(beside))
    except OSError as error:
        if is_certified and isinstance(error, FileNotFoundError):
            return None
        raise WrongUsage(
            f"no token to administer with: {beside}: {error.strerror}",
            "set CREDENTIALD_ADMIN_TOKEN or CREDENTIALD_ADMIN_TOKEN_FILE, "
            "or name the database that it lies beside with CREDENTIALD_DATABASE",
        ) from None


def _own_token(environ: Mapping[str, str], read_file: ReadFile) -> Secret:
    given = _token_of("CREDENTIALD_TOKEN", environ, read_file)
    if given is None:
        raise WrongUsage("--mine needs your own token: set CREDENTIALD_TOKEN or CREDENTIALD_TOKEN_FILE")
    return given


def _token_of(variable: str, environ: Mapping[str, str], read_file: ReadFile) -> Secret | None:
    """The token of a variable or its _FILE twin; None where neither is set, empty counting as not set."""
    value, path = environ.get(variable), environ.get(f"{variable}_FILE")
    if value and path:
        raise WrongUsage(f"{variable} and {variable}_FILE are both set: use one of them")
    if path:
        return _token(_read(path, read_file), path)
    return _token(value.encode("utf-8", "surrogateescape"), variable) if value else None


def token_file_beside(database_url: str) -> Path | None:
    """Where an embedded database has the token of its administrator; None for other databases."""
    scheme, separator, path = database_url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        return None
    return Path(path).parent / ADMIN_TOKEN_FILE


def _token(raw: bytes, origin: str) -> Secret:
    """The token in `raw`; what cannot stand in gRPC metadata is refused without being shown."""
    text = raw.decode("ascii", "replace").strip()
    if re.fullmatch(r"[!-~]+", text) is None:
        raise WrongUsage(f"{origin} holds no token: a token is one line that starts with dbu_ or dbs_")
    return Secret(text)


def _read(path: str, read_file: ReadFile) -> bytes:
    try:
        return read_file(Path(path))
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}") from None


def _read_text(path: str, read_file: ReadFile) -> str:
    return _read(path, read_file).decode("ascii", "replace")
