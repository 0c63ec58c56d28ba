"""RecordService: bridges report what became of their interceptions."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
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
from credentiald.rpc.record_codec import Frame, ReportReader, instance_of
from credentiald.rpc.record_columns import ColumnsReader, columns_of
from credentiald.store.times import to_micros
from credentiald.usual_report import Told

MAX_INTERCEPTIONS = 1000
# After how many records those who ask get their turn.
_RECORDS_AT_ONCE = 500
_ROWS_AT_ONCE = 250
# Of a record without its content, about; and of a row of columns, which has three.
_RECORD_BYTES = 500
_ROW_BYTES = 3 * _RECORD_BYTES


class Records(RecordServiceServicer):
    """Takes reports: what a receipt of ours stands behind is stored, the rest is rejected for good."""

    def __init__(self, plane: Plane, metrics: Metrics, book: RecordBook, rules: KeepRules) -> None:
        self._plane = plane
        self._metrics = metrics
        self._book = book
        self._rules = rules
        self._read_receipt = receipts.reader(plane.receipt_key, book.noted)
        self._reader = ReportReader(self._read_receipt)
        self._columns = ColumnsReader(self._read_receipt, book.noted)

    async def AppendRecords(self, request: pb.AppendRecordsRequest, context: Any) -> pb.AppendRecordsResponse:
        if len(request.interceptions) + len(request.usual.receipts) > MAX_INTERCEPTIONS:
            raise InvalidArgument(field="interceptions", problem=f"at most {MAX_INTERCEPTIONS} in one message")
        instance = instance_of(_service_id(), request.bridge_instance_id)
        self._book.heard(instance, to_micros(self._plane.clock()))
        sound, places, rejected, size_bytes = await self._judged(request)
        if sound:
            refused = await self._book.append(sound, size_bytes=size_bytes)
            rejected.update((places[place], rejection) for place, rejection in refused.items())
        for rejection in rejected.values():
            self._metrics.records.rejected(rejection.value)
        return pb.AppendRecordsResponse(
            rejected=[
                pb.RejectedRecords(index=place, rejection=pb.RecordRejection.Value(f"RECORD_REJECTION_{one.value}"))
                for place, one in sorted(rejected.items())
            ]
        )

    async def _judged(
        self, request: pb.AppendRecordsRequest
    ) -> tuple[list[Told], list[int], dict[int, Rejection], int]:
        """A report of each message that makes one, their places, and why one makes none or was not taken whole.

        With about how many bytes the reports have.
        """
        service_id = _service_id()
        frame = Frame(request.bridge_instance_id, self._rules, to_micros(self._plane.clock()))
        read_receipt, report_of = self._read_receipt, self._reader.report_of
        sound: list[Told] = []
        places: list[int] = []
        rejected: dict[int, Rejection] = {}
        records = all_bytes = 0
        for place, message in enumerate(request.interceptions):
            receipt = read_receipt(message.receipt)
            if receipt is None or not receipt.interception_id:
                rejected[place] = Rejection.RECEIPT_INVALID
            elif receipt.origin.service_id != service_id:
                rejected[place] = Rejection.RECEIPT_OF_ANOTHER_SERVICE
            else:
                report = report_of(message, receipt, frame)
                sound.append(report)
                places.append(place)
                if not report.is_whole:
                    rejected[place] = Rejection.RECORD_INVALID
                count, size_bytes = _weight(report)
                records += count
                all_bytes += size_bytes
            if records >= _RECORDS_AT_ONCE:
                records = 0
                await asyncio.sleep(0)
        columns = columns_of(request.usual)
        rows, first = len(columns.receipts), len(request.interceptions)
        for start in range(0, rows, _ROWS_AT_ONCE):
            judged = self._columns.reports(columns.part(start, start + _ROWS_AT_ONCE), service_id, frame)
            numbers: Sequence[int] = range(first + start, first + start + len(judged))
            if set(map(type, judged)) != {tuple}:
                rejected.update(_rejections(judged, numbers))
                numbers = [place for place, one in zip(numbers, judged, strict=True) if not isinstance(one, Rejection)]
            sound += [one for one in judged if not isinstance(one, Rejection)]
            places += numbers
            await asyncio.sleep(0)
        all_bytes += rows * _ROW_BYTES + sum(map(len, columns.prompts))
        return sound, places, rejected, all_bytes


def _rejections(judged: Iterable[Told | Rejection], places: Iterable[int]) -> Iterator[tuple[int, Rejection]]:
    """By place, what was rejected of columns: a row, or a part of what it brings."""
    for one, place in zip(judged, places, strict=True):
        if isinstance(one, Rejection):
            yield place, one
        elif isinstance(one, Report) and not one.is_whole:
            yield place, Rejection.RECORD_INVALID


def _weight(report: Report) -> tuple[int, int]:
    """How many records it brings, and about how many bytes. Asking the message for its size would write it anew."""
    _, _, _, _, _, _, token_usages, prompts, tool_calls, thoughts, _, _, attempts = report
    records = 1 + len(token_usages) + len(prompts) + len(attempts)
    size_bytes = len(prompts[0].text) if prompts else 0
    # Of prompts there is one at most, unless a bridge of another make says otherwise.
    if tool_calls or thoughts or len(prompts) > 1:
        records += len(tool_calls) + len(thoughts)
        size_bytes = sum(len(one.text) for one in prompts) + sum(len(one.input) for one in tool_calls)
        size_bytes += sum(len(one.content) for one in thoughts)
    return records, size_bytes + records * _RECORD_BYTES


def _service_id() -> str:
    """Of the bridge that calls: services alone may."""
    service = current_caller().service
    return service.id if service else ""
