"""Answers of Bedrock as they come: when their parts leave, how they end, who waits for whom, and what nobody learns."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anthropic
import pytest
from aiohttp import web
from botocore.exceptions import EventStreamError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest

import bridged.bridge
from bridged.aws.sigv4 import SigningKeys
from bridged.breaker import BreakerRules
from bridged.records import AnswerRecords
from daemonkit.logs import running_logs
from tests.fakes.bedrock import CUT, STALL, Exchange, Step, broken, error, exception, frames, reply, says
from tests.fakes.bedrock_turns import Text, Turn, chunk, compact, converse_frames, invoke_frames
from tests.fakes.credentiald import USER_TOKEN
from tests.support.bedrock import BEARER, MODEL, PLACEHOLDER, SECRET, SESSION_TOKEN, BedrockScene, bedrock_scene
from tests.support.bridge import AUTH, until
from tests.support.event_stream import event
from tests.support.raw_http import raw_client, raw_exchange, request

MESSAGES: Any = [{"role": "user", "content": "hi"}]
ASK: Any = {"model": MODEL, "max_tokens": 5, "messages": MESSAGES}
TURN = Turn((Text("Hello, Ada"),))


@pytest.fixture
async def scene() -> AsyncIterator[BedrockScene]:
    async with bedrock_scene() as running:
        yield running


@pytest.fixture
async def scene_with_breakers() -> AsyncIterator[BedrockScene]:
    """A breaker opens at the first failure, and closes at the first probe that goes well."""
    async with bedrock_scene(breaker_rules=BreakerRules(failure_threshold=1, max_requests=1)) as running:
        yield running


def asked(name: str = "signed", **changed: Any) -> bytes:
    body = compact({**ASK, "stream": True, **changed})
    return request("POST", f"/{name}/v1/messages", headers=[AUTH], body=body)


def native(action: str = "invoke-with-response-stream", body: bytes = b"") -> bytes:
    default = compact({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 5, "messages": MESSAGES})
    return request("POST", f"/signed/model/{MODEL}/{action}", headers=[AUTH], body=body or default)


def server_sent(data: bytes) -> bytes:
    return b"event: " + json.loads(data)["type"].encode() + b"\ndata: " + data + b"\n\n"


async def test_a_probe_is_judged_by_the_upstreams_head_and_not_by_the_clients(
    scene_with_breakers: BedrockScene,
) -> None:
    scene = scene_with_breakers
    breaking = scene.bridge.bridge.breaking
    assert breaking is not None
    now_seconds = 1000.0
    breaking.now = lambda: now_seconds
    scene.bedrock.script(error("ServiceUnavailableException", status=503), frames(STALL))
    await raw_exchange(scene.bridge.port, asked())
    now_seconds += 30
    async with raw_client(scene.bridge.port) as client:
        # Of its answer there is a head and nothing that makes an event.
        await client.send(asked())
        await scene.bedrock.request(1)
        await until(lambda: not breaking.views())
        assert scene.bridge.bridge.under_way == 1


# -- what leaves when ---------------------------------------------------------------------------------------------


async def test_each_event_arrives_before_the_next_frame_is_sent(scene: BedrockScene) -> None:
    first, second = b'{"type":"message_start","n":1}', b'{"type":"message_stop"}'
    halfway, gate = asyncio.Event(), asyncio.Event()
    framed = chunk(first)
    scene.bedrock.script(frames(framed[:30], halfway, framed[30:], gate, chunk(second)))
    async with raw_client(scene.bridge.port) as client:
        await client.send(asked())
        await scene.bedrock.request(0)
        halfway.set()
        head = await client.read_head()
        assert await client.read_some() == server_sent(first)
        gate.set()
        assert await client.read_some() == server_sent(second)
        assert await client.read_some() == b""
    assert head.status == 200
    assert head.header("content-type") == "text/event-stream; charset=utf-8"
    assert (head.header("cache-control"), head.header("x-accel-buffering")) == ("no-cache", "no")
    assert (head.header("request-id"), head.header("content-length")) == ("req-bdrk-1", None)


@pytest.mark.parametrize("action", ["invoke-with-response-stream", "converse-stream"])
async def test_binary_streams_pass_byte_for_byte_as_they_come(scene: BedrockScene, action: str) -> None:
    steps = converse_frames(TURN) if action == "converse-stream" else invoke_frames(TURN, MODEL)
    gate, rest = asyncio.Event(), b"".join(steps[1:])
    scene.bedrock.script(frames(gate, steps[0], rest))
    async with raw_client(scene.bridge.port) as client:
        await client.send(native(action))
        # The head passes before there is a frame: what a client makes of that is its own affair here.
        head = await client.read_head()
        gate.set()
        sent = b""
        while piece := await client.read_some():
            sent += piece
    assert sent == steps[0] + rest
    assert head.header("content-type") == "application/vnd.amazon.eventstream"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 1500), max_size=8), text=st.text(min_size=1, max_size=200))
def test_a_stream_may_be_cut_anywhere_on_its_way(cuts: list[int], text: str) -> None:
    whole = b"".join(invoke_frames(Turn((Text(text),)), MODEL))
    places = [0, *sorted({place for place in cuts if place < len(whole)}), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(places)]

    async def carry() -> bytes:
        async with bedrock_scene() as scene:
            scene.bedrock.script(frames(*pieces))
            return (await raw_exchange(scene.bridge.port, asked())).body

    body = asyncio.run(carry())
    told = [json.loads(one.partition(b"data: ")[2]) for one in body.split(b"\n\n")[:-1]]
    assert "".join(one["delta"]["text"] for one in told if one["type"] == "content_block_delta") == text
    assert told[-1]["type"] == "message_stop"


async def test_a_tap_reads_what_the_client_reads(scene: BedrockScene) -> None:
    del scene
    seen: list[bytes] = []

    class Reading:
        def feed(self, data: bytes) -> None:
            seen.append(data)

        def end(self, *, whole: bool) -> AnswerRecords:
            return AnswerRecords(partial=not whole)

    async with bedrock_scene(make_tap=lambda *_, **__: Reading()) as tapped:
        tapped.bedrock.script(says(Text("Hello")), error("ThrottlingException"))
        answers = [await raw_exchange(tapped.bridge.port, asked()) for _ in range(2)]
    assert b"".join(seen) == answers[0].body + answers[1].body
    assert (len(answers[0].body) > 0, answers[1].status) == (True, 429)


# -- how it ends --------------------------------------------------------------------------------------------------

DAMAGED = chunk(b'{"type":"ping"}')[:-1] + b"\x00"
BREAKS: list[tuple[Step | list[Step], str, str]] = [
    (exception("throttlingException", "slow down"), "rate_limit_error", "slow down"),
    (exception("modelStreamErrorException", "oh"), "api_error", "oh"),
    (CUT, "api_error", "broke off"),
    ([], "api_error", "broke off"),
    (DAMAGED, "api_error", "damaged"),
    ([DAMAGED[:20], CUT], "api_error", "broke off"),
    (event("chunk", b"{}"), "api_error", "damaged"),
]


@pytest.mark.parametrize(("by", "kind", "text"), BREAKS)
async def test_a_stream_that_breaks_ends_with_an_error_event_and_never_looks_whole(
    scene: BedrockScene, by: Any, kind: str, text: str
) -> None:
    scene.bedrock.script(broken(Text("half of it"), after_frames=3, by=by))
    answer = await raw_exchange(scene.bridge.port, asked())
    events = answer.body.split(b"\n\n")
    told = json.loads(events[-2].removeprefix(b"event: error\ndata: "))
    assert (answer.status, answer.complete, events[-1]) == (200, True, b"")
    assert len(events) == 5
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert text in told["error"]["message"]
    assert b"message_stop" not in answer.body


@pytest.mark.parametrize("after", [CUT, STALL, DAMAGED, DAMAGED[:20]])
@pytest.mark.parametrize("separately", [True, False])
@pytest.mark.parametrize(
    ("last", "status"),
    [(chunk(b'{"type":"message_stop"}'), 200), (exception("throttlingException", "slow down"), 429)],
)
async def test_what_goes_wrong_after_the_end_is_not_told(
    last: bytes, status: int, separately: bool, after: Any
) -> None:
    async with bedrock_scene(idle_timeout_seconds=0.3) as scene:
        first = chunk(b'{"type":"message_start"}')
        joined = not separately and isinstance(after, bytes)
        scene.bedrock.script(frames(first, *([last + after] if joined else [last, after])))
        answer = await raw_exchange(scene.bridge.port, asked())
        assert (answer.status, answer.complete) == (200, True)
        assert len(answer.body.split(b"\n\n")) == 3
        # As the whole of an answer.
        scene.bedrock.script(frames(last + after if joined else last, *([] if joined else [after])))
        answer = await raw_exchange(scene.bridge.port, asked())
        assert answer.status == status
        assert b"broke off" not in answer.body
        assert b"damaged" not in answer.body


@pytest.mark.parametrize(("by", "status"), [(CUT, 502), ([], 502), (DAMAGED, 502), (STALL, 504)])
async def test_a_stream_that_breaks_before_its_first_event_is_an_error_with_a_status(by: Any, status: int) -> None:
    async with bedrock_scene(idle_timeout_seconds=0.3) as scene:
        scene.bedrock.script(broken(Text("half of it"), after_frames=0, by=by))
        answer = await raw_exchange(scene.bridge.port, asked())
        assert answer.status == status
        assert answer.json()["error"]["type"] in ("api_error", "timeout_error")


async def test_a_stream_that_stops_coming_ends_with_an_error_event() -> None:
    async with bedrock_scene(idle_timeout_seconds=0.3) as scene:
        scene.bedrock.script(broken(Text("half of it"), after_frames=2, by=STALL))
        answer = await raw_exchange(scene.bridge.port, asked())
    assert b"event: error" in answer.body
    assert scene.bedrock.requests[0].closed.is_set()


async def test_an_exception_in_place_of_a_stream_is_told_at_once_even_if_its_connection_stays(
    scene: BedrockScene,
) -> None:
    scene.bedrock.script(frames(exception("throttlingException", "slow down"), STALL))
    answer = await raw_exchange(scene.bridge.port, asked())
    assert (answer.status, answer.json()["error"]["type"]) == (429, "rate_limit_error")
    assert (answer.header("content-type"), answer.header("request-id")) == ("application/json", "req-bdrk-1")
    await asyncio.wait_for(scene.bedrock.requests[0].closed.wait(), 10)


async def test_sdks_raise_what_the_stream_says(scene: BedrockScene) -> None:
    scene.bedrock.script(broken(Text("half"), after_frames=3, by=exception("modelStreamErrorException", "oh")))
    async with scene.claude() as client:
        with pytest.raises(anthropic.APIStatusError, match="oh"):
            async with client.messages.stream(**ASK) as stream:
                await stream.get_final_message()
    scene.bedrock.script(broken(Text("half"), after_frames=3, by=exception("throttlingException", "slow down")))

    def talk() -> None:
        with scene.boto() as boto:
            spoken = boto.converse_stream(modelId=MODEL, messages=[{"role": "user", "content": [{"text": "hi"}]}])
            with closing(spoken["stream"]) as stream:
                list(stream)

    with pytest.raises(EventStreamError, match="slow down"):
        await asyncio.to_thread(talk)


async def test_a_binary_stream_that_is_cut_is_cut_for_the_client_too(scene: BedrockScene) -> None:
    scene.bedrock.script(broken(Text("half"), after_frames=2, by=CUT))
    answer = await raw_exchange(scene.bridge.port, native())
    assert (answer.status, answer.complete) == (200, False)
    assert answer.body == b"".join(invoke_frames(Turn((Text("half"),)), MODEL)[:2])


async def test_a_redirect_is_not_handed_on(scene: BedrockScene) -> None:
    for sent in (asked(), native("invoke")):
        scene.bedrock.script(reply(307, b"{}", {"Location": "http://127.0.0.1:9/"}))
        answer = await raw_exchange(scene.bridge.port, sent)
        assert (answer.status, answer.header("location")) == (502, None)


# -- who waits for whom -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_frames", [0, 2])
async def test_the_client_leaving_closes_the_upstream(scene: BedrockScene, after_frames: int) -> None:
    scene.bedrock.script(broken(Text("half"), after_frames=after_frames, by=STALL))
    async with raw_client(scene.bridge.port) as client:
        await client.send(asked())
        sent = await scene.bedrock.request(0)
        if after_frames:
            await client.read_head()
        client.leave()
    assert await asyncio.wait_for(sent.closed.wait(), 10)
    await until(lambda: scene.bridge.bridge.under_way == 0)


async def test_a_client_that_reads_slowly_holds_the_upstream_back_and_gets_everything() -> None:
    count, large = 1500, chunk(compact({"type": "ping", "text": "x" * 60_000}))
    sent_frames = 0

    async def script(exchange: Exchange) -> web.StreamResponse:
        class Steps(list[Step]):
            def __iter__(self) -> Any:
                nonlocal sent_frames
                for _ in range(count):
                    yield large
                    sent_frames += 1
                yield chunk(b'{"type":"message_stop"}')

        return await exchange.stream(Steps())

    async with bedrock_scene(idle_timeout_seconds=30) as scene, raw_client(scene.bridge.port) as client:
        scene.bedrock.script(script)
        await client.send(asked())
        await client.read_head()
        (interception,) = scene.bridge.bridge._under_way
        await until(lambda: interception.is_paused, timeout_seconds=20)
        # What the kernel's and the loops' buffers hold, of 120 MB.
        assert sent_frames < count // 3
        got, stops = 0, 0
        while piece := await client.read_some():
            got, stops = got + len(piece), stops + piece.count(b"message_stop")
    assert got > count * 60_000
    assert stops == 2
    assert sent_frames == count


# -- what nobody learns -------------------------------------------------------------------------------------------


async def test_no_secret_comes_out_anywhere(tmp_path: Path) -> None:
    found: list[bytes] = []
    logs = [tmp_path / "human.log", tmp_path / "json.log"]
    with running_logs(human=str(logs[0]), json=str(logs[1]), level=logging.DEBUG):
        async with bedrock_scene(idle_timeout_seconds=0.3) as scene:
            for name in ("signed", "bearer", "mantle"):
                scene.bedrock.script(
                    says(Text("fine")),
                    error("AccessDeniedException"),
                    frames(exception("throttlingException")),
                    broken(Text("half"), after_frames=0, by=STALL),
                    reply(307, b"{}", {"Location": "/"}),
                )
                found += [await _all_of(scene, asked(name)) for _ in range(5)]
            scene.bedrock.forget(BEARER)
            scene.bedrock.forget("ASIAUPSTREAM")
            found += [await _all_of(scene, asked(name)) for name in ("signed", "bearer", "mantle")]
            found.append(await _all_of(scene, native("converse")))
            # Characters that would break out of a header, in a credential and in an address.
            keys = scene.credentiald.providers["signed"].credential.aws_credentials
            keys.session_token = SESSION_TOKEN + "\r\nX: 1"
            found.append(await _all_of(scene, asked()))
            keys.session_token, keys.secret_access_key = SESSION_TOKEN, SECRET + "\n"
            found.append(await _all_of(scene, asked()))
            scene.credentiald.providers["bearer"].credential.bearer_token.value = BEARER + "\r\nX: 1"
            found.append(await _all_of(scene, asked("bearer")))
            scene.credentiald.providers["bearer"].provider.base_url = "http://bedrock.invalid"
            found.append(await _all_of(scene, asked("bearer")))
            assert all(b" 200 " in head[:20] for head in (found[0], found[5], found[10]))
            assert not [head[:20] for head in found[15:] if b" 200 " in head[:20]]
            found.append(generate_latest(scene.bridge.metrics.registry))
    found += [log.read_bytes() for log in logs]
    assert b"interception_id" in found[-1]
    for secret in (SECRET, SESSION_TOKEN, BEARER, USER_TOKEN, PLACEHOLDER):
        forms = (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"=")[:-2], secret.encode().hex().encode())
        for number, text in enumerate(found):
            assert not any(form in text for form in forms), f"a secret is in number {number}"


async def _all_of(scene: BedrockScene, sent: bytes) -> bytes:
    answer = await raw_exchange(scene.bridge.port, sent)
    return answer.raw_head + answer.body


async def test_derived_keys_are_forgotten_where_no_request_comes_after_them(
    scene: BedrockScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridged.bridge, "_FORGET_SECONDS", 0.02)
    keys = scene.bridge.bridge._signing_keys = SigningKeys(lifetime=timedelta(milliseconds=200))
    assert (await raw_exchange(scene.bridge.port, asked())).status == 200
    assert len(keys) == 1
    await until(lambda: len(keys) == 0)
    # And nothing looks for what is not there.
    await until(lambda: scene.bridge.bridge._forgetting is None)
