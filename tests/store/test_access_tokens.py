import pytest

from credentiald.errors import AlreadyExists, TokenNotFound, UserNotFound
from credentiald.store import access_tokens, revision, users
from tests.support.store import LATER, MISSING_ID, NOW, a_token, a_user, last_change


@pytest.fixture
def alice(conn):
    return users.create(conn, a_user("alice"))


@pytest.mark.parametrize("expire_time", [None, LATER])
def test_a_token_is_found_by_its_hash_with_its_user(conn, alice, expire_time):
    token = access_tokens.create(conn, a_token(alice, expire_time=expire_time), b"hash")
    assert token == a_token(alice, id=token.id, expire_time=expire_time)
    assert access_tokens.by_hash(conn, b"hash") == (token, alice)
    assert last_change(conn) == ("token.created", token.id, "alice")


@pytest.mark.parametrize("other", [b"", b"has", b"hash ", b"HASH", b"\x00"])
def test_no_other_hash_finds_it(conn, alice, other):
    access_tokens.create(conn, a_token(alice), b"hash")
    assert access_tokens.by_hash(conn, other) is None


def test_the_user_that_comes_with_a_token_is_as_it_is_now(conn, alice):
    access_tokens.create(conn, a_token(alice), b"hash")
    suspended = users.set_suspended(conn, "alice", True, now=LATER)
    found = access_tokens.by_hash(conn, b"hash")
    assert found is not None
    assert found[1] == suspended


def test_a_taken_id_or_hash_already_exists(conn, alice):
    token = access_tokens.create(conn, a_token(alice), b"hash")
    for again, token_hash in ((token, b"other"), (a_token(alice), b"hash")):
        with pytest.raises(AlreadyExists) as refused:
            access_tokens.create(conn, again, token_hash)
        assert refused.value.facts == {"resource": "token", "name": again.id}
    assert revision.current(conn) == 2


def test_a_token_needs_a_user(conn):
    with pytest.raises(UserNotFound):
        access_tokens.create(conn, a_token(a_user(id=MISSING_ID)), b"hash")


def test_revoking_counts_once(conn, alice):
    token = access_tokens.create(conn, a_token(alice), b"hash")
    revoked = access_tokens.revoke(conn, token.id.upper(), now=LATER)
    assert revoked.revoke_time == LATER
    assert last_change(conn) == ("token.revoked", token.id, "alice")
    assert access_tokens.revoke(conn, token.id, now=NOW) == revoked
    assert access_tokens.by_hash(conn, b"hash") == (revoked, alice)
    assert revision.current(conn) == 3


@pytest.mark.parametrize("token_id", ["", "dbu_x", MISSING_ID])
def test_an_unknown_token_is_not_found(conn, alice, token_id):
    access_tokens.create(conn, a_token(alice), b"hash")
    with pytest.raises(TokenNotFound):
        access_tokens.revoke(conn, token_id, now=NOW)


def test_lists_are_by_time_for_one_user_or_for_all(conn, alice):
    bob = users.create(conn, a_user("bob"))
    made = [
        access_tokens.create(conn, a_token((alice, bob)[number % 2]), f"hash {number}".encode()) for number in range(9)
    ]
    for user_id, expected in ((None, made), (alice.id, made[::2]), (bob.id, made[1::2]), (MISSING_ID, [])):
        seen, after = [], None
        while page := access_tokens.list_page(conn, user_id=user_id, after=after, limit=2):
            seen += page
            after = page[-1].id
        assert seen == expected
