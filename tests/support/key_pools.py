"""Pools of keys as a bridge and an administrator meet them: a clock, a bridge that tells, and what is known then."""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_health_pb2, provider_pb2

from credentiald import receipts
from credentiald.ids import uuid7
from tests.support.credentiald import Running, bearer, info_of

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


ENVIRONMENT_ID = "00000000-0000-8000-8000-0000000000a1"


WAIT_SECONDS = 10


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Bridge:
    """One process of a bridge, with its service's token."""

    def __init__(self, one: Running, user_token: str, *, name: str = "bridge-1", token: str | None = None) -> None:
        self._one = one
        self._user_token = user_token
        self.name = name
        self._metadata = bearer(one.bridge_token if token is None else token)

    def question(self, provider: str = "corp", failed: Sequence[str] = (), **fields: Any) -> pb.ResolveProviderRequest:
        return pb.ResolveProviderRequest(
            **{
                "provider": provider,
                "access_token": self._user_token,
                "failed_credential_ids": failed,
                "bridge_instance_id": self.name,
                "interception_id": uuid7(datetime.now(UTC)),
            }
            | fields
        )

    async def ask(
        self, provider: str = "corp", failed: Sequence[str] = (), **fields: Any
    ) -> pb.ResolveProviderResponse:
        return await self._one.credentials.ResolveProvider(
            self.question(provider, failed, **fields), metadata=self._metadata
        )

    async def key(self, provider: str = "corp", failed: Sequence[str] = ()) -> str:
        """The key that a question brings, with "?" for one to be tried; or why there is none."""
        try:
            answer = await self.ask(provider, failed)
        except grpc.aio.AioRpcError as error:
            return info_of(error).metadata["cause"]
        return answer.credential.api_key.value + "?" * answer.probe

    async def tell(self, answer: pb.ResolveProviderResponse, kind: str, *, wait: float | None = None, **fields) -> int:
        return await self.tell_all(outcome(answer, kind, wait=wait, **fields))

    async def tell_all(self, *outcomes: pb.CredentialOutcome) -> int:
        """How many were ignored."""
        request = pb.ReportOutcomeRequest(bridge_instance_id=self.name, outcomes=outcomes)
        return (await self._one.credentials.ReportOutcome(request, metadata=self._metadata)).ignored

    async def batch(self, stream: Any, *questions: pb.ResolveProviderRequest) -> list[str]:
        """What `key` says, for the questions of one batch."""
        async with asyncio.timeout(WAIT_SECONDS):
            await stream.write(pb.ResolveProviderStreamRequest(items=questions))
            reply = await stream.read()
        return [
            one.response.credential.api_key.value + "?" * one.response.probe
            if one.HasField("response")
            else one.refusal.metadata["cause"]
            for one in reply.results
        ]

    def stream(self) -> Any:
        return self._one.credentials.ResolveProviderStream(metadata=self._metadata)


def outcome(
    answer: pb.ResolveProviderResponse, kind: str, *, wait: float | None = None, **fields: Any
) -> pb.CredentialOutcome:
    message = pb.CredentialOutcome(
        receipt=answer.receipt, kind=pb.CredentialOutcomeKind.Value(f"CREDENTIAL_OUTCOME_KIND_{kind}"), **fields
    )
    if wait is not None:
        message.retry_after.FromTimedelta(timedelta(seconds=wait))
    return message


async def make_pool(one: Running, *keys: str, name: str = "corp") -> list[str]:
    """The ids of the keys of a new provider."""
    await one.make_provider(name, flags=(True, False, False), key=keys[0])
    for key in keys[1:]:
        await add(one, key, name=name)
    return await ids_of(one, name)


async def add(one: Running, key: str, *, name: str = "corp", **fields: Any) -> provider_pb2.Provider:
    request = admin.AddCentralKeyRequest(provider=name, central_key=provider_pb2.KeyMaterial(api_key=key), **fields)
    return await one.admin.AddCentralKey(request, metadata=bearer(one.admin_token))


async def ids_of(one: Running, name: str = "corp") -> list[str]:
    found = await one.admin.GetProvider(admin.GetProviderRequest(name=name), metadata=bearer(one.admin_token))
    return [key.credential_id for key in found.central_keys]


async def states_of(one: Running, name: str = "corp") -> list[str]:
    request = admin.GetProviderHealthRequest(name=name)
    found = await one.admin.GetProviderHealth(request, metadata=bearer(one.admin_token))
    return [provider_health_pb2.KeyState.Name(key.state).removeprefix("KEY_STATE_") for key in found.keys]


def complaints_in_the_file(one: Running) -> list[tuple[Any, ...]]:
    """What another process sees."""
    with sqlite3.connect(one.folder / "credentiald.db") as conn:
        return conn.execute("SELECT credential_id, instance_id, kind FROM key_cooldowns ORDER BY 1, 2").fetchall()


def service_of(one: Running, answer: pb.ResolveProviderResponse) -> str:
    receipt = receipts.read(one.plane.receipt_key, answer.receipt)
    assert receipt is not None
    return receipt.origin.service_id


PAIR = provider_pb2.KeyMaterial(
    aws_access_key_pair=provider_pb2.AwsAccessKeyPair(access_key_id="AKIA1", secret_access_key="one")
)


SAME_ID = provider_pb2.KeyMaterial(
    aws_access_key_pair=provider_pb2.AwsAccessKeyPair(access_key_id="AKIA1", secret_access_key="two")
)


OTHER_PAIR = provider_pb2.KeyMaterial(
    aws_access_key_pair=provider_pb2.AwsAccessKeyPair(access_key_id="AKIA2", secret_access_key="two")
)


async def ping(one: Running, name: str, *breakers: pb.BreakerState) -> None:
    request = pb.PingRequest(bridge_instance_id=name, breakers=breakers)
    await one.credentials.Ping(request, metadata=bearer(one.bridge_token))


async def service_id_of(one: Running) -> str:
    listed = await one.admin.ListServices(admin.ListServicesRequest(), metadata=bearer(one.admin_token))
    return next(service.id for service in listed.services if service.name == "bridge")
