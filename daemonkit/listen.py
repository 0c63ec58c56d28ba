"""Where a daemon listens: addresses as values, and the rule that plaintext stays on this machine."""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?")
_FORMS = "write HOST:PORT, [IPV6]:PORT or unix:PATH"
# sun_path is 108 bytes on Linux and 104 elsewhere, with the closing NUL; a longer path fails in bind().
_MAX_SOCKET_PATH_BYTES = 103


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A TCP address (`host` without brackets, and `port`) or the `path` of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        """Whether this is a unix socket."""
        return bool(self.path)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: loopback, or a unix socket."""
        return self.is_unix or is_loopback(self.host)

    def with_port(self, port: int) -> "Address":
        """The same with the port that the system gave for port 0."""
        return replace(self, port=port)

    def __str__(self) -> str:
        """As an operator writes it, and as gRPC takes it."""
        if self.is_unix:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether a host (a name or an IP address, without brackets) is surely this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def parse_address(text: str) -> Address:
    """One address; ValueError says what is wrong with it."""
    trimmed = text.strip()
    if trimmed.startswith("unix:"):
        return Address(path=_socket_path(trimmed.removeprefix("unix:")))
    host, colon, port = trimmed.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port: {_FORMS}")
    if not host or host == "*":
        raise ValueError(f"{text!r} has no host: write 0.0.0.0:PORT or [::]:PORT to listen everywhere")
    return Address(host=_host(host, text), port=_port(port, text))


def parse_addresses(text: str) -> tuple[Address, ...]:
    """One or several addresses with commas between them, none of them twice."""
    addresses = tuple(parse_address(part) for part in text.split(","))
    repeated = {str(a) for a in addresses if addresses.count(a) > 1 and (a.is_unix or a.port)}
    if repeated:
        raise ValueError(f"{', '.join(sorted(repeated))} is there twice")
    return addresses


def _socket_path(path: str) -> str:
    # gRPC also writes unix:///absolute; one form is kept, so that two spellings are one address.
    plain = "/" + path.lstrip("/") if path.startswith("//") else path
    if not plain:
        raise ValueError("unix: needs the path of a socket, for example unix:/run/drawbridge/credentiald.sock")
    if "\0" in plain or len(plain.encode("utf-8", "surrogateescape")) > _MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"the path of a unix socket may have at most {_MAX_SOCKET_PATH_BYTES} bytes: {plain[:40]!r}…")
    return plain


def _host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError(f"{text!r} has no IPv6 address between its brackets") from None
    if ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address goes in brackets, for example [::1]:7410")
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{text!r} has no host name or IP address: {_FORMS}")
    return host


def _port(port: str, text: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{text!r}: {port[:20]!r} is not a port number from 0 to 65535")
    return int(port)


def is_local_target(target: str) -> bool:
    """Whether a gRPC target (grpc.io, "gRPC Name Resolution") can only be on this machine.

    Understands `HOST:PORT`, `unix:…`, `unix-abstract:…`, `dns:[//AUTHORITY/]HOST:PORT`, `ipv4:…` and `ipv6:…`;
    anything else is not local.
    """
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme == "dns":
        return _is_local_endpoint(rest.rpartition("/")[2])
    if scheme in ("ipv4", "ipv6"):
        return all(_is_local_endpoint(endpoint) for endpoint in rest.split(","))
    return _is_local_endpoint(target)


def _is_local_endpoint(endpoint: str) -> bool:
    host, colon, _ = endpoint.rpartition(":")
    if endpoint.startswith("[") and "]" in endpoint:
        return is_loopback(endpoint[1 : endpoint.index("]")])
    return is_loopback(host if colon else endpoint)


def plaintext_errors(
    setting_name: str,
    addresses: Iterable[Address],
    *,
    tls: bool,
    insecure_plaintext: bool,
) -> list[str]:
    """An error for each address that other machines could reach without TLS, unless the operator wants just that."""
    if tls or insecure_plaintext:
        return []
    return [
        f"{setting_name}: {address} can be reached from other machines and has no TLS: "
        "set a certificate and key, listen on a loopback address or a unix socket, or give --insecure-plaintext"
        for address in addresses
        if not address.is_local
    ]


def shared_errors(listeners: Mapping[str, Sequence[Address]], *, workers: int) -> list[str]:
    """An error for each unix socket where several workers would have to share it."""
    return [
        f"{name}: {address} cannot be shared by workers: listen on HOST:PORT, or set workers to 1"
        for name, addresses in listeners.items()
        for address in addresses
        if workers > 1 and address.is_unix
    ]


def clash_errors(listeners: Mapping[str, Sequence[Address]]) -> list[str]:
    """An error for each address that two listeners want. Port 0 never clashes."""
    owner_of: dict[Address, str] = {}
    errors = []
    for name, addresses in listeners.items():
        for address in addresses:
            owner = owner_of.setdefault(address, name)
            if owner != name and (address.is_unix or address.port):
                errors.append(f"{name}: {address} is already the address of {owner}")
    return errors
