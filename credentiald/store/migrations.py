"""Forward-only changes of the schema: each runs once, in order, in one transaction with the record that it ran.

To add one: append to `STEPS`; add tables or columns only, and release the code that needs a column after the column.
sqlite-utils applies them and keeps the record; it is imported only when there is something to apply.
"""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from credentiald.store import audit_schema, records_schema, schema
from credentiald.store.connection import Connection

if TYPE_CHECKING:
    from sqlite_utils import Database

_SET = "credentiald"
# Before this one ran, nothing names the sealing key that is in use.
SEALING_KEYS = "0007_sealing_keys"
# The file of records has a history of its own (records_schema.py).
RECORDS = "credentiald.records"
# And so has that of the audit (audit_schema.py).
AUDIT = "credentiald.audit"


class SchemaMismatch(Exception):
    """The schema is not the one that this release works with."""


def _initial(conn: Connection) -> None:
    for statement in schema.INITIAL:
        conn.execute(statement)


def _bedrock_options(conn: Connection) -> None:
    for statement in schema.BEDROCK_OPTIONS:
        conn.execute(statement)


def _models(conn: Connection) -> None:
    for statement in schema.MODELS:
        conn.execute(statement)


def _key_cooldowns(conn: Connection) -> None:
    for statement in schema.KEY_COOLDOWNS:
        conn.execute(statement)


def _provider_timeouts(conn: Connection) -> None:
    for statement in schema.PROVIDER_TIMEOUTS:
        conn.execute(statement)


def _service_identities(conn: Connection) -> None:
    for statement in schema.SERVICE_IDENTITIES:
        conn.execute(statement)


def _sealing_keys(conn: Connection) -> None:
    for statement in schema.SEALING_KEYS:
        conn.execute(statement)


def _audit_head(conn: Connection) -> None:
    for statement in schema.AUDIT_HEAD:
        conn.execute(statement)


def _records(conn: Connection) -> None:
    for statement in records_schema.RECORDS:
        conn.execute(statement)


def _watchers(conn: Connection) -> None:
    for statement in records_schema.WATCHERS:
        conn.execute(statement)


def _attempts_and_breakers(conn: Connection) -> None:
    for statement in (*records_schema.ATTEMPTS, *records_schema.BREAKERS):
        conn.execute(statement)


def _sessions_of_one(conn: Connection) -> None:
    for statement in records_schema.SESSIONS_OF_ONE:
        conn.execute(statement)


def _usual_facts(conn: Connection) -> None:
    for statement in records_schema.USUAL_FACTS:
        conn.execute(statement)


def _without_parent(conn: Connection) -> None:
    for statement in records_schema.WITHOUT_PARENT:
        conn.execute(statement)


def _purged(conn: Connection) -> None:
    for statement in records_schema.PURGED:
        conn.execute(statement)


def _partial_calls(conn: Connection) -> None:
    for statement in records_schema.PARTIAL_CALLS:
        conn.execute(statement)


def _entries(conn: Connection) -> None:
    for statement in audit_schema.ENTRIES:
        conn.execute(statement)


def _beginning(conn: Connection) -> None:
    for statement in audit_schema.BEGINNING:
        conn.execute(statement)


Steps = tuple[tuple[str, Callable[[Connection], None]], ...]

STEPS: Steps = (
    ("0001_initial", _initial),
    ("0002_bedrock_options", _bedrock_options),
    ("0003_models", _models),
    ("0004_key_cooldowns", _key_cooldowns),
    ("0005_provider_timeouts", _provider_timeouts),
    ("0006_service_identities", _service_identities),
    (SEALING_KEYS, _sealing_keys),
    ("0008_audit_head", _audit_head),
)
RECORD_STEPS: Steps = (
    ("0001_records", _records),
    ("0002_watchers", _watchers),
    ("0003_attempts_and_breakers", _attempts_and_breakers),
    ("0004_sessions_of_one", _sessions_of_one),
    ("0005_usual_facts", _usual_facts),
    ("0006_without_parent", _without_parent),
    ("0007_purged", _purged),
    ("0008_partial_calls", _partial_calls),
)
AUDIT_STEPS: Steps = (("0001_entries", _entries), ("0002_beginning", _beginning))
_OTHERS = {RECORDS: RECORD_STEPS, AUDIT: AUDIT_STEPS}


def _steps(history: str) -> Steps:
    return _OTHERS.get(history, STEPS)


def applied(conn: Connection, history: str = _SET) -> list[str]:
    """The names of the migrations that ran, in order; none for an empty database. Reads only."""
    recorded = conn.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlite_migrations'"
    ).fetchone()
    if recorded is None:
        return []
    rows = conn.execute(
        "SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY id", (history,)
    ).fetchall()
    return [row["name"] for row in rows]


def are_known(applied_names: list[str], history: str = _SET) -> bool:
    """Whether these, in this order, are migrations of ours; false for the schema of a newer release."""
    return applied_names == [name for name, _ in _steps(history)[: len(applied_names)]]


def pending_after(applied_names: list[str], history: str = _SET) -> list[str]:
    """The names of the migrations that have still to run. SchemaMismatch for a schema that is newer than we are."""
    known = [name for name, _ in _steps(history)]
    if not are_known(applied_names, history):
        unknown = ", ".join(name for name in applied_names if name not in known) or "another order of migrations"
        raise SchemaMismatch(f"its schema is newer (it has {unknown}): install a newer release")
    return known[len(applied_names) :]


def _on_connection(step: Callable[[Connection], None]) -> Callable[["Database"], None]:
    """The step as sqlite-utils calls it. It gets the plain connection: sqlite-utils' own `insert` may commit."""

    def migration(db: "Database") -> None:
        step(db.conn)

    return migration


def apply_pending(conn: sqlite3.Connection, history: str = _SET) -> None:
    """Run what is pending, inside the caller's write transaction: an exception later undoes the migrations as well."""
    if not pending_after(applied(conn, history), history):
        return
    from sqlite_utils import Database, Migrations

    if not conn.in_transaction:
        raise sqlite3.ProgrammingError("migrations run inside a transaction")
    migrations = Migrations(history)
    for name, step in _steps(history):
        migrations(name=name)(_on_connection(step))
    migrations.apply(Database(conn, execute_plugins=False))
