"""A bridge in the test's own loop, on a real socket, before a fake credentiald: for tests of the bridge alone.

async with running_bridge(credentiald, max_body_bytes=1000) as bridge:
    answer = await raw_exchange(bridge.port, request("GET", "/corp/v1/models", headers=[AUTH]))
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridged.breaker import BreakerRules
from bridged.breaking import Breaking
from bridged.bridge import Bridge
from bridged.dump.dumper import running_dumper
from bridged.dump.folder import DumpFolder
from bridged.dump.room import Room
from bridged.dump.writer import MOST_QUEUED_BYTES
from bridged.egress import Egress
from bridged.http1.downstream import Limits, Server, listening
from bridged.http1.pool import running_pool
from bridged.limits.admission import AdmissionLimits
from bridged.limits.entrance import Entrance
from bridged.metrics import Metrics
from bridged.provider_switch import ProviderSwitch
from bridged.readiness import Readiness
from bridged.recorder import running_recorder
from bridged.recording import TapMaker
from bridged.resolver import Identities, Identity, running_resolver
from bridged.taps import answer_tap
from bridged.trace_headers import TraceHeaders
from bridged.watch import DEFAULT_ENDS_ON, EndsOn
from daemonkit.listen import Address
from daemonkit.secret import Secret
from tests.fakes.credentiald import SERVICE_TOKEN, USER_TOKEN, FakeCredentiald

if TYPE_CHECKING:
    from bridged.tracing import Tracing

AUTH = ("Authorization", f"Bearer {USER_TOKEN}")


@dataclass(frozen=True, kw_only=True)
class RunningBridge:
    """The parts of a bridge; `port` is where clients reach it."""

    port: int
    bridge: Bridge
    server: Server
    readiness: Readiness
    metrics: Metrics

    def not_ready(self) -> list[str]:
        """Why the bridge is not ready; empty when it is."""
        return self.readiness.reasons(asyncio.get_running_loop().time())


@asynccontextmanager
async def running_bridge(
    credentiald: FakeCredentiald,
    *,
    max_body_bytes: int = 1024 * 1024,
    credentiald_timeout_seconds: float = 2.0,
    connect_timeout_seconds: float = 2.0,
    first_byte_timeout_seconds: float = 5.0,
    idle_timeout_seconds: float = 5.0,
    records: bool = True,
    needs_records: bool = False,
    record_queue_bytes: int = 1024 * 1024,
    asks_for_usage: bool = True,
    make_tap: TapMaker = answer_tap,
    tracing: "Tracing | None" = None,
    send_trace_headers: TraceHeaders | None = None,
    breaker_rules: BreakerRules | None = None,
    ends_on: frozenset[EndsOn] = DEFAULT_ENDS_ON,
    limits: AdmissionLimits | None = None,
    egress: Egress | None = None,
    plaintext_upstreams: frozenset[str] = frozenset(),
    dump_dir: str = "",
    dump_queue_bytes: int = MOST_QUEUED_BYTES,
    max_dump_bytes: int = 1 << 30,
) -> AsyncIterator[RunningBridge]:
    """A listening bridge for the length of the block."""
    readiness, metrics = Readiness(), Metrics()
    async with (
        running_resolver(
            credentiald.target,
            Identities(Identity(token=Secret(SERVICE_TOKEN))),
            timeout_seconds=credentiald_timeout_seconds,
            readiness=readiness,
            metrics=metrics,
        ) as resolver,
        running_recorder(resolver.append_records, metrics, bound_bytes=record_queue_bytes) as recorder,
        running_pool(
            connect_timeout_seconds=connect_timeout_seconds,
            first_byte_timeout_seconds=first_byte_timeout_seconds,
            idle_timeout_seconds=idle_timeout_seconds,
            egress=egress,
        ) as pool,
        running_dumper(
            DumpFolder(dump_dir, Room(max_dump_bytes, removed=metrics.dump.removed.inc)) if dump_dir else None,
            metrics.dump,
            most_queued_bytes=dump_queue_bytes,
        ) as dumper,
    ):

        def not_ready() -> list[str]:
            return readiness.reasons(asyncio.get_running_loop().time())

        bridge = Bridge(
            resolver,
            pool,
            metrics,
            max_body_bytes=max_body_bytes,
            not_ready=not_ready,
            recorder=recorder if records else None,
            needs_records=needs_records,
            asks_for_usage=ProviderSwitch(is_on=asks_for_usage),
            make_tap=make_tap,
            tracing=tracing,
            send_trace_headers=send_trace_headers,
            breaking=None if breaker_rules is None else Breaking(breaker_rules, metrics),
            ends_on=ends_on,
            entrance=None if limits is None else Entrance(limits, metrics),
            plaintext_upstreams=plaintext_upstreams,
            dumper=dumper,
        )
        resolver.tell_changes(bridge.obey)
        if bridge.breaking is not None:
            resolver.tell_breakers(bridge.breaking.views)
        resolver.tell_oldest(bridge.reporting.oldest_id)
        resolver.tell_return(bridge.reporting.tell_openings)
        address = Address(host="127.0.0.1", port=0)
        limits = Limits(body_seconds=idle_timeout_seconds, stall_seconds=idle_timeout_seconds)
        async with listening(bridge, [address], limits=limits) as server:
            yield RunningBridge(
                port=server.addresses[0].port, bridge=bridge, server=server, readiness=readiness, metrics=metrics
            )
        await bridge.outcomes.close()


async def until(condition: Callable[[], bool], *, timeout_seconds: float = 20.0) -> None:
    """Wait for a condition that nothing announces; TimeoutError where it never comes true."""
    async with asyncio.timeout(timeout_seconds):
        while not condition():
            await asyncio.sleep(0.005)
