"""Bedrock providers in a served plane, and what a bridge gets for them."""

from dataclasses import dataclass

import grpc
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import explain_service_pb2, provider_pb2

from tests.support.credentiald import Running, bearer, reason_of

ROLE = "arn:aws:iam::123456789012:role/bedrock"
PAIR_ID = "AKIASTOREDPAIR"
REGION = "us-west-2"


@dataclass(frozen=True)
class Got:
    """What one resolve brought: the reason of a refusal with its message, or the answer's facts."""

    reason: str = ""
    message: str = ""
    key_id: str = ""
    expire_time: float = 0.0
    answer: pb.ResolveProviderResponse | None = None


async def make_bedrock(
    one: Running,
    name: str = "aws",
    *,
    pair: bool = False,
    key: str = "",
    base_url: str = "",
    flags: tuple[bool, bool, bool] | None = None,
    **options: object,
) -> provider_pb2.Provider:
    """A Bedrock provider: with a pair, with a bearer token, or ambient."""
    names = ("central_key_enabled", "user_keys_allowed", "central_key_fallback")
    request = admin.CreateProviderRequest(
        provider=provider_pb2.Provider(
            name=name,
            type="bedrock",
            base_url=base_url,
            bedrock=provider_pb2.BedrockOptions(**options),
            key_policy=provider_pb2.KeyPolicy(**dict(zip(names, flags, strict=True))) if flags else None,
        )
    )
    if pair:
        request.central_key.aws_access_key_pair.access_key_id = PAIR_ID
        request.central_key.aws_access_key_pair.secret_access_key = "cAnArY-stored"
    if key:
        request.central_key.api_key = key
    return await one.admin.CreateProvider(request, metadata=bearer(one.admin_token))


def got(answer: pb.ResolveProviderResponse) -> Got:
    """The facts of an answer."""
    credential = answer.credential
    return Got(
        key_id=credential.aws_credentials.access_key_id,
        expire_time=credential.expire_time.ToNanoseconds() / 1e9,
        answer=answer,
    )


async def ask(one: Running, token: str, name: str = "aws", **fields: object) -> Got:
    """What a single question brings."""
    request = pb.ResolveProviderRequest(provider=name, access_token=token, **fields)
    try:
        return got(await one.credentials.ResolveProvider(request, metadata=bearer(one.bridge_token)))
    except grpc.aio.AioRpcError as error:
        return Got(reason=reason_of(error), message=error.details() or "")


class Stream:
    """One open ResolveProviderStream."""

    def __init__(self, one: Running) -> None:
        self._call = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token))

    async def ask(self, *items: pb.ResolveProviderRequest) -> list[Got]:
        """One batch."""
        await self._call.write(pb.ResolveProviderStreamRequest(items=items))
        found: list[Got] = []
        while len(found) < len(items):
            reply = await self._call.read()
            found += [
                got(result.response)
                if result.HasField("response")
                else Got(reason=result.refusal.reason, message=result.refusal.message)
                for result in reply.results
            ]
        return found

    async def close(self) -> None:
        """End it."""
        await self._call.done_writing()


async def explained(one: Running, token: str, name: str = "aws") -> explain_service_pb2.ExplainProviderResponse:
    """The account for the owner of the token."""
    return await one.explain.ExplainProvider(
        explain_service_pb2.ExplainProviderRequest(provider=name), metadata=bearer(token)
    )


async def checked(one: Running, name: str = "aws") -> admin.CheckProviderResponse:
    """What a check finds."""
    return await one.admin.CheckProvider(admin.CheckProviderRequest(name=name), metadata=bearer(one.admin_token))
