"""Where a request goes: scheme, host and port from the provider's base URL, and from nothing else.

The path is the adapter's, made of the base URL's path and of the client's as it was sent; it cannot change the host,
because host and path never stand in one string.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from bridged.model import Headers, Refused

# Visible ASCII without what starts a query or a fragment, and without what some parsers take for a slash.
_PLAIN = re.compile(r"(?:(?![?#\\])[!-~])+")
_AUTHORITY = re.compile(r"(?:\[(?P<ip>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z_.-]+))(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base URL taken apart. `host` is without brackets, `port` None for the scheme's own.

    `path` is empty or begins with a slash, and has none at its end.
    """

    scheme: str
    host: str
    port: int | None
    path: str


# Made for every request, and therefore neither frozen nor by keywords only: either would double what it costs.
@dataclass(slots=True)
class Address:
    """What an adapter decides. `target` is the raw path and query; `headers` are the credential's, never printed."""

    scheme: str
    host: str
    port: int | None
    target: str
    headers: Headers = field(repr=False)


@lru_cache(maxsize=1024)
def parse_base_url(base_url: str) -> Base:
    """The parts of an absolute http or https URL without userinfo, query or fragment.

    It was judged when it was saved; it is judged again here, because a credential goes there. UPSTREAM_UNREACHABLE for
    anything else, without the URL in the message.
    """
    try:
        base = _parse(base_url)
    except ValueError:
        base = None
    if base is None:
        raise Refused(
            "UPSTREAM_UNREACHABLE",
            "the provider's base URL is not one that the bridge can use: an administrator may correct it",
        )
    return base


def _parse(base_url: str) -> Base | None:
    if _PLAIN.fullmatch(base_url) is None:
        return None
    parts = urlsplit(base_url)
    authority = _AUTHORITY.fullmatch(parts.netloc)
    if parts.scheme not in ("http", "https") or authority is None or parts.port == 0:
        return None
    if authority["ip"] is not None:
        # urlsplit checks this by itself only from Python 3.11.4 on.
        ipaddress.IPv6Address(authority["ip"])
    return Base(
        scheme=parts.scheme,
        host=authority["ip"] or authority["name"],
        port=parts.port,
        path=parts.path.rstrip("/"),
    )
