"""The records of interceptions, as messages have room for them: how much they are is asked before they are read."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from credentiald.record_model import Fact
from credentiald.store import bulk, usual_facts
from credentiald.store.connection import Connection, Row
from credentiald.store.record_rows import TABLES, columns_of, stored_facts

# What a record takes in a message beside its values, at most; also the id of a usual one, which is in no column.
_BESIDE_BYTES = 100
_PLACES = {kind: place for place, kind in enumerate(TABLES)}


def sizes(conn: Connection, interceptions: Sequence[Row]) -> dict[str, int]:
    """By interception, of how many bytes its records are in a message, at most; nothing for those without any."""
    found: defaultdict[str, int] = defaultdict(int)
    ids = {row["number"]: row["id"] for row in interceptions}
    for table, columns in usual_facts.COLUMNS.items():
        head = f"SELECT number, {_bytes_of(columns)} AS bytes FROM {table} WHERE number IN"  # noqa: S608 - names of ours
        for row in bulk.select(conn, head, list(ids)):
            found[ids[row["number"]]] += row["bytes"]
    for kind, table in TABLES.items():
        bytes_of = _bytes_of(columns_of(kind))
        head = f"SELECT interception_id, SUM({bytes_of}) AS bytes FROM {table} WHERE interception_id IN"  # noqa: S608
        for row in bulk.select(conn, head, list(ids.values()), "GROUP BY interception_id"):
            found[row["interception_id"]] += row["bytes"]
    return found


def all_of(conn: Connection, ids: Sequence[str]) -> dict[str, list[Fact]]:
    """The records of interceptions, kind by kind, each in the order of their ids, which is that of their times."""
    facts: defaultdict[str, list[Fact]] = defaultdict(list)
    for interception_id, fact in usual_facts.stored(conn, ids):
        facts[interception_id].append(fact)
    for kind in TABLES:
        for interception_id, fact in stored_facts(conn, kind, ids):
            facts[interception_id].append(fact)
    return {one: sorted(facts[one], key=_order) for one in ids}


def first_of(conn: Connection, interception_id: str, *, most_bytes: int) -> list[Fact]:
    """The same of one that has more: as many of the first as are not more than that."""
    facts, left_bytes = [], most_bytes
    for fact in _each(conn, interception_id):
        left_bytes -= sum(len(str(value).encode()) for value in fact) + _BESIDE_BYTES
        if left_bytes < 0:
            break
        facts.append(fact)
    return sorted(facts, key=_order)


def _each(conn: Connection, interception_id: str) -> Iterator[Fact]:
    for _, fact in usual_facts.stored(conn, [interception_id]):
        yield fact
    for kind, table in TABLES.items():
        columns = columns_of(kind)
        sql = f"SELECT {', '.join(columns)} FROM {table} WHERE interception_id = ? ORDER BY id"  # noqa: S608
        # Never all rows at once: they may be any number.
        for row in conn.execute(sql, (interception_id,)):
            yield kind._make([row[one] for one in columns])


def _bytes_of(columns: Sequence[str]) -> str:
    """SQL for the bytes of a row of these columns. A number takes less in a message than its digits do here."""
    each = " + ".join(f"COALESCE(LENGTH(CAST({one} AS BLOB)), 0)" for one in columns)
    return f"{each} + {_BESIDE_BYTES}"


def _order(fact: Fact) -> tuple[int, str]:
    return _PLACES[type(fact)], fact.id
