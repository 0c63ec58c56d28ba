"""Many rows in few statements.

Python gives its one lock away around each step of a statement. A thread that stores a thousand rows by themselves asks
for the lock a thousand times, each time behind the loop that answers bridges; with many rows in a statement it asks
once for all of them. Statements come in few sizes, so that SQLite prepares each once.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, chain
from typing import Any, NamedTuple

from credentiald.record_model import NONE
from credentiald.store.connection import Connection, Row, Value

# A bridge brings twice as many reports at once as the largest has rows. To run a statement takes as long as some of its
# rows; to prepare one takes the square of them, once, while all others that write wait: with 500, a tenth of a second.
_SIZES = (250, 50, 10, 3, 1)
# Fewer rows that are alike are no matter for a statement of their own.
_LEAST_ALIKE = 4
# So that there are few statements: each form has one for each number of columns that are shared.
_LEAST_SHARED = 32
_COLUMN = re.compile(r"\{(\w+)\}")
_Values = tuple[Value, ...]
# Rows, column by column: to put values in their places so takes a tenth of what it does row by row.
Columns = Sequence[Sequence[Value]]


class Form(NamedTuple):
    """An insertion that says part of each row by itself: to hand over a text costs as much as to write three columns.

    `given` are the columns that rows bring, in their order. `written` are SQL for further columns, or for given ones in
    place of what was brought; `{column}` in it stands for what was brought. Where all rows have the same in the last of
    the given columns, it is handed over once: those come last in which they often do. `order` is that of the table's
    first columns, if these are all: what is written in it SQLite does not copy from one place to another.
    """

    head: str
    given: tuple[str, ...]
    written: tuple[tuple[str, str], ...] = ()
    order: tuple[str, ...] = ()


def or_null(column: str) -> tuple[str, str]:
    """Of a form: NULL where NONE is given.

    Not by NULLIF, which is a call of a function. To hand over None, for which Python looks for an adapter, costs as
    much as eight integers; a bool, five: write 0 or 1.
    """
    return column, f"CASE WHEN {{{column}}} <> {NONE} THEN {{{column}}} END"


def insert(conn: Connection, head: str, rows: Sequence[Sequence[Value]], tail: str = "") -> None:
    """`head` is `INSERT INTO table (columns)`, `tail` what follows the values."""
    for part in _parts(rows):
        conn.execute(_insertion(head, len(part), len(part[0]), tail), tuple(chain.from_iterable(part)))


def insert_formed(conn: Connection, form: Form, columns: Columns) -> int:
    """How many rows were inserted: with `INSERT OR IGNORE`, those that were not there."""
    parts = ([column[start:stop] for column in columns] for start, stop in _spans(len(columns[0])))
    return sum(_insert_part(conn, form, part, ()) for part in parts)


def insert_groups(conn: Connection, form: Form, groups: Sequence[tuple[_Values, Columns]]) -> int:
    """The same for rows that are alike in their last columns: what they have there, and the columns before."""
    inserted = 0
    others: list[list[Value]] = [[] for _ in form.given]
    for alike, columns in groups:
        for start, stop in _spans(len(columns[0])):
            part = [column[start:stop] for column in columns]
            if stop - start < _LEAST_ALIKE:
                for column, values in zip(others, [*part, *([value] * (stop - start) for value in alike)], strict=True):
                    column += values
            else:
                inserted += _insert_part(conn, form, part, alike)
    return inserted + insert_formed(conn, form, others)


def _insert_part(conn: Connection, form: Form, columns: list[Sequence[Value]], alike: Sequence[Value]) -> int:
    """Insert rows that are `alike` after these columns, and perhaps in the last of them, too."""
    count = len(columns[0])
    shared = [*_taken_same(columns), *alike]
    return conn.execute(_formed(form, count, len(shared)), [*shared, *_row_by_row(columns)]).rowcount


def _taken_same(columns: list[Sequence[Value]]) -> list[Value]:
    """What is the same in all rows of the last columns, which are taken from the list; never the first."""
    count = len(columns[0])
    same: list[Value] = []
    while count >= _LEAST_SHARED and len(columns) > 1 and columns[-1].count(columns[-1][0]) == count:
        same.insert(0, columns.pop()[0])
    return same


def insert_new(
    conn: Connection, table: str, form: Form, groups: Sequence[tuple[_Values, Columns]], key: str
) -> tuple[list[range], set[str] | None]:
    """Insert rows that are new, as nearly all are: the numbers of each group, and None for all, or the keys of those
    that were.

    The form ignores rows that are there, and takes a `number` first, which the columns have not: it is given here and
    rises as rows are inserted. So nothing has to be looked for before, and the new ones are known after.
    """
    if not groups:
        return [], None
    (last,) = conn.execute(f"SELECT COALESCE(MAX(number), 0) FROM {table}").fetchone()  # noqa: S608 - names of ours
    ends = list(accumulate((len(columns[0]) for _, columns in groups), initial=last + 1))
    numbers = list(map(range, ends, ends[1:]))
    numbered = [(alike, [of, *columns]) for of, (alike, columns) in zip(numbers, groups, strict=True)]
    if insert_groups(conn, form, numbered) == ends[-1] - ends[0]:
        return numbers, None
    new = conn.execute(f"SELECT {key} FROM {table} WHERE number > ?", (last,)).fetchall()  # noqa: S608
    return numbers, {row[0] for row in new}


def select(conn: Connection, head: str, keys: Sequence[Value], tail: str = "") -> Iterator[Row]:
    """The rows of `head (?, …) tail`, where head ends in `IN`, for each of the keys."""
    for part in _parts(keys):
        yield from conn.execute(_selection(head, len(part), tail), part).fetchall()


def select_for(conn: Connection, head: str, rows: Sequence[Sequence[Value]], tail: str) -> Iterator[Row]:
    """The rows of `head (VALUES (?, …), …) tail`: a table of ours that the statement joins.

    This, and not `(one, other) IN (VALUES …)`, for which SQLite looks through the whole table whatever its indexes.
    """
    if rows:
        yield from select_for_columns(conn, head, list(zip(*rows, strict=True)), tail)


def select_for_columns(conn: Connection, head: str, columns: Columns, tail: str) -> Iterator[Row]:
    """The same for rows that are given column by column."""
    for start, stop in _spans(len(columns[0])):
        part = [column[start:stop] for column in columns]
        same = _taken_same(part)
        statement = _row_selection(head, stop - start, len(part), len(same), tail)
        yield from conn.execute(statement, [*same, *_row_by_row(part)]).fetchall()


def change(conn: Connection, head: str, keys: Sequence[Value]) -> int:
    """How many rows `head (?, …)` changed, where head ends in `IN`."""
    return sum(conn.execute(_selection(head, len(part), ""), part).rowcount for part in _parts(keys))


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start:stop] for start, stop in _spans(len(items)))


def _spans(count: int) -> Iterator[tuple[int, int]]:
    """From where to where each part of so many rows is."""
    start = 0
    while left := count - start:
        stop = start + next(size for size in _SIZES if size <= left)
        yield start, stop
        start = stop


def _row_by_row(columns: Columns) -> list[Value]:
    """All values, one row after the other."""
    width = len(columns)
    values: list[Value] = [None] * (width * len(columns[0]))
    for place, column in enumerate(columns):
        values[place::width] = column
    return values


@cache
def _insertion(head: str, count: int, width: int, tail: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{head} VALUES {', '.join([row] * count)} {tail}"


@cache
def _formed(form: Form, count: int, alike: int) -> str:
    """The statement for so many rows, whose last values come first and once where they are alike."""
    values = dict(zip(form.given, (f"{{{one}}}" for one in form.given), strict=True)) | dict(form.written)
    if form.order:
        values = {column: values[column] for column in form.order}
    row = f"({', '.join(values.values())})"
    width = len(form.given) - alike
    # `?NNN`, so that one value may stand in several places.
    shared = {column: f"?{number}" for number, column in enumerate(form.given[width:], 1)} if alike else {}
    counted = _counted(row, form.given[:width])
    rows: list[str] = []
    for first in range(alike + 1, alike + 1 + count * width, width):
        own = {column: f"?{number}" for number, column in enumerate(form.given[:width], first)}
        rows.append((counted if rows else row).format_map(shared | own))
    return f"{form.head} ({', '.join(values)}) VALUES {', '.join(rows)}"


def _counted(row: str, columns: Sequence[str]) -> str:
    """The row with `?`, which is the next number, for each column that stands in their order.

    SQLite looks for a number that is written among all that are: to prepare a statement of 500 rows would take 0.3 s.
    """
    highest = -1

    def counted(found: re.Match[str]) -> str:
        nonlocal highest
        place = columns.index(found[1]) if found[1] in columns else -1
        is_next, highest = place == highest + 1, max(highest, place)
        return "?" if is_next else found[0]

    return _COLUMN.sub(counted, row)


@cache
def _selection(head: str, count: int, tail: str) -> str:
    return f"{head} ({', '.join('?' * count)}) {tail}"


@cache
def _row_selection(head: str, count: int, own: int, same: int, tail: str) -> str:
    """For rows with so many values of their own, and so many that are the same for all and come first."""
    shared = [f"?{number}" for number in range(1, same + 1)]
    first = ", ".join([*(f"?{number}" for number in range(same + 1, same + own + 1)), *shared])
    # A `?` is the next number.
    rows = [first, *[", ".join(["?"] * own + shared)] * (count - 1)]
    return f"{head} (VALUES {', '.join(f'({row})' for row in rows)}) {tail}"
