"""What is kept of runs of the Anthropic SDK through the real pair equals what the upstream sent, once each."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from tests.fakes.scripted_upstream import CUT, JSON, SSE, STALL, hang_up, reply, stream
from tests.support.anthropic_turns import TURNS, document, events, said, said_so_far
from tests.support.kept_records import Facts, KeptRecords, Sent, body, expected, kept_records, named_events
from tests.support.pair import CENTRAL_KEY, Pair, running_pair

PROVIDERS = {"anthropic": {"TYPE": "anthropic", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/a"}}
HI = [{"role": "user", "content": "Hi"}]
AGENT = f"Anthropic/Python {anthropic.__version__}"


@pytest.fixture
async def pair(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as running:
        yield running


@pytest.fixture
async def kept(pair):
    async with kept_records(pair) as records:
        yield records


@pytest.fixture
def client(pair):
    with anthropic.Anthropic(base_url=pair.url("anthropic"), api_key=pair.token, max_retries=0) as made:
        yield made


def facts(sent: Sent, **more: Any) -> Facts:
    return expected(sent, **{"provider": "anthropic", "operation": "anthropic.messages", "user_agent": AGENT} | more)


def headers_of(kind: Any, name: str) -> Any:
    return [*kind, ("request-id", f"req_{name}")]


def assert_same_usage(usage: anthropic.types.Usage, sent: Sent) -> None:
    """What the SDK says that it cost is what is kept."""
    told = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
    )
    assert told == sent.tokens


async def test_blocking_and_streamed_answers(pair: Pair, kept: KeptRecords, client: anthropic.Anthropic) -> None:
    wanted = {}
    for name in TURNS:
        whole, sent = document(name), said(document(name))
        pair.upstream.script(
            reply(200, body(whole), headers_of(JSON, name)),
            stream(*named_events(events(name)), headers=headers_of(SSE, f"{name}-stream")),
        )
        message = await asyncio.to_thread(client.messages.create, model=name, max_tokens=9, messages=HI)
        assert_same_usage(message.usage, sent)
        streamed = await asyncio.to_thread(_final_message, client, f"{name}-stream")
        assert streamed.stop_reason == whole["stop_reason"]
        assert_same_usage(streamed.usage, sent)
        assert [one.to_dict() for one in streamed.content] == [one.to_dict() for one in message.content]
        wanted[name] = facts(sent, request_id=f"req_{name}")
        wanted[f"{name}-stream"] = facts(sent, request_id=f"req_{name}-stream", streaming=True)
    await kept.equal(wanted)
    assert len(pair.upstream.requests) == len(wanted)


def _final_message(client: anthropic.Anthropic, model: str) -> Any:
    with client.messages.stream(model=model, max_tokens=9, messages=HI) as events:
        return events.get_final_message()


async def test_the_async_client_and_several_at_once(pair: Pair, kept: KeptRecords) -> None:
    names = list(TURNS)

    async def answer(exchange: Any) -> None:
        name = json.loads(exchange.request.body)["model"]
        await stream(*named_events(events(name)), headers=headers_of(SSE, name))(exchange)

    pair.upstream.default = answer
    async with anthropic.AsyncAnthropic(base_url=pair.url("anthropic"), auth_token=pair.token, api_key=None) as client:

        async def ask(name: str) -> None:
            async with client.messages.stream(model=name, max_tokens=9, messages=HI) as made:
                assert_same_usage((await made.get_final_message()).usage, said(document(name)))

        await asyncio.gather(*(ask(name) for name in names))
    agent = f"AsyncAnthropic/Python {anthropic.__version__}"
    await kept.equal(
        {
            name: facts(said(document(name)), request_id=f"req_{name}", streaming=True, user_agent=agent)
            for name in names
        }
    )


ERRORS = [
    (400, "invalid_request_error", "BAD_REQUEST"),
    (403, "permission_error", "UNAUTHORIZED"),
    (404, "not_found_error", "BAD_REQUEST"),
    (413, "request_too_large", "BAD_REQUEST"),
    (429, "rate_limit_error", "RATE_LIMITED"),
    (500, "api_error", "SERVER_ERROR"),
    (504, "timeout_error", "TIMEOUT"),
    (529, "overloaded_error", "OVERLOADED"),
]


def error(kind: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": f"About {kind}."}, "request_id": "req_1"}


async def test_errors_before_an_answer(pair: Pair, kept: KeptRecords, client: anthropic.Anthropic) -> None:
    wanted = {}
    for status, kind, category in ERRORS:
        for streaming in (False, True):
            model = f"{status}-{streaming}"
            pair.upstream.script(reply(status, body(error(kind)), headers_of(JSON, model)))
            with pytest.raises(anthropic.APIStatusError) as refused:
                await asyncio.to_thread(
                    client.messages.create, model=model, max_tokens=9, messages=HI, stream=streaming
                )
            assert refused.value.status_code == status
            # Upstreams quote the key that they refuse.
            message = "" if status == 403 else f"About {kind}."
            wanted[model] = facts(
                Sent(), streaming=streaming, request_id=f"req_{model}", outcome="UPSTREAM_ERROR", category=category,
                reason=kind, message=message, status=status,
            )  # fmt: skip
    await kept.equal(wanted)


async def test_an_upstream_that_is_not_there(pair: Pair, kept: KeptRecords, client: anthropic.Anthropic) -> None:
    pair.upstream.script(hang_up())
    with pytest.raises(anthropic.APIStatusError):
        await asyncio.to_thread(client.messages.create, model="gone", max_tokens=9, messages=HI)
    (one,) = (await kept.by_model(1)).values()
    assert one["end"][:3] == ("UPSTREAM_ERROR", "UNREACHABLE", "UPSTREAM_UNREACHABLE")
    assert one["end"][4] == 502
    assert (one["first_byte"], one["usage"], one["prompts"]) == (False, [], [("", "Hi")])


async def test_errors_and_cuts_in_a_stream(pair: Pair, kept: KeptRecords, client: anthropic.Anthropic) -> None:
    wanted = {}
    made = [event for event in events("thinking") if event["type"] != "ping"]
    for kind, category in (("overloaded_error", "OVERLOADED"), ("api_error", "SERVER_ERROR")):
        for count in range(0, len(made) - 1, 3):
            model = f"{kind}-{count}"
            pair.upstream.script(stream(*named_events([*made[:count], error(kind)]), headers=headers_of(SSE, model)))
            with pytest.raises(anthropic.APIStatusError):
                await asyncio.to_thread(_read, client, model, None)
            wanted[model] = facts(
                said_so_far(made[:count]), streaming=True, request_id=f"req_{model}",
                outcome="UPSTREAM_ERROR", category=category, reason=kind, message=f"About {kind}.",
            )  # fmt: skip
    for count in range(0, len(made) - 1, 3):
        model = f"cut-{count}"
        pair.upstream.script(stream(*named_events(made[:count]), CUT, headers=headers_of(SSE, model)))
        with pytest.raises(anthropic.APIError):
            await asyncio.to_thread(_read, client, model, None)
        wanted[model] = facts(
            said_so_far(made[:count]), streaming=True, request_id=f"req_{model}", outcome="UPSTREAM_ERROR",
            category="UNREACHABLE", reason="UPSTREAM_UNREACHABLE",
        )  # fmt: skip
    await kept.equal(wanted)


@pytest.mark.parametrize("name", ["thinking", "parallel-tools", "cached"])
async def test_clients_that_leave_at_arbitrary_points(
    pair: Pair, kept: KeptRecords, client: anthropic.Anthropic, name: str
) -> None:
    made = [event for event in events(name) if event["type"] != "ping"]
    wanted = {}
    for count in range(len(made) + 1):
        model = f"after-{count}"
        pair.upstream.script(stream(*named_events(made[:count]), STALL, headers=headers_of(SSE, model)))
        await asyncio.to_thread(_read, client, model, count)
        outcome = "COMPLETED" if count == len(made) else "CLIENT_GONE"
        sent = said_so_far(made[:count])
        wanted[model] = facts(sent, streaming=True, request_id=f"req_{model}", outcome=outcome)
    await kept.equal(wanted)


def _read(client: anthropic.Anthropic, model: str, count: int | None) -> None:
    """Read so many events and leave; None reads all."""
    with client.messages.create(model=model, max_tokens=9, messages=HI, stream=True) as made:
        if count != 0:
            for number, _ in enumerate(made, 1):
                if number == count:
                    break


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_result_joins_the_thread_of_its_call(
    pair: Pair, kept: KeptRecords, client: anthropic.Anthropic, *, streaming: bool
) -> None:
    def script(name: str) -> Callable[..., Any]:
        return stream(*named_events(events(name))) if streaming else reply(200, body(document(name)))

    pair.upstream.script(script("parallel-tools"), script("text"), script("text"))
    calls = document("parallel-tools")["content"]
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "ok"} for call in calls]
    turns = [HI, [*HI, {"role": "assistant", "content": calls}, {"role": "user", "content": results}]]
    for model, messages in zip(["first", "second", "other"], [*turns, HI], strict=True):
        ask: dict[str, Any] = {"model": model, "max_tokens": 9, "messages": messages, "stream": streaming}
        answer = await asyncio.to_thread(client.messages.create, **ask)
        if streaming:
            await asyncio.to_thread(list, answer)
    first, second, other = await kept.interceptions(3)
    assert second.correlating_tool_call_id == "toolu_c"
    assert (second.thread_parent_id, second.thread_root_id, second.session_id) == (first.id, first.id, first.id)
    assert (first.thread_parent_id, first.thread_root_id, first.session_id) == ("", first.id, first.id)
    assert (other.thread_parent_id, other.session_id) == ("", other.id)
    assert not (await kept.detail(second.id)).prompts


async def test_the_command_shows_the_same(pair: Pair, kept: KeptRecords, client: anthropic.Anthropic) -> None:
    pair.upstream.script(stream(*named_events(events("thinking"))))
    await asyncio.to_thread(_final_message, client, "m")
    (one,) = await kept.interceptions(1)
    shown = json.loads(await asyncio.to_thread(pair.command, "records", "show", one.id, "--json"))
    sent = said(document("thinking"))
    (detail,) = shown["thread"]
    (usage,) = detail["token_usages"]
    assert [int(usage[name]) for name in ("input_tokens", "output_tokens")] == [11, 900]
    assert [(thought["source"], thought["content"]) for thought in detail["model_thoughts"]] == list(sent.thoughts)
    assert [(call["tool"], call["tool_call_id"]) for call in detail["tool_calls"]] == [("done", "toolu_d")]
    assert [prompt["text"] for prompt in detail["prompts"]] == ["Hi"]
