"""CredentialService: what bridges and internal services ask."""

from typing import Any

from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceServicer

from credentiald.audit_book import AuditBook
from credentiald.breaker_book import BreakerBook
from credentiald.metrics import Metrics
from credentiald.model import Role
from credentiald.outcome_book import OutcomeBook
from credentiald.plane import Plane
from credentiald.record_book import RecordBook
from credentiald.resolve import resolve
from credentiald.rpc import codec, health_codec, outcome_codec
from credentiald.rpc.answered import noted_one, openings
from credentiald.rpc.guard import current_caller, seconds_to_wait
from credentiald.rpc.record_codec import instance_of
from credentiald.rpc.resolve_stream import ResolveStreams
from credentiald.rpc.watch_streams import WatchStreams
from credentiald.store import revision
from credentiald.store.times import to_micros
from daemonkit.version import version


class Credentials(CredentialServiceServicer):
    """Answers ResolveProvider, one question or a stream of them, ReportOutcome, WatchProviders and Ping."""

    def __init__(
        self,
        plane: Plane,
        metrics: Metrics,
        streams: ResolveStreams,
        watch: WatchStreams,
        book: RecordBook,
        outcomes: OutcomeBook,
        breakers: BreakerBook,
        audit: AuditBook | None = None,
    ) -> None:
        self._plane = plane
        self._metrics = metrics
        self._book = book
        self._streams = streams
        self._outcomes = outcomes
        self._breakers = breakers
        self._watch = watch
        self._audit = audit

    async def ResolveProvider(self, request: pb.ResolveProviderRequest, context: Any) -> pb.ResolveProviderResponse:
        question = codec.question(request)
        caller = current_caller()
        if caller.service is not None:
            await self._watch.heard_of((caller.service.id, request.bridge_instance_id))
        answer = await resolve(self._plane, caller, question, wait_seconds=seconds_to_wait())
        noted = noted_one(request, question, answer, caller)
        if self._audit is not None:
            if self._audit.is_strict:
                await self._audit.release(noted)
            else:
                self._audit.released(noted)
        self._metrics.resolved(answer.source.value)
        self._book.note(openings(noted))
        return codec.answer(answer)

    # The generated type knows generators only; this reads and writes by the context.
    async def ResolveProviderStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._streams.serve(context)

    async def ReportOutcome(self, request: pb.ReportOutcomeRequest, context: Any) -> pb.ReportOutcomeResponse:
        service = current_caller().service
        told = outcome_codec.told(request)
        instance = instance_of(service.id if service else "", request.bridge_instance_id)
        return pb.ReportOutcomeResponse(ignored=await self._outcomes.tell(instance, told))

    async def WatchProviders(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._watch.serve(context)

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        caller = current_caller()
        if caller.role is Role.BRIDGE and caller.service is not None and request.bridge_instance_id:
            instance = instance_of(caller.service.id, request.bridge_instance_id)
            mark = codec.uuid_of(request.oldest_interception_id, field="oldest_interception_id")
            self._book.heard(instance, to_micros(self._plane.clock()))
            self._book.instances.told(instance, mark)
            await self._watch.heard_of(instance)
            if instance in self._book.instances:
                await self._breakers.tell(instance, map(health_codec.breaker, request.breakers))
        seen = await self._plane.db.read(revision.current)
        return pb.PingResponse(version=version(), revision=seen, database_id=self._plane.db.database_id)
