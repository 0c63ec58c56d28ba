"""The request target, as it was sent: which provider instance, and what is asked of it.

Nothing is decoded or normalised on its way through; decoding happens only to look for what must not be forwarded.
A path that different servers would read differently is refused rather than repaired.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from bridged.model import Refused

PREFIX = "/api/v2/aibridge/"
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
# As long as credentiald lets a name be.
MAX_NAME = 128
RESERVED_NAMES = frozenset({"api", "healthz", "readyz", "metrics", "v1", "v1beta"})

# Clients encode an id twice at most; the bound keeps a target of nothing but %2525… from costing a pass a level.
_MAX_DECODINGS = 4

_VISIBLE_ASCII = re.compile(r"[!-~]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`provider` is the instance name, `path` what follows it (empty, or from its `/` on), `query` see query.py."""

    provider: str
    path: str
    query: str

    @property
    def is_instance_root(self) -> bool:
        """Whether the target is the instance itself, with or without a slash at the end."""
        return self.path in ("", "/")


def split_target(raw_target: str) -> Target:
    """The parts of a request target of the form `/api/v2/aibridge/<NAME>/…` or `/<NAME>/…`.

    INVALID_PATH for what is not in origin-form (RFC 9112, 3.2.1) or could be read in two ways: dot segments however
    encoded, control characters, backslashes, bad escapes, fragments, bytes outside ASCII. ROUTE_NOT_FOUND for a
    name that no provider can have, and for empty segments.
    """
    _check_characters(raw_target)
    raw_path, mark, rest = raw_target.partition("?")
    _check_path(raw_path)
    if "//" in raw_path:
        raise Refused("ROUTE_NOT_FOUND", "the path has an empty segment ('//'): check the base URL of the client")
    provider, path = _split_instance(raw_path)
    if len(provider) > MAX_NAME or NAME.fullmatch(provider) is None or provider in RESERVED_NAMES:
        raise Refused(
            "ROUTE_NOT_FOUND",
            "the path names no provider: the base URL of the client should end in /<NAME> or /api/v2/aibridge/<NAME>",
        )
    return Target(provider=provider, path=path, query=mark + rest)


def roughly(raw_target: str) -> tuple[str, str]:
    """Path within the instance and query of any target, unchecked: only to choose the shape of an error."""
    raw_path, mark, rest = raw_target.partition("?")
    return _split_instance(raw_path)[1], mark + rest


def _split_instance(raw_path: str) -> tuple[str, str]:
    below = raw_path.removeprefix(PREFIX) if raw_path.startswith(PREFIX) else raw_path[1:]
    name, slash, rest = below.partition("/")
    return name, slash + rest


def _invalid(problem: str) -> Refused:
    return Refused("INVALID_PATH", f"the path is not forwarded: {problem}")


def _check_characters(raw_target: str) -> None:
    if not raw_target.startswith("/"):
        raise _invalid("the request target must begin with '/'")
    if _VISIBLE_ASCII.fullmatch(raw_target) is None:
        raise _invalid("it has spaces, control characters or bytes outside ASCII; percent-encode them")
    if "#" in raw_target:
        raise _invalid("it has a fragment ('#')")


def _check_path(raw_path: str) -> None:
    if _BAD_ESCAPE.search(raw_path):
        raise _invalid("a '%' is not followed by two hexadecimal digits")
    # Every level that an upstream, or a proxy before it, might decode is looked at.
    text = raw_path
    for _ in range(_MAX_DECODINGS):
        _check_decoded(text)
        decoded = _decoded(text)
        if decoded == text:
            return
        text = decoded
    raise _invalid("it is percent-encoded too often")


def _check_decoded(text: str) -> None:
    if "\\" in text:
        raise _invalid("it has a backslash")
    if _CONTROL.search(text):
        raise _invalid("it has control characters")
    for segment in text.split("/"):
        # Some servers cut parameters (`..;x`, RFC 3986, 3.3) or spaces before they look for dot segments.
        if segment.partition(";")[0].strip() in (".", ".."):
            raise _invalid("it has a '.' or '..' segment")


def _decoded(text: str) -> str:
    # A '%' that an earlier level brought to light may stand for itself ("100%25" is "100%"): it is left alone.
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        # Overlong forms of '.' and '/' hide in such bytes.
        raise _invalid("its percent-encoded bytes are not UTF-8") from None
