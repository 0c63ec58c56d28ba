"""The upstream of scripts/bench that takes its time: `python bench_paced.py PORT FILE`, a stream of the events in FILE.

An event every ten milliseconds, each in a write of its own, as models write. Streams are spread evenly over these, in
the order in which they begin, so that of fifty nearly every event comes alone: how many come together decides what one
costs whoever reads them, and must not differ from run to run.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
import sys
from collections.abc import Iterator
from pathlib import Path

TICK_SECONDS = 0.0002
TICKS_AN_EVENT = 50
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


class Stream(asyncio.Protocol):
    """One connection: a request, its stream, the next request. Each stream is of the next crowd."""

    def __init__(self, events: list[bytes], crowds: Iterator[set[Stream]]) -> None:
        self._events = events
        self._crowds = crowds
        self._crowd: set[Stream] = set()
        self._received = b""
        self._next = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and self._transport is not None:
            lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if len(body) >= int(lengths[0] if lengths else 0):
                self._received = b""
                self._next = 0
                self._transport.write(_HEAD)
                self._crowd = next(self._crowds)
                self._crowd.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._crowd.discard(self)
        self._transport = None

    def write_next(self) -> None:
        """The next event, or the end behind the last one."""
        if self._transport is None:
            return
        self._transport.write(self._events[self._next])
        self._next += 1
        if self._next == len(self._events):
            self._transport.write(_END)
            self._crowd.discard(self)


async def serve(port: int, events: list[bytes]) -> None:
    """Until killed."""
    loop = asyncio.get_running_loop()
    crowds: list[set[Stream]] = [set() for _ in range(TICKS_AN_EVENT)]
    one_by_one = itertools.cycle(crowds)
    await loop.create_server(lambda: Stream(events, one_by_one), "127.0.0.1", port)
    due = loop.time()
    for crowd in itertools.cycle(crowds):
        for stream in list(crowd):
            stream.write_next()
        due = max(due + TICK_SECONDS, loop.time() - 1)
        await asyncio.sleep(due - loop.time())


if __name__ == "__main__":
    written = [event + b"\n\n" for event in Path(sys.argv[2]).read_bytes().split(b"\n\n") if event]
    chunks = [b"%x\r\n%b\r\n" % (len(one), one) for one in written]
    # asyncio waits for whole milliseconds with the selectors that it prefers.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(serve(int(sys.argv[1]), chunks))
