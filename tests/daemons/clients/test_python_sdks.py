"""The real Python SDKs, unchanged, through the real pair: blocking and streaming, sync and async.

Each test looks at both ends: what the SDK makes of the answer, and what the upstream was sent.
"""

import asyncio
import base64
import json
import struct

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.fakes.scripted_upstream import Recorded, reply, stream
from tests.support.pair import CENTRAL_KEY, Pair, running_pair

# The SDK's own business, not ours.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

PROVIDERS = {
    "anthropic": {"TYPE": "anthropic", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/a"},
    "openai": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/o/v1"},
    "azure": {"TYPE": "azure", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}"},
    "google": {"TYPE": "google", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}"},
}

MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "Hello"}],
    "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip
COMPLETION = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-x",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}  # fmt: skip
RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-x", "status": "completed",
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None,
    "instructions": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
    "output": [{"id": "m1", "type": "message", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}],
}  # fmt: skip
GENERATED = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hello"}]}, "finishReason": "STOP"}]}


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def sse(*events: dict[str, object], named: bool) -> list[bytes]:
    return [
        (f"event: {event['type']}\n" if named else "").encode() + b"data: " + body(event) + b"\n\n" for event in events
    ]


MESSAGE_EVENTS = sse(
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
    named=True,
)


def chat_chunk(**delta: str) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x", "choices": [choice]}


CHAT_EVENTS = [*sse(chat_chunk(content="Hel"), chat_chunk(content="lo"), named=False), b"data: [DONE]\n\n"]
RESPONSE_EVENTS = sse(
    {"type": "response.created", "sequence_number": 0, "response": {**RESPONSE, "status": "in_progress", "output": []}},
    {"type": "response.output_text.delta", "sequence_number": 1, "item_id": "m1", "output_index": 0,
     "content_index": 0, "delta": "Hello", "logprobs": []},
    {"type": "response.completed", "sequence_number": 2, "response": RESPONSE},
    named=True,
)  # fmt: skip
GENERATED_EVENTS = [b"data: " + body(GENERATED) + b"\r\n\r\n"]


@pytest.fixture
async def pair(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as running:
        yield running


@pytest.fixture
async def closed_later():
    """Takes note of a client and gives it back; all are closed at the end, as SDKs leave their sockets open."""
    clients = []

    def note(client):
        clients.append(client)
        return client

    yield note
    for client in clients:
        if isinstance(client, genai.Client):
            await client.aio.aclose()
        client.close()


def seen(pair: Pair, path: str, auth: dict[str, str]) -> Recorded:
    """The one request that arrived, at this path, with this credential and no trace of the client's token."""
    assert len(pair.upstream.requests) == 1
    request = pair.upstream.requests.pop()
    assert request.target == path
    credentials = {name.lower(): value for name, value in request.headers
                   if name.lower() in ("authorization", "x-api-key", "api-key", "x-goog-api-key")}  # fmt: skip
    assert credentials == auth
    assert pair.token.encode() not in request.raw_head + request.body
    assert pair.token not in pair.output
    assert CENTRAL_KEY not in pair.output
    return request


async def test_anthropic(pair, closed_later):
    auth = {"x-api-key": CENTRAL_KEY}
    ask = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    for credential in ({"api_key": pair.token}, {"auth_token": pair.token, "api_key": None}):
        client = closed_later(anthropic.Anthropic(base_url=pair.url("anthropic"), max_retries=0, **credential))
        pair.upstream.script(reply(200, body(MESSAGE)))
        message = await asyncio.to_thread(client.messages.create, **ask)
        request = seen(pair, "/a/v1/messages", auth)
        assert message.content[0].text == "Hello"
        assert json.loads(request.body) == ask
        assert request.header("anthropic-version")
        pair.upstream.script(stream(*MESSAGE_EVENTS))
        assert await asyncio.to_thread(_anthropic_text, client, ask) == "Hello"
        seen(pair, "/a/v1/messages", auth)
    pair.upstream.script(reply(200, body({"input_tokens": 7})))
    counted = await asyncio.to_thread(
        client.messages.count_tokens, model="claude-x", messages=[{"role": "user", "content": "Hi"}]
    )
    seen(pair, "/a/v1/messages/count_tokens", auth)
    assert counted.input_tokens == 7
    pair.upstream.script(reply(200, body({"data": [], "has_more": False, "first_id": None, "last_id": None})))
    assert (await asyncio.to_thread(client.models.list)).data == []
    seen(pair, "/a/v1/models", auth)


def _anthropic_text(client, ask):
    with client.messages.stream(**ask) as events:
        return "".join(events.text_stream)


async def test_anthropic_async_and_beta(pair):
    async with anthropic.AsyncAnthropic(base_url=pair.url("anthropic"), api_key=pair.token, max_retries=0) as client:
        pair.upstream.script(stream(*MESSAGE_EVENTS))
        ask = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        async with client.beta.messages.stream(betas=["context-1m-2025-08-07"], **ask) as events:
            text = "".join([piece async for piece in events.text_stream])
    request = seen(pair, "/a/v1/messages", {"x-api-key": CENTRAL_KEY})

    assert text == "Hello"
    assert request.header("anthropic-beta") == "context-1m-2025-08-07"


async def test_an_error_of_the_upstream_arrives_as_the_sdks_own_exception(pair, closed_later):
    client = closed_later(anthropic.Anthropic(base_url=pair.url("anthropic"), api_key=pair.token, max_retries=0))
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    pair.upstream.script(reply(529, body(error), [("Content-Type", "application/json"), ("request-id", "req_up")]))
    with pytest.raises(anthropic.APIStatusError) as refused:
        await asyncio.to_thread(
            client.messages.create, model="m", max_tokens=1, messages=[{"role": "user", "content": "Hi"}]
        )

    assert refused.value.status_code == 529
    assert refused.value.body == error
    assert refused.value.request_id == "req_up"


async def test_a_refusal_of_ours_arrives_as_the_sdks_own_exception_with_an_id(pair, closed_later):
    wrong = "dbu_" + "0" * 49
    ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    claude = closed_later(anthropic.Anthropic(base_url=pair.url("anthropic"), api_key=wrong, max_retries=0))
    gpt = closed_later(openai.OpenAI(base_url=f"{pair.url('openai')}/v1", api_key=wrong, max_retries=0))
    with pytest.raises(anthropic.AuthenticationError) as first:
        await asyncio.to_thread(claude.messages.create, max_tokens=1, **ask)
    with pytest.raises(openai.AuthenticationError) as second:
        await asyncio.to_thread(gpt.chat.completions.create, **ask)

    assert first.value.request_id == first.value.response.headers["x-interception-id"]
    assert second.value.request_id == second.value.response.headers["x-interception-id"]
    assert second.value.code == "access_token_invalid"
    assert not pair.upstream.requests


async def test_openai(pair, closed_later):
    auth = {"authorization": f"Bearer {CENTRAL_KEY}"}
    client = closed_later(openai.OpenAI(base_url=f"{pair.url('openai')}/v1", api_key=pair.token, max_retries=0))
    ask = {"model": "gpt-x", "messages": [{"role": "user", "content": "Hi"}]}
    pair.upstream.script(reply(200, body(COMPLETION)))
    completion = await asyncio.to_thread(client.chat.completions.create, **ask)
    assert completion.choices[0].message.content == "Hello"
    assert json.loads(seen(pair, "/o/v1/chat/completions", auth).body) == ask
    pair.upstream.script(stream(*CHAT_EVENTS))
    chunks = await asyncio.to_thread(lambda: list(client.chat.completions.create(stream=True, **ask)))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "Hello"
    seen(pair, "/o/v1/chat/completions", auth)
    pair.upstream.script(reply(200, body(RESPONSE)))
    response = await asyncio.to_thread(client.responses.create, model="gpt-x", input="Hi")
    assert response.output_text == "Hello"
    seen(pair, "/o/v1/responses", auth)
    pair.upstream.script(stream(*RESPONSE_EVENTS))
    events = await asyncio.to_thread(lambda: list(client.responses.create(model="gpt-x", input="Hi", stream=True)))
    assert [event.type for event in events][-1] == "response.completed"
    seen(pair, "/o/v1/responses", auth)
    vector = base64.b64encode(struct.pack("<2f", 0.5, -0.5)).decode()
    made = {"object": "list", "model": "e", "data": [{"object": "embedding", "index": 0, "embedding": vector}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1}}  # fmt: skip
    pair.upstream.script(reply(200, body(made)))
    embedded = await asyncio.to_thread(client.embeddings.create, model="e", input="Hi")
    assert embedded.data[0].embedding == [0.5, -0.5]
    seen(pair, "/o/v1/embeddings", auth)
    model = {"id": "org/model", "object": "model", "created": 1, "owned_by": "o"}
    pair.upstream.script(reply(200, body({"object": "list", "data": [model]})), reply(200, body(model)))
    assert [one.id for one in await asyncio.to_thread(lambda: list(client.models.list()))] == ["org/model"]
    seen(pair, "/o/v1/models", auth)
    assert (await asyncio.to_thread(client.models.retrieve, "org/model")).id == "org/model"
    seen(pair, "/o/v1/models/org%2Fmodel", auth)


async def test_openai_async(pair):
    async with openai.AsyncOpenAI(base_url=f"{pair.url('openai')}/v1", api_key=pair.token, max_retries=0) as client:
        pair.upstream.script(stream(*CHAT_EVENTS), reply(200, body(RESPONSE)))
        made = await client.chat.completions.create(
            model="gpt-x", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content async for chunk in made])
        response = await client.responses.create(model="gpt-x", input="Hi")

    assert (text, response.output_text) == ("Hello", "Hello")
    assert [request.target for request in pair.upstream.requests] == ["/o/v1/chat/completions", "/o/v1/responses"]


async def test_azure_openai(pair, closed_later):
    client = closed_later(
        openai.AzureOpenAI(
            azure_endpoint=pair.url("azure"), api_key=pair.token, api_version="2025-01-01", max_retries=0
        )
    )
    ask = {"model": "my-deployment", "messages": [{"role": "user", "content": "Hi"}]}
    path = "/openai/deployments/my-deployment/chat/completions?api-version=2025-01-01"
    pair.upstream.script(reply(200, body(COMPLETION)), stream(*CHAT_EVENTS))
    completion = await asyncio.to_thread(client.chat.completions.create, **ask)
    assert completion.choices[0].message.content == "Hello"
    seen(pair, path, {"api-key": CENTRAL_KEY})
    chunks = await asyncio.to_thread(lambda: list(client.chat.completions.create(stream=True, **ask)))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "Hello"
    seen(pair, path, {"api-key": CENTRAL_KEY})


async def test_azure_by_the_openai_sdk(pair, closed_later):
    client = closed_later(openai.OpenAI(base_url=f"{pair.url('azure')}/v1", api_key=pair.token, max_retries=0))
    pair.upstream.script(reply(200, body(COMPLETION)))
    await asyncio.to_thread(client.chat.completions.create, model="d", messages=[{"role": "user", "content": "Hi"}])

    seen(pair, "/openai/v1/chat/completions", {"api-key": CENTRAL_KEY})


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_google_genai(pair, closed_later, version):
    auth = {"x-goog-api-key": CENTRAL_KEY}
    options = types.HttpOptions(base_url=pair.url("google"), api_version=version)
    client = closed_later(genai.Client(api_key=pair.token, http_options=options))
    pair.upstream.script(reply(200, body(GENERATED)), stream(*GENERATED_EVENTS))
    made = await asyncio.to_thread(client.models.generate_content, model="gemini-x", contents="Hi")
    assert made.text == "Hello"
    seen(pair, f"/{version}/models/gemini-x:generateContent", auth)
    chunks = await asyncio.to_thread(
        lambda: [chunk.text for chunk in client.models.generate_content_stream(model="gemini-x", contents="Hi")]
    )
    assert chunks == ["Hello"]
    seen(pair, f"/{version}/models/gemini-x:streamGenerateContent?alt=sse", auth)
    pair.upstream.script(reply(200, body({"totalTokens": 4})), stream(*GENERATED_EVENTS))
    counted = await asyncio.to_thread(client.models.count_tokens, model="gemini-x", contents="Hi")
    assert counted.total_tokens == 4
    seen(pair, f"/{version}/models/gemini-x:countTokens", auth)
    texts = [chunk.text async for chunk in await client.aio.models.generate_content_stream(
        model="gemini-x", contents="Hi")]  # fmt: skip
    assert texts == ["Hello"]
    seen(pair, f"/{version}/models/gemini-x:streamGenerateContent?alt=sse", auth)
    pair.upstream.script(reply(200, body({"embeddings": [{"values": [0.5]}]})))
    embedded = await asyncio.to_thread(client.models.embed_content, model="e", contents="Hi")
    assert embedded.embeddings[0].values == [0.5]
    assert pair.upstream.requests.pop().path.startswith(f"/{version}/models/e:")
