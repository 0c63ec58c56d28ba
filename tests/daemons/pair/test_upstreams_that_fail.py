"""Breakers, time-outs and fallback providers as operators set them, through both daemons."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.fakes.scripted_upstream import JSON, Exchange, reply, silence
from tests.support.pair import Pair, running_pair
from tests.support.processes import command
from tests.support.raw_http import RawAnswer, raw_exchange, request

BODY = json.dumps({"model": "claude-x", "max_tokens": 1, "messages": []}).encode()
GOOD = b'{"id":"msg_1","model":"claude-x","content":[],"usage":{"input_tokens":3,"output_tokens":4}}'
PROVIDERS = {
    "corp": {
        "TYPE": "anthropic",
        "KEY": "sk-corp",
        "BASE_URL": "{upstream}/corp",
        "FALLBACK_PROVIDER": "spare",
        "FIRST_BYTE_TIMEOUT": "300ms",
    },
    "spare": {"TYPE": "anthropic", "KEY": "sk-spare", "BASE_URL": "{upstream}/spare"},
}


async def turn(pair: Pair, provider: str = "corp") -> RawAnswer:
    port = int(pair.bridged.addresses["http"].rpartition(":")[2])
    headers = [("Authorization", f"Bearer {pair.token}"), *JSON]
    target = f"/api/v2/aibridge/{provider}/v1/messages"
    return await raw_exchange(port, request("POST", target, headers=headers, body=BODY))


async def record_of(pair: Pair, interception_id: str) -> Any:
    """What is stored of an interception, once it has ended there."""
    async with asyncio.timeout(20):
        while True:
            words = ("records", "show", interception_id, "--json")
            done = await asyncio.to_thread(command, pair.folder, pair.credentiald, *words)
            if done.returncode == 0 and '"end_time"' in done.stdout:
                return json.loads(done.stdout)
            await asyncio.sleep(0.05)


async def test_a_turn_goes_to_the_fallback_provider_and_the_record_is_of_that_one(tmp_path: Path) -> None:
    async with running_pair(tmp_path, PROVIDERS) as pair:
        pair.upstream.on("/corp/v1/messages", reply(503, b"{}"))
        pair.upstream.on("/spare/v1/messages", reply(200, GOOD))
        answer = await turn(pair)
        record = await record_of(pair, answer.header("x-interception-id") or "")
    assert (answer.status, answer.body) == (200, GOOD)
    assert [one.header("x-api-key") for one in pair.upstream.requests] == ["sk-corp", "sk-spare"]
    assert (record["interception"]["provider"], record["interception"]["outcome"]) == ("spare", "COMPLETED")
    (attempt,) = record["thread"][0]["attempts"]
    assert (attempt["http_status"], attempt["error_reason"]) == (503, "HTTP 503")


async def test_a_provider_from_the_environment_has_a_time_out_of_its_own(tmp_path: Path) -> None:
    async with running_pair(tmp_path, PROVIDERS) as pair:
        pair.upstream.on("/corp/v1/messages", silence())
        pair.upstream.on("/spare/v1/messages", reply(200, GOOD))
        answer = await turn(pair)
    assert (answer.status, answer.body) == (200, GOOD)


async def test_a_breaker_is_told_of_by_providers_health(tmp_path: Path) -> None:
    async def overloaded(exchange: Exchange) -> None:
        await reply(529, b"{}")(exchange)

    flags = ("--circuit-breaker-enabled", "--circuit-breaker-failure-threshold", "2")
    async with running_pair(tmp_path, PROVIDERS, *flags) as pair:
        pair.upstream.on("/spare/v1/messages", overloaded)
        answers = [await turn(pair, "spare") for _ in range(3)]
        async with asyncio.timeout(20):
            while "OPEN" not in (shown := await asyncio.to_thread(pair.command, "providers", "health", "spare")):
                await asyncio.sleep(0.05)
    assert [one.status for one in answers] == [529, 529, 503]
    assert answers[2].header("x-drawbridge-error") == "BREAKER_OPEN"
    assert "claude-x" in shown
