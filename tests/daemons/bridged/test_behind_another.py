"""One bridge behind another: a provider's base URL is an instance of another bridge, its key a token of that one.

Client → outer bridge → inner bridge → upstream. The outer bridge sees an upstream like any other.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes.bedrock import CUT as BEDROCK_CUT
from tests.fakes.bedrock import FakeBedrock, broken, error, exception, running_bedrock, says
from tests.fakes.bedrock_turns import Text, Thinking, ToolUse
from tests.fakes.credentiald import USER_TOKEN, FakeCredentiald, provider, running_credentiald
from tests.fakes.scripted_upstream import CUT, STALL, ScriptedUpstream, hang_up, reply, running_upstream, stream
from tests.support.bedrock import ACCESS_KEY_ID, MODEL, SECRET, SESSION_TOKEN, bedrock_provider
from tests.support.bridge import AUTH, RunningBridge, running_bridge, until
from tests.support.raw_http import raw_client, raw_exchange, request

INNER_TOKEN = "dbu_token-of-the-inner-bridge"
MESSAGES: Any = [{"role": "user", "content": "hi"}]
ASK: Any = {"model": MODEL, "max_tokens": 4096, "messages": MESSAGES}
BLOCKS = (Thinking("hm"), Text("Hello"), ToolUse("get_weather", {"city": "Oslo"}))
EVENT = b'event: message_start\ndata: {"type":"message_start"}\n\n'


@dataclass(frozen=True, kw_only=True)
class Two:
    """Two bridges. Providers of the outer one are at `inner`."""

    upstream: ScriptedUpstream
    bedrock: FakeBedrock
    outer: RunningBridge
    inner: RunningBridge
    outside: FakeCredentiald
    inside: FakeCredentiald

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.outer.port}/api/v2/aibridge/{name}"


@asynccontextmanager
async def two_bridges(**changed: Any) -> AsyncIterator[Two]:
    waits = {"credentiald_timeout_seconds": 30, **changed}
    async with (
        running_upstream() as upstream,
        running_bedrock() as bedrock,
        running_credentiald() as inside,
        running_credentiald() as outside,
        running_bridge(inside, **waits) as inner,
        running_bridge(outside, **waits) as outer,
    ):
        bedrock.accept(ACCESS_KEY_ID, SECRET, SESSION_TOKEN)
        inside.providers["anthropic"] = provider("anthropic", upstream.url, api_key="sk-upstream")
        inside.providers["openai"] = provider("openai", f"{upstream.url}/v1", api_key="sk-upstream")
        inside.providers["aws"] = bedrock_provider(bedrock)
        base = f"http://127.0.0.1:{inner.port}/api/v2/aibridge"
        outside.providers["anthropic"] = provider("anthropic", f"{base}/anthropic", api_key=INNER_TOKEN)
        outside.providers["openai"] = provider("openai", f"{base}/openai/v1", api_key=INNER_TOKEN)
        # Bedrock behind the inner bridge: spoken to as if it were Anthropic, or as Bedrock with a bearer token.
        outside.providers["as-anthropic"] = provider("anthropic", f"{base}/aws", api_key=INNER_TOKEN)
        outside.providers["as-bedrock"] = provider("bedrock", f"{base}/aws", bearer=INNER_TOKEN)
        yield Two(upstream=upstream, bedrock=bedrock, outer=outer, inner=inner, outside=outside, inside=inside)


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    async with two_bridges() as running:
        yield running


def asked(name: str = "anthropic") -> bytes:
    body = b'{"model":"m","max_tokens":5,"messages":[],"stream":true}'
    return request("POST", f"/{name}/v1/messages", headers=[AUTH], body=body)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", ["as-anthropic", "as-bedrock"])
async def test_a_turn_goes_through_both_to_bedrock(two: Two, name: str, streamed: bool) -> None:
    two.bedrock.default = says(*BLOCKS)
    async with anthropic.AsyncAnthropic(
        base_url=two.url(name), auth_token=USER_TOKEN, api_key=None, max_retries=0
    ) as client:
        if streamed:
            async with client.messages.stream(**ASK) as streaming:
                message = await streaming.get_final_message()
        else:
            message = await client.messages.create(**ASK)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    (sent,) = two.bedrock.requests
    assert sent.signer is not None
    assert sent.signer.access_key_id == ACCESS_KEY_ID
    for token in (USER_TOKEN, INNER_TOKEN):
        assert token not in repr(sent.headers) + sent.target
    # Each asks its own credentiald, with its own client's token.
    assert [one.access_token for one in two.outside.resolves] == [USER_TOKEN]
    assert [one.access_token for one in two.inside.resolves] == [INNER_TOKEN]


async def test_the_body_passes_both_byte_for_byte_and_each_takes_its_token_out(two: Two) -> None:
    body = b'{ "model" : "m", "n": 1e400, "x": "\\ud83d" }'
    two.upstream.script(reply(200, b'{"n": 1e400}', [("Content-Type", "application/json"), ("request-id", "theirs")]))
    answer = await raw_exchange(two.outer.port, request("POST", "/anthropic/v1/messages", headers=[AUTH], body=body))
    (sent,) = two.upstream.requests
    assert (sent.body, answer.body) == (body, b'{"n": 1e400}')
    assert sent.header("x-api-key") == "sk-upstream"
    assert not [value for _, value in sent.headers if USER_TOKEN in value or INNER_TOKEN in value]
    assert answer.header("request-id") == "theirs"
    # One id of an interception each; the client sees that of the bridge that it talks to.
    assert answer.header("x-interception-id") == two.outside.resolves[0].interception_id


async def test_openais_sdk_talks_through_both(two: Two) -> None:
    chunk = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'  # noqa: E501
    two.upstream.script(stream(chunk, b"data: [DONE]\n\n"))
    async with openai.AsyncOpenAI(base_url=f"{two.url('openai')}/v1", api_key=USER_TOKEN, max_retries=0) as client:
        streaming = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert [one.choices[0].delta.content async for one in streaming] == ["hi"]
    assert two.upstream.requests[0].header("authorization") == "Bearer sk-upstream"


async def test_events_pass_both_as_they_come(two: Two) -> None:
    gate = asyncio.Event()
    two.upstream.script(stream(EVENT, gate, EVENT))
    async with raw_client(two.outer.port) as client:
        await client.send(asked())
        head = await client.read_head()
        assert await client.read_some() == EVENT
        gate.set()
        assert await client.read_some() == EVENT
        assert await client.read_some() == b""
    assert head.header("x-accel-buffering") == "no"


async def test_errors_and_waits_of_the_upstream_pass_both(two: Two) -> None:
    two.bedrock.script(error("ThrottlingException", "slow down", headers={"Retry-After": "7"}))
    answer = await raw_exchange(two.outer.port, asked("as-anthropic"))
    assert (answer.status, answer.header("retry-after")) == (429, "7")
    assert answer.json()["error"] == {"type": "rate_limit_error", "message": "slow down"}


async def test_what_the_inner_bridge_refuses_is_told_as_its_answer(two: Two) -> None:
    two.inside.providers.clear()
    answer = await raw_exchange(two.outer.port, asked())
    assert answer.status == 404
    assert answer.json()["error"]["type"] == "not_found_error"
    # The header is for refusals of the bridge that answers; the id in `request-id` is that of the one that refused.
    assert answer.error is None
    assert answer.header("request-id") == two.inside.resolves[0].interception_id


@pytest.mark.parametrize("name", ["anthropic", "as-anthropic", "as-bedrock"])
async def test_a_stream_that_breaks_behind_both_has_one_error_event(two: Two, name: str) -> None:
    by = exception("modelStreamErrorException", "oh") if name == "as-anthropic" else BEDROCK_CUT
    two.upstream.script(stream(EVENT, CUT))
    two.bedrock.script(broken(Text("half of it"), after_frames=3, by=by))
    answer = await raw_exchange(two.outer.port, asked(name))
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body.count(b"event: error\n") == 1
    assert answer.body.endswith(b"\n\n")


async def test_an_inner_bridge_without_upstream_is_502_and_one_that_is_gone_too(two: Two) -> None:
    two.upstream.script(hang_up())
    assert (await raw_exchange(two.outer.port, asked())).status == 502
    two.outside.providers["anthropic"].provider.base_url = "http://127.0.0.1:9"
    assert (await raw_exchange(two.outer.port, asked())).status == 502


async def test_a_client_that_leaves_ends_the_request_in_both(two: Two) -> None:
    two.upstream.script(stream(EVENT, STALL))
    async with raw_client(two.outer.port) as client:
        await client.send(asked())
        await client.read_head()
        client.leave()
    await asyncio.wait_for(two.upstream.requests[0].closed.wait(), 10)
    await until(lambda: two.outer.bridge.under_way == two.inner.bridge.under_way == 0)
