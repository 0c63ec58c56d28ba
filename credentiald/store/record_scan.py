"""Pages of a list from the newest row to the oldest, whatever is asked for.

A page looks through a bounded number of rows, so that a filter that fits few of millions makes short pages, with the
place to go on from, and never a slow one. What an index is sorted by (a session, a user, a time) is not looked through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from credentiald.store.connection import Connection, Row, Value

T = TypeVar("T")
# A condition with one `?`, and its value; one without a value does not count.
Condition = tuple[str, Value]


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


def given(pairs: Sequence[Condition]) -> tuple[list[str], list[Value]]:
    """The conditions that have a value, and these."""
    with_values = [(condition, value) for condition, value in pairs if value]
    return [condition for condition, _ in with_values], [value for _, value in with_values]


class Scan:
    """One table, newest first.

    `indexed` are conditions by which an index is sorted before the time. `further` are those for which at most
    `scanned` rows are looked through at once. `columns` are what rows have, some of them of what is `joined`, which may
    have a `number`, too.
    """

    def __init__(
        self,
        table: str,
        time: str,
        wanted: Filter,
        *,
        indexed: Sequence[Condition],
        further: Sequence[Condition],
        scanned: int,
        columns: str = "*",
        joined: str = "",
    ) -> None:
        self._table, self._time, self._scanned = table, time, scanned
        self._number = f"{table}.number"
        self._columns, self._rows = columns, f"{table} {joined}".rstrip()
        self._base, self._base_values = given(indexed)
        self._wanted = wanted
        self._further, self._further_values = given(further)

    def page(self, conn: Connection, *, after: Place | None, limit: int) -> tuple[list[Row], Place | None]:
        """At most `limit` rows, and where the next page begins."""
        conditions, values = list(self._base), list(self._base_values)
        # One bound of the time at each end: of two, SQLite begins or stops at the first, and looks through what is
        # between them.
        if after is not None:
            # The first of the two is for the index.
            conditions += [f"{self._time} <= ?", f"({self._time}, {self._number}) < (?, ?)"]
            values += [after.micros, *after]
        elif self._wanted.before_micros is not None:
            conditions.append(f"{self._time} < ?")
            values.append(self._wanted.before_micros)
        oldest: list[str] = []
        oldest_values: list[Value] = []
        if self._wanted.after_micros is not None:
            oldest, oldest_values = [f"{self._time} >= ?"], [self._wanted.after_micros]
        last = self._last(conn, [*conditions, *oldest], [*values, *oldest_values]) if self._further else None
        if last is not None:
            oldest = [f"{self._time} >= ?", f"({self._time}, {self._number}) >= (?, ?)"]
            oldest_values = [last.micros, *last]
        conditions += oldest
        values += oldest_values
        rows = conn.execute(
            f"SELECT {self._columns} FROM {self._rows}"  # noqa: S608 - names of ours
            f" WHERE {_all([*conditions, *self._further])} {self._order} LIMIT ?",
            (*values, *self._further_values, limit),
        ).fetchall()
        if len(rows) == limit:
            return rows, Place(rows[-1][self._time], rows[-1]["number"])
        return rows, last

    @property
    def _order(self) -> str:
        return f"ORDER BY {self._time} DESC, {self._number} DESC"

    def _last(self, conn: Connection, conditions: Sequence[str], values: Sequence[Value]) -> Place | None:
        """The last row that is looked through; None where that is the end."""
        row = conn.execute(
            f"SELECT {self._time} AS micros, number FROM {self._table} WHERE {_all(conditions)} {self._order}"  # noqa: S608
            " LIMIT 1 OFFSET ?",
            (*values, self._scanned - 1),
        ).fetchone()
        return None if row is None else Place(row["micros"], row["number"])


def _all(conditions: Sequence[str]) -> str:
    return " AND ".join(conditions) or "1 = 1"
