"""Binding a listening socket: an address that is taken is a sentence for the operator, also for unix sockets."""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import Callable

from daemonkit.listen import Address


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
            return await loop.create_unix_server(protocol_factory, address.path), address
        # Without SO_REUSEPORT, so that a second daemon by accident is an error and not half of the clients.
        server = await loop.create_server(protocol_factory, address.host, address.port, ssl=tls)
    except OSError as error:
        # asyncio's own text names the address again, in another notation.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or "no such address"
        raise AddressTaken(f"{setting_name}: cannot listen on {address}: {reason}") from error
    return server, address.with_port(server.sockets[0].getsockname()[1])


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
