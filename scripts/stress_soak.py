"""The soak of scripts/stress: mixed load for a long time, and whether memory rises with it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from stress_administrator import change_something
from stress_clients import BODY, TROUBLE, Bridge, Trouble, expect
from stress_figures import TROUBLE_SECONDS, Verdict, at_most, none_of, rise_verdict, settled, trouble_verdict
from stress_pair import Pair

SAMPLE_SECONDS = 2.0
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
    troubles: list[str] = []
    points: dict[str, list[tuple[float, float]]] = {"bridged": [], "credentiald": []}
    begun_descriptors = pair.descriptors()
    started = time.monotonic()
    load = [
        asyncio.create_task(_go_on(pair.bridge, kind, counts, problems, troubles))
        for kind in KINDS
        for _ in range(kind.clients)
    ]
    changes: list[str] = []
    load.append(asyncio.create_task(_administer(pair, changes, troubles)))
    while (now := time.monotonic() - started) < seconds:
        for name, line in points.items():
            line.append((now / 60, pair.rss_mib(name)))
        await asyncio.sleep(SAMPLE_SECONDS)
    for task in load:
        task.cancel()
    ends = await asyncio.gather(*load, return_exceptions=True)
    problems += [repr(end) for end in ends if isinstance(end, Exception)]
    left_open = await settled(pair.open_at_upstream, 0, SETTLE_SECONDS)
    left_descriptors = await settled(pair.descriptors, begun_descriptors + SPARE_DESCRIPTORS, SETTLE_SECONDS)
    steady = await pair.steady()

    said = ", ".join(f"{kind.name} {counts[kind.name]}" for kind in KINDS)
    said += f", changes by an administrator {len(changes)}"
    has_all = all(counts[kind.name] for kind in KINDS) and bool(changes)
    yield Verdict(good=has_all, text=f"{seconds / 60:g} minutes: {said}")
    yield none_of("clients that did not get what they should", problems)
    troubles += steady.troubles
    yield trouble_verdict(counts.total() + steady.requests, troubles)
    for name, line in points.items():
        yield rise_verdict(name, line)
    yield at_most("connections left open at the upstream", left_open, 0)
    yield at_most("descriptors of bridged afterwards", left_descriptors, begun_descriptors + SPARE_DESCRIPTORS)
    yield steady.verdict(may_be_troubled=True)
    for name in points:
        yield none_of(f"errors in the log of {name}", pair.complaints(name))


async def _administer(pair: Pair, changes: list[str], troubles: list[str]) -> None:
    """Something changes all the time, so that bridges watch, and have something to obey."""
    while True:
        done = await change_something(pair.admin_address, pair.admin_token)
        (troubles if done.startswith("trouble") else changes).append(done)
        await asyncio.sleep(random.expovariate(1.0))


async def _go_on(bridge: Bridge, kind: Kind, counts: Counter[str], problems: list[str], troubles: list[str]) -> None:
    while True:
        began = time.monotonic()
        try:
            await kind.request(bridge)
        except Trouble as trouble:
            took_seconds = time.monotonic() - began
            told = f"{kind.name}: {trouble}, after {took_seconds:.1f} s"
            (troubles if took_seconds <= TROUBLE_SECONDS else problems).append(told)
        except TROUBLE as problem:
            problems.append(f"{kind.name}: {type(problem).__name__}: {problem}")
        counts[kind.name] += 1
        await asyncio.sleep(random.expovariate(1 / kind.rest_seconds))
