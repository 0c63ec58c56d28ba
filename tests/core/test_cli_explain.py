"""`credentiald explain`: the whole account, for people and for programs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from drawbridge.v1 import explain_service_pb2 as pb
from drawbridge.v1.explain_service_pb2 import ExplainProviderResponse
from drawbridge.v1.provider_pb2 import CREDENTIAL_SOURCE_CENTRAL_KEY, CREDENTIAL_SOURCE_USER_KEY, Provider
from drawbridge.v1.user_pb2 import User

from tests.fakes.admin_service import FakePlane, serving
from tests.support.credentiald_cli import OWN_TOKEN, administer, administer_json

REFUSED = ExplainProviderResponse(
    provider=Provider(name="corp", type="openai"),
    user=User(username="ada"),
    reason=13,  # USER_KEY_REQUIRED
    message="provider 'corp' needs a key of your own",
    inputs=[pb.ExplanationInput(name="central_key_enabled", value="off", origin="provider")],
    checks=[
        pb.ExplanationCheck(name="user", outcome=pb.ExplanationCheck.OUTCOME_PASSED, detail="passed"),
        pb.ExplanationCheck(name="policy", outcome=pb.ExplanationCheck.OUTCOME_REFUSED, detail="needs a key"),
        pb.ExplanationCheck(name="secret", outcome=pb.ExplanationCheck.OUTCOME_NOT_REACHED, detail="not reached"),
    ],
    rows=[
        pb.ExplanationRow(
            central_key="on",
            user_keys="off",
            fallback="any",
            user_has_key="any",
            central_key_stored="yes",
            result="CENTRAL_KEY",
            mismatch="central key is off, not on",
        ),
        pb.ExplanationRow(
            central_key="off",
            user_keys="on",
            fallback="any",
            user_has_key="no",
            central_key_stored="any",
            result="USER_KEY_REQUIRED",
            applies=True,
        ),
    ],
    candidates=[
        pb.ExplanationCandidate(source=CREDENTIAL_SOURCE_USER_KEY, why="the user has stored no key"),
        pb.ExplanationCandidate(source=CREDENTIAL_SOURCE_CENTRAL_KEY, why="the central key is off"),
    ],
    revision=7,
)

ACCOUNT = """\
corp for ada: USER_KEY_REQUIRED
  provider 'corp' needs a key of your own

Inputs
  central_key_enabled  off  provider

Checks, in their order
  user    passed
  policy  refused      needs a key
  secret  not reached

Policy table (> applies)
     CENTRAL  USER KEYS  FALLBACK  USER HAS KEY  CENTRAL STORED  RESULT             WHY NOT
     on       off        any       any           yes             CENTRAL_KEY        central key is off, not on
  >  off      on         any       no            any             USER_KEY_REQUIRED

Sources (> chosen)
    USER_KEY     the user has stored no key
    CENTRAL_KEY  the central key is off

Revision 7
"""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[FakePlane]:
    with serving(tmp_path) as plane:
        plane.explanation = REFUSED
        yield plane


def test_a_person_reads_the_answer_first_and_then_what_led_to_it(plane):
    assert administer(plane, "explain", "corp", "--user", "ada").stdout == ACCOUNT


def test_a_chosen_source_and_its_credential_are_marked(plane):
    chosen = pb.ExplanationCandidate(source=CREDENTIAL_SOURCE_CENTRAL_KEY, chosen=True, why="the central key is used")
    plane.explanation = ExplainProviderResponse(
        provider=Provider(name="corp"),
        user=User(username="ada"),
        source=CREDENTIAL_SOURCE_CENTRAL_KEY,
        candidates=[chosen],
        credential_id="c1",
    )
    lines = administer(plane, "explain", "corp", "--user", "ada").stdout.splitlines()
    assert lines[0] == "corp for ada: CENTRAL_KEY"
    assert "  credential: c1" in lines
    assert "  >  CENTRAL_KEY  the central key is used" in lines


def test_a_program_gets_the_contracts_object(plane):
    explained = administer_json(plane, "explain", "corp", "--user", "ada")
    assert (explained["source"], explained["reason"], explained["revision"]) == (None, "USER_KEY_REQUIRED", 7)
    assert [check["outcome"] for check in explained["checks"]] == ["PASSED", "REFUSED", "NOT_REACHED"]
    assert [row["applies"] for row in explained["rows"]] == [False, True]


def test_the_question_says_user_operation_and_presented_key(plane):
    administer(plane, "explain", "corp", "--user", "ada", "--presented-key", "--operation", "openai.responses")
    asked = plane.last
    assert (asked.provider, asked.user, asked.presented_key, asked.operation) == (
        "corp",
        "ada",
        True,
        "openai.responses",
    )


def test_mine_asks_for_the_caller_with_the_callers_token(plane):
    administer(plane, "explain", "corp", "--mine")
    assert (plane.last.user, plane.last_authorization) == ("", f"Bearer {OWN_TOKEN}")


@pytest.mark.parametrize("whose", [(), ("--user", "ada", "--mine")])
def test_it_must_be_said_for_whom_and_only_once(plane, whose):
    administer(plane, "explain", "corp", *whose, code=2)
    assert plane.calls == []
