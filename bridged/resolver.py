"""Asks credentiald, for every request, and turns a gRPC status back into a refusal.

The only module of this side that knows the contract's messages. They carry tokens and keys, so none is ever printed;
an error says its code and reason, nothing else.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceStub
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from bridged.model import (
    ApiKey,
    AwsKeys,
    Bearer,
    BedrockOptions,
    Credential,
    Refused,
    Resolution,
    Source,
)
from bridged.readiness import Readiness
from daemonkit.secret import Secret

if TYPE_CHECKING:  # the asynchronous stub exists only for the type checker
    from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceAsyncStub

log = logging.getLogger(__name__)

PING_INTERVAL_SECONDS = 1.0
PING_TIMEOUT_SECONDS = 1.0
_DOMAIN = "drawbridge"
_UNREACHABLE = "CREDENTIALD_UNREACHABLE"
# What a ping can be told about this bridge itself, which no waiting mends.
_ABOUT_THIS_BRIDGE = frozenset(
    {"SERVICE_TOKEN_MISSING", "SERVICE_TOKEN_INVALID", "SERVICE_TOKEN_EXPIRED", "CALLER_NOT_ALLOWED"}
)
# Healed within 2 s of credentiald's return: gRPC's own back-off would wait up to 120 s, and would give an attempt to
# connect 20 s, which a stopped process, whose kernel still accepts, uses up. The keepalive finds peers that vanished
# without a word; the pings' answers keep the server from taking it amiss.
_CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3000),
]
_SOURCES = {
    provider_pb2.CREDENTIAL_SOURCE_USER_KEY: Source.USER_KEY,
    provider_pb2.CREDENTIAL_SOURCE_CENTRAL_KEY: Source.CENTRAL_KEY,
    provider_pb2.CREDENTIAL_SOURCE_AMBIENT: Source.AMBIENT,
    provider_pb2.CREDENTIAL_SOURCE_PRESENTED_KEY: Source.PRESENTED_KEY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the bridge asks for one request. The user's own key is only mentioned, never sent."""

    provider: str
    access_token: Secret
    operation: str
    model: str
    presented_key: bool
    interception_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """PEM bytes for the channel: whom to trust (None: the system's trust store), and who we are, for mutual TLS."""

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None


class Resolver:
    """One channel to credentiald. Keeps no answer; remembers only the highest revision it has seen."""

    def __init__(
        self, channel: grpc.aio.Channel, *, token: Secret | None, timeout_seconds: float, readiness: Readiness
    ) -> None:
        self._stub: CredentialServiceAsyncStub = CredentialServiceStub(channel)
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._readiness = readiness
        self._bridge_instance_id = str(uuid.uuid4())
        self._revision = 0
        self._database_id = ""

    async def resolve(self, question: Question) -> Resolution:
        """credentiald's answer; Refused, with CREDENTIALD_UNREACHABLE where there is none in time."""
        request = pb.ResolveProviderRequest(
            provider=question.provider,
            access_token=question.access_token.reveal(),
            operation=question.operation,
            model=question.model,
            presented_key=question.presented_key,
            interception_id=question.interception_id,
            bridge_instance_id=self._bridge_instance_id,
            min_revision=self._revision,
        )
        try:
            answer = await self._stub.ResolveProvider(request, timeout=self._timeout_seconds, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            raise refused_from(error) from None
        self._revision = max(self._revision, answer.revision)
        return _resolution(answer)

    async def keep_pinging(self) -> None:
        """Ask once a second whether credentiald would answer, and keep `readiness` by it."""
        state = ""
        while True:
            began = _now()
            news = await self._ping()
            if news != state:
                _log_change(news)
                state = news
            await asyncio.sleep(max(0.0, began + PING_INTERVAL_SECONDS - _now()))

    async def _ping(self) -> str:
        """`OK`, or the reason why credentiald did not say so."""
        try:
            answer = await self._stub.Ping(pb.PingRequest(), timeout=PING_TIMEOUT_SECONDS, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            reason = refused_from(error).reason
            if reason != _UNREACHABLE:
                self._readiness.refused(reason)
            return reason
        if answer.database_id != self._database_id:
            # Revisions of two databases cannot be compared (PingResponse.database_id).
            self._database_id = answer.database_id
            self._revision = 0
        self._readiness.answered(_now())
        return "OK"

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self._token is None else (("authorization", f"Bearer {self._token.reveal()}"),)


@asynccontextmanager
async def running_resolver(
    target: str,
    *,
    token: Secret | None,
    timeout_seconds: float,
    readiness: Readiness,
    tls: ClientTls | None = None,
) -> AsyncIterator[Resolver]:
    """A resolver that pings for the length of the block. `target` is any gRPC target; `tls` None is plaintext."""
    async with _channel(target, tls) as channel:
        resolver = Resolver(channel, token=token, timeout_seconds=timeout_seconds, readiness=readiness)
        pinging = asyncio.create_task(resolver.keep_pinging(), name="ping credentiald")
        try:
            yield resolver
        finally:
            pinging.cancel()
            await asyncio.wait([pinging])


def _channel(target: str, tls: ClientTls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
    return grpc.aio.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)


def refused_from(error: grpc.aio.AioRpcError) -> Refused:
    """The refusal that a status stands for: its ErrorInfo, or CREDENTIALD_UNREACHABLE where it has none of ours.

    A status without ErrorInfo comes from the transport, a proxy or a bug, so it is trouble, whatever its code says.
    """
    info, retry_after_seconds = _details(error)
    if info is None:
        return Refused(
            _UNREACHABLE,
            f"the bridge got no answer from credentiald in time ({error.code().name}): try again; "
            "the operator finds more in both logs",
        )
    return Refused(
        info.reason,
        error.details() or info.reason,
        retry_after_seconds=retry_after_seconds,
        grpc_code=error.code().value[0],
    )


def _details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo | None, int | None]:
    """Our ErrorInfo, and the wait that a RetryInfo asks for, in whole seconds."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:  # code or text of the detailed status differ from the plain ones
        return None, None
    info: error_details_pb2.ErrorInfo | None = None
    retry_after_seconds: int | None = None
    for packed in status.details if status is not None else ():
        found = error_details_pb2.ErrorInfo()
        if packed.Unpack(found) and found.domain == _DOMAIN and found.reason:
            info = found
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(retry):
            retry_after_seconds = _whole_seconds(retry.retry_delay)
    return info, retry_after_seconds


def _whole_seconds(duration: Duration) -> int:
    return max(1, int(duration.seconds) + (1 if duration.nanos > 0 else 0))


def _resolution(answer: pb.ResolveProviderResponse) -> Resolution:
    provider = answer.provider
    source = _SOURCES.get(answer.source)
    if source is None:
        raise Refused(
            _UNREACHABLE, "credentiald named a credential source that this bridge does not know: upgrade the bridge"
        )
    return Resolution(
        provider_id=provider.id,
        provider_name=provider.name,
        provider_type=provider.type,
        wire_type=provider.wire_type,
        base_url=provider.base_url,
        user_id=answer.user.id,
        username=answer.user.username,
        source=source,
        credential=_credential(answer.credential) if answer.HasField("credential") else None,
        credential_id=answer.credential.credential_id,
        resolution_id=answer.resolution_id,
        upstream_model=answer.upstream_model,
        send_actor_headers=provider.send_actor_headers,
        bedrock=BedrockOptions(region=provider.bedrock.region) if provider.HasField("bedrock") else None,
        receipt=answer.receipt,
        revision=answer.revision,
    )


def _credential(credential: pb.Credential) -> Credential | None:
    kind = credential.WhichOneof("material")
    if kind == "api_key":
        return ApiKey(value=Secret(credential.api_key.value))
    if kind == "bearer_token":
        return Bearer(value=Secret(credential.bearer_token.value))
    if kind == "aws_credentials":
        keys = credential.aws_credentials
        return AwsKeys(
            access_key_id=Secret(keys.access_key_id),
            secret_access_key=Secret(keys.secret_access_key),
            session_token=Secret(keys.session_token) if keys.session_token else None,
        )
    return None


def _log_change(state: str) -> None:
    """One line for each change, not for each ping."""
    facts: dict[str, Any] = {"state": state}
    if state == "OK":
        log.info("credentiald answers", extra=facts)
    elif state in _ABOUT_THIS_BRIDGE:
        log.error("credentiald refused this bridge: check its service token", extra=facts)
    else:
        log.warning("credentiald does not answer: requests get 503 until it does", extra=facts)


def _now() -> float:
    return asyncio.get_running_loop().time()
