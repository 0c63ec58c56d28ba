"""A bridge with providers at a fake Bedrock, and real clients of it.

async with bedrock_scene() as scene:
    scene.bedrock.script(says(Text("Hello")))
    async with scene.claude("signed") as client: ...
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import boto3
from botocore.config import Config
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2

from tests.fakes.bedrock import FakeBedrock, Recorded, running_bedrock
from tests.fakes.credentiald import USER_TOKEN, FakeCredentiald, provider, running_credentiald
from tests.support.bridge import RunningBridge, running_bridge

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ACCESS_KEY_ID, SECRET, SESSION_TOKEN = "ASIAUPSTREAM", "upstream/secret+canary", "upstream-session-canary"
BEARER = "bedrock-api-key-canary"
# What clients that insist on AWS credentials are given: their token as the id, any secret.
PLACEHOLDER = "placeholder-canary"
SESSION = boto3.Session()  # keeps the descriptions of services, which take long to read


def bedrock_provider(bedrock: FakeBedrock, *, bearer: str = "", mantle: bool = False) -> pb.ResolveProviderResponse:
    """credentiald's answer for a provider at this Bedrock: with keys of a session, or with a bearer token."""
    answer = provider("bedrock", bedrock.url, bearer=bearer)
    answer.provider.bedrock.region = bedrock.region
    answer.provider.bedrock.control_base_url = bedrock.control_url
    if mantle:
        answer.provider.bedrock.protocol = provider_pb2.BEDROCK_PROTOCOL_MANTLE
    if not bearer:
        keys = answer.credential.aws_credentials
        keys.access_key_id, keys.secret_access_key, keys.session_token = ACCESS_KEY_ID, SECRET, SESSION_TOKEN
    return answer


@dataclass(frozen=True, kw_only=True)
class BedrockScene:
    """What `bedrock_scene` yields."""

    bedrock: FakeBedrock
    credentiald: FakeCredentiald
    bridge: RunningBridge

    def url(self, name: str = "signed") -> str:
        """Where a client of this provider points its base URL."""
        return f"http://127.0.0.1:{self.bridge.port}/{name}"

    def claude(self, name: str = "signed", **changed: Any) -> anthropic.AsyncAnthropic:
        """The SDK of Anthropic's own API, which asks once."""
        known = {"auth_token": USER_TOKEN, "api_key": None, "max_retries": 0}
        return anthropic.AsyncAnthropic(base_url=self.url(name), **{**known, **changed})

    def claude_at_bedrock(self, name: str = "signed") -> anthropic.AsyncAnthropicBedrock:
        """Anthropic's client of Bedrock, which signs with a placeholder."""
        return anthropic.AsyncAnthropicBedrock(
            base_url=self.url(name),
            aws_access_key=USER_TOKEN,
            aws_secret_key=PLACEHOLDER,
            aws_session_token=PLACEHOLDER,
            aws_region="eu-north-1",
            max_retries=0,
        )

    @contextmanager
    def boto(self, name: str = "signed", service: str = "bedrock-runtime") -> Iterator[Any]:
        """A client of boto3 that signs with a placeholder, for a region of its own, and asks once."""
        client = SESSION.client(
            service,  # type: ignore[call-overload]
            aws_access_key_id=USER_TOKEN,
            aws_secret_access_key=PLACEHOLDER,
            aws_session_token=PLACEHOLDER,
            region_name="eu-north-1",
            endpoint_url=self.url(name),
            config=Config(retries={"total_max_attempts": 1}, read_timeout=10),
        )
        try:
            yield client
        finally:
            client.close()

    def all_verified(self) -> list[Recorded]:
        """The requests, each of which must be from who the provider is and hold nothing of the client's."""
        for sent in self.bedrock.requests:
            assert sent.refused is None
            assert sent.signer is not None
            if sent.signer.bearer is None:
                assert sent.signer.access_key_id == ACCESS_KEY_ID
                assert len(sent.all("x-amz-date")) == 1
            else:
                assert sent.header("authorization") == f"Bearer {sent.signer.bearer}"
                assert not [name for name, _ in sent.headers if name.lower().startswith("x-amz-")]
            for text in (USER_TOKEN, PLACEHOLDER):
                assert text not in repr(sent.headers) + sent.target
                assert text.encode() not in sent.body
        return self.bedrock.requests


@asynccontextmanager
async def bedrock_scene(**changed: Any) -> AsyncIterator[BedrockScene]:
    """A bridge with the providers `signed`, `bearer` and `mantle`, all at one Bedrock."""
    async with (
        running_bedrock() as bedrock,
        running_credentiald() as credentiald,
        # Real clients take their time to be imported, in the loop that answers.
        running_bridge(credentiald, **{"credentiald_timeout_seconds": 30, **changed}) as bridge,
    ):
        bedrock.accept(ACCESS_KEY_ID, SECRET, SESSION_TOKEN)
        bedrock.accept_bearer(BEARER)
        credentiald.providers["signed"] = bedrock_provider(bedrock)
        credentiald.providers["bearer"] = bedrock_provider(bedrock, bearer=BEARER)
        credentiald.providers["mantle"] = bedrock_provider(bedrock, mantle=True)
        yield BedrockScene(bedrock=bedrock, credentiald=credentiald, bridge=bridge)
