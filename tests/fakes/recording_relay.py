"""A TCP relay that keeps what the client sent, byte by byte, so that a test can compare it with what arrived."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.tcp_server import tcp_server


class RecordingRelay:
    """What `running_relay` yields. `sent` has one entry a connection."""

    def __init__(self) -> None:
        self.sent: list[bytearray] = []
        self.port = 0

    def has_sent(self, body: bytes) -> bool:
        """Whether a client sent exactly these bytes in one piece."""
        return any(body in stream for stream in self.sent)


@asynccontextmanager
async def running_relay(host: str, port: int) -> AsyncIterator[RecordingRelay]:
    """A relay on a loopback port to HOST:PORT for the length of the block."""
    relay = RecordingRelay()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = bytearray()
        relay.sent.append(kept)
        onward_reader, onward_writer = await asyncio.open_connection(host, port)
        try:
            await asyncio.gather(_copy(reader, onward_writer, kept), _copy(onward_reader, writer, None))
        finally:
            onward_writer.close()

    async with tcp_server(serve) as relay.port:
        yield relay


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray | None) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            if kept is not None:
                kept += data
            writer.write(data)
            await writer.drain()
    writer.close()
