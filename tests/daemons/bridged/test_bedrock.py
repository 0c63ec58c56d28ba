"""Real clients through the bridge, to a Bedrock that checks every signature with botocore's own signer."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from botocore.exceptions import ClientError
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2

from tests.fakes.bedrock import error, exception, frames, reply, says
from tests.fakes.bedrock_turns import Text, Thinking, ToolUse
from tests.fakes.credentiald import USER_TOKEN, provider
from tests.support.bedrock import BEARER, MODEL, BedrockScene, bedrock_provider, bedrock_scene
from tests.support.bridge import until
from tests.support.raw_http import raw_exchange, request

ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"
MESSAGES: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
TOOLS: Any = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
ASK: Any = {"model": MODEL, "max_tokens": 4096, "messages": MESSAGES}
BODY = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 5, "messages": MESSAGES}).encode()
CONVERSE: Any = [{"role": "user", "content": [{"text": "Hello?"}]}]
EVERYTHING = (Thinking("Let me see"), Text("I look it up."), ToolUse("get_weather", {"city": "Oslo"}))
EVERYTHING_SAID = [
    {"type": "thinking", "thinking": "Let me see", "signature": "c2lnbmVk"},
    {"type": "text", "text": "I look it up."},
    {"type": "tool_use", "id": "toolu_bdrk_1", "name": "get_weather", "input": {"city": "Oslo"}},
]


@pytest.fixture
async def scene() -> AsyncIterator[BedrockScene]:
    async with bedrock_scene() as running:
        yield running


def said(message: Any) -> list[dict[str, Any]]:
    return [block.to_dict() for block in message.content]


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "blocking"])
@pytest.mark.parametrize("name", ["signed", "bearer", "mantle"])
async def test_the_anthropic_sdk_completes_turns_with_tools_and_thinking(
    scene: BedrockScene, name: str, streamed: bool
) -> None:
    scene.bedrock.script(says(*EVERYTHING), says(Text("Rain.")))
    asked: Any = {**ASK, "tools": TOOLS, "thinking": {"type": "enabled", "budget_tokens": 2048}}
    conversation = list(MESSAGES)
    async with scene.claude(name) as client:
        for expected in (EVERYTHING_SAID, [{"type": "text", "text": "Rain."}]):
            asked["messages"] = conversation
            betas = {"anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14"}
            if name == "mantle":
                betas = {}
            if streamed:
                async with client.messages.stream(**asked, extra_headers=betas) as stream:
                    message = await stream.get_final_message()
            else:
                message = await client.messages.create(**asked, extra_headers=betas)
            assert said(message) == expected
            assert (message.usage.input_tokens, message.usage.output_tokens) == (11, 7)
            result = {"type": "tool_result", "tool_use_id": "toolu_bdrk_1", "content": "rain"}
            conversation += [{"role": "assistant", "content": said(message)}, {"role": "user", "content": [result]}]

    first, second = scene.all_verified()
    body = second.json()
    assert body["messages"] == conversation[:3]
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    if name != "mantle":
        assert first.operation == ("invoke-with-response-stream" if streamed else "invoke")
        assert body["anthropic_beta"] == ["interleaved-thinking-2025-05-14"]
        assert not {"model", "stream"} & set(body)
    assert [resolve.model for resolve in scene.credentiald.resolves] == [MODEL, MODEL]
    assert [resolve.operation for resolve in scene.credentiald.resolves] == ["anthropic.messages"] * 2


@pytest.mark.parametrize("name", ["signed", "bearer"])
async def test_anthropics_bedrock_client_talks_through_the_bridge(scene: BedrockScene, name: str) -> None:
    scene.bedrock.default = says(*EVERYTHING)
    async with scene.claude_at_bedrock(name) as client:
        assert said(await client.messages.create(**ASK)) == EVERYTHING_SAID
        async with client.messages.stream(**ASK) as stream:
            assert said(await stream.get_final_message()) == EVERYTHING_SAID
    assert [sent.operation for sent in scene.all_verified()] == ["invoke", "invoke-with-response-stream"]


@pytest.mark.parametrize("name", ["signed", "bearer"])
@pytest.mark.parametrize("model", [MODEL, ARN])
async def test_boto3_talks_through_the_bridge_with_a_placeholder(scene: BedrockScene, name: str, model: str) -> None:
    scene.bedrock.default = says(*EVERYTHING)

    def talk() -> None:
        with scene.boto(name) as client:
            whole = json.loads(client.invoke_model(modelId=model, body=BODY)["body"].read())
            assert whole["content"] == EVERYTHING_SAID
            events = list(client.invoke_model_with_response_stream(modelId=model, body=BODY)["body"])
            assert json.loads(events[-1]["chunk"]["bytes"])["type"] == "message_stop"
            spoken = client.converse(modelId=model, messages=CONVERSE)
            assert spoken["output"]["message"]["content"][1] == {"text": "I look it up."}
            frames = list(client.converse_stream(modelId=model, messages=CONVERSE)["stream"])
            assert frames[-1]["metadata"]["usage"]["outputTokens"] == 7
            counted = client.count_tokens(modelId=model, input={"invokeModel": {"body": BODY}})
            assert counted["inputTokens"] == 11
        with scene.boto(name, "bedrock") as lists:
            profiles = lists.list_inference_profiles(typeEquals="SYSTEM_DEFINED", maxResults=3)
            assert profiles["inferenceProfileSummaries"][0]["inferenceProfileId"] == MODEL
            assert lists.list_foundation_models(byProvider="Anthropic")["modelSummaries"][0]["modelName"]

    await asyncio.to_thread(talk)
    sent = scene.all_verified()
    assert [one.at for one in sent] == ["runtime"] * 5 + ["control"] * 2
    assert [one.model for one in sent[:5]] == [model] * 5
    assert [resolve.model for resolve in scene.credentiald.resolves][:5] == [model] * 5
    assert [one.header("content-length") for one in sent[5:]] == [None, None]
    assert sent[5].target == "/inference-profiles?type=SYSTEM_DEFINED&maxResults=3"


async def test_the_ai_sdks_bearer_mode_talks_with_its_token(scene: BedrockScene) -> None:
    """AWS_BEARER_TOKEN_BEDROCK of clients, set to the token of ours."""
    headers = [("Authorization", f"Bearer {USER_TOKEN}"), ("Content-Type", "application/json")]
    asked = request("POST", f"/bearer/model/{MODEL}/invoke", headers=headers, body=BODY)
    assert (await raw_exchange(scene.bridge.port, asked)).status == 200
    assert scene.all_verified()[0].signer.bearer == BEARER  # type: ignore[union-attr]


async def test_tokens_are_counted_by_bedrock_or_not_at_all(scene: BedrockScene) -> None:
    async with scene.claude() as client:
        count = await client.messages.count_tokens(model=MODEL, messages=MESSAGES)
        assert count.input_tokens == 11
        scene.bedrock.script(error("ValidationException", "The provided model doesn't support counting tokens."))
        with pytest.raises(anthropic.BadRequestError, match="support counting tokens"):
            await client.messages.count_tokens(model=MODEL, messages=MESSAGES)
        scene.bedrock.script(reply(200, b"{}"))
        with pytest.raises(anthropic.InternalServerError) as failed:
            await client.messages.count_tokens(model=MODEL, messages=MESSAGES)
        assert failed.value.status_code == 502
        assert failed.value.response.headers["x-drawbridge-error"] == "UPSTREAM_UNREACHABLE"
    assert scene.all_verified()[0].model == MODEL.removeprefix("us.")


async def test_a_model_that_the_provider_maps_is_asked_for_instead(scene: BedrockScene) -> None:
    for name in ("signed", "mantle"):
        scene.credentiald.providers[name].upstream_model = ARN
    async with scene.claude() as client:
        await client.messages.create(**{**ASK, "model": "sonnet-of-ours"})
    async with scene.claude("mantle") as client:
        await client.messages.create(**{**ASK, "model": "sonnet-of-ours"})
    invoked, at_mantle = scene.all_verified()
    assert (invoked.model, at_mantle.json()["model"]) == (ARN, ARN)
    assert [resolve.model for resolve in scene.credentiald.resolves] == ["sonnet-of-ours"] * 2


async def test_errors_of_bedrock_are_anthropics_and_keep_their_waits(scene: BedrockScene) -> None:
    scene.bedrock.script(
        error("ThrottlingException", "slow down", headers={"Retry-After": "7"}),
        error("ValidationException", "max_tokens is too high"),
        error("ServiceUnavailableException"),
    )
    async with scene.claude() as client:
        with pytest.raises(anthropic.RateLimitError, match="slow down") as limited:
            await client.messages.create(**ASK)
        assert limited.value.response.headers["retry-after"] == "7"
        assert limited.value.request_id == "req-bdrk-1"
        with pytest.raises(anthropic.BadRequestError, match="max_tokens is too high"):
            await client.messages.create(**ASK)
        with pytest.raises(anthropic.APIStatusError) as away:
            await client.messages.create(**ASK)
        assert away.value.status_code == 503


async def test_errors_on_bedrocks_own_paths_are_bedrocks(scene: BedrockScene) -> None:
    scene.bedrock.script(error("ThrottlingException", "slow down", headers={"Retry-After": "7"}))

    def codes() -> list[Any]:
        found = []
        with scene.boto() as client:
            for model in (MODEL, MODEL):
                with pytest.raises(ClientError) as failed:
                    client.converse(modelId=model, messages=CONVERSE)
                found.append(failed.value.response)
                scene.credentiald.providers.clear()
        return found

    throttled, unknown = await asyncio.to_thread(codes)
    assert throttled["Error"] == {"Code": "ThrottlingException", "Message": "slow down"}
    assert throttled["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    # Ours, in AWS's words, with an id that the operator finds.
    assert unknown["Error"]["Code"] == "ResourceNotFoundException"
    assert unknown["ResponseMetadata"]["HTTPHeaders"]["x-drawbridge-error"] == "PROVIDER_NOT_FOUND"
    assert unknown["ResponseMetadata"]["RequestId"] == unknown["ResponseMetadata"]["HTTPHeaders"]["x-interception-id"]


@pytest.mark.parametrize("kind", ["anthropic", "boto3"])
async def test_a_signature_that_aws_refuses_is_the_gateways_fault_and_its_words_stay_here(
    scene: BedrockScene, kind: str
) -> None:
    scene.bedrock.accept("ASIAUPSTREAM", "another secret", "upstream-session-canary")
    registry, series = scene.bridge.metrics.registry, "bridged_upstream_errors_total"
    if kind == "boto3":
        with scene.boto() as boto, pytest.raises(ClientError) as refused:
            await asyncio.to_thread(boto.converse, modelId=MODEL, messages=CONVERSE)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 502
        assert "we calculated" not in str(refused.value.response)
        assert registry.get_sample_value(series, {"reason": "UPSTREAM_KEY_REFUSED"}) == 1
        return
    async with scene.claude() as client:
        with pytest.raises(anthropic.InternalServerError) as failed:
            await client.messages.create(**ASK)
    assert failed.value.status_code == 502
    assert failed.value.response.headers["x-drawbridge-error"] == "UPSTREAM_KEY_REFUSED"
    assert "we calculated" not in failed.value.response.text
    assert registry.get_sample_value(series, {"reason": "UPSTREAM_KEY_REFUSED"}) == 1


def pool_of_pairs(scene: BedrockScene) -> None:
    """Three pairs behind `signed`: one that AWS does not take, then two that it takes."""
    answers = [bedrock_provider(scene.bedrock) for _ in range(3)]
    answers[0].credential.aws_credentials.secret_access_key = "not-the-secret"
    for number, one in enumerate(answers):
        one.provider.id = answers[0].provider.id
        one.credential.credential_id, one.receipt = f"cred-{number}", f"receipt-{number}".encode()
        one.pool_size = len(answers)
    scene.credentiald.pools["signed"] = answers


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "blocking"])
async def test_another_pair_of_a_pool_signs_the_request_anew(scene: BedrockScene, streamed: bool) -> None:
    pool_of_pairs(scene)
    # A signature that is not taken uses no script; the second pair is throttled.
    scene.bedrock.script(error("ThrottlingException", "slow down"), says(Text("Now.")))
    async with scene.claude() as client:
        if streamed:
            async with client.messages.stream(**ASK) as stream:
                message = await stream.get_final_message()
        else:
            message = await client.messages.create(**ASK)
    assert said(message) == [{"type": "text", "text": "Now."}]
    await until(lambda: len(scene.credentiald.outcomes) == 2 and bool(scene.credentiald.reported))
    wrong, throttled = scene.credentiald.outcomes
    assert (wrong.http_status, wrong.receipt, wrong.error) == (403, b"receipt-0", "InvalidSignatureException")
    assert wrong.kind == pb.CREDENTIAL_OUTCOME_KIND_UNAUTHORIZED
    assert (throttled.http_status, throttled.receipt, throttled.error) == (429, b"receipt-1", "ThrottlingException")
    assert throttled.kind == pb.CREDENTIAL_OUTCOME_KIND_RATE_LIMITED
    [report] = scene.credentiald.reported
    assert [(one.receipt, one.http_status) for one in report.attempts] == [(b"receipt-0", 403), (b"receipt-1", 429)]
    assert all(one.upstream_request_id for one in report.attempts)
    assert report.receipt == b"receipt-2"


async def test_what_is_not_about_the_pair_passes_through_the_pool(scene: BedrockScene) -> None:
    pool_of_pairs(scene)
    del scene.credentiald.pools["signed"][0]
    scene.bedrock.script(error("AccessDeniedException", "no model for you"), error("ValidationException", "no"))
    async with scene.claude() as client:
        with pytest.raises(anthropic.PermissionDeniedError, match="no model for you"):
            await client.messages.create(**ASK)
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(**ASK)
    assert len(scene.credentiald.resolves) == 2
    assert not scene.credentiald.outcomes


async def test_an_exception_in_place_of_a_stream_has_its_status_so_that_clients_try_again(scene: BedrockScene) -> None:
    scene.bedrock.script(frames(exception("throttlingException", "Too many tokens")), says(Text("Now.")))
    async with scene.claude(max_retries=1) as client, client.messages.stream(**ASK) as stream:
        assert said(await stream.get_final_message()) == [{"type": "text", "text": "Now."}]
    scene.bedrock.script(frames(exception("serviceUnavailableException", "Busy")))
    async with scene.claude() as client:
        with pytest.raises(anthropic.APIStatusError, match="Busy") as failed:
            async with client.messages.stream(**ASK) as stream:
                await stream.get_final_message()
    assert (failed.value.status_code, failed.value.request_id) == (503, "req-bdrk-1")
    assert len(scene.all_verified()) == 3


async def test_a_users_own_key_is_a_bearer_token_stored_or_presented(scene: BedrockScene) -> None:
    scene.bedrock.accept_bearer("users-own-key")
    stored = bedrock_provider(scene.bedrock, bearer="users-own-key")
    stored.source = provider_pb2.CREDENTIAL_SOURCE_USER_KEY
    scene.credentiald.providers["stored"] = stored
    presented = provider("bedrock", scene.bedrock.url, presented=True)
    presented.provider.bedrock.region = scene.bedrock.region
    scene.credentiald.providers["presented"] = presented
    governance = {"X-Coder-AI-Governance-Token": USER_TOKEN}

    async with scene.claude("stored") as client:
        assert said(await client.messages.create(**ASK)) == [{"type": "text", "text": "Hello from Bedrock"}]
    async with scene.claude("presented", auth_token="users-own-key", default_headers=governance) as client:
        await client.messages.create(**ASK)
    async with scene.claude(
        "presented", auth_token=None, api_key="users-own-key", default_headers=governance
    ) as client:
        await client.messages.create(**ASK)
        scene.bedrock.forget("users-own-key")
        # Theirs to mend, so they are told.
        with pytest.raises(anthropic.PermissionDeniedError, match="make sure your API Key is valid"):
            await client.messages.create(**ASK)
    assert [sent.signer.bearer for sent in scene.bedrock.requests[:3]] == ["users-own-key"] * 3  # type: ignore[union-attr]
    assert [resolve.presented_key for resolve in scene.credentiald.resolves] == [False, True, True, True]


async def test_the_actor_is_named_beside_the_signature(scene: BedrockScene) -> None:
    scene.credentiald.providers["signed"].provider.send_actor_headers = True
    async with scene.claude() as client:
        await client.messages.create(**ASK)
    (sent,) = scene.all_verified()
    assert "ada" in [value for name, value in sent.headers if "actor" in name.lower()]
