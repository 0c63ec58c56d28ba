"""Listeners: bursts of clients while the loop is busy, and more clients than there may be."""

import socket
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

from bridged.http1.downstream import Limits, listening
from daemonkit.binding import bound_sockets
from daemonkit.listen import Address
from tests.support.http1_service import LOOPBACK, Scripted, closed_silently, http1_server, until
from tests.support.raw_http import raw_client, raw_exchange, request

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


async def test_a_client_too_many_is_told_503_and_served_when_another_has_left() -> None:
    async with http1_server(Scripted(), limits=Limits(connections=2, linger_seconds=0.2)) as running:
        async with raw_client(running.port) as first, raw_client(running.port) as second:
            await until(lambda: running.server.connection_count == 2)
            async with raw_client(running.port) as third:
                await third.send(request("POST", "/x", body=b"late"))
                answer = await third.read_answer()
                assert (answer.status, answer.header("x-refused"), answer.header("connection")) == (
                    503,
                    "CAPACITY",
                    "close",
                )
                assert await closed_silently(third)
            for client in (first, second):
                await client.send(request("POST", "/x", body=b"fine"))
                assert (await client.read_answer()).body == b"fine"
        await until(lambda: running.server.connection_count < 2)
        assert (await raw_exchange(running.port, request("POST", "/x", body=b"fine"))).body == b"fine"


async def test_clients_that_do_not_leave_when_told_503_take_no_more_than_a_few_descriptors() -> None:
    async with (
        http1_server(Scripted(), limits=Limits(connections=1, told_connections=2)) as running,
        raw_client(running.port) as first,
        AsyncExitStack() as stack,
    ):
        await until(lambda: running.server.connection_count == 1)
        told = [await stack.enter_async_context(raw_client(running.port)) for _ in range(2)]
        assert [(await client.read_answer()).status for client in told] == [503, 503]
        for _ in range(3):
            beyond = await stack.enter_async_context(raw_client(running.port))
            with suppress(ConnectionError):
                assert await beyond.reader.read() == b""
        assert running.server.connection_count == 3
        await first.send(request("POST", "/x", body=b"fine"))
        assert (await first.read_answer()).body == b"fine"
