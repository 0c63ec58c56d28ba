"""The demo upstream: three dialects, blocking and streaming, with tools; the same question gets the same answer."""

import base64
import json
import struct
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from bridged.demo.server import running_demo_upstream
from daemonkit.listen import Address
from tests.support.raw_http import RawAnswer, raw_client, raw_exchange, request

TOOL = {"name": "weather", "description": "d"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "days", "unit"],
}
ARGUMENTS = {"city": "demo", "days": 1, "unit": "C"}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with running_demo_upstream(Address(host="127.0.0.1", port=0), timedelta()) as address:
        yield address.port


async def post(port: int, path: str, body: dict[str, Any]) -> RawAnswer:
    return await raw_exchange(port, request("POST", path, body=json.dumps(body).encode()))


def data_of(answer: RawAnswer) -> list[Any]:
    lines = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


async def test_anthropic_streams_the_text_that_it_answers_at_once(port: int) -> None:
    ask = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello there"}]}
    whole = (await post(port, "/v1/messages", ask)).json()
    events = data_of(await post(port, "/v1/messages", ask | {"stream": True}))
    text = "".join(one["delta"]["text"] for one in events if one["type"] == "content_block_delta")
    assert whole["content"][0]["text"] == text
    assert "hello there" in text
    assert [one["type"] for one in events][:3] == ["message_start", "content_block_start", "ping"]
    assert [one["type"] for one in events][-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0]["message"]["id"] == whole["id"] or whole["id"].startswith("msg_")
    assert whole["usage"]["output_tokens"] == events[-2]["usage"]["output_tokens"] > 0


async def test_anthropic_calls_the_tool_and_answers_after_its_result(port: int) -> None:
    tools = [TOOL | {"input_schema": SCHEMA}]
    asked = {"role": "user", "content": [{"type": "text", "text": "please use a tool"}]}
    ask = {"model": "m", "messages": [asked], "tools": tools}
    whole = (await post(port, "/v1/messages", ask)).json()
    events = data_of(await post(port, "/v1/messages", ask | {"stream": True}))
    pieces = "".join(one["delta"]["partial_json"] for one in events if one["type"] == "content_block_delta")
    call = whole["content"][0]
    assert (whole["stop_reason"], call["type"], call["name"], call["input"]) == (
        "tool_use",
        "tool_use",
        "weather",
        ARGUMENTS,
    )
    assert json.loads(pieces) == ARGUMENTS
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "sunny"}]}
    then = (await post(port, "/v1/messages", ask | {"messages": [asked, result]})).json()
    assert "sunny" in then["content"][0]["text"]
    assert then["stop_reason"] == "end_turn"


async def test_chat_streams_calls_tools_and_counts(port: int) -> None:
    tools = [{"type": "function", "function": TOOL | {"parameters": SCHEMA}}]
    ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    for path in ("/v1/chat/completions", "/chat/completions"):
        whole = (await post(port, path, ask)).json()
        answer = await post(port, path, ask | {"stream": True, "stream_options": {"include_usage": True}})
        chunks = data_of(answer)
        text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"])
        assert whole["choices"][0]["message"]["content"] == text != ""
        assert chunks[-1]["usage"]["total_tokens"] > 0
        assert answer.body.endswith(b"data: [DONE]\n\n")
    plain = data_of(await post(port, "/v1/chat/completions", ask | {"stream": True}))
    assert all("usage" not in one for one in plain)
    asked = ask | {"messages": [{"role": "user", "content": "use a tool"}], "tools": tools}
    call = (await post(port, "/v1/chat/completions", asked)).json()["choices"][0]["message"]["tool_calls"][0]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", ARGUMENTS)
    streamed = data_of(await post(port, "/v1/chat/completions", asked | {"stream": True}))
    calls = [one["choices"][0]["delta"].get("tool_calls") for one in streamed]
    assert json.loads("".join(one[0]["function"]["arguments"] for one in calls if one)) == ARGUMENTS
    assert streamed[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_responses_number_their_events_and_complete(port: int) -> None:
    tools = [TOOL | {"type": "function", "parameters": SCHEMA}]
    events = data_of(await post(port, "/v1/responses", {"model": "m", "input": "hi", "stream": True}))
    assert [one["sequence_number"] for one in events] == list(range(len(events)))
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    text = "".join(one["delta"] for one in events if one["type"] == "response.output_text.delta")
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text != ""
    item = {"role": "user", "content": [{"type": "input_text", "text": "use the weather tool"}]}
    called = data_of(await post(port, "/v1/responses", {"model": "m", "input": [item], "tools": tools, "stream": True}))
    call = called[-1]["response"]["output"][0]
    assert (call["type"], call["name"], json.loads(call["arguments"])) == ("function_call", "weather", ARGUMENTS)
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    then = (await post(port, "/v1/responses", {"model": "m", "input": [item, call, result], "tools": tools})).json()
    assert "sunny" in then["output"][0]["content"][0]["text"]


async def test_models_tokens_and_embeddings(port: int) -> None:
    openai = (await raw_exchange(port, request("GET", "/v1/models"))).json()
    anthropic = (
        await raw_exchange(port, request("GET", "/v1/models", headers=[("anthropic-version", "2023-06-01")]))
    ).json()
    assert [one["id"] for one in openai["data"]] == [one["id"] for one in anthropic["data"]]
    assert (openai["object"], anthropic["has_more"]) == ("list", False)
    counted = await post(port, "/v1/messages/count_tokens", {"model": "m", "messages": []})
    assert counted.json()["input_tokens"] >= 1
    floats = (await post(port, "/v1/embeddings", {"model": "m", "input": ["a", "b"]})).json()["data"]
    packed = (await post(port, "/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "base64"})).json()
    decoded = struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"]))
    assert list(decoded) == pytest.approx(floats[0]["embedding"])
    assert floats[0]["embedding"] != floats[1]["embedding"]


async def test_the_same_question_gets_the_same_answer(port: int) -> None:
    ask = {"model": "m", "messages": [{"role": "user", "content": "again"}], "stream": True}
    assert (await post(port, "/v1/messages", ask)).body == (await post(port, "/v1/messages", ask)).body


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
async def test_what_is_no_json_object_is_400(port: int, body: bytes) -> None:
    answer = await raw_exchange(port, request("POST", "/v1/messages", body=body))
    assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "body", [{"messages": "x"}, {"messages": [1, None]}, {"input": 5}, {"tools": [1]}, {"messages": [{"role": "user"}]}]
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses"])
async def test_an_odd_request_is_answered_all_the_same(port: int, path: str, body: dict[str, Any]) -> None:
    assert (await post(port, path, body)).status == 200


async def test_a_stream_rests_between_its_events() -> None:
    ask = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
    async with (
        running_demo_upstream(Address(host="127.0.0.1", port=0), timedelta(milliseconds=40)) as address,
        raw_client(address.port) as client,
    ):
        began = time.monotonic()
        await client.send(request("POST", "/v1/chat/completions", body=ask))
        await client.read_head()
        await client.read_some()
        first = time.monotonic() - began
        while await client.read_some():
            last = time.monotonic() - began
    assert last - first > 0.2
