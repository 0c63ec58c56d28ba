"""Claude Code against a Bedrock provider of the real pair: as if it were Anthropic, and in its own Bedrock mode.

A turn with one tool call and its result; every request that Bedrock sees must carry the provider's signature or bearer
token, and no trace of the client's token.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.daemons.clients.test_coding_agents import COMMAND, run
from tests.fakes.bedrock import Exchange, FakeBedrock, Script, exception, frames, running_bedrock, says
from tests.fakes.bedrock_turns import Text, Thinking, ToolUse
from tests.support.bedrock import MODEL
from tests.support.pair import Pair, running_pair

KEY_ID, SECRET, BEARER = "AKIACLAUDECODE", "upstream/secret+canary", "bedrock-api-key-canary"
TOOL = ToolUse("Bash", {"command": COMMAND, "description": "x"})
SONNET = "claude-sonnet-4-5-20250929"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@asynccontextmanager
async def pair_at_bedrock(folder: Path) -> AsyncIterator[tuple[Pair, FakeBedrock]]:
    """The pair with the providers `signed` and `bearer`."""
    async with running_bedrock() as bedrock:
        bedrock.accept(KEY_ID, SECRET)
        bedrock.accept_bearer(BEARER)
        at = {"TYPE": "bedrock", "BASE_URL": bedrock.url, "BEDROCK_REGION": bedrock.region, "BEDROCK_MODEL": MODEL}
        signed = {**at, "BEDROCK_ACCESS_KEY": KEY_ID, "BEDROCK_ACCESS_KEY_SECRET": SECRET}
        async with running_pair(folder, {"signed": signed, "bearer": {**at, "KEY": BEARER}}) as pair:
            yield pair, bedrock


def in_turn(*scripts: Script) -> Script:
    """Each stream gets the next one; what Claude Code asks besides, to see which models there are, the usual."""
    waiting, usual = list(scripts), says()

    async def script(exchange: Exchange) -> web.StreamResponse:
        return await (waiting.pop(0) if exchange.streams else usual)(exchange)

    return script


async def turn(pair: Pair, bedrock: FakeBedrock, home: Path, **environ: str) -> None:
    """One turn of Claude Code with a tool call; what Bedrock saw of it is right."""
    bedrock.default = in_turn(says(Thinking("hm"), TOOL), says(Text("All done.")))
    printed = await run(
        "claude", "-p", "run it", "--output-format", "json", "--allowedTools", "Bash",
        home=home, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1", **environ,
    )  # fmt: skip
    assert json.loads(printed)["result"] == "All done."
    for sent in bedrock.requests:
        assert sent.signer is not None, sent.refused
        seen = repr(sent.headers).encode() + sent.target.encode() + sent.body
        assert pair.token.encode() not in seen
        if sent.signer.bearer:
            assert not [name for name, _ in sent.headers if name.lower().startswith("x-amz-")]
    turns = [sent for sent in bedrock.requests if sent.operation == "invoke-with-response-stream"]
    assert len(turns) == 2
    assert b"tool-42" not in turns[0].body
    assert b"tool-42" in turns[1].body
    for secret in (pair.token, SECRET, BEARER):
        assert secret not in pair.output + printed


@pytest.mark.parametrize("provider", ["signed", "bearer"])
async def test_claude_code_talks_to_bedrock_as_if_it_were_anthropic(tmp_path: Path, home: Path, provider: str) -> None:
    async with pair_at_bedrock(tmp_path) as (pair, bedrock):
        await turn(
            pair, bedrock, home,
            ANTHROPIC_BASE_URL=pair.url(provider), ANTHROPIC_AUTH_TOKEN=pair.token, ANTHROPIC_MODEL=SONNET,
        )  # fmt: skip
        assert {sent.model for sent in bedrock.requests} == {MODEL}


@pytest.mark.parametrize("provider", ["signed", "bearer"])
@pytest.mark.parametrize("way", ["keys", "bearer token", "no authentication of its own"])
async def test_claude_code_in_bedrock_mode_needs_a_placeholder_only(
    tmp_path: Path, home: Path, provider: str, way: str
) -> None:
    async with pair_at_bedrock(tmp_path) as (pair, bedrock):
        credential = {
            "keys": {"AWS_ACCESS_KEY_ID": pair.token, "AWS_SECRET_ACCESS_KEY": "placeholder"},
            "bearer token": {"AWS_BEARER_TOKEN_BEDROCK": pair.token},
            "no authentication of its own": {
                "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
                "ANTHROPIC_AUTH_TOKEN": pair.token,
            },
        }[way]
        await turn(
            pair, bedrock, home,
            CLAUDE_CODE_USE_BEDROCK="1", ANTHROPIC_BEDROCK_BASE_URL=pair.url(provider), ANTHROPIC_MODEL=MODEL,
            AWS_REGION="eu-north-1", **credential,
        )  # fmt: skip


async def test_claude_code_tries_again_where_bedrock_throttles_in_place_of_a_stream(tmp_path: Path, home: Path) -> None:
    async with pair_at_bedrock(tmp_path) as (pair, bedrock):
        bedrock.default = in_turn(frames(exception("throttlingException", "Please wait")), says(Text("Now.")))
        printed = await run(
            "claude", "-p", "say it", "--output-format", "json",
            home=home, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            ANTHROPIC_BASE_URL=pair.url("signed"), ANTHROPIC_AUTH_TOKEN=pair.token, ANTHROPIC_MODEL=SONNET,
        )  # fmt: skip
        assert json.loads(printed)["result"] == "Now."
        assert [sent.operation for sent in bedrock.requests] == ["invoke-with-response-stream"] * 2
