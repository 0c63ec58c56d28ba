"""The short way into the file for what nearly every interception is: opened once, and reported as a whole.

What its row will be is all in the opening and the report, so nothing is read or merged: it is written as it will stay,
where the opening came a moment ago and waits for its report, and else completed, where nothing is in the row but what
the opening left. What this takes is stored as if it had come in a batch of its own before the rest, and is the same in
the file as by the long way (record_writing.py), which takes everything else.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, compress
from operator import itemgetter

from credentiald.prices import PriceTable, cost_of, prices_of
from credentiald.record_model import (
    NONE,
    Kind,
    ModelThought,
    Opening,
    OpeningRow,
    Origin,
    Tally,
    ToolCall,
)
from credentiald.store import bulk, lone_sessions, record_sums, usual_facts
from credentiald.store.connection import Connection, Value
from credentiald.store.record_groups import (
    ABSENT,
    ALIKE,
    OWN,
    Group,
    GroupRow,
    fields,
    joined,
    matched_groups,
    only,
    tally_of,
    tokens,
    usual_groups,
)
from credentiald.store.record_rows import COLUMNS, insert_facts
from credentiald.usual_report import Matched, Told, full_id

_FORM = bulk.Form(
    "INSERT OR IGNORE INTO interceptions",
    ("number", *OWN, *ALIKE),
    # It answers nothing, so it begins its thread.
    (
        *((one, "''") for one in ABSENT),
        ("thread_root_id", "{id}"),
        bulk.or_null("first_byte_micros"),
        ("session_id", "CASE {session_id} WHEN '' THEN {id} ELSE {session_id} END"),
        ("is_session", "{session_id} = ''"),
    ),
    ("number", *COLUMNS, "is_session"),
)
_OPENING_OWN = ("id", "resolution_id", "start_time")
_OPENING_ALIKE = (*Origin._fields, "bridge_instance_id", "operation", "model", "upstream_model", "client")
_EMPTY = {"streaming": "0", "end_time": "NULL", "http_status": "0", "duration_micros": "0", "first_byte_micros": "NULL"}
_OPENING = bulk.Form(
    "INSERT OR IGNORE INTO interceptions",
    ("number", *_OPENING_OWN, *_OPENING_ALIKE),
    tuple((one, _EMPTY.get(one, "''")) for one in COLUMNS if one not in _OPENING_OWN + _OPENING_ALIKE),
    ("number", *COLUMNS),
)
# What tells an opening from another's, from another, and from one that says more than the report.
_OPENED = (
    "resolution_id", "start_time", "service_id", "user_id", "provider_id", "operation", "model", "upstream_model",
    "client",
)  # fmt: skip
# What completes it.
_COMPLETING = (
    "session_id", "end_time", "duration_micros", "first_byte_micros", "upstream_request_id", "user_agent", "streaming",
    "outcome", "http_status",
)  # fmt: skip
# Both, in the order of rows.
_IN_ORDER = tuple(one for one in (*OWN, *ALIKE) if one in ("id", *_OPENED, *_COMPLETING))
_completing = itemgetter(*map((*OWN, *ALIKE).index, _IN_ORDER))
_TOLD = {column: f"told.column{place}" for place, column in enumerate(_IN_ORDER, 1)}
_COMPLETED = {one: _TOLD[one] for one in _COMPLETING} | {
    "thread_root_id": _TOLD["id"],
    "first_byte_micros": f"NULLIF({_TOLD['first_byte_micros']}, {NONE})",
}
_LONE = _COMPLETED | {"session_id": _TOLD["id"], "is_session": "1"}


def _completion(values: Mapping[str, str]) -> str:
    # Few indexes have a part in it, and only those of columns that are named here are looked at.
    return f"UPDATE interceptions SET {', '.join(f'{one} = {value}' for one, value in values.items())} FROM"  # noqa: S608


# Those whose client names the session, and those that stand for theirs.
_COMPLETIONS = ((_completion(_COMPLETED), True), (_completion(_LONE), False))
# With `+`, none is an index by which rows would be looked for.
_WHERE_OPENED = (
    f"AS told WHERE interceptions.id = {_TOLD['id']}"
    f" AND {' AND '.join(f'+interceptions.{one} = {_TOLD[one]}' for one in _OPENED)}"
    " AND +interceptions.session_id = '' AND +interceptions.end_time IS NULL RETURNING id, number"
)

_USAGES = bulk.Form(
    "INSERT INTO token_usages",
    (
        "interception_id", "id", "create_time", "response_id", "input_tokens", "output_tokens", "cost_micros",
        "cache_read_input_tokens", "cache_write_input_tokens", "metadata", "partial",
    ),
    (bulk.or_null("cost_micros"),),
)  # fmt: skip
_usage_columns = fields(
    "interception_id", "usage_id", "usage_micros", "usage_response_id", "input_tokens", "output_tokens", "cost_micros",
    "cache_read_input_tokens", "cache_write_input_tokens", "metadata", "partial",
)  # fmt: skip
_PROMPTS = bulk.Form(
    "INSERT INTO prompts", ("interception_id", "id", "create_time", "response_id", "text", "text_bytes")
)
_prompt_columns = fields(
    "interception_id", "prompt_id", "prompt_micros", "prompt_response_id", "prompt", "prompt_bytes"
)  # fmt: skip


@dataclass(slots=True)
class Taken:
    """What was stored by the short way. `opened` are openings alone, by id, whose reports are to come."""

    opened: Mapping[str, OpeningRow] = field(default_factory=dict)
    groups: Sequence[Group] = ()
    tallies: Mapping[Kind, Tally] = field(default_factory=dict)

    def rest(
        self, openings: Sequence[OpeningRow], told: Sequence[Told], matched: Matched
    ) -> tuple[list[Opening], list[tuple[int, Told]]]:
        """What was not: openings, and what was told, with its places."""
        new = [group.told.interception_id for group in self.groups if group.is_new]
        left: list[Opening] = []
        if len(self.opened) + sum(map(len, new)) < len(openings) + len(matched):
            stored = self.opened.keys() | set(chain.from_iterable(new))
            left = [Opening._make(one) for one in (*openings, *matched.openings()) if one[0] not in stored]
        if sum(len(group.places) for group in self.groups) == len(told) + len(matched):
            return left, []
        places = set(chain.from_iterable(group.places for group in self.groups))
        return left, [(place, one) for place, one in enumerate((*told, *matched.reports())) if place not in places]


def store(
    conn: Connection, openings: Sequence[OpeningRow], told: Sequence[Told], matched: Matched, prices: PriceTable
) -> Taken:
    """Store what is usual of these."""
    waiting = {one[0]: one for one in openings}
    if len(waiting) < len(openings):
        return Taken()
    ids = [one[0] for one in told]
    others = lone_sessions.with_rows(conn, [*matched.told.interception_id, *ids])
    new, opened = usual_groups(waiting, ids, told, others=others)
    new += matched_groups(matched, first_place=len(told), others=others)
    groups = _inserted(conn, new) + _completed(conn, opened)
    told_of = set(ids)
    alone = _opened(conn, {one: opening for one, opening in waiting.items() if one not in told_of})
    if not groups:
        return Taken(alone)
    groups = [_with_costs(group, prices) for group in groups]
    _store_facts(conn, groups)
    kinds: defaultdict[Kind, list[Group]] = defaultdict(list)
    for group in groups:
        kinds[group.like.kind].append(group)
    tallies = {kind: tally_of(some) for kind, some in kinds.items()}
    _store_sums(conn, groups, tallies)
    return Taken(alone, groups, tallies)


def _inserted(conn: Connection, groups: list[Group]) -> list[Group]:
    """Those that were new. A row may be there all the same: of another worker's report, or of one opened twice."""
    numbers, new = bulk.insert_new(conn, "interceptions", _FORM, [(one.like.row, one.own()) for one in groups], "id")
    numbered = [replace(one, numbers=of) for one, of in zip(groups, numbers, strict=True)]
    return numbered if new is None else only(numbered, new)


def _opened(conn: Connection, waiting: dict[str, OpeningRow]) -> dict[str, OpeningRow]:
    """Those that were new of openings of which nothing else is told yet."""
    rows: defaultdict[GroupRow, list[GroupRow]] = defaultdict(list)
    for interception_id, resolution_id, origin, *asked, start in waiting.values():
        rows[*origin, *asked].append((interception_id, resolution_id, start))
    groups = [(alike, list(zip(*own, strict=True))) for alike, own in rows.items()]
    _, new = bulk.insert_new(conn, "interceptions", _OPENING, groups, "id")
    return waiting if new is None else {one: waiting[one] for one in waiting if one in new}


def _completed(conn: Connection, groups: list[Group]) -> list[Group]:
    """Those of which nothing but their opening was there."""
    completed: dict[str, int] = {}
    for statement, is_named in _COMPLETIONS:
        of_these = [_completing_columns(one) for one in groups if bool(one.like.client_session_id) is is_named]
        if of_these:
            columns = [list(chain.from_iterable(some)) for some in zip(*of_these, strict=True)]
            rows = bulk.select_for_columns(conn, statement, columns, _WHERE_OPENED)
            completed.update((row[0], row[1]) for row in rows)
    return [
        replace(one, numbers=[completed[an_id] for an_id in one.told.interception_id])
        for one in only(groups, completed)
    ]


def _completing_columns(group: Group) -> Sequence[Sequence[Value]]:
    count = len(group.places)
    columns: Sequence[Sequence[Value]] = _completing([*group.own(), *([value] * count for value in group.like.row)])
    return columns


def _with_costs(group: Group, table: PriceTable) -> Group:
    kind = group.like.kind
    prices = prices_of(table, provider_id=kind.origin.provider_id, upstream_model=kind.upstream_model, model=kind.model)
    if prices is None:
        return group
    told = group.told
    costs = [
        cost_of(prices, counts) if usage else 0 for usage, *counts in zip(told.usage_id, *tokens(told), strict=True)
    ]
    return replace(group, told=told._replace(cost_micros=[NONE if cost is None else cost for cost in costs]))


def _store_facts(conn: Connection, groups: Sequence[Group]) -> None:
    told = joined(groups)
    left = usual_facts.insert(conn, list(chain.from_iterable(one.numbers for one in groups)), told)
    if left is not None:
        ids = left.interception_id
        left = left._replace(
            usage_id=list(map(full_id, left.usage_id, ids)), prompt_id=list(map(full_id, left.prompt_id, ids))
        )
        bulk.insert_formed(conn, _USAGES, _having(left.usage_id, _usage_columns(left)))
        bulk.insert_formed(conn, _PROMPTS, _having(left.prompt_id, _prompt_columns(left)))
    for kind, facts in ((ToolCall, told.tool_calls), (ModelThought, told.model_thoughts)):
        if any(facts):
            each = zip(told.interception_id, facts, strict=True)
            insert_facts(conn, kind, [(interception_id, *one) for interception_id, some in each for one in some])


def _having(ids: Sequence[str], columns: bulk.Columns) -> bulk.Columns:
    """The rows that have an id."""
    return [list(compress(column, ids)) for column in columns] if "" in ids else columns


def _store_sums(conn: Connection, groups: Sequence[Group], tallies: Mapping[Kind, Tally]) -> None:
    """Sums of days, and of sessions that clients name: all others are of one interception, which stands for them."""
    sums = record_sums.Sums()
    for kind, tally in tallies.items():
        sums.kind(kind, tally)
    named: defaultdict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in groups:
        if group.like.client_session_id:
            named[group.like.kind.origin.user_id, group.like.client_session_id].append(group)
    for (_, session_id), some in named.items():
        sums.usual_in_session(session_id, [(one.like.kind, one.told) for one in some])
    sums.store(conn)
