"""The fake Bedrock, asked by real clients without a bridge between.

The clients sign with code that is not ours, so that a mistake of our signer and of the fake cannot meet unseen.
"""

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import anthropic
import boto3
import botocore.session
import pytest
import trustme
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from bridged.aws.sigv4 import SigningKeys, sign
from tests.fakes import bedrock as fake
from tests.fakes.bedrock import (
    CUT,
    STALL,
    FakeBedrock,
    broken,
    error,
    exception,
    frames,
    reply,
    running_bedrock,
    says,
)
from tests.fakes.bedrock_turns import Text, Thinking, ToolUse, Turn, invoke_frames
from tests.support.raw_http import raw_exchange, request
from tests.support.sigv4 import aws_keys, botocore_signature

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}
ASK: dict[str, Any] = {"max_tokens": 5, "messages": [{"role": "user", "content": "Hello?"}]}
BODY = {"anthropic_version": "bedrock-2023-05-31", **ASK}
CONVERSE: Any = [{"role": "user", "content": [{"text": "Hello?"}]}]
SESSION = boto3.Session()  # keeps the descriptions of services, which take long to read
EVERYTHING = (Thinking("Let me see"), Text("I look it up."), ToolUse("get_weather", {"city": "Oslo"}))


@asynccontextmanager
async def bedrock_with_keys(tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeBedrock]:
    async with running_bedrock(tls=tls) as bedrock:
        bedrock.accept("AKIDEXAMPLE", "secret")
        yield bedrock


@contextmanager
def boto(url: str, service: str = "bedrock-runtime", **changed: Any) -> Iterator[Any]:
    """A client of boto3 that asks once."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=changed.pop("read_timeout", 10))
    client = SESSION.client(
        service, **{"endpoint_url": url, "region_name": "us-east-1", "config": config, **KEYS, **changed}
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def claude(url: str, **changed: Any) -> Iterator[anthropic.AnthropicBedrock]:
    keys = {"aws_access_key": "AKIDEXAMPLE", "aws_secret_key": "secret"}
    with anthropic.AnthropicBedrock(
        **{"base_url": url, "aws_region": "us-east-1", "max_retries": 0, **keys, **changed}
    ) as client:
        yield client


async def asked(bedrock: FakeBedrock, ask: Callable[[Any], Any], **changed: Any) -> Any:
    """What a blocking client of boto3 gets."""

    def blocking() -> Any:
        with boto(bedrock.url, **changed) as client:
            return ask(client)

    return await asyncio.to_thread(blocking)


def invoke(client: Any, body: object = BODY, model: str = MODEL) -> Any:
    return json.loads(client.invoke_model(modelId=model, body=json.dumps(body))["body"].read())


def invoke_stream(client: Any, model: str = MODEL) -> list[Any]:
    answer = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(BODY))
    with closing(answer["body"]) as stream:
        return [json.loads(one["chunk"]["bytes"]) for one in stream]


async def refusal(bedrock: FakeBedrock, ask: Callable[[Any], Any] = invoke, **changed: Any) -> tuple[str, int, str]:
    """Code, status and message of the error that boto3 makes of an answer."""
    with pytest.raises(ClientError) as refused:
        await asked(bedrock, ask, **changed)
    response = refused.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


# What is answered


@pytest.mark.parametrize("model", [MODEL, ARN])
async def test_boto3_invokes_a_model_by_id_and_by_arn(model: str) -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.script(says(*EVERYTHING, output_tokens=42))
        answer = await asked(bedrock, lambda client: invoke(client, model=model))

    assert [block["type"] for block in answer["content"]] == ["thinking", "text", "tool_use"]
    assert answer["content"][2]["input"] == {"city": "Oslo"}
    assert answer["stop_reason"] == "tool_use"
    assert answer["usage"] == {"input_tokens": 11, "output_tokens": 42}
    (seen,) = bedrock.requests
    assert (seen.model, seen.operation, seen.at) == (model, "invoke", "runtime")
    assert "%3A" in seen.target
    assert seen.signer is not None
    assert seen.signer.access_key_id == "AKIDEXAMPLE"
    assert seen.signer.signed_headers == ("host", "x-amz-date")
    assert seen.json() == BODY


async def test_boto3_reads_a_stream_of_anthropics_events() -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.script(says(*EVERYTHING))
        events = await asked(bedrock, invoke_stream)

    assert events[0]["type"] == "message_start"
    assert events[-1]["type"] == "message_stop"
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == "Let me see"
    assert "".join(delta.get("text", "") for delta in deltas) == "I look it up."
    assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == {"city": "Oslo"}


async def test_boto3_converses() -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.script(says(*EVERYTHING))
        answer = await asked(bedrock, lambda client: client.converse(modelId=MODEL, messages=CONVERSE))

    thought, text, tool = answer["output"]["message"]["content"]
    assert thought["reasoningContent"]["reasoningText"]["text"] == "Let me see"
    assert text["text"] == "I look it up."
    assert tool["toolUse"]["input"] == {"city": "Oslo"}
    assert answer["stopReason"] == "tool_use"
    assert answer["usage"]["totalTokens"] == 18


async def test_boto3_converses_in_a_stream() -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.script(says(*EVERYTHING))
        events = await asked(
            bedrock, lambda client: list(client.converse_stream(modelId=MODEL, messages=CONVERSE)["stream"])
        )

    starts = [event["contentBlockStart"]["start"] for event in events if "contentBlockStart" in event]
    assert [start["toolUse"]["name"] for start in starts] == ["get_weather"]
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert "".join(delta.get("text", "") for delta in deltas) == "I look it up."
    assert "".join(delta.get("reasoningContent", {}).get("text", "") for delta in deltas) == "Let me see"
    assert json.loads("".join(delta.get("toolUse", {}).get("input", "") for delta in deltas)) == {"city": "Oslo"}
    assert events[-1]["metadata"]["usage"] == {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18}


@pytest.mark.parametrize(
    "counted", [{"invokeModel": {"body": json.dumps(BODY)}}, {"converse": {"messages": CONVERSE}}], ids=list
)
async def test_boto3_counts_tokens(counted: dict[str, Any]) -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.script(says(input_tokens=99))
        answer = await asked(bedrock, lambda client: client.count_tokens(modelId=MODEL, input=counted))

    assert answer["inputTokens"] == 99


async def test_boto3_lists_profiles_and_models_at_either_endpoint() -> None:
    async with bedrock_with_keys() as bedrock:
        for url in (bedrock.control_url, bedrock.url):
            profiles = await asked(
                bedrock,
                lambda client: client.list_inference_profiles(typeEquals="SYSTEM_DEFINED"),
                service="bedrock",
                endpoint_url=url,
            )
            models = await asked(
                bedrock, lambda client: client.list_foundation_models(), service="bedrock", endpoint_url=url
            )
            assert [one["inferenceProfileId"] for one in profiles["inferenceProfileSummaries"]] == [MODEL]
            assert [one["modelId"] for one in models["modelSummaries"]] == [MODEL.removeprefix("us.")]

        assert [seen.at for seen in bedrock.requests] == ["control", "control", "runtime", "runtime"]
        assert bedrock.requests[0].target == "/inference-profiles?type=SYSTEM_DEFINED"
        assert (await refusal(bedrock, endpoint_url=bedrock.control_url))[1] == 404


async def test_anthropics_client_invokes_with_a_colon_in_the_path() -> None:
    def blocking(url: str) -> anthropic.types.Message:
        with claude(url) as client:
            return client.messages.create(model=MODEL, **ASK)

    async with bedrock_with_keys() as bedrock:
        bedrock.script(says(*EVERYTHING))
        answer = await asyncio.to_thread(blocking, bedrock.url)

    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    assert bedrock.requests[0].target == f"/model/{MODEL}/invoke"
    assert bedrock.requests[0].model == MODEL


async def test_anthropics_client_streams() -> None:
    def blocking(url: str) -> anthropic.types.Message:
        with claude(url) as client, client.messages.stream(model=MODEL, **ASK) as stream:
            return stream.get_final_message()

    async with bedrock_with_keys() as bedrock:
        bedrock.script(says(*EVERYTHING))
        answer = await asyncio.to_thread(blocking, bedrock.url)

    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    assert answer.content[2].input == {"city": "Oslo"}  # type: ignore[union-attr]
    assert answer.usage.output_tokens == 7


# Who is let in


async def test_a_pair_is_judged_as_aws_judges_it() -> None:
    async with bedrock_with_keys() as bedrock:
        wrong_secret = await refusal(bedrock, aws_secret_access_key="other")
        unknown = await refusal(bedrock, aws_access_key_id="AKIDOTHER")
        token = await refusal(bedrock, aws_session_token="not one of this pair")
        region = await refusal(bedrock, region_name="eu-west-1")

        assert wrong_secret[:2] == ("InvalidSignatureException", 403)
        assert unknown[:2] == ("UnrecognizedClientException", 403)
        assert token[:2] == ("UnrecognizedClientException", 403)
        assert region[:2] == ("InvalidSignatureException", 403)
        assert [seen.refused for seen in bedrock.requests] == [wrong_secret[0], unknown[0], token[0], region[0]]


async def test_session_credentials_are_good_until_they_expire() -> None:
    now = datetime.now(UTC)
    async with running_bedrock() as bedrock:
        bedrock.accept("ASIA", "secret", "session", now + timedelta(seconds=20))
        keys = {"aws_access_key_id": "ASIA", "aws_session_token": "session"}
        assert (await asked(bedrock, invoke, **keys))["role"] == "assistant"
        signer = bedrock.requests[0].signer
        assert signer is not None
        assert "x-amz-security-token" in signer.signed_headers

        bedrock.now = lambda: now + timedelta(seconds=20)
        assert (await refusal(bedrock, **keys))[:2] == ("ExpiredTokenException", 403)
        assert bedrock.requests[1].refused == "ExpiredTokenException"

        bedrock.forget("ASIA")
        assert (await refusal(bedrock, **keys))[:2] == ("UnrecognizedClientException", 403)


async def test_a_signature_is_good_for_five_minutes() -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.now = lambda: datetime.now(UTC) + timedelta(minutes=6)

        assert (await refusal(bedrock))[0] == "InvalidSignatureException"


async def test_a_bearer_token_is_taken_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-1")
    async with bedrock_with_keys(tls) as bedrock:
        bedrock.accept_bearer("bedrock-api-key-1")
        with authority.cert_pem.tempfile() as bundle:
            keyless = {"aws_access_key_id": None, "aws_secret_access_key": None, "verify": bundle}
            assert (await asked(bedrock, invoke, **keyless))["role"] == "assistant"
            bedrock.forget("bedrock-api-key-1")
            assert (await refusal(bedrock, **keyless))[:2] == ("AccessDeniedException", 403)

    signer = bedrock.requests[0].signer
    assert signer is not None
    assert signer.bearer == "bedrock-api-key-1"


def signed_request(bedrock: FakeBedrock, body: bytes, sent_body: bytes | None = None, *more: tuple[str, str]) -> bytes:
    """A request that our own signer signs; what is sent may differ from what was signed."""
    host = bedrock.url.removeprefix("http://")
    added = sign(
        method="POST",
        host=host,
        target=f"/model/{MODEL}/invoke",
        headers=(("Content-Type", "application/json"),),
        body=body,
        keys=aws_keys("AKIDEXAMPLE", "secret"),
        region="us-east-1",
        service="bedrock",
        now=datetime.now(UTC),
        signing_keys=SigningKeys(),
    )
    headers = [("Content-Type", "application/json"), *added, *more, ("Connection", "close")]
    return request("POST", f"/model/{MODEL}/invoke", headers=headers, body=sent_body or body, host=host)


async def test_our_signatures_verify_and_a_changed_body_does_not() -> None:
    body = json.dumps(BODY).encode()
    async with bedrock_with_keys() as bedrock:
        port = int(bedrock.url.rpartition(":")[2])
        good = await raw_exchange(port, signed_request(bedrock, body))
        changed = await raw_exchange(port, signed_request(bedrock, body, body + b" "))
        smuggled = await raw_exchange(port, signed_request(bedrock, body, None, ("X-Amz-Target", "other")))
        both = await raw_exchange(port, signed_request(bedrock, body, None, ("Authorization", "Bearer x")))
        nobody = await raw_exchange(port, request("POST", f"/model/{MODEL}/invoke", body=body))

    assert good.status == 200
    assert bedrock.requests[0].signer is not None
    assert bedrock.requests[0].signer.signed_headers == ("content-type", "host", "x-amz-date")
    assert (changed.status, bedrock.requests[1].refused) == (403, "InvalidSignatureException")
    assert (smuggled.status, bedrock.requests[2].refused) == (403, "InvalidSignatureException")
    assert (both.status, bedrock.requests[3].refused) == (400, "IncompleteSignatureException")
    assert (nobody.status, bedrock.requests[4].refused) == (403, "MissingAuthenticationTokenException")


async def test_a_bearer_token_beside_parts_of_a_signature_is_refused() -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.accept_bearer("token")
        headers = [("Authorization", "Bearer token"), ("X-Amz-Date", "20261121T120000Z")]
        port = int(bedrock.url.rpartition(":")[2])
        answer = await raw_exchange(port, request("POST", f"/model/{MODEL}/invoke", headers=headers, body=b"{}"))

    assert (answer.status, bedrock.requests[0].refused) == (400, "IncompleteSignatureException")


@pytest.mark.parametrize(("claimed", "verifies"), [(b"{}", True), (b"{ }", False)])
async def test_a_body_is_not_what_a_header_claims(claimed: bytes, verifies: bool) -> None:
    """botocore believes X-Amz-Content-SHA256 when it signs; who verifies must not."""
    signature = botocore_signature(
        method="POST",
        url="https://host/",
        signed_headers=[("host", "host"), ("x-amz-content-sha256", sha256(claimed).hexdigest())],
        body=b"{}",
        secret="secret",
        region="us-east-1",
        service="bedrock",
        amz_date="20261121T120000Z",
    )

    assert bool(re.fullmatch("[0-9a-f]{64}", signature)) == verifies


# What is refused about a body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({**BODY, "model": MODEL}, "model: Extra inputs are not permitted"),
        ({**BODY, "stream": True}, "stream: Extra inputs are not permitted"),
        ({**BODY, "service_tier": "auto"}, "service_tier: Extra inputs are not permitted"),
        ({**BODY, "output_config": {}}, "output_config: Extra inputs are not permitted"),
        ({**BODY, "anthropic_beta": ["prompt-caching-scope-2026-01-05"]}, "invalid beta flag"),
        (ASK, "anthropic_version: Field required"),
        ({**BODY, "max_tokens": None}, "max_tokens: Field required"),
        ([], "Malformed input request: expected type: JSONObject"),
    ],
)
async def test_a_body_that_bedrock_does_not_take_is_refused(body: object, words: str) -> None:
    async with bedrock_with_keys() as bedrock:
        assert await refusal(bedrock, lambda client: invoke(client, body)) == ("ValidationException", 400, words)


async def test_members_of_a_beta_are_taken_beside_its_flag() -> None:
    body = {**BODY, "output_config": {"effort": "low"}, "anthropic_beta": ["effort-2025-11-24"]}
    async with bedrock_with_keys() as bedrock:
        assert (await asked(bedrock, lambda client: invoke(client, body)))["role"] == "assistant"


async def test_tokens_are_counted_only_of_a_body_that_could_be_invoked() -> None:
    def count(client: Any) -> Any:
        return client.count_tokens(modelId=MODEL, input={"invokeModel": {"body": b'{"max_tokens":1}'}})

    async with bedrock_with_keys() as bedrock:
        assert (await refusal(bedrock, count))[2] == "anthropic_version: Field required"


# What goes wrong on demand


@pytest.mark.parametrize("kind", fake.STATUSES)
async def test_each_exception_comes_with_its_status(kind: str) -> None:
    async with bedrock_with_keys() as bedrock:
        for with_uri in (False, True):
            bedrock.script(error(kind, "because", with_uri=with_uri, headers={"Retry-After": "7"}))
            assert await refusal(bedrock) == (kind, fake.STATUSES[kind], "because")


def test_the_statuses_are_those_of_botocores_model() -> None:
    model = botocore.session.get_session().get_service_model("bedrock-runtime")
    operations = ("InvokeModel", "InvokeModelWithResponseStream", "Converse", "ConverseStream", "CountTokens")
    modelled = {
        shape.name: shape.metadata["error"]["httpStatusCode"]
        for operation in operations
        for shape in model.operation_model(operation).error_shapes
    }

    assert modelled == fake.STATUSES


@pytest.mark.parametrize(
    "kind",
    ["internalServerException", "modelStreamErrorException", "throttlingException", "validationException"],
)
async def test_an_exception_comes_in_the_middle_of_a_stream(kind: str) -> None:
    def blocking(client: Any) -> tuple[list[str], dict[str, Any]]:
        answer = client.invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(BODY))
        seen: list[str] = []
        with closing(answer["body"]) as stream, pytest.raises(EventStreamError) as broke:
            seen.extend(json.loads(one["chunk"]["bytes"])["type"] for one in stream)
        return seen, broke.value.response["Error"]

    async with bedrock_with_keys() as bedrock:
        bedrock.script(broken(after_frames=3, by=exception(kind, "too much")))
        seen, told = await asked(bedrock, blocking)

    assert seen == ["message_start", "content_block_start", "content_block_delta"]
    assert told == {"Code": kind, "Message": "too much"}


async def test_a_stream_is_cut() -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.script(broken(after_frames=2, by=CUT))
        with pytest.raises(ProtocolError):
            await asked(bedrock, invoke_stream)


async def test_a_stream_waits_where_it_is_told_to_and_for_ever() -> None:
    gate = asyncio.Event()
    first, *rest = invoke_frames(Turn(), MODEL)
    async with bedrock_with_keys() as bedrock:
        bedrock.script(frames(first, gate, *rest), frames(first, STALL))
        waiting = asyncio.create_task(asked(bedrock, invoke_stream))
        await bedrock.request(0)
        assert not waiting.done()
        gate.set()
        assert len(await waiting) == 1 + len(rest)

        with pytest.raises(ReadTimeoutError):
            await asked(bedrock, invoke_stream, read_timeout=0.2)
        async with asyncio.timeout(10):
            await bedrock.requests[1].closed.wait()


async def test_any_bytes_can_be_answered() -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.script(reply(418, b'{"message":"short and stout"}', {"x-amzn-ErrorType": "Teapot"}))

        assert await refusal(bedrock) == ("Teapot", 418, "short and stout")


# Mantle


@pytest.mark.parametrize("stream", [False, True])
async def test_mantle_takes_anthropics_messages_signed_for_its_own_service(stream: bool) -> None:
    body = json.dumps({"model": MODEL, "stream": stream, **ASK}).encode()
    async with bedrock_with_keys() as bedrock:
        host = bedrock.url.removeprefix("http://")
        answers = []
        for service in ("bedrock-mantle", "bedrock"):
            added = sign(
                method="POST",
                host=host,
                target="/anthropic/v1/messages",
                headers=(),
                body=body,
                keys=aws_keys("AKIDEXAMPLE", "secret"),
                region="us-east-1",
                service=service,
                now=datetime.now(UTC),
                signing_keys=SigningKeys(),
            )
            sent = request("POST", "/anthropic/v1/messages", headers=added, body=body, host=host)
            answers.append(await raw_exchange(int(host.rpartition(":")[2]), sent))

    taken, refused = answers
    assert taken.status == 200
    assert (b"event: message_start\ndata: {" in taken.body) == stream
    assert b"Hello fro" in taken.body
    assert refused.status == 403


async def test_what_is_not_there_is_404() -> None:
    async with bedrock_with_keys() as bedrock:
        bedrock.accept_bearer("token")
        headers = [("Authorization", "Bearer token")]
        port = int(bedrock.url.rpartition(":")[2])
        for method, target in (("POST", "/model/x/other"), ("GET", f"/model/{MODEL}/invoke"), ("POST", "/")):
            assert (await raw_exchange(port, request(method, target, headers=headers, body=b"{}"))).status == 404


def test_the_padding_and_base64_of_a_frame_are_those_of_bedrock() -> None:
    (start, *_) = invoke_frames(Turn(), MODEL)
    payload = json.loads(start[start.index(b'{"bytes"') : -4])

    assert json.loads(base64.b64decode(payload["bytes"]))["type"] == "message_start"
    assert set(payload) == {"bytes", "p"}
