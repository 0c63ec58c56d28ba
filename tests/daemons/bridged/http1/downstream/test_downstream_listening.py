"""Listeners: bursts of clients while the loop is busy."""

import socket
from contextlib import ExitStack
from pathlib import Path

from bridged.http1.downstream import listening
from daemonkit.binding import bound_sockets
from daemonkit.listen import Address
from tests.support.http1_service import LOOPBACK, Scripted, http1_server, until

BURST = 500


def connect_all(stack: ExitStack, address: tuple[str, int] | str) -> None:
    """Nothing is accepted meanwhile: the loop does not run. One client too many would have to wait for a second."""
    for _ in range(BURST):
        client = stack.enter_context(socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET))
        client.settimeout(0.5)
        client.connect(address)


async def test_a_burst_of_clients_waits_for_a_loop_that_is_busy() -> None:
    async with http1_server(Scripted()) as running:
        with ExitStack() as stack:
            connect_all(stack, ("127.0.0.1", running.port))
            await until(lambda: running.server.connection_count == BURST)


async def test_a_burst_of_clients_waits_for_a_worker_that_is_busy() -> None:
    sockets, address = bound_sockets(LOOPBACK, setting_name="listen", backlog=1024)
    async with listening(Scripted(), (), shared=sockets) as server:
        with ExitStack() as stack:
            connect_all(stack, ("127.0.0.1", address.port))
            await until(lambda: server.connection_count == BURST)


async def test_a_burst_of_clients_waits_at_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "bridge.sock")
    async with http1_server(Scripted(), address=Address(path=path)) as running:
        with ExitStack() as stack:
            connect_all(stack, path)
            await until(lambda: running.server.connection_count == BURST)
