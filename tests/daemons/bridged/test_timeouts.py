"""Time-outs of a provider of its own: obeyed for its requests, and for no others'."""

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest
from drawbridge.v1 import provider_pb2
from google.protobuf.duration_pb2 import Duration

from tests.fakes.credentiald import FakeCredentiald, provider
from tests.fakes.scripted_upstream import STALL, Exchange, ScriptedUpstream, reply, silence, stream
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.raw_http import raw_exchange, request

# Far more than any of these tests takes: a request that ends has met the time-out of its provider.
LONG = {"first_byte_timeout_seconds": 60.0, "idle_timeout_seconds": 60.0, "connect_timeout_seconds": 60.0}
SHORT = Duration(nanos=200_000_000)


@pytest.fixture
def hasty(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> provider_pb2.ProviderTimeouts:
    """The time-outs of the provider `hasty`, whose upstream is everybody's."""
    credentiald.providers["hasty"] = provider("openai", upstream.url, name="hasty", api_key="sk")
    timeouts: provider_pb2.ProviderTimeouts = credentiald.providers["hasty"].provider.timeouts
    return timeouts


def ask(name: str) -> bytes:
    return request("GET", f"/{name}/v1/models", headers=[AUTH])


async def test_an_answer_that_does_not_begin_in_the_providers_time_is_given_up(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, hasty: provider_pb2.ProviderTimeouts
) -> None:
    hasty.first_byte.CopyFrom(SHORT)
    upstream.default = silence()
    async with running_bridge(credentiald, **LONG) as bridge:
        first = await raw_exchange(bridge.port, ask("hasty"))
        took_seconds = []
        for _ in range(4):
            began = time.monotonic()
            assert (await raw_exchange(bridge.port, ask("hasty"))).status == 504
            took_seconds.append(time.monotonic() - began)
    assert first.header("x-drawbridge-error") == "UPSTREAM_TIMEOUT"
    # Never before its time, and from the second request on not as late as with sweeps once a second.
    assert 0.2 <= min(took_seconds) < 0.9


async def test_an_answer_that_pauses_for_longer_than_the_providers_time_is_broken_off(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, hasty: provider_pb2.ProviderTimeouts
) -> None:
    hasty.idle.CopyFrom(SHORT)
    upstream.default = stream(b"data: {}\n\n", STALL)
    async with running_bridge(credentiald, **LONG) as bridge:
        answer = await raw_exchange(bridge.port, ask("hasty"))
    assert answer.status == 200
    assert b"answer stopped coming" in answer.body


async def test_a_provider_may_have_more_time_than_the_bridge_gives_others(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, hasty: provider_pb2.ProviderTimeouts
) -> None:
    hasty.first_byte.CopyFrom(Duration(seconds=60))
    others_are_over = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await others_are_over.wait()
        await reply(200)(exchange)

    upstream.default = slow
    async with running_bridge(credentiald, **{**LONG, "first_byte_timeout_seconds": 0.2}) as bridge:
        patient = asyncio.create_task(raw_exchange(bridge.port, ask("hasty")))
        await until(lambda: len(upstream.requests) == 1)
        other = await raw_exchange(bridge.port, ask("openai"))
        others_are_over.set()
        answer = await patient
    assert (other.status, answer.status) == (504, 200)


async def test_short_time_outs_of_one_provider_are_not_anothers(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, hasty: provider_pb2.ProviderTimeouts
) -> None:
    hasty.first_byte.CopyFrom(SHORT)
    hasty.idle.CopyFrom(SHORT)
    hasty_ones_are_over = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await hasty_ones_are_over.wait()
        await reply(200)(exchange)

    upstream.default = slow
    async with running_bridge(credentiald, **LONG) as bridge:
        patient = asyncio.create_task(raw_exchange(bridge.port, ask("openai")))
        await until(lambda: len(upstream.requests) == 1)
        given_up = [await raw_exchange(bridge.port, ask("hasty")) for _ in range(2)]
        hasty_ones_are_over.set()
        answer = await patient
    assert [one.status for one in given_up] == [504, 504]
    assert answer.status == 200


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port where nobody accepts and the queue is full: connections to it are not made."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        yield address[1]
        for one in waiting:
            one.close()


async def test_a_connection_that_does_not_stand_in_the_providers_time_is_given_up(
    credentiald: FakeCredentiald, hasty: provider_pb2.ProviderTimeouts, full_port: int
) -> None:
    hasty.connect.CopyFrom(SHORT)
    credentiald.providers["hasty"].provider.base_url = f"http://127.0.0.1:{full_port}/v1"
    async with running_bridge(credentiald, **LONG) as bridge:
        answer = await raw_exchange(bridge.port, ask("hasty"))
    assert answer.header("x-drawbridge-error") == "UPSTREAM_TIMEOUT"
