"""A request's head as it leaves for an upstream: values to bytes, and never the bytes of two requests."""

import re
from dataclasses import dataclass

from bridged.http1.fields import LINE_BYTES, field_lines
from bridged.model import Headers

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[0-9A-Za-z._~!$&'()*+,;=%:-]+")
# Methods whose requests are expected to have content say so when there is none (RFC 9110, 8.6).
_SAYS_EMPTY = frozenset({"POST", "PUT", "PATCH"})
# A query may hold a key, so lines with one are not remembered.
_REMEMBERED_STARTS = 1024
_LONGEST_START_BYTES = 256
_starts: dict[tuple[str, str, str], bytes] = {}


# Made for every request, and therefore neither frozen nor by keywords only: either would double what it costs.
@dataclass(slots=True)
class OutgoingRequest:
    """One request as it leaves us: destination, head, body.

    `host` is without brackets; `target` is the raw path with query. `lines` are header lines that are known to be such,
    each with its line end; `headers` follow them, in their order and as they are. Both lack Host, Content-Length and
    Transfer-Encoding, which are written here. A buffered `body` is whole and can be
    sent again; a `streamed` one is handed to the UpstreamCall, counted against `content_length` or, where that is None,
    in chunks.
    """

    method: str
    scheme: str
    host: str
    port: int | None
    target: str
    headers: Headers
    lines: bytes = b""
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


def host_line(scheme: str, host: str, port: int) -> bytes:
    """The Host header with its line end."""
    return f"Host: {authority_of(host, port, default_port=_DEFAULT_PORTS[scheme])}\r\n".encode("latin-1")


def request_head(
    request: OutgoingRequest, host_line: bytes, *, target_prefix: str = "", proxy_line: bytes = b""
) -> bytes:
    """The head with its empty line. ValueError if anything in it would change where a line ends.

    `target_prefix` makes the target absolute, for a proxy; `proxy_line` is its credential. Both lines end with CR LF.
    """
    method, target = request.method, request.target
    start = _starts.get((method, target_prefix, target)) or _start_line(method, target_prefix, target)
    return b"".join(
        (
            start,
            host_line,
            request.lines,
            field_lines(request.headers),
            proxy_line,
            _framing_line(request),
            b"\r\n",
        )
    )


def _start_line(method: str, target_prefix: str, target: str) -> bytes:
    if not target.startswith("/") or " " in target or " " in method or not method:
        raise ValueError("the request line is not well-formed")
    try:
        start = f"{method} {target_prefix}{target} HTTP/1.1\r\n".encode("latin-1")
    except UnicodeEncodeError:
        # The original error would carry the whole head along.
        raise ValueError("the request's head has characters that are not of HTTP") from None
    # Every byte that is not text must be one of the line ends written here.
    if len(start.translate(None, LINE_BYTES)) != 2:
        raise ValueError("the request's head has control characters")
    if len(start) <= _LONGEST_START_BYTES and "?" not in target:
        if len(_starts) >= _REMEMBERED_STARTS:
            _starts.clear()
        _starts[method, target_prefix, target] = start
    return start


def _framing_line(request: OutgoingRequest) -> bytes:
    if request.streamed:
        length = request.content_length
        return b"Transfer-Encoding: chunked\r\n" if length is None else b"Content-Length: %d\r\n" % length
    if request.body is not None:
        return b"Content-Length: %d\r\n" % len(request.body)
    return b"Content-Length: 0\r\n" if request.method in _SAYS_EMPTY else b""
