"""A provider's fallback provider in a running bridge: when a turn goes there, what of it goes there, and when not."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from drawbridge.v1 import record_pb2

from bridged.breaker import BreakerRules
from bridged.held_answer import MAX_HELD_BYTES
from tests.fakes.credentiald import USER_TOKEN, FakeCredentiald, Refuse, pool, provider
from tests.fakes.scripted_upstream import (
    CUT,
    JSON,
    Exchange,
    Script,
    ScriptedUpstream,
    hang_up,
    reply,
    running_upstream,
    silence,
    stream,
)
from tests.fakes.silent_server import silent_server
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.bridge_reports import outcome, reported, sample
from tests.support.raw_http import RawAnswer, raw_client, raw_exchange, request

FAILED = b'{"error":{"message":"the first upstream is broken"}}'
GOOD = b'{"id":"msg_1","model":"claude-x","content":[],"usage":{"input_tokens":3,"output_tokens":4}}'
BODY = json.dumps({"model": "claude-x", "max_tokens": 1, "messages": []}).encode()


@pytest.fixture
async def spare() -> AsyncIterator[ScriptedUpstream]:
    """The upstream of the fallback provider."""
    async with running_upstream() as running:
        running.default = reply(200, GOOD)
        yield running


@pytest.fixture
def pair(credentiald: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream) -> FakeCredentiald:
    """credentiald with the provider `corp`, whose upstream fails, and its fallback provider `spare`."""
    upstream.default = reply(503, FAILED)
    for name, one, key in (("corp", upstream, "sk-corp"), ("spare", spare, "sk-spare")):
        answer = credentiald.providers[name] = provider("anthropic", one.url, name=name, api_key=key)
        answer.receipt = f"receipt of {name}".encode()
    credentiald.providers["corp"].provider.fallback_provider = "spare"
    return credentiald


def turn(*headers: tuple[str, str]) -> bytes:
    return request("POST", "/corp/v1/messages", headers=[*(headers or [AUTH]), *JSON], body=BODY)


async def asked(pair: FakeCredentiald, data: bytes = b"", **options: Any) -> RawAnswer:
    """The answer to one turn, by a bridge of its own."""
    async with running_bridge(pair, **options) as bridge:
        return await raw_exchange(bridge.port, data or turn())


@pytest.mark.parametrize(
    ("script", "status", "category", "reason"),
    [
        *((reply(status, FAILED), status, "SERVER_ERROR", f"HTTP {status}") for status in (500, 502)),
        *((reply(status, FAILED), status, "OVERLOADED", f"HTTP {status}") for status in (503, 529)),
        (reply(504, FAILED), 504, "TIMEOUT", "HTTP 504"),
        (stream(FAILED, CUT, status=503, headers=JSON), 503, "OVERLOADED", "HTTP 503"),
        (hang_up(), 0, "UNREACHABLE", "UPSTREAM_UNREACHABLE"),
        (silence(), 0, "TIMEOUT", "UPSTREAM_TIMEOUT"),
    ],
)
async def test_a_turn_goes_to_the_fallback_provider_where_the_upstream_fails(
    pair: FakeCredentiald,
    upstream: ScriptedUpstream,
    spare: ScriptedUpstream,
    script: Script,
    status: int,
    category: str,
    reason: str,
) -> None:
    upstream.default = script
    # The spare one has as little time as the one that says nothing.
    first_byte_seconds = 1.0 if reason == "UPSTREAM_TIMEOUT" else 5.0
    async with running_bridge(pair, first_byte_timeout_seconds=first_byte_seconds) as bridge:
        answer = await raw_exchange(bridge.port, turn())
        (report,) = await reported(pair)
        taken = sample(bridge.metrics.registry, "bridged_fallbacks_total", outcome="taken")
    assert (answer.status, answer.body, answer.complete) == (200, GOOD, True)
    assert taken == 1
    first, second = pair.resolves
    assert (first.provider, second.provider) == ("corp", "spare")
    assert first.interception_id == second.interception_id
    assert first.access_token == second.access_token == USER_TOKEN
    (sent,) = spare.requests
    assert (sent.body, sent.header("x-api-key")) == (BODY, "sk-spare")
    assert b"sk-corp" not in sent.raw_head
    # One record, of the answer that the client saw, with the call before it.
    assert report.receipt == b"receipt of spare"
    assert outcome(report) == ("COMPLETED", "UNSPECIFIED", "", 200)
    assert len(report.token_usages) == 1
    (attempt,) = report.attempts
    assert (attempt.receipt, attempt.http_status, attempt.error_reason) == (b"receipt of corp", status, reason)
    assert record_pb2.UpstreamErrorCategory.Name(attempt.error_category) == f"UPSTREAM_ERROR_CATEGORY_{category}"


@pytest.mark.parametrize("status", [200, 400, 403, 404, 422, 429, 501])
async def test_any_other_answer_is_the_clients(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream, status: int
) -> None:
    upstream.default = reply(status, FAILED)
    answer = await asked(pair)
    assert (answer.status, answer.body) == (status, FAILED)
    assert spare.requests == []
    assert len(pair.resolves) == 1


async def test_where_credentiald_refuses_the_fallback_provider_the_client_gets_what_there_was_first(
    pair: FakeCredentiald, spare: ScriptedUpstream
) -> None:
    del pair.providers["spare"]
    async with running_bridge(pair) as bridge:
        answer = await raw_exchange(bridge.port, turn())
        (report,) = await reported(pair)
        refused = sample(bridge.metrics.registry, "bridged_fallbacks_total", outcome="refused")
    assert (answer.status, answer.body, answer.complete) == (503, FAILED, True)
    assert refused == 1
    assert spare.requests == []
    assert report.receipt == b"receipt of corp"
    assert outcome(report)[0] == "UPSTREAM_ERROR"
    assert len(report.attempts) == 0


async def test_where_it_is_refused_after_a_failed_connection_the_client_hears_of_that(
    pair: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = hang_up()
    del pair.providers["spare"]
    answer = await asked(pair)
    assert answer.header("x-drawbridge-error") == "UPSTREAM_UNREACHABLE"


async def test_an_answer_that_broke_off_is_broken_off_for_the_client_too_where_there_is_no_other(
    pair: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = stream(FAILED, CUT, status=503, headers=JSON)
    del pair.providers["spare"]
    answer = await asked(pair)
    assert (answer.status, answer.complete) == (503, False)
    assert FAILED in answer.body


async def test_the_fallback_providers_answer_is_the_clients_whatever_it_is(
    pair: FakeCredentiald, spare: ScriptedUpstream
) -> None:
    pair.providers["spare"].provider.fallback_provider = "anthropic"
    spare.default = reply(529, b"{}")
    async with running_bridge(pair) as bridge:
        answer = await raw_exchange(bridge.port, turn())
        (report,) = await reported(pair)
    assert (answer.status, answer.body) == (529, b"{}")
    assert [one.provider for one in pair.resolves] == ["corp", "spare"]
    assert report.receipt == b"receipt of spare"
    assert outcome(report)[:2] == ("UPSTREAM_ERROR", "OVERLOADED")


async def test_a_fallback_upstream_that_cannot_be_reached_is_told_of(
    pair: FakeCredentiald, spare: ScriptedUpstream
) -> None:
    spare.default = hang_up()
    answer = await asked(pair)
    assert answer.header("x-drawbridge-error") == "UPSTREAM_UNREACHABLE"
    assert len(spare.requests) == 1


async def test_a_request_with_a_key_of_its_own_goes_to_no_other_provider(
    pair: FakeCredentiald, spare: ScriptedUpstream
) -> None:
    own = (("X-Coder-AI-Governance-Token", USER_TOKEN), ("X-Api-Key", "sk-ant-own"))
    answer = await asked(pair, turn(*own))
    assert (answer.status, answer.body) == (503, FAILED)
    assert len(pair.resolves) == 1
    assert spare.requests == []


async def test_what_is_no_turn_of_a_conversation_goes_to_no_other_provider(
    pair: FakeCredentiald, spare: ScriptedUpstream
) -> None:
    answer = await asked(pair, request("GET", "/corp/v1/models", headers=[AUTH]))
    assert answer.status == 503
    assert spare.requests == []


async def test_after_a_byte_of_an_answer_there_is_no_other(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream
) -> None:
    upstream.default = stream(b'event: ping\ndata: {"type":"ping"}\n\n', CUT)
    answer = await asked(pair)
    assert answer.status == 200
    assert b"event: error" in answer.body
    assert spare.requests == []


async def test_a_failure_that_is_longer_than_what_is_held_back_passes(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream
) -> None:
    long = FAILED + b" " * MAX_HELD_BYTES
    upstream.default = reply(500, long)
    answer = await asked(pair)
    assert (answer.status, answer.body, answer.complete) == (500, long, True)
    assert spare.requests == []


EXHAUSTED = Refuse(
    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    reason="KEY_POOL_EXHAUSTED",
    metadata={"provider": "corp", "retry_after_seconds": "7", "fallback_provider": "spare"},
    retry_seconds=7,
)


async def test_an_exhausted_pool_of_keys_is_no_end_where_there_is_another_provider(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream
) -> None:
    pair.refuse_providers["corp"] = EXHAUSTED
    async with running_bridge(pair) as bridge:
        answer = await raw_exchange(bridge.port, turn())
        (report,) = await reported(pair)
    assert (answer.status, answer.body) == (200, GOOD)
    assert upstream.requests == []
    assert report.receipt == b"receipt of spare"
    assert len(report.attempts) == 0


async def test_where_the_other_refuses_as_well_the_exhausted_pool_is_told_of(pair: FakeCredentiald) -> None:
    pair.refuse_providers["corp"] = EXHAUSTED
    del pair.providers["spare"]
    answer = await asked(pair)
    assert (answer.status, answer.header("retry-after")) == (429, "7")
    assert answer.header("x-drawbridge-error") == "KEY_POOL_EXHAUSTED"


async def test_keys_that_are_all_refused_on_the_way_are_no_end_either(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream
) -> None:
    upstream.default = reply(429, b"{}")
    keys = pair.pools["corp"] = pool(2, "anthropic", upstream.url)
    for key in keys:
        key.provider.fallback_provider = "spare"
    answer = await asked(pair)
    assert (answer.status, answer.body) == (200, GOOD)
    assert len(spare.requests) == 1


@pytest.mark.parametrize("script", [reply(503, FAILED), stream(FAILED, CUT, status=503, headers=JSON), hang_up()])
async def test_a_failure_of_a_provider_with_several_keys_is_the_clients_where_there_is_no_other(
    pair: FakeCredentiald, upstream: ScriptedUpstream, script: Script
) -> None:
    upstream.default = script
    for key in pair.pools.setdefault("corp", pool(2, "anthropic", upstream.url)):
        key.provider.fallback_provider = "spare"
    pair.refuse_providers["spare"] = Refuse(code=grpc.StatusCode.FAILED_PRECONDITION, reason="PROVIDER_DISABLED")
    answer = await asked(pair)
    assert answer.status in (503, 502)
    assert FAILED in answer.body or answer.header("x-drawbridge-error") == "UPSTREAM_UNREACHABLE"


async def test_the_fallback_provider_has_a_pool_of_its_own(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream
) -> None:
    for name, one in (("corp", upstream), ("spare", spare)):
        for key in pair.pools.setdefault(name, pool(2, "anthropic", one.url)):
            key.provider.fallback_provider = "spare"
            key.credential.credential_id += f" of {name}"
            key.receipt += f" of {name}".encode()
    upstream.script(reply(429, b"{}"), reply(503, b"{}"))
    spare.script(reply(401, b"{}"), reply(200, GOOD))
    async with running_bridge(pair) as bridge:
        answer = await raw_exchange(bridge.port, turn())
        (report,) = await reported(pair)
    assert (answer.status, answer.body) == (200, GOOD)
    assert [one.http_status for one in report.attempts] == [429, 503, 401]
    receipts = [b"receipt-1 of corp", b"receipt-2 of corp", b"receipt-1 of spare"]
    assert [one.receipt for one in report.attempts] == receipts
    assert report.receipt == b"receipt-2 of spare"


async def test_a_body_is_not_kept_once_the_answer_has_begun(pair: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    gate = asyncio.Event()
    upstream.default = stream(b'event: ping\ndata: {"type":"ping"}\n\n', gate)
    async with running_bridge(pair) as bridge, raw_client(bridge.port) as client:
        await client.send(turn())
        await client.read_head()
        (one,) = bridge.bridge._under_way
        assert one.fallback is not None
        assert one.fallback.body is None
        gate.set()
        await client.read_some()


async def test_a_breaker_that_is_open_sends_turns_to_the_fallback_provider_at_once(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream
) -> None:
    async with running_bridge(pair, breaker_rules=BreakerRules(failure_threshold=2)) as bridge:
        answers = [await raw_exchange(bridge.port, turn()) for _ in range(5)]
        reports = await reported(pair, 5)
    assert [one.body for one in answers] == [GOOD] * 5
    assert (len(upstream.requests), len(spare.requests)) == (2, 5)
    assert [one.attempts[0].error_reason for one in reports] == ["HTTP 503"] * 2 + ["BREAKER_OPEN"] * 3


async def test_where_the_breakers_of_both_are_open_the_client_hears_of_the_first(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream
) -> None:
    spare.default = reply(529, b"{}")
    async with running_bridge(pair, breaker_rules=BreakerRules(failure_threshold=1)) as bridge:
        first = await raw_exchange(bridge.port, turn())
        second = await raw_exchange(bridge.port, turn())
        reports = await reported(pair, 2)
    assert [one.receipt for one in reports] == [b"receipt of spare", b"receipt of corp"]
    assert outcome(reports[1]) == ("BRIDGE_FAILED", "UNSPECIFIED", "BREAKER_OPEN", 503)
    assert len(reports[1].attempts) == 0
    assert (first.status, second.header("x-drawbridge-error")) == (529, "BREAKER_OPEN")
    assert (len(upstream.requests), len(spare.requests)) == (1, 1)


async def test_a_client_that_leaves_while_the_fallback_provider_is_asked_for_leaves_nothing(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream
) -> None:
    gate = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await gate.wait()
        exchange.cut()

    upstream.default = late
    async with running_bridge(pair) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(turn())
            await until(lambda: len(upstream.requests) == 1)
            pair.hang()
            gate.set()
            await until(lambda: len(pair.resolves) == 2)
        await until(lambda: bridge.bridge.under_way == 0)
        pair.go_on()
    assert spare.requests == []


async def test_where_both_are_no_use_what_credentiald_has_opened_for_the_second_is_reported_as_ended(
    pair: FakeCredentiald, spare: ScriptedUpstream
) -> None:
    spare.default = reply(529, b"{}")
    async with running_bridge(pair, breaker_rules=BreakerRules(failure_threshold=1)) as bridge:
        await raw_exchange(bridge.port, turn())
        pair.refuse_providers["corp"] = EXHAUSTED
        answer = await raw_exchange(bridge.port, turn())
        reports = await reported(pair, 2)
    assert (answer.status, answer.header("x-drawbridge-error")) == (429, "KEY_POOL_EXHAUSTED")
    assert len(spare.requests) == 1
    # The first provider's refusal has opened nothing; the answer about the other has.
    assert reports[1].receipt == b"receipt of spare"
    assert outcome(reports[1])[2:] == ("KEY_POOL_EXHAUSTED", 429)


async def test_a_fallback_provider_that_was_taken_back_meanwhile_is_not_asked_for(
    pair: FakeCredentiald, upstream: ScriptedUpstream, spare: ScriptedUpstream
) -> None:
    pair.has_watch = True
    async with silent_server() as silent, running_bridge(pair, connect_timeout_seconds=30) as bridge:
        await until(lambda: bool(pair.acknowledged))
        pair.providers["corp"].provider.base_url = silent
        asking = asyncio.ensure_future(raw_exchange(bridge.port, turn()))
        await until(lambda: any(one.resolution is not None for one in bridge.bridge._under_way))
        # The provider has no other any more, and no key that is left.
        pair.refuse_providers["corp"] = Refuse(
            code=grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason="KEY_POOL_EXHAUSTED",
            metadata={"provider": "corp"},
            retry_seconds=7,
        )
        pair.change("provider.updated", pair.providers["corp"].provider.id)
        answer = await asking
    assert answer.header("x-drawbridge-error") == "KEY_POOL_EXHAUSTED"
    assert [one.provider for one in pair.resolves] == ["corp", "corp"]
    assert spare.requests == []
