"""The configurations that operators bring with them: four providers, ChatGPT, the three tiers of Copilot.

Hosts are replaced by the scripted upstream (Azure's with TYPE=azure; its recognition by host name is in
tests/core/test_catalog.py). Each route must arrive at the right URL with the right credential.
"""

import grpc
import pytest
from drawbridge.v1 import credential_service_pb2
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceStub

from tests.support.credentiald import bearer, reason_of
from tests.support.http import send
from tests.support.pair import running_pair

FOUR = {
    "anthropic-corp": {
        "TYPE": "anthropic",
        "KEY": "sk-ant-corp-xxx",
        "BASE_URL": "{upstream}/llm-proxy.internal.example.com/anthropic",
    },
    "anthropic-direct": {"TYPE": "anthropic", "KEY": "sk-ant-direct-yyy", "BASE_URL": "{upstream}/api.anthropic.com"},
    "azure-openai": {"TYPE": "azure", "KEY": "azure-key-zzz", "BASE_URL": "{upstream}"},
    "anthropic-bedrock": {
        "TYPE": "anthropic",
        "BEDROCK_REGION": "us-west-2",
        "BEDROCK_ACCESS_KEY": "AKIAIOSFODNN7EXAMPLE",
        "BEDROCK_ACCESS_KEY_SECRET": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    },
}


@pytest.mark.parametrize(
    ("route", "arrives_at", "auth"),
    [
        (
            "anthropic-corp/v1/messages",
            "/llm-proxy.internal.example.com/anthropic/v1/messages",
            ("x-api-key", "sk-ant-corp-xxx"),
        ),
        ("anthropic-direct/v1/messages", "/api.anthropic.com/v1/messages", ("x-api-key", "sk-ant-direct-yyy")),
        ("azure-openai/v1/chat/completions", "/openai/v1/chat/completions", ("api-key", "azure-key-zzz")),
    ],
)
async def test_each_route_arrives_at_the_right_url_with_the_right_key(tmp_path, route, arrives_at, auth):
    async with running_pair(tmp_path, FOUR) as pair:
        answer = await send(
            pair.bridged.addresses["http"], "POST", f"/api/v2/aibridge/{route}",
            {"Authorization": f"Bearer {pair.token}"}, b'{"model":"m","messages":[]}',
        )  # fmt: skip
        [request] = pair.upstream.requests

        assert (answer.status, answer.body) == (200, b'{"scripted":true}')
        assert request.target == arrives_at
        assert request.header(auth[0]) == auth[1]
        assert pair.token.encode() not in request.raw_head


async def test_the_bedrock_provider_of_the_example_resolves_to_its_pair(tmp_path):
    async with running_pair(tmp_path, FOUR) as pair:
        async with grpc.aio.insecure_channel(pair.credentiald.addresses["main"]) as channel:
            answer = await CredentialServiceStub(channel).ResolveProvider(
                credential_service_pb2.ResolveProviderRequest(
                    provider="anthropic-bedrock",
                    access_token=pair.token,
                    operation="anthropic.messages",
                    model="claude-haiku-4-5",
                ),
                metadata=bearer((pair.folder / "credentiald.bridge-token").read_text().strip()),
            )

        assert answer.provider.wire_type == "bedrock"
        assert answer.provider.bedrock.region == "us-west-2"
        assert answer.credential.aws_credentials.access_key_id == "AKIAIOSFODNN7EXAMPLE"
        assert answer.upstream_model == "global.anthropic.claude-haiku-4-5-20251001-v1:0"


CHATGPT = {"chatgpt": {"TYPE": "openai", "BASE_URL": "{upstream}/backend-api/codex"}}


async def test_chatgpt_works_with_the_clients_own_bearer_and_not_without(tmp_path):
    async with running_pair(tmp_path, CHATGPT) as pair:
        address, path = pair.bridged.addresses["http"], "/api/v2/aibridge/chatgpt/v1/responses"
        own = {
            "X-Coder-AI-Governance-Token": pair.token,
            "Authorization": "Bearer chatgpt-own",
            "chatgpt-account-id": "acc",
        }
        answer = await send(address, "POST", path, own, b'{"model":"m","input":"Hi"}')
        [request] = pair.upstream.requests
        refused = await send(address, "POST", path, {"Authorization": f"Bearer {pair.token}"}, b'{"model":"m"}')

        assert answer.status == 200
        assert request.target == "/backend-api/codex/responses"
        assert request.header("authorization") == "Bearer chatgpt-own"
        assert request.header("chatgpt-account-id") == "acc"
        assert pair.token.encode() not in request.raw_head
        assert b"governance" not in request.raw_head.lower()
        assert (refused.status, refused.header("X-Drawbridge-Error")) == (403, "USER_KEY_REQUIRED")
        assert len(pair.upstream.requests) == 1


COPILOT = {
    f"copilot{suffix}": {"TYPE": "copilot", "BASE_URL": f"{{upstream}}/{tier}"}
    for suffix, tier in (("", "individual"), ("-business", "business"), ("-enterprise", "enterprise"))
}


async def test_the_three_copilot_tiers_work_with_the_clients_own_bearer(tmp_path):
    async with running_pair(tmp_path, COPILOT) as pair:
        for name, fields in COPILOT.items():
            tier = fields["BASE_URL"].rpartition("/")[2]
            for path, arrives_at in (
                ("/chat/completions", f"/{tier}/chat/completions"),
                ("/v1/chat/completions", f"/{tier}/chat/completions"),
                ("/responses", f"/{tier}/responses"),
                ("/models", f"/{tier}/models"),
                ("/mcp/x?y=1", f"/{tier}/mcp/x?y=1"),
                ("/agents/swe", f"/{tier}/agents/swe"),
            ):
                method, body = ("GET", b"") if path == "/models" else ("POST", b'{"model":"m"}')
                answer = await send(
                    pair.bridged.addresses["http"], method, f"/api/v2/aibridge/{name}{path}",
                    {
                        "X-Coder-AI-Governance-Token": pair.token,
                        "Authorization": "Bearer gho-own",
                        "Editor-Version": "vscode/1",
                        "Copilot-Integration-Id": "chat",
                    },
                    body,
                )  # fmt: skip
                request = pair.upstream.requests.pop()

                assert answer.status == 200, (name, path, answer.body)
                assert request.target == arrives_at
                assert request.header("authorization") == "Bearer gho-own"
                assert request.header("editor-version") == "vscode/1"
                assert pair.token.encode() not in request.raw_head


async def test_copilot_without_a_bearer_of_the_clients_own_is_refused(tmp_path):
    async with running_pair(tmp_path, COPILOT) as pair:
        answer = await send(
            pair.bridged.addresses["http"], "POST", "/copilot/chat/completions",
            {"Authorization": f"Bearer {pair.token}"}, b'{"model":"m"}',
        )  # fmt: skip

        assert (answer.status, answer.header("X-Drawbridge-Error")) == (403, "USER_KEY_REQUIRED")
        assert not pair.upstream.requests


async def test_a_user_cannot_reach_the_pair_through_the_grpc_of_bridges(tmp_path):
    async with running_pair(tmp_path, FOUR) as pair:
        async with grpc.aio.insecure_channel(pair.credentiald.addresses["main"]) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await CredentialServiceStub(channel).ResolveProvider(
                    credential_service_pb2.ResolveProviderRequest(provider="anthropic-corp", access_token=pair.token),
                    metadata=bearer(pair.token),
                )

        assert reason_of(refused.value) == "CALLER_NOT_ALLOWED"
