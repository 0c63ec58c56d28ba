"""What is kept of whole sessions of Claude Code and Codex: each request of theirs once, all of them in one session."""

import json
from typing import Any

import pytest
from drawbridge.v1 import record_pb2

from tests.daemons.clients.test_coding_agents import COMMAND, message_turn, response_events, run
from tests.daemons.clients.test_python_sdks import PROVIDERS
from tests.fakes.scripted_upstream import STALL, Exchange, reply, stream
from tests.support.http import send
from tests.support.kept_records import KeptRecords, kept_records
from tests.support.pair import Pair, running_pair


@pytest.fixture
async def pair(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as running:
        yield running


@pytest.fixture
async def kept(pair):
    async with kept_records(pair) as records:
        yield records


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def turns(pair: Pair, path: str) -> list[dict[str, Any]]:
    """The bodies of the turns that the upstream saw."""
    return [json.loads(one.body) for one in pair.upstream.requests if one.method == "POST" and one.path == path]


async def claude(exchange: Exchange) -> None:
    """The tool is called once; whatever else is asked (titles, topics) gets a text."""
    if exchange.request.path != "/a/v1/messages":
        await reply(404, b"{}")(exchange)
        return
    asked = json.loads(exchange.request.body)
    has_tools = any(tool.get("name") == "Bash" for tool in asked.get("tools", ()))
    tool = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": COMMAND, "description": "x"}}
    if has_tools and b"tool_result" not in exchange.request.body:
        await message_turn(tool, "tool_use")(exchange)
    else:
        await message_turn({"type": "text", "text": "All done."}, "end_turn")(exchange)


async def test_a_session_of_claude_code(pair: Pair, kept: KeptRecords, home: Any) -> None:
    overloaded = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    pair.upstream.default = claude
    # It asks again by itself.
    pair.upstream.script(reply(529, overloaded, [("Content-Type", "application/json"), ("retry-after", "0")]))
    await run(
        "claude", "-p", "run it", "--output-format", "json", "--model", "claude-x", "--allowedTools", "Bash",
        home=home, ANTHROPIC_BASE_URL=pair.url("anthropic"), ANTHROPIC_AUTH_TOKEN=pair.token,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )  # fmt: skip
    await ask_for_title(pair)

    sent = turns(pair, "/a/v1/messages")
    found = await kept.interceptions(len(sent))
    details = [await kept.detail(one.id) for one in found]
    assert [one.model for one in found] == [turn["model"] for turn in sent]
    assert [one.model for one in found] == ["claude-x", "claude-x", "claude-x", "claude-haiku-4-5"]
    assert [one.http_status for one in found] == [529, 200, 200, 200]
    assert {one.client for one in found} == {"Claude Code"}
    (session,) = {one.session_id for one in found}
    assert len(session) == 36
    refused, call, result, title = found
    assert (refused.error_reason, refused.error_message) == ("overloaded_error", "Overloaded")
    assert (result.correlating_tool_call_id, result.thread_parent_id, result.thread_root_id) == (
        "toolu_1",
        call.id,
        call.id,
    )
    assert {one.thread_root_id for one in (refused, call, title)} == {refused.id, call.id, title.id}
    assert [[(one.tool, one.tool_call_id) for one in detail.tool_calls] for detail in details] == [
        [], [("Bash", "toolu_1")], [], []
    ]  # fmt: skip
    assert json.loads(details[1].tool_calls[0].input)["command"] == COMMAND
    assert [[one.output_tokens for one in detail.token_usages] for detail in details] == [[], [9], [9], [9]]
    assert details[1].prompts[0].text == details[0].prompts[0].text
    assert "run it" in details[1].prompts[0].text


async def ask_for_title(pair: Pair) -> None:
    """What Claude Code asks beside a conversation at a terminal: with its own headers, for a small model."""
    first = pair.upstream.requests[0]
    names = ("user-agent", "x-claude-code-session-id", "anthropic-version", "anthropic-beta", "x-app")
    headers = {name: value for name in names if (value := first.header(name))}
    body = {"model": "claude-haiku-4-5", "max_tokens": 50, "stream": True, "system": "Write a title.",
            "messages": [{"role": "user", "content": "run it"}]}  # fmt: skip
    answer = await send(
        pair.bridged.addresses["http"], "POST", "/api/v2/aibridge/anthropic/v1/messages?beta=true",
        {**headers, "Authorization": f"Bearer {pair.token}", "Content-Type": "application/json"},
        json.dumps(body).encode(),
    )  # fmt: skip
    assert answer.status == 200


async def codex(exchange: Exchange) -> None:
    """The tool is called once. The HTTP answer goes on behind its last event, where the client leaves."""
    if exchange.request.path != "/o/v1/responses":
        await reply(404, b"{}")(exchange)
        return
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "exec_command", "status": "completed",
            "arguments": json.dumps({"cmd": COMMAND})}  # fmt: skip
    text = {"type": "output_text", "text": "All done.", "annotations": []}
    answer = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    item = answer if b"function_call_output" in exchange.request.body else call
    await stream(*response_events(item), STALL)(exchange)


async def test_a_session_of_codex(pair: Pair, kept: KeptRecords, home: Any) -> None:
    pair.upstream.default = codex
    settings = home / ".codex"
    settings.mkdir()
    (settings / "config.toml").write_text(
        'model = "gpt-x"\nmodel_provider = "drawbridge"\n[model_providers.drawbridge]\nname = "Drawbridge"\n'
        f'base_url = "{pair.url("openai")}/v1"\nenv_key = "DRAWBRIDGE_TOKEN"\nwire_api = "responses"\n'
    )
    printed = await run(
        "codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json", "run it",
        home=home, CODEX_HOME=str(settings), DRAWBRIDGE_TOKEN=pair.token,
    )  # fmt: skip

    sent = turns(pair, "/o/v1/responses")
    found = await kept.interceptions(len(sent))
    details = [await kept.detail(one.id) for one in found]
    assert len(sent) == 2
    assert {one.client for one in found} == {"Codex"}
    # Its own id of the conversation.
    (session,) = {one.session_id for one in found}
    assert session in printed
    assert [record_pb2.InterceptionOutcome.Name(one.outcome) for one in found] == ["INTERCEPTION_OUTCOME_COMPLETED"] * 2
    call, result = found
    assert (result.correlating_tool_call_id, result.thread_parent_id) == ("call_1", call.id)
    assert [(one.tool, one.tool_call_id, one.item_id) for one in details[0].tool_calls] == [
        ("exec_command", "call_1", "fc_1")
    ]
    assert [one.text for one in details[0].prompts] == ["run it"]
    assert [[(one.input_tokens, one.output_tokens, one.partial) for one in detail.token_usages]
            for detail in details] == [[(3, 2, False)]] * 2  # fmt: skip
