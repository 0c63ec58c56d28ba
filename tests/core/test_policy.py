"""The key policy, held against the table that is published in its docstring."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald import policy
from credentiald.errors import CentralKeyMissing, UserKeyRequired, UserKeysNotAllowed
from credentiald.model import KeyPolicy, Source
from credentiald.policy import Inputs, choose_source

_WORDS = {"on": (True,), "yes": (True,), "off": (False,), "no": (False,), "any": (True, False)}
_RESULTS = {
    "CENTRAL_KEY": Source.CENTRAL_KEY,
    "USER_KEY": Source.USER_KEY,
    "AMBIENT": Source.AMBIENT,
    "CENTRAL_KEY_MISSING": CentralKeyMissing,
    "USER_KEY_REQUIRED": UserKeyRequired,
}


def published_rows() -> list[list[str]]:
    lines = (policy.__doc__ or "").splitlines()
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines if re.match(r"\s+(on|off)\s", line)]
    assert len(rows) == 9
    return rows


def published_cases() -> list[tuple[tuple[bool, ...], str, str]]:
    return [
        (combination, row[5], row[6])
        for row in published_rows()
        for combination in itertools.product(*(_WORDS[word] for word in row[:5]))
    ]


def inputs_of(combination: tuple[bool, ...], *, ambient_allowed: bool, presented_key: bool = False) -> Inputs:
    central, users, fallback, has_key, stored = combination
    return Inputs(
        policy=KeyPolicy(central_key_enabled=central, user_keys_allowed=users, central_key_fallback=fallback),
        ambient_allowed=ambient_allowed,
        user_has_key=has_key,
        central_key_stored=stored,
        presented_key=presented_key,
    )


def test_the_published_table_names_every_combination_once():
    assert sorted(case[0] for case in published_cases()) == sorted(itertools.product(*[(True, False)] * 5))


@pytest.mark.parametrize(("combination", "plain", "bedrock"), published_cases())
def test_every_combination_gives_what_the_published_table_says(combination, plain, bedrock):
    assert choose_source(inputs_of(combination, ambient_allowed=False)) is _RESULTS[plain]
    assert choose_source(inputs_of(combination, ambient_allowed=True)) is _RESULTS[bedrock]


@pytest.mark.parametrize("ambient_allowed", [True, False])
@pytest.mark.parametrize("combination", list(itertools.product(*[(True, False)] * 5)))
def test_a_presented_key_counts_as_the_users_key_or_is_refused(combination, ambient_allowed):
    outcome = choose_source(inputs_of(combination, ambient_allowed=ambient_allowed, presented_key=True))

    assert outcome is (Source.PRESENTED_KEY if combination[1] else UserKeysNotAllowed)


def test_the_deployment_can_forbid_presented_keys_everywhere():
    inputs = inputs_of((True, True, True, True, True), ambient_allowed=False, presented_key=True)
    forbidden = Inputs(
        policy=inputs.policy,
        ambient_allowed=False,
        user_has_key=True,
        central_key_stored=True,
        presented_key=True,
        byok_allowed=False,
    )

    assert choose_source(inputs) is Source.PRESENTED_KEY
    assert choose_source(forbidden) is UserKeysNotAllowed


_bools = st.booleans()


@given(st.tuples(_bools, _bools, _bools, _bools, _bools), _bools, _bools)
def test_nothing_is_handed_out_that_policy_switched_off_or_that_is_not_there(combination, ambient_allowed, presented):
    central, users, _, has_key, stored = combination
    outcome = choose_source(inputs_of(combination, ambient_allowed=ambient_allowed, presented_key=presented))

    assert outcome is not Source.CENTRAL_KEY or (central and stored)
    assert outcome is not Source.USER_KEY or (users and has_key)
    assert outcome is not Source.AMBIENT or (central and ambient_allowed and not stored)
    assert outcome is not Source.PRESENTED_KEY or (users and presented)


@given(st.tuples(_bools, _bools, _bools))
def test_only_a_policy_without_any_source_is_invalid(flags):
    central, users, fallback = flags
    flags_value = KeyPolicy(central_key_enabled=central, user_keys_allowed=users, central_key_fallback=fallback)

    assert policy.is_valid(flags_value) is (central or users)
