"""How the bridge says that interceptions ended, over real sockets: once for each, and without anybody's key."""

import gc
import gzip
import json
from typing import Any

import pytest

from bridged.conversation import Conversation
from bridged.model import RequestFacts
from tests.fakes.credentiald import USER_TOKEN, FakeCredentiald, provider
from tests.fakes.scripted_upstream import CUT, JSON, STALL, ScriptedUpstream, hang_up, reply, stream
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.bridge_reports import CHAT_ANSWER, CHUNKS, DONE, ask, chat, outcome, reported
from tests.support.raw_http import raw_client, raw_exchange, request

OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (reply(529, OVERLOADED), ("UPSTREAM_ERROR", "OVERLOADED", "overloaded_error", 529)),
        (reply(403, b'{"error":{"message":"not you","type":"x"}}'), ("UPSTREAM_ERROR", "UNAUTHORIZED", "x", 403)),
        (
            reply(401, b'{"error":{"message":"bad key"}}'),
            ("UPSTREAM_ERROR", "UNAUTHORIZED", "UPSTREAM_KEY_REFUSED", 502),
        ),
        (reply(500, b"oh no", [("Content-Type", "text/plain")]), ("UPSTREAM_ERROR", "SERVER_ERROR", "HTTP 500", 500)),
        (reply(307, b""), ("UPSTREAM_ERROR", "UNREACHABLE", "UPSTREAM_UNREACHABLE", 502)),
        (hang_up(), ("UPSTREAM_ERROR", "UNREACHABLE", "UPSTREAM_UNREACHABLE", 502)),
        (stream(b"{", CUT, headers=JSON), ("UPSTREAM_ERROR", "UNREACHABLE", "UPSTREAM_UNREACHABLE", 200)),
        (stream(CHUNKS[0], CUT), ("UPSTREAM_ERROR", "UNREACHABLE", "UPSTREAM_UNREACHABLE", 200)),
        (
            stream(CHUNKS[0], b'data: {"error":{"message":"boom","type":"server_error"}}\n\n'),
            ("UPSTREAM_ERROR", "SERVER_ERROR", "server_error", 200),
        ),
    ],
)
async def test_an_upstream_that_fails_is_an_end_with_its_category(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, script: Any, expected: tuple[object, ...]
) -> None:
    upstream.default = script
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(chat(stream=True)))
        (report,) = await reported(credentiald)
    assert outcome(report) == expected
    assert [one.text for one in report.prompts] == ["list the files"]


KEY, OWN_KEY = "sk-upstream-0123456789", "sk-own-0123456789abcdef"


@pytest.mark.parametrize("presented", [False, True])
@pytest.mark.parametrize("at", [0, 1010])
async def test_keys_that_an_upstream_quotes_are_not_recorded(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, presented: bool, at: int
) -> None:
    url = upstream.url + "/v1/"
    credentiald.providers["openai"] = provider("openai", url, presented=presented, api_key="" if presented else KEY)
    quoting = {"type": "x", "message": "." * at + f"bad headers: Bearer {KEY} Bearer {OWN_KEY} {USER_TOKEN}"}
    error = json.dumps({"error": quoting}).encode()
    upstream.script(reply(400, error), stream(CHUNKS[0], b"data: " + error + b"\n\n"))
    headers = [("X-Coder-AI-Governance-Token", USER_TOKEN)] if presented else [AUTH]
    headers += [("Authorization", f"Bearer {OWN_KEY}")] if presented else []
    async with running_bridge(credentiald, asks_for_usage=False) as bridge:
        for streams in (False, True):
            body = chat(stream=streams)
            await raw_exchange(bridge.port, request("POST", "/openai/v1/chat/completions", headers=headers, body=body))
        reports = await reported(credentiald, 2)
    for report in reports:
        said = report.end.error_message
        assert said.startswith("." * at + "bad header")
        assert len(said) <= 1024
        assert (OWN_KEY if presented else KEY)[:12] not in said
        assert USER_TOKEN not in said


async def test_a_token_in_a_header_that_is_recorded_is_left_out(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    token = "dbu_" + "a1" * 24 + "Z"
    upstream.default = reply(200, CHAT_ANSWER)
    headers = [("Authorization", f"Bearer {token}"), ("User-Agent", f"codex/1 {token}"), ("session-id", token)]
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, request("POST", "/openai/v1/chat/completions", headers=headers, body=chat()))
        (report,) = await reported(credentiald)
    assert token.encode() not in report.SerializeToString()
    assert report.facts.user_agent.startswith("codex/1 ")


async def test_an_upstream_that_is_too_slow_is_an_end(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.script(stream(CHUNKS[0], STALL))
    async with running_bridge(credentiald, idle_timeout_seconds=0.1) as bridge:
        await raw_exchange(bridge.port, ask(chat(stream=True)))
        (report,) = await reported(credentiald)
    assert outcome(report) == ("UPSTREAM_ERROR", "TIMEOUT", "UPSTREAM_TIMEOUT", 200)


async def test_a_client_that_leaves_leaves_what_was_seen(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m-1",'
        b'"usage":{"input_tokens":9,"output_tokens":1}}}\n\n'
    )
    upstream.script(stream(start, STALL))
    async with running_bridge(credentiald) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(ask(chat(stream=True), "/anthropic/v1/messages"))
            await client.read_head()
            assert await client.read_some() == start
        (report,) = await reported(credentiald)
    assert outcome(report) == ("CLIENT_GONE", "UNSPECIFIED", "", 200)
    (usage,) = report.token_usages
    assert (usage.input_tokens, usage.output_tokens, usage.partial) == (9, 1, True)


@pytest.mark.parametrize(
    ("target", "last", "expected"),
    [
        ("/openai/v1/chat/completions", DONE, ("COMPLETED", "UNSPECIFIED", "", 200)),
        ("/openai/v1/chat/completions", CHUNKS[1], ("CLIENT_GONE", "UNSPECIFIED", "", 200)),
        (
            "/openai/v1/responses",
            b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r-1"}}\n\n',
            ("COMPLETED", "UNSPECIFIED", "", 200),
        ),
        (
            "/anthropic/v1/messages",
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n',
            ("UPSTREAM_ERROR", "OVERLOADED", "overloaded_error", 200),
        ),
    ],
)
async def test_a_client_that_leaves_at_the_last_event_has_the_whole_answer(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, target: str, last: bytes, expected: tuple[object, ...]
) -> None:
    upstream.script(stream(last, STALL))
    async with running_bridge(credentiald) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(ask(chat(stream=True), target))
            await client.read_head()
            assert await client.read_some() == last
        (report,) = await reported(credentiald)
    assert outcome(report) == expected


@pytest.fixture
def earlier_left_out() -> None:
    """What there is by now is no object of the collector's: other tests left it, and going through it takes long."""
    gc.freeze()


def conversations() -> list[Conversation]:
    # Structs are not tracked by the collector; what refers to them is.
    facts = [one for one in gc.get_objects() if isinstance(one, RequestFacts)]
    return [one.conversation for one in facts if one.conversation is not None]


@pytest.mark.usefixtures("earlier_left_out")
@pytest.mark.parametrize("compressed", [False, True])
async def test_a_client_that_leaves_while_credentiald_thinks_is_reported_when_it_has_answered(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, compressed: bool
) -> None:
    asked = (
        ask(gzip.compress(chat()), "/openai/v1/chat/completions", ("Content-Encoding", "gzip"))
        if compressed
        else ask(chat())
    )
    async with running_bridge(credentiald) as bridge:
        credentiald.hang()
        async with raw_client(bridge.port) as client:
            await client.send(asked)
            await until(lambda: len(credentiald.resolves) == 1)
        await until(lambda: bridge.bridge.under_way == 0)
        # Nothing counts a body any more that nobody waits for, so it is not held.
        assert conversations() == []
        credentiald.go_on()
        (report,) = await reported(credentiald)
    assert outcome(report) == ("CLIENT_GONE", "UNSPECIFIED", "", 0)
    assert report.receipt == b"receipt"
    assert [one.text for one in report.prompts] == ["list the files"]
    assert not upstream.requests


async def test_what_was_asked_is_reported_where_no_request_can_be_made_of_it(credentiald: FakeCredentiald) -> None:
    credentiald.providers["openai"] = provider("openai", "ftp://nowhere/v1/", api_key="sk-x")
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(chat()))
        (report,) = await reported(credentiald)
    assert [one.text for one in report.prompts] == ["list the files"]


async def test_a_bridge_that_stops_ends_its_interceptions_and_reports_them(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(CHUNKS[0], STALL))
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(ask(chat(stream=True)))
        await client.read_head()
        bridge.bridge.drain()
        bridge.bridge.end_requests()
    (report,) = credentiald.reported
    assert outcome(report) == ("BRIDGE_STOPPED", "UNSPECIFIED", "", 200)
