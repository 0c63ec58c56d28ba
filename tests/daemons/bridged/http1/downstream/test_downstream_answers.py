"""Answers: what each kind of client gets, and that nothing that was cut ever looks whole."""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable

import pytest

from bridged.http1.downstream import Exchange, Framing
from bridged.model import Headers
from tests.data.http1.smuggling.requests import REFUSED, Refused
from tests.support.http1_service import Scripted, Seen, closed_silently, hold, http1_server, reply, until
from tests.support.raw_http import RawClient, raw_client, raw_exchange, request

Answer = Callable[[Seen], None]

PLAIN: Headers = (("Content-Type", "text/plain"),)
OLD = b"GET /x HTTP/1.0\r\n\r\n"
OLD_THAT_STAYS = b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"


def length(count: int) -> Headers:
    return (("Content-Length", str(count)),)


async def read_body(client: RawClient) -> None:
    while await client.read_some():
        pass


def chunked(seen: Seen) -> None:
    seen.exchange.send_head(200, PLAIN, body=Framing.CHUNKED)
    for piece in (b"one", b"", b"x" * 20_000, b"three"):
        seen.exchange.send(piece)
    seen.exchange.finish()


async def test_pieces_are_chunked_for_a_client_of_http_11() -> None:
    async with http1_server(Scripted(chunked)) as running, raw_client(running.port) as client:
        for _ in range(2):
            await client.send(request("GET", "/x"))
            answer = await client.read_answer()
            assert (answer.body, answer.complete) == (b"one" + b"x" * 20_000 + b"three", True)
            assert answer.header("transfer-encoding") == "chunked"


async def test_a_client_of_http_10_gets_no_chunks_and_the_end_of_the_connection() -> None:
    async with http1_server(Scripted(chunked)) as running, raw_client(running.port) as client:
        await client.send(OLD_THAT_STAYS)
        head = await client.read_head()
        assert (head.header("transfer-encoding"), head.header("connection")) == (None, "close")
        assert await client.read_to_end() == b"one" + b"x" * 20_000 + b"three"


async def test_a_client_of_http_10_keeps_its_connection_only_if_it_asks() -> None:
    async with http1_server(Scripted()) as running:
        async with raw_client(running.port) as client:
            for _ in range(2):
                await client.send(OLD_THAT_STAYS)
                assert (await client.read_answer()).header("connection") == "keep-alive"
        async with raw_client(running.port) as client:
            await client.send(OLD)
            assert (await client.read_answer()).header("connection") == "close"
            assert await closed_silently(client)


@pytest.mark.parametrize("answer", [chunked, lambda seen: reply(seen.exchange, 200, b"hello")])
async def test_the_answer_to_head_has_no_body(answer: Answer) -> None:
    async with http1_server(Scripted(answer)) as running, raw_client(running.port) as client:
        for _ in range(2):
            await client.send(request("HEAD", "/x"))
            head = await client.read_head()
            assert head.header("content-length") == "5" or head.header("transfer-encoding") == "chunked"
        client.writer.write_eof()
        assert await closed_silently(client)


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_is_sent_none(status: int) -> None:
    def answer(seen: Seen) -> None:
        seen.exchange.send_head(status, PLAIN, body=Framing.CHUNKED)
        seen.exchange.send(b"not to be sent")
        seen.exchange.finish()

    async with http1_server(Scripted(answer)) as running, raw_client(running.port) as client:
        for _ in range(2):
            await client.send(request("GET", "/x"))
            assert (await client.read_answer()).status == status


async def test_an_answer_shorter_than_its_length_is_broken_off() -> None:
    def answer(seen: Seen) -> None:
        seen.exchange.send_head(200, length(10), body=Framing.LENGTH)
        seen.exchange.send(b"short")
        seen.exchange.finish()

    async with http1_server(Scripted(answer)) as running:
        assert not (await raw_exchange(running.port, request("GET", "/x"))).complete


async def test_of_an_answer_longer_than_its_length_nothing_is_taken_for_the_next() -> None:
    def answer(seen: Seen) -> None:
        seen.exchange.send_head(200, length(5), body=Framing.LENGTH)
        seen.exchange.send(b"he")
        seen.exchange.send(b"lloHTTP/1.1 200 OK\r\n")
        seen.exchange.finish()

    async with http1_server(Scripted(answer)) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x") * 2)
        assert not (await client.read_answer()).complete


@pytest.mark.parametrize("sent", [request("GET", "/x"), OLD])
async def test_an_answer_that_is_aborted_never_looks_whole(sent: bytes) -> None:
    service = Scripted(hold)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(sent)
        await until(lambda: len(service.seen) == 1)
        exchange = service.seen[0].exchange
        exchange.send_head(200, PLAIN, body=Framing.CHUNKED)
        exchange.send(b"half of it")
        await client.read_head()
        exchange.abort()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await read_body(client)


async def test_after_its_end_an_exchange_does_nothing() -> None:
    service = Scripted()
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/1"))
        await client.read_answer()
        exchange = service.seen[0].exchange
        assert exchange.over
        exchange.send_head(500, PLAIN, body=Framing.CHUNKED)
        exchange.send(b"spliced")
        exchange.read_whole(1)
        exchange.pause_body()
        exchange.resume_body()
        exchange.finish()
        exchange.abort()
        await client.send(request("POST", "/2", body=b"fine"))
        assert (await client.read_answer()).body == b"fine"


async def test_an_answer_has_one_head() -> None:
    service = Scripted(hold)
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x"))
        await until(lambda: len(service.seen) == 1)
        exchange = service.seen[0].exchange
        exchange.send_head(200, length(2), body=Framing.LENGTH)
        with pytest.raises(RuntimeError):
            exchange.send_head(500, length(0), body=Framing.LENGTH)
        exchange.send(b"ok")
        exchange.finish()
        assert (await client.read_answer()).body == b"ok"


@pytest.mark.parametrize("place", ["begin", "body"])
async def test_a_service_that_fails_costs_its_own_connection_and_one_line_in_the_log(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Scripted):
        def begin(self, exchange: Exchange) -> Seen:
            if place == "begin":
                raise LookupError("a bug")
            return super().begin(exchange)

    def fail(seen: Seen) -> None:
        seen.exchange.send_head(200, PLAIN, body=Framing.CHUNKED)
        raise LookupError("a bug")

    async with http1_server(Failing(fail)) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x", headers=[("X-Api-Key", "dbu_CANARY")]) * 2)
        sent = await client.read_to_end()
        assert b"500" not in sent
        await until(lambda: running.server.connection_count == 0)
    assert [record.getMessage() for record in caplog.records] == ["unhandled error on a client's connection"]
    assert "CANARY" not in str(caplog.records[0].__dict__) + caplog.text


def with_canaries(row: Refused) -> bytes:
    """The same fault, in a request with a token in every place that a server might quote."""
    return row.data.replace(b"\r\nHost", b"\r\nAuthorization: Bearer dbu_CANARY\r\nHost").replace(b"x", b"CANARY", 3)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
async def test_no_refusal_quotes_what_was_sent(row: Refused, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with http1_server(Scripted()) as running, raw_client(running.port) as client:
        await client.send(with_canaries(row))
        client.writer.write_eof()
        said = await client.read_to_end()
    assert said.split(b" ")[1] in (b"400", b"431")
    assert said.count(b"HTTP/1.1 4") == 1
    assert b"CANARY" not in said
    assert "CANARY" not in "".join(str(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
async def test_a_refusal_ends_the_connection_after_the_client_could_read_it(row: Refused) -> None:
    service = Scripted()
    async with http1_server(service) as running, raw_client(running.port) as client:
        await client.send(row.data)
        answer = await client.read_answer()
        assert (answer.header("x-refused"), answer.header("connection")) == (row.reason, "close")
        await client.send(request("GET", "/never"))
        assert await closed_silently(client)
    assert service.seen == []


async def test_a_reset_of_the_client_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    service = Scripted(hold)
    async with http1_server(service) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(request("GET", "/x"))
            await until(lambda: len(service.seen) == 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: service.seen[0].gone)
        service.seen[0].exchange.send_head(200, PLAIN, body=Framing.CHUNKED)
        assert running.server.connection_count == 0
    assert caplog.records == []
