"""Questions about records. Lists go from the newest to the oldest.

A page looks through at most `SCANNED_ROWS` rows, so that a filter that fits few of millions makes short pages, with the
place to go on from, and never a slow one. What the index is for (a session, a user, a time) is not looked through.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from credentiald.errors import InterceptionNotFound
from credentiald.record_model import (
    DAY_MICROS,
    Cost,
    Fact,
    InterceptionDraft,
    ModelThought,
    Prompt,
    Tokens,
    TokenUsage,
    ToolCall,
)
from credentiald.store import bulk
from credentiald.store.connection import Connection, Row, Value
from credentiald.store.record_writing import COLUMNS, TABLES, columns_of, draft_of

SCANNED_ROWS = 10_000
MOST_OF_A_THREAD = 100
_SUMS = "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens"
_COST_SUMS = "cost_micros", "unpriced_token_usages"
# What usage may be grouped by, with its column.
DIMENSIONS = {
    "DAY": "start_day",
    "USER": "user_id",
    "PROVIDER": "provider_name",
    "MODEL": "model",
    "CLIENT": "client",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which rows; what is empty or None does not restrict. `after` is inclusive, `before` is not."""

    user_id: str = ""
    provider: str = ""
    provider_type: str = ""
    model: str = ""
    client: str = ""
    session_id: str = ""
    after_micros: int | None = None
    before_micros: int | None = None


class Place(NamedTuple):
    """Where a page ends: everything that follows is older."""

    micros: int
    number: int


class Page(NamedTuple, Generic[T]):
    """Some rows, and where to go on; None at the end."""

    items: list[T]
    next_place: Place | None


class StoredInterception(NamedTuple):
    """A row with the sums of its token usages."""

    row: InterceptionDraft
    tokens: Tokens
    cost: Cost


class Detail(NamedTuple):
    """An interception with its records."""

    interception: StoredInterception
    facts: list[Fact]


class StoredSession(NamedTuple):
    """A row of sessions."""

    session_id: str
    user_id: str
    providers: list[str]
    provider_types: list[str]
    models: list[str]
    client: str
    start_micros: int
    last_active_micros: int
    interceptions: int
    threads: int
    tokens: Tokens
    cost: Cost
    last_prompt: str


class UsageSum(NamedTuple):
    """Sums for one value of each dimension; `day` counts from 1970."""

    day: int | None
    user_id: str
    provider: str
    model: str
    client: str
    interceptions: int
    token_usages: int
    tokens: Tokens
    cost: Cost


def list_interceptions(
    conn: Connection, wanted: Filter, *, after: Place | None, limit: int
) -> Page[StoredInterception]:
    """At most `limit` interceptions behind the place `after`."""
    indexed = [("session_id = ?", wanted.session_id), ("user_id = ?", wanted.user_id)]
    further = [
        ("provider_name = ?", wanted.provider),
        ("provider_type = ?", wanted.provider_type),
        ("model = ?", wanted.model),
        ("client = ?", wanted.client),
    ]
    scan = _Scan("interceptions", "start_time", wanted, indexed, further)
    rows, next_place = scan.page(conn, after=after, limit=limit)
    return Page(_with_tokens(conn, [draft_of(row) for row in rows]), next_place)


def list_sessions(conn: Connection, wanted: Filter, *, after: Place | None, limit: int) -> Page[StoredSession]:
    """At most `limit` sessions behind the place `after`; times are those of their latest interception."""
    indexed = [("session_id = ?", wanted.session_id), ("user_id = ?", wanted.user_id)]
    further = [
        ("providers LIKE ? ESCAPE '\\'", _pattern(wanted.provider)),
        ("provider_types LIKE ? ESCAPE '\\'", _pattern(wanted.provider_type)),
        ("models LIKE ? ESCAPE '\\'", _pattern(wanted.model)),
        ("client = ?", wanted.client),
    ]
    rows, next_place = _Scan("sessions", "last_active_time", wanted, indexed, further).page(
        conn, after=after, limit=limit
    )
    sessions = map(_session, rows)
    # LIKE makes no difference between letters of either case.
    return Page([one for one in sessions if _is_wanted(one, wanted)], next_place)


def get_interception(
    conn: Connection, interception_id: str, *, user_id: str
) -> tuple[StoredInterception, list[Detail]]:
    """One interception, and its thread from the oldest to the newest. InterceptionNotFound.

    `user_id` is whose it must be, empty for anybody's.
    """
    found = next(iter(_rows(conn, "id = ?", interception_id)), None)
    if found is None or (user_id and found.user_id != user_id):
        raise InterceptionNotFound(interception=interception_id)
    root = found.thread_root_id or found.id
    rows = conn.execute(
        f"SELECT {', '.join(COLUMNS)} FROM interceptions"  # noqa: S608 - names of ours
        " WHERE thread_root_id = ? AND thread_root_id <> '' AND thread_root_id <> id AND user_id = ?"
        " ORDER BY start_time DESC LIMIT ?",
        (root, found.user_id, MOST_OF_A_THREAD),
    ).fetchall()
    thread = {one.id: one for one in (*_rows(conn, "id = ?", root), *map(draft_of, rows), found)}
    newest = sorted(thread.values(), key=lambda one: (one.start_time, one.id))[-MOST_OF_A_THREAD:]
    if found not in newest:
        newest = [found, *newest[1:]]
    shown = _with_tokens(conn, newest)
    facts = _facts(conn, [one.id for one in newest])
    return (
        next(one for one in shown if one.row.id == found.id),
        [Detail(one, facts.get(one.row.id, [])) for one in shown],
    )


def query_usage(
    conn: Connection, wanted: Filter, *, group_by: Sequence[str], offset: int, limit: int
) -> list[UsageSum]:
    """Sums by some of DIMENSIONS, in their order, from the row `offset` on."""
    columns = [DIMENSIONS[one] for one in group_by]
    conditions, values = _conditions(
        [
            ("user_id = ?", wanted.user_id),
            ("provider_name = ?", wanted.provider),
            ("model = ?", wanted.model),
            ("client = ?", wanted.client),
        ]
    )
    if wanted.after_micros is not None:
        conditions.append("start_day >= ?")
        values.append(wanted.after_micros // DAY_MICROS)
    if wanted.before_micros is not None:
        conditions.append("start_day < ?")
        values.append(-(-wanted.before_micros // DAY_MICROS))
    sums = ", ".join(f"SUM({one}) AS {one}" for one in ("interceptions", "token_usages", *_SUMS, *_COST_SUMS))
    grouped = f" GROUP BY {', '.join(columns)} ORDER BY {', '.join(columns)}" if columns else ""
    rows = conn.execute(
        f"SELECT {', '.join([*columns, sums])} FROM usage_days WHERE {' AND '.join(conditions or ['1 = 1'])}"  # noqa: S608
        f"{grouped} LIMIT ? OFFSET ?",
        (*values, limit, offset),
    ).fetchall()

    def dimension(row: Row, name: str) -> str:
        return str(row[DIMENSIONS[name]]) if name in group_by else ""

    return [
        UsageSum(
            day=row["start_day"] if "DAY" in group_by else None,
            user_id=dimension(row, "USER"),
            provider=dimension(row, "PROVIDER"),
            model=dimension(row, "MODEL"),
            client=dimension(row, "CLIENT"),
            interceptions=row["interceptions"],
            token_usages=row["token_usages"],
            tokens=_tokens(row),
            cost=_cost(row),
        )
        for row in rows
        # Without a dimension there is a row of nothing where there is nothing.
        if row["interceptions"] is not None
    ]


Condition = tuple[str, str]


class _Scan:
    """One table, newest first: conditions that an index settles, and further ones that rows are looked through for."""

    def __init__(
        self, table: str, time: str, wanted: Filter, indexed: Sequence[Condition], further: Sequence[Condition]
    ) -> None:
        self._table, self._time = table, time
        self._base, self._base_values = _conditions(indexed)
        if wanted.after_micros is not None:
            self._base.append(f"{time} >= ?")
            self._base_values.append(wanted.after_micros)
        if wanted.before_micros is not None:
            self._base.append(f"{time} < ?")
            self._base_values.append(wanted.before_micros)
        self._further, self._further_values = _conditions(further)

    def page(self, conn: Connection, *, after: Place | None, limit: int) -> tuple[list[Row], Place | None]:
        """At most `limit` rows, and where the next page begins."""
        conditions, values = list(self._base), list(self._base_values)
        if after is not None:
            # The first of the two is for the index.
            conditions += [f"{self._time} <= ?", f"({self._time}, number) < (?, ?)"]
            values += [after.micros, after.micros, after.number]
        where = " AND ".join(conditions or ["1 = 1"])
        order = f"ORDER BY {self._time} DESC, number DESC"
        scanned = SCANNED_ROWS if self._further else limit
        rows = conn.execute(
            f"SELECT * FROM (SELECT * FROM {self._table} WHERE {where} {order} LIMIT ?) AS scanned"  # noqa: S608
            f" WHERE {' AND '.join(self._further or ['1 = 1'])} {order} LIMIT ?",
            (*values, scanned, *self._further_values, limit),
        ).fetchall()
        if len(rows) == limit:
            return rows, Place(rows[-1][self._time], rows[-1]["number"])
        last = conn.execute(
            f"SELECT {self._time} AS micros, number FROM {self._table} WHERE {where} {order} LIMIT 1 OFFSET ?",  # noqa: S608
            (*values, scanned - 1),
        ).fetchone()
        return rows, None if last is None else Place(last["micros"], last["number"])


def _conditions(pairs: Sequence[Condition]) -> tuple[list[str], list[Value]]:
    given = [(condition, value) for condition, value in pairs if value]
    return [condition for condition, _ in given], [value for _, value in given]


def _pattern(name: str) -> str:
    """What finds a name in a JSON array of names."""
    if not name:
        return ""
    written = json.dumps(name)
    for special in ("\\", "%", "_"):
        written = written.replace(special, f"\\{special}")
    return f"%{written}%"


def _is_wanted(session: StoredSession, wanted: Filter) -> bool:
    return (
        (not wanted.provider or wanted.provider in session.providers)
        and (not wanted.provider_type or wanted.provider_type in session.provider_types)
        and (not wanted.model or wanted.model in session.models)
    )


def _rows(conn: Connection, condition: str, value: str) -> list[InterceptionDraft]:
    rows = conn.execute(f"SELECT {', '.join(COLUMNS)} FROM interceptions WHERE {condition}", (value,)).fetchall()  # noqa: S608
    return [draft_of(row) for row in rows]


def _with_tokens(conn: Connection, drafts: Sequence[InterceptionDraft]) -> list[StoredInterception]:
    sums = ", ".join(f"SUM({one}) AS {one}" for one in _SUMS)
    cost = "COALESCE(SUM(cost_micros), 0) AS cost_micros, SUM(cost_micros IS NULL) AS unpriced_token_usages"
    rows = bulk.select(
        conn,
        f"SELECT interception_id, {sums}, {cost} FROM token_usages WHERE interception_id IN",  # noqa: S608 - names of ours
        [one.id for one in drafts],
        "GROUP BY interception_id",
    )
    found = {row["interception_id"]: (_tokens(row), _cost(row)) for row in rows}
    return [StoredInterception(one, *found.get(one.id, (Tokens(), Cost()))) for one in drafts]


def _facts(conn: Connection, ids: Sequence[str]) -> dict[str, list[Fact]]:
    """The records of interceptions, each in the order of their ids, which is that of their times."""
    facts: dict[str, list[Fact]] = {}
    for kind, table in TABLES.items():
        columns = columns_of(kind)
        head = f"SELECT interception_id, {', '.join(columns)} FROM {table} WHERE interception_id IN"  # noqa: S608
        for row in bulk.select(conn, head, ids, "ORDER BY interception_id, id"):
            facts.setdefault(row["interception_id"], []).append(_fact(kind, [row[one] for one in columns]))
    return facts


def _fact(kind: type[Fact], values: Sequence[Value]) -> Fact:
    made: TokenUsage | Prompt | ToolCall | ModelThought = kind._make(values)
    return made


def _session(row: Row) -> StoredSession:
    return StoredSession(
        session_id=row["session_id"],
        user_id=row["user_id"],
        providers=json.loads(row["providers"]),
        provider_types=json.loads(row["provider_types"]),
        models=json.loads(row["models"]),
        client=row["client"],
        start_micros=row["start_time"],
        last_active_micros=row["last_active_time"],
        interceptions=row["interceptions"],
        threads=row["threads"],
        tokens=_tokens(row),
        cost=_cost(row),
        last_prompt=row["last_prompt"],
    )


def _tokens(row: Row) -> Tokens:
    return Tokens(*(row[one] for one in _SUMS))


def _cost(row: Row) -> Cost:
    return Cost(*(row[one] for one in _COST_SUMS))
