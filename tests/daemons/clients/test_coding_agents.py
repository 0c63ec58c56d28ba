"""Claude Code and Codex, as npm has them, through the real pair: a turn with one tool call and its result.

The upstream's log must show the provider's key, exactly the client's body bytes, and no trace of the client's token.
scripts/test installs the clients and puts them on the PATH.
"""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.daemons.clients.test_python_sdks import MESSAGE, PROVIDERS, RESPONSE, sse
from tests.fakes.recording_relay import RecordingRelay, running_relay
from tests.fakes.scripted_upstream import Recorded, Script, stream
from tests.support.pair import CENTRAL_KEY, Pair, running_pair
from tests.support.processes import clean_environment

TURN_SECONDS = 90
COMMAND = "echo tool-$((40+2))"


def message_turn(block: dict[str, object], stop_reason: str) -> Script:
    """An Anthropic stream with one content block."""
    if block["type"] == "text":
        start, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        start, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    return stream(
        *sse(
            {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": start},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": stop_reason, "stop_sequence": None},
             "usage": {"output_tokens": 9}},
            {"type": "message_stop"},
            named=True,
        )
    )  # fmt: skip


def response_turn(item: dict[str, object]) -> Script:
    """A Responses stream with one output item."""
    return stream(*response_events(item))


def response_events(item: dict[str, object]) -> list[bytes]:
    """Its events."""
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5, "input_tokens_details": {"cached_tokens": 0},
             "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    started = {**RESPONSE, "status": "in_progress", "output": []}
    return sse(
        {"type": "response.created", "sequence_number": 0, "response": started},
        {"type": "response.output_item.done", "sequence_number": 1, "output_index": 0, "item": item},
        {"type": "response.completed", "sequence_number": 2,
         "response": {**RESPONSE, "output": [item], "usage": usage}},
        named=True,
    )  # fmt: skip


async def run(client: str, *words: str, home: Path, **environ: str) -> str:
    """What the client printed; it must have succeeded, with an empty home."""
    program = shutil.which(client)
    assert program, f"{client} is not on the PATH: run scripts/test"
    process = await asyncio.create_subprocess_exec(
        program,
        *words,
        cwd=home,
        env=clean_environment(HOME=str(home), **environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TURN_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out.decode() + err.decode()
    return out.decode()


@pytest.fixture
async def pair(tmp_path):
    async with running_pair(tmp_path, PROVIDERS) as running:
        yield running


@pytest.fixture
async def relay(pair):
    host, _, port = pair.bridged.addresses["http"].rpartition(":")
    async with running_relay(host, int(port)) as running:
        yield running


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def carried(pair: Pair, relay: RecordingRelay, auth: tuple[str, str]) -> list[Recorded]:
    """The two requests of a turn with one tool call, as the upstream saw them."""
    requests = pair.upstream.requests
    assert len(requests) == 2
    for request in requests:
        assert request.header(auth[0]) == auth[1]
        assert relay.has_sent(request.body)
        assert pair.token.encode() not in request.raw_head + request.body
    assert pair.token not in pair.output
    assert CENTRAL_KEY not in pair.output
    return requests


@pytest.mark.parametrize("variable", ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"])
async def test_claude_code_completes_a_turn_with_a_tool(pair, relay, home, variable):
    tool = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": COMMAND, "description": "x"}}
    pair.upstream.script(
        message_turn(tool, "tool_use"), message_turn({"type": "text", "text": "All done."}, "end_turn")
    )
    printed = await run(
        "claude", "-p", "run it", "--output-format", "json", "--model", "claude-x", "--allowedTools", "Bash",
        home=home,
        ANTHROPIC_BASE_URL=f"http://127.0.0.1:{relay.port}/api/v2/aibridge/anthropic",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        **{variable: pair.token},
    )  # fmt: skip

    assert json.loads(printed)["result"] == "All done."
    first, second = carried(pair, relay, ("x-api-key", CENTRAL_KEY))
    assert first.target == "/a/v1/messages?beta=true"
    assert "claude-code-" in (first.header("anthropic-beta") or "")
    assert b"tool-42" not in first.body
    assert b"tool-42" in second.body


async def test_codex_completes_a_turn_with_a_tool(pair, relay, home):
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "exec_command", "status": "completed",
            "arguments": json.dumps({"cmd": COMMAND})}  # fmt: skip
    text = {"type": "output_text", "text": "All done.", "annotations": []}
    answer = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    pair.upstream.script(response_turn(call), response_turn(answer))
    settings = home / ".codex"
    settings.mkdir()
    (settings / "config.toml").write_text(
        'model = "gpt-x"\nmodel_provider = "drawbridge"\n[model_providers.drawbridge]\nname = "Drawbridge"\n'
        f'base_url = "http://127.0.0.1:{relay.port}/api/v2/aibridge/openai/v1"\n'
        'env_key = "DRAWBRIDGE_TOKEN"\nwire_api = "responses"\n'
    )
    printed = await run(
        "codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json", "run it",
        home=home, CODEX_HOME=str(settings), DRAWBRIDGE_TOKEN=pair.token,
    )  # fmt: skip

    assert "All done." in printed
    first, second = carried(pair, relay, ("authorization", f"Bearer {CENTRAL_KEY}"))
    assert first.target == "/o/v1/responses"
    assert b"tool-42" not in first.body
    assert b"tool-42" in second.body


async def test_codex_built_in_provider_falls_back_from_the_web_socket_at_once(pair, relay, home):
    text = {"type": "output_text", "text": "All done.", "annotations": []}
    answer = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    pair.upstream.script(response_turn(answer))
    settings = home / ".codex"
    settings.mkdir()
    (settings / "config.toml").write_text(
        f'model = "gpt-x"\nopenai_base_url = "http://127.0.0.1:{relay.port}/api/v2/aibridge/openai/v1"\n'
    )
    printed = await run(
        "codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json", "say it",
        home=home, CODEX_HOME=str(settings), CODEX_API_KEY=pair.token,
    )  # fmt: skip

    upgrades = [head for head in relay.sent if b"upgrade: websocket" in bytes(head).lower()]
    assert "All done." in printed
    assert len(upgrades) == 1
    assert [request.method for request in pair.upstream.requests if request.path == "/o/v1/responses"] == ["POST"]
