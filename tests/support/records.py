"""Openings and reports to put into a file of records, and ways to look into one."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from credentiald.prices import NO_PRICES, PriceTable
from credentiald.record_model import (
    Attempt,
    End,
    Facts,
    ModelThought,
    Opening,
    Origin,
    Prompt,
    Report,
    TokenUsage,
    ToolCall,
)
from credentiald.store import record_queries, record_rows, record_writing, records, sqlite, usual_facts
from credentiald.store.record_rows import columns_of
from credentiald.store.record_scan import Filter
from credentiald.store.record_writing import Batch, Stored

START = 1_795_000_000_000_000
SECOND = 1_000_000
ALICE = "00000000-0000-7000-8000-00000000000a"
BOB = "00000000-0000-7000-8000-00000000000b"
TABLES = (
    "interceptions",
    "token_usages",
    "prompts",
    "tool_calls",
    "model_thoughts",
    "attempts",
    "sessions",
    "usage_days",
)


@contextmanager
def empty_records(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a new file of records."""
    path.touch(mode=0o600)
    conn = sqlite.connect(path, page_bytes=records.PAGE_BYTES)
    try:
        with sqlite.transaction(conn, write=True):
            records.prepare(conn, "a-database")
        yield conn
    finally:
        conn.close()


def put(
    conn: sqlite3.Connection,
    *things: Opening | Report,
    vanished: tuple[tuple[str, int], ...] = (),
    prices: PriceTable = NO_PRICES,
) -> Stored:
    """Store these in one batch."""
    batch = Batch(
        openings=[one for one in things if isinstance(one, Opening)],
        reports=[one for one in things if isinstance(one, Report)],
        vanished=vanished,
    )
    with sqlite.transaction(conn, write=True):
        return record_writing.store(conn, batch, prices).unfolded()


def an_id(number: int) -> str:
    """The same id for the same number, rising with it."""
    return f"0190e2f4-0000-7000-8000-{number:012x}"


def fact_id(number: int, place: int) -> str:
    """Of a record of the interception with this number, as a bridge makes it."""
    return an_id(number)[:-4] + f"{place:04x}"


def an_origin(user_id: str = ALICE, **changes: Any) -> Origin:
    values: dict[str, Any] = {
        "service_id": "service-1",
        "user_id": user_id,
        "provider_id": "provider-1",
        "provider_name": "anthropic-corp",
        "provider_type": "anthropic",
        "source": "CENTRAL_KEY",
        "credential_id": "credential-1",
    }
    return Origin(**values | changes)


def an_opening(number: int, **changes: Any) -> Opening:
    values: dict[str, Any] = {
        "interception_id": an_id(number),
        "resolution_id": an_id(1_000_000 + number),
        "origin": an_origin(),
        "bridge_instance_id": "bridge-1",
        "operation": "anthropic.messages",
        "model": "claude-sonnet-4-5",
        "upstream_model": "",
        "client": "Claude Code",
        "start_micros": START + number * SECOND,
    }
    return Opening(**values | changes)


def a_report(number: int, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "interception_id": an_id(number),
        "resolution_id": an_id(1_000_000 + number),
        "origin": an_origin(),
        "start_micros": START + number * SECOND,
        "bridge_instance_id": "bridge-1",
    }
    return Report(**values | changes)


def an_attempt(number: int, **changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "id": an_id(0xF000 + number),
        "create_micros": START + number * SECOND,
        "resolution_id": an_id(2_000_000 + number),
        "provider_id": "provider-1",
        "provider_name": "corp",
        "source": "CENTRAL_KEY",
        "credential_id": f"key-{number}",
        "http_status": 429,
        "error_category": "RATE_LIMITED",
        "error_reason": "rate_limit_error",
        "upstream_request_id": f"req-{number}",
        "duration_micros": 1000 * number,
    }
    return Attempt(**values | changes)


def some_facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "client": "Claude Code",
        "user_agent": "claude-cli/2.0",
        "operation": "anthropic.messages",
        "model": "claude-sonnet-4-5",
    }
    return Facts(**values | changes)


def an_end(number: int, **changes: Any) -> End:
    values: dict[str, Any] = {
        "end_micros": START + number * SECOND + SECOND,
        "outcome": "COMPLETED",
        "http_status": 200,
        "duration_micros": SECOND,
        "first_byte_micros": 1000,
    }
    return End(**values | changes)


def a_usage(**changes: Any) -> TokenUsage:
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "create_micros": START,
        "response_id": "msg_1",
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_input_tokens": 30,
        "cache_write_input_tokens": 40,
    }
    return TokenUsage(**values | changes)


def a_prompt(text: str = "do it", **changes: Any) -> Prompt:
    values: dict[str, Any] = {"id": str(uuid4()), "create_micros": START, "response_id": "msg_1", "text": text}
    return Prompt(**{"text_bytes": len(text)} | values | changes)


def a_tool_call(tool_call_id: str = "toolu_1", **changes: Any) -> ToolCall:
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "create_micros": START,
        "response_id": "msg_1",
        "tool_call_id": tool_call_id,
        "item_id": "",
        "tool": "Bash",
        "input": '{"command":"ls"}',
        "input_bytes": 16,
    }
    return ToolCall(**values | changes)


def a_thought(content: str = "hm", **changes: Any) -> ModelThought:
    values: dict[str, Any] = {"id": str(uuid4()), "create_micros": START, "response_id": "msg_1", "content": content}
    return ModelThought(**{"content_bytes": len(content), "source": "thinking"} | values | changes)


def rows_of(conn: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    """All rows, without the numbers that only say in which order they came; of facts, wherever they are."""
    rows = [dict(row) for row in conn.execute(f"SELECT * FROM {table}").fetchall()]
    for row in rows:
        row.pop("number", None)
    rows += [row for of, row in _usual_facts(conn) if of == table]
    return sorted(rows, key=repr)


def _usual_facts(conn: sqlite3.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those that have no row in the table of their kind, as it would be there, with that table."""
    ids = [row["id"] for row in conn.execute("SELECT id FROM interceptions").fetchall()]
    for interception_id, fact in usual_facts.stored(conn, ids):
        values = dict(zip(columns_of(type(fact)), fact, strict=True))
        yield record_rows.TABLES[type(fact)], {"interception_id": interception_id, **values}


def sessions_of(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """All sessions as they are listed, those that have no row too. Each must be listed once."""
    listed, after, is_end = [], None, False
    while not is_end:
        items, after = record_queries.list_sessions(conn, Filter(), after=after, limit=1000)
        listed += items
        is_end = after is None
    found = [one._asdict() for one in listed]
    assert len({(one["user_id"], one["session_id"]) for one in found}) == len(found)
    return sorted(found, key=lambda one: (one["user_id"], one["session_id"]))


def everything(conn: sqlite3.Connection) -> dict[str, list[dict[str, Any]]]:
    """What is in the file."""
    return {table: rows_of(conn, table) for table in TABLES}
