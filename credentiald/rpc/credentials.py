"""CredentialService: what bridges and internal services ask."""

from typing import Any

from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceServicer

from credentiald.metrics import Metrics
from credentiald.model import Role
from credentiald.plane import Plane
from credentiald.record_book import RecordBook
from credentiald.resolve import resolve
from credentiald.rpc import codec
from credentiald.rpc.guard import current_caller, seconds_to_wait
from credentiald.rpc.record_codec import instance_of
from credentiald.rpc.resolve_stream import ResolveStreams, noted_one
from credentiald.rpc.watch_streams import WatchStreams
from credentiald.store import revision
from credentiald.store.times import to_micros
from daemonkit.version import version


class Credentials(CredentialServiceServicer):
    """Answers ResolveProvider, one question or a stream of them, WatchProviders and Ping."""

    def __init__(
        self, plane: Plane, metrics: Metrics, streams: ResolveStreams, watch: WatchStreams, book: RecordBook
    ) -> None:
        self._plane = plane
        self._metrics = metrics
        self._book = book
        self._streams = streams
        self._watch = watch

    async def ResolveProvider(self, request: pb.ResolveProviderRequest, context: Any) -> pb.ResolveProviderResponse:
        question = codec.question(request)
        caller = current_caller()
        answer = await resolve(self._plane, caller, question, wait_seconds=seconds_to_wait())
        self._metrics.resolved(answer.source.value)
        self._book.note(noted_one(request, question, answer, caller))
        return codec.answer(answer)

    # The generated type knows generators only; this reads and writes by the context.
    async def ResolveProviderStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._streams.serve(context)

    async def WatchProviders(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._watch.serve(context)

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        caller = current_caller()
        if caller.role is Role.BRIDGE and caller.service is not None and request.bridge_instance_id:
            instance = instance_of(caller.service.id, request.bridge_instance_id)
            mark = codec.uuid_of(request.oldest_interception_id, field="oldest_interception_id")
            self._book.heard(instance, to_micros(self._plane.clock()))
            self._book.instances.told(instance, mark)
        seen = await self._plane.db.read(revision.current)
        return pb.PingResponse(version=version(), revision=seen, database_id=self._plane.db.database_id)
