"""Request bodies on their way, slow readers on either side, and upstreams that answer before they have all of it."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl

import pytest
import trustme

from bridged.http1.pool import UpstreamPool, running_pool
from bridged.http1.request_head import OutgoingRequest
from bridged.http_types import UpstreamTimeout, UpstreamUnreachable
from tests.fakes.scripted_upstream import (
    STALL,
    Exchange,
    Script,
    ScriptedUpstream,
    reply,
    running_upstream,
    silence,
    stream,
)
from tests.support.tcp_server import tcp_server
from tests.support.upstream_answers import Answer, ask, begin, outgoing, post

MIB = 1024 * 1024
# The promise is about 400 MB; less shows the same where time is short.
LARGE_BYTES = int(os.environ.get("DRAWBRIDGE_TEST_LARGE_MIB", "64")) * MIB
LIMITS = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}


@pytest.mark.parametrize("size_bytes", [1, 65_536, 65_537, 3 * MIB])
async def test_a_buffered_body_arrives_whole(pool: UpstreamPool, upstream: ScriptedUpstream, size_bytes: int) -> None:
    body = os.urandom(size_bytes)
    for _ in range(2):
        assert (await ask(pool, post(upstream.port, body))).status == 200

    assert [request.body == body for request in upstream.requests] == [True, True]
    assert upstream.requests[0].header("content-length") == str(size_bytes)
    assert len(pool.connections) == 1


@pytest.mark.parametrize("length", [None, 11])
async def test_a_streamed_body_arrives_in_order_and_counted_or_in_chunks(
    pool: UpstreamPool, upstream: ScriptedUpstream, length: int | None
) -> None:
    for number in range(2):
        answer = begin(pool, outgoing(upstream.port, method="POST", streamed=True, content_length=length))
        # With no connection yet the client is asked to wait; what it sends all the same is not lost.
        assert answer.body_paused == ([True] if number == 0 else [False])
        answer.call.send_body(b"hello")
        answer.call.send_body(b"")
        await upstream.wait_for_request(number)
        answer.call.send_body(b" world")
        answer.call.end_body()
        await answer.over()
        assert answer.body_paused[-1] is False

    for request in upstream.requests:
        assert (request.body, request.chunked) == (b"hello world", length is None)
        assert request.header("content-length") == (None if length is None else "11")
    assert len(pool.connections) == 1


@pytest.mark.parametrize("length", [None, 11])
async def test_a_request_that_waits_is_taken_back_with_its_body_as_it_came_and_may_go_another_way(
    pool: UpstreamPool, upstream: ScriptedUpstream, length: int | None
) -> None:
    request = outgoing(upstream.port, method="POST", streamed=True, content_length=length)
    first = begin(pool, request)
    first.call.send_body(b"hello")
    first.call.send_body(b" world")
    first.call.end_body()
    assert first.call.is_waiting
    pieces = first.call.take_back()
    assert pieces == [b"hello", b" world"]
    assert not first.call.is_waiting

    second = begin(pool, request)
    for piece in pieces:
        second.call.send_body(piece)
    second.call.end_body()
    await second.over()
    assert not second.call.is_waiting
    assert not first.is_over
    assert [one.body for one in upstream.requests] == [b"hello world"]


async def test_a_streamed_body_may_be_empty(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    for length in (None, 0):
        answer = begin(pool, outgoing(upstream.port, method="POST", streamed=True, content_length=length))
        answer.call.end_body()
        await answer.over()

    assert [request.body for request in upstream.requests] == [b"", b""]


async def test_a_body_that_is_not_as_long_as_it_says_is_a_bug(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    answer = begin(pool, outgoing(upstream.port, method="POST", streamed=True, content_length=3))
    with pytest.raises(ValueError, match="more of a body"):
        answer.call.send_body(b"abcd")
    answer.call.cancel()
    answer = begin(pool, outgoing(upstream.port, method="POST", streamed=True, content_length=3))
    answer.call.send_body(b"ab")
    with pytest.raises(ValueError, match="less of a body"):
        answer.call.end_body()
    answer.call.cancel()

    assert upstream.requests == []


async def stalled_upstream() -> tuple[socket.socket, int]:
    """A listener whose connections are never read."""
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


async def test_an_upstream_that_reads_slowly_holds_the_body_back(pool: UpstreamPool) -> None:
    listener, port = await stalled_upstream()
    answer = begin(pool, outgoing(port, method="POST", streamed=True))
    await answer.until(lambda: answer.body_paused == [True, False])
    sent_bytes = 0
    while answer.body_paused[-1] is False:
        answer.call.send_body(bytes(65536))
        sent_bytes += 65536
        await asyncio.sleep(0)
        assert sent_bytes < 32 * MIB
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    taken, _ = await loop.sock_accept(listener)
    received_bytes = 0
    while answer.body_paused[-1] is True:
        received_bytes += len(await loop.sock_recv(taken, 65536))

    assert received_bytes > 0
    answer.call.cancel()
    taken.close()
    listener.close()


async def test_a_streamed_body_that_an_upstream_does_not_read_times_out() -> None:
    listener, port = await stalled_upstream()
    async with running_pool(connect_timeout_seconds=5, first_byte_timeout_seconds=0.2, idle_timeout_seconds=9) as pool:
        answer = begin(pool, outgoing(port, method="POST", streamed=True))
        await answer.until(lambda: answer.body_paused == [True, False])
        while answer.body_paused[-1] is False:
            answer.call.send_body(bytes(65536))
            await asyncio.sleep(0)
        await answer.over()

    assert isinstance(answer.error, UpstreamTimeout)
    listener.close()


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def flood(exchange: Exchange) -> None:
    """A large answer, as fast as it is read."""
    exchange.send_head(200, [("Content-Length", str(LARGE_BYTES))])
    block = bytes(MIB)
    for _ in range(LARGE_BYTES // MIB):
        exchange.send(block)
        await exchange.drain()


async def test_an_early_refusal_lets_a_client_that_was_held_back_go_on(pool: UpstreamPool) -> None:
    gate = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(TOO_LARGE[:-1])
        await asyncio.Event().wait()

    async with tcp_server(serve) as port:
        answer = begin(pool, outgoing(port, method="POST", streamed=True))
        await answer.until(lambda: answer.body_paused == [True, False])
        while answer.body_paused[-1] is False:
            answer.call.send_body(bytes(65536))
            await asyncio.sleep(0)
        gate.set()
        await answer.until(lambda: answer.framing)

        assert answer.body_paused[-1] is False
        answer.call.cancel()


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_client_that_reads_nothing_holds_a_large_answer_back(is_tls: bool) -> None:
    authority, client_tls = trustme.CA(), ssl.create_default_context()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    authority.configure_trust(client_tls)
    async with (
        running_upstream(tls=server_tls if is_tls else None) as upstream,
        running_pool(**LIMITS, tls=client_tls) as pool,
    ):
        upstream.script(flood)
        await stalled_and_then_read(pool, outgoing(upstream.port, scheme=upstream.scheme))


async def stalled_and_then_read(pool: UpstreamPool, request: OutgoingRequest) -> None:
    before_mib = peak_mib()
    answer = begin(pool, request, pause_at_head=True)
    await answer.until(lambda: answer.framing)
    # Long enough for all of it to come, if it came.
    await asyncio.sleep(0.5)
    held_bytes = len(answer.body)

    assert held_bytes <= 256 * 1024
    assert peak_mib() - before_mib < 32
    total_bytes = 0
    while not answer.is_over:
        total_bytes += len(answer.body)
        answer.body.clear()
        answer.call.resume()
        await answer.until(lambda: answer.body or answer.is_over)
        answer.call.pause()
    assert total_bytes + len(answer.body) == LARGE_BYTES
    assert answer.is_complete
    assert peak_mib() - before_mib < 32


async def test_a_connection_is_used_again_after_a_client_was_slow(
    pool: UpstreamPool, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(body=b"x" * 100))
    first = begin(pool, outgoing(upstream.port), pause_at_head=True)
    await first.over()
    second = await ask(pool, outgoing(upstream.port))

    assert (len(first.body), second.status, len(pool.connections)) == (100, 200, 1)


TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}"


async def test_an_early_refusal_of_a_streamed_body_stops_it_and_is_passed_on(pool: UpstreamPool) -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    gate = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"first\r\n")
        writer.write(TOO_LARGE[:-1])
        await gate.wait()
        writer.write(TOO_LARGE[-1:])
        rest = b""
        with contextlib.suppress(ConnectionError):
            rest = await reader.read()
        received.set_result(rest)

    async with tcp_server(serve) as port:
        answer = begin(pool, outgoing(port, method="POST", streamed=True))
        answer.call.send_body(b"first")
        await answer.until(lambda: answer.framing)
        answer.call.send_body(b"second")
        answer.call.end_body()
        gate.set()
        await answer.over()

        assert (answer.status, bytes(answer.body), answer.is_complete) == (413, b"{}", True)
        assert await asyncio.wait_for(received, 5) == b""
    assert pool.connections == set()


@pytest.mark.parametrize("close", [True, False])
async def test_an_early_refusal_of_a_large_buffered_body_is_passed_on(pool: UpstreamPool, close: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(TOO_LARGE)
        if not close:
            await asyncio.Event().wait()

    async with tcp_server(serve) as port:
        answer = await ask(pool, post(port, bytes(8 * MIB)))

        assert (answer.status, bytes(answer.body), answer.is_complete) == (413, b"{}", True)
        async with asyncio.timeout(5):
            while pool.connections:
                await asyncio.sleep(0)


async def test_an_upstream_may_answer_well_while_it_still_reads(pool: UpstreamPool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (size := await reader.readline()) != b"0\r\n":
            writer.write(size + await reader.readline())
        await reader.readline()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with tcp_server(serve) as port:
        answer = begin(pool, outgoing(port, method="POST", streamed=True))
        await answer.until(lambda: answer.framing)
        for word in (b"one", b"two"):
            answer.call.send_body(word)
            await answer.until(lambda word=word: answer.body.endswith(word))
        answer.call.end_body()
        await answer.over()

        assert (bytes(answer.body), answer.is_complete, len(pool.connections)) == (b"onetwo", True, 1)


async def test_an_answer_that_is_complete_before_the_body_costs_the_connection(pool: UpstreamPool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with tcp_server(serve) as port:
        answer = await ask(pool, outgoing(port, method="POST", streamed=True))
        answer.call.send_body(b"nobody reads this")
        assert answer.is_complete
        assert all(connection.transport.is_closing() for connection in pool.connections)


async def test_a_streamed_body_is_sent_again_only_if_nothing_of_it_was_sent(pool: UpstreamPool) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if len(heads) in (1, 4):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            heads.append(await reader.readuntil(b"begun" if len(heads) == 4 else b"\r\n\r\n"))
        elif len(heads) == 3:
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    async with tcp_server(serve) as port:
        await ask(pool, outgoing(port))
        unbegun = begin(pool, outgoing(port, method="POST", streamed=True))
        await unbegun.until(lambda: unbegun.body_paused == [False, True, False])
        unbegun.call.send_body(b"whole")
        unbegun.call.end_body()
        await unbegun.over()
        assert (unbegun.status, len(heads)) == (200, 3)

        await ask(pool, outgoing(port))
        begun = begin(pool, outgoing(port, method="POST", streamed=True))
        begun.call.send_body(b"begun")
        await begun.over()
        assert isinstance(begun.error, UpstreamUnreachable)
        assert len(heads) == 5


@pytest.mark.parametrize(
    ("limits", "script", "expected"),
    [
        ({"first_byte_timeout_seconds": 0.2}, silence(), "did not begin"),
        ({"idle_timeout_seconds": 0.2}, stream(b"data: 1\n\n", STALL), "stopped coming"),
    ],
)
async def test_an_upstream_that_falls_silent_times_out(
    upstream: ScriptedUpstream, limits: dict[str, float], script: Script, expected: str
) -> None:
    upstream.script(script)
    async with running_pool(**(LIMITS | limits)) as pool:
        answer = await ask(pool, post(upstream.port, b"{}"))
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)

    assert isinstance(answer.error, UpstreamTimeout)
    assert expected in str(answer.error)


async def test_a_stream_may_last_as_long_as_it_keeps_coming(upstream: ScriptedUpstream) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.send_head(200, chunked=True)
        for _ in range(12):
            exchange.send(b"data: 1\n\n")
            await asyncio.sleep(0.05)
        exchange.end()

    upstream.script(script)
    async with running_pool(**(LIMITS | {"idle_timeout_seconds": 0.3})) as pool:
        answer = await ask(pool, post(upstream.port, b"{}"))

    assert (answer.error, answer.is_complete, len(answer.body)) == (None, True, 12 * 9)


async def test_a_slow_client_is_not_taken_for_a_slow_upstream(upstream: ScriptedUpstream) -> None:
    limits = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 0.4, "idle_timeout_seconds": 0.4}
    upstream.on("/large", reply(body=bytes(8 * MIB)))
    async with running_pool(**limits) as pool:
        sending = begin(pool, outgoing(upstream.port, method="POST", streamed=True))
        await upstream.wait_for_request(0)
        reading = begin(pool, outgoing(upstream.port, target="/large"), pause_at_head=True)
        await reading.until(lambda: reading.framing)
        await asyncio.sleep(1.0)
        assert not sending.is_over
        assert not reading.is_over
        sending.call.send_body(b"at last")
        sending.call.end_body()
        reading.call.resume()
        await sending.over()
        await reading.over()

    assert (sending.status, reading.is_complete, len(reading.body)) == (200, True, 8 * MIB)


async def test_a_connection_that_waits_too_long_is_closed(upstream: ScriptedUpstream) -> None:
    async with running_pool(**LIMITS, keep_alive_seconds=0.2) as pool:
        await ask(pool, outgoing(upstream.port))
        assert len(pool.connections) == 1
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)
        answer = await ask(pool, outgoing(upstream.port))

    assert isinstance(answer, Answer)
    assert answer.status == 200


async def test_a_connection_is_given_up_before_its_upstream_said_that_it_would(upstream: ScriptedUpstream) -> None:
    upstream.default = reply(headers=[("Keep-Alive", "timeout=2")])
    async with running_pool(**LIMITS, keep_alive_seconds=60) as pool:
        first, second = await ask(pool, outgoing(upstream.port)), await ask(pool, outgoing(upstream.port))
        assert (first.status, second.status) == (200, 200)
        assert len(pool.connections) == 1
        async with asyncio.timeout(1.9):
            await upstream.requests[1].closed.wait()


async def test_the_end_of_the_pool_closes_everything(upstream: ScriptedUpstream) -> None:
    upstream.default = silence()
    async with running_pool(**LIMITS) as pool:
        answers = [begin(pool, post(upstream.port, b"{}")) for _ in range(3)]
        await upstream.wait_for_request(2)
        connecting = begin(pool, outgoing(upstream.port))
    for request in upstream.requests:
        await asyncio.wait_for(request.closed.wait(), 5)

    assert not any(answer.is_over for answer in (*answers, connecting))
    assert (pool.connections, pool.tasks) == (set(), set())
