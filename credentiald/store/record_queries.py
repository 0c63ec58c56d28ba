"""Questions about records. Lists go from the newest to the oldest, in pages as record_scan.py makes them."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from credentiald.errors import InterceptionNotFound
from credentiald.record_model import (
    DAY_MICROS,
    Cost,
    Fact,
    InterceptionDraft,
    Tokens,
)
from credentiald.store import bulk, lone_sessions
from credentiald.store.connection import Connection, Row, Value
from credentiald.store.record_rows import COLUMNS, TABLES, columns_of, draft_of
from credentiald.store.record_scan import Condition, Filter, Page, Place, Scan, given
from credentiald.store.record_sums import ALL_USERS

# How much a page looks through: entries of an index that has what is filtered by, rows of a table, days of usage.
SCANNED_ENTRIES = 50_000
SCANNED_ROWS = 2_000
SCANNED_DAYS = 10_000
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


class UsagePlace(NamedTuple):
    """Where a page of usage ends: so many rows of this user have been told, and all of those before."""

    user_id: str
    told: int


class UsagePage(NamedTuple):
    """Some sums, and where to go on; None at the end."""

    rows: list[UsageSum]
    next_place: UsagePlace | None


def list_interceptions(
    conn: Connection, wanted: Filter, *, after: Place | None, limit: int
) -> Page[StoredInterception]:
    """At most `limit` interceptions behind the place `after`."""
    session, user = _of_session(conn, wanted.session_id), ("user_id = ?", wanted.user_id)
    further = [
        ("provider_name = ?", wanted.provider),
        ("provider_type = ?", wanted.provider_type),
        ("model = ?", wanted.model),
        ("client = ?", wanted.client),
    ]
    if wanted.session_id:
        further.append(user)
    scan = Scan(
        "interceptions",
        "start_time",
        wanted,
        indexed=[session if wanted.session_id else user],
        further=further,
        scanned=SCANNED_ROWS if wanted.session_id else SCANNED_ENTRIES,
    )
    rows, next_place = scan.page(conn, after=after, limit=limit)
    return Page(_with_tokens(conn, [draft_of(row) for row in rows]), next_place)


def list_sessions(conn: Connection, wanted: Filter, *, after: Place | None, limit: int) -> Page[StoredSession]:
    """At most `limit` sessions behind the place `after`; times are those of their latest interception.

    Those with a row and those without (lone_sessions.py) are looked for by themselves, the latter no further back than
    the former.
    """
    rows, stop = _with_rows(wanted).page(conn, after=after, limit=limit)
    lone, lone_stop = lone_sessions.page(conn, wanted, after=after, down_to=stop, limit=limit, scanned=SCANNED_ENTRIES)
    # Of what is older than where either of them stopped, there may be more.
    next_place = max((one for one in (stop, lone_stop) if one is not None), default=None)
    found = [(Place(row["last_active_time"], row["number"]), row) for row in rows] + lone
    found = [(place, row) for place, row in found if next_place is None or place >= next_place]
    found.sort(key=_place, reverse=True)
    if len(found) > limit:
        del found[limit:]
        next_place = _place(found[-1])
    sessions = (_session(row) for _, row in found)
    # LIKE makes no difference between letters of either case.
    return Page([one for one in sessions if _is_wanted(one, wanted)], next_place)


def _with_rows(wanted: Filter) -> Scan:
    further = [
        ("providers LIKE ? ESCAPE '\\'", _pattern(wanted.provider)),
        ("provider_types LIKE ? ESCAPE '\\'", _pattern(wanted.provider_type)),
        ("models LIKE ? ESCAPE '\\'", _pattern(wanted.model)),
        ("client = ?", wanted.client),
    ]
    return Scan(
        "sessions",
        "last_active_time",
        wanted,
        indexed=[("session_id = ?", wanted.session_id), ("user_id = ?", wanted.user_id)],
        further=further,
        scanned=SCANNED_ROWS,
    )


def _of_session(conn: Connection, session_id: str) -> Condition:
    if session_id and lone_sessions.is_lone(conn, session_id):
        return "id = ?", session_id
    # The index by sessions has no others.
    return "is_session = 0 AND session_id <> '' AND session_id = ?", session_id


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
    conn: Connection, wanted: Filter, *, group_by: Sequence[str], after: UsagePlace | None, limit: int
) -> UsagePage:
    """At most `limit` sums by some of DIMENSIONS, behind the place `after`.

    In the order of the dimensions, but of users first: each page adds up the days of some users.
    """
    place = after or UsagePlace("", 0)
    columns = [DIMENSIONS[one] for one in sorted(group_by, key=lambda one: one != "USER")]
    conditions, values, next_user_id = _days_of(conn, wanted, place, of_each="USER" in group_by)
    sums = ", ".join(f"SUM({one}) AS {one}" for one in ("interceptions", "token_usages", *_SUMS, *_COST_SUMS))
    grouped = f" GROUP BY {', '.join(columns)} ORDER BY {', '.join(columns)}" if columns else ""
    found = conn.execute(
        f"SELECT {', '.join([*columns, sums])} FROM usage_days WHERE {' AND '.join(conditions)}"  # noqa: S608
        f"{grouped} LIMIT ? OFFSET ?",
        (*values, limit + 1, place.told),
    ).fetchall()
    # Without a dimension there is a row of nothing where there is nothing.
    rows = [_usage_sum(row, group_by) for row in found if row["interceptions"] is not None]
    if len(rows) > limit:
        del rows[limit:]
        user_id = rows[-1].user_id
        told = sum(one.user_id == user_id for one in rows)
        return UsagePage(rows, UsagePlace(user_id, told + (place.told if user_id == place.user_id else 0)))
    return UsagePage(rows, UsagePlace(next_user_id, 0) if next_user_id else None)


def _days_of(
    conn: Connection, wanted: Filter, place: UsagePlace, *, of_each: bool
) -> tuple[list[str], list[Value], str]:
    """Conditions for the rows of a page, their values, and the user with whom the next page begins, or empty."""
    conditions, values = given(
        [("provider_name = ?", wanted.provider), ("model = ?", wanted.model), ("client = ?", wanted.client)]
    )
    # `+` takes what follows it away from indexes: the days of one user, or of some users, are what is looked through.
    if wanted.after_micros is not None:
        conditions.append("+start_day >= ?")
        values.append(wanted.after_micros // DAY_MICROS)
    if wanted.before_micros is not None:
        conditions.append("+start_day < ?")
        values.append(-(-wanted.before_micros // DAY_MICROS))
    if wanted.user_id or not of_each:
        return [*conditions, "user_id = ?"], [*values, wanted.user_id or ALL_USERS], ""
    users, user_values = ["user_id > ?", "user_id >= ?"], [ALL_USERS, place.user_id]
    last = conn.execute(
        f"SELECT user_id FROM usage_days WHERE {' AND '.join(users)} ORDER BY user_id, start_day LIMIT 1 OFFSET ?",  # noqa: S608
        (*user_values, SCANNED_DAYS),
    ).fetchone()
    if last is None:
        return [*conditions, *users], [*values, *user_values], ""
    # All days of a user are on one page, or on several that add up the same.
    behind = conn.execute("SELECT MIN(user_id) AS user_id FROM usage_days WHERE user_id > ?", (last["user_id"],))
    users.append("user_id <= ?")
    user_values.append(last["user_id"])
    return [*conditions, *users], [*values, *user_values], behind.fetchone()["user_id"] or ""


def _usage_sum(row: Row, group_by: Sequence[str]) -> UsageSum:
    def dimension(name: str) -> str:
        return str(row[DIMENSIONS[name]]) if name in group_by else ""

    return UsageSum(
        day=row["start_day"] if "DAY" in group_by else None,
        user_id=dimension("USER"),
        provider=dimension("PROVIDER"),
        model=dimension("MODEL"),
        client=dimension("CLIENT"),
        interceptions=row["interceptions"],
        token_usages=row["token_usages"],
        tokens=_tokens(row),
        cost=_cost(row),
    )


def _place(found: tuple[Place, Row]) -> Place:
    return found[0]


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
    made: Fact = kind._make(values)
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
