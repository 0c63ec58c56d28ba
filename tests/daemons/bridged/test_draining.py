"""Stopping a bridge: what runs may finish, what does not is ended in the way of its API, nothing new begins."""

import asyncio
import json
from datetime import timedelta

from bridged.serve import drain
from tests.fakes.credentiald import FakeCredentiald
from tests.fakes.scripted_upstream import STALL, ScriptedUpstream, silence, stream
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.raw_http import raw_client, raw_exchange, request

ASK = request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m","stream":true}')
READY = request("GET", "/readyz")
LONG = timedelta(seconds=20)
SHORT = timedelta(milliseconds=50)


async def test_a_stream_finishes_within_the_grace_and_nobody_else_gets_in(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.script(stream(b"data: 1\n\n", gate, b"data: 2\n\n"))
    async with (
        running_bridge(credentiald) as bridge,
        raw_client(bridge.port) as client,
        raw_client(bridge.port) as kept_alive,
    ):
        await kept_alive.send(READY)
        await kept_alive.read_answer()
        await client.send(ASK)
        await client.read_head()
        assert await client.read_some() == b"data: 1\n\n"
        bridge.readiness.draining = True
        draining = asyncio.create_task(drain(bridge.bridge, bridge.server, LONG))
        await until(lambda: bridge.server.draining)
        # A connection that was open already is told to go elsewhere; new ones find nobody.
        await kept_alive.send(ASK)
        refused = await kept_alive.read_answer()
        assert (refused.status, refused.error, refused.header("retry-after")) == (503, "CAPACITY", "1")
        assert refused.header("connection") == "close"
        try:
            await asyncio.open_connection("127.0.0.1", bridge.port)
        except ConnectionRefusedError:
            pass
        else:
            raise AssertionError("the bridge still accepts")
        assert not draining.done()
        gate.set()
        assert await client.read_some() == b"data: 2\n\n"
        assert await client.read_some() == b""
        await asyncio.wait_for(draining, 5)


async def test_readiness_is_503_while_draining(credentiald: FakeCredentiald) -> None:
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await until(lambda: not bridge.not_ready())
        await client.send(READY)
        assert (await client.read_answer()).status == 200
        bridge.readiness.draining = True
        await client.send(READY)
        answer = await client.read_answer()
    assert answer.status == 503
    assert "draining" in answer.json()["reasons"][0]


async def test_after_the_grace_a_stream_gets_the_error_event_and_its_end(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(b'data: {"half', STALL))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ASK)
        await client.read_head()
        body = await client.read_some()
        await drain(bridge.bridge, bridge.server, SHORT)
        while piece := await client.read_some():
            body += piece
        assert await client.read_to_end() == b""
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)
    event = body.split(b"event: error\ndata: ")[1]
    assert "stopping" in json.loads(event)["error"]["message"]


async def test_after_the_grace_a_request_without_an_answer_is_503(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(silence())
    async with running_bridge(credentiald) as bridge:
        asking = asyncio.create_task(raw_exchange(bridge.port, ASK))
        await upstream.wait_for_request()
        await drain(bridge.bridge, bridge.server, SHORT)
        answer = await asking
    assert (answer.status, answer.error) == (503, "CAPACITY")


async def test_a_hundred_streams_all_finish(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    gate = asyncio.Event()
    upstream.default = stream(b"data: 1\n\n", gate, b"data: 2\n\n")
    async with running_bridge(credentiald) as bridge:
        asking = [asyncio.create_task(raw_exchange(bridge.port, ASK)) for _ in range(100)]
        await until(lambda: len(upstream.requests) == 100)
        draining = asyncio.create_task(drain(bridge.bridge, bridge.server, LONG))
        await until(lambda: bridge.server.draining)
        gate.set()
        answers = await asyncio.gather(*asking)
        await draining
    assert {(one.status, one.complete, one.body) for one in answers} == {(200, True, b"data: 1\n\ndata: 2\n\n")}


async def test_draining_an_idle_bridge_takes_no_time(credentiald: FakeCredentiald) -> None:
    async with running_bridge(credentiald) as bridge, asyncio.timeout(1):
        await drain(bridge.bridge, bridge.server, LONG)
