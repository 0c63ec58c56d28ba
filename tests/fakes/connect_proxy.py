"""A forward proxy for tests: CONNECT tunnels and absolute-form requests, all of them to one upstream on loopback.

    async with running_proxy(upstream.port) as proxy:
        ...                                       # ask for https://api.test/ through proxy.url
        assert proxy.requests[0].startswith(b"CONNECT api.test:443 HTTP/1.1\\r\\n")

Whatever name it is asked for, it connects to `upstream_port`: so upstreams in tests may have names.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.tcp_server import tcp_server


class ConnectProxy:
    """What `running_proxy` yields. `answer` is what a CONNECT is told, in pieces; all but a 200 end the connection."""

    def __init__(self, upstream_port: int) -> None:
        self.answer: tuple[bytes, ...] = (b"HTTP/1.1 200 Connection established\r\n\r\n",)
        self.port = 0
        self.requests: list[bytes] = []
        self._upstream_port = upstream_port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        is_tunnel = head.startswith(b"CONNECT ")
        if is_tunnel:
            for piece in self.answer:
                writer.write(piece)
                # Long enough to be read before the next one.
                await asyncio.sleep(0.01)
            if b" 200 " not in self.answer[0]:
                return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        try:
            if not is_tunnel:
                there_writer.write(head)
            await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        finally:
            there_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def running_proxy(upstream_port: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[ConnectProxy]:
    """A proxy on a loopback port for the length of the block."""
    proxy = ConnectProxy(upstream_port)
    async with tcp_server(proxy.serve, tls=tls) as proxy.port:
        yield proxy
