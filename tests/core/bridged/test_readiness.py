"""Readiness, with the time given from outside."""

from bridged.readiness import ANSWER_LASTS_SECONDS, Readiness


def test_a_bridge_is_ready_for_three_seconds_after_each_answer() -> None:
    readiness = Readiness()
    assert readiness.reasons(10.0) == ["credentiald has not answered yet"]
    readiness.answered(10.0)
    assert readiness.reasons(10.0 + ANSWER_LASTS_SECONDS) == []
    assert readiness.reasons(10.5 + ANSWER_LASTS_SECONDS) != []
    readiness.answered(20.0)
    assert readiness.reasons(20.0) == []


def test_a_refusal_counts_at_once_and_until_the_next_good_answer() -> None:
    readiness = Readiness()
    readiness.answered(10.0)
    readiness.refused("SERVICE_TOKEN_INVALID")
    assert readiness.reasons(10.0) == ["credentiald refused this bridge: SERVICE_TOKEN_INVALID"]
    readiness.answered(11.0)
    assert readiness.reasons(11.0) == []


def test_a_draining_bridge_is_not_ready_whatever_credentiald_says() -> None:
    readiness = Readiness(draining=True)
    readiness.answered(10.0)
    assert len(readiness.reasons(10.0)) == 1
    readiness.refused("SEALED")
    assert len(readiness.reasons(10.0)) == 2
