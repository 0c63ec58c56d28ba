"""Which columns records have, and their facts into their tables."""

from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from typing import Any

from credentiald.record_model import (
    NONE,
    Attempt,
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

TOKEN_SUMS = "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens"
COST_SUMS = "cost_micros", "unpriced_token_usages"
COLUMNS = tuple(InterceptionDraft.__dataclass_fields__)
_columns: "itemgetter[Any]" = itemgetter(*COLUMNS)

# Table by kind of fact, with its columns: those of the value, `…_micros` being a time.
TABLES: dict[type[Fact], str] = {
    TokenUsage: "token_usages",
    Prompt: "prompts",
    ToolCall: "tool_calls",
    ModelThought: "model_thoughts",
    Attempt: "attempts",
}


def columns_of(kind: type[Fact]) -> tuple[str, ...]:
    """The columns of the table in the order of the value's fields."""
    return tuple("create_time" if name == "create_micros" else name for name in kind._fields)


_FORMS = {
    kind: bulk.Form(
        f"INSERT INTO {table}",
        ("interception_id", *columns_of(kind)),
        tuple(bulk.or_null(one) for one in columns_of(kind) if one == "cost_micros"),
    )
    for kind, table in TABLES.items()
}


def draft_of(row: Row) -> InterceptionDraft:
    """The stored row, to be changed or shown."""
    return InterceptionDraft(**dict(zip(COLUMNS, _columns(row), strict=True)))


def fact_row(interception_id: str, fact: Fact) -> tuple[Value, ...]:
    """A fact as `insert_facts` takes it."""
    if type(fact) is TokenUsage:
        # Written out: this is for each request.
        record_id, create, response_id, new, out, read, written, metadata, partial, cost_micros = fact
        cost = NONE if cost_micros is None else cost_micros
        partly = 1 if partial else 0
        return interception_id, record_id, create, response_id, new, out, read, written, metadata, partly, cost
    return (interception_id, *fact)


def insert_facts(conn: Connection, kind: type[Fact], rows: Sequence[tuple[Value, ...]]) -> None:
    """Store new facts of one kind."""
    if rows:
        bulk.insert_formed(conn, _FORMS[kind], list(zip(*rows, strict=True)))


def stored_facts(conn: Connection, kind: type[Fact], interception_ids: Collection[str]) -> Iterator[tuple[str, Fact]]:
    """The facts of one kind that are in its table, each with its interception's id."""
    columns = columns_of(kind)
    head = f"SELECT interception_id, {', '.join(columns)} FROM {TABLES[kind]} WHERE interception_id IN"  # noqa: S608
    for row in bulk.select(conn, head, list(interception_ids)):
        yield row["interception_id"], kind._make([row[one] for one in columns])


def tokens_in(row: Row) -> Tokens:
    """The sums of tokens in a row that has TOKEN_SUMS."""
    return Tokens(*(row[one] for one in TOKEN_SUMS))


def cost_in(row: Row) -> Cost:
    """The sums of costs in a row that has COST_SUMS."""
    return Cost(*(row[one] for one in COST_SUMS))
