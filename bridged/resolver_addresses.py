"""Which credentialds a target names: one, or with `dns:///NAME:PORT` every address that the name has."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

# gRPC naming (github.com/grpc/grpc/blob/master/doc/naming.md): an authority would name a DNS server, which is gRPC's
# own business.
_SPREAD = re.compile(r"dns:(?:///)?(?P<host>\[[^\[\]/]+\]|[^:/]+)(?::(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORT = 443

# Host and port to the numeric addresses behind them, as (address, port); OSError where there are none.
Lookup = Callable[[str, int], Awaitable[list[tuple[str, int]]]]


@dataclass(frozen=True, slots=True)
class Name:
    """A name whose addresses are all to be used."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """What stands in a URL."""
        return f"{self.host}:{self.port}"


def name_of(target: str) -> Name | None:
    """The name of a `dns:///` target; None for every other one, which gRPC understands as it is."""
    found = _SPREAD.fullmatch(target)
    return Name(found["host"].strip("[]"), int(found["port"] or _DEFAULT_PORT)) if found else None


def target_of(address: str, port: int) -> str:
    """The gRPC target of one numeric address."""
    return f"ipv6:[{address}]:{port}" if ":" in address else f"ipv4:{address}:{port}"


async def system_lookup(host: str, port: int) -> list[tuple[str, int]]:
    """What the system's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(str(sockaddr[0]), int(sockaddr[1])) for _, _, _, _, sockaddr in found]
