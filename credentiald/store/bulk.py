"""Many rows in few statements.

Python gives its one lock away around each step of a statement. A thread that stores a thousand rows by themselves asks
for the lock a thousand times, each time behind the loop that answers bridges; with many rows in a statement it asks
once for all of them. Statements come in few sizes, so that SQLite prepares each once.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

from credentiald.store.connection import Connection, Row, Value

_SIZES = (256, 32, 4, 1)


def insert(conn: Connection, head: str, rows: Sequence[Sequence[Value]], tail: str = "") -> None:
    """`head` is `INSERT INTO table (columns)`, `tail` what follows the values."""
    for part in _parts(rows):
        conn.execute(_insertion(head, len(part), len(part[0]), tail), tuple(chain.from_iterable(part)))


def select(conn: Connection, head: str, keys: Sequence[Value], tail: str = "") -> Iterator[Row]:
    """The rows of `head (?, …) tail`, where head ends in `IN`, for each of the keys."""
    for part in _parts(keys):
        yield from conn.execute(_selection(head, len(part), tail), part).fetchall()


def select_for(conn: Connection, head: str, rows: Sequence[Sequence[Value]], tail: str) -> Iterator[Row]:
    """The rows of `head (VALUES (?, …), …) tail`: a table of ours that the statement joins.

    This, and not `(one, other) IN (VALUES …)`, for which SQLite looks through the whole table whatever its indexes.
    """
    for part in _parts(rows):
        yield from conn.execute(
            _row_selection(head, len(part), len(part[0]), tail), tuple(chain.from_iterable(part))
        ).fetchall()


def delete(conn: Connection, head: str, keys: Sequence[Value]) -> int:
    """How many rows `head (?, …)` deleted, where head ends in `IN`."""
    return sum(conn.execute(_selection(head, len(part), ""), part).rowcount for part in _parts(keys))


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    place = 0
    while left := len(items) - place:
        size = next(size for size in _SIZES if size <= left)
        yield items[place : place + size]
        place += size


@cache
def _insertion(head: str, count: int, width: int, tail: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{head} VALUES {', '.join([row] * count)} {tail}"


@cache
def _selection(head: str, count: int, tail: str) -> str:
    return f"{head} ({', '.join('?' * count)}) {tail}"


@cache
def _row_selection(head: str, count: int, width: int, tail: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{head} (VALUES {', '.join([row] * count)}) {tail}"
