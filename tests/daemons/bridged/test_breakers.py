"""Breakers in a running bridge: what opens them, what clients are told, and what closes them."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2

from bridged.breaker import BreakerRules
from tests.fakes.credentiald import USER_TOKEN, FakeCredentiald, provider
from tests.fakes.scripted_upstream import CUT, JSON, STALL, Script, ScriptedUpstream, hang_up, reply, silence, stream
from tests.support.bridge import AUTH, RunningBridge, running_bridge, until
from tests.support.bridge_reports import outcome, reported
from tests.support.raw_http import RawAnswer, raw_client, raw_exchange, request

RULES = BreakerRules(failure_threshold=2, interval_seconds=10.0, timeout_seconds=30.0, max_requests=1)
OVERLOADED = reply(529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')


class Clock:
    """Of the breakers alone: nobody waits in these tests."""

    def __init__(self) -> None:
        self.now_seconds = 1000.0

    def __call__(self) -> float:
        return self.now_seconds


@asynccontextmanager
async def bridge_with_breakers(
    credentiald: FakeCredentiald, rules: BreakerRules = RULES, **options: Any
) -> AsyncIterator[tuple[RunningBridge, Clock]]:
    """A bridge whose breakers go by a clock that a test turns."""
    clock = Clock()
    async with running_bridge(credentiald, breaker_rules=rules, **options) as bridge:
        assert bridge.bridge.breaking is not None
        bridge.bridge.breaking.now = clock
        yield bridge, clock


@pytest.fixture
def corp(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> FakeCredentiald:
    """credentiald with a provider `corp`, whose name is in its answers, and `own`, the same upstream with user keys."""
    for name in ("corp", "lab"):
        credentiald.providers[name] = provider("anthropic", upstream.url, name=name, api_key="sk")
    return credentiald


def message(name: str = "corp", *, model: str = "claude-x", key: str = "") -> bytes:
    """A turn; `key` is the user's own, which the request presents."""
    body = json.dumps({"model": model, "max_tokens": 1, "messages": []}).encode()
    tokens = [("X-Coder-AI-Governance-Token", USER_TOKEN), ("X-Api-Key", key)] if key else [AUTH]
    return request("POST", f"/{name}/v1/messages", headers=[*tokens, *JSON], body=body)


async def asked(bridge: RunningBridge, name: str = "corp", *, model: str = "claude-x") -> RawAnswer:
    return await raw_exchange(bridge.port, message(name, model=model))


def of_user(credentiald: FakeCredentiald, source: int, *, pool_size: int = 0) -> None:
    """From now on `corp` answers with a credential of this source."""
    credentiald.providers["corp"].source = source
    credentiald.providers["corp"].pool_size = pool_size


async def test_an_upstream_that_fails_time_after_time_is_left_alone(
    corp: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = OVERLOADED
    async with bridge_with_breakers(corp) as (bridge, clock):
        first, second = await asked(bridge), await asked(bridge)
        clock.now_seconds += 10.2
        refused = await asked(bridge)
        others = [await asked(bridge, "lab"), await asked(bridge, model="claude-y")]
        reports = await reported(corp, 5)
    assert [first.status, second.status, refused.status] == [529, 529, 503]
    assert refused.header("retry-after") == "20"
    assert refused.header("x-drawbridge-error") == "BREAKER_OPEN"
    body = json.loads(refused.body)
    assert (body["type"], body["error"]["type"]) == ("error", "overloaded_error")
    assert "sk" not in body["error"]["message"]
    assert [one.status for one in others] == [529, 529]
    assert len(upstream.requests) == 4
    # It was resolved, so there is a record of it.
    assert ("BRIDGE_FAILED", "UNSPECIFIED", "BREAKER_OPEN", 503) in [outcome(one) for one in reports]


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (reply(503), 503),
        (reply(504), 504),
        (reply(529), 529),
        (hang_up(), 502),
        (silence(), 504),
    ],
)
async def test_what_opens_a_breaker(
    corp: FakeCredentiald, upstream: ScriptedUpstream, script: Script, status: int
) -> None:
    upstream.default = script
    async with bridge_with_breakers(corp, first_byte_timeout_seconds=0.2 if status == 504 else 5.0) as (bridge, _):
        answers = [await asked(bridge) for _ in range(3)]
    assert [one.status for one in answers] == [status, status, 503]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    "script",
    [
        *(reply(status) for status in (200, 400, 401, 403, 404, 413, 422, 500, 501, 502)),
        stream(b"event: ping\ndata: {}\n\n", CUT),
    ],
)
async def test_what_opens_none(corp: FakeCredentiald, upstream: ScriptedUpstream, script: Script) -> None:
    upstream.default = script
    async with bridge_with_breakers(corp) as (bridge, _):
        answers = [await asked(bridge) for _ in range(5)]
    assert len(upstream.requests) == 5
    assert not any(one.header("x-drawbridge-error") == "BREAKER_OPEN" for one in answers)


CENTRAL, USER = provider_pb2.CREDENTIAL_SOURCE_CENTRAL_KEY, provider_pb2.CREDENTIAL_SOURCE_USER_KEY
PRESENTED, AMBIENT = provider_pb2.CREDENTIAL_SOURCE_PRESENTED_KEY, provider_pb2.CREDENTIAL_SOURCE_AMBIENT


@pytest.mark.parametrize(
    ("source", "pool_size", "opens"),
    [(CENTRAL, 1, True), (CENTRAL, 0, True), (AMBIENT, 0, True), (USER, 0, False), (PRESENTED, 0, False)],
)
async def test_a_429_opens_only_where_the_credential_is_everybodys_and_there_is_no_other(
    corp: FakeCredentiald, upstream: ScriptedUpstream, source: int, pool_size: int, opens: bool
) -> None:
    upstream.default = reply(429)
    of_user(corp, source, pool_size=pool_size)
    async with bridge_with_breakers(corp) as (bridge, _):
        key = "sk-ant-own" if source == PRESENTED else ""
        answers = [await raw_exchange(bridge.port, message(key=key)) for _ in range(4)]
    assert [one.status for one in answers] == ([429, 429, 503, 503] if opens else [429] * 4)


async def test_the_limits_of_the_central_key_do_not_stop_a_user_with_a_key(
    corp: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(429), reply(429))
    async with bridge_with_breakers(corp) as (bridge, _):
        for _ in range(2):
            await asked(bridge)
        stopped = await asked(bridge)
        of_user(corp, USER)
        answer = await asked(bridge)
    assert (stopped.status, answer.status) == (503, 200)


async def test_a_users_own_401_does_not_interrupt_a_row_of_failures(
    corp: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(503), reply(401), reply(503))
    async with bridge_with_breakers(corp) as (bridge, _):
        await asked(bridge)
        of_user(corp, USER)
        await asked(bridge)
        of_user(corp, CENTRAL)
        await asked(bridge)
        answer = await asked(bridge)
    assert answer.header("x-drawbridge-error") == "BREAKER_OPEN"


@pytest.mark.parametrize("answer", [reply(401), reply(302, headers=[("Location", "https://elsewhere")])])
async def test_an_answer_that_the_client_does_not_get_says_that_the_upstream_is_there(
    corp: FakeCredentiald, upstream: ScriptedUpstream, answer: Script
) -> None:
    upstream.script(reply(503), answer, reply(503))
    async with bridge_with_breakers(corp) as (bridge, _):
        answers = [await asked(bridge) for _ in range(4)]
    assert [one.status for one in answers] == [503, 502, 503, 200]


async def test_a_probe_that_goes_well_closes_it(corp: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.script(reply(503), reply(503))
    async with bridge_with_breakers(corp) as (bridge, clock):
        for _ in range(2):
            await asked(bridge)
        clock.now_seconds += 30
        answers = [await asked(bridge) for _ in range(3)]
    assert [one.status for one in answers] == [200] * 3


async def test_a_probe_that_fails_opens_it_for_another_time(corp: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.default = reply(503)
    async with bridge_with_breakers(corp) as (bridge, clock):
        for _ in range(2):
            await asked(bridge)
        clock.now_seconds += 30
        await asked(bridge)
        refused = await asked(bridge)
    assert len(upstream.requests) == 3
    assert refused.header("retry-after") == "30"


async def test_a_probe_is_judged_by_its_head_however_long_its_stream_is(
    corp: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(503), reply(503), stream(b"event: ping\ndata: {}\n\n", STALL))
    async with bridge_with_breakers(corp) as (bridge, clock), raw_client(bridge.port) as client:
        for _ in range(2):
            await asked(bridge)
        clock.now_seconds += 30
        await client.send(message())
        await client.read_head()
        answer = await asked(bridge)
    assert answer.status == 200


async def test_a_probe_whose_client_leaves_gives_its_place_back_once(
    corp: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(503), reply(503), silence())
    async with bridge_with_breakers(corp) as (bridge, clock):
        for _ in range(2):
            await asked(bridge)
        clock.now_seconds += 30
        async with raw_client(bridge.port) as client:
            await client.send(message())
            await until(lambda: len(upstream.requests) == 3)
            waiting = await asked(bridge)
        await until(lambda: bridge.bridge.under_way == 0)
        upstream.script(silence())
        async with raw_client(bridge.port) as client:
            await client.send(message())
            await until(lambda: len(upstream.requests) == 4)
            second = await asked(bridge)
        await until(lambda: bridge.bridge.under_way == 0)
        answer = await asked(bridge)
    assert (waiting.status, waiting.header("retry-after")) == (503, "1")
    assert second.status == 503
    assert answer.status == 200


async def test_a_refusal_after_the_breaker_gives_a_probes_place_back(
    corp: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(503), reply(503), reply(302, headers=[("Location", "http://elsewhere.example/")]))
    async with bridge_with_breakers(corp) as (bridge, clock):
        for _ in range(2):
            await asked(bridge)
        clock.now_seconds += 30
        redirected = await asked(bridge)
        answer = await asked(bridge)
    assert (redirected.status, answer.status) == (502, 200)


async def test_another_base_url_is_tried_at_once(corp: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.script(reply(503), reply(503))
    async with bridge_with_breakers(corp) as (bridge, _):
        for _ in range(2):
            await asked(bridge)
        corp.providers["corp"].provider.base_url = upstream.url + "/mended"
        answer = await asked(bridge)
    assert answer.status == 200


async def test_without_breakers_nothing_is_left_alone(corp: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.default = reply(503)
    async with running_bridge(corp) as bridge:
        answers = [await asked(bridge) for _ in range(8)]
    assert len(upstream.requests) == 8
    assert not any(one.header("x-drawbridge-error") for one in answers)


async def test_changes_are_logged_counted_and_told_to_credentiald(
    corp: FakeCredentiald, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.script(reply(503), OVERLOADED)
    caplog.set_level(logging.INFO, "bridged.breaking")

    def told() -> list[pb.BreakerState]:
        return list(corp.last_ping.breakers) if corp.last_ping is not None else []

    async with bridge_with_breakers(corp) as (bridge, clock):
        value = bridge.metrics.registry.get_sample_value
        assert value("bridged_breaker_changes_total", {"state": "open"}) == 0
        for _ in range(2):
            await asked(bridge)
        await until(lambda: bool(told()))
        (state,) = told()
        assert value("bridged_breakers_open", {"provider": "corp"}) == 1
        assert value("bridged_breaker_changes_total", {"state": "open"}) == 1
        clock.now_seconds += 30
        await asked(bridge)
        await until(lambda: not told())
        assert value("bridged_breakers_open", {"provider": "corp"}) is None
        assert value("bridged_breaker_changes_total", {"state": "closed"}) == 1
    assert (state.provider, state.operation, state.model) == ("corp", "anthropic.messages", "claude-x")
    assert (state.state, state.failures, state.last_error) == (pb.BREAKER_PHASE_OPEN, 2, "529")
    records = [one for one in caplog.records if one.name == "bridged.breaking"]
    changes = [(one.levelname, *(getattr(one, name) for name in ("provider", "before", "after"))) for one in records]
    assert changes == [
        ("WARNING", "corp", "closed", "open"),
        ("INFO", "corp", "open", "half_open"),
        ("INFO", "corp", "half_open", "closed"),
    ]


async def test_the_name_of_a_model_is_kept_and_told_in_part(corp: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.default = reply(503)
    async with bridge_with_breakers(corp, replace(RULES, failure_threshold=1)) as (bridge, _):
        for model in ("\udc80", "x" * 500):
            await asked(bridge, model=model)
        await until(lambda: corp.last_ping is not None and len(corp.last_ping.breakers) == 2)
        assert corp.last_ping is not None
        assert [one.model for one in corp.last_ping.breakers] == ["\ufffd", "x" * 128]
