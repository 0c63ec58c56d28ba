"""UsualInterceptions to values: many reports at once, column by column.

What every entry of a column has to fulfil is asked of the column, which costs as much for hundreds of entries as for
one. Bounds are those of record_codec.py, and a report is the same as if it had come as a message of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
from drawbridge.v1 import record_service_pb2 as pb

from credentiald.errors import InvalidArgument
from credentiald.receipts import Receipt
from credentiald.record_model import NAME_CHARACTERS, End, Facts, Outcome, Prompt, Rejection, Report, TokenUsage
from credentiald.record_rules import WHOLE
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

_COMPLETED = Outcome.COMPLETED.value
_MOST_KNOWN = 1024
_MOST_KNOWN_CHARACTERS = 512
# What a named tuple's own constructor ends in; that takes three times as long, and this is for every request.
_new = tuple.__new__
_Count = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_kinds = msgspec.json.Decoder(dict[str, _Count])
# What stands for "there is none" in columns of numbers.
_NONE = -1

_Row = tuple[Any, ...]


class ColumnsReader:
    """Reads columns. `read_receipt` is a `receipts.reader`."""

    def __init__(self, read_receipt: Callable[[bytes], Receipt | None]) -> None:
        self._read_receipt = read_receipt
        # Metadata as bridges write it, and as it is stored; the same for many.
        self._known: dict[str, str] = {"": "{}"}

    def rows(self, usual: pb.UsualInterceptions) -> list[_Row]:
        """The entries of each interception, the facts in place of their index. INVALID_ARGUMENT."""
        receipts = list(usual.receipts)
        columns: list[Sequence[Any]] = [
            receipts,
            _facts(usual),
            list(usual.end_micros),
            _bounded(usual.http_statuses, 0, MOST_STATUS),
            _bounded(usual.duration_micros, 0, MOST_MICROS),
            _bounded(usual.first_byte_micros, -1, MOST_MICROS),
            _cut(usual.upstream_request_ids),
            _cut(usual.response_ids),
            list(usual.input_tokens),
            list(usual.output_tokens),
            list(usual.cache_read_input_tokens),
            list(usual.cache_write_input_tokens),
            list(usual.token_metadata),
            list(usual.prompts),
            list(usual.prompt_bytes),
        ]
        if any(len(column) != len(receipts) for column in columns):
            raise InvalidArgument(field="usual", problem="all columns must have as many entries")
        return list(zip(*columns, strict=True))

    def reports(self, rows: Sequence[_Row], service_id: str, frame: Frame) -> Iterator[Report | Rejection]:
        """Of each row its report, or why there is none. One that is not whole has `is_whole` False."""
        bridge_instance_id, rules, now_micros = frame
        prompt_rule = rules.prompts
        keeps_all = prompt_rule.most_bytes == WHOLE and not prompt_rule.by_provider
        read_receipt = self._read_receipt
        for (
            raw, facts, end_micros, status, duration, first_byte, request_id, response_id, new, out, read, written,
            kinds, text, text_bytes,
        ) in rows:  # fmt: skip
            receipt = read_receipt(raw)
            if receipt is None or not receipt.interception_id:
                yield Rejection.RECEIPT_INVALID
                continue
            interception_id, resolution_id, origin, start_micros = receipt
            if origin.service_id != service_id:
                yield Rejection.RECEIPT_OF_ANOTHER_SERVICE
                continue
            if not start_micros <= end_micros <= now_micros:
                end_micros = within(start_micros, end_micros, now_micros) if end_micros else now_micros
            head = interception_id[:-4]
            is_whole = True
            usages: tuple[TokenUsage, ...] = ()
            if new != _NONE:
                metadata = self._metadata(kinds)
                is_whole = metadata is not None and (
                    0 <= new <= MOST_COUNT
                    and 0 <= out <= MOST_COUNT
                    and 0 <= read <= MOST_COUNT
                    and 0 <= written <= MOST_COUNT
                )
                if is_whole:
                    usage = (head + "0000", end_micros, response_id, new, out, read, written, metadata, False, None)
                    usages = (_new(TokenUsage, usage),)
            prompts: tuple[Prompt, ...] = ()
            if text_bytes >= 0:
                length = length_of(text_bytes, text)
                kept = text if keeps_all else prompt_rule.kept(text, origin.provider_name)
                prompts = (_new(Prompt, (head + "0001", start_micros, response_id, kept, length)),)
            first = None if first_byte < 0 else first_byte
            end = _new(End, (end_micros, _COMPLETED, "", "", "", status, request_id, duration, first))
            yield _new(
                Report,
                (
                    interception_id, resolution_id, origin, start_micros, bridge_instance_id, facts, usages, prompts,
                    (), (), end, is_whole, (),
                ),
            )  # fmt: skip

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


def _facts(usual: pb.UsualInterceptions) -> list[Facts]:
    each = [facts_of(one) for one in usual.facts]
    places = list(usual.facts_indexes)
    if places and not 0 <= min(places) <= max(places) < len(each):
        raise InvalidArgument(field="usual.facts_indexes", problem="must be places in usual.facts")
    return [each[place] for place in places]


def _bounded(column: Sequence[int], least: int, most: int) -> list[int]:
    numbers = list(column)
    if numbers and not (least <= min(numbers) and max(numbers) <= most):
        return [within(least, number, most) for number in numbers]
    return numbers


def _cut(column: Sequence[str]) -> list[str]:
    texts = list(column)
    if texts and max(map(len, texts)) > NAME_CHARACTERS:
        return [text[:NAME_CHARACTERS] for text in texts]
    return texts
