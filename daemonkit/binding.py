"""Binding a listening socket: an address that is taken is a sentence for the operator, also for unix sockets."""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import Callable
from contextlib import ExitStack

from daemonkit.listen import Address

# How many clients may wait to be accepted: a burst of them while the loop is busy. The kernel takes the smaller of this
# and its own bound (net.core.somaxconn, 4096).
BACKLOG = 1024
# How long a client may take to agree on TLS; asyncio would let a stranger hold a descriptor for a minute.
HANDSHAKE_SECONDS = 10.0


class AddressTaken(Exception):
    """A listener's address cannot be bound; the text says which, why, and by which setting it was asked for."""


async def bind(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    address: Address,
    *,
    setting_name: str,
    tls: ssl.SSLContext | None = None,
) -> tuple[asyncio.Server, Address]:
    """A listening server and its real address, or AddressTaken. Unix sockets take no TLS."""
    loop = asyncio.get_running_loop()
    try:
        if address.is_unix:
            remove_stale_socket(address.path)
            return await loop.create_unix_server(protocol_factory, address.path, backlog=BACKLOG), address
        # Without SO_REUSEPORT, so that a second daemon by accident is an error and not half of the clients.
        server = await loop.create_server(
            protocol_factory,
            address.host,
            address.port,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
            backlog=BACKLOG,
        )
    except OSError as error:
        raise _taken(address, setting_name, error) from error
    return server, address.with_port(server.sockets[0].getsockname()[1])


def bound_sockets(
    address: Address, *, setting_name: str, reuse_port: bool = False, backlog: int = 0
) -> tuple[tuple[socket.socket, ...], Address]:
    """Sockets bound to a TCP address and its real address; AddressTaken. A host name may have several.

    With a `backlog` they listen: from then on clients wait instead of being refused. With `reuse_port` other processes
    of this user may bind the address as well, but it is made sure that none does so far.
    """
    with ExitStack() as stack:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            sockets: list[socket.socket] = []
            for family, _, _, _, where in dict.fromkeys(found):
                port = sockets[0].getsockname()[1] if sockets else address.port
                if reuse_port:
                    with _bound(family, (where[0], port, *where[2:]), reuse_port=False) as probe:
                        port = probe.getsockname()[1]
                sockets.append(stack.enter_context(_bound(family, (where[0], port, *where[2:]), reuse_port=reuse_port)))
                if backlog:
                    sockets[-1].listen(backlog)
        except OSError as error:
            raise _taken(address, setting_name, error) from error
        stack.pop_all()
        return tuple(sockets), address.with_port(sockets[0].getsockname()[1])


def _bound(family: int, where: tuple[object, ...], *, reuse_port: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(where)
    except BaseException:
        one.close()
        raise
    return one


def _taken(address: Address, setting_name: str, error: OSError) -> AddressTaken:
    # The error's own text names the address again, in another notation.
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or "no such address"
    return AddressTaken(f"{setting_name}: cannot listen on {address}: {reason}")


def remove_stale_socket(path: str) -> None:
    """Remove a socket that nobody listens on any more; OSError if somebody does, or if it is no socket."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(17, "File exists")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
    raise OSError(98, "Address already in use")
