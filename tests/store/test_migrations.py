import sqlite3
import subprocess
import sys

import pytest

from credentiald.model import BedrockOptions, Timeouts
from credentiald.store import migrations, models, providers, sqlite
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
