"""What of an upstream's answer counts as what."""

import pytest

from bridged.breaker import BreakerRules, State
from bridged.breaking import Breaking
from bridged.metrics import Metrics
from bridged.model import Refused, Resolution, Source

RULES = BreakerRules(failure_threshold=3, max_requests=1)
SHARED, OWN = (Source.CENTRAL_KEY, Source.AMBIENT), (Source.USER_KEY, Source.PRESENTED_KEY)


def breaking(rules: BreakerRules = RULES) -> Breaking:
    return Breaking(rules, Metrics(), now=lambda: 1000.0)


def resolution(source: Source = Source.CENTRAL_KEY, *, pool_size: int = 1, upstream_model: str = "") -> Resolution:
    return Resolution(
        provider_id="p",
        provider_name="corp",
        provider_type="openai",
        wire_type="openai",
        base_url="https://up.example",
        user_id="u",
        username="ada",
        source=source,
        pool_size=pool_size if source is Source.CENTRAL_KEY else 0,
        upstream_model=upstream_model,
    )


def verdict(status: int, source: Source, *, pool_size: int = 1) -> str:
    """What one answer between two failures and a third does: `failure` opens, `success` forgets, `nothing` neither."""
    breakers = breaking()
    shared = resolution(Source.CENTRAL_KEY)
    for _ in range(2):
        breakers.admit(shared, "op", "gpt").unanswered("UPSTREAM_TIMEOUT")
    breakers.admit(resolution(source, pool_size=pool_size), "op", "gpt").answered(status)
    if [view.state for view in breakers.views()] == [State.OPEN]:
        return "failure"
    breakers.admit(shared, "op", "gpt").unanswered("UPSTREAM_TIMEOUT")
    return "nothing" if breakers.views() else "success"


ROWS = [
    *((status, source, 1, "failure") for status in (503, 504, 529) for source in Source),
    *((status, source, 1, "success") for status in (200, 302, 400, 404, 500, 502) for source in Source),
    *((status, source, 1, "success") for status in (401, 403) for source in SHARED),
    *((status, source, 1, "nothing") for status in (401, 403, 429) for source in OWN),
    *((429, source, 1, "failure") for source in SHARED),
    (429, Source.CENTRAL_KEY, 2, "nothing"),
    (503, Source.CENTRAL_KEY, 2, "failure"),
]


@pytest.mark.parametrize(("status", "source", "pool_size", "expected"), ROWS)
def test_what_an_answer_says_of_its_upstream(status: int, source: Source, pool_size: int, expected: str) -> None:
    assert verdict(status, source, pool_size=pool_size) == expected


def test_a_pass_is_heard_once() -> None:
    breakers = breaking()
    for _ in range(2):
        one = breakers.admit(resolution(), "op", "gpt")
        for _ in range(5):
            one.unanswered("UPSTREAM_TIMEOUT")
            one.answered(529)
            one.give_back()

    assert breakers.views() == []
    assert [view.failures for view in breakers.breakers.views(1000.0)] == [2]


def test_the_upstreams_name_of_a_model_comes_before_the_clients() -> None:
    breakers = breaking(BreakerRules(failure_threshold=1))
    breakers.admit(resolution(upstream_model="gpt-real"), "op", "gpt").unanswered("UPSTREAM_UNREACHABLE")

    with pytest.raises(Refused, match="BREAKER_OPEN"):
        breakers.admit(resolution(upstream_model="gpt-real"), "op", "another-name")
    assert breakers.admit(resolution(), "op", "gpt") is not None
