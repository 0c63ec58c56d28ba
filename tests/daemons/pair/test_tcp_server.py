"""The server that tests play peers with ends what was accepted in the last moment, too."""

import asyncio
import gc
import socket
import warnings

import pytest

from tests.support.tcp_server import tcp_server


@pytest.mark.parametrize("turns", range(8))
def test_whatever_was_accepted_when_the_block_ends_is_ended_with_it(turns):
    async def leave_after(turns: int) -> bytes:
        async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        # Without asyncio, so that it takes no turn of the loop to be there.
        with socket.socket() as client:
            async with tcp_server(read) as port:
                client.connect(("127.0.0.1", port))
                for _ in range(turns):
                    await asyncio.sleep(0)
            client.settimeout(5)
            try:
                return client.recv(1)
            except ConnectionResetError:
                return b""

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert asyncio.run(leave_after(turns)) == b""
        gc.collect()
    assert not told
