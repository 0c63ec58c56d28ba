"""A batch of openings and reports into the file of records, each record once, in one transaction.

What is there already is read first, decided on in Python (record_merge.py), and written back in few statements.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from credentiald import record_merge
from credentiald.bridge_instances import Instance
from credentiald.prices import NO_PRICES, PriceTable, priced
from credentiald.record_model import (
    PRESUMED,
    Fact,
    InterceptionDraft,
    Opening,
    OpeningRow,
    Report,
    ThreadPlace,
    TokenUsage,
    ToolCall,
    facts_of,
)
from credentiald.store import bulk, late_parents, record_sums, record_usual, usual_facts
from credentiald.store.connection import Connection, Value
from credentiald.store.record_rows import COLUMNS, TABLES, draft_of, fact_row, insert_facts
from credentiald.store.record_usual import Taken
from credentiald.usual_report import NONE_MATCHED, Matched, Told, report_of

_values = attrgetter(*COLUMNS)
# What sums tell interceptions apart by, of what may change when one is resolved again or an earlier opening comes late.
_counted_by = attrgetter("start_time", "provider_name", "provider_type", "model", "client")
_INSERTION = f"INSERT INTO interceptions ({', '.join(COLUMNS)})"
_UPDATE = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(f"{one} = excluded.{one}" for one in COLUMNS if one != "id")

# In the order in which they began: ids rise with time, and stay what they are when an earlier opening comes late.
_NEVER: tuple[str, None] = ("", None)
# For rows of child id, user and tool call. So many calls of one id are looked at for the one that is answered.
_PARENTS = (
    "SELECT asked.column1 AS child_id, i.id, i.thread_root_id, i.session_id FROM",
    "AS asked JOIN interceptions AS i ON i.id = ("
    " SELECT caller.id FROM ("
    "  SELECT interception_id FROM tool_calls WHERE tool_call_id = asked.column3 ORDER BY create_time DESC LIMIT 64"
    " ) AS call JOIN interceptions AS caller ON caller.id = call.interception_id"
    " WHERE caller.user_id = asked.column2 AND caller.id < asked.column1"
    " ORDER BY caller.id DESC LIMIT 1)",
)
# The same of ids that more have than were looked at: the user's own requests of before are looked through instead. The
# plus keeps SQLite from going through all calls with the id.
_PARENTS_OF_MANY = (
    "SELECT asked.column1 AS child_id, i.id, i.thread_root_id, i.session_id FROM",
    "AS asked JOIN interceptions AS i ON i.number = ("
    " SELECT own.number FROM ("
    "  SELECT number, id FROM interceptions WHERE user_id = asked.column2 AND start_time <= asked.column4"
    "  ORDER BY start_time DESC LIMIT 64"
    " ) AS own WHERE own.id < asked.column1 AND EXISTS ("
    "  SELECT 1 FROM tool_calls WHERE interception_id = own.id AND +tool_call_id = asked.column3"
    " ) ORDER BY own.id DESC LIMIT 1)"
    " WHERE (SELECT count(*) FROM (SELECT 1 FROM tool_calls WHERE tool_call_id = asked.column3 LIMIT 64) AS many) = 64",
)


@dataclass(slots=True, kw_only=True)
class Batch:
    """What waits to be stored. What is `matched` is told of nowhere else in it. `vanished` are interceptions that end
    now, presumably, with the time; `heard` is when each bridge was last heard of."""

    openings: Sequence[OpeningRow] = ()
    reports: Sequence[Told] = ()
    matched: Matched = NONE_MATCHED
    vanished: Sequence[tuple[str, int]] = ()
    heard: Mapping[Instance, int] = field(default_factory=dict)

    @property
    def has_reports(self) -> bool:
        """Whether anything is reported."""
        return bool(self.reports or self.matched)

    def interception_ids(self) -> list[str]:
        """What it tells of, some of them twice."""
        return [*self.matched.told.interception_id, *(one[0] for one in (*self.openings, *self.reports))]


@dataclass(slots=True, kw_only=True)
class Stored:
    """What was new: by the short way, and by the long one.

    `taken` are places of reports whose interception is somebody else's; those that are matched come after the others.
    """

    usual: Taken = field(default_factory=Taken)
    started: list[InterceptionDraft] = field(default_factory=list)
    ended: list[InterceptionDraft] = field(default_factory=list)
    facts: list[tuple[InterceptionDraft, Fact]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)

    def unfolded(self) -> "Stored":
        """The same, all as by the long way: for who looks at each record."""
        opened = [record_merge.opened(None, Opening._make(one)) for one in self.usual.opened.values()]
        told = [
            (group.is_new, draft, report)
            for group in self.usual.groups
            for draft, report in zip(group.drafts(), group.reports(), strict=True)
        ]
        facts = [(draft, fact) for _, draft, report in told for fact in facts_of(report)]
        return Stored(
            started=[
                *(draft for draft in opened if draft is not None),
                *(draft for is_new, draft, _ in told if is_new),
                *self.started,
            ],
            ended=[draft for _, draft, _ in told] + self.ended,
            facts=facts + self.facts,
            taken=self.taken,
        )


def store(conn: Connection, batch: Batch, prices: PriceTable = NO_PRICES) -> Stored:
    """Store what is new of a batch, token usages with their cost; what was."""
    stored = Stored(usual=record_usual.store(conn, batch.openings, batch.reports, batch.matched, prices))
    openings, told = stored.usual.rest(batch.openings, batch.reports, batch.matched)
    if openings or told or batch.vanished:
        reports = [(place, report_of(one)) for place, one in told]
        _store_rest(conn, openings, reports, batch.vanished, prices, stored)
    late_parents.adopt(conn, late_parents.calls_in(stored.usual.groups, stored.facts))
    _note_heard(conn, batch.heard)
    return stored


def _store_rest(
    conn: Connection,
    openings: Sequence[Opening],
    reports: Sequence[tuple[int, Report]],
    vanished: Sequence[tuple[str, int]],
    prices: PriceTable,
    stored: Stored,
) -> None:
    ids = {one.interception_id for one in openings}
    ids.update(one.interception_id for _, one in reports)
    ids.update(interception_id for interception_id, _ in vanished)
    work = _Work(conn, ids)
    for opening in openings:
        work.fold(opening.interception_id, record_merge.opened(work.drafts.get(opening.interception_id), opening))
    told = []
    for place, report in reports:
        draft = record_merge.reported(work.drafts.get(report.interception_id), report)
        if draft is None:
            stored.taken.append(place)
            continue
        work.fold(report.interception_id, draft)
        told.append((draft, report))
    stored.facts = [(draft, _with_cost(draft, fact, prices)) for draft, fact in work.new_facts(told)]
    for interception_id, end_micros in vanished:
        if (found := work.drafts.get(interception_id)) is not None:
            record_merge.presumed_ended(found, end_micros)
            work.fold(interception_id, found)
    sums = record_sums.Sums()
    work.join_threads(told, stored.facts, sums)
    work.count_moved(sums)
    for draft, fact in stored.facts:
        sums.fact(draft, fact)
    stored.started = [draft for draft in work.changed.values() if draft.id not in work.ends]
    stored.ended = [draft for draft in work.changed.values() if work.ends_now(draft)]
    # Before the records: a session that has no row yet is counted by what is stored.
    sums.store(conn)
    bulk.insert(conn, _INSERTION, [_values(draft) for draft in work.changed.values()], _UPDATE)
    for kind in TABLES:
        insert_facts(conn, kind, [fact_row(draft.id, fact) for draft, fact in stored.facts if type(fact) is kind])


class _Work:
    """The rows of one batch."""

    def __init__(self, conn: Connection, ids: Collection[str]) -> None:
        self._conn = conn
        found = bulk.select(conn, f"SELECT {', '.join(COLUMNS)} FROM interceptions WHERE id IN", list(ids))  # noqa: S608
        self.drafts: dict[str, InterceptionDraft] = {row["id"]: draft_of(row) for row in found}
        # How those ended that were there, for who has ended now; and as what those were counted that are.
        self.ends = {one.id: one.outcome for one in self.drafts.values()}
        self._counted = {one.id: replace(one) for one in self.drafts.values() if one.session_id}
        # Those that were given up before anything was told of them.
        self._given_up = {
            one.id
            for one in self._counted.values()
            if one.outcome == PRESUMED and one.session_id == one.id == one.thread_root_id
        }
        self.changed: dict[str, InterceptionDraft] = {}

    def fold(self, interception_id: str, draft: InterceptionDraft | None) -> None:
        """Keep a row that has something new; None for an opening of an id that is somebody else's."""
        if draft is not None:
            self.drafts[interception_id] = self.changed[interception_id] = draft

    def ends_now(self, draft: InterceptionDraft) -> bool:
        """Whether the row has got its end, or its real one in place of one that was presumed."""
        before = self.ends.get(draft.id, "")
        return bool(draft.outcome) and before != draft.outcome and before in ("", PRESUMED)

    def new_facts(self, told: Sequence[tuple[InterceptionDraft, Report]]) -> Iterator[tuple[InterceptionDraft, Fact]]:
        """The facts that are not stored yet, each once."""
        known = self._stored_facts(told)
        for interception_id, _, _ in known:
            self._given_up.discard(interception_id)
        for draft, report in told:
            for fact in facts_of(report):
                key = (draft.id, type(fact), fact.id)
                if key not in known:
                    known.add(key)
                    yield draft, fact

    def _stored_facts(self, told: Sequence[tuple[InterceptionDraft, Report]]) -> set[tuple[str, type[Fact], str]]:
        known: set[tuple[str, type[Fact], str]] = set()
        before = list({draft.id for draft, _ in told} & self._counted.keys())
        for kind, table in TABLES.items() if before else ():
            head = f"SELECT interception_id, id FROM {table} WHERE interception_id IN"  # noqa: S608 - a name of ours
            known.update((row["interception_id"], kind, row["id"]) for row in bulk.select(self._conn, head, before))
        known.update(usual_facts.stored_ids(self._conn, before))
        return known

    def join_threads(
        self,
        told: Sequence[tuple[InterceptionDraft, Report]],
        facts: Sequence[tuple[InterceptionDraft, Fact]],
        sums: record_sums.Sums,
    ) -> None:
        """Give those rows thread and session that have none and that something is known of now; count them.

        Those that were given up had a session of their own for want of anything better: they are told of now.
        """
        client_sessions = {
            report.interception_id: report.facts.client_session_id for _, report in told if report.facts is not None
        }
        told_of = {report.interception_id for _, report in told}
        for draft in [draft for draft, report in told if draft.id in self._given_up and report.facts is not None]:
            # Once, however often it is told of.
            given_up = self._counted.pop(draft.id, None)
            if given_up is not None:
                sums.interception(given_up, -1)
                draft.session_id = draft.thread_root_id = ""
        fresh = [one for one in self.changed.values() if not one.session_id and (one.id in told_of or one.outcome)]
        # What is answered began before what answers it, so its thread is known by then.
        fresh.sort(key=_id)
        parents = self._parents([one for one in fresh if one.correlating_tool_call_id])
        calls = _calls(facts) if any(one.correlating_tool_call_id for one in fresh) else {}
        for draft in fresh:
            latest, parent = parents.get(draft.id, _NEVER)
            for caller in calls.get((draft.user_id, draft.correlating_tool_call_id), ()):
                if latest < caller.id < draft.id:
                    latest = caller.id
                    parent = ThreadPlace(caller.id, caller.thread_root_id, caller.session_id)
            record_merge.join_thread(draft, client_sessions.get(draft.id, ""), parent)
            sums.interception(draft)

    def _parents(self, answering: Sequence[InterceptionDraft]) -> dict[str, tuple[str, ThreadPlace | None]]:
        """By interception, the latest one before it in which the model called what it answers, with its id.

        Not every upstream makes ids of calls that are unique: of one that is called again and again, by anybody, the
        latest are looked at, and if none of them is the user's, so are the user's latest requests.
        """
        asked = [(one.id, one.user_id, one.correlating_tool_call_id, one.start_time) for one in answering]
        found = list(bulk.select_for(self._conn, _PARENTS[0], [one[:3] for one in asked], _PARENTS[1]))
        known = {row["child_id"] for row in found}
        rest = [one for one in asked if one[0] not in known]
        found += bulk.select_for(self._conn, _PARENTS_OF_MANY[0], rest, _PARENTS_OF_MANY[1])
        return {
            row["child_id"]: (
                row["id"],
                ThreadPlace(row["id"], row["thread_root_id"], row["session_id"]),
            )
            for row in found
        }

    def count_moved(self, sums: record_sums.Sums) -> None:
        """Count those as what they are now that were counted as something else and keep their session."""
        both = [(self._counted[one.id], one) for one in self.changed.values() if one.id in self._counted]
        moved = [(before, draft) for before, draft in both if _counted_by(before) != _counted_by(draft)]
        if not moved:
            return
        usages = usual_facts.stored_usages(self._conn, [draft.id for _, draft in moved])
        for before, draft in moved:
            sums.moved(before, draft, usages.get(draft.id, ()))


def _with_cost(draft: InterceptionDraft, fact: Fact, prices: PriceTable) -> Fact:
    if not isinstance(fact, TokenUsage):
        return fact
    return priced(fact, prices, provider_id=draft.provider_id, upstream_model=draft.upstream_model, model=draft.model)


def _id(draft: InterceptionDraft) -> str:
    return draft.id


def _calls(
    facts: Sequence[tuple[InterceptionDraft, Fact]],
) -> dict[tuple[str, str], list[InterceptionDraft]]:
    """By user and id of the call, who called."""
    calls: dict[tuple[str, str], list[InterceptionDraft]] = {}
    for draft, fact in facts:
        if type(fact) is ToolCall:
            calls.setdefault((draft.user_id, fact.tool_call_id), []).append(draft)
    return calls


def _note_heard(conn: Connection, heard: Mapping[Instance, int]) -> None:
    rows: list[tuple[Value, ...]] = [(*instance, micros) for instance, micros in heard.items()]
    # Workers report of the same bridges: the latest word counts.
    tail = (
        "ON CONFLICT (service_id, id) DO UPDATE SET seen_time = excluded.seen_time"
        " WHERE excluded.seen_time > bridge_instances.seen_time"
    )
    bulk.insert(conn, "INSERT INTO bridge_instances (service_id, id, seen_time)", rows, tail)
