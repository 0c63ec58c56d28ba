"""Event streams: each event at once, and what happens when an end breaks."""

import asyncio
import json
import re
from typing import Any

import pytest
from drawbridge.v1.record_pb2 import INTERCEPTION_OUTCOME_COMPLETED

from bridged.records import AnswerRecords
from tests.fakes.credentiald import FakeCredentiald, provider
from tests.fakes.scripted_upstream import CUT, SSE, STALL, Script, ScriptedUpstream, raw, reply, stream
from tests.fakes.scripted_upstream import Exchange as UpstreamExchange
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.raw_http import RawAnswer, raw_client, raw_exchange, request
from tests.support.tcp_server import tcp_server

FIRST = b'event: message_start\ndata: {"type":"message_start"}\n\n'
SECOND = b'event: ping\ndata: {"type":"ping"}\n\n'
ASK = request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m","stream":true}')
DIALECTS = [
    ("/anthropic/v1/messages", lambda data: data["type"] == "error" and data["error"]["message"]),
    ("/openai/v1/chat/completions", lambda data: data["error"]["message"]),
    ("/openai/v1/responses", lambda data: data["type"] == "error" and data["message"]),
    ("/google/v1beta/models/g:streamGenerateContent?alt=sse", lambda data: data["error"]["message"]),
]


def asked(target: str) -> bytes:
    return request("POST", target, headers=[AUTH], body=b'{"model":"m","stream":true}')


def events(body: bytes) -> list[dict[str, str]]:
    """The events of a stream as a browser would dispatch them (WHATWG HTML, 9.2.6)."""
    assert re.search(rb"(\r\n|\n|\r)(\r\n|\n|\r)$", body), "the stream ends inside an event"
    found, fields = [], {}
    for line in re.split(r"\r\n|\n|\r", body.decode())[:-1]:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
        elif fields:
            found.append(fields)
            fields = {}
    return found


async def test_each_event_arrives_before_the_next_one_is_sent(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.script(stream(FIRST, gate, SECOND))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ASK)
        head = await client.read_head()
        assert await client.read_some() == FIRST
        gate.set()
        assert await client.read_some() == SECOND
        assert await client.read_some() == b""
    assert (head.header("cache-control"), head.header("x-accel-buffering")) == ("no-cache", "no")
    assert head.header("content-type") == "text/event-stream; charset=utf-8"


async def test_the_head_arrives_before_the_first_event(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.script(stream(gate, FIRST))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ASK)
        assert (await client.read_head()).status == 200
        gate.set()
        assert await client.read_some() == FIRST


def until_close(sent: bytes) -> Script:
    """A stream that has no other end than that of its connection."""
    return raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + sent)


@pytest.mark.parametrize(("target", "error_text"), DIALECTS)
@pytest.mark.parametrize("cut", [b'data: {"b', b'data: {"b":1}\n', b"event: x"])
async def test_a_stream_without_framing_that_ends_inside_an_event_was_cut(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, target: str, error_text: Any, cut: bytes
) -> None:
    upstream.script(until_close(FIRST + cut))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, asked(target))
    assert answer.body.startswith(FIRST + cut)
    assert error_text(json.loads(events(answer.body)[-1]["data"].split("\n")[-1]))


async def test_a_stream_without_framing_that_ends_after_an_event_is_passed_on_as_it_is(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(until_close(FIRST + SECOND))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ASK)
    assert answer.body == FIRST + SECOND


@pytest.mark.parametrize(("target", "error_text"), DIALECTS)
@pytest.mark.parametrize(
    "sent", [b"", FIRST, b'data: {"a":1}\n', b'data: {"a":1}\r', b'data: {"cut', b": comm", b"event: x\n", b"even"]
)
async def test_a_stream_that_breaks_ends_with_the_apis_error_event(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, target: str, error_text: Any, sent: bytes
) -> None:
    upstream.script(stream(*([sent] if sent else []), CUT))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, asked(target))
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body.startswith(sent)
    last = events(answer.body)[-1]
    # What was cut inside a data line may share its event with the error; the error stands alone otherwise.
    data = last["data"].removeprefix('{"cut\n') if sent == b'data: {"cut' else last["data"]
    assert "broke off" in error_text(json.loads(data))
    if target.startswith("/anthropic"):
        assert last["event"] == "error"


async def test_a_stream_that_stops_coming_ends_with_an_error_event(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(FIRST, STALL))
    async with running_bridge(credentiald, idle_timeout_seconds=0.1) as bridge:
        answer = await raw_exchange(bridge.port, ASK)
        assert answer.body.startswith(FIRST)
        assert events(answer.body)[-1]["event"] == "error"
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "application/json")],
        [*SSE, ("Content-Encoding", "gzip")],
    ],
)
async def test_another_body_that_breaks_breaks_the_connection(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, headers: list[tuple[str, str]]
) -> None:
    upstream.script(stream(b'{"half":', CUT, headers=headers))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ASK)
    assert (answer.status, answer.complete) == (200, False)
    assert b"error" not in answer.body


async def test_a_body_that_is_shorter_than_its_length_breaks_the_connection(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async def short(exchange: UpstreamExchange) -> None:
        exchange.send_head(200, [("Content-Type", "application/json"), ("Content-Length", "10")])
        exchange.send(b"12345")
        exchange.cut()

    upstream.script(short)
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ASK)
    assert (answer.status, answer.complete) == (200, False)


async def test_the_client_leaving_closes_the_upstream(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.script(stream(FIRST, STALL))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ASK)
        await client.read_head()
        await client.read_some()
        client.leave()
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)
        await until(lambda: bridge.bridge.under_way == 0)


async def test_the_client_leaving_before_the_answer_closes_the_upstream(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(asyncio.Event()))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ASK)
        sent = await upstream.wait_for_request()
        client.leave()
        await asyncio.wait_for(sent.closed.wait(), 5)
        await until(lambda: bridge.bridge.under_way == 0)


async def test_the_client_leaving_while_credentiald_thinks_ends_the_question(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    credentiald.hang()
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ASK)
        await until(lambda: len(credentiald.resolves) == 1)
        client.leave()
        await until(lambda: bridge.bridge.under_way == 0)
        credentiald.go_on()
    assert upstream.requests == []


async def test_a_client_that_does_not_read_is_given_up_and_holds_little_memory(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    sent_chunks = 0

    async def endless(exchange: UpstreamExchange) -> None:
        nonlocal sent_chunks
        exchange.send_head(200, SSE, chunked=True)
        while not exchange.request.closed.is_set():
            exchange.send(b"data: " + b"x" * 65536 + b"\n\n")
            await exchange.drain()
            sent_chunks += 1

    upstream.script(endless)
    async with running_bridge(credentiald, idle_timeout_seconds=0.3) as bridge, raw_client(bridge.port) as client:
        await client.send(ASK)
        await client.read_head()
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 10)
    # What the kernel's and the loops' buffers hold, not what an upstream can send in that time.
    assert sent_chunks < 500


async def test_a_tap_sees_every_byte_after_the_client(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    seen: list[bytes] = []

    class Listening:
        def feed(self, data: bytes) -> None:
            seen.append(data)

        def end(self, *, whole: bool) -> AnswerRecords:
            return AnswerRecords(msg_id="whole" if whole else "cut")

    upstream.script(stream(FIRST, SECOND))
    async with running_bridge(credentiald, make_tap=lambda *_, **__: Listening()) as bridge:
        answer = await raw_exchange(bridge.port, ASK)
        assert b"".join(seen) == answer.body == FIRST + SECOND
        await until(lambda: len(credentiald.reported) == 1)
    assert credentiald.reported[0].facts.streaming


async def test_a_tap_that_fails_does_not_disturb_the_client(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    class Broken:
        def feed(self, data: bytes) -> None:
            raise RuntimeError(f"cannot read {len(data)} bytes")

        def end(self, *, whole: bool) -> AnswerRecords:
            raise RuntimeError(f"cannot end, {whole}")

    upstream.script(stream(FIRST, SECOND))
    async with running_bridge(credentiald, make_tap=lambda *_, **__: Broken()) as bridge:
        answer = await raw_exchange(bridge.port, ASK)
        assert (answer.body, answer.complete) == (FIRST + SECOND, True)
        await until(lambda: len(credentiald.reported) == 1)
    assert credentiald.reported[0].end.outcome == INTERCEPTION_OUTCOME_COMPLETED


async def test_an_upstream_may_answer_before_it_has_read_the_whole_body(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    head = request("POST", "/openai/v1/embeddings", headers=[AUTH, ("Transfer-Encoding", "chunked")])

    # The scripted upstream reads bodies to their end, so a server of its own plays the impatient one.
    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
        await writer.drain()
        await reader.read()

    async with tcp_server(impatient) as port, running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        credentiald.providers["impatient"] = provider("openai", f"http://127.0.0.1:{port}/v1", api_key="k")
        await client.send(head.replace(b"/openai/", b"/impatient/") + b"5\r\nfirst\r\n")
        answer = await client.read_answer()
    assert (answer.status, answer.body, answer.error) == (413, b"large", None)


async def test_a_long_upload_is_not_taken_for_a_slow_upstream(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(200, b"done"))
    head = request("POST", "/openai/v1/embeddings", headers=[AUTH, ("Transfer-Encoding", "chunked")])
    async with running_bridge(credentiald, first_byte_timeout_seconds=0.5) as bridge, raw_client(bridge.port) as client:
        await client.send(head)
        for _ in range(4):
            await client.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.3)  # the clock is what is tested
        await client.send(b"0\r\n\r\n")
        answer: RawAnswer = await client.read_answer()
    assert (answer.status, answer.body, upstream.requests[0].body) == (200, b"done", b"xxxx")
