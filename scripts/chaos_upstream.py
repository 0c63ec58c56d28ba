"""The upstream of scripts/chaos that says anything: good answers at /far, the fuzzers' corpus at /garbage.

It keeps which requests reached it, by the mark that each has for a model, and what they carried.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stress_upstream import ANSWER, SHORT_STREAM

from tests.support.http1_answer_mutations import ANSWERS

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_KEY = re.compile(rb"(?i)\r\nauthorization: *Bearer ([^\r\n]*)")
_MARK = re.compile(rb'"model": ?"([^"]*)"')
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"
_STREAM = _HEAD % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n"
_HUGE_HEAD = b"HTTP/1.1 200 OK\r\n" + b"X-Filler: %b\r\n" % (b"x" * 8000) * 40
# What no framing is about: events and documents gone wrong, inside a good frame.
_EVENTS = [
    b"data: \xff\xfe\xfd\n\n",
    b"data: {\n\ndata: [[[[[[[[\n\n",
    b"event: error\ndata: {}\n\n",
    b": " + b"c" * 100_000 + b"\n\n",
    b"data: " + b"[" * 50_000 + b"\n\n",
    b'data: {"choices": 7, "usage": {"prompt_tokens": -1, "completion_tokens": 1e400}}\n\n',
    b'data: {"usage": {"prompt_tokens": 99999999999999999999999999}}\n\n',
    b"\r\r\n\n\0data:x",
]


class AnyUpstream:
    """`called` counts the calls of each mark; `keys` what each path was called with."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(f"{seed}:garbage")
        self.called: Counter[str] = Counter()
        self.keys: Counter[tuple[str, str]] = Counter()
        self.garbage = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                while await self._serve(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1])) if length else b""
        path = head.split(b" ", 2)[1].decode("latin-1").split("/")[1]
        mark, key = _MARK.search(body), _KEY.search(head)
        self.called[mark[1].decode() if mark else ""] += 1
        self.keys[path, key[1].decode("latin-1") if key else ""] += 1
        if path == "far":
            if b'"stream":true' in body or b'"stream": true' in body:
                writer.write(_STREAM + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SHORT_STREAM), SHORT_STREAM))
            else:
                writer.write(_HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))
            await writer.drain()
            return True
        self.garbage += 1
        return await self._say_anything(writer)

    async def _say_anything(self, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        dice = self._dice
        choice = dice.random()
        if choice < 0.6:
            data = dice.choice(ANSWERS)
        elif choice < 0.85:
            event = dice.choice(_EVENTS)
            data = _STREAM + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)
        elif choice < 0.9:
            data = _HUGE_HEAD
        else:
            data = dice.randbytes(dice.randrange(2000))
        cut = dice.randrange(len(data) + 1)
        writer.write(data[:cut])
        await writer.drain()
        await asyncio.sleep(dice.choice((0.0, 0.05)))
        writer.write(data[cut:])
        await writer.drain()
        # An answer that ends with its connection ends; others are followed by silence, or by the end of it.
        return dice.random() < 0.3

    def close(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()


@asynccontextmanager
async def running_any_upstream(seed: int) -> AsyncIterator[tuple[AnyUpstream, int]]:
    """It, and its port."""
    upstream = AnyUpstream(seed)
    server = await asyncio.start_server(upstream.connected, "127.0.0.1", 0, backlog=1024)
    try:
        yield upstream, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        upstream.close()
