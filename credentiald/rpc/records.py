"""RecordService: bridges report what became of their interceptions."""

import asyncio
from typing import Any

from drawbridge.v1 import record_service_pb2 as pb
from drawbridge.v1.record_service_pb2_grpc import RecordServiceServicer

from credentiald import receipts
from credentiald.errors import InvalidArgument
from credentiald.metrics import Metrics
from credentiald.plane import Plane
from credentiald.record_book import RecordBook
from credentiald.record_model import Rejection, Report
from credentiald.record_rules import KeepRules
from credentiald.rpc.guard import current_caller
from credentiald.rpc.record_codec import instance_of, report_of
from credentiald.store.times import to_micros

MAX_INTERCEPTIONS = 1000
# After how many records those who ask get their turn.
_RECORDS_AT_ONCE = 500


class Records(RecordServiceServicer):
    """Takes reports: what a receipt of ours stands behind is stored, the rest is rejected for good."""

    def __init__(self, plane: Plane, metrics: Metrics, book: RecordBook, rules: KeepRules) -> None:
        self._plane = plane
        self._metrics = metrics
        self._book = book
        self._rules = rules
        self._read_receipt = receipts.reader(plane.receipt_key)

    async def AppendRecords(self, request: pb.AppendRecordsRequest, context: Any) -> pb.AppendRecordsResponse:
        if len(request.interceptions) > MAX_INTERCEPTIONS:
            raise InvalidArgument(field="interceptions", problem=f"at most {MAX_INTERCEPTIONS} in one message")
        instance = instance_of(_service_id(), request.bridge_instance_id)
        self._book.heard(instance, to_micros(self._plane.clock()))
        judged = await self._judged(request)
        rejected = {place: one for place, one in enumerate(judged) if isinstance(one, Rejection)}
        sound = [(place, one) for place, one in enumerate(judged) if isinstance(one, Report)]
        rejected.update((place, Rejection.RECORD_INVALID) for place, one in sound if not one.is_whole)
        if sound:
            refused = await self._book.append([one for _, one in sound], size_bytes=request.ByteSize())
            rejected.update((sound[place][0], rejection) for place, rejection in refused.items())
        for rejection in rejected.values():
            self._metrics.records.rejected(rejection.value)
        return pb.AppendRecordsResponse(
            rejected=[
                pb.RejectedRecords(index=place, rejection=pb.RecordRejection.Value(f"RECORD_REJECTION_{one.value}"))
                for place, one in sorted(rejected.items())
            ]
        )

    async def _judged(self, request: pb.AppendRecordsRequest) -> list[Report | Rejection]:
        """A report of each message, or why there is none."""
        service_id, bridge_instance_id = _service_id(), request.bridge_instance_id
        now_micros, rules = to_micros(self._plane.clock()), self._rules
        judged: list[Report | Rejection] = []
        records = 0
        for message in request.interceptions:
            receipt = self._read_receipt(message.receipt)
            if receipt is None or not receipt.interception_id:
                judged.append(Rejection.RECEIPT_INVALID)
            elif receipt.origin.service_id != service_id:
                judged.append(Rejection.RECEIPT_OF_ANOTHER_SERVICE)
            else:
                report = report_of(
                    message, receipt, bridge_instance_id=bridge_instance_id, rules=rules, now_micros=now_micros
                )
                judged.append(report)
                records += 1 + len(report.token_usages) + len(report.prompts)
                records += len(report.tool_calls) + len(report.model_thoughts)
            if records >= _RECORDS_AT_ONCE:
                records = 0
                await asyncio.sleep(0)
        return judged


def _service_id() -> str:
    """Of the bridge that calls: services alone may."""
    service = current_caller().service
    return service.id if service else ""
