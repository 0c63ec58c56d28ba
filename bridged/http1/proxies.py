"""Which requests go through a proxy. Decisions only: the variables come as arguments, read once at start.

HTTPS_PROXY is for https upstreams and HTTP_PROXY for http ones. NO_PROXY is a list with commas: `*` for all, a name for
itself and everything below it (a leading dot changes nothing), an address, a network (`10.0.0.0/8`), each but the last
with a port if wanted. This machine itself is never asked for through a proxy, which would look at itself.
"""

import base64
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from daemonkit.secret import Secret

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One proxy. `scheme` is how to talk to it; `credential` is `user:password`, if its URL had one."""

    scheme: str
    host: str
    port: int
    credential: Secret | None = None

    def authorization_line(self) -> str:
        """The Proxy-Authorization header with its line end, or nothing."""
        if self.credential is None:
            return ""
        encoded = base64.b64encode(self.credential.reveal().encode()).decode("ascii")
        return f"Proxy-Authorization: Basic {encoded}\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """The proxies of this process."""

    https: Proxy | None = None
    http: Proxy | None = None
    exceptions: tuple[str, ...] = ()

    def for_upstream(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy on the way to an upstream, or None for the direct way."""
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or _is_this_machine(host):
            return None
        name = host.lower().rstrip(".")
        return None if any(_matches(one, name, port) for one in self.exceptions) else proxy


def parse_proxies(*, https_proxy: str = "", http_proxy: str = "", no_proxy: str = "") -> Proxies:
    """The proxies that three variables mean; empty ones mean none. ValueError never quotes a URL."""
    return Proxies(
        https=_parse_proxy("HTTPS_PROXY", https_proxy),
        http=_parse_proxy("HTTP_PROXY", http_proxy),
        exceptions=tuple(_parse_exceptions(no_proxy)),
    )


def _parse_proxy(variable: str, text: str) -> Proxy | None:
    text = text.strip()
    if not text:
        return None
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        host, port = url.hostname, url.port
    except ValueError:
        host = None
    if not host or url.scheme not in _DEFAULT_PORTS or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError(f"{variable} is not the URL of a proxy: write http://HOST:PORT or https://HOST:PORT")
    credential = None
    if url.username is not None:
        credential = Secret(f"{unquote(url.username)}:{unquote(url.password or '')}")
    return Proxy(
        scheme=url.scheme,
        host=host,
        port=_DEFAULT_PORTS[url.scheme] if port is None else port,
        credential=credential,
    )


def _parse_exceptions(text: str) -> Iterator[str]:
    for one in text.lower().split(","):
        stripped = one.strip().removeprefix("*.").removeprefix(".")
        if stripped:
            yield stripped


def _matches(exception: str, name: str, port: int) -> bool:
    if exception == "*":
        return True
    address = _address(name)
    if "/" in exception:
        return address is not None and _is_inside(address, exception)
    wanted, wanted_port = _split_port(exception)
    if wanted_port not in (None, port):
        return False
    if address is not None:
        return _address(wanted) == address
    return name == wanted or name.endswith(f".{wanted}")


def _split_port(exception: str) -> tuple[str, int | None]:
    if _address(exception) is not None:
        return exception, None
    host, colon, port = exception.rpartition(":")
    if colon and port.isascii() and port.isdigit():
        return host.removeprefix("[").removesuffix("]"), int(port)
    return exception.removeprefix("[").removesuffix("]"), None


def _is_inside(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_this_machine(host: str) -> bool:
    name = host.lower().rstrip(".")
    address = _address(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)
