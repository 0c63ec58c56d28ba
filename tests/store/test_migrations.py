import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from credentiald.model import BedrockOptions, Timeouts
from credentiald.store import (
    bridge_words,
    migrations,
    models,
    providers,
    record_queries,
    record_retention,
    records,
    sqlite,
)
from credentiald.store.record_scan import Filter
from tests.support.records import (
    SECOND,
    START,
    a_prompt,
    a_report,
    a_thought,
    a_tool_call,
    a_usage,
    an_attempt,
    an_end,
    an_id,
    an_opening,
    empty_records,
    fact_id,
    put,
    rows_of,
    sessions_of,
    some_facts,
)
from tests.support.store import NOW, a_model, empty_store


@pytest.fixture
def fresh(tmp_path):
    path = tmp_path / "fresh.db"
    path.touch()
    conn = sqlite.connect(path)
    yield conn
    conn.close()


def tables(conn):
    return {row["name"] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}


def test_all_migrations_run_once_and_are_recorded(fresh):
    assert migrations.applied(fresh) == []
    for _ in range(2):
        with sqlite.transaction(fresh, write=True):
            migrations.apply_pending(fresh)
        assert migrations.applied(fresh) == [name for name, _ in migrations.STEPS]
    assert {
        "meta",
        "change_log",
        "users",
        "tokens",
        "services",
        "providers",
        "central_keys",
        "user_keys",
        "models",
    } < tables(fresh)


def test_an_exception_after_the_migrations_undoes_them_and_their_record(fresh):
    def interrupted():
        with sqlite.transaction(fresh, write=True):
            migrations.apply_pending(fresh)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert tables(fresh) == set()
    assert migrations.applied(fresh) == []


def test_a_migration_that_fails_leaves_the_ones_before_it_undone_too(fresh, monkeypatch):
    def broken(conn):
        conn.execute("CREATE TABLE extra (id INTEGER)")
        conn.execute("INSERT INTO nowhere VALUES (1)")

    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, ("9999_broken", broken)))
    with pytest.raises(sqlite3.OperationalError), sqlite.transaction(fresh, write=True):
        migrations.apply_pending(fresh)
    assert tables(fresh) == set()


def test_a_later_migration_runs_on_an_older_schema(tmp_path, monkeypatch):
    def second(conn):
        conn.execute("ALTER TABLE users ADD COLUMN email TEXT")

    with empty_store(tmp_path / "old.db") as conn:
        monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, ("9999_email", second)))
        assert migrations.pending_after(migrations.applied(conn)) == ["9999_email"]
        with sqlite.transaction(conn, write=True):
            migrations.apply_pending(conn)
        assert conn.execute("SELECT email FROM users").fetchall() == []
        assert migrations.pending_after(migrations.applied(conn)) == []


def insert_old_provider(conn, name, *, region=None):
    """A row with the columns of the first schema; its id is its name."""
    conn.execute(
        "INSERT INTO providers (id, name, type, display_name, base_url, enabled, central_key_enabled,"
        " user_keys_allowed, central_key_fallback, bedrock_region, bedrock_role_arn, bedrock_external_id,"
        " bedrock_model, bedrock_small_fast_model, version, create_time, update_time)"
        " VALUES (?, ?, 'bedrock', '', '', 1, 1, 0, 0, ?, '', '', 'm', '', 1, 0, 0)",
        (name, name, region),
    )


def test_a_provider_of_a_database_without_bedrocks_later_options_has_their_defaults(fresh, monkeypatch):
    monkeypatch.setattr(migrations, "STEPS", migrations.STEPS[:1])
    with sqlite.transaction(fresh, write=True):
        migrations.apply_pending(fresh)
        for name, region in (("aws", "eu-west-1"), ("plain", None)):
            insert_old_provider(fresh, name, region=region)
    monkeypatch.undo()
    with sqlite.transaction(fresh, write=True):
        migrations.apply_pending(fresh)
    assert providers.get(fresh, "aws").bedrock == BedrockOptions(region="eu-west-1", model="m")
    assert providers.get(fresh, "plain").bedrock is None


def test_a_database_of_before_there_were_prices_takes_them(fresh, monkeypatch):
    monkeypatch.setattr(migrations, "STEPS", migrations.STEPS[:2])
    with sqlite.transaction(fresh, write=True):
        migrations.apply_pending(fresh)
        insert_old_provider(fresh, "old")
    monkeypatch.undo()
    assert migrations.pending_after(migrations.applied(fresh))[0] == "0003_models"
    with sqlite.transaction(fresh, write=True):
        migrations.apply_pending(fresh)
        assert models.prices(fresh) == {}
        models.create(fresh, a_model(provider_id="old"), now=NOW)
    assert set(models.prices(fresh)) == {("old", "gpt-5")}


def test_a_provider_of_before_there_were_time_outs_of_its_own_has_none(fresh, monkeypatch):
    monkeypatch.setattr(migrations, "STEPS", migrations.STEPS[:4])
    with sqlite.transaction(fresh, write=True):
        migrations.apply_pending(fresh)
        insert_old_provider(fresh, "old")
    monkeypatch.undo()
    with sqlite.transaction(fresh, write=True):
        migrations.apply_pending(fresh)
    assert providers.get(fresh, "old").timeouts == Timeouts()


def test_migrations_do_not_run_outside_a_transaction(fresh):
    with pytest.raises(sqlite3.ProgrammingError, match="transaction"):
        migrations.apply_pending(fresh)
    assert tables(fresh) == set()


@pytest.mark.parametrize("applied", [["9999_future"], ["0001_initial", "9999_future"], ["9999_future", "0001_initial"]])
def test_a_schema_with_migrations_that_we_do_not_know_is_refused(applied):
    with pytest.raises(migrations.SchemaMismatch, match="9999_future"):
        migrations.pending_after(applied)


def test_looking_does_not_load_sqlite_utils():
    code = "import sys, credentiald.store.database; assert 'sqlite_utils' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@contextmanager
def records_of_before(path, step):
    """A file of records as it was before that step, to be prepared."""
    names = [name for name, _ in migrations.RECORD_STEPS]
    path.touch()
    with closing(sqlite.connect(path)) as conn, pytest.MonkeyPatch.context() as patched:
        patched.setitem(migrations._OTHERS, migrations.RECORDS, migrations.RECORD_STEPS[: names.index(step)])
        prepare(conn)
        assert migrations.applied(conn, migrations.RECORDS)[-1] < step
        patched.undo()
        yield conn


def prepare(conn):
    with sqlite.transaction(conn, write=True):
        records.prepare(conn, "database-1")


def insert_rows(conn, rows_of_tables):
    """As far as the tables have their columns."""
    for table, rows in rows_of_tables.items():
        known = {row["name"] for row in conn.execute(f"PRAGMA table_info({table})").fetchall()}
        columns = [one for one in rows[0] if one in known]
        values = [tuple(row[one] for one in columns) for row in rows]
        conn.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", values)


def test_a_file_of_records_of_before_there_were_attempts_takes_them_and_keeps_what_it_has(tmp_path):
    with records_of_before(tmp_path / "records.db", "0002_watchers") as conn:
        conn.execute("INSERT INTO bridge_instances (service_id, id, seen_time) VALUES ('s-1', 'bridge-1', 7)")
        prepare(conn)
        bridge_words.tell_breakers(conn, ("s-1", "bridge-1"), "[]", now_micros=8)
        assert list(bridge_words.breakers_since(conn, since_micros=7)) == [(("s-1", "bridge-1"), 8, "[]")]
        put(conn, a_report(1, attempts=(an_attempt(1),)))
        assert len(rows_of(conn, "attempts")) == 1


def test_sessions_of_a_file_of_before_some_had_no_row_are_what_they_were(tmp_path):
    # Reported without an opening, which writes the row.
    told = [a_report(number, facts=some_facts(), prompts=(a_prompt(),), end=an_end(number)) for number in (1, 2, 3)]
    with empty_records(tmp_path / "new.db") as new:
        put(new, *told)
        before = {table: rows_of(new, table) for table in ("interceptions", "prompts", "sessions", "usage_days")}
        expected = sessions_of(new)
    with records_of_before(tmp_path / "records.db", "0004_sessions_of_one") as conn:
        insert_rows(conn, before)
        prepare(conn)
        assert sessions_of(conn) == expected
        wanted = Filter(session_id=an_id(2))
        found = record_queries.list_interceptions(conn, wanted, after=None, limit=5).items
        assert [one.row.id for one in found] == [an_id(2)]
        put(conn, an_opening(4), a_report(4, facts=some_facts(), end=an_end(4)))
        put(conn, a_report(5, facts=some_facts(client_session_id=an_id(2)), end=an_end(5)))
        assert {one["session_id"]: one["interceptions"] for one in sessions_of(conn)} == {
            an_id(1): 1, an_id(2): 2, an_id(3): 1, an_id(4): 1,
        }  # fmt: skip
        assert len(rows_of(conn, "sessions")) == 3


def test_records_of_a_file_of_before_usual_ones_had_numbers_are_told_of_as_before(tmp_path):
    def a_usual(number):
        usage, prompt = a_usage(id=fact_id(number, 0)), a_prompt(f"prompt {number}", id=fact_id(number, 1))
        return a_report(number, facts=some_facts(), token_usages=(usage,), prompts=(prompt,), end=an_end(number))

    with empty_records(tmp_path / "new.db") as new:
        put(new, an_opening(1), a_usual(1))
        before = {table: rows_of(new, table) for table in ("interceptions", "token_usages", "prompts", "usage_days")}
    with records_of_before(tmp_path / "records.db", "0005_usual_facts") as conn:
        insert_rows(conn, before)
        prepare(conn)
        put(conn, an_opening(2), a_usual(1), a_usual(2))
        listed = record_queries.list_interceptions(conn, Filter(), after=None, limit=5).items
        assert [one.row.id for one in listed] == [an_id(2), an_id(1)]
        assert {one.tokens for one in listed} == {(10, 20, 30, 40)}
        assert [one["last_prompt"] for one in sessions_of(conn)] == ["prompt 1", "prompt 2"]
        for number in (1, 2):
            _, [detail] = record_queries.get_interception(conn, an_id(number), user_id="")
            assert [fact.id for fact in detail.facts] == [fact_id(number, 0), fact_id(number, 1)]


def test_what_lost_its_parent_in_a_file_of_before_finds_it_and_no_purge_is_known_there(tmp_path):
    child = a_report(2, facts=some_facts(correlating_tool_call_id="call_1"), end=an_end(2))
    with empty_records(tmp_path / "new.db") as new:
        put(new, child)
        before = {table: rows_of(new, table) for table in ("interceptions", "sessions", "usage_days")}
    with records_of_before(tmp_path / "records.db", "0006_without_parent") as conn:
        insert_rows(conn, before)
        prepare(conn)
        put(conn, a_report(1, facts=some_facts(), tool_calls=(a_tool_call("call_1"),), end=an_end(1)))
        assert {row["thread_root_id"] for row in rows_of(conn, "interceptions")} == {an_id(1)}
        assert [(one["session_id"], one["interceptions"]) for one in sessions_of(conn)] == [(an_id(1), 2)]
        found = record_retention.purgeable(conn, before_micros=START + 10 * SECOND)
        assert found == (START + SECOND, None)
        record_retention.note_purged(conn, before_micros=START)
        assert record_retention.purgeable(conn, before_micros=START + 10 * SECOND) == (START + SECOND, START)
        assert record_retention.purgeable(conn, before_micros=START) is None


def test_calls_and_thoughts_of_a_file_of_before_some_were_marked_are_not_and_new_ones_are(tmp_path):
    def a_cut(number):
        call = a_tool_call(input='{"path":"/et', input_bytes=12, id=fact_id(number, 2), partial=True)
        thought = a_thought("First, I", id=fact_id(number, 3), partial=True)
        calls_and_thoughts = {"tool_calls": (call,), "model_thoughts": (thought,)}
        return a_report(number, facts=some_facts(), end=an_end(number, outcome="CLIENT_GONE"), **calls_and_thoughts)

    with empty_records(tmp_path / "new.db") as new:
        put(new, an_opening(1), a_cut(1))
        tables = ("interceptions", "tool_calls", "model_thoughts", "usage_days")
        before = {table: rows_of(new, table) for table in tables}
    with records_of_before(tmp_path / "records.db", "0008_partial_calls") as conn:
        insert_rows(conn, before)
        prepare(conn)
        # The bridge has not heard that the first one was stored, and tells of it again.
        assert {fact.id for _, fact in put(conn, a_cut(1)).facts} == set()
        put(conn, an_opening(2), a_cut(2))
        for table in ("tool_calls", "model_thoughts"):
            assert [(row["interception_id"], row["partial"]) for row in rows_of(conn, table)] == [
                (an_id(1), 0),
                (an_id(2), 1),
            ]
        for number, expected in ((1, [0, 0]), (2, [1, 1])):
            _, [detail] = record_queries.get_interception(conn, an_id(number), user_id="")
            assert [fact.partial for fact in detail.facts] == expected


def test_a_release_of_before_some_were_marked_still_writes_into_a_file_that_has_the_mark(tmp_path):
    with (
        records_of_before(tmp_path / "records.db", "0008_partial_calls") as old,
        empty_records(tmp_path / "new.db") as new,
    ):
        columns = {
            table: [row["name"] for row in old.execute(f"PRAGMA table_info({table})").fetchall()]
            for table in ("tool_calls", "model_thoughts")
        }
        for table, names in columns.items():
            assert "partial" not in names
            values = ", ".join("1" if name.endswith("bytes") else "'x'" for name in names)
            new.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})")
            assert [row["partial"] for row in rows_of(new, table)] == [0]


# Of those that a release has run: what is changed in one of them reaches no database that exists.
RELEASED = {
    ("credentiald", "0001_initial"): "ff871b467c75fc51",
    ("credentiald", "0002_bedrock_options"): "dcbaaf21b9c53148",
    ("credentiald", "0003_models"): "169bb7a1b39cf875",
    ("credentiald.records", "0001_records"): "f3c27fcc62f0a158",
}


@pytest.mark.parametrize(("history", "name"), RELEASED)
def test_a_released_migration_never_changes(history, name):
    steps = dict(migrations.RECORD_STEPS if history == migrations.RECORDS else migrations.STEPS)
    statements = []

    class Noting:
        def execute(self, statement, *_):
            statements.append(" ".join(statement.split()))

    steps[name](Noting())
    assert hashlib.sha256("\n".join(statements).encode()).hexdigest()[:16] == RELEASED[history, name]
