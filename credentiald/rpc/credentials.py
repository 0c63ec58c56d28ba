"""CredentialService: what bridges and internal services ask."""

from typing import Any

from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceServicer

from credentiald import receipts
from credentiald.metrics import Metrics
from credentiald.model import Role
from credentiald.plane import Plane
from credentiald.record_book import RecordBook
from credentiald.resolve import resolve
from credentiald.rpc import codec
from credentiald.rpc.guard import current_caller, seconds_to_wait
from credentiald.rpc.resolve_stream import ResolveStreams, decided_of
from credentiald.store import revision
from credentiald.store.times import to_micros
from daemonkit.version import version


class Credentials(CredentialServiceServicer):
    """Answers ResolveProvider, one question or a stream of them, and Ping."""

    def __init__(self, plane: Plane, metrics: Metrics, streams: ResolveStreams, book: RecordBook) -> None:
        self._plane = plane
        self._metrics = metrics
        self._book = book
        self._streams = streams

    async def ResolveProvider(self, request: pb.ResolveProviderRequest, context: Any) -> pb.ResolveProviderResponse:
        question = codec.question(request)
        caller = current_caller()
        answer = await resolve(self._plane, caller, question, wait_seconds=seconds_to_wait())
        self._metrics.resolved(answer.source.value)
        receipt = receipts.read(self._plane.receipt_key, answer.receipt)
        if caller.role is Role.BRIDGE and question.interception_id and receipt is not None:
            self._book.note(
                [
                    (
                        question.interception_id.encode(),
                        answer.resolution_id.encode(),
                        decided_of(answer, question.operation, caller),
                        question.model,
                        request.client,
                        request.bridge_instance_id,
                        receipt.resolve_time_micros,
                    )
                ]
            )
        return codec.answer(answer)

    # The generated type knows generators only; this reads and writes by the context.
    async def ResolveProviderStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._streams.serve(context)

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        if current_caller().role is Role.BRIDGE:
            self._book.seen(request.bridge_instance_id, to_micros(self._plane.clock()))
        seen = await self._plane.db.read(revision.current)
        return pb.PingResponse(version=version(), revision=seen, database_id=self._plane.db.database_id)
