"""An upstream where the bridge may not go: what the client is told, and what nobody concludes from it."""

import json

import pytest

from bridged.breaker import BreakerRules
from bridged.egress import Egress, parse_networks
from tests.fakes.credentiald import FakeCredentiald, pool, provider
from tests.fakes.scripted_upstream import JSON, ScriptedUpstream, reply
from tests.support.bridge import AUTH, running_bridge
from tests.support.bridge_reports import outcome, reported
from tests.support.raw_http import RawAnswer, raw_exchange, request

METADATA = "http://169.254.169.254"
BODY = json.dumps({"model": "m", "max_tokens": 1, "messages": []}).encode()
NOT_ALLOWED = (503, "UPSTREAM_NOT_ALLOWED")
RULES = BreakerRules(failure_threshold=1, interval_seconds=0, timeout_seconds=60, max_requests=1)


def turn(name: str, path: str = "/v1/messages") -> bytes:
    return request("POST", f"/{name}{path}", headers=[AUTH, *JSON], body=BODY)


def told(answer: RawAnswer) -> tuple[int, str | None]:
    return answer.status, answer.header("x-drawbridge-error")


@pytest.mark.parametrize(
    ("type_name", "path", "method"),
    [
        ("anthropic", "/v1/messages", "POST"),
        ("openai", "/v1/chat/completions", "POST"),
        # Passed through, with a body that is streamed, and without one.
        ("openai", "/v1/embeddings", "POST"),
        ("openai", "/v1/models", "GET"),
        ("google", "/v1beta/models/m:generateContent", "POST"),
        ("bedrock", "/v1/messages", "POST"),
        ("bedrock", "/model/m/converse", "POST"),
    ],
)
async def test_every_way_to_an_upstream_is_judged(
    credentiald: FakeCredentiald, type_name: str, path: str, method: str
) -> None:
    credentiald.providers["bad"] = provider(type_name, METADATA, name="bad", api_key="sk-1", bearer="sk-1")
    data = turn("bad", path) if method == "POST" else request("GET", f"/bad{path}", headers=[AUTH])
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, data)

    assert told(answer) == NOT_ALLOWED
    assert answer.header("retry-after") is None
    assert b"169.254" not in answer.body
    assert b"metadata" in answer.body
    assert json.loads(answer.body)


@pytest.mark.parametrize("named", [False, True])
async def test_plain_http_leaves_the_machine_for_the_providers_that_are_named(
    credentiald: FakeCredentiald, named: bool
) -> None:
    credentiald.providers["lab"] = provider("anthropic", "http://[fd12:3456::1]:9", name="lab", api_key="sk-1")
    async with running_bridge(
        credentiald,
        connect_timeout_seconds=0.3,
        egress=Egress(networks=parse_networks("private")),
        plaintext_upstreams=frozenset({"lab" if named else "other"}),
    ) as bridge:
        answer = await raw_exchange(bridge.port, turn("lab"))

    # Nobody is there.
    assert told(answer) in ([(502, "UPSTREAM_UNREACHABLE"), (504, "UPSTREAM_TIMEOUT")] if named else [NOT_ALLOWED])
    assert named or b"--plaintext-upstreams" in answer.body


async def test_it_is_recorded_with_its_reason_and_says_nothing_of_the_upstream_or_its_keys(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    credentiald.pools["bad"] = pool(2, "anthropic", METADATA, name="bad")
    spare = credentiald.providers["spare"] = provider("anthropic", upstream.url, name="spare", api_key="sk-spare")
    for answer in credentiald.pools["bad"]:
        answer.provider.fallback_provider = spare.provider.name
    async with running_bridge(credentiald, breaker_rules=RULES) as bridge:
        answers = [await raw_exchange(bridge.port, turn("bad")) for _ in range(3)]
        reports = await reported(credentiald, 3)
        assert bridge.bridge.breaking is not None
        views = bridge.bridge.breaking.views()

    assert [told(answer) for answer in answers] == [NOT_ALLOWED] * 3
    assert [outcome(report)[:3] for report in reports] == [("BRIDGE_FAILED", "UNSPECIFIED", "UPSTREAM_NOT_ALLOWED")] * 3
    assert views == []
    assert credentiald.outcomes == []
    # Nor does another provider hide it.
    assert upstream.requests == []


async def test_a_fallback_provider_is_judged_as_well(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.default = reply(503, b"{}")
    credentiald.providers["corp"] = provider("anthropic", upstream.url, name="corp", api_key="sk-1")
    credentiald.providers["corp"].provider.fallback_provider = "bad"
    credentiald.providers["bad"] = provider("anthropic", METADATA, name="bad", api_key="sk-2")
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, turn("corp"))

    assert told(answer) == NOT_ALLOWED


async def test_it_goes_there_again_as_soon_as_it_may(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    credentiald.providers["corp"] = provider("anthropic", METADATA, name="corp", api_key="sk-1")
    async with running_bridge(credentiald, breaker_rules=RULES) as bridge:
        assert told(await raw_exchange(bridge.port, turn("corp"))) == NOT_ALLOWED
        credentiald.providers["corp"].provider.base_url = upstream.url
        assert (await raw_exchange(bridge.port, turn("corp"))).status == 200
