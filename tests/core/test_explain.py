"""Explanations: the same decision as a resolve, every input, and no secret."""

import itertools
from datetime import UTC, datetime

import pytest

from credentiald.explain import CHECKS, Facts, account, outcome_name
from credentiald.model import BedrockOptions, CentralKey, Gateway, KeyKind, KeyPolicy, Provider, User
from credentiald.plane import policy_inputs
from credentiald.policy import choose_source

NOW = datetime(2026, 11, 21, tzinfo=UTC)
COMBINATIONS = list(itertools.product(*[(True, False)] * 6))


def facts_of(combination, *, type_name="openai", **changes):
    central, users, fallback, has_key, stored, _ = combination
    keys = (CentralKey(credential_id="central-id", kind=KeyKind.API_KEY, create_time=NOW),) if stored else ()
    provider = Provider(
        id="p",
        name="prov",
        type=type_name,
        policy=KeyPolicy(central_key_enabled=central, user_keys_allowed=users, central_key_fallback=fallback),
        central_keys=keys,
        bedrock=BedrockOptions() if type_name == "bedrock" else None,
        enabled=changes.pop("enabled", True),
    )
    suspended = changes.pop("suspended", False)
    user = User(id="u", username="ann", suspended=suspended, create_time=NOW, update_time=NOW)
    return Facts(user=user, provider=provider, user_key_id="user-id" if has_key else "", revision=7)


@pytest.mark.parametrize("type_name", ["openai", "bedrock"])
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_it_says_what_the_policy_decides(combination, type_name):
    facts = facts_of(combination, type_name=type_name)
    gateway = Gateway()
    explained = account(gateway, facts, presented_key=combination[5], operation="")
    inputs = policy_inputs(gateway, facts.provider, user_has_key=bool(facts.user_key_id), presented_key=combination[5])
    outcome = choose_source(inputs)

    said = explained.source.value if explained.source else explained.refusal.reason()
    assert said == outcome_name(outcome)
    assert [one.source for one in explained.candidates if one.chosen] == [one for one in [explained.source] if one]
    assert all(one.why for one in explained.candidates)
    assert sum(row.applies for row in explained.rows) == (0 if combination[5] else 1)
    assert all(row.applies or row.mismatch for row in explained.rows)
    assert explained.message


@pytest.mark.parametrize(
    ("gateway", "changes", "operation", "reason", "failed_check"),
    [
        (Gateway(), {"suspended": True}, "", "USER_SUSPENDED", "user"),
        (Gateway(enabled=False), {}, "", "GATEWAY_DISABLED", "gateway"),
        (Gateway(), {"enabled": False}, "", "PROVIDER_DISABLED", "provider"),
        (Gateway(), {}, "anthropic.messages", "OPERATION_NOT_ALLOWED", "operation"),
    ],
)
def test_the_first_check_that_refuses_is_the_answer_and_the_rest_is_not_reached(
    gateway, changes, operation, reason, failed_check
):
    facts = facts_of((True, False, False, False, True, False), **changes)
    explained = account(gateway, facts, presented_key=False, operation=operation)
    position = CHECKS.index(failed_check)

    assert explained.refusal.reason() == reason
    assert [check.refused for check in explained.checks] == [False] * position + [True] + [None] * (5 - position)
    assert not any(one.chosen for one in explained.candidates)


def test_the_credential_that_would_be_used_is_named_by_its_id():
    own = account(Gateway(), facts_of((True, True, True, True, True, False)), presented_key=False, operation="")
    central = account(Gateway(), facts_of((True, False, False, True, True, False)), presented_key=False, operation="")

    assert own.credential_id == "user-id"
    assert central.credential_id == "central-id"
