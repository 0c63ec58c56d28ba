"""Loops that run as long as the bridge end when they are cancelled, also where gRPC keeps the cancellation to itself.

gRPC does so where the cancellation meets the end of a call: what was awaited returns, or raises the call's own error.
No peer can be made to end a call in just that moment, so the channel here does.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from drawbridge.v1 import credential_service_pb2 as pb

from bridged.key_outcomes import KeyOutcome, Kind
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution, Source
from bridged.outcomes import Outcomes
from bridged.readiness import Readiness
from bridged.recorder import Recorder
from bridged.resolver_identity import Identities, Identity
from bridged.resolver_peer import Peer
from bridged.resolver_pool import Pool
from bridged.resolver_watch import Watch
from tests.support.bridge import until


class Moment:
    """What is waited for without end, until the cancellation comes, which is not passed on the first time."""

    def __init__(self) -> None:
        self.is_reached = self.is_over = False

    async def wait(self) -> None:
        self.is_reached = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.is_over:
                raise
            self.is_over = True

    async def ends_a_call(self) -> Any:
        await self.wait()
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, details="it went away just now")


class Call:
    """A call of streams: what is read comes from `read`."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self.read = read

    async def write(self, message: Any) -> None: ...
    def cancel(self) -> None: ...
    def done(self) -> bool:
        return False

    def add_done_callback(self, callback: Any) -> None: ...


class Channel:
    """A channel on which everything goes well but for one method, whose answer is awaited through `moment`."""

    def __init__(self, method: str, moment: Moment) -> None:
        self._method = method
        self._moment = moment

    def unary_unary(self, path: str, **_: Any) -> Any:
        async def call(request: Any, **_: Any) -> Any:
            if path.endswith(f"/{self._method}"):
                return await self._moment.ends_a_call()
            return pb.PingResponse(database_id="d")

        return call

    def stream_stream(self, path: str, **_: Any) -> Any:
        async def goes_on() -> Any:
            await asyncio.Event().wait()

        ends = path.endswith(f"/{self._method}")
        return lambda **_: Call(self._moment.ends_a_call if ends else goes_on)


async def ends(task: "asyncio.Task[Any]", moment: Moment) -> bool:
    """Whether it ends within a second of being cancelled once."""
    await until(lambda: moment.is_reached)
    task.cancel()
    await asyncio.wait([task], timeout=1)
    is_done = task.done()
    task.cancel()
    await asyncio.wait([task])
    return is_done and moment.is_over


async def test_a_watch_ends() -> None:
    moment = Moment()

    class Stub:
        def WatchProviders(self, *, metadata: Any) -> Call:
            return Call(moment.ends_a_call)

    watching = asyncio.create_task(
        Watch(
            Stub(),  # type: ignore[arg-type]
            bridge_instance_id="b",
            metadata=(),
            metrics=Metrics(),
            place=lambda: ("", 0),
            obey=lambda _: None,
        ).keep()
    )
    assert await ends(watching, moment)


@pytest.mark.parametrize("method", ["WatchProviders", "Ping", "ResolveProviderStream"])
async def test_a_peer_ends_with_all_that_it_keeps_going(method: str) -> None:
    moment = Moment()
    pool = Pool(timeout_seconds=2.0, readiness=Readiness(), metrics=Metrics(), bridge_instance_id="b")
    peer = Peer(Channel(method, moment), pool, Identities(Identity()))  # type: ignore[arg-type]
    assert await ends(asyncio.create_task(peer.run()), moment)


async def test_what_is_told_of_keys_ends_and_is_counted() -> None:
    moment, metrics = Moment(), Metrics()

    async def send(_: object) -> int | Refused:
        await moment.wait()
        return Refused("CREDENTIALD_UNREACHABLE", "it went away just now")

    outcomes = Outcomes(send, metrics)
    resolution = Resolution(
        provider_id="p", provider_name="corp", provider_type="openai", wire_type="openai", base_url="https://up",
        user_id="u", username="ann", source=Source.CENTRAL_KEY, credential_id="c", receipt=b"r", pool_size=2,
    )  # fmt: skip
    for _ in range(3):
        outcomes.tell("corp", resolution, KeyOutcome(Kind.ACCEPTED, 200), time.monotonic())
    await until(lambda: moment.is_reached)
    await asyncio.wait_for(outcomes.close(), 5)
    assert metrics.registry.get_sample_value("bridged_key_outcomes_lost_total") == 3


async def test_a_recorder_ends() -> None:
    moment = Moment()

    async def send(_: object) -> Refused:
        await moment.wait()
        return Refused("CREDENTIALD_UNREACHABLE", "it went away just now")

    recorder = Recorder(send, Metrics(), bound_bytes=1000)
    recorder.add([("i", b"report")])
    assert await ends(asyncio.create_task(recorder.run()), moment)
    recorder.close()
