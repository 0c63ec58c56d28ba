"""Clients that are slow, silent, half gone or gone; and the server that stops."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trustme

from bridged.http1.downstream import Exchange, Framing, Limits
from bridged.http_types import BodyBroken, BodyTimeout
from tests.support.http1_service import Scripted, Seen, Unread, closed_silently, hold, http1_server, reply, until
from tests.support.raw_http import RawAnswer, RawClient, raw_client, raw_exchange, request

QUICK = Limits(head_seconds=0.1, idle_seconds=0.1, body_seconds=0.1, stall_seconds=0.2, linger_seconds=0.1)
PARTIAL = request("POST", "/x", headers=[("Content-Length", "10")]) + b"12345"


def begin_stream(seen: Seen) -> None:
    seen.exchange.send_head(200, (), body=Framing.CHUNKED)
    seen.exchange.send(b"first")


async def test_a_head_that_does_not_come_to_its_end_is_408() -> None:
    async with http1_server(Scripted(), limits=QUICK) as running:
        answer = await raw_exchange(running.port, b"GET /x HTTP/1.1\r\nHost: x\r\n")
        assert (answer.status, answer.header("x-refused")) == (408, "REQUEST_TIMEOUT")


async def test_a_head_is_timed_from_its_first_byte_however_it_trickles() -> None:
    async with http1_server(Scripted(), limits=QUICK) as running, raw_client(running.port) as client:
        answer = asyncio.create_task(client.read_answer())
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /x HTTP/1.1\r\nX: " + b"y" * 1000:
                if answer.done():
                    break
                client.writer.write(bytes([byte]))
                await asyncio.sleep(0.01)  # the clock is what is tested
        assert (await answer).status == 408


async def test_empty_lines_do_not_put_the_deadline_of_a_head_off() -> None:
    limits = Limits(head_seconds=0.2, linger_seconds=0.2)  # far from the time for a connection without a request
    async with http1_server(Scripted(), limits=limits) as running, raw_client(running.port) as client:
        ended = asyncio.create_task(client.read_to_end())
        with contextlib.suppress(ConnectionError):
            for byte in b"\r\n" * 100:
                if ended.done():
                    break
                client.writer.write(bytes([byte]))
                await asyncio.sleep(0.02)  # the clock is what is tested
        assert ended.done()
        with contextlib.suppress(ConnectionError):
            assert b"200" not in await ended


@pytest.mark.parametrize("sent", [b"", b"\r\n", request("GET", "/x")])
async def test_an_idle_connection_is_closed_without_a_word(sent: bytes) -> None:
    async with http1_server(Scripted(), limits=QUICK) as running, raw_client(running.port) as client:
        await client.send(sent)
        if len(sent) > 2:
            await client.read_answer()
        assert await closed_silently(client)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_body_that_stops_arriving_is_told_to_the_carrier(whole: bool) -> None:
    service = Scripted(whole=whole)
    async with http1_server(service, limits=QUICK) as running:
        assert (await raw_exchange(running.port, PARTIAL)).status == 408
    assert isinstance(service.seen[0].failed, BodyTimeout)


async def drip(client: RawClient, data: bytes, *, until_done: asyncio.Task[RawAnswer]) -> None:
    """A byte at a time, far within the time between two reads."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            if until_done.done():
                break
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.02)  # the clock is what is tested


@pytest.mark.parametrize("head", [("Content-Length", "1000"), ("Transfer-Encoding", "chunked")])
async def test_a_body_that_drips_is_told_to_the_carrier(head: tuple[str, str]) -> None:
    limits = Limits(body_seconds=0.3, linger_seconds=0.2)
    service = Scripted()
    async with http1_server(service, limits=limits) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", headers=[head]))
        answer = asyncio.create_task(client.read_answer())
        await drip(client, b"1\r\nx\r\n" * 100, until_done=answer)
        assert (await answer).status == 408
    assert isinstance(service.seen[0].failed, BodyTimeout)


async def test_a_body_that_is_slow_but_not_too_slow_comes_to_its_end() -> None:
    limits = Limits(body_seconds=1.0, body_bytes_per_second=10)
    async with http1_server(Scripted(), limits=limits) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", headers=[("Content-Length", "75")]))
        answer = asyncio.create_task(client.read_answer())
        await drip(client, b"x" * 75, until_done=answer)
        assert (await answer).body == b"x" * 75


async def test_a_body_that_nobody_wants_yet_is_not_timed() -> None:
    service = Unread()
    async with http1_server(service, limits=QUICK) as running, raw_client(running.port) as client:
        await client.send(PARTIAL)
        await until(lambda: len(service.seen) == 1)
        service.seen[0].exchange.read_stream(100)
        service.seen[0].exchange.pause_body()
        await asyncio.sleep(0.4)  # the clock is what is tested
        service.seen[0].exchange.resume_body()
        await client.send(b"67890")
        assert (await client.read_answer()).body == b"1234567890"


async def test_an_answer_may_take_longer_than_every_time_limit() -> None:
    service = Scripted(hold)
    async with http1_server(service, limits=QUICK) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", body=b"x"))
        await asyncio.sleep(0.4)  # the clock is what is tested
        reply(service.seen[0].exchange, 200, b"at last")
        assert (await client.read_answer()).body == b"at last"


async def test_a_thousand_slow_heads_harm_nobody_and_all_end(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(head_seconds=1.0, linger_seconds=0.2)
    async with http1_server(Scripted(), limits=limits) as running, AsyncExitStack() as stack:
        clients = []
        for _ in range(20):  # in lots, as the listener's backlog is bounded
            lot = [raw_client(running.port) for _ in range(50)]
            clients += await asyncio.gather(*(stack.enter_async_context(client) for client in lot))
        for client in clients:
            await client.send(b"GET /x HTTP/1.1\r\nX: y")
        assert (await raw_exchange(running.port, request("POST", "/x", body=b"fine"))).body == b"fine"
        answers = await asyncio.gather(*(client.read_answer() for client in clients))
        assert {answer.status for answer in answers} == {408}
        await until(lambda: running.server.connection_count == 0)
    assert caplog.records == []


@pytest.mark.parametrize("sent", [request("POST", "/x", body=b"hello"), b"GET /x HTTP/1.0\r\n\r\n"])
async def test_a_client_that_has_ended_its_side_gets_its_answer(sent: bytes) -> None:
    service = Scripted(hold)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(sent)
        client.writer.write_eof()
        await until(lambda: len(running.server._half_closed) == 1)
        await asyncio.sleep(0.2)  # longer than the first look after it
        begin_stream(service.seen[0])
        service.seen[0].exchange.send(b"second")
        service.seen[0].exchange.finish()
        answer = await client.read_answer()
        assert (answer.status, answer.complete, answer.header("connection")) == (200, True, "close")
        assert answer.body == b"firstsecond"
        assert await closed_silently(client)


async def test_pipelined_requests_of_a_client_that_has_ended_its_side_are_all_answered() -> None:
    service = Scripted(hold)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/1") + request("POST", "/2", body=b"2") + request("GET", "/3"))
        client.writer.write_eof()
        for n in (1, 2, 3):
            await until(lambda n=n: len(service.seen) == n)
            reply(service.seen[-1].exchange, 200, b"%d" % n)
            assert (await client.read_answer()).body == b"%d" % n
        assert await closed_silently(client)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_client_that_ends_its_side_in_its_body_is_told_so(whole: bool) -> None:
    service = Scripted(whole=whole)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(PARTIAL)
        client.writer.write_eof()
        assert (await client.read_answer()).status == 400
    assert isinstance(service.seen[0].failed, BodyBroken)


async def test_a_client_that_ends_its_side_in_its_head_is_told_so() -> None:
    async with http1_server(Scripted()) as running, raw_client(running.port) as client:
        await client.send(b"GET /x HTTP/1.1\r\nHost")
        client.writer.write_eof()
        assert (await client.read_answer()).status == 400


@pytest.mark.parametrize("answered", [True, False])
async def test_a_client_that_left_is_told_to_the_carrier(answered: bool, caplog: pytest.LogCaptureFixture) -> None:
    service = Scripted(begin_stream if answered else hold)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", body=b"hello"))
        await until(lambda: len(service.seen) == 1)
        if answered:
            await client.read_head()
        client.leave()
        await until(lambda: service.seen[0].gone)
        await until(lambda: running.server.connection_count == 0)
    assert caplog.records == []


async def test_a_thousand_clients_that_vanish_in_their_streams_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    service = Scripted(begin_stream)
    async with http1_server(service) as running:
        for _ in range(20):
            async with AsyncExitStack() as stack:
                lot = [raw_client(running.port) for _ in range(50)]
                clients = await asyncio.gather(*(stack.enter_async_context(client) for client in lot))
                for client in clients:
                    await client.send(request("GET", "/x"))
                await asyncio.gather(*(client.read_head() for client in clients))
                for client in clients:
                    client.leave()
        await until(lambda: running.server.connection_count == 0)
        assert len(service.seen) == 1000
        assert all(seen.gone for seen in service.seen)
    assert caplog.records == []


class Sender:
    """Sends so many pieces, as fast as the client reads."""

    def __init__(self, pieces: int) -> None:
        self.left = pieces
        self.piece = bytes(65536)

    def __call__(self, seen: Seen) -> None:
        seen.exchange.send_head(200, (), body=Framing.CHUNKED)
        seen.on_resume = lambda: self.go_on(seen)
        self.go_on(seen)

    def go_on(self, seen: Seen) -> None:
        told = len(seen.told)
        while self.left and len(seen.told) == told:
            self.left -= 1
            seen.exchange.send(self.piece)
        if not self.left:
            seen.exchange.finish()


async def test_a_slow_reader_holds_the_carrier_back_and_little_memory() -> None:
    sender = Sender(1000)  # 64 MB
    async with http1_server(Scripted(sender)) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x"))
        await client.read_head()
        (connection,) = running.server._connections
        received = 0
        while data := await client.read_some():
            received += len(data)
            assert connection._transport.get_write_buffer_size() < 256 * 1024 + 2 * 65536
        assert received == 64 * 1000 * 1024


async def test_a_reader_that_has_stopped_is_given_up() -> None:
    sender = Sender(1_000_000)
    service = Scripted(sender)
    async with http1_server(service, limits=QUICK) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x"))
        await client.read_head()
        await until(lambda: service.seen[0].gone)
        assert sender.left > 999_000
        assert running.server.connection_count == 0


async def test_a_client_that_reads_no_answer_gets_no_further_request_begun() -> None:
    service = Scripted(lambda seen: reply(seen.exchange, 200, bytes(1 << 20)))
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x") * 1000)
        (connection,) = running.server._connections
        await until(lambda: connection._write_paused)
        begun = len(service.seen)
        assert begun < 20
        assert connection._transport.get_write_buffer_size() < 3 << 20
        for _ in range(begun + 5):
            assert len((await client.read_answer()).body) == 1 << 20
        client.leave()


async def test_a_lingering_client_does_not_stay_for_ever() -> None:
    async with http1_server(Scripted(), limits=QUICK) as running, raw_client(running.port) as client:
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.read_answer()).status == 400
        await until(lambda: running.server.connection_count == 0)


async def test_a_client_that_sends_on_and_on_after_its_answer_is_cut_off() -> None:
    limits = Limits(linger_bytes=100_000)
    async with http1_server(Scripted(), limits=limits) as running, raw_client(running.port) as client:
        client.writer.write(b"nonsense\r\n\r\n" + bytes(20_000_000))
        await until(lambda: running.server.connection_count == 0)
        client.leave()


async def test_of_a_body_that_failed_so_much_is_dropped_and_the_rest_waits_in_the_kernel() -> None:
    class Slow(Seen):
        def body_failed(self, error: Exception) -> None:
            self.failed = error

    class SlowToAnswer(Scripted):
        def begin(self, exchange: Exchange) -> Seen:
            self.seen.append(Slow(exchange, hold))
            exchange.read_stream(1000)
            return self.seen[-1]

    service = SlowToAnswer()
    limits = Limits(linger_bytes=100_000)
    async with http1_server(service, limits=limits) as running, raw_client(running.port) as client:
        client.writer.write(request("POST", "/x", body=bytes(20_000_000)))
        await until(lambda: len(service.seen) == 1 and service.seen[0].failed is not None)
        (connection,) = running.server._connections
        await until(lambda: not connection._reading)
        reply(service.seen[0].exchange, 413)
        client.leave()
        await until(lambda: running.server.connection_count == 0)


async def test_stopping_lets_every_connection_have_one_more_answer() -> None:
    service = Scripted(hold)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(http1_server(service, limits=Limits(linger_seconds=0.2)))
        idle, busy, fresh = [await stack.enter_async_context(raw_client(running.port)) for _ in range(3)]
        await idle.send(request("GET", "/idle"))
        await until(lambda: len(service.seen) == 1)
        reply(service.seen[0].exchange, 200)
        await idle.read_answer()
        await busy.send(request("GET", "/busy") + request("GET", "/never"))
        await until(lambda: len(service.seen) == 2)
        await until(lambda: running.server.connection_count == 3)

        running.server.stop_accepting()
        await idle.send(request("GET", "/again"))
        await until(lambda: len(service.seen) == 3)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", running.port)
        await fresh.send(request("GET", "/fresh"))
        await until(lambda: len(service.seen) == 4)
        for client, seen in ((busy, service.seen[1]), (idle, service.seen[2]), (fresh, service.seen[3])):
            reply(seen.exchange, 200, b"done")
            answer = await client.read_answer()
            assert (answer.body, answer.header("connection")) == (b"done", "close")
            assert await closed_silently(client)
        await until(lambda: running.server.connection_count == 0)


async def test_the_end_of_the_server_is_the_end_of_its_connections() -> None:
    service = Scripted(begin_stream)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x"))
        await client.read_head()
        await running.server.close(0.1)
        assert service.seen[0].gone
        assert running.server.connection_count == 0


@asynccontextmanager
async def tls_client(service: Scripted) -> AsyncIterator[RawClient]:
    """A server with a certificate, and a client that trusts it."""
    authority = trustme.CA()
    server_tls, client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_tls)
    authority.configure_trust(client_tls)
    async with http1_server(service, tls=server_tls) as running:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=client_tls, server_hostname="localhost"
        )
        yield RawClient(reader, writer, 5)
        writer.transport.abort()


async def test_tls_carries_the_same() -> None:
    service = Scripted()
    async with tls_client(service) as client:
        for body in (b"hello", b"x" * 1_000_000):
            await client.send(request("POST", "/x", body=body))
            assert (await client.read_answer()).body == body
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.read_answer()).status == 400


@pytest.mark.parametrize("answered", [True, False])
async def test_a_client_that_leaves_over_tls_is_gone(answered: bool) -> None:
    service = Scripted(begin_stream if answered else hold)
    async with tls_client(service) as client:
        await client.send(request("GET", "/x"))
        await until(lambda: len(service.seen) == 1)
        client.leave()
        await until(lambda: service.seen[0].gone)
