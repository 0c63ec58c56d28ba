"""A request's head as it leaves for an upstream: values to bytes, and never the bytes of two requests."""

import re
from dataclasses import dataclass

from bridged.http1.response_framing import LINE_BYTES
from bridged.model import Headers

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[0-9A-Za-z._~!$&'()*+,;=%:-]+")
# Methods whose requests are expected to have content say so when there is none (RFC 9110, 8.6).
_SAYS_EMPTY = frozenset({"POST", "PUT", "PATCH"})


# Not frozen: one is made for every request, and freezing triples what that costs.
@dataclass(slots=True, kw_only=True)
class OutgoingRequest:
    """One request as it leaves us: destination, head, body.

    `host` is without brackets; `target` is the raw path with query. `headers` go out in their order and as they are;
    they lack Host, Content-Length and Transfer-Encoding, which are written here. A buffered `body` is whole and can be
    sent again; a `streamed` one is handed to the UpstreamCall, counted against `content_length` or, where that is None,
    in chunks.
    """

    method: str
    scheme: str
    host: str
    port: int | None
    target: str
    headers: Headers
    body: bytes | None = None
    streamed: bool = False
    content_length: int | None = None


def port_of(scheme: str, port: int | None) -> int:
    """The port to connect to. ValueError for a scheme that is not of HTTP."""
    if scheme not in _DEFAULT_PORTS:
        raise ValueError("the upstream's scheme is neither http nor https")
    return _DEFAULT_PORTS[scheme] if port is None else port


def authority_of(host: str, port: int, *, default_port: int | None = None) -> str:
    """`host:port` with the brackets that IPv6 needs, without the port if it is the default one.

    ValueError for a host with characters that hosts do not have; names outside ASCII come in their IDNA form.
    """
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if _HOST.fullmatch(host) is None:
        raise ValueError("the upstream's host name is not well-formed")
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == default_port else f"{bracketed}:{port}"


def host_line(scheme: str, host: str, port: int) -> str:
    """The Host header with its line end."""
    return f"Host: {authority_of(host, port, default_port=_DEFAULT_PORTS[scheme])}\r\n"


def request_head(request: OutgoingRequest, host_line: str, *, target_prefix: str = "", proxy_line: str = "") -> bytes:
    """The head with its empty line. ValueError if anything in it would change where a line ends.

    `target_prefix` makes the target absolute, for a proxy; `proxy_line` is its credential. Both lines end with CR LF.
    """
    method, target = request.method, request.target
    if not target.startswith("/") or " " in target or " " in method or not method:
        raise ValueError("the request line is not well-formed")
    framing_line = _framing_line(request)
    lines = [f"{method} {target_prefix}{target} HTTP/1.1\r\n{host_line}"]
    lines += [f"{name}: {value}\r\n" for name, value in request.headers]
    lines += (proxy_line, framing_line, "\r\n")
    try:
        head = "".join(lines).encode("latin-1")
    except UnicodeEncodeError:
        # The original error would carry the whole head along.
        raise ValueError("the request's head has characters that are not of HTTP") from None
    # Every byte that is not text must be one of the line ends written here.
    line_count = 3 + len(request.headers) + bool(proxy_line) + bool(framing_line)
    if len(head.translate(None, LINE_BYTES)) != 2 * line_count:
        raise ValueError("the request's head has control characters")
    return head


def _framing_line(request: OutgoingRequest) -> str:
    if request.streamed:
        length = request.content_length
        return "Transfer-Encoding: chunked\r\n" if length is None else f"Content-Length: {length}\r\n"
    if request.body is not None:
        return f"Content-Length: {len(request.body)}\r\n"
    return "Content-Length: 0\r\n" if request.method in _SAYS_EMPTY else ""
