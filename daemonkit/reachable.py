"""What kind of place an IP address is, and which hosts of URLs are addresses. Decisions only.

For whoever must not be sent anywhere: an address is judged by what a packet to it reaches, so forms that carry an IPv4
address (mapped, 6to4, NAT64, Teredo) are judged by what they carry. Sources: IANA, "IPv4 Special-Purpose Address
Registry" and its IPv6 twin; RFC 6890, 4291, 3056, 4380, 6052; the clouds' pages on instance metadata.
"""

import ipaddress
from enum import Enum

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Place(Enum):
    """What an address is; the value is how a sentence calls it."""

    PUBLIC = "public"
    LOOPBACK = "this machine's own (loopback)"
    PRIVATE = "private"
    LINK_LOCAL = "link-local"
    METADATA = "a cloud's metadata service"
    UNSPECIFIED = "unspecified"
    MULTICAST = "multicast"
    BROADCAST = "broadcast"
    RESERVED = "reserved"


def _networks(*texts: str) -> tuple[IpNetwork, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# The first that has an address says what it is.
_PLACES: tuple[tuple[Place, tuple[IpNetwork, ...]], ...] = (
    (
        Place.METADATA,
        _networks(
            "169.254.169.254/32",  # most clouds
            "169.254.170.2/32",  # AWS: credentials of containers
            "169.254.170.23/32",
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure: the agent's; a public address otherwise
            "192.0.0.192/32",  # Oracle
            "fd00:ec2::/32",  # AWS, all that instances have at hand
            "fd20:ce::254/128",  # Google
            "fd00:c1::a9fe:a9fe/128",  # Oracle
            "fd00:42::42/128",  # Scaleway
        ),
    ),
    (Place.UNSPECIFIED, _networks("0.0.0.0/8", "::/128")),
    (Place.LOOPBACK, _networks("127.0.0.0/8", "::1/128")),
    (Place.LINK_LOCAL, _networks("169.254.0.0/16", "fe80::/10", "fec0::/10")),
    (Place.MULTICAST, _networks("224.0.0.0/4", "ff00::/8")),
    (Place.BROADCAST, _networks("255.255.255.255/32")),
    (
        Place.PRIVATE,
        # 198.18.0.0/15 is for benchmarks, and what some resolvers on a machine hand out for its own proxy.
        _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "fc00::/7"),
    ),
    (
        Place.RESERVED,
        _networks(
            "192.0.0.0/24", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "192.88.99.0/24", "240.0.0.0/4",
            "2001::/23", "2001:db8::/32", "3fff::/20",
        ),
    ),
)  # fmt: skip
PRIVATE_NETWORKS = next(networks for place, networks in _PLACES if place is Place.PRIVATE)

# What IANA has given out for unicast; all else of IPv6 that is not in the table is kept back.
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_TEREDO = ipaddress.IPv6Network("2001::/32")
# Names that mean a metadata service wherever they are known. Behind a proxy a name is all there is to judge.
_METADATA_NAMES = frozenset(
    {"metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal"}
)


def place_of(address: IpAddress) -> Place:
    """What kind of place this is. A zone (`%eth0`) changes nothing."""
    if isinstance(address, ipaddress.IPv4Address):
        return _listed(address) or Place.PUBLIC
    if address.ipv4_mapped is not None:
        # The same packets as for the IPv4 address.
        return place_of(address.ipv4_mapped)
    carried = _carried(address)
    if carried:
        places = [place_of(one) for one in carried]
        # Loopback of whoever unpacks it.
        others = [Place.RESERVED if place is Place.LOOPBACK else place for place in places]
        return max(others, key=_SEVERITY.__getitem__)
    return _listed(address) or (Place.PUBLIC if address in _UNICAST else Place.RESERVED)


_SEVERITY = {place: number for number, place in enumerate(Place)}


def _listed(address: IpAddress) -> Place | None:
    for place, networks in _PLACES:
        if any(address in network for network in networks):
            return place
    return None


def _carried(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that a packet to this one ends at: of a 6to4 router, a NAT64, a Teredo server and client."""
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address in _TEREDO:
        return address.teredo or ()
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


def literal_address(host: str) -> IpAddress | None:
    """The address that a host of a URL is, in any form that some resolver reads as one; None for a name.

    Beside the usual forms those of inet_aton(3): `2130706433`, `0x7f.1`, `0177.0.0.1`. A dot at the end changes
    nothing.
    """
    text = host.removeprefix("[").removesuffix("]").rstrip(".")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return _old_form(text)


def _old_form(text: str) -> ipaddress.IPv4Address | None:
    parts = text.split(".")
    numbers = [_number(part) for part in parts]
    if len(parts) > 4 or None in numbers:
        return None
    *firsts, last = [number for number in numbers if number is not None]
    if any(number > 0xFF for number in firsts) or last >= 1 << (8 * (4 - len(firsts))):
        return None
    value = last
    for place, number in enumerate(firsts):
        value |= number << (8 * (3 - place))
    return ipaddress.IPv4Address(value)


def _number(part: str) -> int | None:
    """A part in C's notation: decimal, 0 octal, 0x hexadecimal."""
    text = part.lower()
    base, digits = (16, text[2:]) if text.startswith("0x") else (8, text) if text.startswith("0") else (10, text)
    if not digits.isascii() or not digits.isalnum() or len(digits) > 16:
        return None
    try:
        return int(digits, base)
    except ValueError:
        return None


def is_metadata_name(host: str) -> bool:
    """Whether this name is that of a cloud's metadata service."""
    return host.lower().rstrip(".") in _METADATA_NAMES
