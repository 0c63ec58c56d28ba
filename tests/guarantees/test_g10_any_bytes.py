"""G10: any bytes from a client, an upstream or a peer give a clear error at worst: never a hang, a crash, smuggling or
unbounded memory.

Proved on daemons that run, by Hypothesis and by a corpus of smuggled requests: bytes of clients, answers of upstreams,
those of a credentiald that lies to a bridge, and messages of a bridge or administrator that lie to credentiald. Each
gets one answer within its time, or a connection that is visibly broken off; no log has an error of ours; afterwards a
good request is served, and the process is as large as before.

Wider: tests/daemons/pair/test_hostile_requests.py, tests/daemons/bridged/http1, tests/fuzz and scripts/fuzz.
"""

import asyncio
import contextlib
import itertools
import os
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import h11
import pytest
from drawbridge.v1 import (
    admin_service_pb2,
    credential_service_pb2,
    explain_service_pb2,
    record_service_pb2,
    usage_service_pb2,
    user_key_service_pb2,
)
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.http1.smuggling.requests import BROKEN_BODIES, REFUSED
from tests.fakes.credentiald import SERVICE_TOKEN, USER_TOKEN, provider
from tests.fakes.scripted_upstream import Script, raw, reply, running_upstream
from tests.support.credentiald import bearer
from tests.support.event_stream import event
from tests.support.http import Answer, parse, send
from tests.support.http1_answer_mutations import ANSWERS, CHANGED_ANSWERS
from tests.support.http1_mutations import STREAMS, changed
from tests.support.odd_messages import odd_request
from tests.support.pair import Pair, running_pair
from tests.support.processes import Daemon, bridged
from tests.support.rpc import rpcs
from tests.support.tcp_server import tcp_server

KEY = "sk-central-canary-10"
PROVIDERS = {
    "openai": {"TYPE": "openai", "KEY": KEY, "BASE_URL": "{upstream}/v1"},
    "anthropic": {"TYPE": "anthropic", "KEY": KEY, "BASE_URL": "{upstream}"},
    "bedrock": {
        "TYPE": "bedrock", "BASE_URL": "{upstream}", "BEDROCK_REGION": "us-west-2",
        "BEDROCK_ACCESS_KEY": "AKIAIOSFODNN7EXAMPLE", "BEDROCK_ACCESS_KEY_SECRET": "x",
    },
}  # fmt: skip
# Its peak of memory is looked at, which is nobody's but root's otherwise.
TIMES = ("--max-body", "1MiB", "--first-byte-timeout", "1s", "--idle-timeout", "1s", "--debuggable")
MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
BODY = b'{"model":"%b","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}' % MODEL.encode()
DEADLINE_SECONDS = 20
# What a process may keep of all that; Python gives memory back in large pieces or not at all.
GROWTH_BYTES = 48 * 1024 * 1024
QUICK = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def port_of(daemon: Daemon) -> int:
    return int(daemon.addresses["http"].rpartition(":")[2])


def resident_bytes(daemon: Daemon) -> int:
    pages = Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(daemon: Daemon) -> int:
    """The most that was resident since `forget_peak`."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def forget_peak(daemon: Daemon) -> int:
    """Begin anew with what is resident now (proc(5), clear_refs)."""
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")
    return resident_bytes(daemon)


def errors_of(daemon: Daemon) -> list[object]:
    """What it says of failures of its own. That bytes are no message at all is gRPC's to say."""
    lines = [line for line in daemon.lines if line["level"] == "error"]
    return [*(line for line in lines if "message.DecodeError: " not in str(line.get("exception"))), *daemon.errors]


async def all_that_comes(port: int, data: bytes, *, ends: bool = True) -> bytes:
    """Every byte until the other side closes; with `ends` ours is ended after what was sent."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        got = b""
        try:
            writer.write(data)
            with contextlib.suppress(OSError):
                if ends:
                    # ENOTCONN, where the other side was quicker to break it off.
                    writer.write_eof()
                while more := await reader.read(1 << 16):
                    got += more
        finally:
            writer.transport.abort()
    return got


def asked(token: str, target: str, body: bytes = BODY) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


async def check_unharmed(pair: Pair) -> None:
    """Both daemons serve a good request, and none has met an error of its own."""
    pair.upstream.default = reply(200, b"{}")
    answer = await send(
        pair.bridged.addresses["http"], "POST", "/openai/v1/chat/completions",
        {"Authorization": f"Bearer {pair.token}"}, BODY,
    )  # fmt: skip
    assert answer.status == 200
    for daemon in (pair.bridged, pair.credentiald):
        assert daemon.process.poll() is None
        assert errors_of(daemon) == []


# -- clients ---------------------------------------------------------------------------------------------------------


async def test_a_smuggled_request_gets_one_refusal_and_the_upstream_nothing(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, *TIMES) as pair:
        for row in (*REFUSED, *BROKEN_BODIES):
            for target in ("/openai/v1/chat/completions", "/openai/v1/embeddings"):
                fields = f"Host: x\r\nAuthorization: Bearer {pair.token}\r\n".encode()
                data = row.data.replace(b"Host: x\r\n", fields, 1).replace(b"POST /x ", f"POST {target} ".encode(), 1)
                got = await all_that_comes(port_of(pair.bridged), data)
                # Not an answer yet: it finds out whether a client that ended its side is still there.
                got = got.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
                where = f"{row.name}: {got[:300]!r}"
                assert len(re.findall(rb"HTTP/1\.1 \d{3} ", got)) == 1, where
                assert 400 <= parse(got).status < 500, where
        assert not [request for request in pair.upstream.requests if request.body_complete]
        await check_unharmed(pair)


async def test_what_is_too_large_is_refused_without_being_held(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, *TIMES) as pair:
        chat, port = "/openai/v1/chat/completions", port_of(pair.bridged)
        before = forget_peak(pair.bridged)
        head = f"Host: x\r\nAuthorization: Bearer {pair.token}\r\n"
        much = 24 << 20
        chunks = b"%x\r\n%b\r\n" % (1 << 20, b" " * (1 << 20)) * 24
        for target in (chat, "/openai/v1/embeddings"):
            line = f"POST {target} HTTP/1.1\r\n{head}"
            for name, data, status in (
                ("announced", f"{line}Content-Length: {1 << 40}\r\n\r\n".encode(), 413),
                ("sent", asked(pair.token, target, b" " * much), 413),
                ("chunks", f"{line}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks, 413),
                ("a field", f"{line}X: {'y' * much}\r\n\r\n".encode(), 431),
                ("fields", line.encode() + b"X: y\r\n" * 400_000 + b"\r\n", 431),
                ("a target", f"POST {target}?{'y' * much} HTTP/1.1\r\n{head}\r\n".encode(), 431),
            ):
                got = await all_that_comes(port, data)
                assert parse(got).status == status, f"{name}: {got[:300]!r}"
        assert peak_bytes(pair.bridged) - before < GROWTH_BYTES
        assert not [request for request in pair.upstream.requests if request.body_complete]
        await check_unharmed(pair)


def with_pair(folder: Path, check: Callable[[Pair], Callable[[Any], Awaitable[None]]], data: Any, tries: int) -> None:
    """Hold a property of a pair that runs, for so many tries."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        pair = runner.run(stack.enter_async_context(running_pair(folder, PROVIDERS, *TIMES)))
        try:
            holds = check(pair)

            @settings(max_examples=tries, **QUICK)
            @given(data)
            def each(one: Any) -> None:
                runner.run(holds(one))

            before = resident_bytes(pair.bridged)
            each()
            assert resident_bytes(pair.bridged) - before < GROWTH_BYTES
            runner.run(check_unharmed(pair))
        finally:
            runner.run(stack.aclose())


def test_no_bytes_of_a_client_hang_or_harm_a_bridge(tmp_path):
    def check(pair: Pair) -> Callable[[bytes], Awaitable[None]]:
        numbers = itertools.count()

        async def holds(data: bytes) -> None:
            pair.upstream.requests.clear()
            mark = f"X-Try: {next(numbers)}\r\n"
            fields = f"Host: x\r\n{mark}Authorization: Bearer {pair.token}\r\n"
            data = data.replace(b"Host: x\r\n", fields.encode())
            data = data.replace(b" /x ", b" /openai/v1/chat/completions ").replace(b" /y ", b" /openai/v1/models ")
            got = await all_that_comes(port_of(pair.bridged), data)
            statuses = [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", got, re.MULTILINE)]
            assert all(status < 500 for status in statuses), (data, got)
            # No request goes out that another reader would not see in these bytes, at the place where it begins.
            heads = [request.raw_head for request in pair.upstream.requests]
            assert all(b"X-Try: " in head for head in heads), heads
            # What a try before has given up may come only now.
            assert sum(mark.encode() in head for head in heads) <= data.count(b" HTTP/1."), data

        return holds

    with_pair(tmp_path, check, STREAMS, 150)


# -- upstreams -------------------------------------------------------------------------------------------------------

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BINARY = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAMES = b"".join(event("chunk", b'{"bytes":"eyJ0eXBlIjoicGluZyJ9"}') for _ in range(3))
EVENTS = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n' * 3


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


CHANGE = st.tuples(st.integers(0, 4000), st.integers(0, 8), st.binary(max_size=3))
CHANGES = st.lists(CHANGE, min_size=1, max_size=4)
UPSTREAMS = st.one_of(
    st.tuples(st.just("/openai/v1/chat/completions"), CHANGED_ANSWERS),
    st.tuples(st.just("/openai/v1/embeddings"), CHANGED_ANSWERS),
    st.tuples(st.just("/anthropic/v1/messages"), CHANGES.map(lambda some: SSE + chunked(changed(EVENTS, some)))),
    st.tuples(st.just("/anthropic/v1/messages"), CHANGES.map(lambda some: changed(SSE + chunked(EVENTS), some))),
    st.tuples(st.just("/bedrock/v1/messages"), CHANGES.map(lambda some: BINARY + chunked(changed(FRAMES, some)))),
)


def check_one_answer(got: bytes, where: object) -> None:
    """One answer, whole or visibly broken off, and not a byte after it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Connection", "close")]))
    client.send(h11.EndOfMessage())
    client.receive_data(got)
    client.receive_data(b"")
    heads = 0
    try:
        while not isinstance(found := client.next_event(), (h11.EndOfMessage, h11.ConnectionClosed)):
            heads += isinstance(found, h11.Response)
        whole = isinstance(found, h11.EndOfMessage)
    except h11.RemoteProtocolError as error:
        assert "without sending complete message body" in str(error), (where, error, got)  # noqa: PT017
        whole = False
    assert heads == 1, (where, got)
    assert not whole or client.trailing_data[0] == b"", (where, got)


def test_no_answer_of_an_upstream_hangs_or_harms_a_bridge_or_is_two_for_its_client(tmp_path):
    def check(pair: Pair) -> Callable[[tuple[str, bytes]], Awaitable[None]]:
        async def holds(one: tuple[str, bytes]) -> None:
            target, answer = one
            pair.upstream.default = raw(answer)
            got = await all_that_comes(port_of(pair.bridged), asked(pair.token, target), ends=False)
            check_one_answer(got, one)
            assert KEY.encode() not in got

        return holds

    assert len(ANSWERS) > 100
    with_pair(tmp_path, check, UPSTREAMS, 250)


def endless(begin: bytes, piece: bytes) -> Script:
    """An answer that begins so and goes on so until nobody takes it any more, or 64 MiB are out."""

    async def script(exchange: Any) -> None:
        exchange.send_raw(begin)
        for _ in range((64 << 20) // len(piece)):
            exchange.send_raw(piece)
            await exchange.drain()
        exchange.cut()

    return script


ENDLESS = {
    "a head": endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536),
    "fields": endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10_000),
    "a status line": endless(b"HTTP/1.1 200 ", b"O" * 65536),
    "interim answers": endless(b"", b"HTTP/1.1 103 Early\r\n\r\n" * 1000),
    "a chunk's size": endless(SSE, b"0" * 65536),
    "a chunk's extension": endless(SSE + b"5;", b"x" * 65536),
    "trailers": endless(SSE + b"0\r\n", b"X: y\r\n" * 10_000),
    "an error that may be about usage": endless(
        b"HTTP/1.1 400 No\r\nContent-Type: application/json\r\n\r\n", b"x" * 65536
    ),
    "an event": endless(SSE, b"10000\r\n%b\r\n" % (b"data: " + b"x" * 65530)),
    "a frame": endless(BINARY, b"10000\r\n%b\r\n" % (b"\x7f\xff\xff\xff" * 16384)),
}


async def test_what_an_upstream_sends_without_end_is_not_held(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, *TIMES) as pair:
        for name, script in ENDLESS.items():
            target = "/bedrock/v1/messages" if name == "a frame" else "/openai/v1/chat/completions"
            pair.upstream.script(script)
            before = forget_peak(pair.bridged)
            async with asyncio.timeout(DEADLINE_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(pair.bridged))
                writer.write(asked(pair.token, target))
                size = 0
                with contextlib.suppress(ConnectionError):
                    while more := await reader.read(1 << 18):
                        size += len(more)
                writer.transport.abort()
            assert peak_bytes(pair.bridged) - before < GROWTH_BYTES, name
        await check_unharmed(pair)


# -- a credentiald that lies -----------------------------------------------------------------------------------------


class Liar(grpc.GenericRpcHandler):
    """Answers every rpc with bytes, whatever was asked; but a stream is begun as it should be, to get any questions."""

    def __init__(self, *, has_stream: bool) -> None:
        self.answer = b""
        self._has_stream = has_stream

    def service(self, call: Any) -> grpc.RpcMethodHandler | None:
        if call.method.endswith("/Ping"):
            return grpc.unary_unary_rpc_method_handler(self._pong)
        if call.method.endswith("/ResolveProviderStream") and not self._has_stream:
            return None
        if call.method.endswith(("/ResolveProviderStream", "/WatchProviders")):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._one)

    async def _pong(self, request: bytes, context: Any) -> bytes:
        return credential_service_pb2.PingResponse().SerializeToString()

    async def _one(self, request: bytes, context: Any) -> bytes:
        return self.answer

    async def _stream(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for question in requests:
            yield self.answer if question else b""


@asynccontextmanager
async def bridge_before(folder: Path, target: str) -> AsyncIterator[Daemon]:
    environ = {"BRIDGED_CREDENTIALD_TOKEN": SERVICE_TOKEN}
    bridge = bridged(folder, target, environ, "--credentiald-timeout", "300ms", "--connect-timeout", "500ms", *TIMES)
    daemon = await asyncio.to_thread(bridge.__enter__)
    try:
        yield daemon
    finally:
        await asyncio.to_thread(bridge.__exit__, None, None, None)


def lies(base_url: str, dice: random.Random) -> bytes:
    """An answer of credentiald, or something that resembles one."""
    good = provider("openai", base_url, name="corp", api_key=KEY)
    result = credential_service_pb2.ResolveProviderResult(response=good)
    batch = credential_service_pb2.ResolveProviderStreamResponse(results=[result] * dice.choice((0, 1, 2, 50)))
    data = dice.choice((good, batch)).SerializeToString()
    match dice.randrange(4):
        case 0:
            return dice.randbytes(dice.randrange(200))
        case 1:
            return data[: dice.randrange(len(data) + 1)]
        case _:
            changes = [
                (dice.randrange(1 << 16), dice.randrange(4), dice.randbytes(dice.randrange(4))) for _ in range(3)
            ]
            return changed(data, changes)


def well_formed_lies(base_url: str) -> Iterator[bytes]:
    """Messages of the contract that say what cannot be, each as a single answer and as a batch."""
    for field, value in (
        ("source", 99),
        ("source", 0),
        ("resolution_id", "x" * 100_000),
        ("revision", -(2**63)),
        ("pool_size", -(2**31)),
        ("upstream_model", "m\r\nX: y"),
        ("provider.base_url", "http://["),
        ("provider.base_url", ""),
        ("provider.wire_type", "of-later"),
        ("provider.wire_type", "bedrock"),
        ("provider.name", ""),
        ("provider.fallback_provider", "corp"),
        ("provider.fallback_provider", "../x"),
        ("user.username", "\r\n\0"),
        ("user.id", ""),
        ("credential.credential_id", ""),
        ("credential.api_key.value", "a\r\nHost: b"),
        ("credential.api_key.value", ""),
        ("credential.bearer_token.value", "\ud7ff"),
        ("credential.aws_credentials.secret_access_key", "x"),
    ):
        lie = provider("openai", base_url, name="corp", api_key=KEY, send_actor_headers=True)
        *path, last = field.split(".")
        place: Any = lie
        for name in path:
            place = getattr(place, name)
        setattr(place, last, value)
        yield lie.SerializeToString()
        result = credential_service_pb2.ResolveProviderResult(response=lie)
        yield credential_service_pb2.ResolveProviderStreamResponse(results=[result]).SerializeToString()
    for code, reason in (
        (0, "OK"),
        (16, ""),
        (99, "OF_LATER"),
        (-1, "x" * 10_000),
        (14, "ASK_SINGLY"),
        (5, "a\r\nb: c"),
    ):
        refusal = credential_service_pb2.ResolveRefusal(code=code, reason=reason, domain="drawbridge", message="\r\n")
        result = credential_service_pb2.ResolveProviderResult(refusal=refusal)
        yield credential_service_pb2.ResolveProviderStreamResponse(results=[result]).SerializeToString()


@pytest.mark.parametrize("has_stream", [True, False])
async def test_whatever_a_credentiald_says_a_bridge_answers_and_goes_on(tmp_path, has_stream):
    dice = random.Random(7)
    async with running_upstream() as upstream:
        liar, server = Liar(has_stream=has_stream), grpc.aio.server()
        server.add_generic_rpc_handlers([liar])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        base_url = f"{upstream.url}/v1"
        good = provider("openai", base_url, name="corp", api_key=KEY)
        if has_stream:
            result = credential_service_pb2.ResolveProviderResult(response=good)
            good = credential_service_pb2.ResolveProviderStreamResponse(results=[result])
        try:
            async with bridge_before(tmp_path, f"127.0.0.1:{port}") as daemon:
                before = resident_bytes(daemon)
                for lie in (
                    *well_formed_lies(base_url),
                    *(lies(base_url, dice) for _ in range(40)),
                    b"\0" * (40 << 20),
                ):
                    liar.answer = lie
                    answer = await asked_of(daemon)
                    # A lie may be a good answer by chance.
                    assert answer.status == 200 or 400 <= answer.status < 600, answer
                    assert b"\r\nHost: b" not in answer.raw
                    liar.answer = good.SerializeToString()
                    async with asyncio.timeout(DEADLINE_SECONDS):
                        while (await asked_of(daemon)).status != 200:
                            await asyncio.sleep(0.01)
                assert daemon.process.poll() is None
                assert resident_bytes(daemon) - before < 4 * GROWTH_BYTES
                # What it says of reports is what the liar says of them.
                assert [
                    line for line in errors_of(daemon) if "reject" not in str(line) and "refuses" not in str(line)
                ] == []
        finally:
            await server.stop(None)


async def asked_of(daemon: Daemon) -> Answer:
    headers = {"Authorization": f"Bearer {USER_TOKEN}"}
    return await send(daemon.addresses["http"], "POST", "/corp/v1/chat/completions", headers, BODY)


async def test_a_credentiald_that_speaks_no_grpc_is_503(tmp_path):
    spoken = iter([b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 5000, b"\x16\x03\x01", os.urandom(5000), b""] * 100)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(spoken, b""))
        await writer.drain()

    async with tcp_server(speak) as port, bridge_before(tmp_path, f"127.0.0.1:{port}") as daemon:
        for _ in range(5):
            answer = await asked_of(daemon)
            assert (answer.status, answer.header("X-Drawbridge-Error")) == (503, "CREDENTIALD_UNREACHABLE")


# -- a bridge or an administrator that lies --------------------------------------------------------------------------

CONTRACT = (
    admin_service_pb2, credential_service_pb2, explain_service_pb2, record_service_pb2, usage_service_pb2,
    user_key_service_pb2,
)  # fmt: skip
METHODS = [
    method
    for module in CONTRACT
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Its own failures, which no message may bring about; a deadline is a hang.
FAILURES = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}


# What grpc.aio's client says in place of the answer if the call ended while it was writing.
UNHEARD = "Internal error from Core"


async def called(channel: grpc.aio.Channel, method: Any, requests: list[bytes], token: str) -> grpc.StatusCode | None:
    """The status of one rpc with these bytes; None if the client did not hear it."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    options = {"metadata": bearer(token), "timeout": DEADLINE_SECONDS}
    try:
        if method.client_streaming:
            call = channel.stream_stream(path)(iter(requests), **options)
            async for _ in call:
                pass
        elif method.server_streaming:
            async for _ in channel.unary_stream(path)(requests[0], **options):
                pass
        else:
            await channel.unary_unary(path)(requests[0], **options)
    except grpc.aio.AioRpcError as error:
        return None if method.client_streaming and error.details() == UNHEARD else error.code()
    return grpc.StatusCode.OK


def is_readable(method: Any, data: bytes) -> bool:
    try:
        GetMessageClass(method.input_type).FromString(data)
    except Exception:
        return False
    return True


async def test_whatever_a_peer_sends_credentiald_it_answers_and_goes_on(tmp_path):
    dice = random.Random(11)
    async with running_pair(tmp_path, PROVIDERS, *TIMES) as pair, rpcs(tmp_path, pair.credentiald) as rpc:
        before = resident_bytes(pair.credentiald)
        seen: dict[str, set[grpc.StatusCode | None]] = {}
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(pair.credentiald.addresses[name]))
                for name in ("main", "admin")
            ]
            for method in METHODS:
                for _ in range(25):
                    requests = [odd_request(method, dice) for _ in range(3)]
                    channel = channels[method.containing_service.name == "AdminService"]
                    right = rpc.admin_token if channel is channels[1] else rpc.bridge_token
                    token = dice.choice((right, right, right, "", "dbs_x"))
                    code = await called(channel, method, requests, token)
                    seen.setdefault(method.name, set()).add(code)
                    readable = token == right and all(is_readable(method, data) for data in requests)
                    assert not readable or code not in FAILURES, (method.name, code, requests)
        assert len(seen) == len({method.name for method in METHODS})
        assert sum(codes != {grpc.StatusCode.UNAUTHENTICATED} for codes in seen.values()) > len(seen) / 2
        assert resident_bytes(pair.credentiald) - before < 2 * GROWTH_BYTES
        for listener in ("main", "admin"):
            for data in (
                b"GET / HTTP/1.1\r\n\r\n",
                os.urandom(5000),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 5000,
            ):
                host, _, port = pair.credentiald.addresses[listener].rpartition(":")
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(data)
                writer.transport.abort()
        await check_unharmed(pair)
