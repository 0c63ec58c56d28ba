import sqlite3
from dataclasses import replace
from datetime import timedelta

import pytest

from credentiald import ids
from credentiald.errors import AlreadyExists, EtagMismatch, ProviderNotFound
from credentiald.model import (
    BedrockModelRule,
    BedrockOptions,
    BedrockProtocol,
    KeyKind,
    KeyPolicy,
    Origin,
    Provider,
    Timeouts,
)
from credentiald.store import providers, revision, user_keys, users
from tests.support.store import LATER, MISSING_ID, NOW, a_key, a_provider, a_user, last_change, sealed

ROUND_TRIPS = [
    a_provider(),
    a_provider(enabled=False, display_name="Our Anthropic", base_url="https://proxy.example/anthropic/"),
    a_provider(send_actor_headers=True),
    a_provider(send_actor_headers=False),
    a_provider(fallback_provider="other"),
    a_provider(timeouts=Timeouts(first_byte=timedelta(milliseconds=1))),
    a_provider(timeouts=Timeouts(connect=timedelta(seconds=2), first_byte=timedelta(hours=24), idle=timedelta(1))),
    a_provider(bedrock=BedrockOptions()),
    a_provider(bedrock=BedrockOptions(region="eu-central-1", role_arn="arn:x", external_id="e", model="m")),
    a_provider(type="bedrock", bedrock=BedrockOptions(small_fast_model="s")),
    a_provider(
        type="bedrock",
        bedrock=BedrockOptions(
            role_arn="arn:x",
            models=(("a", "1"), ("b", "2")),
            model_rules=(BedrockModelRule(contains="/x", family="f", betas=("b1", "b2")),),
            role_duration_seconds=900,
            session_policy="{}",
            protocol=BedrockProtocol.MANTLE,
            set_source_identity=True,
            session_tags=True,
        ),
    ),
    *(
        a_provider(policy=KeyPolicy(central_key_enabled=a, user_keys_allowed=b, central_key_fallback=c))
        for a in (False, True)
        for b in (False, True)
        for c in (False, True)
    ),
    a_provider(display_name="Ünïcode ☃ '; DROP TABLE providers; --"),
]


@pytest.mark.parametrize("provider", ROUND_TRIPS, ids=range(len(ROUND_TRIPS)))
def test_a_provider_comes_back_as_it_was_created(conn, provider):
    created = providers.create(conn, provider, (), now=NOW)
    assert created == replace(provider, version=1, create_time=NOW, update_time=NOW)
    assert providers.get(conn, provider.name) == providers.find(conn, provider.name) == created


@pytest.mark.parametrize("provider", ROUND_TRIPS, ids=range(len(ROUND_TRIPS)))
def test_every_column_but_id_and_name_can_be_updated(conn, provider):
    first = providers.create(conn, a_provider(type="google", bedrock=BedrockOptions(region="r")), (), now=NOW)
    wanted = replace(provider, id=first.id)
    updated = providers.update(conn, wanted, keys=None, expected_version=1, now=LATER)
    assert updated == replace(wanted, version=2, create_time=NOW, update_time=LATER)


def test_an_unknown_provider_is_not_found(conn):
    assert providers.find(conn, "nobody") is None
    with pytest.raises(ProviderNotFound):
        providers.get(conn, "nobody")
    with pytest.raises(ProviderNotFound):
        providers.update(conn, a_provider("nobody"), keys=None, expected_version=None, now=NOW)
    with pytest.raises(ProviderNotFound):
        providers.delete(conn, "nobody", expected_version=None, now=NOW)
    assert revision.current(conn) == 0


def test_the_name_of_a_provider_never_changes(conn):
    provider = providers.create(conn, a_provider("first"), (), now=NOW)
    with pytest.raises(ProviderNotFound):
        providers.update(conn, replace(provider, name="second"), keys=None, expected_version=None, now=NOW)


@pytest.mark.parametrize("taken", ["name", "id"])
def test_a_taken_name_or_id_already_exists_and_changes_nothing(conn, taken):
    first = providers.create(conn, a_provider("first"), (), now=NOW)
    second = replace(a_provider("second", type="openai"), **{taken: getattr(first, taken)})
    with pytest.raises(AlreadyExists) as refused:
        providers.create(conn, second, (a_key(),), now=LATER)
    assert refused.value.facts == {"resource": "provider", "name": second.name}
    assert providers.list_page(conn, after=None, limit=10) == [first]
    assert revision.current(conn) == 1


def test_central_keys_come_back_in_the_order_of_use_and_still_sealed(conn):
    keys = [a_key("one"), a_key("two", kind=KeyKind.AWS_ACCESS_KEY_PAIR), a_key("three")]
    keys.reverse()
    provider = providers.create(conn, a_provider(), keys, now=NOW)
    assert [key.credential_id for key in provider.central_keys] == [key.credential_id for key in keys]
    stored = providers.sealed_central_keys(conn, provider.id)
    assert [(key.kind, sealed_secret) for key, sealed_secret in stored] == [(key.kind, key.sealed) for key in keys]
    assert tuple(key for key, _ in stored) == provider.central_keys
    assert {key.create_time for key, _ in stored} == {NOW}


def test_none_leaves_the_keys_and_nothing_clears_them(conn):
    provider = providers.create(conn, a_provider(), (a_key(),), now=NOW)
    kept = providers.update(conn, provider, keys=None, expected_version=None, now=LATER)
    assert kept.central_keys == provider.central_keys
    assert kept.central_key_set
    cleared = providers.update(conn, provider, keys=(), expected_version=None, now=LATER)
    assert cleared.central_keys == ()
    assert providers.sealed_central_keys(conn, provider.id) == []


def test_a_key_that_stays_keeps_its_time_of_creation(conn):
    kept, dropped, added = a_key("kept"), a_key("dropped"), a_key("added")
    provider = providers.create(conn, a_provider(), (dropped, kept), now=NOW)
    updated = providers.update(conn, provider, keys=(added, kept), expected_version=None, now=LATER)
    assert [(key.credential_id, key.create_time) for key in updated.central_keys] == [
        (added.credential_id, LATER),
        (kept.credential_id, NOW),
    ]


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_than_the_expected_one_is_refused_and_changes_nothing(conn, version):
    provider = providers.create(conn, a_provider(), (a_key(),), now=NOW)
    changed = replace(provider, enabled=False)
    with pytest.raises(EtagMismatch):
        providers.update(conn, changed, keys=(), expected_version=version, now=LATER)
    with pytest.raises(EtagMismatch):
        providers.delete(conn, provider.name, expected_version=version, now=LATER)
    assert providers.get(conn, provider.name) == provider
    assert revision.current(conn) == 1


def test_without_an_expected_version_the_version_in_the_store_counts(conn):
    provider = providers.create(conn, a_provider(), (), now=NOW)
    for version in (2, 3, 4):
        assert providers.update(conn, provider, keys=None, expected_version=None, now=LATER).version == version
    providers.delete(conn, provider.name, expected_version=4, now=LATER)
    assert providers.find(conn, provider.name) is None


def test_deleting_a_provider_takes_its_central_and_user_keys_and_no_others(conn):
    gone = providers.create(conn, a_provider("gone"), (a_key(),), now=NOW)
    kept = providers.create(conn, a_provider("kept"), (a_key(),), now=NOW)
    user = users.create(conn, a_user())
    for provider in (gone, kept):
        user_keys.put(
            conn,
            user_id=user.id,
            provider_id=provider.id,
            credential_id=ids.uuid7(NOW),
            sealed=sealed("mine"),
            now=NOW,
        )
    providers.delete(conn, "gone", expected_version=None, now=LATER)
    assert providers.sealed_central_keys(conn, gone.id) == []
    assert len(providers.sealed_central_keys(conn, kept.id)) == 1
    assert set(user_keys.list_for_user(conn, user.id)) == {kept.id}


def test_pages_follow_each_other_by_name_without_gap_or_overlap(conn):
    names = ["openai", "a", "a-1", "a1", "anthropic-corp", "z9", "b", "azure"]
    for name in names:
        providers.create(conn, a_provider(name), [a_key(f"{name}{n}") for n in range(len(name) % 3)], now=NOW)
    seen: list[Provider] = []
    after = None
    while page := providers.list_page(conn, after=after, limit=3):
        assert len(page) <= 3
        seen += page
        after = page[-1].name
    assert [provider.name for provider in seen] == sorted(names)
    assert seen == [providers.get(conn, provider.name) for provider in seen]


def test_a_name_that_is_gone_still_marks_the_place_in_the_list(conn):
    for name in ("a", "c"):
        providers.create(conn, a_provider(name), (), now=NOW)
    assert [provider.name for provider in providers.list_page(conn, after="b", limit=5)] == ["c"]


def test_every_change_is_in_the_change_log(conn):
    provider = providers.create(conn, a_provider(), (), now=NOW)
    assert last_change(conn) == ("provider.created", provider.id, provider.name)
    providers.update(conn, provider, keys=(a_key(),), expected_version=1, now=LATER)
    assert last_change(conn) == ("provider.updated", provider.id, provider.name)
    providers.delete(conn, provider.name, expected_version=2, now=LATER)
    assert last_change(conn) == ("provider.deleted", provider.id, provider.name)
    assert revision.current(conn) == 3


def test_a_key_of_a_provider_that_is_not_there_cannot_be_stored(conn):
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute(
            "INSERT INTO central_keys VALUES (?, ?, 0, 'API_KEY', 'k1', x'00', x'00', 0)", ("credential", MISSING_ID)
        )


def test_only_database_providers_come_out(conn):
    assert providers.create(conn, a_provider(origin=Origin.ENVIRONMENT), (), now=NOW).origin is Origin.DATABASE
