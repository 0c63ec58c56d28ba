"""What is kept of runs of the OpenAI SDK through the real pair equals what the upstream sent, once each."""

import asyncio
import json
from itertools import islice
from typing import Any

import openai
import pytest

from tests.fakes.scripted_upstream import CUT, JSON, SSE, STALL, Script, reply, stream
from tests.support import openai_chat_turns as chat
from tests.support import openai_responses_turns as responses
from tests.support.kept_records import Facts, KeptRecords, Sent, body, expected, kept_records, named_events
from tests.support.pair import CENTRAL_KEY, Pair, running_pair

PROVIDERS = {
    "openai": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/o/v1"},
    "azure": {"TYPE": "azure", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}"},
}
HI: Any = [{"role": "user", "content": "Hi"}]
AGENT = f"OpenAI/Python {openai.__version__}"
CHAT, RESPONSES = "openai.chat_completions", "openai.responses"


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
    with openai.OpenAI(base_url=f"{pair.url('openai')}/v1", api_key=pair.token, max_retries=0) as made:
        yield made


def facts(sent: Sent, operation: str, **more: Any) -> Facts:
    return expected(sent, **{"provider": "openai", "operation": operation, "user_agent": AGENT} | more)


def headers_of(kind: Any, name: str) -> Any:
    return [*kind, ("openai-processing-ms", "7"), ("x-request-id", f"req_{name}")]


def sends_chat(name: str, model: str, count: int | None = None) -> Script:
    """OpenAI: usage where the request asks for it, and nothing of it otherwise."""

    async def script(exchange: Any) -> None:
        options = json.loads(exchange.request.body).get("stream_options") or {}
        made = chat.with_usage(name) if options.get("include_usage") else chat.chunks(name)
        sent = chat.events(made) if count is None else [*chat.events(made)[:count], STALL]
        await stream(*sent, headers=headers_of(SSE, model))(exchange)

    return script


def read_chat(client: openai.OpenAI, model: str, *, usage: bool | None, count: int | None = None) -> list[Any]:
    """Some or all chunks of a streamed answer; `usage` None does not say whether it is wanted."""
    options: Any = openai.omit if usage is None else {"include_usage": usage}
    with client.chat.completions.create(model=model, messages=HI, stream=True, stream_options=options) as made:
        return list(islice(made, count))


async def test_chat_blocking_and_streamed(pair: Pair, kept: KeptRecords, client: openai.OpenAI) -> None:
    wanted = {}
    for name in chat.TURNS:
        whole, sent = chat.document(name), chat.said(chat.document(name))
        pair.upstream.script(reply(200, body(whole), headers_of(JSON, name)))
        made = await asyncio.to_thread(client.chat.completions.create, model=name, messages=HI)
        assert made.usage is not None
        assert made.usage.to_dict() == whole["usage"]
        wanted[name] = facts(sent, CHAT, request_id=f"req_{name}")
        for usage in (None, False, True):
            model = f"{name}-{usage}"
            pair.upstream.script(sends_chat(name, model))
            got = await asyncio.to_thread(read_chat, client, model, usage=usage)
            # A client that asked gets usage, and any other what it would get without the bridge.
            assert [chunk.to_dict() for chunk in got] == (chat.with_usage if usage else chat.chunks)(name)
            wanted[model] = facts(sent, CHAT, request_id=f"req_{model}", streaming=True)
    await kept.equal(wanted)


async def test_chat_of_azure(pair: Pair, kept: KeptRecords) -> None:
    wanted = {}
    with openai.AzureOpenAI(
        azure_endpoint=pair.url("azure"), api_key=pair.token, api_version="2025-01-01", max_retries=0
    ) as client:
        for name in ("parallel-tools", "cached"):
            pair.upstream.script(sends_chat(name, name))
            await asyncio.to_thread(read_chat, client, name, usage=None)
            wanted[name] = facts(
                chat.said(chat.document(name)), "azure.chat_completions", provider="azure",
                user_agent=f"AzureOpenAI/Python {openai.__version__}",
                request_id=f"req_{name}", streaming=True,
            )  # fmt: skip
    await kept.equal(wanted)


async def test_azure_goes_by_the_deployment_of_the_path_whatever_model_the_body_names(
    pair: Pair, kept: KeptRecords
) -> None:
    agent = f"AzureOpenAI/Python {openai.__version__}"
    wanted = {}
    for deployment in ("prod-o3", "prod-streamed"):
        with openai.AzureOpenAI(
            azure_endpoint=pair.url("azure"), azure_deployment=deployment, api_key=pair.token,
            api_version="2025-01-01", max_retries=0,
        ) as client:  # fmt: skip
            if deployment == "prod-o3":
                pair.upstream.script(reply(200, body(chat.document("cached")), headers_of(JSON, deployment)))
                await asyncio.to_thread(client.chat.completions.create, model="gpt-4o-mini", messages=HI)
            else:
                pair.upstream.script(sends_chat("cached", deployment))
                await asyncio.to_thread(read_chat, client, "gpt-4o-mini", usage=None)
            asked = pair.upstream.requests[-1]
            assert asked.target.startswith(f"/openai/deployments/{deployment}/chat/completions")
            assert json.loads(asked.body)["model"] == "gpt-4o-mini"
            # The SDK puts Responses beside the deployments, where the body says which.
            pair.upstream.script(reply(200, body(responses.document("text")), headers_of(JSON, f"{deployment}-r")))
            await asyncio.to_thread(client.responses.create, model=f"{deployment}-r", input="Hi")
        wanted[deployment] = facts(
            chat.said(chat.document("cached")), "azure.chat_completions", provider="azure", user_agent=agent,
            request_id=f"req_{deployment}", streaming=deployment == "prod-streamed",
        )  # fmt: skip
        wanted[f"{deployment}-r"] = facts(
            responses.said(responses.document("text")), "azure.responses", provider="azure", user_agent=agent,
            request_id=f"req_{deployment}-r",
        )  # fmt: skip
    await kept.equal(wanted)


async def test_responses_blocking_and_streamed(pair: Pair, kept: KeptRecords, client: openai.OpenAI) -> None:
    wanted = {}
    for name in responses.TURNS:
        whole, sent = responses.document(name), responses.said(responses.document(name))
        pair.upstream.script(
            reply(200, body(whole), headers_of(JSON, name)),
            stream(*named_events(responses.events(name)), headers=headers_of(SSE, f"{name}-stream")),
        )
        made = await asyncio.to_thread(client.responses.create, model=name, input="Hi")
        streamed = await asyncio.to_thread(final_response, client, f"{name}-stream")
        for one in (made, streamed):
            assert one.usage is not None
            assert one.usage.to_dict() == whole["usage"]
        wanted[name] = facts(sent, RESPONSES, request_id=f"req_{name}")
        wanted[f"{name}-stream"] = facts(sent, RESPONSES, request_id=f"req_{name}-stream", streaming=True)
    await kept.equal(wanted)


def final_response(client: openai.OpenAI, model: str) -> Any:
    with client.responses.create(model=model, input=HI, stream=True) as made:
        return list(made)[-1].response


async def test_responses_of_an_upstream_that_keeps_nothing(
    pair: Pair, kept: KeptRecords, client: openai.OpenAI
) -> None:
    made = responses.events("thinking")
    made[-1] = {**made[-1], "response": {**made[-1]["response"], "output": []}}
    pair.upstream.script(stream(*named_events(made)))
    await asyncio.to_thread(final_response, client, "m")
    await kept.equal({"m": facts(responses.said(responses.document("thinking")), RESPONSES, streaming=True)})


ERRORS = [
    (400, "invalid_request_error", None, "BAD_REQUEST"),
    (403, "invalid_request_error", "unsupported_country", "UNAUTHORIZED"),
    (404, "invalid_request_error", "model_not_found", "BAD_REQUEST"),
    (422, "invalid_request_error", None, "BAD_REQUEST"),
    (429, "insufficient_quota", "insufficient_quota", "RATE_LIMITED"),
    (500, "server_error", None, "SERVER_ERROR"),
    (503, "service_unavailable_error", None, "OVERLOADED"),
]


async def test_errors_before_an_answer(pair: Pair, kept: KeptRecords, client: openai.OpenAI) -> None:
    wanted = {}
    for status, kind, code, category in ERRORS:
        for api in (CHAT, RESPONSES):
            for streaming in (False, True):
                model = f"{status}-{api}-{streaming}"
                told = {"error": {"message": f"About {kind}.", "type": kind, "param": None, "code": code}}
                pair.upstream.script(reply(status, body(told), headers_of(JSON, model)))
                create: Any = client.chat.completions.create if api == CHAT else client.responses.create
                ask: Any = {"messages": HI} if api == CHAT else {"input": "Hi"}
                with pytest.raises(openai.APIStatusError) as refused:
                    await asyncio.to_thread(create, model=model, stream=streaming, **ask)
                assert (refused.value.status_code, refused.value.body) == (status, told["error"])
                wanted[model] = facts(
                    Sent(), api, streaming=streaming, request_id=f"req_{model}", outcome="UPSTREAM_ERROR",
                    category=category, reason=kind, status=status,
                    message="" if status == 403 else f"About {kind}.",
                )  # fmt: skip
    await kept.equal(wanted)


async def test_errors_and_cuts_in_a_stream_of_chat(pair: Pair, kept: KeptRecords, client: openai.OpenAI) -> None:
    wanted = {}
    made = chat.with_usage("parallel-tools")
    told = b'data: {"error":{"message":"About it.","type":"server_error","code":null}}\n\n'
    for count in range(0, len(made), 2):
        sent = chat.said_so_far(made[:count])
        pair.upstream.script(
            stream(*chat.events(made[:count], done=False), told, headers=headers_of(SSE, f"error-{count}")),
            stream(*chat.events(made[:count], done=False), CUT, headers=headers_of(SSE, f"cut-{count}")),
        )
        for kind in ("error", "cut"):
            with pytest.raises(openai.APIError):
                await asyncio.to_thread(read_chat, client, f"{kind}-{count}", usage=None)
        ended: dict[str, Any] = {"streaming": True, "outcome": "UPSTREAM_ERROR"}
        wanted[f"error-{count}"] = facts(
            sent, CHAT, request_id=f"req_error-{count}", category="SERVER_ERROR", reason="server_error",
            message="About it.", **ended,
        )  # fmt: skip
        wanted[f"cut-{count}"] = facts(
            sent, CHAT, request_id=f"req_cut-{count}", category="UNREACHABLE", reason="UPSTREAM_UNREACHABLE", **ended
        )
    await kept.equal(wanted)


async def test_errors_and_cuts_in_a_stream_of_responses(pair: Pair, kept: KeptRecords, client: openai.OpenAI) -> None:
    wanted = {}
    made = responses.events("thinking")
    for count in range(2, len(made), 5):
        so_far = made[:count]
        error = {"type": "error", "code": "rate_limit_exceeded", "message": "Slow.", "param": None,
                 "sequence_number": count}  # fmt: skip
        failed = responses.failed(so_far, "server_error", "Broken.")
        pair.upstream.script(
            stream(*named_events([*so_far, error]), headers=headers_of(SSE, f"error-{count}")),
            stream(*named_events([*so_far, failed]), headers=headers_of(SSE, f"failed-{count}")),
            stream(*named_events(so_far), CUT, headers=headers_of(SSE, f"cut-{count}")),
        )
        for kind, category, reason, message in (
            ("error", "RATE_LIMITED", "rate_limit_exceeded", "Slow."),
            ("failed", "SERVER_ERROR", "server_error", "Broken."),
            ("cut", "UNREACHABLE", "UPSTREAM_UNREACHABLE", ""),
        ):
            model = f"{kind}-{count}"
            await asyncio.to_thread(read_responses, client, model, None)
            wanted[model] = facts(
                responses.said_so_far(so_far), RESPONSES, streaming=True, request_id=f"req_{model}",
                outcome="UPSTREAM_ERROR", category=category, reason=reason, message=message,
            )  # fmt: skip
    await kept.equal(wanted)


def read_responses(client: openai.OpenAI, model: str, count: int | None) -> None:
    """Read so many events and leave; None reads all, and does not mind how it ends."""
    with client.responses.create(model=model, input="Hi", stream=True) as made:
        try:
            for number, _ in enumerate(made if count != 0 else (), 1):
                if number == count:
                    break
        except openai.APIError:
            assert count is None


@pytest.mark.parametrize("name", ["parallel-tools", "cached"])
async def test_clients_of_chat_that_leave_at_arbitrary_points(
    pair: Pair, kept: KeptRecords, client: openai.OpenAI, name: str
) -> None:
    made = chat.with_usage(name)
    wanted = {}
    for usage in (None, True):
        # Whoever did not ask sees nothing of the extra chunk, and cannot leave at it.
        points = range(len(made) + 1) if usage else range(len(made))
        for count in points:
            model = f"{usage}-{count}"
            pair.upstream.script(sends_chat(name, model, count))
            await asyncio.to_thread(read_chat, client, model, usage=usage, count=count)
            wanted[model] = facts(
                chat.said_so_far(made[:count]), CHAT, streaming=True, request_id=f"req_{model}", outcome="CLIENT_GONE"
            )
    # At [DONE] the SDK leaves by itself.
    pair.upstream.script(sends_chat(name, "done", len(made) + 1))
    await asyncio.to_thread(read_chat, client, "done", usage=None)
    wanted["done"] = facts(chat.said(chat.document(name)), CHAT, streaming=True, request_id="req_done")
    await kept.equal(wanted)


@pytest.mark.parametrize("name", ["thinking", "parallel-tools"])
async def test_clients_of_responses_that_leave_at_arbitrary_points(
    pair: Pair, kept: KeptRecords, client: openai.OpenAI, name: str
) -> None:
    made = responses.events(name)
    wanted = {}
    for count in range(len(made) + 1):
        model = f"after-{count}"
        pair.upstream.script(stream(*named_events(made[:count]), STALL, headers=headers_of(SSE, model)))
        await asyncio.to_thread(read_responses, client, model, count)
        outcome = "COMPLETED" if count == len(made) else "CLIENT_GONE"
        sent = responses.said_so_far(made[:count])
        wanted[model] = facts(sent, RESPONSES, streaming=True, request_id=f"req_{model}", outcome=outcome)
    await kept.equal(wanted)


async def test_a_result_joins_the_thread_of_its_call_in_chat(
    pair: Pair, kept: KeptRecords, client: openai.OpenAI
) -> None:
    pair.upstream.script(*(sends_chat(name, name) for name in ("parallel-tools", "tool", "text")))
    turns: list[Any] = list(HI)
    for name in ("parallel-tools", "tool", "text"):
        made = await asyncio.to_thread(client.chat.completions.create, model=name, messages=turns, stream=True)
        await asyncio.to_thread(list, made)
        calls = list(chat.TURNS[name][2])
        turns += [{"role": "assistant", "tool_calls": calls}]
        turns += [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    await assert_one_thread(kept, ["", "call_c", "call_t"])


async def test_a_result_joins_the_thread_of_its_call_in_responses(
    pair: Pair, kept: KeptRecords, client: openai.OpenAI
) -> None:
    turns: list[Any] = list(HI)
    for name in ("parallel-tools", "tool", "text"):
        pair.upstream.script(reply(200, body(responses.document(name))))
        await asyncio.to_thread(client.responses.create, model=name, input=turns)
        calls = [one for one in responses.TURNS[name][0] if "call_id" in one]
        turns += calls
        turns += [{"type": f"{call['type']}_output", "call_id": call["call_id"], "output": "ok"} for call in calls]
    await assert_one_thread(kept, ["", "call_c", "call_t"])


async def assert_one_thread(kept: KeptRecords, correlating: list[str]) -> None:
    found = await kept.interceptions(len(correlating))
    assert [one.correlating_tool_call_id for one in found] == correlating
    ids = [one.id for one in found]
    assert [one.thread_parent_id for one in found] == ["", *ids[:-1]]
    assert {one.thread_root_id for one in found} == {one.session_id for one in found} == {ids[0]}
    assert [len((await kept.detail(one)).prompts) for one in ids] == [1, *([0] * (len(ids) - 1))]
