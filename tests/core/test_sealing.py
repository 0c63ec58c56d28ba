import base64
import copy
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald import sealing
from credentiald.errors import Sealed, SealingKeyUnknown
from credentiald.model import ApiKeyMaterial, AwsKeyPairMaterial, SealedSecret
from credentiald.sealing import DeploymentSecret, Keyring, SealContext, Sealer
from daemonkit.secret import Secret

KEY_ONE = base64.b64encode(b"1" * 32).decode()
KEY_TWO = base64.b64encode(b"2" * 32).decode()
CONTEXT = SealContext(purpose=sealing.USER_KEY, provider_id="p1", user_id="u1", credential_id="c1")

texts = st.text(max_size=12)
contexts = st.builds(SealContext, purpose=texts, provider_id=texts, user_id=texts, credential_id=texts)


@pytest.fixture(scope="module")
def sealer() -> Sealer:
    return Sealer(Keyring.parse(f"k1:{KEY_ONE}"))


@given(st.binary(max_size=200), contexts)
def test_what_was_sealed_opens_in_its_context(plaintext, context):
    sealer = Sealer(Keyring.parse(f"k1:{KEY_ONE}"))
    assert sealer.open(sealer.seal(plaintext, context), context) == plaintext


@given(contexts, contexts)
def test_it_opens_in_no_other_context(sealed_for, opened_for):
    sealer = Sealer(Keyring.parse(f"k1:{KEY_ONE}"))
    sealed = sealer.seal(b"sk-canary", sealed_for)
    if sealed_for == opened_for:
        assert sealer.open(sealed, opened_for) == b"sk-canary"
    else:
        with pytest.raises(Sealed):
            sealer.open(sealed, opened_for)


def test_parts_of_the_context_cannot_be_shifted_into_each_other(sealer):
    sealed = sealer.seal(b"sk-canary", SealContext(purpose="user_key", provider_id="ab", user_id="c"))
    with pytest.raises(Sealed):
        sealer.open(sealed, SealContext(purpose="user_key", provider_id="a", user_id="bc"))


@pytest.mark.parametrize("column", ["nonce", "ciphertext"])
def test_every_flipped_bit_is_noticed(sealer, column):
    sealed = sealer.seal(b"sk-canary", CONTEXT)
    original: bytes = getattr(sealed, column)
    for bit in range(len(original) * 8):
        flipped = bytearray(original)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Sealed):
            sealer.open(replace(sealed, **{column: bytes(flipped)}), CONTEXT)


@pytest.mark.parametrize("key_id", ["k2", ""])
def test_a_row_of_a_key_that_is_not_at_hand_says_so_and_opens_when_it_is(sealer, key_id, caplog):
    sealed = sealer.seal(b"sk-canary", CONTEXT)
    with pytest.raises(SealingKeyUnknown) as refused:
        sealer.open(replace(sealed, key_id=key_id), CONTEXT)
    assert refused.value.reason() == "SEALED"
    assert [record.message for record in caplog.records] == [
        "a sealing key is not at hand: looking where keys are kept"
    ]
    other = Sealer(Keyring.parse(f"k9:{KEY_TWO}"))
    with pytest.raises(SealingKeyUnknown):
        other.seal(b"x", CONTEXT, key_id="k1")
    other.learn(Keyring.parse(f"k1:{KEY_ONE}\nk9:{KEY_ONE}"))
    assert other.open(sealed, CONTEXT) == b"sk-canary"
    # A key that is at hand stays what it is, whatever a file says later.
    assert Sealer(Keyring.parse(f"k9:{KEY_TWO}")).open(other.seal(b"x", CONTEXT, key_id="k9"), CONTEXT) == b"x"


@pytest.mark.parametrize(
    "change",
    [
        {"key_id": None},
        {"key_id": 1},
        {"nonce": b""},
        {"nonce": b"1" * 200},
        {"nonce": "twelve chars"},
        {"nonce": None},
        {"ciphertext": b""},
        {"ciphertext": b"short"},
        {"ciphertext": "text"},
        {"ciphertext": None},
    ],
    ids=str,
)
def test_a_row_with_anything_else_in_it_is_sealed_and_says_no_secret(sealer, change, caplog):
    sealed = sealer.seal(b"sk-canary", CONTEXT)
    with pytest.raises(Sealed) as refused:
        sealer.open(replace(sealed, **change), CONTEXT)
    assert refused.value.__cause__ is not None
    assert [record.message for record in caplog.records] == ["a stored secret cannot be opened"]
    assert "sk-canary" not in f"{refused.value!r}{refused.value.__cause__!r}{caplog.records[0].__dict__}"


def test_the_same_secret_never_looks_the_same_twice(sealer):
    sealed = [sealer.seal(b"sk-canary", CONTEXT) for _ in range(100)]
    assert len({(one.nonce, one.ciphertext) for one in sealed}) == len({one.nonce for one in sealed}) == 100
    assert all(b"canary" not in one.ciphertext for one in sealed)


def test_the_newest_key_seals_and_older_ones_still_open():
    old = Sealer(Keyring.parse(f"k1:{KEY_ONE}"))
    both = Sealer(Keyring.parse(f"k2:{KEY_TWO}\nk1:{KEY_ONE}\n"))
    assert both.seal(b"x", CONTEXT).key_id == "k2"
    assert both.open(old.seal(b"x", CONTEXT), CONTEXT) == b"x"


def test_a_key_under_another_id_does_not_open():
    sealed = Sealer(Keyring.parse(f"k1:{KEY_ONE}")).seal(b"x", CONTEXT)
    with pytest.raises(Sealed):
        Sealer(Keyring.parse(f"k2:{KEY_ONE}")).open(replace(sealed, key_id="k2"), CONTEXT)


secrets_ = st.text(min_size=1, max_size=40).map(Secret)
materials = st.one_of(
    st.builds(ApiKeyMaterial, value=secrets_),
    st.builds(
        AwsKeyPairMaterial,
        access_key_id=secrets_,
        secret_access_key=secrets_,
        session_token=st.one_of(st.none(), secrets_),
    ),
)


@given(materials)
def test_key_material_comes_back_as_it_was(material):
    sealer = Sealer(Keyring.parse(f"k1:{KEY_ONE}"))
    assert sealer.open_material(sealer.seal_material(material, CONTEXT), CONTEXT) == material


def test_key_material_with_lone_surrogates_comes_back_as_it_was(sealer):
    material = ApiKeyMaterial(value=Secret("\ud800"))
    assert sealer.open_material(sealer.seal_material(material, CONTEXT), CONTEXT) == material


@pytest.mark.parametrize(
    "plaintext",
    [
        b"sk-canary",
        b"\xff sk-canary",
        b'["sk-canary"]',
        b'"sk-canary"',
        b"{}",
        b'{"v": 2, "kind": "API_KEY", "value": "sk-canary"}',
        b'{"v": 1, "kind": "SSH_KEY", "value": "sk-canary"}',
        b'{"v": 1, "kind": "API_KEY", "val": "sk-canary"}',
        b'{"v": 1, "kind": "AWS_ACCESS_KEY_PAIR", "access_key_id": "sk-canary"}',
    ],
)
def test_sealed_bytes_that_are_no_key_material_are_refused_without_showing_them(sealer, plaintext, caplog):
    with pytest.raises(Sealed) as refused:
        sealer.open_material(sealer.seal(plaintext, CONTEXT), CONTEXT)
    chain, error = [], refused.value
    while error is not None:
        chain.append(f"{error!r} {vars(error)}")
        error = error.__cause__ or error.__context__
    assert "canary" not in " ".join(chain) + caplog.text


@pytest.mark.parametrize(
    ("text", "key_ids"),
    [
        (f"k1:{KEY_ONE}", ("k1",)),
        (f"k2:{KEY_TWO}\nk1:{KEY_ONE}\n", ("k2", "k1")),
        (f"k2:{KEY_TWO},k1:{KEY_ONE}", ("k2", "k1")),
        (f"\r\n  k2: {KEY_TWO} , \n\n k1:{KEY_ONE}\r\n", ("k2", "k1")),
        (f"{'a' * 32}:{KEY_ONE}", ("a" * 32,)),
    ],
)
def test_keyrings_are_read_newest_first(text, key_ids):
    assert Keyring.parse(text).key_ids == key_ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no sealing key"),
        (" \n,,\n", "there is no sealing key"),
        (KEY_ONE, "sealing key 1 has no id"),
        (f"k1:{KEY_ONE}\n{KEY_TWO}", "sealing key 2 has no id"),
        (f"k1:{KEY_ONE},k1:{KEY_TWO}", "sealing key 2 has the id of an earlier one"),
        (f":{KEY_ONE}", "the id of sealing key 1 is not allowed"),
        (f"k 1:{KEY_ONE}", "the id of sealing key 1 is not allowed"),
        (f"{'a' * 33}:{KEY_ONE}", "the id of sealing key 1 is not allowed"),
        (f"é:{KEY_ONE}", "the id of sealing key 1 is not allowed"),
        (f"{KEY_ONE}:k1", "the id of sealing key 1 is not allowed"),
        ("k1:", "not 32 bytes"),
        ("k1:" + base64.b64encode(b"1" * 31).decode(), "not 32 bytes"),
        ("k1:" + base64.b64encode(b"1" * 33).decode(), "not 32 bytes"),
        (f"k1:{KEY_ONE[:-1]}", "not base64"),
        (f"k1:{KEY_ONE[:-2]}é=", "not base64"),
        (f"k1:{KEY_ONE[:10]}*{KEY_ONE[10:]}", "not base64"),
    ],
)
def test_a_bad_keyring_is_refused_without_showing_it(text, message):
    with pytest.raises(ValueError, match=message) as refused:
        Keyring.parse(text)
    shown = repr(refused.value)
    assert not any(key[5:25] in shown for key in (KEY_ONE, KEY_TWO))
    assert refused.value.__cause__ is None


@given(st.text(max_size=60))
def test_any_text_without_a_key_in_it_is_a_value_error(text):
    with pytest.raises(ValueError, match="sealing key"):
        Keyring.parse(text)


def test_the_lines_of_a_generated_keyring_are_read_back():
    keyring = Keyring.generate("k20261121")
    read = Keyring.parse(keyring.to_text().reveal())
    assert read.key_ids == ("k20261121",)
    assert Sealer(read).open(Sealer(keyring).seal(b"x", CONTEXT), CONTEXT) == b"x"
    assert Keyring.generate("k1").to_text() != Keyring.generate("k1").to_text()


@pytest.mark.parametrize("holder", [Keyring.parse(f"k1:{KEY_ONE}"), DeploymentSecret(b"1" * 32)])
def test_what_holds_keys_does_not_print_or_pickle(holder):
    assert KEY_ONE[:20] not in f"{holder} {holder!r}"
    assert "1" * 8 not in f"{holder} {holder!r}"
    with pytest.raises(TypeError):
        pickle.dumps(holder)
    with pytest.raises(TypeError):
        copy.deepcopy(holder)


def test_keys_for_different_uses_differ_and_stay():
    secret = DeploymentSecret(b"s" * 32)
    assert secret.derive("receipts") == DeploymentSecret(b"s" * 32).derive("receipts")
    assert len({secret.derive("receipts"), secret.derive("pages"), b"s" * 32}) == 3
    assert len(secret.derive("receipts")) == 32


def test_the_derivation_is_hkdf_sha256():
    # RFC 5869, A.3 has an empty salt and info; the first 32 of its 42 bytes.
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert DeploymentSecret(b"\x0b" * 22).derive("").hex() == expected


def test_a_deployment_secret_opens_for_its_own_database_only(sealer):
    sealed = DeploymentSecret(b"s" * 32).sealed(sealer, "db-1")
    assert DeploymentSecret.open(sealed, sealer, "db-1").derive("x") == DeploymentSecret(b"s" * 32).derive("x")
    with pytest.raises(Sealed):
        DeploymentSecret.open(sealed, sealer, "db-2")


def test_the_context_of_each_kind_of_key_has_a_purpose_of_its_own(sealer):
    central = sealing.central_key_context(provider_id="p", credential_id="c")
    user = sealing.user_key_context(user_id="", provider_id="p", credential_id="c")
    sealed = sealer.seal(b"x", central)
    with pytest.raises(Sealed):
        sealer.open(sealed, user)
    assert isinstance(sealed, SealedSecret)
