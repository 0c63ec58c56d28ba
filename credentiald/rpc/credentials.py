"""CredentialService: what bridges and internal services ask."""

from typing import Any

from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceServicer

from credentiald.metrics import Metrics
from credentiald.plane import Plane
from credentiald.resolve import resolve
from credentiald.rpc import codec
from credentiald.rpc.guard import current_caller, seconds_to_wait
from credentiald.rpc.resolve_stream import ResolveStreams
from credentiald.store import revision
from daemonkit.version import version


class Credentials(CredentialServiceServicer):
    """Answers ResolveProvider, one question or a stream of them, and Ping."""

    def __init__(self, plane: Plane, metrics: Metrics, streams: ResolveStreams) -> None:
        self._plane = plane
        self._metrics = metrics
        self._streams = streams

    async def ResolveProvider(self, request: pb.ResolveProviderRequest, context: Any) -> pb.ResolveProviderResponse:
        question = codec.question(request)
        answer = await resolve(self._plane, current_caller(), question, wait_seconds=seconds_to_wait())
        self._metrics.resolved(answer.source.value)
        return codec.answer(answer)

    # The generated type knows generators only; this reads and writes by the context.
    async def ResolveProviderStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._streams.serve(context)

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        seen = await self._plane.db.read(revision.current)
        return pb.PingResponse(version=version(), revision=seen, database_id=self._plane.db.database_id)
