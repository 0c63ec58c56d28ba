"""scripts/chaos: its schedule, and what it makes of what it saw. The campaign itself is in tests/daemons/pair."""

import sys
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from tests.support.clone import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import chaos_schedule
import chaos_verdicts
from chaos_clients import Outcome
from chaos_faults import MAKERS
from chaos_schedule import KINDS, Window, excused, steps

WINDOW = Window(fault="kill-credentiald", began=100.0, ended=101.0, recovered=102.0)
GOOD = chaos_verdicts.Facts(
    windows=[WINDOW],
    counts={("json", "200"): 5},
    bad=[],
    secrets=["sk-canary-4711-abcdef"],
    places=[("a log", b"nothing")],
    carried={("json", "its key"): 5},
    allowed={"json": frozenset({"its key"})},
    revoked=1,
    confirmed=1,
    changed_keys=1,
    after=2,
    administration=[],
    explained=[("json", True, True), ("changing", False, False)],
    unreconciled=[],
    reconciled="5 calls",
    kept="1 user",
    not_kept=[],
    tampered=[],
    rotations=["1 secret"],
    begun_streams=3,
    garbage=1,
    peak_mib={"bridge": 70.0},
    bound_mib=100.0,
    longest_seconds=1.0,
    deadline_seconds=45.0,
)


def violated(**changes: Any) -> list[str]:
    return [one.promise for one in chaos_verdicts.verdicts(replace(GOOD, **changes)) if one.violated]


def outcome(**more: Any) -> Outcome:
    return Outcome(**{"lane": "json", "mark": "m", "began": 100.5, "ended": 100.6, "status": 503, **more})


TROUBLE = {"reason": "CREDENTIALD_UNREACHABLE", "retry_after": "1"}


def test_a_seed_always_makes_the_same_schedule_and_every_round_has_every_fault() -> None:
    made = [list(islice(steps(seed, list(KINDS)), 3 * len(KINDS))) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    for number in range(3):
        assert {step.fault for step in made[0][number * len(KINDS) : (number + 1) * len(KINDS)]} == set(KINDS)
    assert all(KINDS[one.fault].seconds[0] <= one.seconds <= KINDS[one.fault].seconds[1] for one in made[0])


def test_every_fault_has_who_makes_it() -> None:
    assert set(MAKERS) == set(chaos_schedule.KINDS)


@pytest.mark.parametrize(
    ("began", "ended", "expected"),
    [(90, 91, False), (90, 99.5, True), (101.5, 101.6, True), (102.9, 103, True), (103.1, 104, False)],
)
def test_a_request_is_excused_while_a_fault_or_its_consequences_last(
    began: float, ended: float, expected: bool
) -> None:
    assert excused(began, ended, [WINDOW], slack_seconds=1.0) is expected


def test_where_nothing_is_wrong_every_promise_held() -> None:
    assert violated() == []
    assert violated(bad=[outcome(**TROUBLE)]) == []


@pytest.mark.parametrize(
    ("promise", "changes"),
    [
        ("G1", {"places": [("a log", b"..sk-canary-4711-abcdef..")]}),
        ("G1", {"places": [("a log", b"sk-canary-4711-abcdef".hex().encode())]}),
        ("G1", {"places": [("a log", b"eHNrLWNhbmFyeS00NzExLWFiY2RlZg==")]}),  # behind one other byte
        ("G2", {"carried": {("json", "another key"): 1}}),
        ("G3", {"administration": ["sent upstream after its revocation"]}),
        ("G4", {"explained": [("json", True, False)]}),
        ("G5", {"bad": [outcome(status=401, reason="ACCESS_TOKEN_INVALID")]}),
        ("G5", {"bad": [outcome(lane="after a change", status=401, reason="ACCESS_TOKEN_INVALID")]}),
        ("G5", {"bad": [outcome(**TROUBLE, began=300.0, ended=301.0)]}),
        ("G5", {"bad": [outcome(reason="STORE_UNAVAILABLE")]}),
        ("G5", {"bad": [outcome(status=502, reason="UPSTREAM_UNREACHABLE")]}),
        ("G5", {"windows": [replace(WINDOW, recovered=None)]}),
        ("G5", {"windows": [replace(WINDOW, recovered=120.0)]}),
        ("G6", {"unreconciled": ["request 7 has no interception"]}),
        ("G6", {"not_kept": ["the user x was acknowledged and is gone"]}),
        ("G7", {"tampered": ["answered with 200"]}),
        ("G8", {"rotation_problems": ["ended with 1"]}),
        ("G9", {"dropped": ["request 3 broke off"]}),
        ("G10", {"hung": ["noise"]}),
        ("G10", {"died": ["bridge 0 ended with -11"]}),
        ("G10", {"bad": [outcome(lane="garbage", status=500)]}),
        ("G11", {"peak_mib": {"bridge": 101.0}}),
        ("G11", {"longest_seconds": 50.0}),
    ],
)
def test_what_is_wrong_is_a_violation_of_its_promise(promise: str, changes: dict[str, Any]) -> None:
    assert violated(**changes) == [promise]


def test_of_a_token_that_was_revoked_a_refusal_is_expected() -> None:
    assert violated(bad=[outcome(lane="after a revocation", status=401, reason="ACCESS_TOKEN_INVALID")]) == []


@pytest.mark.parametrize(
    ("promise", "changes"),
    [
        ("G1", {"places": []}),
        ("G1", {"secrets": []}),
        ("G2", {"carried": {}}),
        ("G3", {"after": 0}),
        ("G4", {"explained": []}),
        ("G4", {"explained": [("json", False, False)] * 4}),
        ("G5", {"counts": {("far", "200"): 5}}),
        ("G7", {"tampered": None}),
        ("G8", {"rotations": []}),
        ("G9", {"begun_streams": 0}),
        ("G9", {"windows": [replace(WINDOW, fault="noise")]}),
        ("G10", {"garbage": 0}),
        ("G11", {"peak_mib": {}}),
    ],
)
def test_what_was_not_looked_at_is_not_said_to_hold(promise: str, changes: dict[str, Any]) -> None:
    found = chaos_verdicts.verdicts(replace(GOOD, **changes))
    assert [one.promise for one in found if "not checked here" in str(one)] == [promise]
    assert chaos_verdicts.conclusion(found, 7) == f"what was checked held; not checked: {promise}"


def test_the_last_line_says_whether_all_of_it_held() -> None:
    assert chaos_verdicts.conclusion(chaos_verdicts.verdicts(GOOD), 7) == "all promises held"
    found = chaos_verdicts.verdicts(replace(GOOD, dropped=["request 3 broke off"], rotations=[]))
    assert chaos_verdicts.conclusion(found, 7) == "violated: G9; seed 7"
