"""Usual interceptions in groups of those that have much in common: what is one for all of a group is made once.

Nearly every interception is usual: opened once, and reported as a whole, without trouble. This is for every request:
what can be asked of a whole column is, and where all are alike they are never looked at one by one. Nothing here knows
SQL.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter
from typing import Any, NamedTuple

from credentiald.record_model import (
    DAY_MICROS,
    NONE,
    Facts,
    InterceptionDraft,
    Kind,
    Opening,
    OpeningRow,
    Origin,
    Report,
    Tally,
)
from credentiald.store.connection import Value
from credentiald.usual_report import (
    Matched,
    OpeningColumns,
    Told,
    Usual,
    UsualColumns,
    counts_in,
    in_columns,
    in_rows,
    joined_columns,
    usual_of,
)

# Columns in which interceptions of a group differ, in the order of `Group.own`.
OWN = (
    "id", "resolution_id", "start_time", "end_time", "duration_micros", "first_byte_micros", "upstream_request_id",
)  # fmt: skip
# Those in which they are alike, in the order of `Like.row`. The session is empty where the client names none.
ALIKE = (
    *Origin._fields, "bridge_instance_id", "operation", "model", "upstream_model", "client", "user_agent", "streaming",
    "outcome", "http_status", "session_id",
)  # fmt: skip
# Those in which nothing usual has anything.
ABSENT = (
    "thread_parent_id", "correlating_tool_call_id", "error_category", "error_reason", "error_message",
)  # fmt: skip
GroupRow = tuple[Value, ...]


def fields(*names: str) -> "itemgetter[Any]":
    """What takes these out of a Usual, or out of columns of them."""
    return itemgetter(*map(Usual._fields.index, names))


def _opening_fields(*names: str) -> "itemgetter[Any]":
    return itemgetter(*map(Opening._fields.index, names))


tokens = fields("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
# What a report must say as the opening does.
_decided_as_told = fields("resolution_id", "origin", "start_micros")
_decided_as_opened = _opening_fields("resolution_id", "origin", "start_micros")
# What those of a group have in common, in the order of the arguments of `_like`.
_common = fields("origin", "bridge_instance_id", "facts", "outcome", "http_status")
_FACTS = 2
_asked = _opening_fields("bridge_instance_id", "operation", "model", "upstream_model", "client")
# In place of an opening that is not here.
_NOT_HERE = Opening("", "", Origin("", "", "", "", "", "", ""), "", "", "", "", "", 0)


@dataclass(frozen=True, slots=True, eq=False)
class Like:
    """What many have in common: a part of their rows, what they are counted as, the session that their client names."""

    row: GroupRow
    kind: Kind
    client_session_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Some that are alike: what was told of them, with costs, as columns, and the places of that.

    Of those that were opened before, the rows have what the report says of the opening, and that is what the opening
    says. `numbers` are those of their rows, once these are there.
    """

    like: Like
    told: UsualColumns
    places: Sequence[int]
    is_new: bool
    numbers: Sequence[int] = ()

    def own(self) -> list[Sequence[Value]]:
        """The columns of their rows in which they differ."""
        told = self.told
        return [
            told.interception_id,
            told.resolution_id,
            told.start_micros,
            told.end_micros,
            told.duration_micros,
            told.first_byte_micros,
            told.upstream_request_id,
        ]

    def drafts(self) -> list[InterceptionDraft]:
        """The rows as the long way has them."""
        return [_draft(own + self.like.row) for own in zip(*self.own(), strict=True)]

    def reports(self) -> list[Report]:
        """What was told."""
        return [one.report() for one in in_rows(self.told)]

    def only(self, ids: Container[str]) -> "list[Group]":
        """Those with such an id as a group, if there are any."""
        are_in = [one in ids for one in self.told.interception_id]
        if all(are_in):
            return [self]
        if not any(are_in):
            return []
        told = Usual._make(list(compress(column, are_in)) for column in self.told)
        places, numbers = list(compress(self.places, are_in)), list(compress(self.numbers, are_in))
        return [Group(self.like, told, places, self.is_new, numbers)]


class _Some(NamedTuple):
    """Candidates for the short way: their places, what is told of them, their openings."""

    places: Sequence[int]
    rows: Sequence[Any]
    openings: Sequence[OpeningRow]

    def where(self, mask: Sequence[bool]) -> "_Some":
        return self if all(mask) else _Some._make(list(compress(column, mask)) for column in self)


def usual_groups(
    waiting: Mapping[str, OpeningRow], ids: Sequence[str], told: Sequence[Told], *, others: Container[str]
) -> tuple[list[Group], list[Group]]:
    """Those that are told of at once, that answer no tool call, and that had no trouble, without those others.

    First those whose openings are here, then those that must have been opened before.
    """
    rows = [usual_of(one) if isinstance(one, Report) else one for one in told]
    some = _Some(range(len(ids)), rows, [waiting.get(one, _NOT_HERE) for one in ids])
    if not all(rows) or len(set(ids)) < len(ids):
        # The first report of an interception or none: its reports count in their order.
        first = dict(zip(reversed(ids), reversed(some.places), strict=True))
        some = some.where([rows[place] is not None and first[ids[place]] == place for place in some.places])
    if others:
        some = some.where([ids[place] not in others for place in some.places])
    is_here = [one is not _NOT_HERE for one in some.openings]
    return _groups(some.where(is_here), is_new=True), _groups(some.where([not one for one in is_here]), is_new=False)


def matched_groups(matched: Matched, *, first_place: int, others: Container[str]) -> list[Group]:
    """The same of what is matched: all of it was opened now, and its places begin there."""
    told, opened = matched.told, matched.opened
    places: Sequence[int] = range(first_place, first_place + len(matched))
    if others:
        are_left = [one not in others for one in told.interception_id]
        told, opened = (one._make(list(compress(column, are_left)) for column in one) for one in (told, opened))
        places = list(compress(places, are_left))
    return _in_groups(places, told, opened, is_new=True) if places else []


def _groups(some: _Some, *, is_new: bool) -> list[Group]:
    """The candidates by what they have in common, without those of which opening and report do not say the same."""
    if not some.rows:
        return []
    told, opened = in_columns(some.rows), Opening._make(zip(*some.openings, strict=True))
    if is_new and _decided_as_told(told) != _decided_as_opened(opened):
        both = zip(some.rows, some.openings, strict=True)
        return _groups(some.where([_decided_as_told(row) == _decided_as_opened(one) for row, one in both]), is_new=True)
    return _in_groups(some.places, told, opened, is_new=is_new)


def _in_groups(places: Sequence[int], told: UsualColumns, opened: OpeningColumns, *, is_new: bool) -> list[Group]:
    """All that answer no tool call, by what they have in common."""
    days = [start // DAY_MICROS for start in (min(told.start_micros), max(told.start_micros))]
    common = (
        *_common(told),
        *_asked(opened),
        [days[0]] * len(places) if days[0] == days[1] else [start // DAY_MICROS for start in told.start_micros],
    )
    groups = []
    for numbers in _alike(common):
        values = [column[numbers[0]] for column in common]
        if values[_FACTS].correlating_tool_call_id:
            continue
        if len(numbers) == len(places):
            groups.append(Group(_like(*values), told, places, is_new))
            continue
        pick = _picking(numbers)
        groups.append(Group(_like(*values), Usual._make(map(pick, told)), pick(places), is_new))
    return groups


def _alike(columns: Sequence[Sequence[Any]]) -> list[Sequence[int]]:
    """The numbers of the rows that are the same in all columns, together."""
    # To count one value takes a tenth of what a table of all takes, and most columns have no other.
    differing = [column for column in columns if column.count(column[0]) < len(column)]
    if not differing:
        return [range(len(columns[0]))]
    numbers: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, row in enumerate(zip(*differing, strict=True)):
        numbers[row].append(number)
    return [*numbers.values()]


def _picking(numbers: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What takes the entries with these numbers out of a column."""
    # Of one number, `itemgetter` would give the bare entry.
    return itemgetter(*numbers) if len(numbers) > 1 else itemgetter(slice(numbers[0], numbers[0] + 1))


def _like(
    origin: Origin,
    reporter: str,
    facts: Facts,
    outcome: str,
    status: int,
    bridge: str,
    operation: str,
    model: str,
    upstream_model: str,
    client: str,
    day: int,
) -> Like:
    """What the opening says counts, as it does where it comes first."""
    kind = Kind(
        origin, model or facts.model, upstream_model or facts.upstream_model, client or facts.client, outcome, day
    )
    row = (
        *origin,
        bridge or reporter,
        operation or facts.operation,
        kind.model,
        kind.upstream_model,
        kind.client,
        facts.user_agent,
        # A bool is no int to Python's sqlite3 (bulk.py).
        1 if facts.streaming else 0,
        outcome,
        status,
        facts.client_session_id,
    )
    return Like(row, kind, facts.client_session_id)


def only(groups: Sequence[Group], ids: Container[str]) -> list[Group]:
    """Those with such an id."""
    return [part for one in groups for part in one.only(ids)]


def joined(groups: Sequence[Group]) -> UsualColumns:
    """What was told of all of them."""
    if len(groups) == 1:
        return groups[0].told
    return Usual._make(joined_columns([one.told for one in groups]))


def tally_of(groups: Sequence[Group]) -> Tally:
    """What was reported of interceptions of one kind."""
    told = joined(groups)
    count = len(told.interception_id)
    return Tally(
        sum(len(one.places) for one in groups if one.is_new),
        (count, count - told.usage_id.count(""), *counts_in(told)),
        count - told.prompt_id.count(""),
        sum(map(len, told.tool_calls)),
        sum(map(len, told.model_thoughts)),
    )


def _draft(row: GroupRow) -> InterceptionDraft:
    values: dict[str, Any] = dict.fromkeys(ABSENT, "") | dict(zip((*OWN, *ALIKE), row, strict=True))
    if values["first_byte_micros"] == NONE:
        values["first_byte_micros"] = None
    values["session_id"] = values["session_id"] or values["id"]
    return InterceptionDraft(**values, thread_root_id=values["id"])
