"""What credentiald finds, makes and refuses before it serves anything."""

import base64
import logging
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from credentiald import bootstrap, tokens
from credentiald.bootstrap import Prepared
from credentiald.bootstrap.refusals import StartRefused
from credentiald.sealing import Keyring, Sealer, central_key_context, user_key_context
from credentiald.store import meta, migrations, providers, services, sqlite, user_keys, users
from credentiald.store.database import open_database
from credentiald.store.records import PAGE_BYTES, records_path
from daemonkit.secret import Secret
from tests.support.store import NOW, a_key, a_provider, a_user

KEY_ONE = base64.b64encode(b"1" * 32).decode()
KEY_TWO = base64.b64encode(b"2" * 32).decode()


def prepare(folder: Path, keys: str | None = None) -> Prepared:
    return bootstrap.prepare(f"sqlite:///{folder}/store.db", None if keys is None else Secret(keys), now=NOW)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Every file with content, mode and time of change."""
    return {
        file.name: (file.read_bytes(), file.stat().st_mode, file.stat().st_mtime_ns)
        for file in folder.iterdir()
        if file.is_file()
    }


def refusal_of(folder: Path, keys: str | None = None) -> str:
    """The message of the refusal, which must have changed nothing."""
    before = snapshot(folder)
    with pytest.raises(StartRefused) as refused:
        prepare(folder, keys)
    assert snapshot(folder) == before
    return str(refused.value)


def test_a_first_start_makes_everything_and_only_for_the_owner(tmp_path):
    mask = os.umask(0)
    try:
        prepared = prepare(tmp_path)
    finally:
        os.umask(mask)
    assert prepared.created
    files = {
        "store.db",
        "store.records.db",
        "store.audit.db",
        "credentiald.sealing",
        "credentiald.admin-token",
        "credentiald.bridge-token",
    }
    assert {file.name for file in tmp_path.iterdir()} == files
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    assert prepared.sealing_path is not None
    assert Keyring.parse(prepared.sealing_path.read_text()).key_ids == ("k20261121",)
    with closing(sqlite.connect(tmp_path / "store.records.db")) as conn:
        assert sqlite.page_bytes_of(conn) == PAGE_BYTES
    for path in (prepared.admin_token_path, prepared.bridge_token_path):
        (line,) = path.read_text().splitlines()
        assert tokens.prefix_of(line) == tokens.SERVICE_PREFIX


async def test_the_files_beside_an_open_database_are_for_the_owner_only_too(tmp_path):
    mask = os.umask(0)
    try:
        prepared = prepare(tmp_path)
        async with open_database(f"sqlite:///{tmp_path}/store.db", prepared.sealer) as database:
            await database.write(users.create, a_user())
            beside = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("store.db-*")}
    finally:
        os.umask(mask)
    assert beside == {"store.db-wal": 0o600, "store.db-shm": 0o600}


def test_the_tokens_in_the_files_are_those_of_the_first_services(tmp_path):
    prepared = prepare(tmp_path)
    conn = sqlite.connect(prepared.database_path)
    names = [
        services.by_hash(conn, tokens.hash_of(path.read_text().strip())).name
        for path in (prepared.admin_token_path, prepared.bridge_token_path)
    ]
    conn.close()
    assert names == ["admin", "bridge"]


def test_a_second_start_finds_what_the_first_made_and_changes_nothing(tmp_path):
    prepare(tmp_path)
    before = snapshot(tmp_path)
    assert not prepare(tmp_path).created
    assert snapshot(tmp_path) == before


def test_keys_from_the_settings_need_no_file(tmp_path):
    prepared = prepare(tmp_path, f"k2:{KEY_TWO},k1:{KEY_ONE}")
    assert prepared.sealing_path is None
    assert prepared.sealer.key_ids == ("k2", "k1")
    assert not (tmp_path / "credentiald.sealing").exists()
    assert not prepare(tmp_path, f"k2:{KEY_TWO}").created


def test_an_empty_file_is_a_database_still_to_be_made(tmp_path):
    (tmp_path / "store.db").touch()
    assert prepare(tmp_path).created


def test_token_files_may_be_gone_later(tmp_path):
    prepared = prepare(tmp_path)
    prepared.admin_token_path.unlink()
    prepared.bridge_token_path.unlink()
    assert not prepare(tmp_path).created
    assert not prepared.admin_token_path.exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://user:hunter2@db/x", "PostgreSQL is not supported yet"),
        ("postgres://user:hunter2@db/x", "PostgreSQL is not supported yet"),
        ("mysql://user:hunter2@db/x", "scheme of the database URL is not known"),
        ("hunter2.db", "not a URL"),
        ("", "not a URL"),
        ("sqlite://hunter2.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:////var/lib/", "names no file"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///x.db?mode=hunter2", "options"),
        ("sqlite:////nowhere/at/all/x.db", "the folder of the database does not exist: make /nowhere/at/all"),
        ("sqlite:////proc/version/x.db", "folder"),
    ],
)
def test_an_address_that_is_not_supported_is_refused_without_repeating_a_password(url, message):
    with pytest.raises(StartRefused, match=message) as refused:
        bootstrap.prepare(url, None, now=NOW)
    assert "hunter2" not in str(refused.value)


def test_three_slashes_are_relative_and_four_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bootstrap.prepare("sqlite:///x.db", None, now=NOW).database_path == tmp_path / "x.db"
    (tmp_path / "sub").mkdir()
    prepared = bootstrap.prepare(f"sqlite:///{tmp_path}/sub/ä %20&.db", None, now=NOW)
    assert prepared.database_path == tmp_path / "sub" / "ä %20&.db"
    assert prepared.database_path.exists()


def test_a_database_without_its_keys_is_refused(tmp_path):
    prepare(tmp_path)
    (tmp_path / "credentiald.sealing").rename(tmp_path / "elsewhere")
    message = refusal_of(tmp_path)
    assert "'k20261121'" in message
    assert str(tmp_path / "credentiald.sealing") in message
    assert "CREDENTIALD_SEALING_KEYS" in message


def test_a_wrong_key_is_refused(tmp_path):
    prepare(tmp_path)
    (tmp_path / "credentiald.sealing").write_text(f"k20261121:{KEY_ONE}\n")
    message = refusal_of(tmp_path)
    assert "is not the one that sealed the database" in message
    assert KEY_ONE not in message


def test_a_wrong_key_in_the_settings_is_refused_though_the_file_is_right(tmp_path):
    prepare(tmp_path)
    assert "CREDENTIALD_SEALING_KEYS" in refusal_of(tmp_path, f"k20261121:{KEY_ONE}")
    assert "'k20261121', which CREDENTIALD_SEALING_KEYS does not have" in refusal_of(tmp_path, f"k1:{KEY_ONE}")


@pytest.mark.parametrize("setting", ["", "  ", "nonsense", f"k1:{KEY_ONE[:-4]}"])
def test_keys_that_are_none_are_refused_for_old_and_new_databases(tmp_path, setting):
    prepare(tmp_path)
    assert "CREDENTIALD_SEALING_KEYS is not a list of sealing keys" in refusal_of(tmp_path, setting)
    new = tmp_path / "new"
    new.mkdir()
    with pytest.raises(StartRefused, match="sealing key"):
        prepare(new, setting)
    assert not list(new.glob("credentiald.*"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"no colon"])
def test_a_sealing_file_that_is_none_is_refused_by_its_name(tmp_path, content):
    prepare(tmp_path)
    (tmp_path / "credentiald.sealing").write_bytes(content)
    assert str(tmp_path / "credentiald.sealing") in refusal_of(tmp_path)


@pytest.mark.parametrize("kind", ["central", "user"])
def test_a_key_that_only_one_row_needs_must_be_there(tmp_path, kind):
    prepared = prepare(tmp_path, f"k1:{KEY_ONE}")
    newer = Sealer(Keyring.parse(f"k2:{KEY_TWO}\nk1:{KEY_ONE}"))
    conn = sqlite.connect(prepared.database_path)
    if kind == "central":
        provider = a_provider()
        sealed = newer.seal(b"x", central_key_context(provider_id=provider.id, credential_id="c"))
        providers.create(conn, provider, (a_key(sealed=sealed, credential_id="c"),), now=NOW)
    else:
        user = users.create(conn, a_user())
        sealed = newer.seal(b"x", user_key_context(user_id=user.id, provider_id="p", credential_id="c"))
        user_keys.put(conn, user_id=user.id, provider_id="p", credential_id="c", sealed=sealed, now=NOW)
    conn.close()
    assert "needs the sealing key 'k2'" in refusal_of(tmp_path, f"k1:{KEY_ONE}")
    # The right id with wrong bytes is not the right key.
    assert "'k2'" in refusal_of(tmp_path, f"k2:{KEY_ONE}\nk1:{KEY_ONE}")
    assert prepare(tmp_path, f"k2:{KEY_TWO}\nk1:{KEY_ONE}").sealer.key_ids == ("k2", "k1")


@pytest.mark.parametrize("left_open_by_a_crash", [False, True])
def test_a_refusal_changes_nothing_even_after_a_crash(tmp_path, left_open_by_a_crash):
    original = tmp_path / "original"
    original.mkdir()
    prepared = prepare(original)
    conn = sqlite.connect(prepared.database_path)
    users.create(conn, a_user())
    # The files as they are while a connection is open are the files as a crash leaves them.
    copy = tmp_path / "copy"
    copy.mkdir()
    if not left_open_by_a_crash:
        conn.close()
    for file in original.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    conn.close()
    assert (copy / "store.db-wal").exists() == left_open_by_a_crash
    (copy / "credentiald.sealing").write_text(f"k20261121:{KEY_ONE}\n")
    assert "is not the one that sealed" in refusal_of(copy)


def test_a_refusal_does_not_disturb_a_process_that_has_the_database_open(tmp_path):
    prepared = prepare(tmp_path)
    conn = sqlite.connect(prepared.database_path)
    users.create(conn, a_user("alice"))
    with pytest.raises(StartRefused):
        prepare(tmp_path, f"k1:{KEY_ONE}")
    assert not prepare(tmp_path).created
    users.create(conn, a_user("bob"))
    assert [user.username for user in users.list_page(conn, after=None, limit=5)] == ["alice", "bob"]
    conn.close()


def test_a_changed_deployment_secret_is_refused(tmp_path):
    prepared = prepare(tmp_path)
    conn = sqlite.connect(prepared.database_path)
    conn.execute("UPDATE meta SET database_id = 'another'")
    conn.close()
    assert "is not the one that sealed" in refusal_of(tmp_path)


@pytest.mark.parametrize("key_id", ["k1", "k2"])
def test_one_damaged_secret_keeps_nobody_from_starting_unless_nothing_else_shows_that_its_key_is_right(
    tmp_path, key_id
):
    prepared = prepare(tmp_path, f"k1:{KEY_ONE}")
    conn = sqlite.connect(prepared.database_path)
    provider = a_provider()
    sealer = Sealer(Keyring.parse(f"{key_id}:{KEY_ONE if key_id == 'k1' else KEY_TWO}"))
    sealed = sealer.seal(b"x", central_key_context(provider_id=provider.id, credential_id="c"))
    providers.create(conn, provider, (a_key(sealed=sealed, credential_id="c"),), now=NOW)
    conn.execute("UPDATE central_keys SET ciphertext = zeroblob(length(ciphertext))")
    conn.close()
    if key_id == "k1":
        assert not prepare(tmp_path, f"k1:{KEY_ONE}").created
    else:
        assert "is not the one that sealed" in refusal_of(tmp_path, f"k1:{KEY_ONE}\nk2:{KEY_TWO}")


def test_a_newer_schema_is_refused(tmp_path):
    prepared = prepare(tmp_path)
    conn = sqlite.connect(prepared.database_path)
    conn.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('credentiald', '9999_future', '')"
    )
    conn.close()
    message = refusal_of(tmp_path)
    assert "9999_future" in message
    assert "install a newer release" in message


def test_records_of_another_database_are_refused_with_what_to_do_about_it(tmp_path):
    path = prepare(tmp_path).database_path
    (tmp_path / "other").mkdir()
    other = prepare(tmp_path / "other").database_path
    records_path(path).write_bytes(records_path(other).read_bytes())
    message = refusal_of(tmp_path)
    assert message.endswith("it holds the records of another database: move one of the two away")
    assert str(records_path(path)) in message


def test_an_older_schema_is_migrated_but_not_with_a_wrong_key(tmp_path, monkeypatch):
    def second(conn):
        conn.execute("ALTER TABLE users ADD COLUMN email TEXT")

    prepared = prepare(tmp_path, f"k1:{KEY_ONE}")
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, ("0002_email", second)))
    assert "is not the one that sealed" in refusal_of(tmp_path, f"k1:{KEY_TWO}")
    assert not prepare(tmp_path, f"k1:{KEY_ONE}").created
    conn = sqlite.connect(prepared.database_path)
    assert conn.execute("SELECT email FROM users").fetchall() == []
    assert meta.find(conn) is not None
    conn.close()


@pytest.mark.parametrize("content", [b"hello", b"not a database\n" * 1000, b"\0" * 5000])
def test_a_file_that_is_no_database_is_refused(tmp_path, content):
    (tmp_path / "store.db").write_bytes(content)
    assert "is not a SQLite database" in refusal_of(tmp_path)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_of_another_program_is_refused(tmp_path, mode):
    conn = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    conn.execute(f"PRAGMA journal_mode = {mode}")
    conn.execute("CREATE TABLE theirs (id)")
    conn.close()
    assert "is a database of another program" in refusal_of(tmp_path)


def test_a_folder_in_the_place_of_the_database_is_refused(tmp_path):
    (tmp_path / "store.db").mkdir()
    assert "cannot be used" in refusal_of(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "hunter2", tokens.mint(tokens.USER_PREFIX).reveal()], ids=["empty", "word", "user"]
)
def test_a_token_file_without_a_service_token_is_refused_and_not_overwritten(tmp_path, content):
    (tmp_path / "credentiald.bridge-token").write_text(content)
    with pytest.raises(StartRefused, match="holds no service token") as refused:
        prepare(tmp_path)
    assert not content or content not in str(refused.value)
    assert (tmp_path / "credentiald.bridge-token").read_text() == content
    (tmp_path / "credentiald.bridge-token").unlink()
    assert prepare(tmp_path).created


def test_one_token_for_two_services_is_refused(tmp_path):
    token = tokens.mint(tokens.SERVICE_PREFIX).reveal()
    for name in ("admin", "bridge"):
        (tmp_path / f"credentiald.{name}-token").write_text(token)
    with pytest.raises(StartRefused, match="hold one token") as refused:
        prepare(tmp_path)
    assert token not in str(refused.value)


def test_a_sealing_file_that_others_may_read_is_warned_about(tmp_path, caplog):
    prepare(tmp_path)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    (tmp_path / "credentiald.sealing").chmod(0o644)
    prepare(tmp_path)
    assert [(record.levelname, record.path) for record in caplog.records] == [
        ("WARNING", str(tmp_path / "credentiald.sealing"))
    ]


def test_no_secret_is_in_the_database_file(tmp_path):
    prepared = prepare(tmp_path)
    content = prepared.database_path.read_bytes()
    key = base64.b64decode((tmp_path / "credentiald.sealing").read_text().strip().partition(":")[2])
    token = prepared.admin_token_path.read_text().strip().encode()
    assert tokens.hash_of(token.decode()) in content
    assert key not in content
    assert token not in content


def test_what_was_prepared_does_not_print_a_key(tmp_path):
    assert KEY_ONE not in repr(prepare(tmp_path, f"k1:{KEY_ONE}"))
