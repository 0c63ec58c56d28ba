"""What nearly every interception is told of in, as one row of plain values: there is one for each request.

A report (record_model.py) has values of its own for its end and each of its records. To make four of them for each
request, and to take them apart again when they are stored, costs more than to store them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from credentiald.record_model import (
    NONE,
    End,
    Fact,
    Facts,
    ModelThought,
    Noted,
    Opening,
    OpeningRow,
    Origin,
    Prompt,
    Report,
    TokenUsage,
    ToolCall,
)

# What a named tuple's own constructor ends in; that takes three times as long.
_new = tuple.__new__
_NO_USAGE = ("", 0, "", 0, 0, 0, 0, "", 0, 0)
_NO_PROMPT = ("", 0, "", "", 0)
# What ids of usages and prompts end in as bridges make them; the rest is their interception's.
USAGE_PLACE, PROMPT_PLACE = "0000", "0001"
_PLACES = (USAGE_PLACE, PROMPT_PLACE)


class Usual(NamedTuple):
    """A report that came at once, tells of no trouble, and has at most one token usage and one prompt.

    `usage_id` and `prompt_id` are empty where there is no such record, and their place where the rest is their
    interception's id, as it nearly always is. `first_byte_micros` is NONE where the upstream sent none, `cost_micros`
    where a price is not known.
    """

    interception_id: str
    resolution_id: str
    origin: Origin
    start_micros: int
    bridge_instance_id: str
    facts: Facts
    end_micros: int
    outcome: str
    http_status: int
    upstream_request_id: str
    duration_micros: int
    first_byte_micros: int
    usage_id: str
    usage_micros: int
    usage_response_id: str
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    metadata: str
    # 0 or 1.
    partial: int
    cost_micros: int
    prompt_id: str
    prompt_micros: int
    prompt_response_id: str
    prompt: str
    prompt_bytes: int
    tool_calls: tuple[ToolCall, ...]
    model_thoughts: tuple[ModelThought, ...]

    def report(self) -> Report:
        """The same, with values of their own."""
        return Report(
            self.interception_id,
            self.resolution_id,
            self.origin,
            self.start_micros,
            self.bridge_instance_id,
            self.facts,
            self.token_usages(),
            self.prompts(),
            self.tool_calls,
            self.model_thoughts,
            End(
                self.end_micros,
                self.outcome,
                http_status=self.http_status,
                upstream_request_id=self.upstream_request_id,
                duration_micros=self.duration_micros,
                first_byte_micros=None if self.first_byte_micros == NONE else self.first_byte_micros,
            ),
        )

    def token_usages(self) -> tuple[TokenUsage, ...]:
        """Its token usage, if there is one."""
        if not self.usage_id:
            return ()
        values: Any = self[_USAGE]
        usage = TokenUsage(*values)
        return (
            usage._replace(
                id=full_id(usage.id, self.interception_id),
                partial=bool(self.partial),
                cost_micros=None if self.cost_micros == NONE else self.cost_micros,
            ),
        )

    def prompts(self) -> tuple[Prompt, ...]:
        """Its prompt, if there is one."""
        if not self.prompt_id:
            return ()
        values: Any = self[_PROMPT]
        prompt = Prompt(*values)
        return (prompt._replace(id=full_id(prompt.id, self.interception_id)),)

    def without_usage(self) -> "Usual":
        """The same without its token usage."""
        return _new(Usual, (*self[: _USAGE.start], *_NO_USAGE, *self[_USAGE.stop :]))

    def without_prompt(self) -> "Usual":
        """The same without its prompt."""
        return _new(Usual, (*self[: _PROMPT.start], *_NO_PROMPT, *self[_PROMPT.stop :]))


_USAGE = slice(Usual._fields.index("usage_id"), Usual._fields.index("prompt_id"))
_TOKENS = slice(Usual._fields.index("input_tokens"), Usual._fields.index("metadata"))
_PROMPT = slice(_USAGE.stop, Usual._fields.index("tool_calls"))

# The values of a Usual: its type is most of what making one takes.
UsualRow = tuple[Any, ...]
Told = Report | UsualRow
# The same of many: a Usual whose fields are columns, of which each has a value for each of them. And an Opening so.
UsualColumns = Any
OpeningColumns = Any


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Usual reports with their openings, both as columns: nearly every report comes while its opening waits.

    What the two say of a decision is the same, for the report has it from the opening. `noted` is what the openings are
    made from: as long as it waits, nothing of them is on the disk.
    """

    told: UsualColumns
    opened: OpeningColumns
    noted: Sequence[Noted]

    def __len__(self) -> int:
        return len(self.told.interception_id)

    def reports(self) -> list[UsualRow]:
        """The reports as rows."""
        return list(zip(*self.told, strict=True))

    def openings(self) -> list[OpeningRow]:
        """The openings as rows."""
        return list(zip(*self.opened, strict=True))


NONE_MATCHED = Matched(Usual._make([()] * len(Usual._fields)), Opening._make([()] * len(Opening._fields)), ())


def joined_matched(parts: Sequence[Matched]) -> Matched:
    """All of them."""
    if len(parts) < 2:
        return parts[0] if parts else NONE_MATCHED
    told = Usual._make(joined_columns([one.told for one in parts]))
    opened = Opening._make(joined_columns([one.opened for one in parts]))
    return Matched(told, opened, list(chain.from_iterable(one.noted for one in parts)))


def joined_columns(parts: Sequence[Sequence[Sequence[Any]]]) -> list[Any]:
    """The columns of all of them."""
    return [list(chain.from_iterable(columns)) for columns in zip(*parts, strict=True)]


def report_of(told: Told) -> Report:
    """What is told, with values of their own."""
    return told if isinstance(told, Report) else Usual._make(told).report()


def full_id(said: str, interception_id: str) -> str:
    """The id of a record of which a Usual says the place, or another id, or nothing."""
    return interception_id[: -len(said)] + said if said in _PLACES else said


def in_columns(rows: Iterable[UsualRow]) -> UsualColumns:
    """Of one row at least."""
    return Usual._make(zip(*rows, strict=True))


def counts_in(columns: UsualColumns) -> tuple[int, ...]:
    """The sums of their usages: tokens as a usage has them, the cost, and how many have none."""
    # Where there is no usage, its numbers are 0; where there is no price, the cost is NONE.
    unpriced = columns.cost_micros.count(NONE)
    return (*map(sum, columns[_TOKENS]), sum(columns.cost_micros) - NONE * unpriced, unpriced)


def in_rows(columns: UsualColumns) -> list[Usual]:
    return list(map(Usual._make, zip(*columns, strict=True)))


def usual_of(report: Report) -> Usual | None:
    """The report as such a row; None where it is none."""
    (
        interception_id, resolution_id, origin, start_micros, bridge_instance_id, facts, usages, prompts, calls,
        thoughts, end, _, attempts,
    ) = report  # fmt: skip
    if facts is None or end is None or attempts or len(usages) > 1 or len(prompts) > 1:
        return None
    end_micros, outcome, category, reason, message, status, request_id, duration_micros, first_byte_micros = end
    if category or reason or message or _any_twice(calls) or _any_twice(thoughts):
        return None
    usage: tuple[Any, ...] = _NO_USAGE
    if usages:
        usage_id, *others, partial, cost_micros = usages[0]
        usage_id = _said(usage_id, USAGE_PLACE, interception_id)
        usage = (usage_id, *others, 1 if partial else 0, NONE if cost_micros is None else cost_micros)
    prompt: tuple[Any, ...] = _NO_PROMPT
    if prompts:
        prompt_id, *rest = prompts[0]
        prompt = (_said(prompt_id, PROMPT_PLACE, interception_id), *rest)
    return _new(
        Usual,
        (
            interception_id, resolution_id, origin, start_micros, bridge_instance_id, facts, end_micros, outcome,
            status, request_id, duration_micros, NONE if first_byte_micros is None else first_byte_micros, *usage,
            *prompt, calls, thoughts,
        ),
    )  # fmt: skip


def _said(record_id: str, place: str, interception_id: str) -> str:
    return place if record_id == full_id(place, interception_id) else record_id


def _any_twice(facts: Sequence[Fact]) -> bool:
    return len(facts) > 1 and len({one.id for one in facts}) < len(facts)
