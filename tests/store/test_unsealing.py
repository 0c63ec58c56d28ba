"""Vault as it is asked for sealing keys, and how often; over real HTTP, in one process."""

import asyncio
import base64
import sqlite3
import threading
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from credentiald import unsealing
from credentiald.errors import SealingSourceUnavailable
from credentiald.metrics import Metrics
from credentiald.sealing_keys import SealingKeys
from credentiald.sealing_places import LocalKeys
from credentiald.sealing_rounds import round_of
from credentiald.sealing_source import KmsSource, LocalSource, VaultSource, parse_source
from credentiald.sealing_wrapping import WrapFailed, Wrapping
from credentiald.store.database import open_database
from credentiald.unsealing import Place
from credentiald.vault import VaultAccess, read_token
from daemonkit.secret import Secret
from tests.fakes.vault import FakeVault, serving
from tests.support.certificates import Authority, server_files

ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def place_in(folder, vault, **access):
    """A database in the folder whose keys this Vault encrypts."""
    wrapping = Wrapping(
        source=parse_source(f"vault:{vault.address}/{vault.mount}/drawbridge"),
        vault=VaultAccess(**{"token": lambda: Secret("hvs.the-token"), "namespace": vault.namespace, **access}),
    )
    return Place(
        database_url=f"sqlite:///{folder}/store.db",
        sealing_keys=None,
        wrapping=wrapping,
        clock=lambda: datetime.now(UTC),
    )


async def cause_of(place):
    with pytest.raises(WrapFailed) as failed:
        await unsealing.prepared(place)
    assert "hvs.the-token" not in f"{failed.value!r}{failed.value.__cause__!r}{failed.value.__context__!r}"
    return str(failed.value).removeprefix(f"{place.wrapping.source.text}: "), failed.value.is_refused


@pytest.mark.parametrize("derived", [False, True])
async def test_keys_are_bound_to_their_database_and_outlive_new_versions_of_the_key_over_there(tmp_path, derived):
    with serving(FakeVault(derived=derived, mount="teams/transit", namespace="eng")) as vault:
        place = place_in(tmp_path, vault)
        assert place.is_sealed()
        made = await unsealing.prepared(place)
        assert made.created
        vault.keys["drawbridge"].append(b"2" * 32)
        again = await unsealing.prepared(place)
        assert again.sealer.key_ids == made.sealer.key_ids
        assert [path for path, _ in vault.calls] == [
            f"/v1/teams/transit/{operation}/drawbridge" for operation in ("encrypt", "decrypt", "decrypt")
        ]
        with closing(sqlite3.connect(tmp_path / "store.db")) as conn, conn:
            assert [row[0][:8] for row in conn.execute("SELECT wrapped FROM sealing_keys")] == [b"vault:v1"]
            conn.execute("UPDATE meta SET database_id = 'another'")
        cause, is_refused = await cause_of(place)
        assert (cause.endswith("(400)"), is_refused) == (True, True)
        assert not (tmp_path / "credentiald.sealing").exists()


async def test_a_key_that_decrypts_and_is_not_the_one_is_sealed_and_no_reason_to_end(tmp_path):
    with serving(FakeVault()) as vault:
        place = place_in(tmp_path, vault)
        await unsealing.prepared(place)
        with closing(sqlite3.connect(tmp_path / "store.db")) as conn, conn:
            [(key_id, database_id)] = conn.execute("SELECT sealing_key_id, database_id FROM meta").fetchall()
            other = await place.wrapping.wrap(b"x" * 32, key_id=key_id, database_id=database_id)
            conn.execute("UPDATE sealing_keys SET wrapped = ?", (other,))
        cause, is_refused = await cause_of(place)
        assert ("is not the one that sealed the database" in cause, is_refused) == (True, True)


def tamper(**changes):
    def change(vault):
        for name, value in changes.items():
            setattr(vault, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "words", "refused"),
    [
        (tamper(sealed=True), "Vault is sealed, or in maintenance (503)", False),
        (tamper(token="hvs.other"), "or its policy does not allow this (403)", True),
        (tamper(keys={}), "its type does not fit, or what is stored was not encrypted like this (400)", True),
        (tamper(mount="elsewhere"), "Vault has no such mount: check the path (404)", True),
        (tamper(redirects_to="http://127.0.0.1:9"), "the Vault server sends elsewhere: name the active one", False),
        (tamper(garbage=b"<html>"), "its answer is not Vault's", False),
        (tamper(garbage=b'{"data": {}}'), "Vault's answer is not one of a transit engine", False),
        (tamper(garbage=b'{"data": []}'), "Vault's answer is not one of a transit engine", False),
    ],
)  # fmt: skip
async def test_what_vault_says_is_told_in_words_of_ours(tmp_path, change, words, refused):
    with serving(FakeVault()) as vault:
        place = place_in(tmp_path, vault)
        change(vault)
        cause, is_refused = await cause_of(place)
        assert (cause[-len(words) :], is_refused) == (words, refused)
        # Nothing was made on the way.
        assert not (tmp_path / "store.db").exists()


async def test_nobody_there_and_no_token_are_told(tmp_path):
    with serving(FakeVault()) as vault:
        place = place_in(tmp_path, vault)
        words, refused = await cause_of(place_in(tmp_path, vault, token=lambda: None))
        assert (words, refused) == ("there is no token: set CREDENTIALD_VAULT_TOKEN_FILE", True)
        words, _ = await cause_of(place_in(tmp_path, vault, token=lambda: Secret("hvs.the-token\r\nX-Evil: 1")))
        assert words == "its answer is not Vault's"
        assert vault.calls == []
    assert (await cause_of(place))[0].startswith("no connection")


async def test_tls_needs_an_authority_that_vouches_for_the_server(tmp_path):
    authority = Authority()
    for name, content in {**server_files(authority), "ca.pem": authority.pem, "other.pem": Authority().pem}.items():
        (tmp_path / name).write_bytes(content)
    with serving(FakeVault(), tls=(tmp_path / "tls.crt", tmp_path / "tls.key")) as vault:
        for ca_file in ("", str(tmp_path / "other.pem")):
            words, refused = await cause_of(place_in(tmp_path, vault, ca_file=ca_file))
            assert (words.startswith("Vault's certificate was not accepted"), refused) == (True, False)
        (tmp_path / "empty.pem").write_bytes(b"")
        for name, problem in (("nothing.pem", "No such file or directory"), ("empty.pem", "no valid PEM")):
            words, refused = await cause_of(place_in(tmp_path, vault, ca_file=str(tmp_path / name)))
            assert (words, refused) == (f"CREDENTIALD_VAULT_CA cannot be read: {problem}", True)
        assert vault.calls == []
        assert (await unsealing.prepared(place_in(tmp_path, vault, ca_file=str(tmp_path / "ca.pem")))).created


async def test_proxies_of_the_environment_are_not_used(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(FakeVault()) as vault:
        assert (await unsealing.prepared(place_in(tmp_path, vault))).created


async def test_who_hangs_is_given_up_and_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr("credentiald.sealing_wrapping.ASK_SECONDS", 0.05)
    with serving(FakeVault(hangs=threading.Event())) as vault:
        assert await cause_of(place_in(tmp_path, vault)) == ("no answer in time", False)
        vault.hangs.set()


async def test_it_is_asked_less_and_less_often_and_each_cause_is_logged_once(tmp_path, caplog):
    waits, failures = [], []

    async def wait(seconds):
        waits.append(seconds)
        if len(waits) == 7:
            vault.sealed = False

    with serving(FakeVault(sealed=True)) as vault:
        place = place_in(tmp_path, vault)
        prepared = await unsealing.unsealed(place, failures.append, wait=wait, chance=lambda: 1.0)
        assert prepared.created
        assert waits == [1, 2, 4, 8, 16, 30, 30]
        assert len(failures) == 7
        assert len([record for record in caplog.records if record.message.startswith("sealed: ")]) == 1


async def test_two_that_start_at_once_make_one_database(tmp_path):
    with serving(FakeVault()) as vault:
        places = [place_in(tmp_path, vault) for _ in range(4)]
        found = await asyncio.gather(*(unsealing.unsealed(place, lambda error: None) for place in places))
        assert [one.created for one in found].count(True) == 1
        assert len({one.sealer.key_ids for one in found}) == 1


def test_the_token_is_read_again_each_time_and_the_last_one_is_good_enough(tmp_path):
    file = tmp_path / "token"
    file.write_text("one\n")
    assert read_token(Secret("zero"), str(file)).stripped() == Secret("one")
    file.write_text("two")
    assert read_token(Secret("zero"), str(file)) == Secret("two")
    file.unlink()
    assert read_token(Secret("zero"), str(file)) == Secret("zero")
    assert read_token(None, "") is None


VAULT = VaultSource(is_tls=True, host="vault.example", port=8200, mount="transit", key="drawbridge")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("local", LocalSource()),
        (f" aws-kms:{ARN} ", KmsSource(arn=ARN, region="eu-central-1")),
        ("aws-kms:arn:aws-us-gov:kms:us-gov-west-1:123456789012:alias/team/key", KmsSource(
            arn="arn:aws-us-gov:kms:us-gov-west-1:123456789012:alias/team/key", region="us-gov-west-1")),
        ("vault:https://vault.example:8200/transit/drawbridge", VAULT),
        ("vault:https://vault.example/a/b/key", replace(VAULT, port=443, mount="a/b", key="key")),
        ("vault:http://127.0.0.1:8200/transit/k", replace(VAULT, is_tls=False, host="127.0.0.1", key="k")),
        ("vault:https://[2001:db8::1]:8200/transit/k", replace(VAULT, host="2001:db8::1", key="k")),
    ],
)  # fmt: skip
def test_sources_are_read_and_written_alike(text, source):
    assert parse_source(text) == source
    assert parse_source(source.text) == source


@pytest.mark.parametrize(
    "text",
    [
        "", "file", "aws-kms", "aws-kms:alias/x", "aws-kms:arn:aws:s3:::bucket", f"aws-kms:{ARN}\n{ARN}", "vault:",
        "vault:vault.example/transit/k", "vault:https://vault.example/k", "vault:https://vault.example",
        "vault:http://vault.example/transit/k", "vault:https://user:pw@vault.example/transit/k",
        "vault:https://vault.example/transit/k?x=1", "vault:https://vault.example/transit/../k/%2e",
        "vault:https://vault.example:99999/transit/k", "vault:ftp://vault.example/transit/k",
    ],
)  # fmt: skip
def test_what_is_no_source_is_refused(text):
    with pytest.raises(ValueError, match=r"write|comes|vault:"):
        parse_source(text)


async def test_a_second_process_has_a_new_key_decrypted_when_it_meets_it_and_does_not_ask_all_the_time(tmp_path):
    with serving(FakeVault()) as vault:
        place = place_in(tmp_path, vault)
        async with AsyncExitStack() as stack:
            one, two = [await keys_at(place, stack) for _ in range(2)]
            new = (await one.rotate()).active_key_id
            vault.sealed = True
            vault.calls.clear()
            for _ in range(3):
                await two.refresh()
            assert not two.has(new)
            assert len(vault.calls) == 1
            # A key of its own is at hand whatever becomes of Vault.
            assert (await one.status()).active_key_id == new
            with pytest.raises(SealingSourceUnavailable, match="Vault is sealed"):
                await round_and_rotate(one)
            vault.sealed = False
            three = await keys_at(place, stack)
            assert three.has(new)


async def round_and_rotate(keys):
    await round_of(keys, Metrics("test"), rest_seconds=0)
    await keys.rotate()


async def keys_at(place, stack):
    prepared = await unsealing.prepared(place)
    db = await stack.enter_async_context(open_database(place.database_url, prepared.sealer))
    return SealingKeys(db, prepared.sealer, LocalKeys(prepared.database_path), place.clock, place.wrapping)


async def test_who_hangs_outside_is_given_up_once_whoever_waits(tmp_path, monkeypatch):
    monkeypatch.setattr("credentiald.sealing_wrapping.ASK_SECONDS", 0.3)
    with serving(FakeVault()) as vault:
        place = place_in(tmp_path, vault)
        async with AsyncExitStack() as stack:
            one, two = [await keys_at(place, stack) for _ in range(2)]
            await one.rotate()
            vault.hangs = threading.Event()
            asked = len(vault.asked)
            for _ in range(3):
                # As a question that has no time left.
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(two.refresh(), 0.01)
            await two.refresh()
            assert len(vault.asked) == asked + 1
            vault.hangs.set()


async def test_nobody_is_asked_whom_only_the_database_names(tmp_path):
    # Who can write to the database puts a key of their own there, which a server of theirs hands out.
    with serving(FakeVault()) as vault, serving(FakeVault(keys={"theirs": [b"3" * 32]})) as theirs:
        place = place_in(tmp_path, vault)
        async with AsyncExitStack() as stack:
            keys = await keys_at(place, stack)
            with closing(sqlite3.connect(tmp_path / "store.db")) as conn, conn:
                conn.execute(
                    "INSERT INTO sealing_keys (id, source, fingerprint, wrapped, create_time)"
                    " VALUES ('k9', ?, ?, ?, 1)",
                    (f"vault:{theirs.address}/transit/theirs", b"f" * 16, b"vault:v1:AAAA"),
                )
                conn.execute("UPDATE meta SET sealing_key_id = 'k9'")
            await keys.refresh()
            assert not keys.has("k9")
        cause, is_refused = await cause_of(place)
        assert ("the database names it and no setting does" in cause, is_refused) == (True, True)
        # They would have got our token.
        assert theirs.asked == []
        named = replace(place.wrapping, before=(parse_source(f"vault:{theirs.address}/transit/theirs"),))
        await cause_of(replace(place, wrapping=named))
        assert len(theirs.asked) == 1


@pytest.mark.parametrize("trouble", ["denied", "another key"])
async def test_a_key_that_cannot_be_decrypted_again_seals_nothing(tmp_path, trouble):
    with serving(FakeVault()) as vault:
        place = place_in(tmp_path, vault)
        async with AsyncExitStack() as stack:
            keys = await keys_at(place, stack)
            before = (await keys.status()).active_key_id
            transit = vault._transit

            def decrypting(operation, versions, body):
                if operation == "encrypt":
                    return transit(operation, versions, body)
                if trouble == "denied":
                    return 403, {"errors": ["permission denied"]}
                return 200, {"data": {"plaintext": base64.b64encode(b"x" * 32).decode()}}

            vault._transit = decrypting
            with pytest.raises(SealingSourceUnavailable):
                await keys.rotate()
            assert (await keys.status()).active_key_id == before


async def test_a_rotation_that_failed_leaves_no_key_under_an_id_that_another_process_uses(tmp_path):
    with serving(FakeVault()) as vault:
        place = place_in(tmp_path, vault)
        async with AsyncExitStack() as stack:
            one, two = [await keys_at(place, stack) for _ in range(2)]
            with closing(sqlite3.connect(tmp_path / "store.db")) as conn, conn:
                conn.execute("CREATE TRIGGER full BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'no'); END")
            with pytest.raises(sqlite3.IntegrityError):
                await one.rotate()
            with closing(sqlite3.connect(tmp_path / "store.db")) as conn, conn:
                conn.execute("DROP TRIGGER full")
            new = (await two.rotate()).active_key_id
            assert not one.has(new)
            await round_of(two, Metrics("test"), rest_seconds=0)
            await round_of(one, Metrics("test"), rest_seconds=0)
            assert await one.look() == (True, False)


async def test_a_key_that_decrypts_to_another_is_not_at_hand_and_not_asked_for_all_the_time(tmp_path):
    with serving(FakeVault()) as vault:
        place = place_in(tmp_path, vault)
        async with AsyncExitStack() as stack:
            one, two = [await keys_at(place, stack) for _ in range(2)]
            new = (await one.rotate()).active_key_id
            with closing(sqlite3.connect(tmp_path / "store.db")) as conn, conn:
                [(database_id,)] = conn.execute("SELECT database_id FROM meta").fetchall()
                other = await place.wrapping.wrap(b"x" * 32, key_id=new, database_id=database_id)
                conn.execute("UPDATE sealing_keys SET wrapped = ? WHERE id = ?", (other, new))
            vault.calls.clear()
            for _ in range(3):
                await two.refresh()
            assert (two.has(new), len(vault.calls)) == (False, 1)
