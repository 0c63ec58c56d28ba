"""What the client gets is the same with taps on, off and crashing, for every dialect and wherever the network cuts."""

import gzip
import json
import random
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from bridged.recording import TapMaker
from bridged.records import AnswerRecords
from bridged.taps import answer_tap
from tests.fakes.credentiald import FakeCredentiald
from tests.fakes.scripted_upstream import CUT, JSON, SSE, Exchange, ScriptedUpstream, reply, stream
from tests.support import openai_chat_turns as chat
from tests.support.bridge import AUTH, RunningBridge, running_bridge
from tests.support.bridge_reports import reported
from tests.support.kept_records import body as body_of
from tests.support.raw_http import RawAnswer, raw_exchange, request
from tests.support.taps import DOCUMENTS, STREAMS, Recorded

TARGETS = {
    "anthropic.messages": "/anthropic/v1/messages",
    "openai.chat_completions": "/openai/v1/chat/completions",
    "openai.responses": "/openai/v1/responses",
    "google.generate_content": "/google/v1beta/models/g:generateContent",
    "google.stream_generate_content": "/google/v1beta/models/g:streamGenerateContent?alt=sse",
}
ANSWERS = [one for one in (*STREAMS, *DOCUMENTS) if one.operation in TARGETS]
# Of each request another one.
OWN_HEADERS = {"x-interception-id", "date"}


class Crashing:
    """A tap that fails where it is told to."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._fed = 0

    def feed(self, data: bytes) -> None:
        self._fed += 1
        if self._where == "feed" or (self._where == "later" and self._fed > 2):
            raise RuntimeError("cannot read")

    def end(self, *, whole: bool) -> AnswerRecords:
        if self._where == "end":
            raise RuntimeError("cannot end")
        return AnswerRecords(partial=not whole)


def crashing(where: str) -> TapMaker:
    def make_tap(*_: object, **__: object) -> Any:
        if where == "make":
            raise RuntimeError("cannot begin")
        return Crashing(where)

    return make_tap


WAYS: dict[str, dict[str, Any]] = {
    "off": {"records": False},
    "on": {"make_tap": answer_tap},
    **{where: {"make_tap": crashing(where)} for where in ("make", "feed", "later", "end")},
}


def body_for(operation: str, **more: object) -> bytes:
    model = {} if operation.startswith("google") else {"model": "m"}
    return json.dumps({**model, "messages": [{"role": "user", "content": "Hi"}], **more}).encode()


def pieces_of(data: bytes, chance: random.Random) -> list[bytes]:
    places = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(chance.randrange(12)))})
    return [data[start:end] for start, end in pairwise(places)]


def seen(answer: RawAnswer) -> object:
    headers = sorted((name, value) for name, value in answer.headers if name.lower() not in OWN_HEADERS)
    own_id = (answer.header("x-interception-id") or "").encode()
    return answer.status, headers, answer.body.replace(own_id, b"<id>"), answer.complete


async def asked(bridge: RunningBridge, operation: str, body: bytes, *headers: tuple[str, str]) -> object:
    sent = request("POST", TARGETS[operation], headers=[AUTH, *headers], body=body)
    return seen(await raw_exchange(bridge.port, sent))


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
async def test_answers_are_the_same_wherever_they_are_cut(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, answer: Recorded
) -> None:
    found: dict[str, list[object]] = {}
    is_stream = answer in STREAMS
    # Usage was asked for, so that nothing is taken out of a stream of Chat.
    body = body_for(answer.operation, stream=is_stream, stream_options={"include_usage": True})
    for way, options in WAYS.items():
        chance = random.Random(7)
        found[way] = []
        async with running_bridge(credentiald, **options) as bridge:
            for number in range(12):
                pieces = pieces_of(answer.body, chance)
                # Half of them do not come to their end.
                steps: list[Any] = pieces if number % 2 else [*pieces[: chance.randrange(len(pieces) + 1)], CUT]
                upstream.script(stream(*steps, headers=SSE if is_stream else JSON))
                found[way].append(await asked(bridge, answer.operation, body))
    for way in WAYS:
        assert found[way] == found["off"], way
    assert [one.body for one in upstream.requests] == [body] * len(upstream.requests)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("answer", ANSWERS, ids=str)
async def test_compressed_answers_are_the_same(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, answer: Recorded, coding: str
) -> None:
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}[coding](answer.body)
    chance = random.Random(7)
    kind = [*(SSE if answer in STREAMS else JSON), ("Content-Encoding", coding)]
    upstream.default = stream(*pieces_of(packed, chance), headers=kind)
    body = body_for(answer.operation, stream=answer in STREAMS)
    found = {}
    for way, options in WAYS.items():
        async with running_bridge(credentiald, **options) as bridge:
            found[way] = await asked(bridge, answer.operation, body)
            if way == "on":
                (report,) = await reported(credentiald)
    for way in WAYS:
        assert found[way] == found["off"], way
    assert packed in found["off"]  # type: ignore[operator]
    wanted = answer.expected.usage
    assert wanted is not None
    assert [one.input_tokens for one in report.token_usages] == [wanted.input_tokens]
    assert not report.token_usages[0].partial


def openai(name: str, chance: random.Random, *, cut: bool) -> Callable[[Exchange], Any]:
    """Usage where it is asked for, and no trace of it where not. Cut inside the chunks that both have."""

    async def script(exchange: Exchange) -> None:
        options = json.loads(exchange.request.body).get("stream_options") or {}
        made = chat.with_usage(name) if options.get("include_usage") else chat.chunks(name)
        sent = chat.events(made)
        if cut:
            await stream(*sent[: len(chat.chunks(name)) - 2], CUT)(exchange)
        else:
            await stream(*pieces_of(b"".join(sent), chance))(exchange)

    return script


@pytest.mark.parametrize("name", list(chat.TURNS))
async def test_a_stream_of_chat_has_usage_only_for_clients_that_ask(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, name: str
) -> None:
    found: dict[str, list[object]] = {}
    bodies = [
        body_for("openai.chat_completions", stream=True, **({} if wish is None else {"stream_options": wish}))
        for wish in (None, {"include_usage": False}, {"include_usage": True})
    ]
    for way, options in WAYS.items():
        chance = random.Random(7)
        found[way] = []
        async with running_bridge(credentiald, **options) as bridge:
            for body in bodies * 3:
                for cut in (False, True):
                    upstream.script(openai(name, chance, cut=cut))
                    found[way].append(await asked(bridge, "openai.chat_completions", body))
    for way in WAYS:
        assert found[way] == found["off"], way
    # Asked for by the bridge, where there are taps.
    assert sum(b'"include_usage":' in one.body.replace(b" ", b"") for one in upstream.requests[:18]) == 12
    assert sum(b'"include_usage":true' in one.body.replace(b" ", b"") for one in upstream.requests[18:36]) == 18


async def test_a_compressed_request_goes_as_it_came_and_is_recorded(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply(200, body_of(chat.document("tool")))
    body = body_for("openai.chat_completions", model="gpt-5", stream=True)
    packed = gzip.compress(body)
    found = []
    for options in WAYS.values():
        async with running_bridge(credentiald, **options) as bridge:
            found.append(await asked(bridge, "openai.chat_completions", packed, ("Content-Encoding", "gzip")))
    assert found == [found[0]] * len(WAYS)
    assert [one.body for one in upstream.requests] == [packed] * len(WAYS)
    reports = await reported(credentiald, len(WAYS) - 1)
    assert {(one.facts.model, one.facts.streaming) for one in reports} == {("gpt-5", True)}
    assert [[prompt.text for prompt in one.prompts] for one in reports] == [["Hi"]] * len(reports)
