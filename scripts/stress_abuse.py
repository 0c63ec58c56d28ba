"""The abuses of scripts/stress: how much of each, and what must hold while it lasts and after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import stress_clients
from stress_figures import Verdict, at_most, none_of, peak_of, settled
from stress_pair import Pair

WARM_UP_SECONDS = 5.0
SETTLE_SECONDS = 20.0
# What the bridge may use for all that the sizes do not count, and for each connection.
PLAIN_MIB = 16.0
CONNECTION_MIB = 16 / 1024
CREDENTIALD_MIB = 16.0
# What may stay over the start: the allocator keeps for the next wave what one has taken, about 7 KiB a stream. The
# same wave once more must not leave more again.
STAYS_MIB = 16.0
STREAM_STAYS_MIB = 8 / 1024
AGAIN_MIB = 8.0
# The steady client's connections come and go.
SPARE_DESCRIPTORS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of each abuse."""

    body_bytes: int
    stall_seconds: float
    streams: int
    hold_seconds: float
    vanishing: int
    slow_heads: int
    slow_bodies: int


FULL = Sizes(
    body_bytes=400 << 20,
    stall_seconds=10.0,
    streams=5000,
    hold_seconds=10.0,
    vanishing=1000,
    slow_heads=1000,
    slow_bodies=200,
)
SHORT = Sizes(
    body_bytes=40 << 20, stall_seconds=3.0, streams=500, hold_seconds=3.0, vanishing=100, slow_heads=100, slow_bodies=20
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abuse:
    """`begin` returns what its clients, `connections` of them, have to complain of."""

    name: str
    connections: int
    begin: Callable[[], Awaitable[list[str]]]

    def allowed_mib(self) -> float:
        """What the bridge may use more while it lasts."""
        return PLAIN_MIB + self.connections * CONNECTION_MIB


def abuses(pair: Pair, sizes: Sizes) -> list[Abuse]:
    """Each by itself."""
    bridge = pair.bridge
    return [
        Abuse(
            name=f"{sizes.body_bytes >> 20} MiB each way that nobody takes",
            connections=2,
            begin=lambda: stress_clients.stalled(bridge, sizes.body_bytes, sizes.stall_seconds),
        ),
        Abuse(
            name=f"{sizes.streams} idle streams",
            connections=sizes.streams,
            begin=lambda: stress_clients.idle_streams(bridge, sizes.streams, sizes.hold_seconds),
        ),
        Abuse(
            name=f"{sizes.vanishing} clients that vanish",
            connections=sizes.vanishing,
            begin=lambda: stress_clients.vanishing(bridge, sizes.vanishing),
        ),
        Abuse(
            name=f"{sizes.slow_heads} slow heads",
            connections=sizes.slow_heads,
            begin=lambda: stress_clients.slow_heads(bridge, sizes.slow_heads),
        ),
        Abuse(
            name=f"{sizes.slow_bodies} slow bodies",
            connections=sizes.slow_bodies,
            begin=lambda: stress_clients.slow_bodies(bridge, sizes.slow_bodies),
        ),
    ]


def together(parts: list[Abuse]) -> Abuse:
    """All of them at the same time."""

    async def begin() -> list[str]:
        return [problem for problems in await asyncio.gather(*(part.begin() for part in parts)) for problem in problems]

    return Abuse(name="all together", connections=sum(part.connections for part in parts), begin=begin)


async def verdicts(pair: Pair, sizes: Sizes, *, one_by_one: bool) -> AsyncIterator[Verdict]:
    """What is found, as it is found."""
    await asyncio.sleep(WARM_UP_SECONDS)
    judge = _Judge(pair, STAYS_MIB + sizes.streams * STREAM_STAYS_MIB)
    calm = await pair.steady()
    yield Verdict(
        good=calm.requests > 0 and not calm.failures,
        text=f"before: bridged {judge.begun_mib['bridged']:.1f} MiB, credentiald {judge.begun_mib['credentiald']:.1f} "
        f"MiB, another client's p99 {calm.p99_ms:.1f} ms",
    )
    parts = abuses(pair, sizes)
    for abuse in [*parts, together(parts), together(parts)] if one_by_one else [together(parts)]:
        async for verdict in judge.verdicts(abuse):
            yield Verdict(good=verdict.good, text=f"{abuse.name}: {verdict.text}")
    if one_by_one:
        before_mib, again_mib = judge.left_mib[-2:]
        yield at_most("all together once more: bridged afterwards, over last time", again_mib - before_mib, AGAIN_MIB)
    for name in judge.begun_mib:
        yield none_of(f"errors in the log of {name}", pair.complaints(name))


class _Judge:
    """Judges one abuse after another. `left_mib` is what the bridge had after each."""

    def __init__(self, pair: Pair, stays_mib: float) -> None:
        self.begun_mib = {name: pair.rss_mib(name) for name in ("bridged", "credentiald")}
        self.left_mib: list[float] = []
        self._pair = pair
        self._stays_mib = stays_mib
        self._descriptors = pair.descriptors() + SPARE_DESCRIPTORS

    async def verdicts(self, abuse: Abuse) -> AsyncIterator[Verdict]:
        """What is found while it lasts and after it."""
        pair = self._pair
        before_mib = {name: pair.rss_mib(name) for name in self.begun_mib}
        async with (
            peak_of(lambda: pair.rss_mib("bridged")) as bridged_mib,
            peak_of(lambda: pair.rss_mib("credentiald")) as credentiald_mib,
        ):
            problems = await abuse.begin()
        left_open = await settled(pair.open_at_upstream, 0, SETTLE_SECONDS)
        left_descriptors = await settled(pair.descriptors, self._descriptors, SETTLE_SECONDS)
        steady = await pair.steady()

        yield none_of("clients that did not get what they should", problems)
        for name, peak_mib, allowed_mib in (
            ("bridged", bridged_mib(), abuse.allowed_mib()),
            ("credentiald", credentiald_mib(), CREDENTIALD_MIB),
        ):
            yield at_most(f"{name} at its peak, over before", peak_mib - before_mib[name], allowed_mib, "MiB")
            yield await self._afterwards(name)
        yield at_most("connections left open at the upstream", left_open, 0)
        yield at_most("descriptors of bridged afterwards", left_descriptors, self._descriptors)
        yield steady.verdict()

    async def _afterwards(self, name: str) -> Verdict:
        begun_mib = self.begun_mib[name]
        stays_mib = self._stays_mib if name == "bridged" else CREDENTIALD_MIB
        left_mib = await settled(lambda: self._pair.rss_mib(name), begun_mib + stays_mib, SETTLE_SECONDS)
        if name == "bridged":
            self.left_mib.append(left_mib)
        return at_most(f"{name} afterwards, over the start", left_mib - begun_mib, stays_mib, "MiB")
