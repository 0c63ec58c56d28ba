"""What administrators take away while requests run or wait, on real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from drawbridge.v1 import provider_pb2

from bridged import resolver_peer
from bridged.watch import EndsOn
from tests.fakes.credentiald import FakeCredentiald, Refuse, provider
from tests.fakes.scripted_upstream import STALL, Exchange, ScriptedUpstream, reply, stream
from tests.fakes.silent_server import silent_server
from tests.support.bridge import AUTH, RunningBridge, running_bridge, until
from tests.support.raw_http import RawClient, raw_client, raw_exchange, request

ASK = request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m","stream":true}')
USER_ID = "00000000-0000-7000-8000-00000000ada0"
TOKEN_ID = "00000000-0000-7000-8000-0000000070ce"


@asynccontextmanager
async def watching_bridge(credentiald: FakeCredentiald, **settings: object) -> AsyncIterator[RunningBridge]:
    credentiald.has_watch = True
    for one in credentiald.providers.values():
        one.access_token_id = TOKEN_ID
    async with running_bridge(credentiald, **settings) as bridge:  # type: ignore[arg-type]
        await until(lambda: bool(credentiald.acknowledged))
        yield bridge


@asynccontextmanager
async def running_stream(bridge: RunningBridge, upstream: ScriptedUpstream) -> AsyncIterator[RawClient]:
    upstream.script(stream(b"data: 1\n\n", STALL))
    async with raw_client(bridge.port) as client:
        await client.send(ASK)
        assert (await client.read_head()).status == 200
        assert await client.read_some() == b"data: 1\n\n"
        yield client


async def obeyed(credentiald: FakeCredentiald, revision: int) -> None:
    await until(lambda: revision in credentiald.acknowledged)


async def rest_of(client: RawClient) -> bytes:
    """What is still to come of a body."""
    body = b""
    while piece := await client.read_some():
        body += piece
    return body


def gone(credentiald: FakeCredentiald, what: str) -> tuple[str, str]:
    """Make it so at the fake; the change."""
    answer = credentiald.providers["anthropic"]
    if what == "central_key":
        answer.credential.credential_id = "cred-2"
        return "provider.updated", answer.provider.id
    if what == "provider":
        del credentiald.providers["anthropic"]
        return "provider.deleted", answer.provider.id
    if what == "user_key":
        return "user_key.deleted", f"{USER_ID}/{answer.provider.id}"
    return {"token": ("token.revoked", TOKEN_ID), "user": ("user.suspended", USER_ID)}[what]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("token", "ACCESS_TOKEN_INVALID"),
        ("user", "USER_SUSPENDED"),
        ("central_key", "CENTRAL_KEY_MISSING"),
        ("provider", "CENTRAL_KEY_MISSING"),
        ("user_key", "USER_KEY_REQUIRED"),
    ],
)
async def test_a_running_stream_ends_in_the_way_of_its_api_before_the_change_is_acknowledged(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, what: str, reason: str
) -> None:
    if what == "user_key":
        credentiald.providers["anthropic"].source = provider_pb2.CREDENTIAL_SOURCE_USER_KEY
    async with watching_bridge(credentiald) as bridge, running_stream(bridge, upstream) as client:
        revision = credentiald.change(*gone(credentiald, what))
        await obeyed(credentiald, revision)
        assert bridge.bridge.under_way == 0
        event = await rest_of(client)
        assert event.startswith(b"event: error\ndata: ")
        assert json.loads(event.split(b"data: ")[1])["error"]["type"]
        await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)
        await until(lambda: bool(credentiald.reported))
        assert credentiald.reported[-1].end.error_reason == reason
        assert bridge.metrics.registry.get_sample_value("bridged_requests_revoked_total", {"reason": reason}) == 1
        assert bridge.metrics.registry.get_sample_value("bridged_revocation_seconds_count") == 1


async def test_what_is_not_set_to_end_streams_ends_none(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with (
        watching_bridge(credentiald, ends_on=frozenset({EndsOn.POLICY})) as bridge,
        running_stream(bridge, upstream),
    ):
        for what in ("token", "user", "central_key"):
            await obeyed(credentiald, credentiald.change(*gone(credentiald, what)))
        assert bridge.bridge.under_way == 1


async def test_streams_of_others_go_on(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    async with watching_bridge(credentiald) as bridge, running_stream(bridge, upstream):
        await obeyed(credentiald, credentiald.change("token.revoked", "another"))
        await obeyed(credentiald, credentiald.change("user.suspended", "another"))
        assert bridge.bridge.under_way == 1


async def waits_for_a_connection(credentiald: FakeCredentiald, bridge: RunningBridge) -> None:
    def is_waiting() -> bool:
        return any(one.resolution is not None for one in bridge.bridge._under_way)

    await until(is_waiting)


async def test_a_request_that_waits_for_a_connection_is_asked_again_and_goes_where_it_may(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with silent_server() as silent, watching_bridge(credentiald, connect_timeout_seconds=30) as bridge:
        answer = credentiald.providers["openai"]
        answer.provider.base_url = f"{silent}/v1"
        asking = asyncio.ensure_future(
            raw_exchange(bridge.port, request("POST", "/openai/v1/chat/completions", headers=[AUTH], body=b'{"m":1}'))
        )
        await waits_for_a_connection(credentiald, bridge)
        answer.provider.base_url = f"{upstream.url}/v1"
        answer.credential.api_key.value = "sk-next"
        answer.credential.credential_id = "cred-2"
        await obeyed(credentiald, credentiald.change("provider.updated", answer.provider.id))
        assert (await asking).status == 200
        assert upstream.requests[0].header("authorization") == "Bearer sk-next"
        assert upstream.requests[0].body == b'{"m":1}'
        assert [one.min_revision >= 8 for one in credentiald.resolves] == [False, True]
        assert credentiald.resolves[0].interception_id == credentiald.resolves[1].interception_id


@pytest.mark.parametrize("chunked", [False, True])
async def test_so_is_one_with_a_streamed_body_of_which_nothing_is_lost(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, chunked: bool
) -> None:
    body = b"0123456789" * 1000
    headers = [AUTH, ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))]
    head = request("POST", "/openai/v1/embeddings", headers=headers)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    async with silent_server() as silent, watching_bridge(credentiald, connect_timeout_seconds=30) as bridge:
        answer = credentiald.providers["openai"]
        answer.provider.base_url = f"{silent}/v1"
        asking = asyncio.ensure_future(raw_exchange(bridge.port, head + sent))
        await waits_for_a_connection(credentiald, bridge)
        answer.provider.base_url = f"{upstream.url}/v1"
        await obeyed(credentiald, credentiald.change("provider.updated", answer.provider.id))
        assert (await asking).status == 200
        assert upstream.requests[0].body == body
        assert upstream.requests[0].body_complete


async def test_what_is_nothing_to_a_request_that_waits_does_not_keep_it_from_its_connection(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with silent_server() as silent, watching_bridge(credentiald, connect_timeout_seconds=30) as bridge:
        answer = credentiald.providers["anthropic"]
        answer.provider.base_url = silent
        asking = asyncio.ensure_future(raw_exchange(bridge.port, ASK))
        await waits_for_a_connection(credentiald, bridge)
        (waiting,) = bridge.bridge._under_way
        call = waiting.call
        # As where a script makes tokens for a whole company.
        for number in range(20):
            await obeyed(credentiald, credentiald.change("token.created", f"token-{number}"))
            await obeyed(credentiald, credentiald.change("user.suspended", f"user-{number}"))
        assert waiting.call is call
        assert len(credentiald.resolves) == 1
        answer.provider.base_url = upstream.url
        await obeyed(credentiald, credentiald.change("provider.updated", answer.provider.id))
        assert (await asking).status == 200
        assert len(credentiald.resolves) == 2


async def test_a_request_that_waits_is_refused_where_it_may_not_go_any_more(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with silent_server() as silent, watching_bridge(credentiald, connect_timeout_seconds=30) as bridge:
        credentiald.providers["anthropic"].provider.base_url = silent
        asking = asyncio.ensure_future(raw_exchange(bridge.port, ASK))
        await waits_for_a_connection(credentiald, bridge)
        credentiald.refuse = Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason="ACCESS_TOKEN_INVALID")
        await obeyed(credentiald, credentiald.change("token.revoked", TOKEN_ID))
        answer = await asking
        assert (answer.status, answer.error) == (401, "ACCESS_TOKEN_INVALID")
        await until(lambda: bool(credentiald.reported))
        assert credentiald.reported[-1].end.error_reason == "ACCESS_TOKEN_INVALID"


async def test_an_answer_that_was_on_its_way_during_the_change_is_asked_for_again(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with watching_bridge(credentiald) as bridge:
        credentiald.hang(unary=False)
        asking = asyncio.ensure_future(raw_exchange(bridge.port, ASK))
        await until(lambda: len(credentiald.resolves) == 1)
        await obeyed(credentiald, credentiald.change("provider.updated", answers_too=False))
        credentiald.go_on()
        await until(lambda: len(credentiald.resolves) >= 2)
        credentiald.providers["anthropic"].revision = credentiald.revision
        answer = await asking
        assert answer.status in (200, 503)
        again = await raw_exchange(bridge.port, ASK)
        assert again.status == 200
        asked_again = bridge.metrics.registry.get_sample_value("bridged_requests_asked_again_total")
        assert asked_again is not None
        assert asked_again >= 1
        assert len(upstream.requests) == (1 if answer.status == 503 else 2)


async def test_a_request_that_was_sent_before_a_change_goes_out_no_second_time(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()

    async def closed_without_an_answer(exchange: Exchange) -> None:
        await gate.wait()
        exchange.cut()

    upstream.script(reply(200, b"{}"), closed_without_an_answer)
    models = request("GET", "/openai/v1/models", headers=[AUTH])
    async with watching_bridge(credentiald) as bridge:
        # A connection that was used before: on such a one a request is otherwise sent again.
        assert (await raw_exchange(bridge.port, models)).status == 200
        asking = asyncio.ensure_future(raw_exchange(bridge.port, models))
        await upstream.wait_for_request(1)
        provider_id = credentiald.providers["openai"].provider.id
        await obeyed(credentiald, credentiald.change("provider.updated", provider_id))
        gate.set()
        assert (await asking).status == 502
        assert len(upstream.requests) == 2


async def test_a_request_that_the_bridge_would_send_once_more_is_asked_again_after_a_change(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    refusal = b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}'

    async def would_not_tell_usage(exchange: Exchange) -> None:
        await gate.wait()
        await reply(400, refusal)(exchange)

    upstream.script(would_not_tell_usage, stream(b"data: 1\n\n"))
    body = b'{"model":"m","stream":true,"messages":[]}'
    async with watching_bridge(credentiald) as bridge:
        asking = asyncio.ensure_future(
            raw_exchange(bridge.port, request("POST", "/openai/v1/chat/completions", headers=[AUTH], body=body))
        )
        await upstream.wait_for_request(0)
        credentiald.providers["openai"].credential.api_key.value = "sk-next"
        await obeyed(credentiald, credentiald.change("provider.updated", "another"))
        gate.set()
        assert (await asking).status == 200
        assert len(credentiald.resolves) == 2
        assert [one.header("authorization") for one in upstream.requests] == [
            "Bearer sk-upstream-key",
            "Bearer sk-next",
        ]


async def test_a_watch_that_was_lost_resumes_where_it_was_and_ends_what_was_missed(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with watching_bridge(credentiald) as bridge, running_stream(bridge, upstream) as client:
        await credentiald.stop()
        await credentiald.start()
        await until(lambda: len(credentiald.watch_begins) == 2)
        first, second = credentiald.watch_begins
        assert (first.database_id, first.revision) in (("", 0), ("database-1", 0))
        assert (second.database_id, second.revision) == ("database-1", 7)
        await until(lambda: bool(credentiald.watches))
        await obeyed(credentiald, credentiald.change("token.revoked", TOKEN_ID))
        assert (await rest_of(client)).startswith(b"event: error")
        assert bridge.bridge.under_way == 0


async def test_a_key_that_is_gone_from_the_environment_ends_what_runs_on_it_though_no_revision_says_so(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with watching_bridge(credentiald) as bridge, running_stream(bridge, upstream) as client:
        await credentiald.stop()
        credentiald.providers["anthropic"].credential.credential_id = "cred-2"
        await credentiald.start()
        assert b"the key of the provider was removed" in await rest_of(client)
        assert bridge.bridge.under_way == 0


async def test_what_still_is_there_when_the_watch_is_back_goes_on(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with watching_bridge(credentiald) as bridge, running_stream(bridge, upstream):
        await credentiald.stop()
        credentiald.acknowledged.clear()
        await credentiald.start()
        await obeyed(credentiald, credentiald.revision)
        assert bridge.bridge.under_way == 1


async def test_a_bridge_serves_without_a_watch(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    credentiald.providers["anthropic"] = provider("anthropic", upstream.url, api_key="k")
    async with running_bridge(credentiald) as bridge:
        assert (await raw_exchange(bridge.port, ASK)).status == 200
        assert bridge.metrics.registry.get_sample_value("bridged_watch_streams") == 0


async def test_the_first_questions_wait_for_the_watch(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_peer, "_WATCH_SECONDS", 60.0)
    credentiald.has_watch = True
    credentiald.watches_go_on.clear()
    running = running_bridge(credentiald, credentiald_timeout_seconds=20.0)
    async with running as bridge, raw_client(bridge.port) as client:
        await until(lambda: bool(credentiald.watch_begins) and bool(credentiald.streams_opened))
        await client.send(ASK)
        await until(lambda: bridge.bridge.under_way == 1)
        # As long as a ping takes there and back.
        pings = credentiald.pings
        await until(lambda: credentiald.pings > pings + 1)
        assert not credentiald.resolves
        credentiald.watches_go_on.set()
        assert (await client.read_head()).status == 200
        assert credentiald.acknowledged == [credentiald.revision]


async def test_but_not_for_long(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_peer, "_WATCH_SECONDS", 0.05)
    credentiald.has_watch = True
    credentiald.watches_go_on.clear()
    async with running_bridge(credentiald) as bridge:
        assert (await raw_exchange(bridge.port, ASK)).status == 200
    assert not credentiald.acknowledged


async def test_a_bridge_that_stops_says_goodbye_after_its_last_question(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with watching_bridge(credentiald) as bridge:
        for _ in range(2):
            assert (await raw_exchange(bridge.port, ASK)).status == 200
        # A watch that was lost before changes nothing of it.
        credentiald.acknowledged.clear()
        await credentiald.stop()
        await credentiald.start()
        await until(lambda: bool(credentiald.acknowledged))
        assert (await raw_exchange(bridge.port, ASK)).status == 200
        assert not credentiald.goodbyes
    assert credentiald.goodbyes == [3]
