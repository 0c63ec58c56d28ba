"""Upstreams that refuse to be asked for usage: the client never hears of what the bridge tried."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from bridged.answer_to_asking import MAX_HELD_BYTES, MAX_REMEMBERED, UpstreamsNotToAsk
from bridged.carrying import sending_again
from tests.fakes.credentiald import FakeCredentiald, provider
from tests.fakes.scripted_upstream import CUT, JSON, STALL, ScriptedUpstream, raw, reply, stream
from tests.support.bridge import running_bridge, until
from tests.support.bridge_reports import CHUNKS, DONE, USAGE, ask, chat, outcome, reported
from tests.support.raw_http import raw_client, raw_exchange

# Azure before 2024-08, and Mistral.
AZURE = b'{"error":{"message":"Unrecognized request argument supplied: stream_options","type":"invalid_request_error"}}'
MISTRAL = b'{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs"}]}'
OTHER = b'{"error":{"message":"max_tokens is too large","type":"invalid_request_error"}}'
BODY = chat(stream=True)
ANSWER = b"".join([*CHUNKS, DONE])


def asks(body: bytes) -> bool:
    return json.loads(body).get("stream_options") == {"include_usage": True}


@pytest.mark.parametrize(
    "refusal",
    [
        reply(400, AZURE),
        reply(422, MISTRAL),
        reply(400, gzip.compress(AZURE), [*JSON, ("Content-Encoding", "gzip")]),
        stream(AZURE[:60], AZURE[60:], status=400),
        raw(b"HTTP/1.1 400 Bad Request\r\n\r\n" + AZURE),
    ],
)
async def test_the_request_goes_out_again_as_the_client_made_it(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, refusal: Any
) -> None:
    upstream.script(refusal, stream(*CHUNKS, DONE), stream(*CHUNKS, DONE))
    async with running_bridge(credentiald) as bridge:
        first = await raw_exchange(bridge.port, ask(BODY))
        second = await raw_exchange(bridge.port, ask(BODY))
        reports = await reported(credentiald, 2)
    assert [asks(one.body) for one in upstream.requests] == [True, False, False]
    assert {one.body for one in upstream.requests[1:]} == {BODY}
    assert len({one.header("authorization") for one in upstream.requests}) == 1
    for answer in (first, second):
        assert (answer.status, answer.body, answer.complete) == (200, ANSWER, True)
    # One question to credentiald and one record, of the answer that the client saw.
    assert len(credentiald.resolves) == 2
    assert [outcome(one) for one in reports] == [("COMPLETED", "UNSPECIFIED", "", 200)] * 2
    assert [one.text for one in reports[0].prompts] == ["list the files"]


@pytest.mark.parametrize("is_old", [False, True])
async def test_whether_an_old_request_may_still_go_is_asked_first_also_where_the_bridge_watches(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    monkeypatch.setattr(sending_again, "_OLD_SECONDS", 0.0 if is_old else 60.0)
    credentiald.has_watch = True
    upstream.script(reply(400, AZURE), stream(*CHUNKS, DONE))
    async with running_bridge(credentiald) as bridge:
        await until(lambda: len(credentiald.acknowledged) == 1)
        answer = await raw_exchange(bridge.port, ask(BODY))
        reports = await reported(credentiald, 1)
    assert [asks(one.body) for one in upstream.requests] == [True, False]
    assert (answer.status, answer.body, answer.complete) == (200, ANSWER, True)
    assert len(credentiald.resolves) == (2 if is_old else 1)
    assert [outcome(one) for one in reports] == [("COMPLETED", "UNSPECIFIED", "", 200)]


@pytest.mark.parametrize(
    ("status", "body"),
    [(400, OTHER), (400, b""), (422, OTHER), (403, AZURE), (404, AZURE), (500, AZURE)],
)
async def test_any_other_refusal_is_the_clients(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, status: int, body: bytes
) -> None:
    upstream.default = reply(status, body)
    async with running_bridge(credentiald) as bridge:
        answers = [await raw_exchange(bridge.port, ask(BODY)) for _ in range(2)]
        reports = await reported(credentiald, 2)
    assert [(one.status, one.body, one.complete) for one in answers] == [(status, body, True)] * 2
    assert [asks(one.body) for one in upstream.requests] == [True, True]
    assert [one.end.http_status for one in reports] == [status] * 2


async def test_a_refusal_that_is_longer_than_what_is_held_back_passes(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    long = AZURE + b" " * MAX_HELD_BYTES
    gate = asyncio.Event()
    upstream.script(stream(long, gate, b"end", status=400, headers=JSON))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ask(BODY))
        await client.read_head()
        got = b""
        while len(got) < len(long):
            got += await client.read_some()
        assert got == long
        gate.set()
        await reported(credentiald)
    assert len(upstream.requests) == 1


async def test_a_refusal_that_breaks_off_passes_as_far_as_it_came(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(AZURE, CUT, status=400, headers=JSON))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(BODY))
        (report,) = await reported(credentiald)
    assert (answer.status, answer.complete) == (400, False)
    assert report.end.http_status == 400
    assert outcome(report)[:2] == ("UPSTREAM_ERROR", "UNREACHABLE")
    assert len(upstream.requests) == 1


async def test_words_that_a_client_makes_the_upstream_repeat_do_not_end_the_asking(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(400, AZURE), reply(400, AZURE), stream(*CHUNKS, USAGE, DONE))
    async with running_bridge(credentiald) as bridge:
        refused = await raw_exchange(bridge.port, ask(BODY))
        answer = await raw_exchange(bridge.port, ask(BODY))
        reports = await reported(credentiald, 2)
    assert (refused.status, refused.body) == (400, AZURE)
    assert [asks(one.body) for one in upstream.requests] == [True, False, True]
    assert answer.body == ANSWER
    assert outcome(reports[0]) == ("UPSTREAM_ERROR", "BAD_REQUEST", "invalid_request_error", 400)
    assert len(reports[1].token_usages) == 1


async def test_a_client_that_asks_itself_hears_the_refusal(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    upstream.script(reply(400, AZURE), stream(*CHUNKS, USAGE, DONE))
    async with running_bridge(credentiald) as bridge:
        refused = await raw_exchange(bridge.port, ask(body))
        await raw_exchange(bridge.port, ask(BODY))
    assert (refused.status, refused.body) == (400, AZURE)
    assert [asks(one.body) for one in upstream.requests] == [True, True]


async def test_another_upstream_is_asked_still(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    credentiald.providers["other"] = provider("openai", upstream.url + "/other", api_key="sk-2")
    upstream.script(reply(400, AZURE), stream(*CHUNKS, DONE), stream(*CHUNKS, USAGE, DONE))
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(BODY))
        answer = await raw_exchange(bridge.port, ask(BODY, "/other/v1/chat/completions"))
        reports = await reported(credentiald, 2)
    assert [asks(one.body) for one in upstream.requests] == [True, False, True]
    assert answer.body == ANSWER
    assert [len(one.token_usages) for one in reports] == [0, 1]


async def test_another_model_of_the_upstream_is_asked_about_still(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(400, AZURE), stream(*CHUNKS, DONE), stream(*CHUNKS, USAGE, DONE))
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(BODY))
        answer = await raw_exchange(bridge.port, ask(chat(stream=True, model="another")))
        reports = await reported(credentiald, 2)
    assert [asks(one.body) for one in upstream.requests] == [True, False, True]
    assert answer.body == ANSWER
    assert [len(one.token_usages) for one in reports] == [0, 1]


async def test_of_azure_a_deployment_is_not_asked_again_whatever_model_the_bodies_name(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(
        reply(400, AZURE), stream(*CHUNKS, DONE), stream(*CHUNKS, DONE), reply(400, AZURE), stream(*CHUNKS, DONE)
    )
    async with running_bridge(credentiald) as bridge:
        # The last body is long, and is not looked into at once.
        for deployment, model, more in (("d", "m1", ""), ("d", "m2", ""), ("e", "m1", "x" * 9000)):
            target = f"/azure/openai/deployments/{deployment}/chat/completions"
            answer = await raw_exchange(bridge.port, ask(chat(stream=True, model=model, user=more), target))
            assert (answer.status, answer.body) == (200, ANSWER)
        reports = await reported(credentiald, 3)
    assert [asks(one.body) for one in upstream.requests] == [True, False, False, True, False]
    assert [json.loads(one.body)["model"] for one in upstream.requests] == ["m1", "m1", "m2", "m1", "m1"]
    assert [one.model for one in credentiald.resolves] == ["d", "d", "e"]
    assert sorted(one.facts.model for one in reports) == ["d", "d", "e"]


@pytest.mark.parametrize("requests", [1, 2])
async def test_a_client_that_leaves_cancels_whichever_request_is_under_way(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, requests: int
) -> None:
    refusal = reply(400, AZURE) if requests == 2 else stream(AZURE, STALL, status=400)
    upstream.script(refusal, stream(CHUNKS[0], STALL))
    async with running_bridge(credentiald) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(ask(BODY))
            last = await upstream.wait_for_request(requests - 1)
            if requests == 2:
                await client.read_head()
        async with asyncio.timeout(5):
            await last.closed.wait()
        (report,) = await reported(credentiald)
    assert outcome(report)[0] == "CLIENT_GONE"
    assert len(upstream.requests) == requests


def test_what_is_remembered_is_bounded() -> None:
    known = UpstreamsNotToAsk()
    for number in range(MAX_REMEMBERED + 1):
        known.add(f"https://{number}", "m", provider="p")
    assert not known.has("https://0", "m")
    assert known.has("https://1", "m")
    assert known.has(f"https://{MAX_REMEMBERED}", "m")
