"""Single calls to one credentiald: a question by itself, and whether it would answer.

The public way of the contract. Here it is for servers that have no stream, for a question whose batch was lost or
whose credential has to be fetched first, and for the ping.
"""

from typing import TYPE_CHECKING

import grpc
import grpc.aio
from drawbridge.v1 import credential_service_pb2 as pb

from bridged.model import Refused, Resolution
from bridged.resolver_messages import refused_from, resolution_of

if TYPE_CHECKING:  # the asynchronous stub exists only for the type checker
    from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceAsyncStub

PING_TIMEOUT_SECONDS = 1.0

Metadata = tuple[tuple[str, str], ...]


async def ask(
    stub: "CredentialServiceAsyncStub",
    request: pb.ResolveProviderRequest,
    *,
    timeout_seconds: float,
    metadata: Metadata,
) -> Resolution | Refused:
    """The answer to one question, whatever becomes of it."""
    try:
        answer = await stub.ResolveProvider(request, timeout=timeout_seconds, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return refused_from(error)
    return resolution_of(answer)


async def ping(stub: "CredentialServiceAsyncStub", *, metadata: Metadata) -> pb.PingResponse | Refused:
    """Whether this credentiald would answer this bridge, and which database it has."""
    try:
        return await stub.Ping(pb.PingRequest(), timeout=PING_TIMEOUT_SECONDS, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return refused_from(error)
