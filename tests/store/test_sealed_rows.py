"""A row that was changed, or copied to another place, does not open (G7)."""

import sqlite3

import pytest

from credentiald import ids
from credentiald.errors import Sealed
from credentiald.model import ApiKeyMaterial, KeyKind
from credentiald.sealing import Keyring, Sealer, central_key_context, user_key_context
from credentiald.store import providers, user_keys, users
from credentiald.store.providers import StoredKey
from daemonkit.secret import Secret
from tests.support.store import NOW, a_provider, a_user

SEALER = Sealer(Keyring.generate("k1"))


@pytest.fixture
def central(conn):
    """Two providers with a central key each; what opens them."""
    for name in ("one", "two"):
        provider, credential_id = a_provider(name), ids.uuid7(NOW)
        sealed = SEALER.seal_material(
            ApiKeyMaterial(value=Secret(f"sk-{name}")),
            central_key_context(provider_id=provider.id, credential_id=credential_id),
        )
        key = StoredKey(credential_id=credential_id, kind=KeyKind.API_KEY, sealed=sealed)
        providers.create(conn, provider, (key,), now=NOW)
    return conn


@pytest.fixture
def personal(conn):
    """Two users with a key each for two providers."""
    for username in ("alice", "bob"):
        user = users.create(conn, a_user(username))
        for provider_id in ("p1", "p2"):
            credential_id = ids.uuid7(NOW)
            context = user_key_context(user_id=user.id, provider_id=provider_id, credential_id=credential_id)
            sealed = SEALER.seal_material(ApiKeyMaterial(value=Secret(f"sk-{username}-{provider_id}")), context)
            user_keys.put(
                conn, user_id=user.id, provider_id=provider_id, credential_id=credential_id, sealed=sealed, now=NOW
            )
    return conn


def open_central(conn: sqlite3.Connection, name: str) -> str:
    """The key of the provider, opened in the way that a resolve does: from what the row says."""
    provider = providers.get(conn, name)
    ((key, sealed),) = providers.sealed_central_keys(conn, provider.id)
    context = central_key_context(provider_id=provider.id, credential_id=key.credential_id)
    return SEALER.open_material(sealed, context).value.reveal()


def open_personal(conn: sqlite3.Connection, username: str, provider_id: str) -> str:
    user = users.get(conn, username)
    key, sealed = user_keys.find(conn, user_id=user.id, provider_id=provider_id)
    context = user_key_context(user_id=user.id, provider_id=provider_id, credential_id=key.credential_id)
    return SEALER.open_material(sealed, context).value.reveal()


def test_untouched_rows_open(central, personal):
    assert [open_central(central, name) for name in ("one", "two")] == ["sk-one", "sk-two"]
    assert open_personal(personal, "alice", "p1") == "sk-alice-p1"
    assert open_personal(personal, "bob", "p2") == "sk-bob-p2"


TAMPERING = [
    "key_id = 'k2'",
    "key_id = ''",
    "key_id = x'6b31'",
    "key_id = 7",
    "nonce = zeroblob(12)",
    "nonce = zeroblob(0)",
    "nonce = CAST(hex(nonce) AS TEXT)",
    "nonce = 5",
    "ciphertext = zeroblob(length(ciphertext))",
    "ciphertext = zeroblob(0)",
    "ciphertext = substr(ciphertext, 1, length(ciphertext) - 1)",
    "ciphertext = ciphertext || x'00'",
    "ciphertext = 'text'",
    "credential_id = 'another'",
]


@pytest.mark.parametrize("change", TAMPERING)
def test_a_changed_column_fails_closed(central, personal, change):
    central.execute(
        f"UPDATE central_keys SET {change} WHERE provider_id = (SELECT id FROM providers WHERE name = 'one')"
    )
    personal.execute(
        f"UPDATE user_keys SET {change} WHERE provider_id = 'p1'"
        " AND user_id = (SELECT id FROM users WHERE username = 'alice')"
    )
    with pytest.raises(Sealed):
        open_central(central, "one")
    with pytest.raises(Sealed):
        open_personal(personal, "alice", "p1")
    assert open_central(central, "two") == "sk-two"
    assert open_personal(personal, "alice", "p2") == "sk-alice-p2"


@pytest.mark.parametrize("column", ["nonce", "ciphertext"])
@pytest.mark.parametrize("table", ["central_keys", "user_keys"])
def test_every_flipped_bit_fails_closed(central, personal, table, column):
    rows = central.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
    rowid, original = rows[0]
    open_first = {
        "central_keys": lambda: open_central(central, "one"),
        "user_keys": lambda: open_personal(personal, "alice", "p1"),
    }[table]
    for bit in range(len(original) * 8):
        flipped = bytearray(original)
        flipped[bit // 8] ^= 1 << bit % 8
        central.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (bytes(flipped), rowid))
        with pytest.raises(Sealed):
            open_first()


def swap_owners(conn, table, column, first, second):
    """Exchange whose rows they are, credential ids and all, as somebody with access to the file could."""
    conn.execute("PRAGMA foreign_keys = OFF")
    conn.execute(f"UPDATE {table} SET {column} = 'waiting' WHERE {column} = ?", (first,))
    conn.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (first, second))
    conn.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = 'waiting'", (second,))


def test_a_central_key_does_not_open_for_another_provider(central):
    one, two = providers.get(central, "one").id, providers.get(central, "two").id
    swap_owners(central, "central_keys", "provider_id", one, two)
    for name in ("one", "two"):
        with pytest.raises(Sealed):
            open_central(central, name)


def test_a_users_key_does_not_open_for_another_user(personal):
    alice, bob = users.get(personal, "alice").id, users.get(personal, "bob").id
    swap_owners(personal, "user_keys", "user_id", alice, bob)
    for username in ("alice", "bob"):
        with pytest.raises(Sealed):
            open_personal(personal, username, "p1")


def test_a_users_key_does_not_open_for_another_provider(personal):
    swap_owners(personal, "user_keys", "provider_id", "p1", "p2")
    for provider_id in ("p1", "p2"):
        with pytest.raises(Sealed):
            open_personal(personal, "alice", provider_id)


def test_a_users_key_does_not_open_as_a_central_key(central, personal):
    alice = users.get(personal, "alice")
    key, sealed = user_keys.find(personal, user_id=alice.id, provider_id="p1")
    one = providers.get(central, "one")
    central.execute(
        "UPDATE central_keys SET credential_id = ?, key_id = ?, nonce = ?, ciphertext = ? WHERE provider_id = ?",
        (key.credential_id, sealed.key_id, sealed.nonce, sealed.ciphertext, one.id),
    )
    with pytest.raises(Sealed):
        open_central(central, "one")
