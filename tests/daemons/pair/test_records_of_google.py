"""What is kept of runs of the Google Gen AI SDK through the real pair equals what the upstream sent, once each."""

import asyncio
from itertools import islice
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from tests.fakes.scripted_upstream import CUT, STALL, reply, stream
from tests.support.gemini_turns import BLOCKED, TURNS, document, events, pieces, said
from tests.support.kept_records import Facts, KeptRecords, Sent, body, expected, kept_records
from tests.support.pair import CENTRAL_KEY, Pair, running_pair

# The SDK's own business, not ours.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
PROVIDERS = {"google": {"TYPE": "google", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}"}}
WHOLE, STREAM = "google.generate_content", "google.stream_generate_content"


@pytest.fixture
async def pair(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as running:
        yield running


@pytest.fixture
async def kept(pair):
    async with kept_records(pair) as records:
        yield records


@pytest.fixture
async def client(pair):
    options = types.HttpOptions(base_url=pair.url("google"), retry_options=types.HttpRetryOptions(attempts=1))
    made = genai.Client(api_key=pair.token, http_options=options)
    yield made
    await made.aio.aclose()
    made.close()


def facts(pair: Pair, sent: Sent, **more: Any) -> Facts:
    agent = pair.upstream.requests[0].header("user-agent") or ""
    assert agent.startswith("google-genai-sdk/")
    return expected(sent, **{"provider": "google", "operation": STREAM, "streaming": True, "user_agent": agent} | more)


def read(client: genai.Client, model: str, count: int | None = None) -> list[Any]:
    """Some or all pieces of a streamed answer."""
    made = client.models.generate_content_stream(model=model, contents="Hi")
    got = list(islice(made, count))
    made.close()
    return got


def whole(client: genai.Client, model: str) -> types.GenerateContentResponse:
    return client.models.generate_content(model=model, contents="Hi")


def assert_same_usage(usage: types.GenerateContentResponseUsageMetadata, sent: Sent) -> None:
    """What the SDK says that it cost is what is kept."""
    cached = usage.cached_content_token_count or 0
    given = (usage.prompt_token_count or 0) - cached + (usage.tool_use_prompt_token_count or 0)
    made = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    assert (given, made, cached, 0) == sent.tokens


async def test_blocking_and_streamed_answers(pair: Pair, kept: KeptRecords, client: genai.Client) -> None:
    wanted = {}
    for name in [*TURNS, "blocked"]:
        answer = BLOCKED if name == "blocked" else document(name)
        streamed = [BLOCKED] if name == "blocked" else pieces(name)
        sent = said([answer])
        pair.upstream.script(reply(200, body(answer)), stream(*events(streamed)))
        made = await asyncio.to_thread(whole, client, name)
        got = await asyncio.to_thread(read, client, f"{name}-stream")
        for one in (made, got[-1]):
            assert_same_usage(one.usage_metadata, sent)
        assert len(got) == len(streamed)
        wanted[name] = facts(pair, sent, operation=WHOLE, streaming=False)
        wanted[f"{name}-stream"] = facts(pair, sent)
    await kept.equal(wanted)


ERRORS = [
    (400, "INVALID_ARGUMENT", "BAD_REQUEST"),
    (403, "PERMISSION_DENIED", "UNAUTHORIZED"),
    (404, "NOT_FOUND", "BAD_REQUEST"),
    (429, "RESOURCE_EXHAUSTED", "RATE_LIMITED"),
    (500, "INTERNAL", "SERVER_ERROR"),
    (503, "UNAVAILABLE", "OVERLOADED"),
    (504, "DEADLINE_EXCEEDED", "TIMEOUT"),
]


def error(status: int, name: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": f"About {name}.", "status": name}}


async def test_errors_before_an_answer(pair: Pair, kept: KeptRecords, client: genai.Client) -> None:
    wanted = {}
    for status, name, category in ERRORS:
        for streaming in (False, True):
            model = f"{status}-{streaming}"
            pair.upstream.script(reply(status, body(error(status, name))))
            ask: Any = read if streaming else whole
            with pytest.raises(errors.APIError) as refused:
                await asyncio.to_thread(ask, client, model)
            assert refused.value.code == status
            wanted[model] = facts(
                pair, Sent(), operation=STREAM if streaming else WHOLE, streaming=streaming,
                outcome="UPSTREAM_ERROR", category=category, reason=name, status=status,
                message="" if status == 403 else f"About {name}.",
            )  # fmt: skip
    await kept.equal(wanted)


async def test_errors_and_cuts_in_a_stream(pair: Pair, kept: KeptRecords, client: genai.Client) -> None:
    wanted = {}
    made = pieces("thinking")
    for count in range(len(made)):
        sent = events(made[:count])
        told = events([error(503, "UNAVAILABLE")])
        pair.upstream.script(stream(*sent, *told), stream(*sent, CUT))
        for kind in ("error", "cut"):
            with pytest.raises(errors.APIError):
                await asyncio.to_thread(read, client, f"{kind}-{count}")
        so_far = said(made[:count])
        wanted[f"error-{count}"] = facts(
            pair, so_far, outcome="UPSTREAM_ERROR", category="OVERLOADED", reason="UNAVAILABLE",
            message="About UNAVAILABLE.",
        )  # fmt: skip
        wanted[f"cut-{count}"] = facts(
            pair, so_far, outcome="UPSTREAM_ERROR", category="UNREACHABLE", reason="UPSTREAM_UNREACHABLE"
        )
    await kept.equal(wanted)


@pytest.mark.parametrize("name", ["thinking", "parallel-tools", "cached"])
async def test_clients_that_leave_at_arbitrary_points(
    pair: Pair, kept: KeptRecords, client: genai.Client, name: str
) -> None:
    made = pieces(name)
    wanted = {}
    # The SDK does not let go of an answer before its first piece.
    for count in range(1, len(made) + 1):
        pair.upstream.script(stream(*events(made[:count]), STALL))
        await asyncio.to_thread(read, client, f"after-{count}", count)
        outcome = "COMPLETED" if count == len(made) else "CLIENT_GONE"
        wanted[f"after-{count}"] = facts(pair, said(made[:count]), outcome=outcome)
    await kept.equal(wanted)


async def test_a_result_joins_the_thread_of_its_call(pair: Pair, kept: KeptRecords, client: genai.Client) -> None:
    pair.upstream.script(stream(*events(pieces("parallel-tools"))), reply(200, body(document("text"))))
    contents: list[Any] = [{"role": "user", "parts": [{"text": "Hi"}]}]
    got = await asyncio.to_thread(read, client, "first")
    calls = [call for piece in got for call in piece.function_calls or ()]
    contents.append({"role": "model", "parts": [{"function_call": call} for call in calls]})
    results = [{"function_response": {"id": call.id, "name": call.name, "response": {"ok": True}}} for call in calls]
    contents.append({"role": "user", "parts": results})
    await asyncio.to_thread(client.models.generate_content, model="second", contents=contents)
    first, second = await kept.interceptions(2)
    assert second.correlating_tool_call_id == "fc-c"
    assert (second.thread_parent_id, second.thread_root_id, second.session_id) == (first.id, first.id, first.id)
    assert not (await kept.detail(second.id)).prompts
