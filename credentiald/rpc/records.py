"""RecordService: bridges report what became of their interceptions."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
from credentiald.usual_report import Matched, Told

MAX_INTERCEPTIONS = 1000
# After how many records those who ask get their turn.
_RECORDS_AT_ONCE = 500
_ROWS_AT_ONCE = 500
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
        judged = _Judged()
        await self._judge(request.interceptions, self._frame(request), judged)
        await self._judge_columns(request, judged)
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

    def _frame(self, request: pb.AppendRecordsRequest) -> Frame:
        return Frame(request.bridge_instance_id, self._rules, to_micros(self._plane.clock()))

    async def _judge(self, messages: Sequence[pb.InterceptionRecords], frame: Frame, judged: "_Judged") -> None:
        """A report of each message that makes one, and why one makes none or was not taken whole."""
        service_id = _service_id()
        read_receipt, report_of = self._read_receipt, self._reader.report_of
        records = 0
        for place, message in enumerate(messages):
            receipt = read_receipt(message.receipt)
            if receipt is None or not receipt.interception_id:
                judged.rejected[place] = Rejection.RECEIPT_INVALID
            elif receipt.origin.service_id != service_id:
                judged.rejected[place] = Rejection.RECEIPT_OF_ANOTHER_SERVICE
            else:
                report = report_of(message, receipt, frame)
                judged.reports.append(report)
                judged.places.append(place)
                count, size_bytes = _weight(report)
                if not report.is_whole:
                    judged.rejected[place] = Rejection.RECORD_INVALID
                    # What was left out took its time as well, however much that was.
                    count = _RECORDS_AT_ONCE
                records += count
                judged.size_bytes += size_bytes
            if records >= _RECORDS_AT_ONCE:
                records = 0
                await asyncio.sleep(0)

    async def _judge_columns(self, request: pb.AppendRecordsRequest, judged: "_Judged") -> None:
        """The same of each row of the columns, whose places are behind those of the messages."""
        service_id, frame = _service_id(), self._frame(request)
        columns = columns_of(request.usual)
        rows, first = len(columns.receipts), len(request.interceptions)
        for start in range(0, rows, _ROWS_AT_ONCE):
            told = self._columns.read(columns.part(start, start + _ROWS_AT_ONCE), service_id, frame)
            places: Sequence[int] = range(first + start, first + start + len(told))
            if isinstance(told, Matched):
                judged.matched.append(told)
                judged.matched_places += places
            else:
                judged.rejected.update(_rejections(told, places))
                sound = [
                    (one, place) for one, place in zip(told, places, strict=True) if not isinstance(one, Rejection)
                ]
                judged.reports += [one for one, _ in sound]
                judged.places += [place for _, place in sound]
            await asyncio.sleep(0)
        judged.size_bytes += rows * _ROW_BYTES + sum(map(len, columns.prompts))


@dataclass(slots=True)
class _Judged:
    """What a call brings: reports and those that are matched, with their places, and why others are rejected or were
    not taken whole; with about how many bytes they have."""

    reports: list[Told] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    matched: list[Matched] = field(default_factory=list)
    matched_places: list[int] = field(default_factory=list)
    rejected: dict[int, Rejection] = field(default_factory=dict)
    size_bytes: int = 0


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
