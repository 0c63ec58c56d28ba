"""A rotation of the sealing key that is killed anywhere loses nothing, and the next one ends it (G8)."""

import asyncio
import shutil
import subprocess
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from credentiald import bootstrap
from credentiald.bootstrap.refusals import StartRefused
from credentiald.errors import InvalidArgument, SealingKeyUnknown
from credentiald.metrics import Metrics
from credentiald.sealing import Keyring
from credentiald.sealing_keys import KeyState, SealingKeys, new_key_id
from credentiald.sealing_places import LocalKeys
from credentiald.sealing_rounds import round_of
from credentiald.sealing_source import parse_source
from credentiald.sealing_wrapping import Wrapping
from credentiald.store import sealing_rows, sqlite
from credentiald.store.database import open_database
from credentiald.vault import VaultAccess
from daemonkit.secret import Secret
from tests.fakes.vault import FakeVault, serving
from tests.support.rotation_child import rotate
from tests.support.sealed_store import DATABASE, fill, key_ids_in, opened, url_in
from tests.support.store import NOW

ROOT = Path(__file__).resolve().parents[2]
CRASHES = 60
SEAL = ("key_id", "nonce", "ciphertext")
KEY_ONE, KEY_TWO = ("A" * 43 + "=", "B" * 42 + "A=")


@pytest.fixture
def filled(tmp_path):
    folder = tmp_path / "filled"
    folder.mkdir()
    fill(folder, user_key_count=7)
    return folder


def all_rows(folder):
    """Every column of every row, but for the seals."""
    conn = sqlite.connect(folder / DATABASE, query_only=True)
    try:
        rows = []
        for table in ("providers", "central_keys", "user_keys", "users", "services", "change_log"):
            found = conn.execute(f"SELECT * FROM {table}").fetchall()
            rows += [{name: value for name, value in dict(row).items() if name not in SEAL} for row in found]
        return rows
    finally:
        conn.close()


async def test_a_rotation_seals_everything_anew_and_changes_nothing_else(filled):
    before, rows, old_ids = opened(filled), all_rows(filled), key_ids_in(filled)
    await rotate(filled)
    assert opened(filled) == before
    assert all_rows(filled) == rows
    [new] = key_ids_in(filled)
    assert new not in old_ids
    assert Keyring.parse((filled / "credentiald.sealing").read_text()).key_ids == (new,)
    assert (filled / "credentiald.sealing").stat().st_mode & 0o777 == 0o600


def test_a_rotation_that_is_killed_anywhere_keeps_every_secret_and_is_ended_by_the_next(filled, tmp_path):
    before = opened(filled)
    folders = [tmp_path / str(number) for number in range(CRASHES)]
    for folder in folders:
        shutil.copytree(filled, folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.rotation_child", *map(str, folders)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    # Threads take turns, so that some of the last points are behind the end.
    assert int(done.stdout or -1) in range(CRASHES * 4 // 5, CRASHES), done.stderr
    seen = set()
    for folder in folders:
        kept = Keyring.parse((folder / "credentiald.sealing").read_text()).key_ids
        seen.add((len(key_ids_in(folder)), len(kept)))
        assert opened(folder) == before
    # One key, two of which one is not used yet, two in use, two of which one is not used any more: all were met.
    assert seen >= {(1, 1), (1, 2)}
    for folder in (folders[0], *folders[CRASHES // 4 :: 6]):
        asyncio.run(rotate(folder))
        assert opened(folder) == before
        assert len(key_ids_in(folder)) == 1


async def keys_of(stack, folder, given=None, given_path=""):
    secret = None if given is None else Secret(given)
    sealer = bootstrap.prepare(url_in(folder), secret, now=NOW).sealer
    db = await stack.enter_async_context(open_database(url_in(folder), sealer))
    return db, SealingKeys(db, sealer, LocalKeys(folder / DATABASE, secret, given_path), lambda: NOW)


@pytest.fixture
async def stack():
    async with AsyncExitStack() as opened_things:
        yield opened_things


async def to_the_end(keys):
    await round_of(keys, Metrics("test"), rest_seconds=0)
    return await keys.status()


def states_of(status):
    return {key.id: (key.state, key.secrets, bool(key.kept_in)) for key in status.keys}


async def test_given_keys_are_read_again_and_only_the_one_that_was_put_first_is_taken(tmp_path, stack):
    given = tmp_path / "keys"
    given.write_text(f"k1:{KEY_ONE}\n")
    _, keys = await keys_of(stack, tmp_path, given.read_text(), str(given))
    with pytest.raises(InvalidArgument, match="there is no new one: put it first in the file /"):
        await keys.rotate()
    given.write_text(f"k2:{KEY_TWO}\nk1:{KEY_ONE}\n")
    assert states_of(await keys.status())["k2"] == (KeyState.NEW, 0, True)
    await keys.rotate()
    ended = await to_the_end(keys)
    assert states_of(ended) == {"k2": (KeyState.ACTIVE, 1, True), "k1": (KeyState.OLD, 0, True)}
    # It is for the operator to take it away, and nothing was written there.
    assert states_of(await keys.retire("k1"))["k1"] == (KeyState.RETIRED, 0, True)
    assert given.read_text() == f"k2:{KEY_TWO}\nk1:{KEY_ONE}\n"
    assert not (tmp_path / "credentiald.sealing").exists()


async def test_keys_of_a_variable_cannot_be_rotated_without_a_new_one(tmp_path, stack):
    _, keys = await keys_of(stack, tmp_path, f"k1:{KEY_ONE}")
    with pytest.raises(InvalidArgument, match="put it first in CREDENTIALD_SEALING_KEYS,"):
        await keys.rotate()


async def test_a_key_that_was_put_first_by_hand_seals_nothing_before_a_rotation(filled, stack):
    file = filled / "credentiald.sealing"
    [old] = key_ids_in(filled)
    file.write_text(f"k2:{KEY_TWO}\n" + file.read_text())
    _, keys = await keys_of(stack, filled)
    assert (await to_the_end(keys)).active_key_id == old
    assert (await keys.rotate()).active_key_id == "k2"
    assert (await to_the_end(keys)).remaining == 0
    assert Keyring.parse(file.read_text()).key_ids == ("k2", old)


async def test_a_key_is_retired_only_when_nothing_needs_it(filled, stack):
    _, keys = await keys_of(stack, filled)
    [old] = key_ids_in(filled)
    with pytest.raises(InvalidArgument, match="is the key that seals"):
        await keys.retire(old)
    await keys.rotate()
    with pytest.raises(InvalidArgument, match="still seals 11 secrets"):
        await keys.retire(old)
    with pytest.raises(InvalidArgument, match="there is no sealing key 'k9'"):
        await keys.retire("k9")
    await to_the_end(keys)
    before = opened(filled)
    status = await keys.retire(old)
    assert states_of(status)[old] == (KeyState.RETIRED, 0, False)
    assert opened(filled) == before
    # Again: it is gone, and stays so.
    assert states_of(await keys.retire(old))[old] == (KeyState.RETIRED, 0, False)


async def test_a_rotation_that_is_asked_for_again_goes_on_with_the_same_key(filled, stack):
    _, keys = await keys_of(stack, filled)
    first = await keys.rotate()
    again = await keys.rotate()
    assert first.active_key_id == again.active_key_id
    assert again.remaining == 11
    assert len(again.keys) == 2


async def test_what_does_not_open_keeps_its_seal_and_holds_nothing_up(filled, stack, caplog):
    _, keys = await keys_of(stack, filled)
    conn = sqlite.connect(filled / DATABASE)
    [(broken,)] = conn.execute("SELECT min(credential_id) FROM user_keys").fetchall()
    conn.execute("UPDATE user_keys SET nonce = zeroblob(12) WHERE credential_id = ?", (broken,))
    conn.close()
    await keys.rotate()
    for _ in range(2):
        status = await to_the_end(keys)
        assert (status.secrets, status.remaining, status.unreadable) == (11, 1, 1)
    told = [record for record in caplog.records if "keeps its old seal" in record.message]
    assert [record.credential_id for record in told] == [broken]


async def test_secrets_whose_key_is_missing_are_told_of_and_left_alone(filled, stack):
    db, keys = await keys_of(stack, filled)
    await db.write(lambda conn: conn.execute("UPDATE user_keys SET key_id = 'gone'"))
    await keys.rotate()
    status = await to_the_end(keys)
    assert states_of(status)["gone"] == (KeyState.MISSING, 7, False)
    assert (status.remaining, status.unreadable) == (7, 0)


async def test_two_processes_agree_on_the_key_that_seals(filled, stack):
    _, one = await keys_of(stack, filled)
    other_db, other = await keys_of(stack, filled)
    [old] = key_ids_in(filled)
    new = (await one.rotate()).active_key_id
    # The other has not heard of it: it must not seal with the old one any more, and cannot with the new one yet.
    assert not other.has(new)
    assert await other_db.read(sealing_rows.active_key_id) == new
    with pytest.raises(SealingKeyUnknown):
        await other.step(sealing_rows.Place())
    await other.refresh()
    assert (await to_the_end(other)).remaining == 0
    assert key_ids_in(filled) == {new} != {old}


async def test_a_key_that_is_named_in_the_middle_of_a_pass_is_learned(filled, stack):
    _, keys = await keys_of(stack, filled)
    other_db, other = await keys_of(stack, filled)
    await keys.rotate()
    release = threading.Event()
    held = asyncio.get_running_loop().run_in_executor(other_db._write_thread, release.wait, 20)
    passing = asyncio.create_task(round_of(other, Metrics("test"), rest_seconds=0))
    async with asyncio.timeout(10):
        while not other_db._write_thread._work_queue.qsize():
            await asyncio.sleep(0.005)
    # Its first step is about to be, with the key that seals by now; then there is another one.
    await to_the_end(keys)
    new = (await keys.rotate()).active_key_id
    assert not other.has(new)
    release.set()
    await held
    assert await passing is False
    assert key_ids_in(filled) == {new}


async def test_a_lost_file_is_made_anew_by_a_rotation_while_the_process_still_has_its_keys(filled, stack):
    _, keys = await keys_of(stack, filled)
    before = opened(filled)
    (filled / "credentiald.sealing").unlink()
    [key] = (await keys.status()).keys
    assert (key.state, key.kept_in) == (KeyState.ACTIVE, "")
    await keys.rotate()
    await to_the_end(keys)
    assert opened(filled) == before


async def test_a_file_that_cannot_be_written_is_refused_and_changes_nothing(filled, stack):
    _, keys = await keys_of(stack, filled)
    [old] = key_ids_in(filled)
    (filled / ".credentiald.sealing.new").mkdir()
    with pytest.raises(InvalidArgument, match="cannot be written: Is a directory"):
        await keys.rotate()
    status = await keys.status()
    assert (status.active_key_id, status.remaining, len(status.keys)) == (old, 0, 1)


async def test_keys_that_a_link_leads_to_stay_where_they_are(filled, tmp_path):
    before, elsewhere, link = opened(filled), tmp_path / "elsewhere", filled / "credentiald.sealing"
    elsewhere.mkdir()
    link.rename(elsewhere / "keys")
    link.symlink_to(elsewhere / "keys")
    await rotate(filled)
    assert link.is_symlink()
    assert opened(filled) == before
    assert set(Keyring.parse((elsewhere / "keys").read_text()).key_ids) == key_ids_in(filled)


async def test_a_database_of_an_older_release_names_its_newest_key(filled, stack):
    conn = sqlite.connect(filled / DATABASE)
    conn.execute("DROP INDEX central_keys_by_sealing_key")
    conn.execute("DROP INDEX user_keys_by_sealing_key")
    conn.execute("DROP TABLE sealing_keys")
    conn.execute("ALTER TABLE meta DROP COLUMN sealing_key_id")
    conn.execute("DROP TABLE audit_head")
    conn.execute("DELETE FROM _sqlite_migrations WHERE name IN ('0007_sealing_keys', '0008_audit_head')")
    conn.close()
    [old] = key_ids_in(filled)
    _, keys = await keys_of(stack, filled)
    assert (await keys.status()).active_key_id == old


def test_ids_of_new_keys_are_dates_and_never_taken():
    assert new_key_id(NOW, set()) == "k20261121"
    assert new_key_id(NOW, {"k20261121", "k20261121-2"}) == "k20261121-3"


async def test_two_keys_of_one_id_are_told_apart_and_the_wrong_one_seals_nothing(tmp_path, stack):
    # As where each replica was given a new key of its own under one id.
    here, there = tmp_path / "here", tmp_path / "there"
    for file in (here, there):
        file.write_text(f"k1:{KEY_ONE}\n")
    _, one = await keys_of(stack, tmp_path, here.read_text(), str(here))
    _, other = await keys_of(stack, tmp_path, there.read_text(), str(there))
    here.write_text(f"k2:{KEY_TWO}\nk1:{KEY_ONE}\n")
    there.write_text(f"k2:{KEY_ONE}\nk1:{KEY_ONE}\n")
    await other.refresh()
    await one.rotate()
    for _ in range(2):
        with pytest.raises(SealingKeyUnknown):
            await other.step(sealing_rows.Place())
        await other.refresh()
    with pytest.raises(StartRefused, match=r"'k2' of .* is not the one"):
        bootstrap.prepare(url_in(tmp_path), Secret(there.read_text()), now=NOW)
    # Given the right one, it takes that in place of what it had.
    there.write_text(here.read_text())
    await other.refresh()
    assert (await to_the_end(other)).remaining == 0
    assert opened(tmp_path, Keyring.parse(here.read_text()))


async def test_a_key_of_kms_gets_an_id_that_no_key_of_the_file_has(filled, stack):
    [old] = key_ids_in(filled)
    file = filled / "credentiald.sealing"
    unused = new_key_id(NOW, {old})
    file.write_text(f"{unused}:{KEY_TWO}\n" + file.read_text())
    with serving(FakeVault()) as vault:
        source = parse_source(f"vault:{vault.address}/transit/drawbridge")
        wrapping = Wrapping(source=source, vault=VaultAccess(token=lambda: Secret(vault.token)))
        sealer = bootstrap.prepare(url_in(filled), None, now=NOW).sealer
        db = await stack.enter_async_context(open_database(url_in(filled), sealer))
        keys = SealingKeys(db, sealer, LocalKeys(filled / DATABASE), lambda: NOW, wrapping)
        assert (await keys.rotate()).active_key_id not in (old, unused)
