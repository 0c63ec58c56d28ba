"""Ambient credentials that end soon, under load through the real pair: rotation, a source that dies, one that hangs.

`DRAWBRIDGE_LIFETIME_SECONDS` says how long a credential lives (scripts/rotation gives 20); CI runs the short form.
"""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.aws import FAIL, HANG, OK
from tests.fakes.bedrock_turns import compact
from tests.support.bedrock import MODEL
from tests.support.bedrock_pair import KEY_ID, SECRET, BedrockPair, bedrock_pair
from tests.support.raw_http import raw_client, request

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

LIFETIME_SECONDS = float(os.environ.get("DRAWBRIDGE_LIFETIME_SECONDS", "3"))
PERIODS = 3
CLIENTS = 6
# What a source that fails is asked again after, at most (docs/bedrock.md), with room for a slow machine.
RECOVERY_SECONDS = 25.0
# With a source that works and one that hangs, each.
MOST_ROUNDS = 6
BODY = compact({"model": MODEL, "max_tokens": 5, "messages": []})


@dataclass
class Load:
    """What clients of a provider have got: when, the status, how long it took, and Retry-After."""

    answers: list[tuple[float, int, float, str | None]] = field(default_factory=list)

    @property
    def statuses(self) -> set[int]:
        return {status for _, status, _, _ in self.answers}

    def since(self, moment: float) -> "Load":
        return Load([one for one in self.answers if one[0] >= moment])

    def p99_seconds(self) -> float:
        taken = sorted(seconds for _, _, seconds, _ in self.answers)
        return taken[math.ceil(len(taken) * 0.99) - 1]


@asynccontextmanager
async def loaded(
    at: BedrockPair, provider: str = "aws", clients: int = CLIENTS, rest_seconds: float = 0.0
) -> AsyncIterator[Load]:
    """So many clients of a provider, each of whom asks again at once, or after a rest, for the length of the block."""
    load = Load()
    asked = request("POST", f"/{provider}/v1/messages", headers=[("x-api-key", at.pair.token)], body=BODY)
    port = int(at.pair.bridged.addresses["http"].rpartition(":")[2])

    async def client() -> None:
        async with raw_client(port, timeout_seconds=30) as connection:
            while True:
                began = time.time()
                await connection.send(asked)
                answer = await connection.read_answer()
                load.answers.append((began, answer.status, time.time() - began, answer.header("retry-after")))
                await asyncio.sleep(rest_seconds)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client()) for _ in range(clients)]
        try:
            yield load
        finally:
            for task in tasks:
                task.cancel()


async def until_answered(load: Load, status: int, *, timeout_seconds: float) -> float:
    """When the first request was asked that this status came for, of those from now on."""
    now = time.time()
    async with asyncio.timeout(timeout_seconds):
        while not (found := [began for began, got, _, _ in load.since(now).answers if got == status]):
            await asyncio.sleep(0.01)
    return found[0]


async def test_no_request_is_signed_with_a_key_that_has_ended(tmp_path: Path) -> None:
    async with bedrock_pair(tmp_path, "container", lifetime_seconds=LIFETIME_SECONDS) as at:
        async with loaded(at) as load:
            await asyncio.sleep(PERIODS * LIFETIME_SECONDS)
        # The mock refuses what has ended, as AWS does.
        assert load.statuses == {200}
        used = at.all_verified()
        assert PERIODS <= len(used) <= 2 * PERIODS
        assert at.aws.count("container") <= 2 * PERIODS
        print(f"{len(load.answers)} requests, {len(used)} keys, p99 {load.p99_seconds() * 1000:.1f} ms")


async def test_with_a_dead_source_requests_go_on_until_the_end_and_then_get_503_until_it_is_back(
    tmp_path: Path,
) -> None:
    async with bedrock_pair(tmp_path, "container", lifetime_seconds=LIFETIME_SECONDS) as at:
        async with loaded(at) as load:
            await until_answered(load, 200, timeout_seconds=10)
            at.aws.modes["container"] = FAIL
            await until_answered(load, 503, timeout_seconds=LIFETIME_SECONDS + 10)
            end = max(at.aws.given.values())
            await asyncio.sleep(0.5)
            first_refused = min(began for began, status, _, _ in load.answers if status == 503)
            before = Load([one for one in load.answers if one[0] < first_refused])
            # Not those that were under way at that moment, each of which may have been decided before the other.
            refused = load.since(first_refused + 0.2)
            at.aws.modes["container"] = OK
            await until_answered(load, 200, timeout_seconds=RECOVERY_SECONDS)
        assert before.statuses == {200}
        # A tenth of its life, at most a minute, is for clocks that differ; the rest is served.
        assert end - min(LIFETIME_SECONDS / 10, 60) - 0.5 <= first_refused <= end
        assert refused.statuses == {503}
        assert all(wait is not None and int(wait) > 0 for _, _, _, wait in refused.answers)
        assert len(at.all_verified()) >= 2
        print(f"refused {end - first_refused:.2f} s before the end; {len(load.answers)} requests")


async def test_a_source_that_hangs_does_not_slow_another_provider(tmp_path: Path) -> None:
    other = {
        "TYPE": "bedrock",
        "BEDROCK_ACCESS_KEY": KEY_ID,
        "BEDROCK_ACCESS_KEY_SECRET": SECRET,
        "BASE_URL": "{bedrock}",
    }
    providers = {"other": other}
    async with bedrock_pair(tmp_path, "container", providers=providers, lifetime_seconds=LIFETIME_SECONDS) as at:
        at.bedrock.accept(KEY_ID, SECRET)
        found = {OK: list[float](), HANG: list[float]()}
        async with loaded(at, "other", 3) as load, loaded(at, "aws", 3, 0.05) as ambient:
            await until_answered(ambient, 200, timeout_seconds=10)
            for mode in (OK, HANG) * MOST_ROUNDS:
                at.aws.modes["container"] = mode
                if mode == HANG:
                    at.aws.released.clear()
                    # From here on whoever wants the ambient credential waits, or is refused.
                    await until_unserved(ambient)
                else:
                    at.aws.released.set()
                    await until_answered(ambient, 200, timeout_seconds=RECOVERY_SECONDS)
                began = time.time()
                await asyncio.sleep(LIFETIME_SECONDS)
                found[mode].append(load.since(began).p99_seconds())
                if mode == HANG and min(found[HANG]) <= 1.5 * min(found[OK]):
                    break
            at.aws.released.set()
        assert load.statuses == {200}
        assert ambient.statuses <= {200, 503}
        print({mode: [f"{one * 1000:.1f} ms" for one in each] for mode, each in found.items()})
        # The best of some rounds each: this process is client, Bedrock and source at once, and may be late by itself.
        assert min(found[HANG]) <= 1.5 * min(found[OK])


async def until_unserved(load: Load) -> None:
    """Until a provider's clients have got nothing good for a moment."""
    served = time.time()
    async with asyncio.timeout(LIFETIME_SECONDS + 20):
        while time.time() - served < 0.5:
            await asyncio.sleep(0.05)
            good = [began for began, status, _, _ in load.answers[-CLIENTS:] if status == 200]
            served = max([served, *good])
