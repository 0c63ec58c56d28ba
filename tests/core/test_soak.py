"""What scripts/stress makes of memory and of answers that say to come again."""

import random
import sys

import pytest

from tests.support.clone import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from stress_clients import Trouble, expect
from stress_figures import rise_verdict, trouble_of, trouble_verdict

TROUBLED = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nX-Drawbridge-Error: CREDENTIALD_UNREACHABLE\r\n\r\n"


def memory(minutes: float, rise_mib_a_minute: float, *, noise_mib: float = 0.0, warm_mib: float = 0.0) -> list:
    dice = random.Random(7)
    times = [minutes * place / 200 for place in range(201)]
    warm = [warm_mib * min(1.0, time / (minutes * 0.4)) for time in times]
    return [
        (time, 70 + rise_mib_a_minute * time + one + dice.uniform(-noise_mib, noise_mib))
        for time, one in zip(times, warm, strict=True)
    ]


@pytest.mark.parametrize(
    ("good", "points"),
    [
        (True, memory(60, 0)),
        (True, memory(60, 0, noise_mib=6)),
        (True, memory(60, 0, warm_mib=40)),
        (True, memory(60, 0.2)),
        (False, memory(60, 0.3)),
        (False, memory(60, 0.5, noise_mib=6)),
        (True, memory(4, 0, noise_mib=3)),
        (True, memory(4, 1.5)),
        (False, memory(4, 3, noise_mib=1)),
    ],
)
def test_memory_that_rises_is_told_from_memory_that_moves(good: bool, points: list) -> None:
    assert rise_verdict("bridged", points).good is good


def test_an_answer_that_says_when_to_come_again_is_trouble_and_no_other() -> None:
    assert trouble_of(TROUBLED) == "CREDENTIALD_UNREACHABLE"
    assert trouble_of(TROUBLED.replace(b"503", b"500")) == ""
    assert trouble_of(TROUBLED.replace(b"Retry-After: 1\r\n", b"")) == ""
    assert trouble_of(TROUBLED.replace(b"CREDENTIALD_UNREACHABLE", b"BREAKER_OPEN")) == ""
    with pytest.raises(Trouble):
        expect(TROUBLED, 404)
    with pytest.raises(ValueError, match="status 404"):
        expect(b"HTTP/1.1 404 Not Found\r\n\r\n")


@pytest.mark.parametrize(
    ("requests", "troubles", "good"), [(9999, 0, True), (9999, 1, False), (20_000, 2, True), (20_000, 3, False)]
)
def test_one_in_ten_thousand_may_be_told_to_come_again(requests: int, troubles: int, good: bool) -> None:
    assert trouble_verdict(requests, ["json: CREDENTIALD_UNREACHABLE"] * troubles).good is good
