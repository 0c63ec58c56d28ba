"""The short way into the file for what nearly every interception is: opened and reported as a whole within a moment.

Its row is all in the opening and the report, so nothing is read, merged or changed: it is written as it will stay. What
this takes is stored as if it had come in a batch of its own before the rest, and is the same in the file as by the long
way (record_writing.py), which takes everything else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import add, itemgetter
from typing import Any

from credentiald.prices import PriceTable, priced
from credentiald.record_model import (
    DAY_MICROS,
    Fact,
    InterceptionDraft,
    Kind,
    ModelThought,
    Opening,
    Prompt,
    Report,
    Tally,
    TokenUsage,
    ToolCall,
)
from credentiald.store import bulk, record_sums
from credentiald.store.connection import Connection, Value
from credentiald.store.record_rows import TABLES, fact_row, insert_facts

# In the order of `_row_of`.
_GIVEN = (
    "id", "resolution_id", "service_id", "bridge_instance_id", "user_id", "provider_id", "provider_name",
    "provider_type", "source", "credential_id", "operation", "model", "upstream_model", "client", "user_agent",
    "session_id", "streaming", "start_time", "end_time", "outcome", "http_status", "upstream_request_id",
    "duration_micros", "first_byte_micros",
)  # fmt: skip
_MODEL, _UPSTREAM_MODEL = _GIVEN.index("model"), _GIVEN.index("upstream_model")
_TALLIED = itemgetter(
    *map(_GIVEN.index, ("id", "model", "upstream_model", "client", "session_id", "start_time", "outcome"))
)
_new = tuple.__new__
_ABSENT = (
    "thread_parent_id", "correlating_tool_call_id", "error_category", "error_reason", "error_message",
)  # fmt: skip
_FORM = bulk.Form(
    "INSERT OR IGNORE INTO interceptions",
    _GIVEN,
    # It answers nothing, so it begins its thread.
    (*((one, "''") for one in _ABSENT), ("thread_root_id", "{id}"), bulk.or_null("first_byte_micros")),
)
_Row = tuple[Value, ...]


@dataclass(slots=True)
class Whole:
    """One that was stored: its row, what was reported of it, with costs, and the place of the report."""

    row: _Row
    report: Report
    place: int

    def draft(self) -> InterceptionDraft:
        """The row as the long way has it."""
        values: dict[str, Any] = dict.fromkeys(_ABSENT, "") | dict(zip(_GIVEN, self.row, strict=True))
        if values["first_byte_micros"] == bulk.NONE:
            values["first_byte_micros"] = None
        return InterceptionDraft(**values, thread_root_id=values["id"])


@dataclass(slots=True)
class Taken:
    """What was stored by the short way, by id."""

    wholes: Mapping[str, Whole] = field(default_factory=dict)
    tallies: Mapping[Kind, Tally] = field(default_factory=dict)


def store(conn: Connection, openings: Sequence[Opening], reports: Sequence[Report], prices: PriceTable) -> Taken:
    """Store what is usual of these."""
    wholes = _usual(openings, reports)
    if not wholes:
        return Taken()
    # A row of this id may be there all the same, for another worker's reports or for an opening that was repeated.
    new = bulk.insert_new(conn, "interceptions", _FORM, [one.row for one in wholes.values()], "id")
    if new is not None:
        wholes = {one: wholes[one] for one in wholes if one in new}
    if prices:
        for whole in wholes.values():
            whole.report = _with_costs(whole, prices)
    rows = _Rows()
    for whole in wholes.values():
        rows.add(whole)
    rows.store(conn, wholes)
    return Taken(wholes, rows.tallies)


def _usual(openings: Sequence[Opening], reports: Sequence[Report]) -> dict[str, Whole]:
    """Those that are told of once, in one report, that answer no tool call, and that had no trouble."""
    waiting = {one.interception_id: one for one in openings}
    if len(waiting) < len(openings):
        return {}
    wholes: dict[str, Whole] = {}
    for place, report in enumerate(reports):
        # The first report of an interception or none: its reports count in their order.
        opening = waiting.pop(report.interception_id, None)
        if opening is not None and (row := _row_of(opening, report)) is not None:
            wholes[report.interception_id] = Whole(row, report, place)
    return wholes


def _row_of(opening: Opening, report: Report) -> _Row | None:
    """What record_merge.py makes of the two, where that is usual.

    Both are unpacked as wholes: their fields one by one would cost as much as all else here.
    """
    interception_id, resolution_id, origin, start_micros, reporter, facts, usages, prompts, calls, thoughts, end, _ = (
        report
    )
    _, resolved, opened_for, instance_id, operation, model, upstream_model, client, opened_micros = opening
    if (
        facts is None
        or end is None
        or resolved != resolution_id
        or opened_micros != start_micros
        or opened_for != origin
    ):
        return None
    told_client, user_agent, session_id, answered_call, told_operation, told_model, told_upstream, streaming = facts
    end_micros, outcome, category, reason, message, status, request_id, duration_micros, first_byte_micros = end
    if (
        answered_call
        or category
        or reason
        or message
        or any(
            len(some) > 1 and len({one.id for one in some}) < len(some) for some in (usages, prompts, calls, thoughts)
        )
    ):
        return None
    service_id, user_id, provider_id, provider_name, provider_type, source, credential_id = origin
    return (
        interception_id,
        resolution_id,
        service_id,
        instance_id or reporter,
        user_id,
        provider_id,
        provider_name,
        provider_type,
        source,
        credential_id,
        operation or told_operation,
        model or told_model,
        upstream_model or told_upstream,
        client or told_client,
        user_agent,
        session_id or interception_id,
        # A bool is no int to Python's sqlite3 (bulk.py).
        1 if streaming else 0,
        start_micros,
        end_micros,
        outcome,
        status,
        request_id,
        duration_micros,
        bulk.NONE if first_byte_micros is None else first_byte_micros,
    )


def _with_costs(whole: Whole, prices: PriceTable) -> Report:
    report = whole.report
    origin, model, upstream_model = report.origin, str(whole.row[_MODEL]), str(whole.row[_UPSTREAM_MODEL])
    usages = [
        priced(one, prices, provider_id=origin.provider_id, upstream_model=upstream_model, model=model)
        for one in report.token_usages
    ]
    return report._replace(token_usages=tuple(usages))


class _Rows:
    """What is stored beside the rows of interceptions, gathered in one round."""

    def __init__(self) -> None:
        self.tallies: dict[Kind, Tally] = {}
        self._facts: dict[type[Fact], list[_Row]] = {kind: [] for kind in TABLES}
        # By interception, those that are a session of their own; and those that belong to one that may be there.
        self._own_sessions: dict[str, _Row] = {}
        self._in_sessions: list[Whole] = []

    def add(self, whole: Whole) -> None:
        """Take what was reported of one."""
        interception_id, model, upstream_model, client, session_id, start_micros, outcome = _TALLIED(whole.row)
        _, _, origin, _, _, _, usages, prompts, calls, thoughts, _, _ = whole.report
        kind = _new(Kind, (origin, model, upstream_model, client, outcome, start_micros // DAY_MICROS))
        tally = self.tallies.get(kind)
        if tally is None:
            tally = self.tallies[kind] = Tally([0] * len(record_sums.DAY_COUNTS))
        counts = record_sums.NO_COUNTS
        for usage in usages:
            self._facts[TokenUsage].append(fact_row(interception_id, usage))
            own = record_sums.counts_of(usage)
            counts = own if counts is record_sums.NO_COUNTS else tuple(map(add, counts, own))
        tally.sums = list(map(add, tally.sums, (1, len(usages), *counts)))
        prompt = ""
        for one in prompts:
            self._facts[Prompt].append((interception_id, *one))
            prompt = one.text or prompt
        tally.prompts += len(prompts)
        if calls or thoughts:
            self._facts[ToolCall] += [(interception_id, *one) for one in calls]
            self._facts[ModelThought] += [(interception_id, *one) for one in thoughts]
            tally.tool_calls += len(calls)
            tally.model_thoughts += len(thoughts)
        if session_id == interception_id:
            self._own_sessions[interception_id] = record_sums.own_session(
                interception_id, origin, model, client, start_micros, counts, prompt
            )
        else:
            self._in_sessions.append(whole)

    def store(self, conn: Connection, wholes: Mapping[str, Whole]) -> None:
        """Write it all."""
        for kind, rows in self._facts.items():
            insert_facts(conn, kind, rows)
        new = record_sums.insert_own(conn, list(self._own_sessions.values()))
        if new is not None:
            self._in_sessions += [wholes[one] for one in self._own_sessions if one not in new]
        sums = record_sums.Sums()
        drafts = sorted(((one.draft(), one.report) for one in self._in_sessions), key=_when)
        for draft, _ in drafts:
            sums.in_session(draft)
        for draft, report in drafts:
            for fact in (*report.token_usages, *report.prompts):
                sums.fact_in_session(draft, fact)
        for kind, tally in self.tallies.items():
            sums.kind(kind, tally)
        sums.store(conn)


def _when(told: tuple[InterceptionDraft, Report]) -> tuple[int, str]:
    return told[0].start_time, told[0].id
