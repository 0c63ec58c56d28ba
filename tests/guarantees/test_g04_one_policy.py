"""G4: policy is one pure function; Resolve, Explain, Simulate, model availability and the console agree.

Proved differentially. `says` below is the promise in a few lines that share nothing with credentiald's table. Every
type of provider, with every combination of flags, stored keys and a presented key, is asked about by resolve, explain,
the list of a user's keys, and a client's request through a real bridge; each must say what `says` says, and the
upstream must get exactly that key and no other. Providers are written below the API, which would not save some of them.
There is no simulate and no console yet; they have to join this test when there are.

Wider: tests/core/test_policy.py reads the published table, tests/daemons/credentiald/test_resolve.py has the order of
checks.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from drawbridge.v1 import credential_service_pb2, explain_service_pb2, provider_pb2, user_key_pb2, user_key_service_pb2
from drawbridge.v1.error_reason_pb2 import ErrorReason

from credentiald.catalog import CATALOG
from credentiald.model import Gateway
from tests.fakes.scripted_upstream import ScriptedUpstream, reply, running_upstream
from tests.support.credentiald import Running, bearer, reason_of, running
from tests.support.http import Answer, send
from tests.support.pair import until_ready
from tests.support.policy_rows import CENTRAL, COMBINATIONS, OWN, write_row
from tests.support.processes import Daemon, bridged

PRESENTED = "sk-presented-canary-3"
AMBIENT_ID, AMBIENT_SECRET = "AKIAIOSFODNN7EXAMPLE", "ambient-secret"
# What an upstream sees of each source, and a bridge.
SEEN = {"CENTRAL_KEY": CENTRAL, "USER_KEY": OWN, "PRESENTED_KEY": PRESENTED, "AMBIENT": AMBIENT_ID}
GIVEN = {"CENTRAL_KEY": CENTRAL, "USER_KEY": OWN, "PRESENTED_KEY": "", "AMBIENT": AMBIENT_SECRET}
# What each refusal is to a client (contract.md), and to Anthropic's documented error types.
STATUS = {"USER_KEY_REQUIRED": 403, "CENTRAL_KEY_MISSING": 503, "USER_KEYS_NOT_ALLOWED": 403}
ANTHROPIC_TYPES = {403: "permission_error", 503: "api_error"}
BODY = (
    b'{"model":"anthropic.claude-sonnet-4-5-20250929-v1:0","max_tokens":1,"messages":[{"role":"user","content":"x"}]}'
)
PATHS = {"anthropic": "/v1/messages", "bedrock": "/v1/messages", "google": "/v1beta/models/m:generateContent"}
CHAT = "/v1/chat/completions"
CASES = [(*row, presented) for row in itertools.product(CATALOG, COMBINATIONS) for presented in (False, True)]


def says(type_name: str, combination: tuple[bool, ...], *, presented: bool, byok: bool) -> str:
    """The promise: where a request's credential comes from, or why there is none."""
    central, users, fallback, has_key, stored = combination
    if presented:
        # Where it may not be used it is refused, and nothing takes its place.
        return "PRESENTED_KEY" if users and byok else "USER_KEYS_NOT_ALLOWED"
    if users and has_key:
        return "USER_KEY"
    if central and (fallback or not users):
        shared = "CENTRAL_KEY" if stored else "AMBIENT" if type_name == "bedrock" else None
        if shared is not None:
            return shared
    return "USER_KEY_REQUIRED" if users else "CENTRAL_KEY_MISSING"


@dataclass
class Scene:
    """credentiald in the test's own process, a bridge as a process of its own, and an upstream."""

    one: Running
    upstream: ScriptedUpstream
    bridge: Daemon
    token: str
    user_id: str

    async def resolve(self, name: str, *, presented: bool) -> tuple[str, str]:
        """Source or reason, and the key that a bridge is given."""
        request = credential_service_pb2.ResolveProviderRequest(
            provider=name, access_token=self.token, presented_key=presented
        )
        try:
            answer = await self.one.credentials.ResolveProvider(request, metadata=bearer(self.one.bridge_token))
        except grpc.aio.AioRpcError as error:
            return reason_of(error), ""
        kind = answer.credential.WhichOneof("material")
        key = answer.credential.aws_credentials.secret_access_key
        if kind and kind != "aws_credentials":
            key = getattr(answer.credential, kind).value
        return provider_pb2.CredentialSource.Name(answer.source).removeprefix("CREDENTIAL_SOURCE_"), key

    async def explain(self, name: str, *, presented: bool) -> str:
        request = explain_service_pb2.ExplainProviderRequest(provider=name, presented_key=presented)
        explained = await self.one.explain.ExplainProvider(request, metadata=bearer(self.token))
        if explained.reason:
            return ErrorReason.Name(explained.reason).removeprefix("ERROR_REASON_")
        return provider_pb2.CredentialSource.Name(explained.source).removeprefix("CREDENTIAL_SOURCE_")

    async def statuses(self) -> dict[str, str]:
        request = user_key_service_pb2.ListUserKeysRequest(page_size=1000)
        listed = await self.one.user_keys.ListUserKeys(request, metadata=bearer(self.token))
        return {
            key.provider: user_key_pb2.UserKeyStatus.Name(key.status).removeprefix("USER_KEY_STATUS_")
            for key in listed.user_keys
        }

    async def carry(self, name: str, type_name: str, *, presented: bool) -> tuple[Answer, str]:
        """The client's answer, and the keys that the upstream got, of all that there are."""
        headers = {"Authorization": f"Bearer {self.token}"}
        if presented:
            keys = {"X-Api-Key": PRESENTED, "Api-Key": PRESENTED, "X-Goog-Api-Key": PRESENTED}
            headers = {
                "X-Coder-AI-Governance-Token": self.token, "Authorization": f"Bearer {PRESENTED}", **keys
            }  # fmt: skip
        self.upstream.requests.clear()
        target = f"/api/v2/aibridge/{name}{PATHS.get(type_name, CHAT)}"
        answer = await send(self.bridge.addresses["http"], "POST", target, headers, BODY)
        heads = b"".join(request.raw_head for request in self.upstream.requests)
        assert self.token.encode() not in heads
        return answer, ",".join(source for source, key in SEEN.items() if key.encode() in heads)


@asynccontextmanager
async def scene(folder: Path, *, byok: bool) -> AsyncIterator[Scene]:
    async with running_upstream() as upstream, running(folder, gateway=Gateway(allow_byok=byok)) as one:
        upstream.default = reply(200, b'{"answer":true}')
        user_id, token = await one.make_user("ann")
        bridge = bridged(folder, f"unix:{folder / 'main.sock'}")
        daemon = await asyncio.to_thread(bridge.__enter__)
        try:
            await until_ready(daemon)
            yield Scene(one=one, upstream=upstream, bridge=daemon, token=token, user_id=user_id)
        finally:
            await asyncio.to_thread(bridge.__exit__, None, None, None)
        for secret in (CENTRAL, OWN, PRESENTED, AMBIENT_SECRET, token):
            assert secret not in daemon.output


@pytest.mark.parametrize("byok", [True, False])
async def test_all_who_are_asked_say_the_same_and_the_upstream_gets_that_key(tmp_path, monkeypatch, byok):
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AMBIENT_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AMBIENT_SECRET)
    async with scene(tmp_path, byok=byok) as at:
        names: dict[tuple[str, tuple[bool, ...]], str] = {}
        statuses: dict[str, str] = {}
        for type_name, combination, presented in CASES:
            if not byok and not presented and type_name not in ("openai", "bedrock"):
                # Nothing that the deployment's switch is about.
                continue
            row = (type_name, combination)
            if row not in names:
                base_url = f"{at.upstream.url}/{type_name}"
                names[row] = await write_row(at.one, type_name, combination, at.user_id, base_url=base_url)
            name, expected = names[row], says(type_name, combination, presented=presented, byok=byok)
            where = f"{type_name} {combination} presented={presented}: {expected}"
            assert await at.resolve(name, presented=presented) == (expected, GIVEN.get(expected, "")), where
            assert await at.explain(name, presented=presented) == expected, where
            answer, seen = await at.carry(name, type_name, presented=presented)
            check_answer(answer, seen, type_name, expected, where)
            _, users, _, has_key, _ = combination
            if users and not presented:
                shared = expected in ("CENTRAL_KEY", "AMBIENT")
                statuses[name] = "KEY_SAVED" if has_key else "USING_SHARED_KEY" if shared else "NO_KEY"
        listed = await at.statuses()
        assert {name: listed[name] for name in statuses} == statuses
        assert set(listed) == {name for (_, combination), name in names.items() if combination[1]}


def check_answer(answer: Answer, seen: str, type_name: str, expected: str, where: str) -> None:
    where = f"{where}, {answer.status} {answer.body!r}"
    assert answer.header("X-Interception-Id"), where
    if expected not in STATUS:
        assert (answer.status, answer.header("X-Drawbridge-Error"), seen) == (200, "", expected), where
        return
    assert (answer.status, answer.header("X-Drawbridge-Error"), seen) == (STATUS[expected], expected, ""), where
    error = json.loads(answer.body)["error"]
    assert error["message"], where
    if type_name in ("anthropic", "bedrock"):
        assert error["type"] == ANTHROPIC_TYPES[answer.status], where
    elif type_name != "google":
        assert error["code"] == expected.lower(), where
