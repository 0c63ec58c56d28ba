"""Requests and answers over real sockets, on connections that are kept and used again."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridged.http1.pool import UpstreamPool, running_pool
from bridged.http1.response_head import BodyFraming
from bridged.http1.upstream_connection import UpstreamConnection
from bridged.http_types import UpstreamBroken, UpstreamUnreachable
from tests.fakes.scripted_upstream import (
    CUT,
    STALL,
    ScriptedUpstream,
    hang_up,
    raw,
    reply,
    running_upstream,
    silence,
    stream,
)
from tests.support.tcp_server import tcp_server
from tests.support.upstream_answers import Answer, ask, begin, outgoing, post

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def raw_upstream(*connections: Sequence[bytes]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port, and the bytes that each connection to it brought.

    The first connection gets the first script: each piece of it is written when something has been read, and then the
    connection is closed; and so on.
    """
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = len(received)
        received.append(b"")
        for piece in connections[index]:
            received[index] += await reader.read(65536)
            writer.write(piece)

    async with tcp_server(serve) as port:
        yield port, received


async def test_a_request_leaves_and_its_answer_comes_byte_for_byte(
    pool: UpstreamPool, upstream: ScriptedUpstream
) -> None:
    headers = (("x-B", "1"), ("X-b", "2"), ("Authorization", "Bearer sk"))
    upstream.script(reply(429, b'{"error":1}', [("retry-After", "3"), ("Retry-After", "4")]))
    answer = await ask(pool, post(upstream.port, b"{}", target="//a/%2F/../b?q=%zz", headers=headers))

    sent = upstream.requests[0]
    assert sent.request_line == "POST //a/%2F/../b?q=%zz HTTP/1.1"
    assert sent.headers == [("Host", f"127.0.0.1:{upstream.port}"), *headers, ("Content-Length", "2")]
    assert sent.body == b"{}"
    assert (answer.status, bytes(answer.body), answer.framing) == (429, b'{"error":1}', BodyFraming.LENGTH)
    assert answer.headers == (("retry-After", "3"), ("Retry-After", "4"), ("Content-Length", "11"))


async def test_one_connection_serves_many_requests(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    upstream.script(reply(), stream(b"data: 1\n\n", b"data: 2\n\n"), reply(204, b"", ()), reply(), reply(304, b"", ()))
    answers = [await ask(pool, post(upstream.port, b"{}")) for _ in range(2)]
    answers += [await ask(pool, outgoing(upstream.port, method=method)) for method in ("GET", "HEAD", "GET", "GET")]

    assert [answer.status for answer in answers] == [200, 200, 204, 200, 304, 200]
    assert [bytes(answer.body) for answer in answers][:4] == [b"{}", b"data: 1\n\ndata: 2\n\n", b"", b""]
    assert len({id(request.closed) for request in upstream.requests}) == 1
    assert len(pool.connections) == 1


async def test_requests_at_the_same_time_have_connections_of_their_own(
    pool: UpstreamPool, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.default = stream(b"x", gate, b"y")
    answers = [begin(pool, post(upstream.port, b"{}")) for _ in range(20)]
    for answer in answers:
        await answer.until(lambda answer=answer: answer.body)
    assert len(pool.connections) == 20
    gate.set()
    for answer in answers:
        assert bytes((await answer.over()).body) == b"xy"
    await ask(pool, post(upstream.port, b"{}"))

    assert len(pool.connections) == 20


async def test_where_there_are_enough_connections_one_that_waits_makes_room(upstream: ScriptedUpstream) -> None:
    gate = asyncio.Event()
    limits = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}
    async with running_upstream() as other, running_pool(**limits, max_connections=2) as pool:
        await ask(pool, outgoing(upstream.port))
        other.default = stream(b"x", gate)
        held = [begin(pool, outgoing(other.port)) for _ in range(3)]
        await upstream.requests[0].closed.wait()
        for answer in held:
            await answer.until(lambda answer=answer: answer.body)
        assert len(pool.connections) == 3
        gate.set()
        assert [(await answer.over()).error for answer in held] == [None, None, None]


async def test_only_so_many_connections_wait(upstream: ScriptedUpstream) -> None:
    limits = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}
    async with running_pool(**limits, max_idle=2) as pool:
        answers = [begin(pool, post(upstream.port, b"{}")) for _ in range(5)]
        for answer in answers:
            await answer.over()
        async with asyncio.timeout(5):
            while len(pool.connections) > 2:
                await asyncio.sleep(0)
        assert [answer.status for answer in answers] == [200] * 5


async def test_two_upstreams_share_no_connection(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    for host in ("127.0.0.1", "localhost"):
        assert (await ask(pool, outgoing(upstream.port, host=host))).status == 200

    assert len({id(request.closed) for request in upstream.requests}) == 2
    assert [request.header("host") for request in upstream.requests] == [
        f"127.0.0.1:{upstream.port}", f"localhost:{upstream.port}",
    ]  # fmt: skip


async def test_events_come_one_by_one_as_they_are_sent(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    upstream.script(stream(b"data: 1\n\n", gates[0], b"data: 2\n\n", gates[1], b"data: 3\n\n"))
    answer = begin(pool, post(upstream.port, b"{}"))
    for number in (1, 2, 3):
        expected = b"".join(b"data: %d\n\n" % i for i in range(1, number + 1))
        await answer.until(lambda expected=expected: answer.body == expected)
        gates[number - 1].set()
    await answer.over()

    assert (answer.framing, answer.is_complete) == (BodyFraming.CHUNKED, True)


async def test_a_body_may_end_with_the_connection(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    upstream.script(raw(OK + b"\r\nall of it"), reply())
    answer = await ask(pool, outgoing(upstream.port))
    assert (bytes(answer.body), answer.framing, answer.is_complete) == (b"all of it", BodyFraming.CLOSE, True)

    assert (await ask(pool, outgoing(upstream.port))).status == 200
    assert len({id(request.closed) for request in upstream.requests}) == 2


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi", 200, b"hi"),
        (CHUNKED + b"2\r\nhi\r\n3;x=y\r\n!!!\r\n0\r\nTrailer: 1\r\n\r\n", 200, b"hi!!!"),
        (b"HTTP/1.1 204 No\r\n\r\n", 204, b""),
    ],
)
async def test_where_an_answer_is_cut_changes_nothing(
    pool: UpstreamPool, answer: bytes, status: int, body: bytes
) -> None:
    cuts = range(1, len(answer), 3)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        at = int(request.split(b" ")[1][1:])
        writer.write(answer[:at])
        await writer.drain()
        # A turn of the network in between.
        await asyncio.sleep(0.001)
        writer.write(answer[at:])
        await reader.read()

    async with tcp_server(serve) as port:
        heard = [begin(pool, outgoing(port, target=f"/{at}")) for at in cuts]
        for one in heard:
            await one.over()
            assert (one.status, bytes(one.body), one.is_complete) == (status, body, True)
        await pool.close()


CUT_BEFORE = {
    "nothing": b"",
    "half a head": OK + b"Content-Le",
    "an interim answer only": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("answer", CUT_BEFORE.values(), ids=CUT_BEFORE)
async def test_an_answer_without_a_whole_head_is_an_unreachable_upstream(
    pool: UpstreamPool, upstream: ScriptedUpstream, answer: bytes
) -> None:
    upstream.script(raw(answer) if answer else hang_up())
    heard = await ask(pool, post(upstream.port, b"{}"))

    assert isinstance(heard.error, UpstreamUnreachable)
    assert (heard.framing, heard.body, len(upstream.requests)) == (None, b"", 1)


NO_ANSWER = {
    "HTTP/0.9": b"<html></html>",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "both": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nPRI",
    "a large head": OK + b"A: b\r\n" * 20_000,
    "wrong chunks beside the head": CHUNKED + b"x\r\n",
}


@pytest.mark.parametrize("answer", NO_ANSWER.values(), ids=NO_ANSWER)
async def test_what_is_no_answer_is_an_unreachable_upstream_and_ends_the_connection(
    pool: UpstreamPool, upstream: ScriptedUpstream, answer: bytes
) -> None:
    upstream.script(raw(answer, close=False))
    heard = await ask(pool, post(upstream.port, b"{}"))

    assert isinstance(heard.error, UpstreamUnreachable)
    assert (heard.framing, heard.body, len(upstream.requests)) == (None, b"", 1)
    await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)


BROKEN_AFTER = {
    "short of its length": (OK + b"Content-Length: 9\r\n\r\nabc", b"abc"),
    "in a chunk": (CHUNKED + b"9\r\nabc", b"abc"),
    "after a chunk": (CHUNKED + b"3\r\nabc\r\n", b"abc"),
    "in a size": (CHUNKED + b"3\r\nabc\r\n1", b"abc"),
    "in the end": (CHUNKED + b"3\r\nabc\r\n0\r\n", b"abc"),
}


@pytest.mark.parametrize(("answer", "body"), BROKEN_AFTER.values(), ids=BROKEN_AFTER)
async def test_an_answer_that_breaks_off_is_never_complete(
    pool: UpstreamPool, upstream: ScriptedUpstream, answer: bytes, body: bytes
) -> None:
    upstream.script(raw(answer))
    heard = await ask(pool, post(upstream.port, b"{}"))

    assert isinstance(heard.error, UpstreamBroken)
    assert (heard.status, bytes(heard.body), heard.is_complete) == (200, body, False)


async def test_a_cut_stream_gives_its_events_and_then_the_error(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    upstream.script(stream(b"data: 1\n\n", b"data: 2", CUT))
    heard = await ask(pool, post(upstream.port, b"{}"))

    assert (bytes(heard.body), type(heard.error)) == (b"data: 1\n\ndata: 2", UpstreamBroken)


async def test_wrong_chunks_after_right_ones_end_the_connection(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    gate = asyncio.Event()

    async def script(exchange: object) -> None:
        exchange.send_raw(CHUNKED + b"3\r\nabc\r\n")  # type: ignore[attr-defined]
        await gate.wait()
        exchange.send_raw(b"3\r\nabc\r\n+3\r\nxyz\r\n")  # type: ignore[attr-defined]
        await exchange.request.closed.wait()  # type: ignore[attr-defined]

    upstream.script(script)
    heard = begin(pool, post(upstream.port, b"{}"))
    await heard.until(lambda: heard.body)
    gate.set()
    await heard.over()

    assert (bytes(heard.body), type(heard.error)) == (b"abc", UpstreamBroken)
    await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)


@pytest.mark.parametrize("after", [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", b"\r\n", b"x"])
async def test_bytes_after_an_answer_reach_nobody(pool: UpstreamPool, upstream: ScriptedUpstream, after: bytes) -> None:
    upstream.script(raw(OK + b"Content-Length: 3\r\n\r\nabc" + after, close=False), reply(body=b"good"))
    first = await ask(pool, outgoing(upstream.port))
    second = await ask(pool, outgoing(upstream.port))

    assert (bytes(first.body), bytes(second.body)) == (b"abc", b"good")
    assert len({id(request.closed) for request in upstream.requests}) == 2


async def test_bytes_on_a_connection_that_waits_close_it(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    gate = asyncio.Event()

    async def script(exchange: object) -> None:
        exchange.send_raw(OK + b"Content-Length: 3\r\n\r\nabc")  # type: ignore[attr-defined]
        await gate.wait()
        exchange.send_raw(OK + b"Content-Length: 3\r\n\r\nbad")  # type: ignore[attr-defined]

    upstream.script(script, reply(body=b"good"))
    await ask(pool, outgoing(upstream.port))
    gate.set()
    await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)
    second = await ask(pool, outgoing(upstream.port))

    assert bytes(second.body) == b"good"


async def test_a_client_that_leaves_closes_its_upstream_at_once(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    upstream.script(silence(), stream(b"data: 1\n\n", STALL))
    waiting = begin(pool, post(upstream.port, b"{}"))
    await upstream.wait_for_request(0)
    streaming = begin(pool, post(upstream.port, b"{}"))
    await streaming.until(lambda: streaming.body)
    waiting.call.cancel()
    streaming.call.cancel()
    streaming.call.cancel()
    for request in upstream.requests:
        await asyncio.wait_for(request.closed.wait(), 5)

    assert (waiting.is_over, streaming.is_over) == (False, False)


async def test_a_client_may_leave_from_within_the_answer(pool: UpstreamPool, upstream: ScriptedUpstream) -> None:
    class Leaving(Answer):
        def response_head(self, *args: Any, more: bool) -> None:
            super().response_head(*args, more=more)
            self.call.cancel()

    upstream.script(reply(body=b"abc"))
    answer = Leaving()
    answer.call = pool.send(outgoing(upstream.port), answer)
    await answer.until(lambda: answer.framing)
    await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)

    assert (answer.body, answer.is_over) == (b"", False)


async def test_a_client_may_leave_while_the_connection_is_made(pool: UpstreamPool) -> None:
    opened, closed = [], []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK + b"Content-Length: 0\r\n\r\n")
        finally:
            closed.append(writer)

    async with tcp_server(serve) as port:
        for turns in range(24):
            answer = begin(pool, outgoing(port))
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            answer.call.cancel()
        assert (await ask(pool, outgoing(port))).status == 200
        async with asyncio.timeout(5):
            while len(pool.connections) > 1 or len(opened) - len(closed) > 1:
                await asyncio.sleep(0)
        assert not pool.tasks
        await pool.close()


async def test_an_answer_may_be_followed_by_the_next_request_at_once(
    pool: UpstreamPool, upstream: ScriptedUpstream
) -> None:
    class Following(Answer):
        def response_end(self) -> None:
            super().response_end()
            second.call = pool.send(outgoing(upstream.port), second)

    second = Answer()
    first = Following()
    first.call = pool.send(outgoing(upstream.port), first)
    await first.over()
    await second.over()

    assert len({id(request.closed) for request in upstream.requests}) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_met_a_closed_connection_is_sent_once_more(pool: UpstreamPool, method: str) -> None:
    ok = OK + b"Content-Length: 2\r\n\r\nok"
    async with raw_upstream([ok, b""], [ok]) as (port, received):
        await ask(pool, post(port, b"{}"))
        second = await ask(pool, post(port, b"{}", method=method))

        assert (second.status, bytes(second.body)) == (200, b"ok")
        assert len(received) == 2
        assert received[1].startswith(method.encode())
        assert received[1].endswith(b"\r\n\r\n{}")


async def test_it_is_sent_once_more_and_not_twice(pool: UpstreamPool) -> None:
    ok = OK + b"Content-Length: 2\r\n\r\nok"
    async with raw_upstream([ok, b""], [b""], [ok]) as (port, received):
        await ask(pool, post(port, b"{}"))
        second = await ask(pool, post(port, b"{}"))

        assert isinstance(second.error, UpstreamUnreachable)
        assert len(received) == 2


@pytest.mark.parametrize("piece", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"Content-Length: 4\r\n\r\n"])
async def test_it_is_not_sent_again_once_anything_was_answered(pool: UpstreamPool, piece: bytes) -> None:
    ok = OK + b"Content-Length: 2\r\n\r\nok"
    async with raw_upstream([ok, piece], [ok]) as (port, received):
        await ask(pool, post(port, b"{}"))
        second = await ask(pool, post(port, b"{}"))

        assert isinstance(second.error, UpstreamUnreachable | UpstreamBroken)
        assert len(received) == 1


async def test_it_is_not_sent_again_on_a_connection_of_its_own(pool: UpstreamPool) -> None:
    async with raw_upstream([b""], [b""]) as (port, received):
        answer = await ask(pool, outgoing(port))

        assert isinstance(answer.error, UpstreamUnreachable)
        assert len(received) == 1


async def test_a_head_that_would_be_two_requests_is_a_bug_and_goes_nowhere(pool: UpstreamPool) -> None:
    with pytest.raises(ValueError, match="control characters"):
        pool.send(outgoing(1, headers=(("X", "a\r\nHost: b"),)), Answer())
    assert (pool.connections, pool.tasks) == (set(), set())


async def test_a_connection_that_is_being_closed_gets_no_request(
    pool: UpstreamPool, upstream: ScriptedUpstream
) -> None:
    await ask(pool, outgoing(upstream.port))
    (connection,) = pool.connections
    connection.transport.close()
    answer = begin(pool, outgoing(upstream.port, method="POST", streamed=True))
    answer.call.send_body(b"once")
    answer.call.end_body()
    await answer.over()

    assert answer.status == 200
    assert [request.body for request in upstream.requests] == [b"", b"once"]


async def test_connections_that_upstreams_closed_are_let_go(pool: UpstreamPool) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK + b"Content-Length: 0\r\n\r\n")

    async with tcp_server(serve) as port:
        for answer in [begin(pool, outgoing(port)) for _ in range(20)]:
            await answer.over()
        for writer in writers:
            writer.close()
        async with asyncio.timeout(5):
            while pool.connections:
                await asyncio.sleep(0)
    gc.collect()

    assert [one for one in gc.get_objects() if isinstance(one, UpstreamConnection)] == []
