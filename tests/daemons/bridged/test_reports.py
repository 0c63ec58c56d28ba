"""What the bridge reports to credentiald of each turn, over real sockets."""

import gzip
import json

import pytest

from bridged.records import AnswerRecords
from tests.fakes.credentiald import FakeCredentiald
from tests.fakes.scripted_upstream import CUT, SSE, ScriptedUpstream, reply, stream
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.bridge_reports import CHAT_ANSWER, CHUNKS, DONE, USAGE, ask, chat, outcome, reported, sample
from tests.support.raw_http import raw_exchange, request


async def test_a_turn_is_reported_whole(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    ids = [("x-request-id", "req-9"), ("X-Request-Id", "of a proxy")]
    upstream.script(reply(200, CHAT_ANSWER, [("Content-Type", "application/json"), *ids]))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(chat(), "/openai/v1/chat/completions", ("session-id", "s-1")))
        (report,) = await reported(credentiald)
        metrics = bridge.metrics.registry
        await until(lambda: sample(metrics, "bridged_interceptions_reported_total") == 1)
        assert sample(metrics, "bridged_records_waiting") == 0
    assert answer.body == CHAT_ANSWER
    asked = credentiald.resolves[0]
    assert (asked.client, asked.interception_id) == ("Codex", answer.header("x-interception-id"))
    facts, end = report.facts, report.end
    assert report.receipt == b"receipt"
    assert (facts.client, facts.user_agent, facts.client_session_id) == ("Codex", "codex_cli_rs/0.169", "s-1")
    assert (facts.operation, facts.model, facts.streaming) == ("openai.chat_completions", "gpt-5", False)
    assert outcome(report) == ("COMPLETED", "UNSPECIFIED", "", 200)
    assert end.upstream_request_id == "req-9"
    assert 0 < end.first_byte_micros <= end.duration_micros < 10_000_000
    (usage,) = report.token_usages
    assert (usage.response_id, usage.input_tokens, usage.output_tokens) == ("c-1", 4, 4)
    assert (usage.cache_read_input_tokens, usage.partial) == (6, False)
    (prompt,) = report.prompts
    assert (prompt.text, prompt.response_id) == ("list the files", "c-1")
    (tool,) = report.tool_calls
    assert (tool.tool, tool.tool_call_id, tool.input) == ("ls", "call-1", '{"path":"."}')


@pytest.mark.parametrize(
    "target", ["/openai/v1/models", "/openai/v1/embeddings", "/anthropic/v1/messages/count_tokens"]
)
async def test_what_is_no_turn_is_not_reported(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, target: str
) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    async with running_bridge(credentiald) as bridge:
        method = "GET" if target.endswith("models") else "POST"
        await raw_exchange(bridge.port, request(method, target, headers=[AUTH], body=b"{}"))
        await raw_exchange(bridge.port, ask(chat()))
        (report,) = await reported(credentiald)
    assert report.facts.operation == "openai.chat_completions"
    assert [one.client for one in credentiald.resolves] == ["", "Codex"]


async def test_a_refused_resolve_is_no_interception(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.default = reply(200, CHAT_ANSWER)
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(bridge.port, ask(chat(), "/nobody/v1/chat/completions"))
        await raw_exchange(bridge.port, ask(chat()))
        await reported(credentiald)
    assert len(credentiald.resolves) == 2


# -- asking for usage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [1, 7, 10_000])
async def test_usage_is_asked_for_and_taken_out_again(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, sizes: int
) -> None:
    whole = b"".join([*CHUNKS, USAGE, DONE])
    upstream.script(stream(*(whole[at : at + sizes] for at in range(0, len(whole), sizes))))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(chat(stream=True)))
        (report,) = await reported(credentiald)
    assert json.loads(upstream.requests[0].body)["stream_options"] == {"include_usage": True}
    assert answer.body == b"".join([*CHUNKS, DONE])
    assert [(one.input_tokens, one.output_tokens) for one in report.token_usages] == [(10, 4)]


async def test_a_client_that_asks_for_usage_gets_it(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.script(stream(*CHUNKS, USAGE, DONE))
    body = chat(stream=True, stream_options={"include_usage": True})
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(body))
        (report,) = await reported(credentiald)
    assert upstream.requests[0].body == body
    assert answer.body == b"".join([*CHUNKS, USAGE, DONE])
    assert len(report.token_usages) == 1


async def test_nothing_is_asked_for_where_the_setting_is_off(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(*CHUNKS, DONE))
    async with running_bridge(credentiald, asks_for_usage=False) as bridge:
        await raw_exchange(bridge.port, ask(chat(stream=True)))
        (report,) = await reported(credentiald)
    assert upstream.requests[0].body == chat(stream=True)
    assert not report.token_usages


async def test_a_compressed_stream_passes_as_it_came(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    packed = gzip.compress(b"".join([*CHUNKS, USAGE, DONE]))
    upstream.script(stream(packed[:50], packed[50:], headers=[*SSE, ("Content-Encoding", "gzip")]))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(chat(stream=True)))
        (report,) = await reported(credentiald)
    assert answer.body == packed
    assert [one.input_tokens for one in report.token_usages] == [10]


async def test_a_stream_that_breaks_inside_an_event_passes_what_came(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(CHUNKS[0], CHUNKS[1][:20], CUT))
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, ask(chat(stream=True)))
    assert answer.body.startswith(CHUNKS[0] + CHUNKS[1][:20])


# -- taps that fail --------------------------------------------------------------------------------------------------


class Crashing:
    """A tap that fails where it is told to."""

    def __init__(self, where: str) -> None:
        self._where = where

    def feed(self, data: bytes) -> None:
        if self._where == "feed":
            raise RuntimeError("cannot read")

    def end(self, *, whole: bool) -> AnswerRecords:
        if self._where == "end":
            raise RuntimeError("cannot end")
        return AnswerRecords(partial=not whole)


@pytest.mark.parametrize("where", ["make", "feed", "end", "nowhere"])
async def test_the_clients_bytes_are_the_same_whatever_a_tap_does(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, where: str
) -> None:
    def make_tap(*_: object, **__: object) -> Crashing:
        if where == "make":
            raise RuntimeError("cannot begin")
        return Crashing(where)

    upstream.script(stream(*CHUNKS, USAGE, DONE))
    async with running_bridge(credentiald, make_tap=make_tap) as bridge:
        answer = await raw_exchange(bridge.port, ask(chat(stream=True)))
        (report,) = await reported(credentiald)
        failed = sample(bridge.metrics.registry, "bridged_tap_troubles_total", trouble="failed")
    assert failed == (where != "nowhere")
    assert (answer.body, answer.complete) == (b"".join([*CHUNKS, DONE]), True)
    assert outcome(report) == ("COMPLETED", "UNSPECIFIED", "", 200)
    assert not report.token_usages


async def test_without_a_recorder_nothing_is_read_or_edited(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(*CHUNKS, DONE))
    async with running_bridge(credentiald, records=False) as bridge:
        answer = await raw_exchange(bridge.port, ask(chat(stream=True)))
    assert upstream.requests[0].body == chat(stream=True)
    assert answer.body == b"".join([*CHUNKS, DONE])
    assert credentiald.reports == 0
