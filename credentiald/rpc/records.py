"""RecordService: bridges report what became of their interceptions."""

from typing import Any

from drawbridge.v1 import record_service_pb2 as pb
from drawbridge.v1.record_service_pb2_grpc import RecordServiceServicer

from credentiald import receipts
from credentiald.errors import InvalidArgument
from credentiald.metrics import Metrics
from credentiald.plane import Plane
from credentiald.record_book import RecordBook
from credentiald.record_rules import KeepRules
from credentiald.rpc.guard import current_caller
from credentiald.rpc.record_codec import Frame, instance_of
from credentiald.rpc.record_judging import ReportJudge
from credentiald.store.times import to_micros

MAX_INTERCEPTIONS = 1000


class Records(RecordServiceServicer):
    """Takes reports: what a receipt of ours stands behind is stored, the rest is rejected for good."""

    def __init__(self, plane: Plane, metrics: Metrics, book: RecordBook, rules: KeepRules) -> None:
        self._plane = plane
        self._metrics = metrics
        self._book = book
        self._rules = rules
        self._judge = ReportJudge(receipts.reader(plane.receipt_key, book.noted), book.noted)

    async def AppendRecords(self, request: pb.AppendRecordsRequest, context: Any) -> pb.AppendRecordsResponse:
        if len(request.interceptions) + len(request.usual.receipts) > MAX_INTERCEPTIONS:
            raise InvalidArgument(field="interceptions", problem=f"at most {MAX_INTERCEPTIONS} in one message")
        service_id, now_micros = _service_id(), to_micros(self._plane.clock())
        self._book.heard(instance_of(service_id, request.bridge_instance_id), now_micros)
        frame = Frame(request.bridge_instance_id, self._rules, now_micros)
        judged = await self._judge.judge(request, service_id, frame)
        rejected = judged.rejected
        if judged.reports or judged.matched:
            refused = await self._book.append(judged.reports, judged.matched, size_bytes=judged.size_bytes)
            places = judged.places + judged.matched_places
            rejected.update((places[place], rejection) for place, rejection in refused.items())
        for rejection in rejected.values():
            self._metrics.records.rejected(rejection.value)
        return pb.AppendRecordsResponse(
            rejected=[
                pb.RejectedRecords(index=place, rejection=pb.RecordRejection.Value(f"RECORD_REJECTION_{one.value}"))
                for place, one in sorted(rejected.items())
            ]
        )


def _service_id() -> str:
    """Of the bridge that calls: services alone may."""
    service = current_caller().service
    return service.id if service else ""
