"""The proxy that scripts/chaos puts between the parts: every fault does what its name says, also while bytes go by."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.fault_proxy import Fault, FaultProxy, dribble, running_proxy
from tests.support.tcp_server import tcp_server

DEADLINE_SECONDS = 10.0
TEXT = bytes(range(256)) * 40


class Echo:
    """Says again what it hears, and keeps how it ended."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.ends: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
                await writer.drain()
            self.ends.append("end")
            writer.write(b"over")
            await writer.drain()
        except OSError:
            self.ends.append("reset")


@asynccontextmanager
async def through(proxy: FaultProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = proxy.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[FaultProxy, Echo]]:
    echo = Echo()
    async with tcp_server(echo.serve) as port, running_proxy(lambda: f"127.0.0.1:{port}") as proxy:
        yield proxy, echo


async def until(holds) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


async def test_without_a_fault_all_bytes_pass_both_ways_and_ends_pass_one_by_one():
    async with echoing() as (proxy, echo), through(proxy) as (reader, writer):
        writer.write(TEXT)
        writer.write_eof()
        assert await reader.read(-1) == TEXT + b"over"
        assert (bytes(echo.heard), echo.ends, proxy.accepted) == (TEXT, ["end"], 1)


async def test_a_delay_holds_each_byte_and_a_throttle_all_of_them():
    async with echoing() as (proxy, _), through(proxy) as (reader, writer):
        for fault in (Fault(delay_seconds=0.2), dribble(10, bytes_a_second=200)):
            proxy.down = fault
            began = time.monotonic()
            writer.write(TEXT[:50])
            assert await reader.readexactly(50) == TEXT[:50]
            assert time.monotonic() - began >= 0.19


async def test_a_silent_link_says_later_what_it_was_told_and_also_that_it_ended():
    async with echoing() as (proxy, echo), through(proxy) as (reader, writer):
        proxy.down = Fault(silent=True)
        writer.write(TEXT)
        writer.write_eof()
        await until(lambda: echo.ends)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        proxy.heal()
        assert await reader.read(-1) == TEXT + b"over"


async def test_one_byte_is_changed_and_no_other():
    async with echoing() as (proxy, echo), through(proxy) as (reader, writer):
        proxy.up = Fault(corrupt_at=300, piece_bytes=7)
        writer.write(TEXT)
        await reader.readexactly(len(TEXT))
        assert [place for place, (a, b) in enumerate(zip(echo.heard, TEXT, strict=True)) if a != b] == [300]


async def test_a_truncated_answer_ends_in_good_order_at_its_byte():
    async with echoing() as (proxy, echo), through(proxy) as (reader, writer):
        proxy.down = Fault(truncate_at=1000)
        writer.write(TEXT)
        assert await reader.read(-1) == TEXT[:1000]
        await until(lambda: echo.ends)
        assert proxy.ended_by_fault == 1


async def test_a_reset_reaches_both_sides():
    async with echoing() as (proxy, echo), through(proxy) as (reader, writer):
        proxy.down = Fault(reset_at=1000)
        writer.write(TEXT)
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        await until(lambda: echo.ends)
        assert echo.ends == ["reset"]


async def test_a_half_closed_direction_leaves_the_other_one_open():
    async with echoing() as (proxy, echo), through(proxy) as (reader, writer):
        proxy.up = Fault(half_close_at=1000)
        writer.write(TEXT)
        assert await reader.read(-1) == TEXT[:1000] + b"over"
        assert echo.ends == ["end"]


async def test_all_that_is_open_can_be_reset_and_connections_be_refused_and_taken_again():
    async with echoing() as (proxy, _):
        async with through(proxy) as (reader, writer):
            writer.write(b"x")
            await reader.readexactly(1)
            assert proxy.reset_all() == 1
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            async with through(proxy):
                pass
        proxy.heal()
        async with through(proxy) as (reader, writer):
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"


async def test_the_proxy_follows_a_server_that_moves_and_resets_where_there_is_none():
    echo = Echo()
    places = ["127.0.0.1:1"]
    async with tcp_server(echo.serve) as port, running_proxy(lambda: places[0]) as proxy:
        places.append(f"127.0.0.1:{port}")
        async with through(proxy) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        places.pop(0)
        async with through(proxy) as (reader, writer):
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
