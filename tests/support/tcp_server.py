"""A TCP server for the length of a block that leaves nothing behind: what it leaves would be a later test's warning."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

# From a connection's being accepted to its callback it takes the loop two turns (asyncio/selector_events.py).
_TURNS = 4

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tcp_server(
    serve: Serve,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    listener: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
    limit_bytes: int = 65536,
) -> AsyncIterator[int]:
    """The port of a server that runs `serve` for each connection and closes it then.

    `serve` may end with what a peer that goes away, or the end of the block, raises in it. At the end of the block each
    connection is ended, also one that was accepted in the last moment.
    """
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            writer.close()

    # No coroutine: its task might never begin, and nobody would know of the connection.
    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.get_running_loop().create_task(served(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    where: dict[str, Any] = {"host": host, "port": port} if listener is None else {"sock": listener}
    server = await asyncio.start_server(connected, ssl=tls, limit=limit_bytes, **where)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for one in server.sockets:
            # Before it is closed: what a closed server has just accepted it drops without closing it.
            asyncio.get_running_loop().remove_reader(one)
        await _turns()
        server.close()
        for writer in writers:
            # TLS that was closed, perhaps twice, cannot be aborted any more (asyncio/sslproto.py of Python 3.11).
            if tls is None or not writer.is_closing():
                writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _turns()


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
