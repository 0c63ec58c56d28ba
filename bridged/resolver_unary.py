"""Single calls to one credentiald: a question by itself, reports, and whether it would answer.

The public way of the contract. Here it is for servers that have no stream, for a question whose batch was lost or
whose credential has to be fetched first, and for the ping.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import record_service_pb2 as record_pb

from bridged.key_outcomes import ToldOutcome
from bridged.model import Refused, Resolution
from bridged.resolver_messages import outcomes_message, refused_from, resolution_of, unreachable

if TYPE_CHECKING:  # the asynchronous stub exists only for the type checker
    from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceAsyncStub

PING_TIMEOUT_SECONDS = 1.0
# A store may wait for a slow disk. What is sent again because of this is stored once.
APPEND_TIMEOUT_SECONDS = 10.0
OUTCOME_TIMEOUT_SECONDS = 2.0
# What credentiald reads at most (credentiald/rpc/server.py).
_MOST_BYTES = 4 * 1024 * 1024
# In the words of gRPC for C and Go, and for Java.
_TOO_LARGE = re.compile("message larger than max|message exceeds maximum size", re.IGNORECASE)
# What a bug is answered with: by the daemon itself, or by gRPC in its place.
_FAILED = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})

Metadata = tuple[tuple[str, str], ...]
# A multi-callable of gRPC that takes reports as bytes.
AppendCall = Callable[..., Any]


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
    return resolution_of(answer) if answer is not None else unreadable()


async def append(append_call: AppendCall, request: bytes, *, metadata: Metadata) -> Sequence[tuple[int, str]] | Refused:
    """Have reports stored; the places of those that never will be, with why."""
    try:
        answer = await append_call(request, timeout=APPEND_TIMEOUT_SECONDS, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _is_about_size(error, len(request)):
            return Refused("RESOURCE_EXHAUSTED", "credentiald does not take a report of this size")
        if error.code() in _FAILED:
            # Perhaps at something that is in this report.
            return Refused("INTERNAL", "credentiald failed at a report")
        return refused_from(error)
    if answer is None:
        return unreadable()
    return [(one.index, _name_of(one.rejection)) for one in answer.rejected]


def _is_about_size(error: grpc.aio.AioRpcError, size_bytes: int) -> bool:
    """Whether a message was too large: proxies and gRPC have the same code for limits that are over in a while."""
    return size_bytes > _MOST_BYTES or _TOO_LARGE.search(error.details() or "") is not None


async def report_outcomes(
    stub: "CredentialServiceAsyncStub",
    bridge_instance_id: str,
    outcomes: Sequence[ToldOutcome],
    *,
    metadata: Metadata,
) -> int | Refused:
    """Tell what became of keys; how many are not acted on, or why they were not taken."""
    request = outcomes_message(bridge_instance_id, outcomes)
    try:
        answer = await stub.ReportOutcome(request, timeout=OUTCOME_TIMEOUT_SECONDS, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return Refused("UNIMPLEMENTED", "this credentiald is of before there were outcomes")
        return refused_from(error)
    return answer.ignored if answer is not None else unreadable()


def _name_of(rejection: int) -> str:
    """Why a report will never be stored; the number, where a newer credentiald has a reason that is not known here."""
    known = record_pb.RecordRejection.DESCRIPTOR.values_by_number.get(rejection)
    return str(rejection) if known is None else known.name.removeprefix("RECORD_REJECTION_")


async def ping(
    stub: "CredentialServiceAsyncStub", request: pb.PingRequest, *, metadata: Metadata
) -> pb.PingResponse | Refused:
    """Whether this credentiald would answer this bridge, and which database it has."""
    try:
        answer = await stub.Ping(request, timeout=PING_TIMEOUT_SECONDS, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return refused_from(error)
    return answer if answer is not None else unreadable()


def unreadable() -> Refused:
    """What gRPC gives as None: the answer's bytes are no message of the contract, as gRPC says in the log."""
    return unreachable("an answer that cannot be read")
