"""TLS of the listeners: which files, what is wrong with them, and what servers need from them.

A listener without files of its own uses the main one's. Unix sockets never use TLS: the file system guards them.
"""

import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemonkit.listen import Address, clash_errors, plaintext_errors

# Written in place of a file, for a listener that shall not use the main one's.
NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: certificate chain, private key, and the authorities of client certificates (empty: not asked for)."""

    cert: str
    key: str
    client_ca: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsBytes:
    """The content of TlsFiles, as gRPC takes it. The key is never printed."""

    cert: bytes
    key: bytes
    client_ca: bytes | None

    def __repr__(self) -> str:
        return "TlsBytes(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listener as it was configured. `name` and `tls_name` are its settings; `main` is the main one's TLS."""

    name: str
    addresses: tuple[Address, ...]
    tls_name: str
    cert: str
    key: str
    client_ca: str
    main: TlsFiles | None = None

    @property
    def tls(self) -> TlsFiles | None:
        """The files that apply here, or None for plaintext."""
        inherited_ca = self.main.client_ca if self.main else ""
        client_ca = "" if self.client_ca == NONE else self.client_ca or inherited_ca
        if NONE in (self.cert, self.key):
            return None
        if self.cert and self.key:
            return TlsFiles(cert=self.cert, key=self.key, client_ca=client_ca)
        if self.main:
            return TlsFiles(cert=self.main.cert, key=self.main.key, client_ca=client_ca)
        return None

    def errors(self) -> Iterator[str]:
        """What is wrong with the three settings taken together."""
        given = [bool(self.cert) and self.cert != NONE, bool(self.key) and self.key != NONE]
        if given[0] != given[1]:
            missing = "key" if given[0] else "cert"
            yield f"{self.tls_name}_{missing} is missing: a certificate and its key are given together"
        elif self.client_ca not in ("", NONE) and self.tls is None:
            yield f"{self.tls_name}_client_ca needs {self.tls_name}_cert and {self.tls_name}_key"


def listener_errors(
    listeners: Sequence[Listener],
    *,
    insecure_plaintext: bool,
    check_files: Callable[[TlsFiles], str | None] | None,
) -> list[str]:
    """All that is wrong with the listeners. `check_files` opens TLS files and says what is wrong with them."""
    errors = clash_errors({one.name: one.addresses for one in listeners})
    checked: dict[TlsFiles, str] = {}
    for one in listeners:
        own = list(one.errors())
        errors += own or plaintext_errors(
            one.name, one.addresses, tls=one.tls is not None, insecure_plaintext=insecure_plaintext
        )
        if one.tls is not None and check_files is not None:
            checked.setdefault(one.tls, one.tls_name)
    for files, name in checked.items():
        problem = check_files(files) if check_files is not None else None
        if problem is not None:
            errors.append(f"{name}: {problem}")
    return errors


def tls_problem(files: TlsFiles) -> str | None:
    """What is wrong with the files themselves, by opening them; None if a server could use them."""
    try:
        server_context(files)
    except ValueError as error:
        return str(error)
    return None


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context for an HTTP server, TLS 1.2 or newer; ValueError says which file is wrong and how."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    read_pem(files)
    _load_chain(context, files.cert, files.key)
    if files.client_ca:
        try:
            context.load_verify_locations(cafile=files.client_ca)
        except ssl.SSLError as error:
            raise ValueError(f"{files.client_ca!r} holds no certificate: {error.reason or 'no valid PEM'}") from None
        except OSError as error:
            raise ValueError(f"cannot read {files.client_ca!r}: {error.strerror or type(error).__name__}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(*, ca: str, cert: str, key: str) -> ssl.SSLContext:
    """A context for a client that shows a certificate, if `cert` names one; ValueError as for `server_context`.

    gRPC reads the files for itself: this is to know whether it can.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    read_bytes(ca)
    try:
        context.load_verify_locations(cafile=ca)
    except ssl.SSLError as error:
        raise ValueError(f"{ca!r} holds no certificate: {error.reason or 'no valid PEM'}") from None
    if cert:
        _load_chain(context, cert, key)
    return context


def _load_chain(context: ssl.SSLContext, cert: str, key: str) -> None:
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        reason = error.reason or "no valid PEM"
        raise ValueError(f"{cert!r} and {key!r} are not a certificate and its key: {reason}") from None
    except OSError as error:
        raise ValueError(f"cannot read {cert!r} or {key!r}: {error.strerror or type(error).__name__}") from None


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal and a daemon would wait there for ever.
    raise ValueError("the private key is encrypted: give a key without a pass phrase, guarded by its file mode")


def read_pem(files: TlsFiles) -> TlsBytes:
    """The bytes of the files; ValueError names a file that cannot be read."""
    return TlsBytes(
        cert=read_bytes(files.cert),
        key=read_bytes(files.key),
        client_ca=read_bytes(files.client_ca) if files.client_ca else None,
    )


def read_bytes(path: str) -> bytes:
    """The bytes of one file; ValueError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path!r}: {error.strerror or type(error).__name__}") from None


def listener_of(settings: object, name: str) -> Listener:
    """The listener of a settings table: `admin_listen` goes with `admin_tls_cert`, `admin_tls_key` and so on."""
    tls_name = name.removesuffix("listen") + "tls"
    return Listener(
        name=name,
        addresses=getattr(settings, name),
        tls_name=tls_name,
        cert=getattr(settings, f"{tls_name}_cert"),
        key=getattr(settings, f"{tls_name}_key"),
        client_ca=getattr(settings, f"{tls_name}_client_ca"),
        main=None if name == "listen" else listener_of(settings, "listen").tls,
    )
