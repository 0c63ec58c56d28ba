"""What is kept of calls and thoughts that an upstream did not bring to their end is marked, and nothing else is."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.scripted_upstream import CUT, SSE, STALL, stream
from tests.support.bridge import until
from tests.support.event_stream import event
from tests.support.kept_records import KeptRecords, kept_records
from tests.support.pair import CENTRAL_KEY, Pair, running_pair
from tests.support.raw_http import raw_client, raw_exchange, request
from tests.support.taps import MESSAGES, data

PROVIDERS = {
    "anthropic": {"TYPE": "anthropic", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/a"},
    "openai": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/o/v1"},
    "google": {"TYPE": "google", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}"},
    "aws": {"TYPE": "bedrock", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}", "BEDROCK_REGION": "eu-north-1"},
}
TARGETS = {
    "messages": "anthropic/v1/messages",
    "chat": "openai/v1/chat/completions",
    "responses": "openai/v1/responses",
    "gemini": "google/v1beta/models/{model}:streamGenerateContent?alt=sse",
    "converse": "aws/model/{model}/converse-stream",
}
# Name or source, text, and whether it is marked.
Marked = tuple[str, str, bool]


@dataclass(frozen=True)
class Case:
    """The beginning of an answer, and what is to be kept of its calls and thoughts."""

    api: str
    body: bytes
    calls: list[Marked]
    thoughts: list[Marked]
    is_cut: bool = True


def up_to(name: str, mark: str) -> bytes:
    """A recorded stream up to the end of the event that has the mark."""
    body = data(name)
    return body[: body.index(b"\n\n", body.index(mark.encode())) + 2]


def converse(count: int | None = None) -> bytes:
    lines = data("bedrock_converse.jsonl").decode().splitlines()[:count]
    return b"".join(event(kind, payload.encode()) for kind, _, payload in (line.partition(" ") for line in lines))


def incomplete() -> bytes:
    """An answer that says of its last items that they are not whole; it is over itself."""
    status = {"status": "incomplete"}
    thought = {"type": "reasoning", "id": "rs", "summary": [{"text": "First, I"}]} | status
    call = {"type": "function_call", "call_id": "k", "name": "read", "arguments": '{"path":"/et'} | status
    last = {"type": "response.incomplete", "response": {"id": "r", "output": [thought, call]}}
    return b"event: response.incomplete\ndata: " + json.dumps(last).encode() + b"\n\n"


HELD = ("thinking", "Two cities, so two calls: “ü”.", False)
LOOKING = [("reasoning_summary", text, False) for text in ("Looking around", "Then calling")]
CASES = {
    "messages-in-thought": Case("messages", up_to("anthropic_messages.sse", "Two cities"), [],
                                [("thinking", "Two cities, ", True)]),
    "messages-in-call": Case("messages", up_to("anthropic_messages.sse", '\\"Pa"'),
                             [("get_weather", '{"city": "Pa', True)], [HELD]),
    "messages-whole": Case("messages", data("anthropic_messages.sse"),
                           [("get_weather", '{"city": "Paris"}', False), ("list_cities", "{}", False)], [HELD],
                           is_cut=False),
    "chat-in-call": Case("chat", up_to("openai_chat.sse", '\\"city\\":'), [("get_weather", '{"city":', True)], []),
    "chat-whole": Case("chat", data("openai_chat.sse"),
                       [("get_weather", '{"city":"Köln"}', False), ("get_time", "{}", False)], [], is_cut=False),
    # Of a Responses answer items are read when they are done.
    "responses-in-thought": Case("responses", up_to("openai_responses.sse", '"delta":"Looking"'), [], []),
    "responses-after-call": Case("responses", up_to("openai_responses.sse", '"call_1"'),
                                 [("read_file", '{"path":"a.py"}', False)],
                                 [*LOOKING, ("commentary", "I will read two files.", False)]),
    "responses-incomplete": Case("responses", incomplete(), [("read", '{"path":"/et', True)],
                                 [("reasoning_summary", "First, I", True)], is_cut=False),
    # A call of Gemini's comes in one piece.
    "gemini-in-thought": Case("gemini", up_to("google_generate.sse", "Thinking of"), [],
                              [("thought", "Thinking of ", True)]),
    "gemini-after-thought": Case("gemini", up_to("google_generate.sse", "Well."), [],
                                 [("thought", "Thinking of weather.", False)]),
    "gemini-whole": Case("gemini", data("google_generate.sse"),
                         [("get_weather", '{"city":"Rome"}', False), ("get_time", "{}", False)],
                         [("thought", "Thinking of weather.", False)], is_cut=False),
    "converse-in-thought": Case("converse", converse(2), [], [("reasoning_content", "Rome ", True)]),
    "converse-in-call": Case("converse", converse(9), [("get_weather", '{"city":', True)],
                             [("reasoning_content", "Rome first.", False)]),
    "converse-whole": Case("converse", converse(), [("get_weather", '{"city":"Rome"}', False)],
                           [("reasoning_content", "Rome first.", False)], is_cut=False),
}  # fmt: skip


@pytest.fixture
async def pair(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, CODER_AIBRIDGE_STRUCTURED_LOGGING="true") as running:
        yield running


@pytest.fixture
async def kept(pair):
    async with kept_records(pair) as records:
        yield records


def asking(pair: Pair, api: str, model: str) -> bytes:
    target = TARGETS[api].format(model=model)
    body = json.dumps({"model": model, "stream": True, "messages": [], "input": "", "contents": []}).encode()
    headers = [("Authorization", f"Bearer {pair.token}"), ("Content-Type", "application/json")]
    return request("POST", f"/api/v2/aibridge/{target}", headers=headers, body=body)


def port_of(pair: Pair) -> int:
    return int(pair.bridged.addresses["http"].rpartition(":")[2])


def answering(case: Case, *ends: Any) -> Any:
    return stream(case.body, *ends, headers=MESSAGES if case.api == "converse" else SSE)


def lines_of(pair: Pair, kind: str, interception_id: str) -> list[dict[str, Any]]:
    return [
        line
        for line in pair.credentiald.lines
        if line.get("record_type") == kind and line["interception_id"] == interception_id
    ]


async def test_what_was_cut_is_marked_in_rows_and_in_the_log_and_nothing_else_is(pair: Pair, kept: KeptRecords) -> None:
    for name, case in CASES.items():
        pair.upstream.script(answering(case, *([CUT] if case.is_cut else [])))
        await raw_exchange(port_of(pair), asking(pair, case.api, name))
    found = {one.model: await kept.detail(one.id) for one in await kept.interceptions(len(CASES))}
    for name, case in CASES.items():
        detail = found[name]
        assert [(one.tool, one.input, one.partial) for one in detail.tool_calls] == case.calls, name
        assert [(one.source, one.content, one.partial) for one in detail.model_thoughts] == case.thoughts, name
        # As far as it was seen, for there is nothing else to go by.
        assert [one.input_bytes for one in detail.tool_calls] == [len(text.encode()) for _, text, _ in case.calls], name
        # Nothing of an answer that is whole itself is told of tokens.
        assert [one.partial for one in detail.token_usages] in ([case.is_cut], []), name
        of = detail.interception.id
        await until(lambda of=of: bool(lines_of(pair, "interception_end", of)))
        told = lines_of(pair, "tool_usage", of), lines_of(pair, "model_thought", of)
        assert [(one["tool"], one["input"], one["partial"]) for one in told[0]] == case.calls, name
        assert [(one["source"], one["content"], one["partial"]) for one in told[1]] == case.thoughts, name


async def test_a_client_that_leaves_within_a_call_leaves_one_that_is_shown_as_partial(
    pair: Pair, kept: KeptRecords
) -> None:
    case = CASES["messages-in-call"]
    pair.upstream.script(answering(case, STALL))
    async with raw_client(port_of(pair)) as client:
        await client.send(asking(pair, case.api, "left"))
        await client.read_head()
        got = b""
        while got != case.body:
            got += await client.read_some()
    (one,) = await kept.interceptions(1)
    shown = await asyncio.to_thread(pair.command, "records", "show", one.id)
    assert '    tool get_weather (partial): {"city": "Pa\n' in shown
    assert "    thinking: Two cities, so two calls: “ü”.\n" in shown
    assert "CLIENT_GONE" in shown
    as_json = json.loads(await asyncio.to_thread(pair.command, "records", "show", one.id, "--json"))
    [detail] = as_json["thread"]
    assert [call["partial"] for call in detail["tool_calls"]] == [True]
    assert [thought["partial"] for thought in detail["model_thoughts"]] == [False]


async def test_an_input_that_is_longer_than_what_is_kept_of_it_is_whole_and_has_its_length(
    pair: Pair, kept: KeptRecords
) -> None:
    def sse(**fields: Any) -> bytes:
        return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()

    begun = sse(type="content_block_start", index=0, content_block={"type": "tool_use", "id": "t", "name": "write"})
    delta = {"type": "input_json_delta", "partial_json": "x" * 800_000}
    more = sse(type="content_block_delta", index=0, delta=delta)
    pair.upstream.script(
        stream(begun, more, more, sse(type="content_block_stop", index=0), sse(type="message_stop")),
        stream(begun, more, more, CUT),
    )
    for model in ("whole", "cut"):
        await raw_exchange(port_of(pair), asking(pair, "messages", model))
    found = {one.model: await kept.detail(one.id) for one in await kept.interceptions(2)}
    for model, is_partial in (("whole", False), ("cut", True)):
        [call] = found[model].tool_calls
        assert (len(call.input), call.input_bytes, call.partial) == (1024 * 1024, 1_600_000, is_partial)
