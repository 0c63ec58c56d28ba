"""Both listeners of a credentiald that is a process, as bridges and administrators call them.

async with rpcs(folder, daemon) as rpc:
    await rpc.call("CreateUser", pb.CreateUserRequest(user=user_pb2.User(username="ann")))
    assert await rpc.resolved("openai", token) == "sk-1"
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import credential_service_pb2, provider_pb2, user_pb2
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceStub
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceStub
from drawbridge.v1.explain_service_pb2_grpc import ExplainServiceStub
from drawbridge.v1.user_key_service_pb2_grpc import UserKeyServiceStub

from tests.support.credentiald import bearer, reason_of
from tests.support.processes import Daemon

DEADLINE_SECONDS = 20.0


@dataclass
class Rpcs:
    """What `rpcs` yields: stubs, and the tokens of the first services."""

    credentials: CredentialServiceStub
    explain: ExplainServiceStub
    user_keys: UserKeyServiceStub
    admin: AdminServiceStub
    administered_keys: UserKeyServiceStub
    admin_token: str = field(repr=False)
    bridge_token: str = field(repr=False)

    async def call(self, name: str, message: Any) -> Any:
        """The answer of an rpc of the AdminService, to an administrator."""
        return await getattr(self.admin, name)(message, metadata=bearer(self.admin_token), timeout=DEADLINE_SECONDS)

    async def user(self, name: str) -> tuple[str, str]:
        """A new user's id and access token."""
        user = await self.call("CreateUser", pb.CreateUserRequest(user=user_pb2.User(username=name)))
        made = await self.call("CreateToken", pb.CreateTokenRequest(user=name))
        return user.id, made.access_token

    async def provider(
        self, name: str, base_url: str, *, key: str = "", flags: tuple[bool, bool, bool] | None = None,
        type_name: str = "openai",
    ) -> provider_pb2.Provider:  # fmt: skip
        """A new provider. `flags` are central key, user keys, fallback."""
        policy = None
        if flags is not None:
            names = ("central_key_enabled", "user_keys_allowed", "central_key_fallback")
            policy = provider_pb2.KeyPolicy(**dict(zip(names, flags, strict=True)))
        made = provider_pb2.Provider(name=name, type=type_name, base_url=base_url, key_policy=policy)
        request = pb.CreateProviderRequest(provider=made)
        if key:
            request.central_key.api_key = key
        return await self.call("CreateProvider", request)

    async def resolve(self, provider: str, token: str, **fields: Any) -> credential_service_pb2.ResolveProviderResponse:
        """The answer to a bridge. `fields` are those of the request."""
        return await self.credentials.ResolveProvider(
            credential_service_pb2.ResolveProviderRequest(provider=provider, access_token=token, **fields),
            metadata=bearer(self.bridge_token),
            timeout=DEADLINE_SECONDS,
        )

    async def resolved(self, provider: str, token: str, **fields: Any) -> str:
        """The key that a bridge is given, or the reason why not, in capitals; a status where there is no reason."""
        try:
            answer = await self.resolve(provider, token, **fields)
        except grpc.aio.AioRpcError as error:
            return reason_of(error) if error.code() is not grpc.StatusCode.INTERNAL else "INTERNAL"
        kind = answer.credential.WhichOneof("material") or ""
        if kind == "aws_credentials":
            return answer.credential.aws_credentials.secret_access_key
        return getattr(answer.credential, kind).value if kind else ""


@asynccontextmanager
async def rpcs(folder: Path, plane: Daemon) -> AsyncIterator[Rpcs]:
    """Channels to the daemon whose first tokens are in `folder`."""
    async with (
        grpc.aio.insecure_channel(plane.addresses["main"]) as main,
        grpc.aio.insecure_channel(plane.addresses["admin"]) as admin,
    ):
        yield Rpcs(
            credentials=CredentialServiceStub(main),
            explain=ExplainServiceStub(main),
            user_keys=UserKeyServiceStub(main),
            admin=AdminServiceStub(admin),
            administered_keys=UserKeyServiceStub(admin),
            admin_token=(folder / "credentiald.admin-token").read_text().strip(),
            bridge_token=(folder / "credentiald.bridge-token").read_text().strip(),
        )
