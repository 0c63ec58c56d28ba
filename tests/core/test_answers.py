"""Kept answers: how long they count, how many there are, and what they print."""

from datetime import UTC, datetime, timedelta

import pytest

from credentiald.answers import MAX_AGE, Answers, Kept, Key, counts_until
from credentiald.record_model import Decided
from tests.support.records import an_origin

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
STATE = (1, 7)


def key(number: int = 0) -> Key:
    return ("service", b"hash-%d" % number, "corp", "anthropic.messages", False)


def kept(expire_time: datetime = NOW + MAX_AGE) -> Kept:
    return Kept(
        message=b"sk-canary",
        before=b"sk-canary",
        between=b"",
        receipt_part=b"",
        source="CENTRAL_KEY",
        decided=Decided(an_origin(), "anthropic.messages", None, opens=True),
        bedrock=None,
        revision=3,
        decide_time=NOW,
        expire_time=expire_time,
    )


def holding(*keys: Key, capacity: int = 10) -> Answers:
    answers = Answers(capacity)
    answers.renew(STATE)
    for each in keys:
        answers.keep(each, kept(), STATE)
    return answers


def test_an_answer_is_found_under_its_own_key_only():
    answers = holding(key())
    service, token_hash, provider, operation, presented = key()
    others = [
        ("other", token_hash, provider, operation, presented),
        (service, b"other", provider, operation, presented),
        (service, token_hash, "other", operation, presented),
        (service, token_hash, provider, "", presented),
        (service, token_hash, provider, operation, True),
    ]

    assert answers.find(key(), NOW) == kept()
    assert [answers.find(other, NOW) for other in others] == [None] * 5


@pytest.mark.parametrize("state", [(1, 8), (2, 7), None])
def test_any_change_of_the_store_and_not_knowing_forgets_everything(state):
    answers = holding(key(1), key(2))
    answers.renew(STATE)
    assert len(answers) == 2
    answers.renew(state)
    assert len(answers) == 0


def test_what_was_decided_before_a_change_is_not_kept_after_it():
    answers = holding()
    answers.renew((1, 8))
    answers.keep(key(), kept(), STATE)
    assert answers.find(key(), NOW) is None
    answers.renew(None)
    answers.keep(key(), kept(), None)
    assert answers.find(key(), NOW) is None


@pytest.mark.parametrize(
    ("seconds", "counts"), [(-0.001, False), (0, True), (29.999, True), (30, False), (3600, False)]
)
def test_an_answer_counts_from_its_decision_to_its_end_also_for_a_clock_that_is_set_back(seconds, counts):
    answers = holding()
    answers.keep(key(), kept(NOW + timedelta(seconds=30)), STATE)
    moment = NOW + timedelta(seconds=seconds)

    assert (answers.find(key(), moment) is not None) is counts
    answers.forget_old(moment)
    assert len(answers) == counts


def test_an_answer_counts_no_longer_than_its_token_nor_than_the_maximal_age():
    soon = NOW + timedelta(seconds=1)
    assert counts_until(NOW, None) == NOW + MAX_AGE
    assert counts_until(NOW, soon) == soon
    assert counts_until(NOW, NOW + timedelta(days=1)) == NOW + MAX_AGE


def test_the_oldest_answer_makes_room():
    answers = holding(*map(key, range(3)), capacity=3)
    answers.keep(key(0), kept(), STATE)
    answers.keep(key(3), kept(), STATE)

    assert len(answers) == 3
    assert [answers.find(key(number), NOW) is not None for number in range(4)] == [True, False, True, True]


def test_nothing_that_can_be_printed_holds_a_key():
    assert "canary" not in repr(kept()) + repr(holding(key())) + str(kept()) + f"{holding(key())}"
