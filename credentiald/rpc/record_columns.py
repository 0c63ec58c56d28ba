"""UsualInterceptions to values: many reports at once, column by column.

What every entry of a column has to fulfil is asked of the column, and values are put together from columns by `zip` and
`map`, which costs as much for hundreds of rows as a loop does for a few. Bounds are those of record_codec.py, and a
report is the same as if it had come as a message of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from operator import itemgetter, le
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import msgspec
from drawbridge.v1 import record_service_pb2 as pb

from credentiald import receipts
from credentiald.errors import InvalidArgument
from credentiald.receipts import Receipt
from credentiald.record_model import NAME_CHARACTERS, NONE, Facts, Noted, Origin, Outcome, Rejection
from credentiald.record_rules import WHOLE, KeepRule
from credentiald.rpc.record_codec import (
    MOST_COUNT,
    MOST_MICROS,
    MOST_STATUS,
    Frame,
    facts_of,
    length_of,
    metadata_text,
    within,
)
from credentiald.usual_report import (
    PROMPT_PLACE,
    USAGE_PLACE,
    Matched,
    Told,
    Usual,
    UsualColumns,
    UsualRow,
)
from credentiald.waiting_openings import opening_columns

_COMPLETED = Outcome.COMPLETED.value
# As many as interceptions. Those that nothing is in take no room in a message, and to read a million takes seconds.
_MOST_FACTS = 1000
_MOST_KNOWN = 1024
_MOST_KNOWN_CHARACTERS = 512
_COLUMNS = tuple(field.name for field in pb.UsualInterceptions.DESCRIPTOR.fields if field.name != "facts")
_Count = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_service_id = itemgetter(Origin._fields.index("service_id"))
_kinds = msgspec.json.Decoder(dict[str, _Count])


class Columns(NamedTuple):
    """What the message has, as lists of one length; in place of an index, the facts."""

    receipts: Sequence[bytes]
    facts: Sequence[Facts]
    end_micros: Sequence[int]
    http_statuses: Sequence[int]
    duration_micros: Sequence[int]
    first_byte_micros: Sequence[int]
    upstream_request_ids: Sequence[str]
    response_ids: Sequence[str]
    input_tokens: Sequence[int]
    output_tokens: Sequence[int]
    cache_read_input_tokens: Sequence[int]
    cache_write_input_tokens: Sequence[int]
    token_metadata: Sequence[str]
    prompts: Sequence[str]
    prompt_bytes: Sequence[int]

    def part(self, start: int, stop: int) -> "Columns":
        """Some of the rows."""
        if start == 0 and stop >= len(self.receipts):
            return self
        return Columns._make(column[start:stop] for column in self)


class ColumnsReader:
    """Reads columns. `read_receipt` is a `receipts.reader` that knows what is `noted`."""

    def __init__(
        self, read_receipt: Callable[[bytes], Receipt | None], noted: Mapping[bytes, Noted] = MappingProxyType({})
    ) -> None:
        self._read_receipt = read_receipt
        self._noted = noted
        # Metadata as bridges write it, and as it is stored; the same for many.
        self._known: dict[str, str] = {"": "{}"}

    def read(self, columns: Columns, service_id: str, frame: Frame) -> Matched | list[Told | Rejection]:
        """Of each row its report, or why there is none. One that is not whole is a Report that says so.

        Where the openings of all are noted, and all is as it should be: these with their reports, as columns.
        """
        noted = receipts.all_noted(columns.receipts, self._noted)
        if noted:
            opened = opening_columns(noted)
            if set(map(_service_id, opened.origin)) == {service_id}:
                said = opened.interception_id, opened.resolution_id, opened.origin, opened.start_micros
                told = self._usual(columns, said, frame)
                return Matched(told, opened, noted) if _is_sound(columns, told) else [*_in_rows(columns, told)]
        read: list[Any] = list(map(self._read_receipt, columns.receipts))
        rejections = {
            place: Rejection.RECEIPT_OF_ANOTHER_SERVICE if one and one.interception_id else Rejection.RECEIPT_INVALID
            for place, one in enumerate(read)
            # Its first fields are the interception's id and, third, the origin, which begins with the service.
            if not one or not one[0] or one[2][0] != service_id
        }
        if not rejections:
            return [*self._rows(columns, read, frame)] if read else []
        is_sound = [place not in rejections for place in range(len(read))]
        left = Columns._make(list(compress(column, is_sound)) for column in columns)
        reports = iter(self._rows(left, compress(read, is_sound), frame) if any(is_sound) else ())
        return [rejections.get(place) or next(reports) for place in range(len(read))]

    def _rows(self, columns: Columns, read: Iterable[Receipt], frame: Frame) -> Sequence[Told]:
        return _in_rows(columns, self._usual(columns, zip(*read, strict=True), frame))

    def _usual(self, columns: Columns, said: Any, frame: Frame) -> UsualColumns:
        """The reports of rows whose receipts are good. `said` has what these say, as columns."""
        bridge_instance_id, rules, now_micros = frame
        ids, resolutions, origins, starts = said
        count = len(ids)
        ends = columns.end_micros
        if max(ends) > now_micros or not all(map(le, starts, ends)):
            ends = [
                within(start, end, now_micros) if end else now_micros for start, end in zip(starts, ends, strict=True)
            ]
        kinds = {text: self._metadata(text) for text in set(columns.token_metadata)}
        values = (
            ids,
            resolutions,
            origins,
            starts,
            [bridge_instance_id] * count,
            columns.facts,
            ends,
            [_COMPLETED] * count,
            columns.http_statuses,
            columns.upstream_request_ids,
            columns.duration_micros,
            columns.first_byte_micros,
            [USAGE_PLACE] * count,
            ends,
            columns.response_ids,
            columns.input_tokens,
            columns.output_tokens,
            columns.cache_read_input_tokens,
            columns.cache_write_input_tokens,
            [*kinds.values()] * count if len(kinds) == 1 else [kinds[text] for text in columns.token_metadata],
            [0] * count,
            [NONE] * count,
            [PROMPT_PLACE] * count,
            starts,
            columns.response_ids,
            _kept(columns.prompts, origins, rules.prompts),
            _lengths(columns.prompt_bytes, columns.prompts),
            [()] * count,
            [()] * count,
        )
        return Usual._make(values)

    def _metadata(self, text: str) -> str | None:
        """As it is stored; None for what is no object of counts."""
        known = self._known.get(text)
        if known is None:
            try:
                known = metadata_text(_kinds.decode(text))
            except (msgspec.DecodeError, ValueError):
                return None
            if len(text) <= _MOST_KNOWN_CHARACTERS:
                if len(self._known) >= _MOST_KNOWN:
                    self._known = {"": "{}"}
                self._known[text] = known
        return known


def columns_of(usual: pb.UsualInterceptions) -> Columns:
    """The columns as the message has them, within their bounds. INVALID_ARGUMENT.

    A slice of all takes half of what a list of what protobuf lets one step through takes.
    """
    # First of all: a message may have millions of numbers beside a few receipts.
    count = len(usual.receipts)
    for name in _COLUMNS:
        if len(getattr(usual, name)) != count:
            raise InvalidArgument(field="usual", problem="all columns must have as many entries")
    return Columns(
        receipts=usual.receipts[:],
        facts=_facts(usual),
        end_micros=usual.end_micros[:],
        http_statuses=_bounded(usual.http_statuses, 0, MOST_STATUS),
        duration_micros=_bounded_times(usual.duration_micros, 0),
        first_byte_micros=_bounded_times(usual.first_byte_micros, NONE),
        upstream_request_ids=_cut(usual.upstream_request_ids),
        response_ids=_cut(usual.response_ids),
        input_tokens=usual.input_tokens[:],
        output_tokens=usual.output_tokens[:],
        cache_read_input_tokens=usual.cache_read_input_tokens[:],
        cache_write_input_tokens=usual.cache_write_input_tokens[:],
        token_metadata=usual.token_metadata[:],
        prompts=usual.prompts[:],
        prompt_bytes=usual.prompt_bytes[:],
    )


def _lengths(told: Sequence[int], texts: Sequence[str]) -> Sequence[int]:
    here = list(map(len, texts))
    if here == told and all(map(str.isascii, texts)):
        return here
    return list(map(length_of, told, texts))


def _kept(texts: Sequence[str], origins: Sequence[Origin], rule: KeepRule) -> Sequence[str]:
    if rule.most_bytes == WHOLE and not rule.by_provider:
        return texts
    return [rule.kept(text, of.provider_name) for text, of in zip(texts, origins, strict=True)]


def _in_rows(columns: Columns, told: UsualColumns) -> Sequence[Told]:
    rows: list[UsualRow] = list(zip(*told, strict=True))
    if _is_sound(columns, told):
        return rows
    return [_partly(one, length) for one, length in zip(rows, columns.prompt_bytes, strict=True)]


def _is_sound(columns: Columns, told: UsualColumns) -> bool:
    """Whether each row has both records."""
    return min(columns.prompt_bytes) >= 0 and None not in told.metadata and _all_are_counts(columns)


def _all_are_counts(columns: Columns) -> bool:
    counts = (
        columns.input_tokens,
        columns.output_tokens,
        columns.cache_read_input_tokens,
        columns.cache_write_input_tokens,
    )
    return all(_are_within(0, column, MOST_COUNT) for column in counts)


def _partly(values: UsualRow, prompt_bytes: int) -> Told:
    """Without the records that the row has not."""
    row = Usual._make(values)
    if prompt_bytes < 0:
        row = row.without_prompt()
    counts = row.input_tokens, row.output_tokens, row.cache_read_input_tokens, row.cache_write_input_tokens
    has_usage = row.input_tokens != NONE
    if has_usage and row.metadata is not None and min(counts) >= 0 and max(counts) <= MOST_COUNT:
        return row
    row = row.without_usage()
    return row.report()._replace(is_whole=False) if has_usage else row


def _facts(usual: pb.UsualInterceptions) -> list[Facts]:
    if len(usual.facts) > _MOST_FACTS:
        raise InvalidArgument(field="usual.facts", problem=f"at most {_MOST_FACTS} in one message")
    each = [facts_of(one) for one in usual.facts]
    places = usual.facts_indexes[:]
    if len(each) == 1 and places.count(0) == len(places):
        return each * len(places)
    if not _are_within(0, places, len(each) - 1):
        raise InvalidArgument(field="usual.facts_indexes", problem="must be places in usual.facts")
    return [each[place] for place in places]


def _bounded(column: Sequence[int], least: int, most: int) -> Sequence[int]:
    numbers = column[:]
    return numbers if _are_within(least, numbers, most) else [within(least, number, most) for number in numbers]


def _bounded_times(column: Sequence[int], least: int) -> Sequence[int]:
    numbers = column[:]
    # Hardly two are the same, and none are in order: to sort them takes twice as long as this.
    if not numbers or (least <= min(numbers) and max(numbers) <= MOST_MICROS):
        return numbers
    return [within(least, number, MOST_MICROS) for number in numbers]


def _are_within(least: int, numbers: Sequence[int], most: int) -> bool:
    """Whether all are. To sort what is the same or nearly in order takes a third of what `min` and `max` do."""
    in_order = sorted(numbers)
    return not in_order or (least <= in_order[0] and in_order[-1] <= most)


def _cut(column: Sequence[str]) -> Sequence[str]:
    texts = column[:]
    if texts and max(map(len, texts)) > NAME_CHARACTERS:
        return [text[:NAME_CHARACTERS] for text in texts]
    return texts
