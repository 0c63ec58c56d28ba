"""What stays in the bridge's memory of a request that is over: nothing, and that without the collector's help."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from bridged.answer_to_asking import AnswerToAsking
from bridged.breaker import BreakerRules
from bridged.dump.attempt_files import AttemptFiles
from bridged.dump.dumper import DumpedCall
from bridged.dump.writer import AttemptDump
from bridged.failover import Failover
from bridged.fallback import Fallback
from bridged.http1.connection import ClientConnection
from bridged.http1.exchange import Exchange
from bridged.interception import Interception
from tests.fakes.credentiald import FakeCredentiald, Refuse, pool, provider
from tests.fakes.scripted_upstream import STALL, Script, ScriptedUpstream, hang_up, reply, stream
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.bridge_reports import CHUNKS, DONE, USAGE, ask, chat, reported
from tests.support.raw_http import raw_client, raw_exchange, request

# What the dump of a request holds, on the loop and on its thread.
DUMPED = (DumpedCall, AttemptDump, AttemptFiles)
ASK = request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m"}')


@contextmanager
def without_collector() -> Iterator[None]:
    """What there is by now is left out of what is looked at: going through it would hold the loop for long."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def what_is_left() -> list[object]:
    kinds = (Interception, Exchange, ClientConnection, AnswerToAsking, Failover, Fallback, *DUMPED)
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


async def test_nothing_of_a_request_that_was_refused(credentiald: FakeCredentiald) -> None:
    credentiald.refuse = Refuse(code=grpc.StatusCode.FAILED_PRECONDITION, reason="USER_KEY_REQUIRED")
    async with running_bridge(credentiald) as bridge:
        with without_collector():
            assert (await raw_exchange(bridge.port, ASK)).status == 403
            await until(lambda: not what_is_left())


async def test_nothing_of_the_requests_that_were_told_together_that_credentiald_is_away(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with running_bridge(credentiald) as bridge:
        await credentiald.stop()
        with without_collector():
            answers = await asyncio.gather(*(raw_exchange(bridge.port, ASK) for _ in range(5)))
            assert {answer.status for answer in answers} == {503}
            await until(lambda: not what_is_left())


REFUSAL = b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}'


@pytest.mark.parametrize(
    "scripts",
    [
        (stream(REFUSAL, STALL, status=400),),
        (reply(400, REFUSAL), stream(CHUNKS[0], STALL)),
        (stream(CHUNKS[0], STALL),),
    ],
)
async def test_nothing_of_a_stream_whose_client_left(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, scripts: tuple[Script, ...]
) -> None:
    upstream.script(*scripts)
    async with running_bridge(credentiald) as bridge:
        with without_collector():
            async with raw_client(bridge.port) as client:
                await client.send(ask(chat(stream=True)))
                last = await upstream.wait_for_request(len(scripts) - 1)
            async with asyncio.timeout(5):
                assert await last.closed.wait()
            await reported(credentiald)
            await until(lambda: not what_is_left())


async def test_nothing_of_a_stream_that_was_asked_for_usage(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(400, REFUSAL), stream(*CHUNKS, USAGE, DONE))
    async with running_bridge(credentiald) as bridge:
        with without_collector():
            assert (await raw_exchange(bridge.port, ask(chat(stream=True)))).status == 200
            await reported(credentiald)
            await until(lambda: not what_is_left())


LIMITED = reply(429, b"{}")


@pytest.mark.parametrize(
    ("scripts", "status"),
    [
        ((stream(CHUNKS[0], DONE),), 200),
        ((LIMITED, stream(CHUNKS[0], DONE)), 200),
        ((reply(400, REFUSAL), LIMITED, stream(CHUNKS[0], DONE)), 200),
        ((LIMITED, LIMITED), 429),
        ((LIMITED, reply(500, b"{}")), 500),
    ],
)
async def test_nothing_of_a_request_that_went_through_a_pool(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, scripts: tuple[Script, ...], status: int
) -> None:
    credentiald.pools["openai"] = pool(2, "openai", upstream.url)
    upstream.script(*scripts)
    async with running_bridge(credentiald) as bridge:
        with without_collector():
            assert (await raw_exchange(bridge.port, ask(chat(stream=True)))).status == status
            await reported(credentiald)
            await until(lambda: not what_is_left())


@pytest.mark.parametrize(
    ("scripts", "status"), [((LIMITED, stream(CHUNKS[0], DONE)), 200), ((LIMITED, LIMITED), 429), ((hang_up(),), 502)]
)
async def test_nothing_of_a_request_that_was_dumped(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, scripts: tuple[Script, ...], status: int, tmp_path: Path
) -> None:
    credentiald.pools["openai"] = pool(2, "openai", upstream.url)
    upstream.script(*scripts)
    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge:
        with without_collector():
            assert (await raw_exchange(bridge.port, ask(chat(stream=True)))).status == status
            await reported(credentiald)
            await until(lambda: not what_is_left())
    assert len(list(tmp_path.rglob("*.txt"))) == 2 * len(scripts)


@pytest.mark.parametrize("has_other", [True, False])
@pytest.mark.parametrize(
    ("script", "status"), [(reply(503, b"{}"), 503), (hang_up(), 502), (stream(CHUNKS[0], DONE), 200), (LIMITED, 429)]
)
async def test_nothing_of_a_request_that_could_go_to_another_provider(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, script: Script, status: int, has_other: bool
) -> None:
    answers = pool(2, "openai", upstream.url)
    for answer in answers:
        answer.provider.fallback_provider = "spare"
    credentiald.pools["openai"] = answers
    if has_other:
        credentiald.providers["spare"] = provider("openai", upstream.url, name="spare", api_key="sk")
    upstream.default = script
    # The second answer is of the other provider, or of another key.
    async with running_bridge(credentiald, breaker_rules=BreakerRules(failure_threshold=1)) as bridge:
        with without_collector():
            assert (await raw_exchange(bridge.port, ask(chat(stream=True)))).status == status
            await reported(credentiald)
            await until(lambda: not what_is_left())


@pytest.mark.parametrize("held", [True, False])
async def test_nothing_of_a_request_in_a_pool_whose_client_left(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, held: bool
) -> None:
    credentiald.pools["openai"] = pool(2, "openai", upstream.url)
    upstream.script(LIMITED, stream(CHUNKS[0], STALL, status=429 if held else 200))
    async with running_bridge(credentiald) as bridge:
        with without_collector():
            async with raw_client(bridge.port) as client:
                await client.send(ask(chat(stream=True)))
                last = await upstream.wait_for_request(1)
            async with asyncio.timeout(5):
                assert await last.closed.wait()
            await reported(credentiald)
            await until(lambda: not what_is_left())
