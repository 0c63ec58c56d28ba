"""What may be set as Bedrock's options, and how it is written as text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.bedrock_rules import option_problems, parse_model_rules, parse_models, parse_protocol
from credentiald.model import BedrockModelRule, BedrockOptions, BedrockProtocol
from credentiald.resolve import upstream_model

ROLE = "arn:aws:iam::123456789012:role/bedrock"
PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc123"
POLICY = json.dumps({"Version": "2012-10-17", "Statement": []}, indent=1)


def rule(contains="/abc123", family="claude-opus-4-5", betas=()):
    return BedrockModelRule(contains=contains, family=family, betas=betas)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"region": "us-gov-west-1"},
        {"role_arn": "arn:aws-cn:iam::123456789012:role/x", "external_id": "e"},
        {"role_arn": ROLE, "role_duration_seconds": 900},
        {"role_arn": ROLE, "role_duration_seconds": 43200},
        {"role_arn": ROLE, "session_policy": POLICY},
        {"role_arn": ROLE, "set_source_identity": True, "session_tags": True},
        {"models": (("claude-x", PROFILE), ("claude-y", "us.anthropic.claude-y-v1:0"))},
        {"model_rules": (rule(betas=("context-1m-2025-08-07",)), rule(PROFILE))},
        {"protocol": BedrockProtocol.MANTLE},
    ],
)
def test_options_that_may_be_saved(options):
    assert list(option_problems(BedrockOptions(**options))) == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"region": "us-east-1.evil.example/#"}, "region"),
        ({"model": "a\nb"}, "model"),
        ({"small_fast_model": "x" * 2049}, "small_fast_model"),
        ({"role_arn": "arn:aws:iam::1:role/x"}, "role_arn"),
        ({"external_id": "e"}, "external_id"),
        ({"role_duration_seconds": 900}, "role_duration_seconds"),
        ({"session_policy": POLICY}, "session_policy"),
        ({"set_source_identity": True}, "set_source_identity"),
        ({"session_tags": True}, "session_tags"),
        ({"role_arn": ROLE, "role_duration_seconds": 899}, "role_duration_seconds"),
        ({"role_arn": ROLE, "role_duration_seconds": 43201}, "role_duration_seconds"),
        ({"role_arn": ROLE, "role_duration_seconds": -1}, "role_duration_seconds"),
        ({"role_arn": ROLE, "session_policy": "[]"}, "session_policy"),
        ({"role_arn": ROLE, "session_policy": "{"}, "session_policy"),
        ({"role_arn": ROLE, "session_policy": "[" * 2000}, "session_policy"),
        ({"role_arn": ROLE, "session_policy": '{"a": "\u2014"}'}, "session_policy"),
        ({"role_arn": ROLE, "session_policy": json.dumps({"a": "x" * 2048})}, "session_policy"),
        ({"models": (("a", ""),)}, "models"),
        ({"models": (("a b", "c"),)}, "models"),
        ({"models": (("a", "b"), ("a", "c"))}, "models"),
        ({"models": tuple((f"m{n}", "x") for n in range(101))}, "models"),
        ({"model_rules": (rule(contains=""),)}, "model_rules"),
        ({"model_rules": (rule(family=""),)}, "model_rules"),
        ({"model_rules": (rule(family="Claude Opus"),)}, "model_rules"),
        ({"model_rules": (rule(betas=("a,b",)),)}, "model_rules"),
        ({"model_rules": (rule(),) * 101}, "model_rules"),
    ],
)
def test_options_that_may_not_be_saved(options, field):
    assert {found for found, _ in option_problems(BedrockOptions(**options))} == {field}


words = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,4}){0,2}", fullmatch=True)


@given(st.lists(st.tuples(words, words, st.lists(words, max_size=3).map(tuple)), max_size=4))
def test_rules_are_read_as_they_are_written(rules):
    expected = tuple(rule(*one) for one in rules)
    written = ["=".join((one.contains, "+".join((one.family, *one.betas)))) for one in expected]
    assert parse_model_rules(written) == expected


@given(st.lists(st.tuples(words, words), max_size=4))
def test_models_are_read_as_they_are_written(models):
    assert parse_models([f" {name} = {model} " for name, model in models] + [""]) == tuple(models)


@pytest.mark.parametrize("text", ["converse", "invoke model", "mantle."])
def test_a_protocol_that_does_not_exist_is_refused(text):
    with pytest.raises(ValueError, match="invoke-model, mantle"):
        parse_protocol(text)


@pytest.mark.parametrize(
    ("asked", "upstream"),
    [
        ("claude-haiku-x", "exactly"),
        ("claude-haiku-y", "small"),
        ("claude-opus", "big"),
        ("", ""),
    ],
)
def test_the_map_of_models_comes_before_the_two_models(asked, upstream):
    options = BedrockOptions(model="big", small_fast_model="small", models=(("claude-haiku-x", "exactly"),))
    assert upstream_model(options, asked) == upstream


def test_without_the_two_models_only_the_map_changes_a_model():
    options = BedrockOptions(models=(("a", "b"),))
    assert [upstream_model(options, asked) for asked in ("a", "claude-haiku")] == ["b", ""]
