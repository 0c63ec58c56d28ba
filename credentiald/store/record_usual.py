"""The short way into the file for what nearly every interception is: opened once, and reported as a whole.

What its row will be is all in the opening and the report, so nothing is read or merged: it is written as it will stay,
where the opening came a moment ago and waits for its report, and else completed, where nothing is in the row but what
the opening left. What this takes is stored as if it had come in a batch of its own before the rest, and is the same in
the file as by the long way (record_writing.py), which takes everything else.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from credentiald.prices import PriceTable, priced
from credentiald.record_model import (
    DAY_MICROS,
    NONE,
    Facts,
    InterceptionDraft,
    Kind,
    ModelThought,
    Opening,
    Origin,
    Prompt,
    Report,
    Tally,
    TokenUsage,
    ToolCall,
    facts_of,
)
from credentiald.store import bulk, record_sums
from credentiald.store.connection import Connection, Value
from credentiald.store.record_rows import COLUMNS, insert_facts
from credentiald.usual_report import Told, Usual, usual_of

# In the order of `_usual` and `_like`.
_OWN = (
    "id", "resolution_id", "session_id", "start_time", "end_time", "upstream_request_id", "duration_micros",
    "first_byte_micros",
)  # fmt: skip
_ALIKE = (
    *Origin._fields, "bridge_instance_id", "operation", "model", "upstream_model", "client", "user_agent", "streaming",
    "outcome", "http_status",
)  # fmt: skip
_GIVEN = _OWN + _ALIKE
_new = tuple.__new__
_ABSENT = (
    "thread_parent_id", "correlating_tool_call_id", "error_category", "error_reason", "error_message",
)  # fmt: skip
_FORM = bulk.Form(
    "INSERT OR IGNORE INTO interceptions",
    _GIVEN,
    # It answers nothing, so it begins its thread.
    (*((one, "''") for one in _ABSENT), ("thread_root_id", "{id}"), bulk.or_null("first_byte_micros")),
    alike=len(_ALIKE),
)
_OPENING_OWN = ("id", "resolution_id", "start_time")
_OPENING_ALIKE = (*Origin._fields, "bridge_instance_id", "operation", "model", "upstream_model", "client")
_EMPTY = {"streaming": "0", "end_time": "NULL", "http_status": "0", "duration_micros": "0", "first_byte_micros": "NULL"}
_OPENING = bulk.Form(
    "INSERT OR IGNORE INTO interceptions",
    _OPENING_OWN + _OPENING_ALIKE,
    tuple((one, _EMPTY.get(one, "''")) for one in COLUMNS if one not in _OPENING_OWN + _OPENING_ALIKE),
    alike=len(_OPENING_ALIKE),
)
# What tells an opening from another's, from another, and from one that says more than the report.
_OPENED = (
    "id", "service_id", "user_id", "provider_id", "resolution_id", "start_time", "operation", "model",
    "upstream_model", "client",
)  # fmt: skip
# What completes it.
_COMPLETING = (
    "user_agent", "session_id", "streaming", "end_time", "outcome", "http_status", "upstream_request_id",
    "duration_micros", "first_byte_micros",
)  # fmt: skip
_completing = itemgetter(*map(_GIVEN.index, (*_OPENED, *_COMPLETING)))
_TOLD = {column: f"told.column{place}" for place, column in enumerate((*_OPENED, *_COMPLETING), 1)}
# Few indexes have a part in it; with `+`, none is one by which rows would be looked for.
_COMPLETION = (
    f"UPDATE interceptions SET thread_root_id = {_TOLD['id']},"  # noqa: S608 - names of ours
    f" {', '.join(f'{one} = {_TOLD[one]}' for one in _COMPLETING[:-1])},"
    f" first_byte_micros = NULLIF({_TOLD['first_byte_micros']}, {NONE}) FROM",
    f"AS told WHERE interceptions.id = {_TOLD['id']}"
    f" AND {' AND '.join(f'+interceptions.{one} = {_TOLD[one]}' for one in _OPENED[1:])}"
    " AND +interceptions.session_id = '' AND +interceptions.end_time IS NULL RETURNING id",
)
_Row = tuple[Value, ...]


def _fields(*names: str) -> "itemgetter[Any]":
    """What takes these out of a row, faster than a loop does."""
    return itemgetter(*map(Usual._fields.index, names))


_usage_row = _fields(
    "interception_id", "usage_id", "usage_micros", "usage_response_id", "input_tokens", "output_tokens",
    "cache_read_input_tokens", "cache_write_input_tokens", "metadata", "partial", "cost_micros",
)  # fmt: skip
_prompt_row = _fields(
    "interception_id", "prompt_id", "prompt_micros", "prompt_response_id", "prompt", "prompt_bytes"
)  # fmt: skip
_has_usage, _has_prompt = _fields("usage_id"), _fields("prompt_id")
_TOKENS = slice(Usual._fields.index("input_tokens"), Usual._fields.index("metadata"))
_tool_calls, _model_thoughts = _fields("tool_calls"), _fields("model_thoughts")


@dataclass(frozen=True, slots=True, eq=False)
class _Like:
    """What many have in common: a part of their rows, and what they are counted as."""

    row: _Row
    kind: Kind
    has_own_session: bool


class Whole(NamedTuple):
    """One that was stored: its part of the row, what was told of it, with costs, and the place of that.

    Of one that was opened before, the row has what the report says of the opening, and that is what the opening says.
    """

    own: _Row
    like: _Like
    told: Usual
    place: int
    is_new: bool

    def draft(self) -> InterceptionDraft:
        """The row as the long way has it."""
        values: dict[str, Any] = dict.fromkeys(_ABSENT, "") | dict(zip(_GIVEN, self.own + self.like.row, strict=True))
        if values["first_byte_micros"] == NONE:
            values["first_byte_micros"] = None
        return InterceptionDraft(**values, thread_root_id=values["id"])


@dataclass(slots=True)
class Taken:
    """What was stored by the short way, by id. `opened` are openings alone, whose reports are to come."""

    opened: Mapping[str, Opening] = field(default_factory=dict)
    wholes: Mapping[str, Whole] = field(default_factory=dict)
    tallies: Mapping[Kind, Tally] = field(default_factory=dict)


def store(conn: Connection, openings: Sequence[Opening], told: Sequence[Told], prices: PriceTable) -> Taken:
    """Store what is usual of these."""
    waiting = {one.interception_id: one for one in openings}
    if len(waiting) < len(openings):
        return Taken()
    new, opened = _usual(waiting, told)
    wholes = _inserted(conn, new) | _completed(conn, opened)
    for one in told:
        waiting.pop(one[0], None)
    taken = _opened(conn, waiting)
    if not wholes:
        return Taken(taken)
    if prices:
        wholes = {one: _with_costs(whole, prices) for one, whole in wholes.items()}
    groups = _groups(wholes)
    _store_facts(conn, [one.told for one in wholes.values()])
    _store_sessions(conn, groups, wholes)
    kinds: defaultdict[Kind, list[Whole]] = defaultdict(list)
    for like, group in groups.items():
        kinds[like.kind] += group
    tallies = {kind: _tally(group) for kind, group in kinds.items()}
    sums = record_sums.Sums()
    for kind, tally in tallies.items():
        sums.kind(kind, tally)
    sums.store(conn)
    return Taken(taken, wholes, tallies)


def _usual(waiting: Mapping[str, Opening], told: Sequence[Told]) -> tuple[dict[str, Whole], dict[str, Whole]]:
    """Those that are told of at once, that answer no tool call, and that had no trouble.

    By id, first those whose openings are here, then those that must have been opened before. This is for every
    request: what is the same for many is put together once.
    """
    new: dict[str, Whole] = {}
    opened: dict[str, Whole] = {}
    # The first report of an interception or none: its reports count in their order.
    seen: set[str] = set()
    known: dict[tuple[Any, ...], _Like] = {}
    for place, one in enumerate(told):
        interception_id = one[0]
        if interception_id in seen:
            continue
        seen.add(interception_id)
        usual = one if isinstance(one, Usual) else usual_of(one)
        if usual is None:
            continue
        _, resolution_id, origin, start, reporter, facts, end, outcome, status, request_id, duration, first = usual[:12]
        if facts.correlating_tool_call_id:
            continue
        opening = waiting.get(interception_id)
        if opening is None:
            asked = _NOT_ASKED
        elif opening[1] != resolution_id or opening[-1] != start or opening[2] != origin:
            continue
        else:
            asked = opening[3:-1]
        key = (origin, reporter, facts, outcome, status, asked, start // DAY_MICROS)
        like = known.get(key)
        if like is None:
            like = known[key] = _like(*key)
        own = (
            interception_id, resolution_id, facts.client_session_id or interception_id, start, end, request_id,
            duration, first,
        )  # fmt: skip
        (opened if opening is None else new)[interception_id] = _new(
            Whole, (own, like, usual, place, opening is not None)
        )
    return new, opened


# Of an opening that is not here: bridge, operation, model, upstream model, client.
_NOT_ASKED = ("",) * 5


def _like(
    origin: Origin, reporter: str, facts: Facts, outcome: str, status: int, asked: tuple[str, ...], day: int
) -> _Like:
    """What the opening says counts, as it does where it comes first."""
    bridge, operation, model, upstream_model, client = asked
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
    )
    return _Like(row, kind, not facts.client_session_id)


def _groups(wholes: Mapping[str, Whole]) -> Mapping[_Like, list[Whole]]:
    groups: defaultdict[_Like, list[Whole]] = defaultdict(list)
    for whole in wholes.values():
        groups[whole[1]].append(whole)
    return groups


def _inserted(conn: Connection, wholes: dict[str, Whole]) -> dict[str, Whole]:
    """Those that were new. A row may be there all the same: of another worker's report, or of one opened twice."""
    rows: defaultdict[_Row, list[_Row]] = defaultdict(list)
    for like, group in _groups(wholes).items():
        rows[like.row] += [own for own, _, _, _, _ in group]
    new = bulk.insert_new(conn, "interceptions", _FORM, rows, "id")
    return wholes if new is None else {one: wholes[one] for one in wholes if one in new}


def _opened(conn: Connection, waiting: dict[str, Opening]) -> dict[str, Opening]:
    """Those that were new of openings of which nothing else is told yet."""
    rows: defaultdict[_Row, list[_Row]] = defaultdict(list)
    for interception_id, resolution_id, origin, *asked, start in waiting.values():
        rows[*origin, *asked].append((interception_id, resolution_id, start))
    new = bulk.insert_new(conn, "interceptions", _OPENING, rows, "id")
    return waiting if new is None else {one: waiting[one] for one in waiting if one in new}


def _completed(conn: Connection, wholes: dict[str, Whole]) -> dict[str, Whole]:
    """Those of which nothing but their opening was there."""
    rows = [_completing(one.own + one.like.row) for one in wholes.values()]
    completed = {row[0] for row in bulk.select_for(conn, _COMPLETION[0], rows, _COMPLETION[1])}
    return {one: wholes[one] for one in wholes if one in completed}


def _with_costs(whole: Whole, prices: PriceTable) -> Whole:
    told, kind = whole.told, whole.like.kind
    provider_id, upstream_model, model = kind.origin.provider_id, kind.upstream_model, kind.model
    for usage in told.token_usages():
        cost = priced(usage, prices, provider_id=provider_id, upstream_model=upstream_model, model=model)
        told = told._replace(cost_micros=NONE if cost.cost_micros is None else cost.cost_micros)
    return whole._replace(told=told)


def _store_facts(conn: Connection, told: Sequence[Usual]) -> None:
    insert_facts(conn, TokenUsage, list(map(_usage_row, filter(_has_usage, told))))
    insert_facts(conn, Prompt, list(map(_prompt_row, filter(_has_prompt, told))))
    calls = [(one.interception_id, *call) for one in filter(_tool_calls, told) for call in one.tool_calls]
    insert_facts(conn, ToolCall, calls)
    thoughts = [
        (one.interception_id, *thought) for one in filter(_model_thoughts, told) for thought in one.model_thoughts
    ]
    insert_facts(conn, ModelThought, thoughts)


def _tally(group: Sequence[Whole]) -> Tally:
    """What was reported of interceptions of one kind."""
    columns: Any = Usual._make(zip(*[one.told for one in group], strict=True))
    count = len(group)
    # Where there is no usage, its numbers are 0; where there is no price, the cost is NONE.
    tokens = map(sum, columns[_TOKENS])
    unpriced = columns.cost_micros.count(NONE)
    return Tally(
        [one.is_new for one in group].count(True),
        (count, count - columns.usage_id.count(""), *tokens, sum(columns.cost_micros) - NONE * unpriced, unpriced),
        count - columns.prompt_id.count(""),
        sum(map(len, columns.tool_calls)),
        sum(map(len, columns.model_thoughts)),
    )


def _store_sessions(conn: Connection, groups: Mapping[_Like, Sequence[Whole]], wholes: Mapping[str, Whole]) -> None:
    """Sessions of one, which are new; then what belongs to sessions that may be there."""
    own: defaultdict[Kind, list[Usual]] = defaultdict(list)
    named: list[Whole] = []
    for like, group in groups.items():
        if like.has_own_session:
            own[like.kind] += [one.told for one in group]
        else:
            named += group
    new = record_sums.insert_own(conn, own)
    if new is not None:
        named += [wholes[one[0]] for group in own.values() for one in group if one[0] not in new]
    if not named:
        return
    sums = record_sums.Sums()
    told = sorted(((one.draft(), one.told.report()) for one in named), key=_when)
    for draft, _ in told:
        sums.in_session(draft)
    for draft, report in told:
        for fact in facts_of(report):
            sums.fact_in_session(draft, fact)
    sums.store(conn)


def _when(told: tuple[InterceptionDraft, Report]) -> tuple[int, str]:
    draft, _ = told
    return draft.start_time, draft.id
