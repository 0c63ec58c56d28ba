"""G11: streams from a slow or silent client or upstream hold bounded memory, and time out as configured.

Proved on a pair that runs, with time-outs of a second: clients that send their bodies slowly or not at all, that read
nothing of what they are sent; upstreams that do not accept, do not read, do not begin, or stop in the middle. Each is
given up when its setting says and not before, in the way of its API; while dozens of them hang, the resident memory of
the bridge grows by less than what it may hold for each. Heads that come a byte at a time are the one thing with a time
that is no setting, so that is proved on the listener of a bridge in the test's own process.

Wider: tests/daemons/bridged/test_timeouts.py, tests/daemons/bridged/http1, scripts/stress (thousands at once).
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from bridged.http1.downstream import Limits
from tests.fakes.scripted_upstream import STALL, Exchange, running_upstream, silence, stream
from tests.support.bridge import until
from tests.support.http1_service import Scripted, http1_server
from tests.support.pair import Pair, running_pair
from tests.support.processes import Daemon
from tests.support.raw_http import RawClient, raw_client, raw_exchange, request
from tests.support.tcp_server import tcp_server

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

KEY = "sk-central-canary-11"
TIMEOUT_SECONDS = 1.0
# Times are looked at twice within a time-out at least; the rest is for a machine that is busy.
LATE_SECONDS = 5.0
CLIENTS = 40
# What may wait for one client: unsent_bytes and held_bytes of Limits, a chunk on its way, and what Python makes of it.
EACH_BYTES = 1024 * 1024
SIZE_BYTES = 8 * 1024 * 1024
MORSEL = b"data: " + b"x" * 32_000 + b"\n\n"
CHAT, EMBEDDINGS = "/openai/v1/chat/completions", "/openai/v1/embeddings"
BODY = b'{"model":"m","stream":true,"messages":[]}'


@asynccontextmanager
async def scene(folder: Path, base_url: str = "{upstream}/v1", **settings: str) -> AsyncIterator[Pair]:
    times = {"idle_timeout": "1s", "first_byte_timeout": "1s", "connect_timeout": "1s"} | settings
    flags = [part for name, value in times.items() for part in (f"--{name.replace('_', '-')}", value)]
    providers = {"openai": {"TYPE": "openai", "KEY": KEY, "BASE_URL": base_url}}
    async with running_pair(folder, providers, *flags) as pair:
        yield pair


def port_of(pair: Pair) -> int:
    return int(pair.bridged.addresses["http"].rpartition(":")[2])


def asked(pair: Pair, target: str = CHAT, body: bytes | None = BODY, **fields: str) -> bytes:
    headers = [
        ("Authorization", f"Bearer {pair.token}"),
        *((name.replace("_", "-"), one) for name, one in fields.items()),
    ]
    return request("POST", target, headers=headers, body=body)


def resident_bytes(daemon: Daemon) -> int:
    pages = Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def many(pair: Pair, count: int) -> AsyncIterator[list[RawClient]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(raw_client(port_of(pair), timeout_seconds=30)) for _ in range(count)]


@contextmanager
def in_time(at_least_seconds: float = TIMEOUT_SECONDS) -> Iterator[None]:
    """The block takes the time-out that is configured, not less, and not much more."""
    began = time.monotonic()
    yield
    took_seconds = time.monotonic() - began
    # They are looked at twice within a time-out.
    assert at_least_seconds * 0.5 <= took_seconds <= at_least_seconds + LATE_SECONDS, took_seconds


# -- clients ---------------------------------------------------------------------------------------------------------


async def test_clients_that_read_nothing_hold_little_and_are_left_in_time(tmp_path):
    async with scene(tmp_path) as pair:
        given_up = asyncio.Event()
        begun = 0

        async def pour(exchange: Exchange) -> None:
            nonlocal begun
            begun += 1
            exchange.send_head(200, [("Content-Type", "text/event-stream")], chunked=True)
            for _ in range(SIZE_BYTES // len(MORSEL)):
                exchange.send(MORSEL)
                await exchange.drain()
            await given_up.wait()

        pair.upstream.default = pour
        before = resident_bytes(pair.bridged)
        async with many(pair, CLIENTS) as clients:
            for client in clients:
                # Less of a window for the kernel to hide what is not read.
                client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.writer.transport.pause_reading()
                await client.send(asked(pair))
            await until(lambda: begun == CLIENTS)
            with in_time():
                most, end = 0, time.monotonic() + TIMEOUT_SECONDS + LATE_SECONDS
                while not all(one.closed.is_set() for one in pair.upstream.requests) and time.monotonic() < end + 1:
                    most = max(most, resident_bytes(pair.bridged))
                    await asyncio.sleep(0.05)
            given_up.set()
        assert most - before < CLIENTS * EACH_BYTES


async def test_bodies_that_stop_coming_are_refused_in_time_and_reserve_no_memory(tmp_path):
    async with scene(tmp_path) as pair:
        before = resident_bytes(pair.bridged)
        async with many(pair, CLIENTS) as clients:
            for number, client in enumerate(clients):
                target = (CHAT, EMBEDDINGS)[number % 2]
                await client.send(asked(pair, target, None, Content_Length=str(SIZE_BYTES)) + b'{"model":')
            with in_time():
                answers = await asyncio.gather(*(client.read_answer() for client in clients))
        assert {(answer.status, answer.error) for answer in answers} == {(408, "REQUEST_TIMEOUT")}
        assert resident_bytes(pair.bridged) - before < CLIENTS * EACH_BYTES
        assert not [one for one in pair.upstream.requests if one.body_complete]


async def test_a_body_that_only_trickles_is_refused_too(tmp_path):
    async with scene(tmp_path) as pair, raw_client(port_of(pair)) as client:
        await client.send(asked(pair, CHAT, None, Content_Length=str(SIZE_BYTES)))
        reading = asyncio.create_task(client.read_answer())
        with in_time():
            while not reading.done():
                await client.send(b" ")
                await asyncio.wait([reading], timeout=0.1)
        assert (await reading).error == "REQUEST_TIMEOUT"


async def test_heads_that_only_trickle_are_refused_in_time():
    limits = Limits(head_seconds=TIMEOUT_SECONDS, idle_seconds=TIMEOUT_SECONDS)
    async with http1_server(Scripted(), limits=limits) as server:

        async def drip() -> bytes:
            async with raw_client(server.port) as client:
                reading = asyncio.create_task(client.read_to_end())
                await client.send(b"GET /x HTTP/1.1\r\nHost: ")
                while not reading.done():
                    await client.send(b"x")
                    await asyncio.wait([reading], timeout=0.1)
                return await reading

        with in_time():
            answers = await asyncio.gather(*(drip() for _ in range(CLIENTS)))
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408"}
        with in_time():
            async with raw_client(server.port) as silent:
                assert await silent.read_to_end() == b""


# -- upstreams -------------------------------------------------------------------------------------------------------


async def test_an_upstream_that_does_not_begin_is_given_up_in_time(tmp_path):
    async with scene(tmp_path, idle_timeout="60s") as pair:
        pair.upstream.default = silence()
        with in_time():
            answers = await asyncio.gather(*(raw_exchange(port_of(pair), asked(pair)) for _ in range(CLIENTS)))
        assert {(answer.status, answer.error) for answer in answers} == {(504, "UPSTREAM_TIMEOUT")}
        # The connections went with them.
        await until(lambda: all(one.closed.is_set() for one in pair.upstream.requests))


async def test_an_upstream_that_stops_in_the_middle_ends_with_an_error_in_time(tmp_path):
    async with scene(tmp_path, first_byte_timeout="60s") as pair:
        pair.upstream.default = stream(b"data: 1\n\n", STALL)
        with in_time():
            answers = await asyncio.gather(*(raw_exchange(port_of(pair), asked(pair)) for _ in range(CLIENTS)))
        assert all(answer.complete and answer.body.startswith(b"data: 1\n\n") for answer in answers)
        assert all(b"answer stopped coming" in answer.body for answer in answers)


async def test_an_upstream_that_reads_nothing_holds_its_clients_back(tmp_path):
    async def read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        async with (
            tcp_server(read_nothing, listener=listener, limit_bytes=4096) as port,
            scene(tmp_path, f"http://127.0.0.1:{port}/v1") as pair,
            many(pair, CLIENTS) as clients,
        ):
            before, most = resident_bytes(pair.bridged), 0
            head = asked(pair, EMBEDDINGS, None, Content_Length=str(SIZE_BYTES))
            sending = [asyncio.create_task(client.send(head + b"x" * SIZE_BYTES)) for client in clients]
            answers = [asyncio.create_task(client.read_answer()) for client in clients]
            with in_time():
                while not all(one.done() for one in answers):
                    most = max(most, resident_bytes(pair.bridged))
                    await asyncio.sleep(0.05)
            for one in sending:
                one.cancel()
            assert {one.result().status for one in answers} <= {408, 504}
            assert most - before < CLIENTS * EACH_BYTES


async def test_an_upstream_that_does_not_accept_is_given_up_in_time(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        async with scene(tmp_path, f"http://127.0.0.1:{address[1]}/v1", first_byte_timeout="60s") as pair:
            with in_time():
                answer = await raw_exchange(port_of(pair), asked(pair))
        for one in waiting:
            one.close()
    assert (answer.status, answer.error) == (504, "UPSTREAM_TIMEOUT")


async def test_what_is_slow_within_its_time_is_whole(tmp_path):
    async with running_upstream() as _, scene(tmp_path) as pair:

        async def slowly(exchange: Exchange) -> None:
            await asyncio.sleep(TIMEOUT_SECONDS / 2)
            exchange.send_head(200, [("Content-Type", "text/event-stream")], chunked=True)
            for _ in range(4):
                exchange.send(b"data: 1\n\n")
                await asyncio.sleep(TIMEOUT_SECONDS / 2)
            exchange.end()

        pair.upstream.default = slowly
        answer = await raw_exchange(port_of(pair), asked(pair))
    assert (answer.status, answer.complete, answer.body) == (200, True, b"data: 1\n\n" * 4)
