"""Trouble with credentiald: 503 in time, readiness, and how soon it heals."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from bridged.resolver import PING_INTERVAL_SECONDS
from tests.fakes.credentiald import FakeCredentiald, Refuse, provider, running_credentiald
from tests.fakes.scripted_upstream import ScriptedUpstream
from tests.support.bridge import AUTH, RunningBridge, running_bridge, until
from tests.support.raw_http import RawAnswer, raw_exchange, request

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

ASK = request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m"}')
READY = request("GET", "/readyz")


async def ask(bridge: RunningBridge) -> RawAnswer:
    return await raw_exchange(bridge.port, ASK)


def is_away(answer: RawAnswer) -> bool:
    return (answer.status, answer.error, answer.header("retry-after")) == (503, "CREDENTIALD_UNREACHABLE", "1")


async def test_a_credentiald_that_hangs_is_503_within_the_time_out(credentiald: FakeCredentiald) -> None:
    credentiald.hang()
    async with running_bridge(credentiald, credentiald_timeout_seconds=0.3) as bridge:
        began = time.monotonic()
        answer = await ask(bridge)
        assert is_away(answer)
        assert time.monotonic() - began < 1.0
        credentiald.go_on()
        assert (await ask(bridge)).status == 200


async def test_a_credentiald_that_is_gone_is_503_at_once_and_healed_within_two_seconds_of_its_return(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with running_bridge(credentiald, credentiald_timeout_seconds=5) as bridge:
        assert (await ask(bridge)).status == 200
        await credentiald.stop()
        # So long that gRPC, left to itself, would not try again for more than two seconds.
        gone = time.monotonic()
        while time.monotonic() - gone < 4.5:
            began = time.monotonic()
            assert is_away(await ask(bridge))
            assert time.monotonic() - began < 1.5
        await until(lambda: bool(bridge.not_ready()))
        assert (await raw_exchange(bridge.port, READY)).status == 503
        await credentiald.start()
        back = time.monotonic()
        while (await ask(bridge)).status != 200:
            assert time.monotonic() - back < 2.0, "not healed in time"
            await asyncio.sleep(0.02)
        await until(lambda: not bridge.not_ready(), timeout_seconds=2.0)
        assert (await raw_exchange(bridge.port, READY)).status == 200


async def test_a_stream_goes_on_without_credentiald(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    from tests.fakes.scripted_upstream import stream
    from tests.support.raw_http import raw_client

    gate = asyncio.Event()
    upstream.script(stream(b"data: 1\n\n", gate, b"data: 2\n\n"))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ASK)
        await client.read_head()
        assert await client.read_some() == b"data: 1\n\n"
        await credentiald.stop()
        gate.set()
        assert await client.read_some() == b"data: 2\n\n"
        assert await client.read_some() == b""


async def test_a_bridge_is_ready_once_credentiald_has_answered_and_health_does_not_depend_on_it(
    credentiald: FakeCredentiald,
) -> None:
    credentiald.hang()
    async with running_bridge(credentiald) as bridge:
        not_yet = await raw_exchange(bridge.port, READY)
        assert (not_yet.status, not_yet.json()["ready"]) == (503, False)
        assert (await raw_exchange(bridge.port, request("GET", "/healthz"))).body == b"ok\n"
        credentiald.go_on()
        await until(lambda: not bridge.not_ready())
        ready = await raw_exchange(bridge.port, READY)
        assert (ready.status, ready.json()["ready"]) == (200, True)


@pytest.mark.parametrize("reason", ["SERVICE_TOKEN_INVALID", "CALLER_NOT_ALLOWED", "SEALED"])
async def test_a_refused_bridge_is_not_ready_says_why_and_logs_it_once(
    credentiald: FakeCredentiald, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    credentiald.ping_refuse = Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason=reason)
    async with running_bridge(credentiald) as bridge:
        await until(lambda: credentiald.pings >= 2, timeout_seconds=4 * PING_INTERVAL_SECONDS)
        answer = await raw_exchange(bridge.port, READY)
    assert answer.status == 503
    assert reason in answer.json()["reasons"][0]
    told = [record for record in caplog.records if record.__dict__.get("state") == reason]
    assert len(told) == 1


async def test_an_error_of_somebody_else_on_the_way_is_trouble_and_not_a_refusal(credentiald: FakeCredentiald) -> None:
    code = grpc.StatusCode.UNAUTHENTICATED
    credentiald.refuse = Refuse(code=code, reason="ACCESS_TOKEN_INVALID", domain="proxy.example")
    async with running_bridge(credentiald) as bridge:
        assert is_away(await ask(bridge))


async def test_the_highest_revision_is_asked_for_and_forgotten_with_the_database(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    credentiald.providers["later"] = provider("anthropic", upstream.url, api_key="k")
    credentiald.providers["later"].revision = 42
    async with running_bridge(credentiald) as bridge:
        await until(lambda: not bridge.not_ready())
        for name in ("anthropic", "later", "anthropic", "anthropic"):
            await raw_exchange(bridge.port, ASK.replace(b"/anthropic/", f"/{name}/".encode()))
        assert [one.min_revision for one in credentiald.resolves] == [0, 7, 42, 42]
        credentiald.database_id = "database-2"
        pings = credentiald.pings
        await until(lambda: credentiald.pings >= pings + 2)
        await ask(bridge)
    assert credentiald.resolves[-1].min_revision == 0
    assert len({one.bridge_instance_id for one in credentiald.resolves}) == 1


async def test_a_unix_socket_reaches_credentiald(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with running_credentiald(f"unix:{tmp_path}/c.sock") as credentiald:
        credentiald.providers["anthropic"] = provider("anthropic", upstream.url, api_key="k")
        async with running_bridge(credentiald) as bridge:
            assert (await ask(bridge)).status == 200
