"""Questions about usage: sums of days, in pages of some users each."""

from collections.abc import Sequence
from typing import NamedTuple

from credentiald.record_model import DAY_MICROS, Cost, Tokens
from credentiald.store.connection import Connection, Row, Value
from credentiald.store.record_rows import COST_SUMS, TOKEN_SUMS, cost_in, tokens_in
from credentiald.store.record_scan import Filter, given
from credentiald.store.record_sums import ALL_USERS

# How many rows a page adds up.
SCANNED_DAYS = 10_000
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


class UsagePlace(NamedTuple):
    """Where a page of usage ends: so many rows of this user have been told, and all of those before."""

    user_id: str
    told: int


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
    place = after or UsagePlace("", 0)
    columns = [DIMENSIONS[one] for one in sorted(group_by, key=lambda one: one != "USER")]
    conditions, values, next_user_id = _days_of(conn, wanted, place, of_each="USER" in group_by)
    sums = ", ".join(f"SUM({one}) AS {one}" for one in ("interceptions", "token_usages", *TOKEN_SUMS, *COST_SUMS))
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
    # One bound: of two, SQLite begins at the first.
    users, user_values = [f"user_id {'>=' if place.user_id else '>'} ?"], [place.user_id or ALL_USERS]
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
        tokens=tokens_in(row),
        cost=cost_in(row),
    )
