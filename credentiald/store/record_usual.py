"""The short way into the file for what nearly every interception is: opened once, and reported as a whole.

What its row will be is all in the opening and the report, so nothing is read or merged: it is written as it will stay,
where the opening came a moment ago and waits for its report, and else completed, where nothing is in the row but what
the opening left. What this takes is stored as if it had come in a batch of its own before the rest, and is the same in
the file as by the long way (record_writing.py), which takes everything else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from credentiald.prices import PriceTable, priced
from credentiald.record_model import (
    DAY_MICROS,
    Fact,
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
from credentiald.store.record_rows import COLUMNS, fact_row, insert_facts

# In the order of `_row_of`.
_OWN = (
    "id", "resolution_id", "session_id", "start_time", "end_time", "upstream_request_id", "duration_micros",
    "first_byte_micros",
)  # fmt: skip
_ALIKE = (
    *Origin._fields, "bridge_instance_id", "operation", "model", "upstream_model", "client", "user_agent", "streaming",
    "outcome", "http_status",
)  # fmt: skip
_GIVEN = _OWN + _ALIKE
_MODEL, _UPSTREAM_MODEL = _GIVEN.index("model"), _GIVEN.index("upstream_model")
_OF_KIND = itemgetter(*map(_GIVEN.index, ("model", "upstream_model", "client", "outcome", "start_time")))
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
    f" first_byte_micros = NULLIF({_TOLD['first_byte_micros']}, {bulk.NONE}) FROM",
    f"AS told WHERE interceptions.id = {_TOLD['id']}"
    f" AND {' AND '.join(f'+interceptions.{one} = {_TOLD[one]}' for one in _OPENED[1:])}"
    " AND +interceptions.session_id = '' AND +interceptions.end_time IS NULL RETURNING id",
)
_Row = tuple[Value, ...]


class Whole(NamedTuple):
    """One that was stored: its row, what was reported of it, with costs, and the place of the report.

    Of one that was opened before, the row has what the report says of the opening, and that is what the opening says.
    """

    row: _Row
    report: Report
    place: int
    is_new: bool

    def draft(self) -> InterceptionDraft:
        """The row as the long way has it."""
        values: dict[str, Any] = dict.fromkeys(_ABSENT, "") | dict(zip(_GIVEN, self.row, strict=True))
        if values["first_byte_micros"] == bulk.NONE:
            values["first_byte_micros"] = None
        return InterceptionDraft(**values, thread_root_id=values["id"])


@dataclass(slots=True)
class Taken:
    """What was stored by the short way, by id. `opened` are openings alone, whose reports are to come."""

    opened: Mapping[str, Opening] = field(default_factory=dict)
    wholes: Mapping[str, Whole] = field(default_factory=dict)
    tallies: Mapping[Kind, Tally] = field(default_factory=dict)


def store(conn: Connection, openings: Sequence[Opening], reports: Sequence[Report], prices: PriceTable) -> Taken:
    """Store what is usual of these."""
    waiting = {one.interception_id: one for one in openings}
    if len(waiting) < len(openings):
        return Taken()
    new, opened = _usual(waiting, reports)
    wholes = _inserted(conn, new) | _completed(conn, opened)
    for report in reports:
        waiting.pop(report.interception_id, None)
    taken = _opened(conn, waiting)
    if not wholes:
        return Taken(taken)
    if prices:
        wholes = {one: _with_costs(whole, prices) for one, whole in wholes.items()}
    groups = _grouped(wholes.values())
    _store_facts(conn, [one.report for one in wholes.values()])
    _store_sessions(conn, groups, wholes)
    tallies = {
        kind: record_sums.tally_of([one.report for one in group], new=[one.is_new for one in group].count(True))
        for kind, group in groups.items()
    }
    sums = record_sums.Sums()
    for kind, tally in tallies.items():
        sums.kind(kind, tally)
    sums.store(conn)
    return Taken(taken, wholes, tallies)


def _usual(waiting: Mapping[str, Opening], reports: Sequence[Report]) -> tuple[dict[str, Whole], dict[str, Whole]]:
    """Those that are told of at once, that answer no tool call, and that had no trouble.

    By id, first those whose openings are here, then those that must have been opened before.
    """
    new: dict[str, Whole] = {}
    opened: dict[str, Whole] = {}
    # The first report of an interception or none: its reports count in their order.
    seen: set[str] = set()
    for place, report in enumerate(reports):
        interception_id = report.interception_id
        if interception_id in seen:
            continue
        seen.add(interception_id)
        opening = waiting.get(interception_id)
        row = _row_of(opening, report)
        if row is not None:
            is_new = opening is not None
            (new if is_new else opened)[interception_id] = _new(Whole, (row, report, place, is_new))
    return new, opened


def _inserted(conn: Connection, wholes: dict[str, Whole]) -> dict[str, Whole]:
    """Those that were new. A row may be there all the same: of another worker's report, or of one opened twice."""
    new = bulk.insert_new(conn, "interceptions", _FORM, [one.row for one in wholes.values()], "id") if wholes else None
    return wholes if new is None else {one: wholes[one] for one in wholes if one in new}


def _opened(conn: Connection, waiting: dict[str, Opening]) -> dict[str, Opening]:
    """Those that were new of openings of which nothing else is told yet."""
    rows = [
        (interception_id, resolution_id, start, *origin, bridge_instance_id, operation, model, upstream_model, client)
        for interception_id, resolution_id, origin, bridge_instance_id, operation, model, upstream_model, client, start
        in waiting.values()
    ]  # fmt: skip
    new = bulk.insert_new(conn, "interceptions", _OPENING, rows, "id") if rows else None
    return waiting if new is None else {one: waiting[one] for one in waiting if one in new}


def _completed(conn: Connection, wholes: dict[str, Whole]) -> dict[str, Whole]:
    """Those of which nothing but their opening was there."""
    rows = [_completing(one.row) for one in wholes.values()]
    completed = {row[0] for row in bulk.select_for(conn, _COMPLETION[0], rows, _COMPLETION[1])}
    return {one: wholes[one] for one in wholes if one in completed}


def _row_of(opening: Opening | None, report: Report) -> _Row | None:
    """What record_merge.py makes of the two, where that is usual; without the first, if it says what the second does.

    Both are unpacked as wholes: their fields one by one would cost as much as all else here.
    """
    (
        interception_id,
        resolution_id,
        origin,
        start_micros,
        reporter,
        facts,
        usages,
        prompts,
        calls,
        thoughts,
        end,
        _,
        tries,
    ) = report
    if facts is None or end is None or tries:
        return None
    client, user_agent, session_id, answered_call, operation, model, upstream_model, streaming = facts
    end_micros, outcome, category, reason, message, status, request_id, duration_micros, first_byte_micros = end
    if (
        answered_call
        or category
        or reason
        or message
        or (len(usages) > 1 and _any_twice(usages))
        or (len(prompts) > 1 and _any_twice(prompts))
        or (len(calls) > 1 and _any_twice(calls))
        or (len(thoughts) > 1 and _any_twice(thoughts))
    ):
        return None
    if opening is not None:
        _, resolved, opened_for, bridge, opened_operation, asked_model, mapped_model, asking, opened_micros = opening
        if resolved != resolution_id or opened_micros != start_micros or opened_for != origin:
            return None
        # What the opening says counts, as it does where it comes first.
        reporter, operation = bridge or reporter, opened_operation or operation
        model, upstream_model, client = asked_model or model, mapped_model or upstream_model, asking or client
    return (
        interception_id,
        resolution_id,
        session_id or interception_id,
        start_micros,
        end_micros,
        request_id,
        duration_micros,
        bulk.NONE if first_byte_micros is None else first_byte_micros,
        *origin,
        reporter,
        operation,
        model,
        upstream_model,
        client,
        user_agent,
        # A bool is no int to Python's sqlite3 (bulk.py).
        1 if streaming else 0,
        outcome,
        status,
    )


def _any_twice(facts: Sequence[Fact]) -> bool:
    return len({one.id for one in facts}) < len(facts)


def _with_costs(whole: Whole, prices: PriceTable) -> Whole:
    report = whole.report
    origin, model, upstream_model = report.origin, str(whole.row[_MODEL]), str(whole.row[_UPSTREAM_MODEL])
    usages = [
        priced(one, prices, provider_id=origin.provider_id, upstream_model=upstream_model, model=model)
        for one in report.token_usages
    ]
    return whole._replace(report=report._replace(token_usages=tuple(usages)))


def _grouped(wholes: Iterable[Whole]) -> dict[Kind, list[Whole]]:
    """What is the same for many is looked up once for them."""
    groups: dict[Kind, list[Whole]] = {}
    for whole in wholes:
        row, report, _, _ = whole
        model, upstream_model, client, outcome, start_micros = _OF_KIND(row)
        kind = _new(Kind, (report.origin, model, upstream_model, client, outcome, start_micros // DAY_MICROS))
        if kind in groups:
            groups[kind].append(whole)
        else:
            groups[kind] = [whole]
    return groups


def _store_facts(conn: Connection, reports: Sequence[Report]) -> None:
    usages = [fact_row(report.interception_id, one) for report in reports for one in report.token_usages]
    insert_facts(conn, TokenUsage, usages)
    insert_facts(conn, Prompt, [(report.interception_id, *one) for report in reports for one in report.prompts])
    insert_facts(conn, ToolCall, [(report.interception_id, *one) for report in reports for one in report.tool_calls])
    thoughts = [(report.interception_id, *one) for report in reports for one in report.model_thoughts]
    insert_facts(conn, ModelThought, thoughts)


def _store_sessions(conn: Connection, groups: Mapping[Kind, Sequence[Whole]], wholes: Mapping[str, Whole]) -> None:
    """Sessions of one, which are new; then what belongs to sessions that may be there."""
    own: dict[str, _Row] = {}
    named: list[Whole] = []
    for kind, group in groups.items():
        session_of = record_sums.own_sessions(kind)
        for whole in group:
            interception_id, _, _, start_micros, _, facts, usages, prompts, _, _, _, _, _ = whole.report
            if facts is not None and facts.client_session_id:
                named.append(whole)
            else:
                own[interception_id] = session_of(interception_id, start_micros, usages, prompts)
    new = record_sums.insert_own(conn, list(own.values()))
    if new is not None:
        named += [wholes[one] for one in own if one not in new]
    if not named:
        return
    sums = record_sums.Sums()
    told = sorted(((one.draft(), one.report) for one in named), key=_when)
    for draft, _ in told:
        sums.in_session(draft)
    for draft, report in told:
        for fact in facts_of(report):
            sums.fact_in_session(draft, fact)
    sums.store(conn)


def _when(told: tuple[InterceptionDraft, Report]) -> tuple[int, str]:
    draft, _ = told
    return draft.start_time, draft.id
