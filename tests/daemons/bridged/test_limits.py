"""Limits at the bridge: what is refused, when, in which shape; every slot comes back; what is logged and counted."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from bridged.limits.admission import AdmissionLimits
from tests.fakes.credentiald import FakeCredentiald, provider
from tests.fakes.scripted_upstream import SSE, STALL, ScriptedUpstream, hang_up, reply, silence, stream
from tests.support.bridge import RunningBridge, running_bridge, until
from tests.support.bridge_reports import outcome, reported
from tests.support.raw_http import Pairs, RawAnswer, RawClient, raw_client, raw_exchange, request

ADA, ADAS_OTHER, BOB = "dbu_ada", "dbu_ada-2", "dbu_bob"
BODY = b'{"model":"m","messages":[]}'
PATHS = {
    "anthropic": "/anthropic/v1/messages",
    "openai": "/openai/v1/chat/completions",
    "google": "/google/v1beta/models/g:generateContent",
}
MESSAGES = PATHS["anthropic"]
EVENT = b"event: ping\ndata: {}\n\n"
LIMITS = {
    "bridge": (AdmissionLimits(bridge=1), 503, "CAPACITY"),
    "provider": (AdmissionLimits(provider=1), 503, "CAPACITY"),
    "user": (AdmissionLimits(user=1), 429, "RATE_LIMITED"),
    "rate": (AdmissionLimits(rate_per_second=1), 429, "RATE_LIMITED"),
}


def bearer(token: str = ADA) -> Pairs:
    return [("Authorization", f"Bearer {token}")]


def asking(token: str = ADA, path: str = MESSAGES, body: bytes = BODY) -> bytes:
    return request("POST", path, headers=bearer(token), body=body)


def head_only(token: str = ADA, path: str = MESSAGES, length: int = 100_000) -> bytes:
    """A request whose body never comes."""
    return request("POST", path, headers=[*bearer(token), ("Content-Length", str(length))])


@pytest.fixture(autouse=True)
def users(credentiald: FakeCredentiald) -> None:
    credentiald.users |= {ADA: "ada", ADAS_OTHER: "ada", BOB: "bob"}


@asynccontextmanager
async def limited(credentiald: FakeCredentiald, limits: AdmissionLimits) -> AsyncIterator[RunningBridge]:
    async with running_bridge(credentiald, limits=limits) as bridge:
        yield bridge


def in_use(bridge: RunningBridge) -> int:
    assert bridge.bridge.entrance is not None
    return bridge.bridge.entrance.in_use


def refusals(bridge: RunningBridge, limit: str) -> float | None:
    return bridge.metrics.registry.get_sample_value("bridged_limit_refusals_total", {"limit": limit})


@asynccontextmanager
async def under_way(bridge: RunningBridge, upstream: ScriptedUpstream, token: str = ADA) -> AsyncIterator[RawClient]:
    """A stream that has begun and does not end."""
    upstream.script(stream(EVENT, STALL))
    async with raw_client(bridge.port) as client:
        await client.send(asking(token))
        assert (await client.read_head()).status == 200
        await client.read_some()
        yield client


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("path", PATHS)
async def test_a_refusal_comes_before_the_body_and_before_credentiald_is_asked(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, limit: str, path: str
) -> None:
    limits, status, reason = LIMITS[limit]
    credentiald.providers[path] = provider("anthropic", upstream.url, api_key="k")
    async with limited(credentiald, limits) as bridge, under_way(bridge, upstream):
        asked = len(credentiald.resolves)
        # A provider's limit is its own.
        target = MESSAGES if limit == "provider" else PATHS[path]
        answer = await raw_exchange(bridge.port, head_only(path=target))

    assert (answer.status, answer.error, answer.header("Retry-After")) == (status, reason, "1")
    assert "error" in answer.json()
    assert answer.complete
    assert len(credentiald.resolves) == asked
    assert refusals(bridge, limit) == 1
    assert sum(refusals(bridge, each) or 0 for each in LIMITS) == 1


@pytest.mark.parametrize("limit", ["bridge", "provider", "user"])
async def test_the_next_request_is_carried_once_one_has_ended(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, limit: str
) -> None:
    async with limited(credentiald, LIMITS[limit][0]) as bridge:
        async with under_way(bridge, upstream) as client:
            assert (await raw_exchange(bridge.port, asking())).status == LIMITS[limit][1]
            client.leave()
        await until(lambda: in_use(bridge) == 0)

        assert (await raw_exchange(bridge.port, asking())).status == 200


async def test_a_token_over_its_rate_is_told_exactly_how_long_to_wait(credentiald: FakeCredentiald) -> None:
    async with limited(credentiald, AdmissionLimits(rate_per_second=2)) as bridge, raw_client(bridge.port) as client:
        answers = []
        for _ in range(3):
            await client.send(asking())
            answers.append(await client.read_answer())
        other = await raw_exchange(bridge.port, asking(BOB))

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].header("Retry-After") == "1"
    assert 1 <= int(answers[2].header("retry-after-ms") or 0) <= 500
    assert other.status == 200


async def test_who_waits_as_long_as_it_was_told_is_carried(credentiald: FakeCredentiald) -> None:
    async with limited(credentiald, AdmissionLimits(rate_per_second=10)) as bridge, raw_client(bridge.port) as client:
        waits = 0
        for _ in range(25):
            await client.send(asking())
            answer = await client.read_answer()
            if answer.status == 200:
                continue
            waits += 1
            wait_ms = int(answer.header("retry-after-ms") or 0)
            loop = asyncio.get_running_loop()
            asked_again: asyncio.Future[None] = loop.create_future()
            loop.call_later(wait_ms / 1000 + 0.002, asked_again.set_result, None)
            await asked_again
            await client.send(asking())
            assert (await client.read_answer()).status == 200

    assert waits


async def test_a_connection_goes_on_after_a_refusal_whose_request_was_whole(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with limited(credentiald, AdmissionLimits(user=1)) as bridge, raw_client(bridge.port) as client:
        async with under_way(bridge, upstream):
            for _ in range(3):
                await client.send(asking())
                assert (await client.read_answer()).status == 429
        await until(lambda: in_use(bridge) == 0)
        await client.send(asking())

        assert (await client.read_answer()).status == 200


async def test_the_rest_of_a_refused_body_is_dropped_and_the_connection_ends(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with (
        limited(credentiald, AdmissionLimits(user=1)) as bridge,
        under_way(bridge, upstream),
        raw_client(bridge.port) as client,
    ):
        await client.send(head_only(length=1_000_000))
        answer = await client.read_answer()
        await client.send(bytes(1_000_000))

        assert answer.status == 429
        assert answer.header("Connection") == "close"
        assert await client.read_to_end() == b""


async def test_users_are_told_apart_and_tokens_of_one_are_not(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with limited(credentiald, AdmissionLimits(user=1)) as bridge, under_way(bridge, upstream):
        other = await raw_exchange(bridge.port, asking(ADAS_OTHER))
        again = await raw_exchange(bridge.port, head_only(ADAS_OTHER))
        bobs = await raw_exchange(bridge.port, asking(BOB))

    # The first time it is known whose the token is when credentiald has answered, then at once.
    assert [answer.status for answer in (other, again, bobs)] == [429, 429, 200]


async def test_what_is_refused_after_credentiald_has_answered_is_reported_as_ended(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with limited(credentiald, AdmissionLimits(user=1)) as bridge, under_way(bridge, upstream):
        assert (await raw_exchange(bridge.port, asking(ADAS_OTHER))).status == 429
        (report,) = await reported(credentiald)

    assert outcome(report)[::2] == ("BRIDGE_FAILED", "RATE_LIMITED")


async def test_a_provider_at_its_limit_is_nothing_to_another(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with limited(credentiald, AdmissionLimits(provider=1)) as bridge, under_way(bridge, upstream):
        bobs = await raw_exchange(bridge.port, asking(BOB))
        elsewhere = await raw_exchange(bridge.port, asking(BOB, PATHS["openai"]))

    assert (bobs.status, bobs.error) == (503, "CAPACITY")
    assert elsewhere.status == 200


async def test_at_the_bridges_limit_another_user_gets_the_next_slot_before_who_has_all(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with limited(credentiald, AdmissionLimits(bridge=4)) as bridge, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(under_way(bridge, upstream)) for _ in range(4)]
        bobs_first = await raw_exchange(bridge.port, asking(BOB))
        clients[0].leave()
        await until(lambda: in_use(bridge) == 3)
        adas = await raw_exchange(bridge.port, asking())
        bobs = await raw_exchange(bridge.port, asking(BOB))

    assert [answer.status for answer in (bobs_first, adas, bobs)] == [503, 503, 200]


async def test_connections_without_a_request_and_probes_hold_no_slot(credentiald: FakeCredentiald) -> None:
    async with limited(credentiald, AdmissionLimits(bridge=1)) as bridge, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(raw_client(bridge.port)) for _ in range(5)]
        await idle[0].send(asking())
        assert (await idle[0].read_answer()).status == 200
        assert (await raw_exchange(bridge.port, request("GET", "/healthz"))).status == 200
        assert (await raw_exchange(bridge.port, request("HEAD", "/anthropic"))).status == 200

        assert in_use(bridge) == 0
        assert (await raw_exchange(bridge.port, asking(BOB))).status == 200


ENDS = {
    "a whole answer": reply(),
    "an error of the upstream": reply(500),
    "an upstream that hangs up": hang_up(),
    "a stream that is cut": stream(EVENT, headers=[*SSE, ("Content-Length", "1000")]),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_slot_comes_back_however_the_upstream_ends(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, end: str
) -> None:
    upstream.default = ENDS[end]
    async with limited(credentiald, AdmissionLimits(bridge=1, provider=1, user=1)) as bridge:
        statuses = [(await raw_exchange(bridge.port, asking())).status for _ in range(3)]
        await until(lambda: in_use(bridge) == 0)

    assert len(set(statuses)) == 1
    assert [refusals(bridge, limit) for limit in LIMITS] == [0, 0, 0, 0]


async def test_a_slot_comes_back_whenever_the_client_leaves(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with limited(credentiald, AdmissionLimits(bridge=1, provider=1, user=1)) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(head_only())
            await until(lambda: in_use(bridge) == 1)
            client.leave()
        await until(lambda: in_use(bridge) == 0)

        credentiald.hang()
        async with raw_client(bridge.port) as client:
            await client.send(asking())
            await until(lambda: in_use(bridge) == 1)
            client.leave()
        await until(lambda: in_use(bridge) == 0)
        credentiald.go_on()

        upstream.script(silence())
        async with raw_client(bridge.port) as client:
            await client.send(asking())
            await upstream.wait_for_request()
            assert in_use(bridge) == 1
            client.leave()
        await until(lambda: in_use(bridge) == 0)

        assert (await raw_exchange(bridge.port, asking())).status == 200


async def test_a_slot_comes_back_when_a_request_is_refused_for_another_reason(credentiald: FakeCredentiald) -> None:
    async with limited(credentiald, AdmissionLimits(bridge=1)) as bridge:
        for path, body in [("/nowhere/v1/messages", BODY), (MESSAGES, b"{"), (MESSAGES, BODY)]:
            answer = await raw_exchange(bridge.port, asking(path=path, body=body))
            assert in_use(bridge) == 0

    assert answer.status == 200


async def test_while_credentiald_is_slow_what_is_over_the_limit_is_refused_at_once(
    credentiald: FakeCredentiald,
) -> None:
    async with limited(credentiald, AdmissionLimits(bridge=4)) as bridge, AsyncExitStack() as stack:
        await raw_exchange(bridge.port, asking())
        credentiald.hang()
        for _ in range(4):
            await (await stack.enter_async_context(raw_client(bridge.port))).send(asking())
        await until(lambda: in_use(bridge) == 4)
        started = asyncio.get_running_loop().time()
        answers = [await raw_exchange(bridge.port, head_only(BOB)) for _ in range(20)]
        took_seconds = asyncio.get_running_loop().time() - started

        assert {(answer.status, answer.error) for answer in answers} == {(503, "CAPACITY")}
        # Each of the four waits two seconds for credentiald.
        assert took_seconds < 1
        credentiald.go_on()


async def test_refusals_are_logged_as_one_line_of_sums_without_a_token(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bridged")

    def sums() -> list[logging.LogRecord]:
        return [line for line in caplog.records if line.msg == "requests were refused by limits"]

    async with limited(credentiald, AdmissionLimits(user=1)) as bridge, under_way(bridge, upstream):
        for _ in range(10):
            await raw_exchange(bridge.port, asking())
        await until(lambda: bool(sums()))

        assert [vars(line)["over_user"] for line in sums()] == [10]
        assert not [line for line in caplog.records if line.msg == "request"]
        assert ADA not in str([vars(line) for line in caplog.records])


async def test_an_answer_says_no_more_than_what_to_do(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    async with limited(credentiald, AdmissionLimits(user=1)) as bridge, under_way(bridge, upstream):
        answer: RawAnswer = await raw_exchange(bridge.port, asking())

    assert ADA.encode() not in answer.body
    assert "wait until one of them has ended" in answer.json()["error"]["message"]
