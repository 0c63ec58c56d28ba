"""An upstream that nobody gets through to: connections to it stand, and wait for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """An address that takes connections and says nothing: nobody gets through a TLS handshake with it."""
    connections = []
    server = await asyncio.start_server(lambda *both: connections.append(both), "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for _, writer in connections:
            writer.close()
        server.close()
