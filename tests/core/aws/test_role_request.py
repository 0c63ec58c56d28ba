"""What AssumeRole is asked for."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.aws.role_request import assume_role_arguments, session_name
from credentiald.model import BedrockOptions

ROLE = "arn:aws:iam::123456789012:role/bedrock"
AWS_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")


@pytest.mark.parametrize(
    ("username", "name"),
    [
        ("ada@example.com", "ada@example.com"),
        ("ada lovelace/ü", "ada-lovelace--"),
        ("a", "a-drawbridge"),
        ("", "user-drawbridge"),
        ("x" * 64, "x" * 64),
    ],
)
def test_cloudtrail_sees_the_user(username, name):
    assert session_name(username) == name


@given(st.text(max_size=200))
def test_any_name_becomes_one_that_aws_takes(username):
    assert AWS_NAME.fullmatch(session_name(username))


def test_two_long_names_stay_two():
    names = {session_name("x" * 80 + end) for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) == 64 and name.startswith("x" * 55 + "-") for name in names)


def test_only_what_is_set_is_asked_for():
    arguments = assume_role_arguments(BedrockOptions(role_arn=ROLE), username="ada", provider="aws")
    assert arguments == {"RoleArn": ROLE, "RoleSessionName": "ada"}


def test_everything_that_is_set_is_asked_for():
    options = BedrockOptions(
        role_arn=ROLE,
        external_id="e",
        role_duration_seconds=900,
        session_policy="{}",
        set_source_identity=True,
        session_tags=True,
    )
    assert assume_role_arguments(options, username="ada;b", provider="aws") == {
        "RoleArn": ROLE,
        "RoleSessionName": "ada-b",
        "ExternalId": "e",
        "DurationSeconds": 900,
        "Policy": "{}",
        "SourceIdentity": "ada-b",
        "Tags": [
            {"Key": "drawbridge:user", "Value": "ada-b"},
            {"Key": "drawbridge:provider", "Value": "aws"},
        ],
    }
