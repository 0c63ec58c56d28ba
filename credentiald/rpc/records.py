"""RecordService: bridges report what became of their interceptions."""

from collections.abc import Sequence
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
from credentiald.rpc.record_codec import RecordInvalid, report_of
from credentiald.store import providers
from credentiald.store.times import to_micros

MAX_INTERCEPTIONS = 1000


class Records(RecordServiceServicer):
    """Takes reports: what a receipt of ours stands behind is stored, the rest is rejected for good."""

    def __init__(self, plane: Plane, metrics: Metrics, book: RecordBook, rules: KeepRules) -> None:
        self._plane = plane
        self._metrics = metrics
        self._book = book
        self._rules = rules
        # Name and type by id, for receipts, which have the id.
        self._providers: dict[str, tuple[str, str]] = {
            one.provider.id: (one.provider.name, one.provider.type) for one in plane.environment.values()
        }

    async def AppendRecords(self, request: pb.AppendRecordsRequest, context: Any) -> pb.AppendRecordsResponse:
        if len(request.interceptions) > MAX_INTERCEPTIONS:
            raise InvalidArgument(field="interceptions", problem=f"at most {MAX_INTERCEPTIONS} in one message")
        self._book.seen(request.bridge_instance_id, to_micros(self._plane.clock()))
        judged = await self._judged(request)
        sound = [(place, one) for place, one in enumerate(judged) if isinstance(one, Report)]
        rejected = {place: one for place, one in enumerate(judged) if isinstance(one, Rejection)}
        if sound:
            taken = await self._book.append([report for _, report in sound])
            rejected.update((sound[place][0], Rejection.INTERCEPTION_TAKEN) for place in taken)
        for rejection in rejected.values():
            self._metrics.records.rejected(rejection.value)
        return pb.AppendRecordsResponse(
            rejected=[
                pb.RejectedRecords(index=place, rejection=pb.RecordRejection.Value(f"RECORD_REJECTION_{one.value}"))
                for place, one in sorted(rejected.items())
            ]
        )

    async def _judged(self, request: pb.AppendRecordsRequest) -> list[Report | Rejection]:
        read_receipt = receipts.reader(self._plane.receipt_key)
        read = [read_receipt(one.receipt) for one in request.interceptions]
        await self._learn_providers([one.provider_id for one in read if one is not None])
        return [
            self._report(message, receipt, request.bridge_instance_id)
            for message, receipt in zip(request.interceptions, read, strict=True)
        ]

    def _report(
        self, message: pb.InterceptionRecords, receipt: receipts.Receipt | None, bridge_instance_id: str
    ) -> Report | Rejection:
        caller = current_caller()
        if receipt is None or not receipt.interception_id:
            return Rejection.RECEIPT_INVALID
        if caller.service is None or receipt.service_id != caller.service.id:
            return Rejection.RECEIPT_OF_ANOTHER_SERVICE
        # A provider may have been deleted since.
        name, type_name = self._providers.get(receipt.provider_id, ("", ""))
        try:
            return report_of(
                message,
                receipt,
                provider_name=name,
                provider_type=type_name,
                bridge_instance_id=bridge_instance_id,
                rules=self._rules,
            )
        except RecordInvalid:
            return Rejection.RECORD_INVALID

    async def _learn_providers(self, provider_ids: Sequence[str]) -> None:
        if not self._providers.keys() >= set(provider_ids):
            self._providers |= await self._plane.db.read(providers.names)
