"""Claude Code against a Bedrock provider of the real pair: as if it were Anthropic, and in its own Bedrock mode.

A turn with one tool call and its result; every request that Bedrock sees must carry the provider's signature or bearer
token, and no trace of the client's token.
"""

import json
from pathlib import Path

import pytest
from aiohttp import web

from tests.daemons.clients.test_coding_agents import COMMAND, run
from tests.fakes.aws import CANARY
from tests.fakes.bedrock import Exchange, Script, exception, frames, says
from tests.fakes.bedrock_turns import Text, Thinking, ToolUse
from tests.support.bedrock import MODEL
from tests.support.bedrock_pair import MODES, BedrockPair, bedrock_pair

TOOL = ToolUse("Bash", {"command": COMMAND, "description": "x"})
SONNET = "claude-sonnet-4-5-20250929"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def in_turn(*scripts: Script) -> Script:
    """Each stream gets the next one; what Claude Code asks besides, to see which models there are, the usual."""
    waiting, usual = list(scripts), says()

    async def script(exchange: Exchange) -> web.StreamResponse:
        return await (waiting.pop(0) if exchange.streams else usual)(exchange)

    return script


async def turn(at: BedrockPair, home: Path, **environ: str) -> None:
    """One turn of Claude Code with a tool call; what Bedrock saw of it is right."""
    at.bedrock.default = in_turn(says(Thinking("hm"), TOOL), says(Text("All done.")))
    printed = await run(
        "claude", "-p", "run it", "--output-format", "json", "--allowedTools", "Bash",
        home=home, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1", **environ,
    )  # fmt: skip
    assert json.loads(printed)["result"] == "All done."
    assert len(at.all_verified()) == 1
    first, second = [sent for sent in at.bedrock.requests if sent.operation == "invoke-with-response-stream"]
    assert b"tool-42" not in first.body
    assert b"tool-42" in second.body
    for secret in (at.pair.token, CANARY):
        assert secret not in at.pair.output + printed


@pytest.mark.parametrize("mode", MODES)
async def test_claude_code_talks_to_bedrock_as_if_it_were_anthropic(tmp_path: Path, home: Path, mode: str) -> None:
    async with bedrock_pair(tmp_path, mode) as at:
        await turn(
            at, home,
            ANTHROPIC_BASE_URL=at.pair.url("aws"), ANTHROPIC_AUTH_TOKEN=at.pair.token, ANTHROPIC_MODEL=SONNET,
        )  # fmt: skip
        assert {sent.model for sent in at.bedrock.requests} == {MODEL}


@pytest.mark.parametrize("mode", ["pair", "bearer"])
@pytest.mark.parametrize("way", ["keys", "bearer token", "no authentication of its own"])
async def test_claude_code_in_bedrock_mode_needs_a_placeholder_only(
    tmp_path: Path, home: Path, mode: str, way: str
) -> None:
    async with bedrock_pair(tmp_path, mode) as at:
        token = at.pair.token
        credential = {
            "keys": {"AWS_ACCESS_KEY_ID": token, "AWS_SECRET_ACCESS_KEY": "placeholder"},
            "bearer token": {"AWS_BEARER_TOKEN_BEDROCK": token},
            "no authentication of its own": {"CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1", "ANTHROPIC_AUTH_TOKEN": token},
        }[way]
        await turn(
            at, home,
            CLAUDE_CODE_USE_BEDROCK="1", ANTHROPIC_BEDROCK_BASE_URL=at.pair.url("aws"), ANTHROPIC_MODEL=MODEL,
            AWS_REGION="eu-north-1", **credential,
        )  # fmt: skip


async def test_claude_code_tries_again_where_bedrock_throttles_in_place_of_a_stream(tmp_path: Path, home: Path) -> None:
    async with bedrock_pair(tmp_path, "pair") as at:
        at.bedrock.default = in_turn(frames(exception("throttlingException", "Please wait")), says(Text("Now.")))
        printed = await run(
            "claude", "-p", "say it", "--output-format", "json",
            home=home, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            ANTHROPIC_BASE_URL=at.pair.url("aws"), ANTHROPIC_AUTH_TOKEN=at.pair.token, ANTHROPIC_MODEL=SONNET,
        )  # fmt: skip
        assert json.loads(printed)["result"] == "Now."
        assert [sent.operation for sent in at.bedrock.requests] == ["invoke-with-response-stream"] * 2
