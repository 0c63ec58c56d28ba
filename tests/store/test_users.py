from dataclasses import replace

import pytest

from credentiald import ids
from credentiald.errors import AlreadyExists, UserNotFound
from credentiald.store import access_tokens, revision, user_keys, users
from tests.support.store import LATER, MISSING_ID, NOW, a_token, a_user, last_change, sealed


@pytest.mark.parametrize("flags", [{}, {"admin": True}, {"suspended": True}])
def test_a_user_comes_back_by_id_and_by_username(conn, flags):
    user = users.create(conn, a_user("Alice", **flags))
    assert users.get(conn, user.id) == users.get(conn, user.id.upper()) == users.get(conn, "Alice") == user
    assert user == a_user("Alice", **flags, id=user.id)


@pytest.mark.parametrize(
    ("first", "second"),
    [("alice", "ALICE"), ("Straße", "STRASSE"), ("Älla", "älla"), ("\u00e9va", "e\u0301va"), ("alice", "\uff41lice")],
)
def test_usernames_are_unique_without_regard_to_case_and_form(conn, first, second):
    user = users.create(conn, a_user(first))
    with pytest.raises(AlreadyExists) as refused:
        users.create(conn, a_user(second))
    assert refused.value.facts == {"resource": "user", "name": second}
    assert users.get(conn, second) == user
    assert users.get(conn, second).username == first
    assert revision.current(conn) == 1


def test_a_taken_id_already_exists(conn):
    user = users.create(conn, a_user("alice"))
    with pytest.raises(AlreadyExists):
        users.create(conn, a_user("bob", id=user.id))
    assert users.find(conn, "bob") is None


@pytest.mark.parametrize("name", ["nobody", MISSING_ID, "", "%", "_"])
def test_an_unknown_user_is_not_found(conn, name):
    users.create(conn, a_user("alice"))
    assert users.find(conn, name) is None
    for change in (
        lambda: users.get(conn, name),
        lambda: users.set_suspended(conn, name, True, now=NOW),
        lambda: users.delete(conn, name, now=NOW),
    ):
        with pytest.raises(UserNotFound):
            change()
    assert revision.current(conn) == 1


def test_an_id_wins_over_a_username_that_looks_like_it(conn):
    alice = users.create(conn, a_user("alice"))
    impostor = users.create(conn, a_user(alice.id))
    assert users.get(conn, alice.id) == alice
    assert users.get(conn, impostor.id) == impostor


def test_suspending_and_resuming_are_changes_and_repeating_them_is_none(conn):
    user = users.create(conn, a_user())
    suspended = users.set_suspended(conn, "alice", True, now=LATER)
    assert suspended == replace(user, suspended=True, version=2, update_time=LATER)
    assert last_change(conn) == ("user.suspended", user.id, "alice")
    assert users.set_suspended(conn, user.id, True, now=LATER) == suspended
    assert revision.current(conn) == 2
    assert not users.set_suspended(conn, "alice", False, now=LATER).suspended
    assert last_change(conn) == ("user.resumed", user.id, "alice")


def test_a_deleted_user_takes_tokens_and_keys_along(conn):
    user, other = users.create(conn, a_user("alice")), users.create(conn, a_user("bob"))
    for person in (user, other):
        access_tokens.create(conn, a_token(person), f"hash of {person.username}".encode())
        user_keys.put(
            conn,
            user_id=person.id,
            provider_id="p",
            credential_id=ids.uuid7(NOW),
            sealed=sealed("mine"),
            now=NOW,
        )
    users.delete(conn, "alice", now=LATER)
    assert last_change(conn) == ("user.deleted", user.id, "alice")
    assert access_tokens.by_hash(conn, b"hash of alice") is None
    assert access_tokens.by_hash(conn, b"hash of bob") is not None
    assert user_keys.list_for_user(conn, user.id) == {}
    assert set(user_keys.list_for_user(conn, other.id)) == {"p"}
    assert users.create(conn, a_user("alice")).id != user.id


def test_pages_follow_each_other_by_username_whatever_the_case(conn):
    names = ["bob", "Alice", "carol", "ALBERT", "Zoë", "dave", "eve"]
    for name in names:
        users.create(conn, a_user(name))
    seen, after = [], None
    while page := users.list_page(conn, after=after, limit=2):
        seen += [user.username for user in page]
        after = page[-1].username
    assert seen == sorted(names, key=str.casefold)
