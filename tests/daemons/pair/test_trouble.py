"""Trouble between the two planes: each a clear answer in time, none a hang or a 500."""

import asyncio
import json
import signal
import time

import pytest

from tests.support.chats import PROVIDERS, chat
from tests.support.http import send
from tests.support.pair import running_pair, status_of
from tests.support.processes import command, credentiald

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone


async def test_a_stopped_credentiald_is_503_within_the_timeout_and_heals(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, "--credentiald-timeout", "1s") as pair:
        assert (await chat(pair)).status == 200
        pair.credentiald.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        answer = await chat(pair)
        took_seconds = time.monotonic() - started
        pair.credentiald.process.send_signal(signal.SIGCONT)
        healed = await until_answered(pair)

        assert (answer.status, answer.header("X-Drawbridge-Error")) == (503, "CREDENTIALD_UNREACHABLE")
        assert answer.header("Retry-After") == "1"
        assert took_seconds < 2
        assert healed < 2


async def until_answered(pair) -> float:
    """How many seconds it took until a request succeeded."""
    started = time.monotonic()
    async with asyncio.timeout(10):
        while (await chat(pair)).status != 200:
            await asyncio.sleep(0.02)
    return time.monotonic() - started


async def test_a_killed_credentiald_is_503_and_its_return_is_noticed_within_two_seconds(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as pair:
        addresses = pair.credentiald.addresses
        environ = {
            f"CODER_AIBRIDGE_PROVIDER_0_{key}": value.replace("{upstream}", pair.upstream.url)
            for key, value in PROVIDERS["openai"].items()
        }
        pair.credentiald.stop(signal.SIGKILL)
        gone = await chat(pair)
        ports = ("--listen", addresses["main"], "--admin-listen", addresses["admin"])
        back = credentiald(tmp_path, environ, *ports)
        await asyncio.to_thread(back.__enter__)
        try:
            healed = await until_answered(pair)
        finally:
            await asyncio.to_thread(back.__exit__, None, None, None)

        assert (gone.status, gone.header("X-Drawbridge-Error")) == (503, "CREDENTIALD_UNREACHABLE")
        assert healed < 2


async def test_readiness_follows_credentiald_and_liveness_does_not(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as pair:
        metrics, main = (f"http://{pair.bridged.addresses[name]}" for name in ("metrics", "http"))
        assert [await asyncio.to_thread(status_of, f"{base}/readyz") for base in (metrics, main)] == [200, 200]
        pair.credentiald.stop(signal.SIGKILL)
        async with asyncio.timeout(6):
            while await asyncio.to_thread(status_of, f"{metrics}/readyz") != 503:
                await asyncio.sleep(0.05)

        assert await asyncio.to_thread(status_of, f"{main}/readyz") == 503
        assert await asyncio.to_thread(status_of, f"{metrics}/healthz") == 200
        assert await asyncio.to_thread(status_of, f"{main}/healthz") == 200


async def test_a_bridge_that_stands_still_is_waited_for_within_the_bound_and_obeys_when_it_goes_on(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as pair:
        assert (await chat(pair)).status == 200
        [token] = json.loads(pair.command("tokens", "list", "--user", "ann", "--json"))
        async with asyncio.timeout(10):
            while not await watches(pair):
                await asyncio.sleep(0.02)
        pair.bridged.process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            done = await asyncio.to_thread(command, pair.folder, pair.credentiald, "tokens", "revoke", token["id"])
            took_seconds = time.monotonic() - started
            said = pair.credentiald.output
        finally:
            pair.bridged.process.send_signal(signal.SIGCONT)
        answer = await chat(pair)
        async with asyncio.timeout(10):
            while not await watches(pair):
                await asyncio.sleep(0.02)
        obeyed = await asyncio.to_thread(command, pair.folder, pair.credentiald, "users", "suspend", "ann")

        assert (done.returncode, obeyed.returncode) == (0, 0)
        assert done.stderr.startswith("warning: the change is made, but one bridge has not confirmed it in time")
        assert "warning" not in obeyed.stderr
        assert 1.0 <= took_seconds < 4.0
        assert "not every bridge acknowledges a change in time" in said
        assert (answer.status, answer.header("X-Drawbridge-Error")) == (401, "ACCESS_TOKEN_INVALID")


async def watches(pair) -> bool:
    """Whether the bridge is told of changes."""
    answer = await send(pair.credentiald.addresses["metrics"], "GET", "/metrics", {}, b"")
    return b"credentiald_watchers 1.0" in answer.body
