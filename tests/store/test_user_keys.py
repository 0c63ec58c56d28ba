import pytest

from credentiald.errors import UserNotFound
from credentiald.model import UserKey
from credentiald.store import revision, user_keys, users
from tests.support.store import LATER, MISSING_ID, NOW, a_user, last_change, sealed


@pytest.fixture
def alice(conn):
    return users.create(conn, a_user("alice"))


def put(conn, user, provider_id="p1", credential_id="c1", mark="mine", now=NOW):
    return user_keys.put(
        conn,
        user_id=user.id,
        provider_id=provider_id,
        credential_id=credential_id,
        sealed=sealed(mark),
        now=now,
    )


def test_a_key_comes_back_still_sealed(conn, alice):
    stored = put(conn, alice)
    assert stored == UserKey(user_id=alice.id, provider_id="p1", credential_id="c1", update_time=NOW)
    assert user_keys.find(conn, user_id=alice.id, provider_id="p1") == (stored, sealed("mine"))
    assert last_change(conn) == ("user_key.set", f"{alice.id}/p1", "alice")


def test_a_second_key_takes_the_place_of_the_first(conn, alice):
    put(conn, alice)
    second = put(conn, alice, credential_id="c2", mark="newer", now=LATER)
    assert user_keys.find(conn, user_id=alice.id, provider_id="p1") == (second, sealed("newer"))
    assert user_keys.list_for_user(conn, alice.id) == {"p1": second}
    assert second.update_time == LATER


def test_keys_of_other_users_and_providers_are_not_touched(conn, alice):
    bob = users.create(conn, a_user("bob"))
    mine = {
        "p1": put(conn, alice, "p1", "c1"),
        "p2": put(conn, alice, "p2", "c2"),
    }
    his = put(conn, bob, "p1", "c3")
    assert user_keys.list_for_user(conn, alice.id) == mine
    assert user_keys.delete(conn, user_id=alice.id, provider_id="p1", now=LATER)
    assert user_keys.list_for_user(conn, alice.id) == {"p2": mine["p2"]}
    assert user_keys.list_for_user(conn, bob.id) == {"p1": his}


def test_deleting_says_whether_there_was_a_key_and_only_then_is_a_change(conn, alice):
    put(conn, alice)
    assert user_keys.delete(conn, user_id=alice.id, provider_id="p1", now=LATER) is True
    assert last_change(conn) == ("user_key.deleted", f"{alice.id}/p1", "alice")
    before = revision.current(conn)
    assert user_keys.delete(conn, user_id=alice.id, provider_id="p1", now=LATER) is False
    assert revision.current(conn) == before
    assert user_keys.find(conn, user_id=alice.id, provider_id="p1") is None


def test_a_key_needs_a_user(conn):
    with pytest.raises(UserNotFound):
        put(conn, a_user(id=MISSING_ID))
    with pytest.raises(UserNotFound):
        user_keys.delete(conn, user_id=MISSING_ID, provider_id="p1", now=NOW)
    assert revision.current(conn) == 0
