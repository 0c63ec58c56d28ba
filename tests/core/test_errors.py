"""Refusals, held against the enum of the contract."""

import string

import pytest
from drawbridge.v1.error_reason_pb2 import ErrorReason

from credentiald.errors import REFUSALS, UserKeyRequired

# Reasons of the bridge's own, which never come from credentiald, start here in the enum.
_FIRST_OF_THE_BRIDGE = 101


def test_every_reason_of_credentiald_has_a_class_and_every_class_a_reason():
    in_contract = {
        name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if 0 < number < _FIRST_OF_THE_BRIDGE
    }

    assert set(REFUSALS) == in_contract


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_message_mentions_only_its_facts(refusal):
    fields = {name for _, name, _, _ in string.Formatter().parse(refusal.message) if name}
    raised = refusal(**dict.fromkeys(fields, "x"))

    assert raised.facts == dict.fromkeys(fields, "x")
    assert "{" not in str(raised)


def test_the_reason_is_the_name_of_the_class():
    assert UserKeyRequired.reason() == "USER_KEY_REQUIRED"
