"""`credentiald providers check`, and what `explain` says of AWS: for people and for programs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from drawbridge.v1 import admin_service_pb2, aws_pb2, explain_service_pb2, provider_pb2, user_pb2
from drawbridge.v1.error_reason_pb2 import ERROR_REASON_AMBIENT_CREDENTIALS_UNAVAILABLE
from drawbridge.v1.provider_pb2 import CREDENTIAL_SOURCE_AMBIENT, CREDENTIAL_SOURCE_CENTRAL_KEY
from google.protobuf.timestamp_pb2 import Timestamp

from tests.fakes.admin_service import FakePlane, serving
from tests.support.credentiald_cli import administer, administer_json

PLACE = aws_pb2.AwsPlace(
    region="us-west-2",
    region_origin="AWS_REGION",
    base_url="https://bedrock-runtime.us-west-2.amazonaws.com",
    base_url_origin="the region",
)
STEPS = [
    aws_pb2.AwsStep(
        name="env", outcome=aws_pb2.AwsStep.OUTCOME_NOTHING, duration_seconds=0.001, meaning="AWS_ACCESS_KEY_ID"
    ),
    aws_pb2.AwsStep(
        name="container-role",
        outcome=aws_pb2.AwsStep.OUTCOME_FAILED,
        detail="no answer",
        duration_seconds=9.0,
        meaning="the container endpoint",
    ),
]
CHECKED = admin_service_pb2.CheckProviderResponse(
    provider=provider_pb2.Provider(name="aws", type="bedrock"),
    source=CREDENTIAL_SOURCE_AMBIENT,
    reason=ERROR_REASON_AMBIENT_CREDENTIALS_UNAVAILABLE,
    message="AWS credentials could not be had",
    steps=STEPS,
    place=PLACE,
    role_arn="arn:aws:iam::123456789012:role/x",
    role_session_name="ada",
)
FAILED = """\
aws: AMBIENT_CREDENTIALS_UNAVAILABLE
  AWS credentials could not be had
  source        AMBIENT
  role          arn:aws:iam::123456789012:role/x
  role session  ada
  region        us-west-2 (from AWS_REGION)
  endpoint      https://bedrock-runtime.us-west-2.amazonaws.com (from the region)
Steps, in their order
  env             nothing  0.00 s  (AWS_ACCESS_KEY_ID)
  container-role  FAILED   9.00 s  no answer
"""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[FakePlane]:
    with serving(tmp_path) as plane:
        plane.providers["aws"] = provider_pb2.Provider(name="aws", type="bedrock")
        plane.checked.CopyFrom(CHECKED)
        yield plane


def test_a_check_that_found_something_wrong_says_what_and_exits_with_one(plane):
    result = administer(plane, "providers", "check", "aws", code=1)
    assert (result.stdout, result.stderr) == (FAILED, "")


def test_a_check_for_programs_has_every_field(plane):
    del plane.checked.steps[:]
    plane.checked.ClearField("reason")
    plane.checked.account, plane.checked.arn = "123456789012", "arn:aws:sts::123456789012:assumed-role/x/ada"
    plane.checked.expire_time.FromSeconds(1_800_000_000)
    found = administer_json(plane, "providers", "check", "aws")
    assert set(found) == {field.name for field in CHECKED.DESCRIPTOR.fields}
    assert (found["source"], found["reason"], found["expire_time"]) == ("AMBIENT", None, "2027-01-15T08:00:00Z")
    shown = administer(plane, "providers", "check", "aws").stdout
    assert shown.startswith("aws: ok\n")
    assert "  account       123456789012\n" in shown
    assert "  expires       2027-01-15T08:00:00Z\n" in shown


def test_a_provider_without_anything_central_is_ok(plane):
    plane.checked.Clear()
    plane.checked.provider.name = "aws"
    plane.checked.message = "users bring their own keys"
    assert administer(plane, "providers", "check", "aws").stdout == "aws: ok\n  users bring their own keys\n"


def test_a_provider_that_does_not_exist_cannot_be_checked(plane):
    result = administer(plane, "providers", "check", "nowhere", code=1)
    assert "there is no provider named 'nowhere'" in result.stderr


EXPLAINED = """
AWS
  credential  ambient
  region      us-west-2 (from AWS_REGION)
  endpoint    https://bedrock-runtime.us-west-2.amazonaws.com (from the region)
  the chain's credential, as this process of credentiald has it
    there             yes
    answered by       container-role
    fetched           2027-01-15T08:00:00Z
    expires           2027-01-15T09:00:00Z
    OUTAGE since      2027-01-15T08:10:00Z
    failed attempts   3
    tried again from  2027-01-15T08:11:00Z
    Steps, in their order
      env             nothing  0.00 s  (AWS_ACCESS_KEY_ID)
      container-role  FAILED   9.00 s  no answer
"""


def test_explain_tells_the_state_of_the_chain(plane):
    start = 1_800_000_000
    plane.explanation.CopyFrom(
        explain_service_pb2.ExplainProviderResponse(
            provider=plane.providers["aws"],
            user=user_pb2.User(username="ada"),
            source=CREDENTIAL_SOURCE_CENTRAL_KEY,
            inputs=[explain_service_pb2.ExplanationInput(name="a", value="b", origin="c")],
            checks=[explain_service_pb2.ExplanationCheck(name="user")],
            candidates=[explain_service_pb2.ExplanationCandidate(why="x")],
            aws=aws_pb2.AwsExplanation(
                credential="ambient",
                place=PLACE,
                states=[
                    aws_pb2.AwsCredentialState(
                        kind="source",
                        answered_by="container-role",
                        served=True,
                        fetch_time=Timestamp(seconds=start),
                        expire_time=Timestamp(seconds=start + 3600),
                        failed_attempts=3,
                        outage_time=Timestamp(seconds=start + 600),
                        retry_time=Timestamp(seconds=start + 660),
                        steps=STEPS,
                    )
                ],
            ),
        )
    )
    shown = administer(plane, "explain", "aws", "--user", "ada").stdout
    assert EXPLAINED in shown


def test_explain_tells_how_to_try_out_what_nobody_has_fetched(plane):
    plane.explanation.CopyFrom(
        explain_service_pb2.ExplainProviderResponse(
            provider=plane.providers["aws"],
            user=user_pb2.User(username="ada"),
            source=CREDENTIAL_SOURCE_CENTRAL_KEY,
            inputs=[explain_service_pb2.ExplanationInput(name="a", value="b", origin="c")],
            checks=[explain_service_pb2.ExplanationCheck(name="user")],
            candidates=[explain_service_pb2.ExplanationCandidate(why="x")],
            aws=aws_pb2.AwsExplanation(credential="ambient", place=PLACE),
        )
    )
    words = "not yet; 'credentiald providers check' tries it out"
    assert words in administer(plane, "explain", "aws", "--user", "ada").stdout
    # A stored pair or bearer token is there without being fetched.
    plane.explanation.aws.credential = "access key pair"
    assert words not in administer(plane, "explain", "aws", "--user", "ada").stdout
