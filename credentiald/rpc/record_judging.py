"""What a call brings is judged report by report: a receipt of ours stands behind it, or it is rejected for good.

A bug that one report brings out must not be its neighbours' trouble: that one is rejected. Where none can be judged it
may be no fault of theirs: the call fails, and the bridge finds out by itself.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from drawbridge.v1 import record_service_pb2 as pb

from credentiald.errors import Refusal
from credentiald.receipts import Receipt
from credentiald.record_model import Noted, Rejection, Report
from credentiald.rpc.record_codec import Frame, ReportReader
from credentiald.rpc.record_columns import Columns, ColumnsReader, columns_of
from credentiald.usual_report import Matched, Told

log = logging.getLogger(__name__)

# After how many records those who ask get their turn.
_RECORDS_AT_ONCE = 500
_ROWS_AT_ONCE = 500
# Of a record without its content, about; and of a row of columns, which has three.
_RECORD_BYTES = 500
_ROW_BYTES = 3 * _RECORD_BYTES


@dataclass(slots=True)
class Judged:
    """What a call brings: reports and those that are matched, with their places, and why others are rejected or were
    not taken whole; with about how many bytes they have. `raised` is what the first raised that cannot be judged."""

    reports: list[Told] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    matched: list[Matched] = field(default_factory=list)
    matched_places: list[int] = field(default_factory=list)
    rejected: dict[int, Rejection] = field(default_factory=dict)
    size_bytes: int = 0
    raised: Exception | None = None

    def cannot_be_judged(self, place: int, error: Exception) -> None:
        """The report at this place raised."""
        if self.raised is None:
            # Where it is one, it may be thousands.
            log.error("a report cannot be judged", exc_info=error)
            self.raised = error
        self.rejected[place] = Rejection.RECORD_INVALID


class ReportJudge:
    """Judges what bridges report. `read_receipt` is a `receipts.reader` that knows what is `noted`."""

    def __init__(self, read_receipt: Callable[[bytes], Receipt | None], noted: Mapping[bytes, Noted]) -> None:
        self._read_receipt = read_receipt
        self._reader = ReportReader(read_receipt)
        self._columns = ColumnsReader(read_receipt, noted)

    async def judge(self, request: pb.AppendRecordsRequest, service_id: str, frame: Frame) -> Judged:
        """All that a call brings. INVALID_ARGUMENT, and what is raised where no report can be judged."""
        judged = Judged()
        await self._judge_messages(request.interceptions, service_id, frame, judged)
        await self._judge_columns(request, service_id, frame, judged)
        if judged.raised is not None and not (judged.reports or judged.matched):
            raise judged.raised
        return judged

    async def _judge_messages(
        self, messages: Sequence[pb.InterceptionRecords], service_id: str, frame: Frame, judged: Judged
    ) -> None:
        """A report of each message that makes one, and why one makes none or was not taken whole."""
        records = 0
        for place, message in enumerate(messages):
            try:
                records += self._judge_message(place, message, service_id, frame, judged)
            except Refusal:
                raise
            except Exception as error:
                judged.cannot_be_judged(place, error)
                records = _RECORDS_AT_ONCE
            if records >= _RECORDS_AT_ONCE:
                records = 0
                await asyncio.sleep(0)

    def _judge_message(
        self, place: int, message: pb.InterceptionRecords, service_id: str, frame: Frame, judged: Judged
    ) -> int:
        """How many records it took the time of."""
        receipt = self._read_receipt(message.receipt)
        if receipt is None or not receipt.interception_id:
            judged.rejected[place] = Rejection.RECEIPT_INVALID
            return 0
        if receipt.origin.service_id != service_id:
            judged.rejected[place] = Rejection.RECEIPT_OF_ANOTHER_SERVICE
            return 0
        report = self._reader.report_of(message, receipt, frame)
        records, size_bytes = _weight(report)
        judged.reports.append(report)
        judged.places.append(place)
        judged.size_bytes += size_bytes
        if report.is_whole:
            return records
        judged.rejected[place] = Rejection.RECORD_INVALID
        # What was left out took its time as well, however much that was.
        return _RECORDS_AT_ONCE

    async def _judge_columns(
        self, request: pb.AppendRecordsRequest, service_id: str, frame: Frame, judged: Judged
    ) -> None:
        """The same of each row of the columns, whose places are behind those of the messages."""
        columns = columns_of(request.usual)
        rows, first = len(columns.receipts), len(request.interceptions)
        for start in range(0, rows, _ROWS_AT_ONCE):
            for place, told in self._read(columns, start, min(start + _ROWS_AT_ONCE, rows), service_id, frame):
                if isinstance(told, Exception):
                    judged.cannot_be_judged(first + place, told)
                else:
                    _add_told(told, first + place, judged)
                await asyncio.sleep(0)
        judged.size_bytes += rows * _ROW_BYTES + sum(map(len, columns.prompts))

    def _read(
        self, columns: Columns, start: int, stop: int, service_id: str, frame: Frame
    ) -> Iterator[tuple[int, Matched | list[Told | Rejection] | Exception]]:
        """What these rows say, in as many parts as it takes to find those that raise; each with where it begins."""
        parts = [(start, stop)]
        while parts:
            start, stop = parts.pop()
            try:
                told = self._columns.read(columns.part(start, stop), service_id, frame)
            except Refusal:
                raise
            except Exception as error:
                if stop - start == 1:
                    yield start, error
                    continue
                middle = (start + stop) // 2
                parts += [(middle, stop), (start, middle)]
            else:
                yield start, told


def _add_told(told: Matched | list[Told | Rejection], first: int, judged: Judged) -> None:
    places: Sequence[int] = range(first, first + len(told))
    if isinstance(told, Matched):
        judged.matched.append(told)
        judged.matched_places += places
        return
    judged.rejected.update(_rejections(told, places))
    sound = [(one, place) for one, place in zip(told, places, strict=True) if not isinstance(one, Rejection)]
    judged.reports += [one for one, _ in sound]
    judged.places += [place for _, place in sound]


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
