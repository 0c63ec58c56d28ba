"""The bridge's streams and a real credentiald that is killed, stopped and replaced under load."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from bridged.metrics import Metrics
from bridged.model import Refused
from bridged.readiness import Readiness
from bridged.resolver import Identities, Identity, Outcome, Question, Resolver, running_resolver
from daemonkit.secret import Secret
from tests.support.pair import environment_of
from tests.support.processes import Daemon, commanded, credentiald

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

KEY = "sk-central-canary"
ENVIRONMENT = environment_of({"corp": {"TYPE": "openai", "KEY": KEY, "BASE_URL": "https://upstream.example/v1"}})


@dataclass
class Load:
    """Forty requests at a time, each followed by the next; every outcome with its time."""

    resolver: Resolver
    token: str = field(repr=False)
    outcomes: list[tuple[float, str]] = field(default_factory=list)
    slowest_seconds: float = 0.0
    wrong: list[Outcome] = field(default_factory=list)
    _stopping: bool = False

    async def run(self) -> None:
        await asyncio.gather(*(self._one_after_the_other(number) for number in range(40)))

    def stop(self) -> None:
        self._stopping = True

    async def _one_after_the_other(self, number: int) -> None:
        question = Question(
            provider="corp",
            access_token=Secret(self.token),
            operation="openai.chat_completions",
            model="m",
            presented_key=False,
            interception_id=str(UUID(int=number + 1)),
        )
        while not self._stopping:
            began = time.monotonic()
            try:
                answer = await self.resolver.resolve(question)
                told = "OK" if answer.provider_name == "corp" else "wrong"
            except Refused as refused:
                told = refused.reason
                # As a client does that was told to come again, though sooner.
                await asyncio.sleep(0.01)
            now = time.monotonic()
            self.slowest_seconds = max(self.slowest_seconds, now - began)
            self.outcomes.append((now, told))

    def said(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        return Counter(told for moment, told in self.outcomes if since <= moment < until)

    async def until_said(self, told: str, count: int) -> None:
        """Until this was told so many more times."""
        wanted = self.said()[told] + count
        async with asyncio.timeout(10):
            while self.said()[told] < wanted:
                await asyncio.sleep(0.01)

    async def until_ok(self, since: float) -> float:
        """How many seconds after `since` the first good answer came."""
        async with asyncio.timeout(10):
            while True:
                for moment, told in reversed(self.outcomes):
                    if moment <= since:
                        break
                    if told == "OK":
                        first = min(moment for moment, told in self.outcomes if moment > since and told == "OK")
                        return first - since
                await asyncio.sleep(0.01)


@asynccontextmanager
async def loaded(folder: Path, daemons: list[Daemon], *, timeout_seconds: float) -> AsyncIterator[Load]:
    """A resolver under load before these daemons, which share the database in `folder`."""

    async def lookup(host: str, port: int) -> list[tuple[str, int]]:
        del host, port
        parts = (daemon.addresses["main"].rpartition(":") for daemon in daemons)
        return [(address, int(number)) for address, _, number in parts]

    await asyncio.to_thread(commanded, folder, daemons[0], "users", "create", "ann")
    token = await asyncio.to_thread(commanded, folder, daemons[0], "tokens", "create", "--user", "ann")
    async with running_resolver(
        "dns:///credentiald.internal:7410",
        Identities(Identity(token=Secret((folder / "credentiald.bridge-token").read_text().strip()))),
        timeout_seconds=timeout_seconds,
        readiness=Readiness(),
        metrics=Metrics(),
        lookup=lookup,
    ) as resolver:
        load = Load(resolver, token.strip())
        running = asyncio.create_task(load.run())
        try:
            await load.until_ok(0.0)
            yield load
        finally:
            load.stop()
            await running


@asynccontextmanager
async def credentialds(folder: Path, count: int, *arguments: str) -> AsyncIterator[list[Daemon]]:
    async with AsyncExitStack() as stack:
        yield [
            await asyncio.to_thread(stack.enter_context, credentiald(folder, ENVIRONMENT, *arguments))
            for _ in range(count)
        ]


async def test_a_credentiald_that_is_killed_under_load_fails_closed_and_its_return_heals_within_two_seconds(tmp_path):
    async with credentialds(tmp_path, 1) as [first], loaded(tmp_path, [first], timeout_seconds=2) as load:
        await load.until_said("OK", 500)
        first.stop(signal.SIGKILL)
        # What had been answered before may still be read; once the loss is noticed there is nothing more.
        await load.until_said("CREDENTIALD_UNREACHABLE", 1)
        noticed = time.monotonic()
        await load.until_said("CREDENTIALD_UNREACHABLE", 500)
        down = load.said(noticed)
        back = credentiald(tmp_path, ENVIRONMENT, "--listen", first.addresses["main"])
        await asyncio.to_thread(back.__enter__)
        try:
            healed_seconds = await load.until_ok(time.monotonic())
        finally:
            load.stop()
            await asyncio.to_thread(back.__exit__, None, None, None)

    assert set(down) == {"CREDENTIALD_UNREACHABLE"}
    assert set(load.said()) == {"OK", "CREDENTIALD_UNREACHABLE"}
    assert healed_seconds < 2
    assert load.slowest_seconds < 2.5


async def test_a_credentiald_that_is_suspended_under_load_is_noticed_in_time_and_goes_on_when_it_wakes(tmp_path):
    async with credentialds(tmp_path, 1) as [first], loaded(tmp_path, [first], timeout_seconds=1) as load:
        await load.until_said("OK", 500)
        first.process.send_signal(signal.SIGSTOP)
        await load.until_said("CREDENTIALD_UNREACHABLE", 200)
        answered = load.said()["OK"]
        await load.until_said("CREDENTIALD_UNREACHABLE", 200)
        answered_while_away = load.said()["OK"] - answered
        woken = time.monotonic()
        first.process.send_signal(signal.SIGCONT)
        healed_seconds = await load.until_ok(woken)

    assert answered_while_away == 0
    assert healed_seconds < 2
    assert load.slowest_seconds < 1.6


async def test_replicas_that_are_suspended_killed_or_stopped_cost_no_answer_while_there_is_another(tmp_path):
    async with (
        credentialds(tmp_path, 3, "--grace", "20s") as [first, second, third],
        loaded(tmp_path, [first, second, third], timeout_seconds=2) as load,
    ):
        await load.until_said("OK", 500)
        second.process.send_signal(signal.SIGSTOP)
        await load.until_said("OK", 5000)
        second.process.send_signal(signal.SIGCONT)
        await load.until_said("OK", 1000)
        third.stop(signal.SIGKILL)
        await load.until_said("OK", 5000)
        began = time.monotonic()
        await asyncio.to_thread(second.stop, signal.SIGTERM)
        drained_seconds = time.monotonic() - began
        await load.until_said("OK", 1000)

    assert set(load.said()) == {"OK"}
    # Its stream was busy all the time, and held nothing up.
    assert drained_seconds < 5
    assert load.slowest_seconds < 2.0
