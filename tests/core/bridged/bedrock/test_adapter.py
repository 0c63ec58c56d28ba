"""Where a request for Bedrock goes, in whose words, and with whose signature or token; botocore checks signatures."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from bridged.adapters.bedrock import BedrockRequest, ClientRequest, prepare
from bridged.aws.sigv4 import SigningKeys
from bridged.bedrock.answers import PassingAnswer
from bridged.bedrock.messages_answer import CountAnswer, InvokeAnswer
from bridged.dialects import request_facts
from bridged.model import (
    ApiKey,
    AwsKeys,
    Bearer,
    BedrockOptions,
    BedrockProtocol,
    Credential,
    Headers,
    PresentedKey,
    Refused,
    Resolution,
    Source,
)
from bridged.routes import match
from daemonkit.secret import Secret

RUNTIME = "https://bedrock-runtime.eu-west-1.amazonaws.com"
CONTROL = "https://bedrock.eu-west-1.amazonaws.com"
MANTLE = "https://bedrock-mantle.eu-west-1.api.aws"
NOW = datetime(2026, 11, 21, 9, 8, 7, tzinfo=UTC)
OPTIONS = BedrockOptions(region="eu-west-1", control_base_url=CONTROL)
MANTLE_OPTIONS = BedrockOptions(region="eu-west-1", protocol=BedrockProtocol.MANTLE)
KEYS = AwsKeys(
    access_key_id=Secret("AKIAEXAMPLE"), secret_access_key=Secret("very/secret"), session_token=Secret("token==")
)
MODEL = "us.anthropic.claude-opus-4-6-v1:0"
BODY = json.dumps({"model": MODEL, "max_tokens": 5, "messages": []}).encode()
HEADERS: Headers = (
    ("Content-Type", "application/json; charset=utf-8"),
    ("Accept", "text/event-stream"),
    ("anthropic-version", "2026-10-21"),
    ("Anthropic-Beta", "context-1m-2025-08-07"),
    ("User-Agent", "claude-cli"),
    ("X-Amz-Date", "20200101T000000Z"),
    ("x-amz-security-token", "the client's"),
    ("X_Amz_Content_Sha256", "0"),
    ("X-Amzn-Bedrock-GuardrailIdentifier", "g"),
)


def resolution(
    *,
    base_url: str = RUNTIME,
    options: BedrockOptions | None = OPTIONS,
    credential: Credential | None = KEYS,
    source: Source = Source.CENTRAL_KEY,
    upstream_model: str = "",
) -> Resolution:
    return Resolution(
        provider_id="p",
        provider_name="corp",
        provider_type="bedrock",
        wire_type="bedrock",
        base_url=base_url,
        user_id="u",
        username="ada",
        source=source,
        credential=credential,
        upstream_model=upstream_model,
        bedrock=options,
    )


def prepared(
    path: str,
    resolved: Resolution,
    *,
    method: str = "POST",
    body: bytes = BODY,
    query: str = "",
    headers: Headers = HEADERS,
    presented: PresentedKey | None = None,
) -> BedrockRequest:
    found = match(method, path, headers, query)
    request = ClientRequest(
        match=found,
        method=method,
        query=query,
        headers=headers,
        body=body,
        model=request_facts(found, headers, body).model,
        presented=presented,
    )
    return prepare(resolved, request, now=NOW, signing_keys=SigningKeys())


def refusal(path: str, resolved: Resolution, **request: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        prepared(path, resolved, **request)
    return refused.value


def url(request: BedrockRequest) -> str:
    address = request.address
    port = f":{address.port}" if address.port is not None else ""
    return f"{address.scheme}://{address.host}{port}{address.target}"


def streamed(body: bytes) -> bytes:
    return body[:-1] + b', "stream": true}'


ENCODED = "us.anthropic.claude-opus-4-6-v1%3A0"


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "expected"),
    [
        ("POST", "/v1/messages", "?beta=true", BODY, f"{RUNTIME}/model/{ENCODED}/invoke"),
        ("POST", "/v1/messages", "", streamed(BODY), f"{RUNTIME}/model/{ENCODED}/invoke-with-response-stream"),
        (
            "POST",
            "/v1/messages/count_tokens",
            "?beta=true",
            BODY,
            f"{RUNTIME}/model/anthropic.claude-opus-4-6-v1%3A0/count-tokens",
        ),
        ("POST", "/model/a:0/invoke", "", b"{}", f"{RUNTIME}/model/a:0/invoke"),
        ("POST", "/model/a%3A0/invoke", "?x=1", b"{}", f"{RUNTIME}/model/a%3A0/invoke?x=1"),
        ("POST", "/model/arn%3Aaws%2Fx/converse-stream", "", b"{}", f"{RUNTIME}/model/arn%3Aaws%2Fx/converse-stream"),
        ("POST", "/model/a/count-tokens", "", b"{}", f"{RUNTIME}/model/a/count-tokens"),
        ("GET", "/inference-profiles", "?type=APPLICATION", b"", f"{CONTROL}/inference-profiles?type=APPLICATION"),
        ("GET", "/foundation-models", "", b"", f"{CONTROL}/foundation-models"),
    ],
)  # fmt: skip
def test_operations_go_where_bedrock_has_them(method: str, path: str, query: str, body: bytes, expected: str) -> None:
    assert url(prepared(path, resolution(), method=method, query=query, body=body)) == expected


@pytest.mark.parametrize(
    ("path", "base_url", "expected"),
    [
        ("/v1/messages", MANTLE, f"{MANTLE}/anthropic/v1/messages?beta=true"),
        ("/v1/messages", f"{MANTLE}/anthropic/", f"{MANTLE}/anthropic/v1/messages?beta=true"),
        ("/v1/messages/count_tokens", MANTLE, f"{MANTLE}/anthropic/v1/messages/count_tokens?beta=true"),
        ("/v1/responses", f"{MANTLE}/anthropic", f"{MANTLE}/v1/responses?beta=true"),
        ("/v1/chat/completions", MANTLE, f"{MANTLE}/v1/chat/completions?beta=true"),
        ("/v1/messages", "http://127.0.0.1:1/x", "http://127.0.0.1:1/x/anthropic/v1/messages?beta=true"),
    ],
)
def test_mantle_gets_what_the_client_sent(path: str, base_url: str, expected: str) -> None:
    sent = prepared(path, resolution(base_url=base_url, options=MANTLE_OPTIONS), query="?beta=true")
    assert (url(sent), sent.body) == (expected, BODY)
    assert ("Anthropic-Beta", "context-1m-2025-08-07") in sent.client_headers
    assert isinstance(sent.answer, PassingAnswer)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/model/a/invoke", MANTLE_OPTIONS),
        ("/inference-profiles", MANTLE_OPTIONS),
        ("/v1/chat/completions", OPTIONS),
        ("/v1/embeddings", MANTLE_OPTIONS),
        ("/v1/conversations", MANTLE_OPTIONS),
    ],
)
def test_a_protocol_has_its_own_operations(path: str, options: BedrockOptions) -> None:
    method = "GET" if path == "/inference-profiles" else "POST"
    refused = refusal(path, resolution(options=options), method=method)
    assert (refused.http_status, refused.reason) == (404, "OPERATION_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("path", "target", "body"),
    [
        ("/v1/messages", "/model/eu.mapped%3A1/invoke", None),
        ("/v1/messages/count_tokens", "/model/eu.mapped%3A1/count-tokens", None),
        ("/model/other/converse", "/model/eu.mapped%3A1/converse", BODY),
        ("/model/eu.mapped:1/converse", "/model/eu.mapped:1/converse", BODY),
        ("/model/other/count-tokens", "/model/eu.mapped%3A1/count-tokens", BODY),
    ],
)
def test_a_model_that_the_provider_maps_is_asked_for_instead(path: str, target: str, body: bytes | None) -> None:
    sent = prepared(path, resolution(upstream_model="eu.mapped:1"))
    assert sent.address.target == target
    assert body in (None, sent.body)


def test_tokens_are_counted_with_what_a_mapped_profile_stands_for() -> None:
    mapped = resolution(upstream_model="us.anthropic.claude-sonnet-4-5-v1:0")
    for path in ("/model/other/count-tokens", "/v1/messages/count_tokens"):
        assert prepared(path, mapped).address.target == "/model/anthropic.claude-sonnet-4-5-v1%3A0/count-tokens"


@pytest.mark.parametrize(
    ("path", "options"), [("/model/m/converse", BedrockOptions(region="us-east-1")), ("/v1/messages", MANTLE_OPTIONS)]
)
def test_a_presigned_query_ends_here_as_a_signature_in_headers_does(path: str, options: BedrockOptions) -> None:
    query = "?X-Amz-Security-Token=own&b=%20x&x-amz-date=1&X%2DAmz-Signature=2&a"
    assert prepared(path, resolution(options=options), query=query).address.target.partition("?")[2] == "b=%20x&a"
    assert "?" not in prepared(path, resolution(options=options), query="?X-Amz-Date=1").address.target


def test_mantle_has_the_model_in_its_body() -> None:
    sent = prepared("/v1/messages", resolution(options=MANTLE_OPTIONS, upstream_model="anthropic.mapped"))
    assert sent.body == BODY.replace(MODEL.encode(), b"anthropic.mapped")


def test_what_is_translated_is_said_in_bedrocks_words_alone() -> None:
    sent = prepared("/v1/messages", resolution(), body=streamed(BODY))
    assert sent.client_headers == (("User-Agent", "claude-cli"), ("X-Amzn-Bedrock-GuardrailIdentifier", "g"))
    assert sent.address.headers[:2] == (
        ("Content-Type", "application/json"),
        ("Accept", "application/vnd.amazon.eventstream"),
    )
    assert json.loads(sent.body) == {
        "max_tokens": 5,
        "messages": [],
        "anthropic_beta": ["context-1m-2025-08-07"],
        "anthropic_version": "bedrock-2023-05-31",
    }
    assert isinstance(sent.answer, InvokeAnswer)
    assert isinstance(prepared("/v1/messages/count_tokens", resolution()).answer, CountAnswer)


def test_on_bedrocks_own_paths_only_the_clients_signature_ends_here() -> None:
    sent = prepared("/model/m/invoke", resolution(), body=b"\x00any bytes")
    assert sent.body == b"\x00any bytes"
    assert [name for name, _ in sent.client_headers] == [
        "Accept",
        "anthropic-version",
        "Anthropic-Beta",
        "User-Agent",
        "X-Amzn-Bedrock-GuardrailIdentifier",
    ]
    assert sent.address.headers[0] == HEADERS[0]


def test_of_two_content_types_the_first_is_signed_and_sent() -> None:
    headers = (("content-type", "a/b"), ("Content-Type", "c/d"))
    sent = prepared("/model/m/invoke", resolution(), headers=headers)
    every = (*sent.address.headers, *sent.client_headers)
    assert [value for name, value in every if name.lower() == "content-type"] == ["a/b"]


def botocores(sent: BedrockRequest, method: str, service: str) -> str:
    """What botocore would sign, with our time."""
    headers = dict(sent.address.headers)
    signed = {name: headers[name] for name in ("Content-Type",) if name in headers}
    request = AWSRequest(method=method, url=url(sent), data=sent.body, headers=signed)
    request.context["timestamp"] = headers["X-Amz-Date"]
    request.headers["X-Amz-Date"] = headers["X-Amz-Date"]
    request.headers["X-Amz-Security-Token"] = "token=="
    signer = SigV4Auth(Credentials("AKIAEXAMPLE", "very/secret", "token=="), service, "eu-west-1")
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return str(signature)


@pytest.mark.parametrize(
    ("method", "path", "query", "options", "service"),
    [
        ("POST", "/v1/messages", "", OPTIONS, "bedrock"),
        ("POST", "/v1/messages/count_tokens", "", OPTIONS, "bedrock"),
        ("POST", "/model/a:0/invoke", "", OPTIONS, "bedrock"),
        ("POST", "/model/arn%3Aaws%2Fx/converse", "", OPTIONS, "bedrock"),
        ("GET", "/inference-profiles", "?type=SYSTEM_DEFINED&maxResults=5", OPTIONS, "bedrock"),
        ("POST", "/v1/messages", "?beta=true", MANTLE_OPTIONS, "bedrock-mantle"),
        ("POST", "/v1/responses", "", MANTLE_OPTIONS, "bedrock-mantle"),
    ],
)
def test_botocore_signs_what_leaves_in_the_same_way(
    method: str, path: str, query: str, options: BedrockOptions, service: str
) -> None:
    for base_url in (RUNTIME, "http://localhost:8080/base"):
        resolved = resolution(options=replace(options, control_base_url=""), base_url=base_url)
        sent = prepared(path, resolved, method=method, query=query)
        headers = dict(sent.address.headers)
        assert headers["X-Amz-Date"] == "20261121T090807Z"
        assert headers["X-Amz-Security-Token"] == "token=="
        assert f"/20261121/eu-west-1/{service}/aws4_request" in headers["Authorization"]
        assert headers["Authorization"].endswith(f"Signature={botocores(sent, method, service)}")


BEARER = Bearer(value=Secret("abc"))


@pytest.mark.parametrize(
    ("credential", "source", "presented", "value"),
    [
        (BEARER, Source.CENTRAL_KEY, None, "Bearer abc"),
        (ApiKey(value=Secret("abc")), Source.USER_KEY, None, "Bearer abc"),
        (None, Source.PRESENTED_KEY, PresentedKey(authorization=Secret("Bearer own")), "Bearer own"),
        (KEYS, Source.PRESENTED_KEY, PresentedKey(authorization=Secret("Bearer own")), "Bearer own"),
        (None, Source.PRESENTED_KEY, PresentedKey(x_api_key=Secret("own")), "Bearer own"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/model/m/converse"])
def test_a_bearer_token_goes_alone(
    path: str, credential: Credential | None, source: Source, presented: PresentedKey | None, value: str
) -> None:
    resolved = resolution(credential=credential, source=source, options=BedrockOptions())
    sent = prepared(path, resolved, presented=presented)
    every = (*sent.address.headers, *sent.client_headers)
    assert [pair for pair in every if pair[0] == "Authorization"] == [("Authorization", value)]
    assert not [name for name, _ in every if name.lower().replace("_", "-").startswith("x-amz-")]


def test_an_answer_to_a_users_own_bearer_token_passes_as_it_comes() -> None:
    own = resolution(credential=BEARER, source=Source.USER_KEY)
    assert prepared("/model/m/invoke", own).answer is None
    # Anybody else's is not for the client to mend.
    assert isinstance(prepared("/model/m/invoke", resolution(credential=BEARER)).answer, PassingAnswer)


@pytest.mark.parametrize(
    ("resolved", "reason"),
    [
        (resolution(options=BedrockOptions()), "REGION_REQUIRED"),
        (resolution(options=None), "REGION_REQUIRED"),
        (resolution(base_url=""), "UPSTREAM_UNREACHABLE"),
        (resolution(credential=None), "CREDENTIALD_UNREACHABLE"),
        (resolution(credential=None, source=Source.PRESENTED_KEY), "USER_KEY_REQUIRED"),
        (
            resolution(credential=replace(KEYS, session_token=Secret("a\r\nb"))),
            "AWS_CREDENTIALS_INCOMPLETE",
        ),
    ],
)
def test_what_is_missing_is_said(resolved: Resolution, reason: str) -> None:
    assert refusal("/v1/messages", resolved).reason == reason


def test_a_request_without_a_model_is_refused() -> None:
    assert refusal("/v1/messages", resolution(), body=b"{}").message == "model: field required"


@pytest.mark.parametrize(
    ("resolved", "path"),
    [
        (resolution(), "/v1/messages"),
        (resolution(), "/v1/messages/count_tokens"),
        (resolution(options=MANTLE_OPTIONS, upstream_model="m"), "/v1/messages"),
    ],
)
def test_a_compressed_body_cannot_be_translated(resolved: Resolution, path: str) -> None:
    refused = refusal(path, resolved, headers=(*HEADERS, ("Content-Encoding", "gzip")), body=b"\x1f\x8b")
    assert (refused.reason, "compressed" in refused.message) == ("INVALID_BODY", True)


def test_a_compressed_body_passes_where_nothing_is_translated() -> None:
    sent = prepared(
        "/v1/messages",
        resolution(options=MANTLE_OPTIONS),
        headers=(("Content-Encoding", "gzip"), ("Content-Type", "a")),
        body=b"\x1f\x8b",
    )
    assert sent.body == b"\x1f\x8b"
    assert ("Content-Encoding", "gzip") in sent.client_headers


@given(
    st.sampled_from(["/v1/messages", "/v1/messages/count_tokens"]),
    st.text(min_size=1, max_size=30).filter(lambda model: model.strip(".") != ""),
)
def test_no_model_changes_the_host_or_leaves_its_segment(path: str, model: str) -> None:
    body = json.dumps({"model": model, "max_tokens": 1}).encode()
    sent = prepared(path, resolution(credential=BEARER), body=body)
    _, _, segment, action = sent.address.target.split("/")
    assert sent.address.host == "bedrock-runtime.eu-west-1.amazonaws.com"
    assert action in ("invoke", "count-tokens")
    assert segment.strip(".")
    assert not set(segment) & set("?#\\ ")
