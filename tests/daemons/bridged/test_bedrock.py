"""Real clients through the bridge to a Bedrock that checks every signature with botocore's own signer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import boto3
import botocore.client
import pytest
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2

from tests.fakes.bedrock import CUT, FakeBedrock, broken, error, exception, running_bedrock, says
from tests.fakes.bedrock_turns import Text, Thinking, ToolUse
from tests.fakes.credentiald import USER_TOKEN, FakeCredentiald, provider, running_credentiald
from tests.support.bridge import RunningBridge, running_bridge

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
MESSAGES: Any = [{"role": "user", "content": "hi"}]
BLOCKS = (Thinking("hm"), Text("Hello, Ada"), ToolUse("get_weather", {"city": "Oslo"}))


def bedrock_provider(bedrock: FakeBedrock, *, bearer: str = "", mantle: bool = False) -> pb.ResolveProviderResponse:
    answer = provider("bedrock", bedrock.url, bearer=bearer)
    answer.provider.bedrock.region = bedrock.region
    answer.provider.bedrock.control_base_url = bedrock.control_url
    if mantle:
        answer.provider.bedrock.protocol = provider_pb2.BEDROCK_PROTOCOL_MANTLE
    if not bearer:
        keys = answer.credential.aws_credentials
        keys.access_key_id, keys.secret_access_key, keys.session_token = "ASIAX", "upstream-secret", "upstream-token"
    return answer


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[FakeBedrock, FakeCredentiald, RunningBridge]]:
    """A bridge with the providers `signed`, `bearer` and `mantle`, all at one Bedrock."""
    async with (
        running_bedrock() as bedrock,
        running_credentiald() as credentiald,
        # The clients take their time to be imported, in the loop that answers.
        running_bridge(credentiald, credentiald_timeout_seconds=30) as bridge,
    ):
        bedrock.accept("ASIAX", "upstream-secret", "upstream-token")
        bedrock.accept_bearer("bedrock-key")
        credentiald.providers["signed"] = bedrock_provider(bedrock)
        credentiald.providers["bearer"] = bedrock_provider(bedrock, bearer="bedrock-key")
        credentiald.providers["mantle"] = bedrock_provider(bedrock, mantle=True)
        yield bedrock, credentiald, bridge


def messages_client(bridge: RunningBridge, name: str = "signed") -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=f"http://127.0.0.1:{bridge.port}/{name}", auth_token=USER_TOKEN, api_key=None, max_retries=0
    )


def boto_client(bridge: RunningBridge, service: str = "bedrock-runtime", name: str = "signed") -> Any:
    return boto3.Session(
        aws_access_key_id=USER_TOKEN, aws_secret_access_key="anything", aws_session_token="placeholder"
    ).client(
        service,
        region_name="eu-north-1",
        endpoint_url=f"http://127.0.0.1:{bridge.port}/{name}",
        config=botocore.client.Config(retries={"max_attempts": 0}),
    )


def said(message: Any) -> list[dict[str, Any]]:
    return [block.to_dict() for block in message.content]


@pytest.mark.parametrize("name", ["signed", "bearer", "mantle"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_anthropic_sdk_talks_to_bedrock_as_if_it_were_anthropic(name: str, streamed: bool) -> None:
    async with scene() as (bedrock, credentiald, bridge), messages_client(bridge, name) as client:
        bedrock.script(says(*BLOCKS))
        request: Any = {"model": MODEL, "max_tokens": 4096, "messages": MESSAGES}
        betas = {"anthropic-beta": "claude-code-20250219,context-1m-2025-08-07"}
        if streamed:
            async with client.messages.stream(**request, extra_headers=betas) as stream:
                message = await stream.get_final_message()
        else:
            message = await client.messages.create(**request, extra_headers=betas)

        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert said(message)[1]["text"] == "Hello, Ada"
        assert said(message)[2]["input"] == {"city": "Oslo"}
        assert message.usage.output_tokens == 7
        sent = bedrock.requests[0]
        assert credentiald.resolves[0].model == MODEL
        if name == "bearer":
            assert sent.header("authorization") == "Bearer bedrock-key"
            assert not [header for header, _ in sent.headers if header.lower().startswith("x-amz-")]
        assert USER_TOKEN not in repr(sent.headers)


async def test_tokens_are_counted_by_bedrock() -> None:
    async with scene() as (bedrock, _, bridge), messages_client(bridge) as client:
        count = await client.messages.count_tokens(model=MODEL, messages=MESSAGES)
        assert count.input_tokens == 11
        assert "us." not in bedrock.requests[0].target


async def test_errors_are_anthropics() -> None:
    async with scene() as (bedrock, _, bridge), messages_client(bridge) as client:
        bedrock.script(error("ThrottlingException", headers={"Retry-After": "7"}), error("ValidationException"))
        with pytest.raises(anthropic.RateLimitError) as limited:
            await client.messages.create(model=MODEL, max_tokens=5, messages=MESSAGES)
        assert limited.value.response.headers["retry-after"] == "7"
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(model=MODEL, max_tokens=5, messages=MESSAGES)
        bedrock.forget("ASIAX")
        with pytest.raises(anthropic.InternalServerError) as refused:
            await client.messages.create(model=MODEL, max_tokens=5, messages=MESSAGES)
        assert refused.value.status_code == 502
        assert refused.value.response.headers["x-drawbridge-error"] == "KEY_POOL_EXHAUSTED"


@pytest.mark.parametrize("by", [exception("throttlingException"), CUT])
async def test_a_stream_that_breaks_says_so(by: Any) -> None:
    async with scene() as (bedrock, _, bridge), messages_client(bridge) as client:
        bedrock.script(broken(Text("half of it"), after_frames=3, by=by))
        with pytest.raises(anthropic.APIStatusError):
            async with client.messages.stream(model=MODEL, max_tokens=5, messages=MESSAGES) as stream:
                await stream.get_final_message()


async def test_boto3_talks_through_the_bridge_with_any_secret() -> None:
    async with scene() as (bedrock, _, bridge):

        def talk() -> list[Any]:
            client = boto_client(bridge)
            body = b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":5,"messages":[]}'
            whole = client.invoke_model(modelId=MODEL, body=body)["body"].read()
            events = list(client.invoke_model_with_response_stream(modelId=MODEL, body=body)["body"])
            messages = [{"role": "user", "content": [{"text": "hi"}]}]
            spoken = client.converse(modelId="arn:aws:bedrock:us-east-1:111122223333:x/y", messages=messages)
            frames = list(client.converse_stream(modelId=MODEL, messages=messages)["stream"])
            client.close()
            lists = boto_client(bridge, "bedrock")
            profiles = lists.list_inference_profiles(typeEquals="SYSTEM_DEFINED")
            models = lists.list_foundation_models()
            lists.close()
            return [whole, events, spoken["output"], frames, profiles, models]

        assert all(await asyncio.to_thread(talk))
        assert [request.at for request in bedrock.requests] == ["runtime"] * 4 + ["control"] * 2
        assert all(request.signer and request.signer.access_key_id == "ASIAX" for request in bedrock.requests)


async def test_anthropics_bedrock_client_talks_through_the_bridge() -> None:
    async with scene() as (bedrock, _, bridge):
        client = anthropic.AsyncAnthropicBedrock(
            base_url=f"http://127.0.0.1:{bridge.port}/signed",
            aws_access_key=USER_TOKEN,
            aws_secret_key="anything",
            aws_region="eu-north-1",
            max_retries=0,
        )
        async with client:
            message = await client.messages.create(model=MODEL, max_tokens=5, messages=MESSAGES)
            assert said(message)[0]["text"] == "Hello from Bedrock"
            async with client.messages.stream(model=MODEL, max_tokens=5, messages=MESSAGES) as stream:
                assert said(await stream.get_final_message())[0]["text"] == "Hello from Bedrock"
        assert len(bedrock.requests) == 2
