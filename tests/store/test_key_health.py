from datetime import timedelta

import pytest

from credentiald.key_health import FORGOTTEN_AFTER, Cooldown, OutcomeKind
from credentiald.store import key_health, providers
from tests.support.store import NOW, a_key, a_provider, changes_of


def a_cooldown(instance="b-1", *, credential="k1", provider="p1", service="s1", until=60):
    return Cooldown(
        credential_id=credential,
        provider_id=provider,
        teller=(service, instance),
        kind=OutcomeKind.RATE_LIMITED,
        since_time=NOW,
        until_time=NOW + timedelta(seconds=until),
        strikes=3,
        error="rate_limit_error",
        http_status=429,
    )


def stored(conn, provider="p1", now=NOW):
    return sorted(key_health.of_provider(conn, provider, now=now), key=lambda one: one.teller)


def test_a_complaint_comes_back_as_it_was_put_and_a_later_one_takes_its_place(conn):
    for one in (a_cooldown(), a_cooldown("b-2"), a_cooldown(provider="p2")):
        key_health.put(conn, one)
    key_health.put(conn, a_cooldown(until=90))
    assert stored(conn) == [a_cooldown(until=90), a_cooldown("b-2")]
    assert len(key_health.all_cooldowns(conn, now=NOW)) == 3
    assert changes_of(conn) == []


def test_a_service_that_invents_bridges_has_so_many_complaints_of_a_key_and_takes_no_others_away(conn):
    key_health.put(conn, a_cooldown("theirs", service="s2", until=1))
    key_health.put(conn, a_cooldown("first", credential="k2", until=1))
    for number in range(key_health.MOST_OF_ONE_SERVICE + 20):
        key_health.put(conn, a_cooldown(f"b-{number}", until=100 + number))
    found = stored(conn)
    assert len(found) == key_health.MOST_OF_ONE_SERVICE + 2
    of_key = [one for one in found if one.credential_id == "k1" and one.teller[0] == "s1"]
    assert min(one.until_time for one in of_key) == NOW + timedelta(seconds=120)


def test_what_is_forgotten_is_neither_read_nor_kept(conn):
    key_health.put(conn, a_cooldown(until=0))
    key_health.put(conn, a_cooldown("b-2", until=1))
    later = NOW + FORGOTTEN_AFTER
    assert stored(conn, now=later) == [a_cooldown("b-2", until=1)]
    assert key_health.all_cooldowns(conn, now=later) == [a_cooldown("b-2", until=1)]
    key_health.remove_old(conn, now=later)
    assert stored(conn) == [a_cooldown("b-2", until=1)]


def test_only_what_is_over_is_removed(conn):
    for one in (a_cooldown(), a_cooldown("b-2"), a_cooldown(credential="k2")):
        key_health.put(conn, one)
    key_health.remove(conn, [a_cooldown(until=90)])
    assert stored(conn) == [a_cooldown(credential="k2"), a_cooldown("b-2")]


@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_the_complaints_of_keys_that_go_go_with_them(conn, how):
    kept, gone = a_key("kept"), a_key("gone")
    provider = providers.create(conn, a_provider(), [kept, gone], now=NOW)
    for key in (kept, gone):
        key_health.put(conn, a_cooldown(credential=key.credential_id, provider=provider.id))
    key_health.put(conn, a_cooldown())
    if how == "replaced":
        providers.update(conn, provider, keys=[kept], expected_version=None, now=NOW)
    else:
        providers.delete(conn, provider.name, expected_version=None, now=NOW)
    left = [one.credential_id for one in stored(conn, provider.id)]
    assert left == ([kept.credential_id] if how == "replaced" else [])
    assert stored(conn) == [a_cooldown()]


def test_a_change_of_the_provider_alone_leaves_what_was_told_of_its_keys(conn):
    key = a_key()
    provider = providers.create(conn, a_provider(), [key], now=NOW)
    key_health.put(conn, a_cooldown(credential=key.credential_id, provider=provider.id))
    providers.update(conn, provider, keys=None, expected_version=None, now=NOW)
    assert len(stored(conn, provider.id)) == 1
