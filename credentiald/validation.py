"""Which names, URLs and regions are allowed. Each function answers what is wrong, or None.

The same checks hold for what comes from the environment and for what an administrator saves. A base URL and a region
decide where a credential goes, so anything that two URL parsers could read differently is refused.
"""

import ipaddress
import re
from urllib.parse import urlsplit
from uuid import UUID

from daemonkit.reachable import Place, is_metadata_name, literal_address, place_of

# First path segments that mean something else on the bridge.
RESERVED_NAMES = frozenset({"api", "healthz", "readyz", "metrics", "v1", "v1beta"})

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*")
# urlsplit reads more into this part than it should (text after a bracket, a sign in the port), so its form is ours.
_AUTHORITY = re.compile(
    r"(\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?)(:(?P<port>[0-9]{1,5}))?"
)
_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ROLE_ARN = re.compile(r"arn:aws[a-z0-9-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,512}")

_MAX_NAME = 128
_MAX_MODEL = 256
_MAX_URL = 2048
_MAX_REGION = 63


def name_problem(name: str) -> str | None:
    """What is wrong with a provider's name; it is a segment of clients' URLs."""
    if len(name) > _MAX_NAME:
        return f"is longer than {_MAX_NAME} characters"
    if not _NAME.fullmatch(name):
        return "must be lower-case letters and digits, in groups with single hyphens between them"
    if name in RESERVED_NAMES:
        return f"is reserved, as are {', '.join(sorted(RESERVED_NAMES - {name}))}"
    return None


def username_problem(username: str) -> str | None:
    """What is wrong with a username. One of UUID form is refused, because commands take a name or an id."""
    if not username or len(username) > _MAX_NAME:
        return f"must have 1 to {_MAX_NAME} characters"
    if not _USERNAME.fullmatch(username):
        return "must be letters, digits and . _ @ + - and must not begin with . @ + -"
    try:
        UUID(username)
    except ValueError:
        return None
    return "must not have the form of a UUID"


def model_name_problem(name: str) -> str | None:
    """What is wrong with the name of a model; it is compared with what records have, which is cut at that length."""
    if not name or len(name) > _MAX_MODEL:
        return f"must have 1 to {_MAX_MODEL} characters"
    if not name.isprintable() or name != name.strip():
        return "must be printable characters, without spaces around them"
    return None


def base_url_problem(url: str) -> str | None:
    """What is wrong with a provider's base URL: it must be absolute http(s) with a host, and perhaps a path."""
    if len(url) > _MAX_URL:
        return f"is longer than {_MAX_URL} characters"
    # urlsplit drops tabs and line breaks in silence, and browsers read a backslash as a slash.
    if not all("\x21" <= character <= "\x7e" for character in url) or "\\" in url:
        return "must be visible ASCII characters without spaces and backslashes (a host name in its xn-- form)"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is not a URL: its host cannot be read"
    if parts.scheme not in ("http", "https"):
        return "must be absolute and begin with https:// or http://"
    if "@" in parts.netloc:
        return "must not hold a user name or password"
    if "?" in url or "#" in url:
        return "must not have a query or a fragment"
    if not _is_authority(parts.netloc):
        return "has no valid host and port"
    if {".", ".."} & set(parts.path.lower().replace("%2e", ".").split("/")):
        return "must not have . or .. segments in its path"
    return None


# What a bridge can be set to reach, or reaches anyway.
_REACHABLE = frozenset({Place.PUBLIC, Place.LOOPBACK, Place.PRIVATE})


def destination_problem(url: str) -> str | None:
    """Why no bridge ever sends a request to this base URL: its host is, or surely means, an address where none may go.

    What a name stands for is judged by the bridge, each time that it connects.
    """
    host = urlsplit(url).hostname or ""
    address = literal_address(host)
    place = Place.METADATA if is_metadata_name(host) else Place.PUBLIC if address is None else place_of(address)
    if place in _REACHABLE:
        return None
    return f"has a host that is {place.value}: no bridge sends anything there"


def destination_hints(name: str, url: str) -> list[str]:
    """What a bridge has to be set to, as far as the URL tells, before it reaches this base URL of a provider."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    address = literal_address(host)
    place = None if address is None else place_of(address)
    hints = []
    if place is Place.PRIVATE:
        hints.append("bridges go to a private address only where --allow-upstream-networks has its network")
    is_local = place is Place.LOOPBACK or host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost")
    if parts.scheme == "http" and not is_local:
        hints.append(f"bridges ask over plain http only with --plaintext-upstreams {name}")
    return hints


def _is_authority(text: str) -> bool:
    found = _AUTHORITY.fullmatch(text)
    if found is None or not 1 <= int(found["port"] or 1) <= 65535:
        return False
    try:
        ipaddress.IPv6Address(found["ipv6"] or "::1")
    except ValueError:
        return False
    return True


def region_problem(region: str) -> str | None:
    """What is wrong with an AWS region; it becomes a part of a host name."""
    if len(region) > _MAX_REGION or not _REGION.fullmatch(region):
        return "must be the name of an AWS region, for example us-west-2"
    return None


def role_arn_problem(arn: str) -> str | None:
    """What is wrong with the ARN of a role to assume (AWS, "IAM identifiers")."""
    if not _ROLE_ARN.fullmatch(arn):
        return "must be the ARN of a role, for example arn:aws:iam::123456789012:role/bedrock"
    return None
