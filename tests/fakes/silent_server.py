"""An upstream that nobody gets through to: connections to it stand, and wait for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.tcp_server import tcp_server


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """An address that takes connections and says nothing: nobody gets through a TLS handshake with it."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with tcp_server(say_nothing) as port:
        yield f"https://127.0.0.1:{port}"
