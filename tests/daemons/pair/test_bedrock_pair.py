"""Bedrock providers of the real pair, in every way to get credentials: bearer token, pair, ambient, role."""

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import boto3
import pytest
from botocore.config import Config

from tests.fakes.aws import CANARY, FAIL
from tests.fakes.bedrock import says
from tests.fakes.bedrock_turns import Text, Thinking, ToolUse
from tests.support.bedrock import MODEL
from tests.support.bedrock_pair import BEARER, KEY_ID, MODES, BedrockPair, bedrock_pair, roles_at_moto
from tests.support.http import send

SONNET = "sonnet-of-ours"
TOOLS: Any = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
EVERYTHING = (Thinking("Let me see"), Text("I look it up."), ToolUse("get_weather", {"city": "Oslo"}))


def claude(at: BedrockPair) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=at.pair.url("aws"), auth_token=at.pair.token, api_key=None, max_retries=0)


async def turns(at: BedrockPair) -> None:
    """A turn with thinking and a tool, and one with its result, as a stream and blocking."""
    async with claude(at) as client:
        for streamed in (True, False):
            at.bedrock.script(says(*EVERYTHING), says(Text("Rain.")))
            messages: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
            said: list[str] = []
            for _ in range(2):
                asked: Any = {"model": SONNET, "max_tokens": 4096, "messages": messages, "tools": TOOLS}
                if streamed:
                    async with client.messages.stream(**asked) as stream:
                        message = await stream.get_final_message()
                else:
                    message = await client.messages.create(**asked)
                said += [block.type for block in message.content]
                content = [block.to_dict() for block in message.content]
                result = {"type": "tool_result", "tool_use_id": "toolu_bdrk_1", "content": "rain"}
                messages = [*messages, {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
            assert said == ["thinking", "text", "tool_use", "text"]
        counted = await client.messages.count_tokens(model=SONNET, messages=[{"role": "user", "content": "hi"}])
        assert counted.input_tokens == 11


def talk_as_aws(at: BedrockPair) -> None:
    """What AWS's own clients ask, signed by a placeholder."""
    client = boto3.client(
        "bedrock-runtime",
        aws_access_key_id=at.pair.token,
        aws_secret_access_key="placeholder",
        region_name="eu-north-1",
        endpoint_url=at.pair.url("aws"),
        config=Config(retries={"total_max_attempts": 1}),
    )
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 5, "messages": []}
    conversation: Any = [{"role": "user", "content": [{"text": "hi"}]}]
    try:
        assert client.invoke_model(modelId=MODEL, body=json.dumps(body))["body"].read()
        assert list(client.invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(body))["body"])
        assert client.converse(modelId=MODEL, messages=conversation)["output"]
        assert list(client.converse_stream(modelId=MODEL, messages=conversation)["stream"])
    finally:
        client.close()


@pytest.mark.parametrize("mode", MODES)
async def test_clients_of_anthropic_and_of_aws_complete_turns_in_each_mode(tmp_path: Path, mode: str) -> None:
    async with bedrock_pair(tmp_path, mode) as at:
        await turns(at)
        await asyncio.to_thread(talk_as_aws, at)

        signers = at.all_verified()
        assert len(at.bedrock.requests) == 9
        assert {sent.model for sent in at.bedrock.requests} <= {MODEL, MODEL.removeprefix("us.")}
        match mode:
            case "bearer":
                assert signers == {BEARER}
            case "pair" | "environment":
                assert signers == {KEY_ID}
            case "container":
                assert signers == set(at.aws.given)
            case _:
                assert len(signers) == 1
                assert KEY_ID not in signers
        for secret in (CANARY, at.pair.token):
            assert secret not in at.pair.output


async def ask(at: BedrockPair, provider: str, token: str) -> int:
    """The status of one turn."""
    body = json.dumps({"model": MODEL, "max_tokens": 5, "messages": []}).encode()
    answer = await send(
        at.pair.bridged.addresses["http"], "POST", f"/{provider}/v1/messages", {"x-api-key": token}, body
    )
    return answer.status


async def test_a_role_is_assumed_for_the_user_who_asks(tmp_path: Path) -> None:
    async with bedrock_pair(tmp_path, "role") as at:
        at.pair.command("users", "create", "grace@example.com")
        graces = at.pair.command("tokens", "create", "--user", "grace@example.com").strip()
        for token in (at.pair.token, graces, graces):
            assert await ask(at, "aws", token) == 200
        anns, first, second = [sent.signer.access_key_id for sent in at.bedrock.requests if sent.signer]
        assert anns != first == second
        assert {role.session_name for role in roles_at_moto()} >= {"ann", "grace@example.com"}


async def test_a_provider_made_while_the_pair_runs_takes_each_kind_of_key_in_turn(tmp_path: Path) -> None:
    async with bedrock_pair(tmp_path, "environment") as at:
        at.bedrock.accept("AKIASTORED", f"{CANARY}-stored")
        for token in ("central", "own"):
            at.bedrock.accept_bearer(f"{CANARY}-{token}")
        at.pair.command(
            "providers", "create", "db", "--type", "bedrock", "--base-url", at.bedrock.url, "--user-keys",
            "--central-key-fallback", "--key-stdin", key=f"{CANARY}-central\n",
        )  # fmt: skip
        assert await ask(at, "db", at.pair.token) == 200
        at.pair.command("keys", "set", "db", "--bedrock-access-key-stdin", key=f"AKIASTORED\n{CANARY}-stored\n\n")
        assert await ask(at, "db", at.pair.token) == 200
        at.pair.command("providers", "update", "db", "--clear-key")
        assert await ask(at, "db", at.pair.token) == 200
        at.pair.command("keys", "set", "db", "--user", "ann", key=f"{CANARY}-own\n")
        assert await ask(at, "db", at.pair.token) == 200
        signers = [sent.signer for sent in at.bedrock.requests]
        assert [one and (one.bearer or one.access_key_id) for one in signers] == [
            f"{CANARY}-central",
            "AKIASTORED",
            KEY_ID,  # ambient, from the environment
            f"{CANARY}-own",
        ]
        assert CANARY not in at.pair.output


async def test_what_has_no_credential_is_refused_and_never_sent_as_somebody_else(tmp_path: Path) -> None:
    async with bedrock_pair(tmp_path, "container") as at:
        at.aws.modes["container"] = FAIL
        async with claude(at) as client:
            with pytest.raises(anthropic.InternalServerError) as refused:
                await client.messages.create(model=SONNET, max_tokens=5, messages=[{"role": "user", "content": "hi"}])
        assert refused.value.status_code == 503
        assert refused.value.response.headers["x-drawbridge-error"] == "AMBIENT_CREDENTIALS_UNAVAILABLE"
        assert int(refused.value.response.headers["retry-after"]) > 0
        assert at.bedrock.requests == []
        assert CANARY not in at.pair.output + refused.value.response.text
