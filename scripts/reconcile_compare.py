"""The upstream's account and the records beside each other: the decision of scripts/reconcile. Nothing here does I/O.

What was told about each request must be in one interception with one end, and nothing else may be in any. Where a
killed bridge took the report with it, the interception must be marked as BRIDGE_VANISHED, and what was told counts as
lost; where nothing reached the upstream, an interception may be there without a record in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconcile_clients import Seen
from reconcile_plan import Ending, Kind, Plan
from reconcile_records import COLUMNS, ENDLESS, VANISHED, Row, Sum

Account = Mapping[str, Any]
MEASURES = ("interceptions", "token usages", *COLUMNS, "other kinds", "tool calls", "thoughts", "prompts")
LEFT_EARLY = "the client left before the upstream had the request"
# How records name what the upstream did; what it told within a stream depends on the API.
_OUTCOMES = {
    "complete": "COMPLETED",
    "left": "CLIENT_GONE",
    "refused": "UPSTREAM_ERROR",
    "silent": "UPSTREAM_ERROR",
    "fails": "UPSTREAM_ERROR",
    "cut": "UPSTREAM_ERROR",
}
_CATEGORY_OF_STATUS = {
    400: "BAD_REQUEST",
    403: "UNAUTHORIZED",
    429: "RATE_LIMITED",
    500: "SERVER_ERROR",
    529: "OVERLOADED",
}
_CATEGORY_OF_FAILURE = {
    Kind.MESSAGES: "OVERLOADED",
    Kind.CHAT: "SERVER_ERROR",
    Kind.RESPONSES: "SERVER_ERROR",
    Kind.GEMINI: "OVERLOADED",
    Kind.CONVERSE: "RATE_LIMITED",
}


@dataclass(kw_only=True)
class Reconciliation:
    """What came out. Sums are by provider and measure; `faults` are sentences, empty where all is well."""

    upstream: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    records: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    lost: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    expected_outcomes: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    # Interceptions without an upstream call, by why that is right.
    apart: Counter[str] = field(default_factory=Counter)

    def difference(self, provider: str, measure: str) -> int:
        """What the upstream told that is neither in the records nor marked as lost; less than 0 for too much."""
        return self.upstream[provider][measure] - self.records[provider][measure] - self.lost[provider][measure]


def compare(
    accounts: Sequence[Account], rows: Sequence[Row], sums: Sequence[Sum], seen: Seen, plans: Mapping[int, Plan]
) -> Reconciliation:
    """All of it. `plans` are those of all requests, by number."""
    found = Reconciliation()
    by_number = {int(one["number"]): one for one in accounts}
    for account in accounts:
        plan = plans[account["number"]]
        _add(found.upstream[plan.provider], account)
        if account["calls"] != 1:
            found.faults.append(f"request {plan.number} was sent to the upstream {account['calls']} times")
        if account["end"] == "open":
            found.faults.append(f"request {plan.number} is still under way at the upstream")
    reported = _reported(rows, found)
    for number, row in reported.items():
        account_of = by_number.get(number)
        if account_of is not None:
            _hold(found, row, account_of, plans[number], seen)
        elif row.outcome == "CLIENT_GONE" and plans[number].ending is Ending.LEAVES_EARLY:
            # What it asked is known as soon as the bridge begins to ask the upstream.
            _must_be_bare(found, row, LEFT_EARLY, but_prompts=True)
        else:
            found.faults.append(f"{row.id} ({row.agent}, {row.outcome}) has no upstream call")
    missing = {number: one for number, one in by_number.items() if number not in reported}
    _judge_unreported([row for row in rows if row.outcome in (ENDLESS, VANISHED)], missing, found, seen, plans)
    for number in sorted(missing):
        found.faults.append(f"request {number} has no interception, or one that says nothing of its end")
    _hold_sums(found, rows, sums)
    return found


def _reported(rows: Iterable[Row], found: Reconciliation) -> dict[int, Row]:
    """The interceptions whose bridge reported them, by number of their request."""
    reported: dict[int, Row] = {}
    ids = set()
    for row in rows:
        if row.id in ids:
            found.faults.append(f"{row.id} is there twice")
        ids.add(row.id)
        if row.outcome in (ENDLESS, VANISHED):
            continue
        found.outcomes[row.outcome] += 1
        number = int(row.agent.removeprefix("reconcile/"))
        if number in reported:
            found.faults.append(f"request {number} has two interceptions, {reported[number].id} and {row.id}")
        reported[number] = row
    return reported


def _judge_unreported(
    rows: Iterable[Row], missing: dict[int, Account], found: Reconciliation, seen: Seen, plans: Mapping[int, Plan]
) -> None:
    """Interceptions of which there is an opening only; those that a killed bridge has lost go out of `missing`."""
    by_model = {(plan.provider, plan.model): number for number, plan in plans.items()}
    own_models = len(by_model) == len(plans)
    early = Counter(
        (plan.provider, plan.model)
        for plan in plans.values()
        if plan.ending is Ending.LEAVES_EARLY and plan.number in seen.left
    )
    for row in rows:
        if row.id in seen.refused:
            _must_be_bare(found, row, "credentiald was killed between answering and being heard")
            continue
        number = by_model[row.provider, row.model] if own_models else None
        if number is not None and number in missing and row.outcome == VANISHED:
            account = missing.pop(number)
            found.outcomes[VANISHED] += 1
            found.expected_outcomes[VANISHED] += 1
            _add(found.lost[row.provider], account)
            # The interception itself is there.
            found.lost[row.provider]["interceptions"] -= 1
            found.records[row.provider]["interceptions"] += 1
            _must_be_bare(found, row, "")
        elif number is not None and number in seen.broken and row.outcome == VANISHED:
            _must_be_bare(found, row, "their bridge was killed before the upstream was asked")
        elif early[row.provider, row.model] > 0:
            early[row.provider, row.model] -= 1
            _must_be_bare(found, row, "the client left, and credentiald was killed, before the upstream was asked")
        else:
            found.faults.append(f"{row.id} ({row.provider}, {row.model}) has no end but {row.outcome}, and no reason")


def _must_be_bare(found: Reconciliation, row: Row, why: str, *, but_prompts: bool = False) -> None:
    if row.usages or row.tools or row.thoughts or (row.prompts and not but_prompts):
        found.faults.append(f"{row.id} has records that no upstream told of")
    if why:
        found.apart[why] += 1


def _hold(found: Reconciliation, row: Row, account: Account, plan: Plan, seen: Seen) -> None:
    """One interception against what the upstream knows of it, field by field."""
    _add_row(found.records[row.provider], row)
    end = account["end"]
    found.expected_outcomes[_OUTCOMES[end]] += 1
    usage = account["usage"]
    facts: list[tuple[str, object, object]] = [
        ("provider", plan.provider, row.provider),
        ("model", plan.model, row.model),
        ("streaming", plan.streaming, row.streaming),
        ("outcome", _OUTCOMES[end], row.outcome),
        ("error category", _category(plan, end), row.category),
        ("token usages", [] if usage is None else [usage], row.usages),
        ("sums of tokens", {name: (usage or {}).get(name, 0) for name in COLUMNS}, row.tokens),
        ("partial", [] if usage is None else [_is_partial(plan, end)], row.partial),
        ("tool calls", sorted(account["tools"]), sorted(row.tools)),
        ("thoughts", sorted(account["thoughts"]), sorted(row.thoughts)),
        ("prompts", [plan.prompt], row.prompts),
        ("client left", end == "left", plan.number in seen.left),
    ]
    if end not in ("silent", "left"):
        facts.append(("upstream's id", f"up-{plan.number}", row.upstream_request_id))
    if row.id in seen.ids:
        facts.append(("number of the id that the client got", plan.number, seen.ids[row.id]))
    if end == "complete":
        extra_bytes = 0 if plan.asks_usage else account["extra_bytes"]
        facts.append(("answer", (200, account["said_bytes"] - extra_bytes), seen.whole.get(plan.number)))
    for name, expected, actual in facts:
        if expected != actual:
            what = f"request {plan.number} ({plan.kind}, {'streaming' if plan.streaming else 'blocking'}, {end})"
            found.faults.append(f"{what} {row.id}: {name}: upstream {expected}, records {actual}")


def _category(plan: Plan, end: str) -> str:
    if end == "refused":
        return _CATEGORY_OF_STATUS[plan.status]
    if end == "fails":
        return _CATEGORY_OF_FAILURE[plan.kind]
    return "UNREACHABLE" if end in ("silent", "cut") else "UNSPECIFIED"


def _is_partial(plan: Plan, end: str) -> bool:
    """A failed response of Responses says that it is over; all other errors leave more to be said."""
    return end != "complete" and not (end == "fails" and plan.kind is Kind.RESPONSES)


def _add(counts: Counter[str], account: Account) -> None:
    usage = account["usage"]
    counts["interceptions"] += 1
    counts["prompts"] += 1
    counts["tool calls"] += len(account["tools"])
    counts["thoughts"] += len(account["thoughts"])
    if usage is not None:
        _add_usage(counts, usage)


def _add_row(counts: Counter[str], row: Row) -> None:
    counts["interceptions"] += 1
    counts["prompts"] += len(row.prompts)
    counts["tool calls"] += len(row.tools)
    counts["thoughts"] += len(row.thoughts)
    for usage in row.usages:
        _add_usage(counts, usage)


def _add_usage(counts: Counter[str], usage: Mapping[str, int]) -> None:
    counts["token usages"] += 1
    for name, count in usage.items():
        counts[name if name in COLUMNS else "other kinds"] += count


def _hold_sums(found: Reconciliation, rows: Iterable[Row], sums: Iterable[Sum]) -> None:
    """QueryUsage adds up what the interceptions have, by provider and model."""
    expected: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        for usage in row.usages:
            _add_usage(expected[row.provider, row.model], usage)
    told: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one in sums:
        told[one.provider, one.model].update({"token usages": one.token_usages, **one.tokens})
    for key in expected.keys() | told.keys():
        for measure in ("token usages", *COLUMNS):
            if expected[key][measure] != told[key][measure]:
                found.faults.append(f"usage of {key}: {measure} {told[key][measure]}, not {expected[key][measure]}")


def table(found: Reconciliation, *, with_lost: bool) -> list[str]:
    """What is printed: a line for each provider and measure, the outcomes, what is apart."""
    heads = ["upstream", "records", *(["lost, marked"] if with_lost else []), "difference"]
    lines = [f"{'':24}" + "".join(f"{head:>14}" for head in heads)]
    for provider in sorted(found.upstream):
        for measure in MEASURES:
            upstream, records = found.upstream[provider][measure], found.records[provider][measure]
            lost = [found.lost[provider][measure]] if with_lost else []
            lines.append(
                _line(f"{provider} {measure}", [upstream, records, *lost, found.difference(provider, measure)])
            )
    for outcome in sorted(found.expected_outcomes | found.outcomes):
        expected, actual = found.expected_outcomes[outcome], found.outcomes[outcome]
        actual -= found.apart[LEFT_EARLY] if outcome == "CLIENT_GONE" else 0
        lines.append(_line(outcome, [expected, actual, *([""] if with_lost else []), expected - actual]))
    lines += [f"{count} apart: {why}" for why, count in sorted(found.apart.items())]
    return lines


def _line(name: str, values: Iterable[object]) -> str:
    shown = (f"{value:,}" if isinstance(value, int) else str(value) for value in values)
    return f"{name:24}" + "".join(f"{value:>14}" for value in shown)
