"""The one place where a refusal becomes a gRPC status, or an item of a batch that says the same.

Exactly one google.rpc.ErrorInfo (domain "drawbridge"), a google.rpc.RetryInfo where waiting helps. Anything that is
not a refusal becomes a bare INTERNAL, so that internals do not leak.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
from drawbridge.v1 import credential_service_pb2 as pb
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from credentiald.errors import KeyPoolExhausted, Refusal, TooManyRefusedActs

DOMAIN = "drawbridge"


def details_of(refusal: Refusal) -> list[Message]:
    """ErrorInfo, and RetryInfo where the wait is known."""
    info = error_details_pb2.ErrorInfo(reason=refusal.reason(), domain=DOMAIN, metadata=refusal.facts)
    wait = _wait(refusal)
    return [info] if wait is None else [info, error_details_pb2.RetryInfo(retry_delay=wait)]


def item_of(refusal: Refusal) -> pb.ResolveRefusal:
    """The refusal of one question of a batch."""
    return pb.ResolveRefusal(
        code=refusal.code.value,
        message=str(refusal),
        reason=refusal.reason(),
        domain=DOMAIN,
        metadata=refusal.facts,
        retry_delay=_wait(refusal),
    )


def _wait(refusal: Refusal) -> duration_pb2.Duration | None:
    if not isinstance(refusal, KeyPoolExhausted | TooManyRefusedActs):
        return None
    return duration_pb2.Duration(seconds=int(refusal.facts["retry_after_seconds"]))


def _packed(details: Sequence[Message]) -> list[any_pb2.Any]:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return packed


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", refusal: Refusal) -> NoReturn:
    """End the rpc with the status of this refusal."""
    status = rpc_status.to_status(
        status_pb2.Status(code=refusal.code.value, message=str(refusal), details=_packed(details_of(refusal)))
    )
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError("abort does not return")
