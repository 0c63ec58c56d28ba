"""Clients that end their side: those that are still there get their answer, those that left are found out."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from bridged.http1.downstream import Framing, Limits
from bridged.http_types import BodyBroken
from daemonkit.listen import Address
from tests.support.http1_service import Running, Scripted, Seen, Unread, hold, http1_server, reply, until
from tests.support.raw_http import RawClient, raw_client, request

# A sweep is half of the shortest; a test that is not about silence must not be decided by it.
QUICK = Limits(sign_seconds=0.3)
PATIENT = Limits(sign_seconds=60, linger_seconds=0.2)
# So much is read ahead, and the rest of a large body waits in the kernel.
FIRST = 80_000
LARGE = 100_000


def begin_stream(seen: Seen) -> None:
    seen.exchange.send_head(200, (), body=Framing.CHUNKED)
    seen.exchange.send(b"first")


@asynccontextmanager
async def in_its_answer(limits: Limits) -> AsyncIterator[tuple[Running, RawClient, Seen]]:
    """A client that has read the beginning of its answer, which now pauses."""
    service = Scripted(begin_stream)
    async with http1_server(service, limits=limits) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x"))
        await client.read_head()
        assert await client.read_some() == b"first"
        yield running, client, service.seen[0]


async def test_a_client_that_ends_its_side_in_its_answer_gets_the_rest_of_it() -> None:
    async with in_its_answer(QUICK) as (running, client, seen):
        client.writer.write_eof()
        await until(lambda: len(running.server._half_closed) == 1)
        seen.exchange.send(b"second")
        assert await client.read_some() == b"second"
        await asyncio.sleep(1.0)  # longer than the time for a sign, which it has given
        assert not seen.gone
        seen.exchange.send(b"x" * 100_000)
        seen.exchange.finish()
        rest = b""
        while piece := await client.read_some():
            rest += piece
        assert rest == b"x" * 100_000
        assert await client.read_to_end() == b""


async def test_a_client_that_left_in_its_answer_is_found_out_by_the_next_bytes() -> None:
    async with in_its_answer(PATIENT) as (running, client, seen):
        client.leave()
        await until(lambda: len(running.server._half_closed) == 1)
        assert not seen.gone
        seen.exchange.send(b"second")
        await until(lambda: seen.gone)


async def test_a_client_that_left_a_stream_that_is_quiet_is_given_up_after_the_time_for_a_sign() -> None:
    async with in_its_answer(QUICK) as (running, client, seen):
        client.leave()
        await until(lambda: seen.gone, timeout_seconds=1.5)
        assert running.server.connection_count == 0


async def test_the_answer_to_a_client_without_a_sign_never_looks_whole() -> None:
    async with in_its_answer(QUICK) as (_, client, seen):
        client.writer.write_eof()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.read_some()
        assert seen.gone


async def test_a_slow_reader_that_ended_its_side_is_not_taken_for_one_that_left() -> None:
    def much(seen: Seen) -> None:
        seen.exchange.send_head(200, (), body=Framing.CHUNKED)
        seen.exchange.send(bytes(20_000_000))

    service = Scripted(much)
    async with http1_server(service, limits=QUICK) as running, raw_client(running.port) as client:
        await client.send(request("GET", "/x"))
        await client.read_head()
        await asyncio.sleep(0.5)  # until its window is shut, so that nothing is acknowledged any more
        client.writer.write_eof()
        await asyncio.sleep(1.0)  # longer than the time for a sign
        service.seen[0].exchange.finish()
        size = 0
        while piece := await client.read_some():
            size += len(piece)
        assert size == 20_000_000


async def test_a_client_that_ended_its_side_and_then_left_in_silence_is_found_by_tcp() -> None:
    limits = Limits(sign_seconds=0.3, keepalive_seconds=1)
    async with in_its_answer(limits) as (running, client, seen):
        sock = client.writer.get_extra_info("socket")
        # How long this machine remembers a connection that was closed on one side only; 60 s if nobody says.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
        client.writer.write_eof()
        await until(lambda: len(running.server._half_closed) == 1)
        seen.exchange.send(b"second")
        assert await client.read_some() == b"second"
        client.leave()
        await until(lambda: seen.gone, timeout_seconds=8)


async def test_pipelined_requests_are_answered_after_an_end_in_the_first_answer() -> None:
    async with in_its_answer(QUICK) as (running, client, seen):
        await client.send(request("GET", "/2"))
        client.writer.write_eof()
        await until(lambda: len(running.server._half_closed) == 1)
        seen.exchange.finish()
        assert await client.read_some() == b""
        await client.read_head()
        assert await client.read_some() == b"first"


# A body that is not read at the moment


@asynccontextmanager
async def paused(sent: bytes, *, limits: Limits = PATIENT) -> AsyncIterator[tuple[Running, RawClient, Seen]]:
    """A client that has sent this, of whose body nothing is read."""
    service = Unread(lambda seen: reply(seen.exchange, 200, b"%d" % len(seen.body)))
    async with http1_server(service, limits=limits) as running, raw_client(running.port) as client:
        await client.send(sent[:FIRST])
        await until(lambda: len(service.seen) == 1)
        service.seen[0].exchange.pause_body()
        service.seen[0].exchange.read_stream(10_000_000)
        if len(sent) > FIRST:
            (connection,) = running.server._connections
            await until(lambda: not connection._reading)
            await client.send(sent[FIRST:])
        yield running, client, service.seen[0]


def counted(size: int, missing: int) -> bytes:
    return request("POST", "/x", headers=[("Content-Length", str(size + missing))]) + bytes(size)


def chunked(size: int, *, whole: bool) -> bytes:
    head = request("POST", "/x", headers=[("Transfer-Encoding", "chunked")])
    return head + b"%x\r\n%b" % (size, bytes(size)) + (b"\r\n0\r\n\r\n" if whole else b"")


@pytest.mark.parametrize("size", [5, LARGE])
async def test_a_body_that_cannot_become_whole_any_more_has_failed_though_nobody_reads_it(size: int) -> None:
    async with paused(counted(size, 1)) as (_, client, seen):
        client.writer.write_eof()
        await until(lambda: seen.failed is not None)
        assert isinstance(seen.failed, BodyBroken)
        assert (await client.read_answer()).status == 400


@pytest.mark.parametrize(
    "sent",
    [counted(LARGE, 0), chunked(LARGE, whole=True), chunked(5, whole=True)],
    ids=["counted", "chunks", "few"],
)
async def test_a_whole_body_of_a_client_that_ended_its_side_waits_until_it_is_read(sent: bytes) -> None:
    async with paused(sent) as (_, client, seen):
        client.writer.write_eof()
        await asyncio.sleep(0.4)  # several sweeps
        assert (seen.failed, seen.gone) == (None, False)
        seen.exchange.resume_body()
        answer = await client.read_answer()
        assert (answer.status, answer.body) == (200, b"%d" % (LARGE if len(sent) > LARGE else 5))


@pytest.mark.parametrize(
    "sent",
    [counted(LARGE, 0), chunked(LARGE, whole=True), chunked(LARGE, whole=False), chunked(5, whole=False)],
    ids=["whole", "whole chunks", "broken chunks", "few"],
)
async def test_a_client_that_left_while_its_body_is_not_read_is_found_out(sent: bytes) -> None:
    async with paused(sent) as (running, client, seen):
        client.writer.close()
        await until(lambda: seen.gone, timeout_seconds=2)
        assert running.server.connection_count == 0


async def test_a_client_that_never_agrees_on_tls_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.binding.HANDSHAKE_SECONDS", 0.2)
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(server_tls)
    async with http1_server(Scripted(hold), limits=PATIENT, tls=server_tls) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        assert await asyncio.wait_for(reader.read(), timeout=5) == b""
        writer.close()


async def test_a_client_that_left_over_tls_while_its_body_is_not_read_is_found_out() -> None:
    authority = trustme.CA()
    server_tls, client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_tls)
    authority.configure_trust(client_tls)
    # A ticket of TLS 1.3 that the client did not read would make a reset of its end.
    client_tls.maximum_version = ssl.TLSVersion.TLSv1_2
    service = Unread()
    async with http1_server(service, limits=PATIENT, tls=server_tls) as running:
        sock = await asyncio.to_thread(connected, running.port, client_tls)
        await asyncio.to_thread(sock.sendall, counted(FIRST, 1_000_000))
        await until(lambda: len(service.seen) == 1)
        service.seen[0].exchange.pause_body()
        service.seen[0].exchange.read_stream(10_000_000)
        (connection,) = running.server._connections
        await until(lambda: not connection._reading)
        # So much is read by the loop's TLS all the same, and what follows stays in the kernel.
        await asyncio.to_thread(sock.sendall, bytes(300_000))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(sock.sendall, bytes(30_000))
        # Without a word of TLS, as clients leave.
        sock.close()
        await until(lambda: service.seen[0].gone, timeout_seconds=2)


def connected(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")


async def test_a_client_of_a_unix_socket_that_left_is_found_out_and_one_that_ended_its_side_is_served(
    tmp_path: Path,
) -> None:
    path = f"{tmp_path}/bridge.sock"
    service = Scripted(hold)
    async with http1_server(service, limits=PATIENT, address=Address(path=path)) as running:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request("GET", "/x"))
        await until(lambda: len(service.seen) == 1)
        begin_stream(service.seen[0])
        writer.write_eof()
        await until(lambda: len(running.server._half_closed) == 1)
        service.seen[0].exchange.finish()
        assert (await reader.read()).endswith(b"first\r\n0\r\n\r\n")
        writer.close()
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(request("GET", "/x"))
        await until(lambda: len(service.seen) == 2)
        begin_stream(service.seen[1])
        writer.transport.abort()
        await until(lambda: service.seen[1].gone)
