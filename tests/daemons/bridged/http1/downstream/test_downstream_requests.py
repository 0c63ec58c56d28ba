"""Requests on real connections: one after the other, many at once, with bodies of every kind, and too many of them."""

import asyncio
from pathlib import Path

import pytest

from bridged.http1.downstream import HeadLimits, Limits
from bridged.http_types import BodyBroken, BodyTooLarge
from daemonkit.listen import Address
from tests.data.http1.smuggling.requests import BROKEN_BODIES
from tests.support.http1_service import Scripted, Unread, closed_silently, hold, http1_server, reply, until
from tests.support.raw_http import RawClient, raw_client, raw_exchange, request

CHUNKED = ("Transfer-Encoding", "chunked")
EXPECT = ("Expect", "100-continue")


async def test_a_connection_serves_one_request_after_another() -> None:
    async with http1_server(Scripted()) as running, raw_client(running.port) as client:
        for body in (b"one", b"", b"x" * 500_000, b"three"):
            await client.send(request("POST", "/x", body=body))
            answer = await client.read_answer()
            assert (answer.status, answer.body, answer.header("connection")) == (200, body, None)
        assert running.server.connection_count == 1


async def test_a_connection_that_is_to_end_ends_after_its_answer() -> None:
    limits = Limits(linger_seconds=0.2)
    async with http1_server(Scripted(), limits=limits) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x", headers=[("Connection", "close")]) + request("GET", "/never"))
        assert (await client.read_answer()).header("connection") == "close"
        assert await closed_silently(client)
        await until(lambda: running.server.connection_count == 0)


@pytest.mark.parametrize("whole", [True, False])
async def test_pipelined_requests_are_answered_in_their_order(whole: bool) -> None:
    service = Scripted(whole=whole)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(b"".join(request("POST", f"/{n}", body=b"%d" % n) for n in range(300)))
        assert [(await client.read_answer()).body for _ in range(300)] == [b"%d" % n for n in range(300)]


async def test_a_pipelined_request_begins_when_the_one_before_it_is_answered() -> None:
    service = Scripted(hold)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/1", headers=[CHUNKED]) + b"1\r\nx\r\n0\r\n\r\n" + request("GET", "/2"))
        await client.send(request("GET", "/3"))
        for n in (1, 2, 3):
            await until(lambda n=n: len(service.seen) == n)
            assert service.seen[-1].request.target == f"/{n}"
            reply(service.seen[-1].exchange, 200, b"%d" % n)
            assert (await client.read_answer()).body == b"%d" % n


async def test_what_is_pipelined_over_a_bound_waits_in_the_kernel() -> None:
    service = Scripted(hold)
    async with http1_server(service) as running, raw_client(running.port) as client:
        many = request("GET", "/x", headers=[("X", "y" * 1000)]) * 16_000  # 17 MB
        client.writer.write(many)
        await until(lambda: len(service.seen) == 1)
        (connection,) = running.server._connections
        await until(lambda: not connection._reading)
        assert connection._held is not None
        assert len(connection._held) < 64 * 1024 + 256 * 1024
        for n in range(100):
            await until(lambda n=n: len(service.seen) == n + 1)
            reply(service.seen[-1].exchange, 200)
            assert (await client.read_answer()).status == 200
        client.leave()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 1 << 20])
async def test_a_body_arrives_as_it_was_sent(size: int, whole: bool) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    service = Scripted(whole=whole)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", body=body))
        assert (await client.read_answer()).body == body
        pieces = [body[at : at + 4000] for at in range(0, size, 4000)]
        await client.send(request("POST", "/x", headers=[CHUNKED]))
        for piece in pieces:
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.send(b"0\r\n\r\n")
        assert (await client.read_answer()).body == body


async def test_a_slow_request_is_read_byte_by_byte() -> None:
    async with http1_server(Scripted()) as running, raw_client(running.port) as client:
        for byte in request("POST", "/x", body=b"hello"):
            await client.send(bytes([byte]))
        assert (await client.read_answer()).body == b"hello"


@pytest.mark.parametrize("whole", [True, False])
async def test_a_body_over_the_limit_is_refused_and_the_client_that_sends_all_of_it_reads_why(whole: bool) -> None:
    service = Scripted(whole=whole, limit_bytes=100_000)
    async with http1_server(service) as running:
        for sent in (
            request("POST", "/x", body=b"x" * 33_000_000),
            request("POST", "/x", headers=[CHUNKED]) + b"10000\r\n%b\r\n" % (b"x" * 65536) * 500 + b"0\r\n\r\n",
        ):
            async with raw_client(running.port) as client:
                await client.send(sent)
                answer = await client.read_answer()
                assert (answer.status, answer.body, answer.header("connection")) == (413, b"BodyTooLarge", "close")
                assert await closed_silently(client)
        assert [type(seen.failed) for seen in service.seen] == [BodyTooLarge] * 2
        assert not any(seen.ended for seen in service.seen)
        await until(lambda: running.server.connection_count == 0)


async def test_a_body_of_exactly_the_limit_passes() -> None:
    async with http1_server(Scripted(limit_bytes=1000)) as running:
        for headers, body in (([], b"x" * 1000), ([CHUNKED], b"3e8\r\n%b\r\n0\r\n\r\n" % (b"x" * 1000))):
            sent = request("POST", "/x", headers=headers, body=None if headers else body) + (body if headers else b"")
            assert (await raw_exchange(running.port, sent)).body == b"x" * 1000


async def test_a_small_body_over_the_limit_costs_its_connection_nothing() -> None:
    async with http1_server(Scripted(limit_bytes=2)) as running, raw_client(running.port) as client:
        for body, status in ((b"123", 413), (b"12", 200)):
            await client.send(request("POST", "/x", body=body))
            assert (await client.read_answer()).status == status


@pytest.mark.parametrize("row", BROKEN_BODIES[:8], ids=lambda row: row.name)
@pytest.mark.parametrize("whole", [True, False])
async def test_a_broken_body_is_refused_and_ends_the_connection(row: tuple[str, str, bytes, str], whole: bool) -> None:
    service = Scripted(whole=whole)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(row[2])
        answer = await client.read_answer()
        assert (answer.status, answer.header("connection")) == (400, "close")
        assert await closed_silently(client)
    assert isinstance(service.seen[0].failed, BodyBroken)


async def test_an_answer_to_an_unread_body_that_is_there_keeps_the_connection() -> None:
    service = Unread()
    async with http1_server(service) as running, raw_client(running.port) as client:
        for n in range(2):
            await client.send(request("POST", "/x", body=b"nobody reads this"))
            await until(lambda n=n: len(service.seen) == n + 1)
            reply(service.seen[-1].exchange, 404)
            answer = await client.read_answer()
            assert (answer.status, answer.header("connection")) == (404, None)


async def test_an_answer_before_the_body_has_come_ends_the_connection_once_the_client_could_read_it() -> None:
    service = Unread()
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", headers=[("Content-Length", "5000000")]) + b"x" * 1000)
        await until(lambda: len(service.seen) == 1)
        reply(service.seen[0].exchange, 403, b"no")
        await client.send(b"x" * 4_000_000)
        answer = await client.read_answer()
        assert (answer.status, answer.body, answer.header("connection")) == (403, b"no", "close")
        assert await closed_silently(client)


async def test_a_body_is_held_back_until_the_carrier_wants_it() -> None:
    service = Unread()
    async with http1_server(service) as running, raw_client(running.port) as client:
        client.writer.write(request("POST", "/x", headers=[("Content-Length", "20000000")]) + b"x" * 20_000_000)
        await until(lambda: len(service.seen) == 1)
        (connection,) = running.server._connections
        await until(lambda: not connection._reading)
        seen = service.seen[0]
        seen.exchange.pause_body()
        seen.exchange.read_stream(20_000_000)
        assert seen.parts == []
        seen.exchange.resume_body()
        assert seen.parts != []
        seen.exchange.pause_body()
        await until(lambda: not connection._reading)
        arrived = len(seen.parts)
        assert sum(map(len, seen.parts)) < 2_000_000
        seen.exchange.resume_body()
        assert (await client.read_answer()).body == b"x" * 20_000_000
        assert len(seen.parts) > arrived


async def test_a_client_that_waits_for_100_is_told_when_the_body_is_wanted() -> None:
    async with http1_server(Scripted()) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", headers=[EXPECT, ("Content-Length", "5")]))
        assert (await client.read_head()).status == 100
        await client.send(b"hello")
        assert (await client.read_answer()).body == b"hello"


@pytest.mark.parametrize("target", ["later", "paused"])
async def test_a_client_that_waits_for_100_waits_as_long_as_the_carrier_does(target: str) -> None:
    service = Unread()
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", headers=[EXPECT, ("Content-Length", "5")]))
        await until(lambda: len(service.seen) == 1)
        exchange = service.seen[0].exchange
        if target == "paused":
            exchange.read_stream(10)
            exchange.pause_body()
            exchange.resume_body()
        else:
            exchange.read_whole(10)
        assert (await client.read_head()).status == 100
        await client.send(b"hello")
        assert (await client.read_answer()).body == b"hello"


@pytest.mark.parametrize("length", ["5", "5000"])
async def test_a_client_whose_body_is_not_wanted_is_never_told_to_go_on(length: str) -> None:
    service = Unread() if length == "5" else Scripted(limit_bytes=1000)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", headers=[EXPECT, ("Content-Length", length)]))
        await until(lambda: len(service.seen) == 1)
        if length == "5":
            reply(service.seen[0].exchange, 413)
        head = await client.read_head()
        assert (head.status, head.header("connection")) == (413, "close")


async def test_a_client_that_does_not_wait_for_100_is_not_told() -> None:
    async with http1_server(Scripted()) as running, raw_client(running.port) as client:
        await client.send(request("POST", "/x", headers=[EXPECT], body=b"hello"))
        assert (await client.read_head()).status == 200


async def test_a_unix_socket_serves_the_same(tmp_path: Path) -> None:
    address = Address(path=f"{tmp_path}/s")
    async with http1_server(Scripted(), address=address):
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/s")
        client = RawClient(reader, writer, 5)
        await client.send(request("POST", "/x", body=b"hello"))
        client.writer.write_eof()
        assert (await client.read_answer()).body == b"hello"
        client.leave()


async def test_limits_of_heads_are_the_servers(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(head=HeadLimits(head_bytes=200, field_bytes=100, fields=3))
    async with http1_server(Scripted(), limits=limits) as running:
        assert (await raw_exchange(running.port, request("GET", "/x"))).status == 200
        assert (await raw_exchange(running.port, request("GET", "/" + "x" * 100))).status == 431
    assert caplog.records == []
