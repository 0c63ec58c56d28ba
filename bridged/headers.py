"""Which headers pass, each way: two tables and a few sentences.

Everything that is not named here passes as it came, in its order: betas, versions, session ids, user agents, request
ids, rate limits, retry advice. What is named here is about one connection (RFC 9110, 7.6.1), about whose request it is,
or about whose host answers, and so ends at the bridge.
"""

import re
from enum import Enum
from urllib.parse import quote

from bridged.client_token import KEY_HEADERS, is_ours, may_be_ours
from bridged.model import HeaderNames, Headers, Refused, Resolution, header_values
from daemonkit.secret import Secret

HOP_BY_HOP = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# Where upstreams put their id of a request; the first that is there.
REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
MAX_ID_CHARACTERS = 256
_REQUEST_IDS = HeaderNames(*REQUEST_ID_HEADERS)

# Each dropped name is compared in lower case and with '_' as '-', as gateways behind us may fold them.
REQUEST_DROPPED = (
    HOP_BY_HOP
    | frozenset(KEY_HEADERS)
    | {
        # written again for the upstream
        "content-length",
        "host",
        # other ways in which services behind us take a key
        "ocp-apim-subscription-key",
        "x-amz-security-token",
        # the client and the bridge only
        "cookie",
        "cookie2",
        "expect",
        # who asked whom, which only the bridge could say
        "cf-connecting-ip",
        "client-ip",
        "forwarded",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
        "x-original-host",
        "x-real-ip",
        # another path or method than the one that was judged
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        # who is behind whom; where an upstream may know, they are written again (trace_headers.py)
        "baggage",
        "traceparent",
        "tracestate",
    }
)
REQUEST_DROPPED_PREFIXES = ("x-ai-bridge-actor", "x-coder-ai-governance-", "x-drawbridge-", "x-forwarded-")

RESPONSE_DROPPED = HOP_BY_HOP | {
    # would be kept, and sent, for the bridge's host, for all providers behind it
    "alt-svc",
    "clear-site-data",
    "nel",
    "public-key-pins",
    "report-to",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    # the bridge's own word
    "x-drawbridge-error",
    "x-interception-id",
}

# Content-Length too: an error event may have to follow what the upstream sent.
_NOT_OF_STREAMS = frozenset({"content-length", "x-accel-buffering"})

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN_IN_VALUE = re.compile(r"[^\t -~\x80-\xff]")


class Fate(Enum):
    """What becomes of a header with a certain name."""

    PASSES = 0
    DROPPED = 1
    # Dropped, and the names in its value as well.
    CONNECTION = 2
    # Asked for anew on intercepted routes.
    ENCODING = 3


class _Fates(dict[str, Fate]):
    """The fate of each name as it is written, remembered: the same few names come with every message.

    Bounded, also in length, because a client may make names up. A name that HTTP does not allow is not remembered, it
    raises KeyError.
    """

    _MOST = 4096
    _LONGEST = 64

    def __init__(self, dropped: frozenset[str], prefixes: tuple[str, ...]) -> None:
        super().__init__()
        self._dropped = dropped
        self._prefixes = prefixes

    def __missing__(self, name: str) -> Fate:
        if _TOKEN.fullmatch(name) is None:
            raise KeyError(name)
        fate = self._of(_folded(name))
        if len(name) <= self._LONGEST:
            if len(self) >= self._MOST:
                self.clear()
            self[name] = fate
        return fate

    def _of(self, folded: str) -> Fate:
        if folded == "connection":
            return Fate.CONNECTION
        if folded in self._dropped or (self._prefixes and folded.startswith(self._prefixes)):
            return Fate.DROPPED
        return Fate.ENCODING if folded == "accept-encoding" else Fate.PASSES


def fate_of_request(name: str) -> Fate | None:
    """What becomes of a request's header; None for a name that HTTP does not allow."""
    try:
        return _REQUEST_FATES[name]
    except KeyError:
        return None


def fate_of_response(name: str) -> Fate | None:
    """What becomes of an answer's header; None for a name that HTTP does not allow."""
    try:
        return _RESPONSE_FATES[name]
    except KeyError:
        return None


def is_plain_connection(value: str) -> bool:
    """Whether a Connection header names no other header."""
    return value.lower() in _PLAIN_CONNECTION


_REQUEST_FATES = _Fates(REQUEST_DROPPED, REQUEST_DROPPED_PREFIXES)
_RESPONSE_FATES = _Fates(RESPONSE_DROPPED, ())
# What a Connection header says in nearly every message, and which names no header.
_PLAIN_CONNECTION = frozenset({"keep-alive", "close", ""})
# What an intercepted answer is asked for.
IDENTITY = ("Accept-Encoding", "identity")


def without_token(headers: Headers, token: Secret | None) -> Headers:
    """The headers without any that has the client's token in it, whatever it is called: Referer, a vendor's own."""
    if token is None:
        return headers
    value = token.reveal()
    # One search over all values tells nearly always that there is nothing to look for.
    rest = "\n".join([text for name, text in headers if fate_of_request(name) is not Fate.DROPPED])
    if not may_be_ours(rest, value):
        return headers
    return tuple(pair for pair in headers if not is_ours(pair[1], value))


def request_headers(client_headers: Headers, *, intercepted: bool, added: Headers = ()) -> Headers:
    """What goes upstream: the client's headers in the client's order, then `added` (credential, actor).

    Host and Content-Length are left to whoever frames the request. An intercepted answer is asked for uncompressed,
    so that taps can read it; elsewhere Accept-Encoding passes as sent, as the body does. INVALID_REQUEST for names
    and values that HTTP does not allow.
    """
    kept = _passing(client_headers, _REQUEST_FATES)
    if kept is None:
        raise Refused("INVALID_REQUEST", "a header of the request is not well-formed")
    if intercepted:
        fates = _REQUEST_FATES
        return (*[pair for pair in kept if fates[pair[0]] is not Fate.ENCODING], IDENTITY, *added)
    return (*kept, *added)


def actor_headers(resolution: Resolution) -> Headers:
    """Who asks, for upstreams that are to know; nothing unless the provider's record says so.

    The username is percent-encoded where it has characters that a header does not take.
    """
    if not resolution.send_actor_headers:
        return ()
    return (
        ("X-AI-Bridge-Actor-ID", resolution.user_id),
        ("X-AI-Bridge-Actor-Metadata-Username", quote(resolution.username, safe="@+")),
    )


def response_headers(upstream_headers: Headers, *, interception_id: str) -> Headers:
    """What goes to the client: the upstream's headers in its order, then ours.

    Content-Length stays, as the body passes as it is; but an event stream is left without, because an error event may
    have to follow what the upstream sent. Event streams are marked so that no proxy on the way holds them back.
    UPSTREAM_UNREACHABLE for names and values that HTTP does not allow.
    """
    kept = _passing(upstream_headers, _RESPONSE_FATES)
    if kept is None:
        raise Refused("UPSTREAM_UNREACHABLE", "the upstream's answer is not well-formed HTTP")
    added: Headers = (("X-Interception-Id", interception_id),)
    if not is_event_stream(upstream_headers):
        return (*kept, *added)
    added += (("X-Accel-Buffering", "no"),)
    if not header_values(upstream_headers, "cache-control"):
        added += (("Cache-Control", "no-cache"),)
    return (*[pair for pair in kept if _folded(pair[0]) not in _NOT_OF_STREAMS], *added)


def is_event_stream(headers: Headers) -> bool:
    """Whether a body is `text/event-stream` and can be read and continued as such: not if it is compressed."""
    kinds = header_values(headers, "content-type")
    if not any(value.partition(";")[0].strip().lower() == "text/event-stream" for value in kinds):
        return False
    return is_plain(headers)


def is_plain(headers: Headers) -> bool:
    """Whether a body is not compressed."""
    return all(value.lower() in ("", "identity") for value in header_values(headers, "content-encoding"))


def request_id_of(headers: Headers) -> str:
    """The upstream's own id of a request, as the headers of its answer have it; empty where they do not."""
    return next((value[:MAX_ID_CHARACTERS] for name, value in headers if value and _REQUEST_IDS[name]), "")


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")


def _passing(headers: Headers, fates: _Fates) -> list[tuple[str, str]] | None:
    """The headers that pass, in their order; None if a name or a value is none that HTTP allows."""
    if _FORBIDDEN_IN_VALUE.search("".join([value for _, value in headers])) is not None:
        return None
    try:
        judged = [(pair, fates[pair[0]]) for pair in headers]
    except KeyError:
        return None
    kept = [pair for pair, fate in judged if fate is Fate.PASSES or fate is Fate.ENCODING]
    named = [pair[1] for pair, fate in judged if fate is Fate.CONNECTION]
    if all(map(is_plain_connection, named)):
        return kept
    # Content-Length is not for Connection to name (RFC 9110, 7.6.1): without it the body would have no end.
    dropped = {_folded(name.strip()) for value in named for name in value.split(",")} - {"content-length"}
    return [pair for pair in kept if _folded(pair[0]) not in dropped]
