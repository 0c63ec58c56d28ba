"""What stays in the bridge's memory of a request that is over: nothing, and that without the collector's help."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from bridged.http1.connection import ClientConnection
from bridged.http1.exchange import Exchange
from bridged.interception import Interception
from tests.fakes.credentiald import FakeCredentiald, Refuse
from tests.fakes.scripted_upstream import ScriptedUpstream
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.raw_http import raw_exchange, request

ASK = request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m"}')


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def what_is_left() -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, (Interception, Exchange, ClientConnection))]


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
