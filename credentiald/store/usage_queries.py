"""Questions about usage: sums of days, in pages of some users each."""

from collections.abc import Sequence
from typing import NamedTuple

from credentiald.record_model import DAY_MICROS, Cost, Tokens
from credentiald.store.connection import Connection, Row, Value
from credentiald.store.record_rows import COST_SUMS, TOKEN_SUMS, cost_in, tokens_in
from credentiald.store.record_scan import Filter, given
from credentiald.store.record_sums import ALL_USERS

# How many rows a page adds up.
SCANNED_DAYS = 5_000
# What usage may be grouped by, with its column.
DIMENSIONS = {
    "DAY": "start_day",
    "USER": "user_id",
    "PROVIDER": "provider_name",
    "MODEL": "model",
    "CLIENT": "client",
}


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


# Where a page of usage ends: values of the first columns that it is ordered by. All rows that begin with them have been
# told, and all before. Not how many were told: that is another row as soon as one comes or goes before it.
UsagePlace = tuple[Value, ...]


class UsagePage(NamedTuple):
    """Some sums, and where to go on; None at the end."""

    rows: list[UsageSum]
    next_place: UsagePlace | None


def query_usage(
    conn: Connection, wanted: Filter, *, group_by: Sequence[str], after: UsagePlace | None, limit: int
) -> UsagePage:
    """At most `limit` sums by some of DIMENSIONS, behind the place `after`.

    In the order of the dimensions, but of users first: each page adds up the days of some users.
    """
    columns = [DIMENSIONS[one] for one in sorted(group_by, key=lambda one: one != "USER")]
    is_of_each = "USER" in group_by and not wanted.user_id
    place = after or ((ALL_USERS,) if is_of_each else ())
    conditions, values = _days_of(wanted, is_of_each=is_of_each)
    if place:
        # One bound: of two, SQLite begins at the first.
        conditions.append(f"({', '.join(columns[: len(place)])}) > ({', '.join('?' * len(place))})")
        values += place
    last_user_id = _last_user_id(conn, place) if is_of_each else ""
    if last_user_id:
        conditions.append("user_id <= ?")
        values.append(last_user_id)
    sums = ", ".join(f"SUM({one}) AS {one}" for one in ("interceptions", "token_usages", *TOKEN_SUMS, *COST_SUMS))
    grouped = f" GROUP BY {', '.join(columns)} ORDER BY {', '.join(columns)}" if columns else ""
    found = conn.execute(
        f"SELECT {', '.join([*columns, sums])} FROM usage_days WHERE {' AND '.join(conditions)}"  # noqa: S608
        f"{grouped} LIMIT ?",
        (*values, limit + 1),
    ).fetchall()
    # Without a dimension there is a row of nothing where there is nothing.
    rows = [row for row in found if row["interceptions"] is not None]
    next_place: UsagePlace | None = (last_user_id,) if last_user_id else None
    if len(rows) > limit:
        del rows[limit:]
        next_place = tuple(rows[-1][one] for one in columns)
    return UsagePage([_usage_sum(row, group_by) for row in rows], next_place)


def _days_of(wanted: Filter, *, is_of_each: bool) -> tuple[list[str], list[Value]]:
    """Conditions for the rows that are asked for, and their values; not yet of which users where all are."""
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
    if is_of_each:
        return conditions, values
    return [*conditions, "user_id = ?"], [*values, wanted.user_id or ALL_USERS]


def _last_user_id(conn: Connection, place: UsagePlace) -> str:
    """With whom a page of all users ends that begins behind the place; empty where nobody is behind.

    All days of a user are on one page, or on several that add up the same.
    """
    # Whoever has not been told to the end is looked through again.
    is_told = len(place) == 1
    last = conn.execute(
        f"SELECT user_id FROM usage_days WHERE user_id {'>' if is_told else '>='} ?"  # noqa: S608
        " ORDER BY user_id, start_day LIMIT 1 OFFSET ?",
        (place[0], SCANNED_DAYS),
    ).fetchone()
    if last is None:
        return ""
    behind = conn.execute("SELECT MIN(user_id) AS user_id FROM usage_days WHERE user_id > ?", (last["user_id"],))
    return str(last["user_id"]) if behind.fetchone()["user_id"] is not None else ""


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
        tokens=tokens_in(row),
        cost=cost_in(row),
    )
