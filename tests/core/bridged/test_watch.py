"""Which requests a change concerns: the table of what was taken away, and what never concerns anybody else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.model import Resolution, Source
from bridged.watch import REASONS, Change, EndsOn, News, Taken, WatchedProvider, parse_ends_on

ALL = frozenset(EndsOn)


def resolution(source: Source = Source.CENTRAL_KEY, **changed: str) -> Resolution:
    fields = {"access_token_id": "t1", "user_id": "u1", "provider_id": "p1", "credential_id": "c1", **changed}
    return Resolution(
        provider_name="corp", provider_type="openai", wire_type="openai", base_url="https://up", username="ann",
        source=source, revision=7, **fields,
    )  # fmt: skip


def provider(
    provider_id: str = "p1",
    *,
    enabled: bool = True,
    central: bool = True,
    users: bool = True,
    keys: frozenset[str] = frozenset({"c1"}),
) -> WatchedProvider:
    return WatchedProvider(
        id=provider_id, enabled=enabled, central_key_enabled=central, user_keys_allowed=users, central_key_ids=keys
    )


def news(*changes: tuple[str, str], now: WatchedProvider | None = None, snapshot: bool = False) -> News:
    return News(
        database_id="d",
        revision=8,
        changes=[Change(revision=8, kind=kind, resource_id=one, change_seconds=0.0) for kind, one in changes],
        providers={} if now is None else {now.id: now},
        snapshot=snapshot,
    )


CENTRAL, USER, AMBIENT, PRESENTED = Source.CENTRAL_KEY, Source.USER_KEY, Source.AMBIENT, Source.PRESENTED_KEY
UPDATED = ("provider.updated", "p1")
DELETED = ("provider.deleted", "p1")
ROWS = [
    # what happened, what counts, whose key, the reason
    (news(("token.revoked", "t1")), EndsOn.TOKENS, PRESENTED, "ACCESS_TOKEN_INVALID"),
    (news(("token.revoked", "t2")), EndsOn.TOKENS, PRESENTED, None),
    (news(("token.created", "t1")), EndsOn.TOKENS, PRESENTED, None),
    (news(("user.suspended", "u1")), EndsOn.USERS, CENTRAL, "USER_SUSPENDED"),
    (news(("user.deleted", "u1")), EndsOn.USERS, CENTRAL, "ACCESS_TOKEN_INVALID"),
    (news(("user.resumed", "u1")), EndsOn.USERS, CENTRAL, None),
    (news(("user_key.set", "u1/p1")), EndsOn.KEYS, USER, "USER_KEY_REQUIRED"),
    (news(("user_key.deleted", "u1/p1")), EndsOn.KEYS, USER, "USER_KEY_REQUIRED"),
    (news(("user_key.deleted", "u1/p2")), EndsOn.KEYS, USER, None),
    (news(("user_key.deleted", "u1/p1")), EndsOn.KEYS, CENTRAL, None),
    (news(UPDATED, now=provider(keys=frozenset({"c2"}))), EndsOn.KEYS, CENTRAL, "CENTRAL_KEY_MISSING"),
    (news(UPDATED, now=provider(keys=frozenset({"c2", "c1"}))), EndsOn.KEYS, CENTRAL, None),
    (news(UPDATED, now=provider(keys=frozenset())), EndsOn.KEYS, AMBIENT, None),
    (news(DELETED), EndsOn.KEYS, CENTRAL, "CENTRAL_KEY_MISSING"),
    (news(DELETED), EndsOn.KEYS, USER, "USER_KEY_REQUIRED"),
    (news(DELETED), EndsOn.KEYS, PRESENTED, None),
    (news(DELETED), EndsOn.PROVIDERS, PRESENTED, "PROVIDER_NOT_FOUND"),
    (news(UPDATED, now=provider(enabled=False)), EndsOn.PROVIDERS, PRESENTED, "PROVIDER_DISABLED"),
    (news(UPDATED, now=provider()), EndsOn.PROVIDERS, PRESENTED, None),
    (news(snapshot=True), EndsOn.PROVIDERS, PRESENTED, "PROVIDER_NOT_FOUND"),
    (news(snapshot=True, now=provider()), EndsOn.PROVIDERS, PRESENTED, None),
    (news(snapshot=True, now=provider(keys=frozenset())), EndsOn.KEYS, CENTRAL, "CENTRAL_KEY_MISSING"),
    (news(UPDATED, now=provider(central=False)), EndsOn.POLICY, CENTRAL, "USER_KEY_REQUIRED"),
    (news(UPDATED, now=provider(central=False)), EndsOn.POLICY, AMBIENT, "USER_KEY_REQUIRED"),
    (news(UPDATED, now=provider(central=False)), EndsOn.POLICY, USER, None),
    (news(UPDATED, now=provider(users=False)), EndsOn.POLICY, USER, "USER_KEYS_NOT_ALLOWED"),
    (news(UPDATED, now=provider(users=False)), EndsOn.POLICY, PRESENTED, "USER_KEYS_NOT_ALLOWED"),
    (news(UPDATED, now=provider(users=False)), EndsOn.POLICY, CENTRAL, None),
]


@pytest.mark.parametrize(("told", "ends_on", "source", "reason"), ROWS)
def test_what_was_taken_away_ends_what_runs_on_it(
    told: News, ends_on: EndsOn, source: Source, reason: str | None
) -> None:
    taken = Taken(told, frozenset({ends_on}))
    refused = taken.why(resolution(source))
    assert refused is None or taken.concerns(resolution(source))
    assert (refused.reason if refused else None) == reason
    assert refused is None or refused.reason in REASONS


@pytest.mark.parametrize(("told", "ends_on", "source", "reason"), ROWS)
def test_what_is_not_among_the_settings_words_ends_nothing(
    told: News, ends_on: EndsOn, source: Source, reason: str | None
) -> None:
    assert Taken(told, frozenset()).why(resolution(source)) is None
    assert Taken(told, frozenset({ends_on})).why(resolution(source)) is None or reason


@pytest.mark.parametrize("kind", ["user.suspended", "user_key.set", "user_key.deleted"])
@pytest.mark.parametrize(("before", "ends"), [(True, False), (False, True)])
def test_what_was_decided_after_a_change_does_not_end_for_it_when_it_is_told_late(
    kind: str, before: bool, ends: bool
) -> None:
    # Told in one go: the watch was away meanwhile, or commits came close together.
    one = "u1" if kind.startswith("user.") else "u1/p1"
    decided = resolution(USER)
    revision = decided.revision if before else decided.revision + 1
    changes = [
        Change(revision=revision, kind=kind, resource_id=one, change_seconds=0.0),
        Change(revision=decided.revision + 2, kind="token.created", resource_id="t9", change_seconds=0.0),
    ]
    told = News(database_id="d", revision=decided.revision + 2, changes=changes, providers={"p1": provider()})
    assert (Taken(told, ALL).why(decided) is not None) is ends


@pytest.mark.parametrize(
    ("told", "concerns"),
    [
        (news(("token.created", "t9"), ("user.suspended", "u9"), ("user_key.set", "u9/p1")), False),
        (news(("user_key.set", "u1/p9"), ("provider.updated", "p9"), now=provider("p9")), False),
        (news(("token.revoked", "t1")), True),
        (news(("user.resumed", "u1")), True),
        (news(("user_key.deleted", "u1/p1")), True),
        (news(UPDATED, now=provider()), True),
        # What it is about is not known here: the service is this bridge's, and there may be others one day.
        (news(("token.created", "t9"), ("service.rotated", "s9")), True),
        (news(("policy.tightened", "x")), True),
        (news(snapshot=True, now=provider()), True),
        (replace(news(("token.created", "t9")), changes_missing=True), True),
    ],
)
def test_a_change_concerns_what_might_be_decided_otherwise_by_it(told: News, concerns: bool) -> None:
    assert Taken(told, frozenset()).concerns(resolution()) is concerns


KINDS = st.sampled_from(["token.revoked", "user.suspended", "user.deleted", "user_key.set", "provider.deleted"])


@given(st.lists(st.tuples(KINDS, st.sampled_from(["x", "x/p1", "u1/x", "t9"]))), st.sampled_from(list(Source)))
def test_what_concerns_others_ends_nothing(changes: list[tuple[str, str]], source: Source) -> None:
    assert Taken(news(*changes), ALL).why(resolution(source)) is None


@given(st.sets(st.sampled_from(list(EndsOn)), min_size=1))
def test_the_setting_reads_what_it_would_be_written_as(words: set[EndsOn]) -> None:
    assert parse_ends_on(" , ".join(words)) == words


@pytest.mark.parametrize("text", ["", "token", "tokens,none", "all"])
def test_the_setting_says_what_is_possible(text: str) -> None:
    with pytest.raises(ValueError, match="tokens, users, keys, providers, policy"):
        parse_ends_on(text)


def test_none_ends_nothing() -> None:
    assert parse_ends_on("none") == frozenset()
