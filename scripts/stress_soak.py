"""The soak of scripts/stress: mixed load for a long time, and whether memory rises with it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from stress_clients import BODY, TROUBLE, Bridge, expect
from stress_figures import Verdict, at_most, none_of, settled, slope
from stress_pair import Pair

# Of a run, this is left out of the slope: caches fill, and the allocator finds its size.
WARM_UP_SHARE = 0.25
SAMPLE_SECONDS = 2.0
SLOPE_KIB_A_MINUTE = 256.0
# The pool gives up a connection that nobody used for 55 s.
SETTLE_SECONDS = 75.0
SPARE_DESCRIPTORS = 4
DEADLINE_SECONDS = 60.0
LARGE_BODY = json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "x" * (1 << 20)}]}).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of client: how many there are of it, and how long each rests between two requests, on average."""

    name: str
    clients: int
    rest_seconds: float
    request: Callable[[Bridge], Awaitable[None]]


async def _ask(bridge: Bridge, kind: str, body: bytes, *, token: str | None = None, status: int = 200) -> None:
    """A request on a connection of its own, and its whole answer."""
    async with asyncio.timeout(DEADLINE_SECONDS), bridge.connected() as (reader, writer):
        writer.write(bridge.head(kind, len(body), token=token) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        expect(head, status)
        length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        if length:
            await _skip(reader, int(length))
        elif not (await reader.readuntil(b"0\r\n\r\n")).endswith(b"[DONE]\n\n\r\n0\r\n\r\n"):
            raise ValueError("a stream without its end")


async def _skip(reader: asyncio.StreamReader, size_bytes: int) -> None:
    while size_bytes:
        data = await reader.read(min(size_bytes, 1 << 16))
        if not data:
            raise EOFError(f"{size_bytes} bytes of an answer did not come")
        size_bytes -= len(data)


async def _vanish(bridge: Bridge) -> None:
    async with bridge.connected() as (reader, writer):
        await bridge.begin_stream("ticks", reader, writer)


async def _leave_early(bridge: Bridge) -> None:
    """Gone in the middle of a body of its own."""
    async with bridge.connected() as (_, writer):
        writer.write(bridge.head("json", len(LARGE_BODY)) + LARGE_BODY[: 1 << 18])
        await writer.drain()


KINDS = (
    Kind(name="json", clients=8, rest_seconds=0.05, request=lambda bridge: _ask(bridge, "json", BODY)),
    Kind(name="stream", clients=8, rest_seconds=0.1, request=lambda bridge: _ask(bridge, "stream", BODY)),
    Kind(name="large body", clients=2, rest_seconds=0.2, request=lambda bridge: _ask(bridge, "json", LARGE_BODY)),
    Kind(name="large answer", clients=1, rest_seconds=2.0, request=lambda bridge: _ask(bridge, "large", BODY)),
    Kind(
        name="refused token",
        clients=2,
        rest_seconds=0.1,
        request=lambda bridge: _ask(bridge, "json", BODY, token="dbu_refused", status=401),
    ),
    Kind(
        name="unknown provider",
        clients=1,
        rest_seconds=0.2,
        request=lambda bridge: _ask(bridge, f"nowhere-{random.randrange(10**6)}", BODY, status=404),
    ),
    Kind(name="vanishing", clients=4, rest_seconds=0.2, request=_vanish),
    Kind(name="gone in its body", clients=1, rest_seconds=0.2, request=_leave_early),
)


async def verdicts(pair: Pair, seconds: float) -> AsyncIterator[Verdict]:
    """What is found, at the end."""
    counts: Counter[str] = Counter()
    problems: list[str] = []
    points: dict[str, list[tuple[float, float]]] = {"bridged": [], "credentiald": []}
    begun_descriptors = pair.descriptors()
    started = time.monotonic()
    load = [
        asyncio.create_task(_go_on(pair.bridge, kind, counts, problems)) for kind in KINDS for _ in range(kind.clients)
    ]
    while (now := time.monotonic() - started) < seconds:
        for name, line in points.items():
            line.append((now / 60, pair.rss_mib(name)))
        await asyncio.sleep(SAMPLE_SECONDS)
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)
    left_open = await settled(pair.open_at_upstream, 0, SETTLE_SECONDS)
    left_descriptors = await settled(pair.descriptors, begun_descriptors + SPARE_DESCRIPTORS, SETTLE_SECONDS)
    steady = await pair.steady()

    said = ", ".join(f"{kind.name} {counts[kind.name]}" for kind in KINDS)
    yield Verdict(good=all(counts[kind.name] for kind in KINDS), text=f"{seconds / 60:g} minutes: {said}")
    yield none_of("clients that did not get what they should", problems)
    for name, line in points.items():
        yield _memory(name, line, seconds / 60 * WARM_UP_SHARE)
    yield at_most("connections left open at the upstream", left_open, 0)
    yield at_most("descriptors of bridged afterwards", left_descriptors, begun_descriptors + SPARE_DESCRIPTORS)
    yield steady.verdict()
    for name in points:
        yield none_of(f"errors in the log of {name}", pair.complaints(name))


def _memory(name: str, points: list[tuple[float, float]], warm_minutes: float) -> Verdict:
    measured = [point for point in points if point[0] >= warm_minutes]
    rise_kib = slope(measured) * 1024
    begun, warm, ended = points[0][1], measured[0][1], measured[-1][1]
    return Verdict(
        good=rise_kib <= SLOPE_KIB_A_MINUTE,
        text=f"memory of {name}: {begun:.1f} MiB, {warm:.1f} after {warm_minutes:.1f} minutes, {ended:.1f} at the end; "
        f"it rises {rise_kib:.0f} KiB a minute (at most {SLOPE_KIB_A_MINUTE:.0f})",
    )


async def _go_on(bridge: Bridge, kind: Kind, counts: Counter[str], problems: list[str]) -> None:
    while True:
        try:
            await kind.request(bridge)
        except TROUBLE as problem:
            problems.append(f"{kind.name}: {type(problem).__name__}: {problem}")
        counts[kind.name] += 1
        await asyncio.sleep(random.expovariate(1 / kind.rest_seconds))
