"""Which addresses a request may be sent to, and which upstreams may be asked over plain http. Decisions only.

Public addresses always; this machine and private networks by settings; nothing else ever (daemonkit/reachable.py).
What is judged is the address that is dialled, after its name was looked up, so a name that means another address from
one moment to the next gains nothing. Behind a proxy the name is the proxy's to look up, and only a host that is an
address can be judged.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from daemonkit.reachable import (
    PRIVATE_NETWORKS,
    IpAddress,
    IpNetwork,
    Place,
    is_metadata_name,
    literal_address,
    place_of,
)

NONE, PRIVATE = "none", "private"

# As credentiald has them.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PLAIN = (
    "it would be asked over plain http: an administrator may give the provider an https base URL, "
    "or the operator names the provider in --plaintext-upstreams"
)
_IS_PRIVATE = "its address is private: the operator may allow its network with --allow-upstream-networks"
_IS_LOOPBACK = "its address is this machine's own: the operator may allow that with --allow-upstream-loopback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """Where this bridge goes. `networks` are private ones that it may reach; `loopback`: whether this machine too."""

    networks: tuple[IpNetwork, ...] = ()
    loopback: bool = True

    def problem(self, address: IpAddress, *, is_plain: bool) -> str | None:
        """Why this address is not dialled, for whoever can change it; None where it is.

        `is_plain`: over http, for a provider that was not named for that. To this machine anybody may.
        """
        place = place_of(address)
        if place is Place.LOOPBACK:
            return None if self.loopback else _IS_LOOPBACK
        if place is Place.PRIVATE:
            if not self._is_allowed(address):
                return _IS_PRIVATE
        elif place is not Place.PUBLIC:
            return _never(place)
        return _PLAIN if is_plain else None

    def problem_behind_proxy(self, host: str, *, is_plain: bool) -> str | None:
        """The same for a host that a proxy is asked to reach. This machine would be the proxy's own there."""
        if is_metadata_name(host):
            return _never(Place.METADATA)
        address = literal_address(host)
        if address is None:
            return _PLAIN if is_plain else None
        if place_of(address) is Place.LOOPBACK:
            return "its address would be the proxy's own machine (loopback)"
        return self.problem(address, is_plain=is_plain)

    def _is_allowed(self, address: IpAddress) -> bool:
        """Whether a private address is in one of the networks; one that is mapped counts as the IPv4 address it is."""
        inner = getattr(address, "ipv4_mapped", None) or address
        return any(inner in network for network in self.networks)


def judged(egress: Egress, addresses: Iterable[str], *, is_plain: bool) -> tuple[list[str], str]:
    """Those that may be dialled, in their order, as they are to be dialled; and why not, of the last that may not."""
    allowed, problem = [], ""
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            problem = "its name stands for something that is no address"
            continue
        found = egress.problem(address, is_plain=is_plain)
        if found is None:
            allowed.append(str(address))
        else:
            problem = found
    return allowed, problem


def _never(place: Place) -> str:
    return f"its address is {place.value}: no provider may be there"


def parse_networks(text: str) -> tuple[IpNetwork, ...]:
    """`none`, `private` (all of them), or private networks with commas between them; ValueError says what is wrong."""
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if not words or words == [NONE]:
        return ()
    if PRIVATE in words:
        if len(words) > 1:
            raise ValueError(f"{text!r}: private stands alone, because it is all of them")
        return PRIVATE_NETWORKS
    return tuple(_parse_network(word) for word in words)


def _parse_network(word: str) -> IpNetwork:
    try:
        network = ipaddress.ip_network(word)
    except ValueError as error:
        raise ValueError(
            f"{word!r} is not a network ({error}): write for example 10.0.0.0/8, private or none"
        ) from None
    if not any(network.version == one.version and network.subnet_of(one) for one in PRIVATE_NETWORKS):  # type: ignore[arg-type]
        within = ", ".join(str(one) for one in PRIVATE_NETWORKS)
        raise ValueError(
            f"{word!r} is not within a private network ({within}): "
            "public addresses need no setting, others are never allowed"
        )
    return network


def parse_plaintext_upstreams(text: str) -> frozenset[str]:
    """`none`, or names of providers with commas between them."""
    names = [one.strip() for one in text.split(",") if one.strip()]
    if names == [NONE]:
        return frozenset()
    if not names or NONE in names:
        raise ValueError(f"{text!r} is neither none nor names of providers with commas between them")
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name of a provider: small letters and digits, with single hyphens between them"
            )
    return frozenset(names)
