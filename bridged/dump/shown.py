"""What a dump shows of heads: names of headers always, their values where they are on a list and hold no secret.

The list is of what is known to be no credential, because nobody can list all that is one. The query of a URL likewise.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from bridged.dump.needles import MASK, Needles
from bridged.http1.fields import is_secret_name, may_hold_secret
from bridged.model import Headers

_HIDDEN = MASK.decode()
# A part of a value that is looked for by itself: a signature, the value of a cookie.
_SHORTEST_PART = 16
_SCHEMES = frozenset({"apikey", "basic", "bearer", "token"})
_PARTS = re.compile(r"[\s,;=]+")
_MOST_CHARACTERS = 16 * 1024
_PLAIN_NAME = re.compile(r"[0-9A-Za-z._\-\[\]%]{1,64}")

_HEADERS = frozenset({
    "accept", "accept-charset", "accept-encoding", "accept-language", "accept-ranges", "age", "allow", "alt-svc",
    "anthropic-beta", "anthropic-version", "cache-control", "cf-cache-status", "cf-ray", "connection",
    "content-disposition", "content-encoding", "content-language", "content-length", "content-type", "date", "etag",
    "expect", "expires", "host", "if-none-match", "keep-alive", "last-modified", "openai-beta",
    "openai-processing-ms", "openai-version", "origin", "pragma", "priority", "range", "request-id", "retry-after",
    "retry-after-ms", "server", "server-timing", "strict-transport-security", "te", "traceparent", "trailer",
    "transfer-encoding", "upgrade", "user-agent", "vary", "via", "x-amz-content-sha256", "x-amz-date",
    "x-amzn-errortype", "x-amzn-requestid", "x-app", "x-cloud-trace-context", "x-content-type-options",
    "x-envoy-upstream-service-time", "x-goog-api-client", "x-interception-id", "x-ms-region", "x-ms-request-id",
    "x-request-id", "x-should-retry",
})  # fmt: skip
_HEADER_BEGINNINGS = ("anthropic-ratelimit-", "x-amzn-bedrock-", "x-ratelimit-", "x-stainless-")
_PARAMETERS = frozenset({
    "after", "after_id", "alt", "api-version", "before", "before_id", "beta", "include", "include[]", "limit",
    "maxresults", "model", "order", "pagesize", "purpose", "stream",
})  # fmt: skip


def head_lines(headers: Headers, needles: Needles) -> list[str]:
    """Lines of headers, sorted by name; repeated ones stay in their order."""
    return needles.masked_lines([f"{name}: {_value(name, value)}" for name, value in sorted(headers, key=_name)])


def shown_target(target: str, needles: Needles) -> str:
    """A path with its query, or what stands in its place."""
    path, mark, query = target.partition("?")
    return needles.masked_text(path) + mark + "&".join(_parameter(part, needles) for part in query.split("&"))


def secrets_in(headers: Iterable[tuple[str, str]], target: str = "") -> Iterator[str]:
    """What of a head is not shown and may be a credential: to be masked wherever else it stands.

    By its name or its looks it may be short; anything else that is not shown is long enough to stand nowhere by chance.
    """
    for name, value in headers:
        if not _is_listed(name) or may_hold_secret("", value):
            yield from _secrets_of(name, value.strip())
    for part in target.partition("?")[2].split("&"):
        name, _, value = part.partition("=")
        if name.lower() not in _PARAMETERS or may_hold_secret("", value):
            yield from _secrets_of(name, value)
            yield from _secrets_of(name, unquote(value))


def _secrets_of(name: str, value: str) -> Iterator[str]:
    if is_secret_name(name) or may_hold_secret("", value):
        yield from _with_parts(value[:_MOST_CHARACTERS])
    elif len(value) >= _SHORTEST_PART:
        yield value[:_MOST_CHARACTERS]


def _with_parts(value: str) -> Iterator[str]:
    # `Bearer <token>` has one word that counts.
    scheme, _, rest = value.partition(" ")
    yield rest.strip() if scheme.lower() in _SCHEMES else value
    yield from (part for part in _PARTS.split(value) if len(part) >= _SHORTEST_PART)


def _name(field: tuple[str, str]) -> str:
    return field[0].lower()


def _is_listed(name: str) -> bool:
    lowered = name.lower()
    return lowered in _HEADERS or lowered.startswith(_HEADER_BEGINNINGS)


def _value(name: str, value: str) -> str:
    return value if _is_listed(name) and not may_hold_secret("", value) else _HIDDEN


def _parameter(part: str, needles: Needles) -> str:
    name, mark, value = part.partition("=")
    if not mark:
        return _HIDDEN if part and part.lower() not in _PARAMETERS else part
    if name.lower() in _PARAMETERS and not may_hold_secret("", value):
        return f"{name}={needles.masked_text(value)}"
    shown = needles.masked_text(name) if _PLAIN_NAME.fullmatch(name) else _HIDDEN
    return f"{shown}={_HIDDEN}"
