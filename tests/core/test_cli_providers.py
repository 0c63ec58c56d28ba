"""`credentiald providers`: which fields a command line changes, and which it leaves alone."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawbridge.v1 import provider_pb2
from google.protobuf.duration_pb2 import Duration

from credentiald.catalog import CATALOG
from credentiald.cli.provider_options import given_paths, provider_of
from credentiald.cli.providers import COLUMNS, update
from tests.fakes.admin_service import FakePlane, serving
from tests.support.credentiald_cli import administer, administer_json

PROTO = Path(__file__).parents[2] / "protos/drawbridge/v1/admin_service.proto"

FLAGS = [
    (("--base-url", "https://llm.example.com/"), "base_url", "https://llm.example.com/"),
    (("--base-url", ""), "base_url", ""),
    (("--display-name", "Corp"), "display_name", "Corp"),
    (("--central-key",), "key_policy.central_key_enabled", True),
    (("--no-central-key",), "key_policy.central_key_enabled", False),
    (("--user-keys",), "key_policy.user_keys_allowed", True),
    (("--no-user-keys",), "key_policy.user_keys_allowed", False),
    (("--central-key-fallback",), "key_policy.central_key_fallback", True),
    (("--no-central-key-fallback",), "key_policy.central_key_fallback", False),
    (("--send-actor-headers",), "send_actor_headers", True),
    (("--no-send-actor-headers",), "send_actor_headers", False),
    (("--fallback-provider", "spare"), "fallback_provider", "spare"),
    (("--no-fallback-provider",), "fallback_provider", ""),
    (("--connect-timeout", "1500ms"), "timeouts.connect", Duration(seconds=1, nanos=500_000_000)),
    (("--first-byte-timeout", "20s"), "timeouts.first_byte", Duration(seconds=20)),
    (("--idle-timeout", "24h"), "timeouts.idle", Duration(seconds=86_400)),
    (("--bedrock-region", "eu-west-1"), "bedrock.region", "eu-west-1"),
    (("--bedrock-role-arn", "arn:aws:iam::1:role/r"), "bedrock.role_arn", "arn:aws:iam::1:role/r"),
    (("--bedrock-external-id", "x"), "bedrock.external_id", "x"),
    (("--bedrock-model", "m"), "bedrock.model", "m"),
    (("--bedrock-small-fast-model", "s"), "bedrock.small_fast_model", "s"),
    (("--bedrock-model-map", "a=b", "--bedrock-model-map", "c=d=e"), "bedrock.models", {"a": "b", "c": "d=e"}),
    (("--bedrock-model-map", ""), "bedrock.models", {}),
    (
        ("--bedrock-model-rule", "/abc123=claude-opus-4-5+effort-2025-11-24+b-2"),
        "bedrock.model_rules",
        [
            provider_pb2.BedrockModelRule(
                contains="/abc123", family="claude-opus-4-5", betas=["effort-2025-11-24", "b-2"]
            )
        ],
    ),
    (("--bedrock-model-rule", ""), "bedrock.model_rules", []),
    (("--bedrock-role-duration", "1h"), "bedrock.role_duration_seconds", 3600),
    (("--bedrock-role-duration", "0"), "bedrock.role_duration_seconds", 0),
    (("--bedrock-session-policy-file", ""), "bedrock.session_policy", ""),
    (("--bedrock-protocol", "mantle"), "bedrock.protocol", provider_pb2.BEDROCK_PROTOCOL_MANTLE),
    (("--bedrock-protocol", "invoke-model"), "bedrock.protocol", provider_pb2.BEDROCK_PROTOCOL_INVOKE_MODEL),
    (("--bedrock-source-identity",), "bedrock.set_source_identity", True),
    (("--no-bedrock-source-identity",), "bedrock.set_source_identity", False),
    (("--bedrock-session-tags",), "bedrock.session_tags", True),
]


def at(provider: provider_pb2.Provider, path: str) -> object:
    value: object = provider
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[FakePlane]:
    with serving(tmp_path) as plane:
        plane.providers["corp"] = provider_pb2.Provider(name="corp", type="openai", central_key_set=True)
        yield plane


@pytest.mark.parametrize("type_name", list(CATALOG))
def test_a_provider_of_each_type_is_made_with_nothing_but_what_was_given(plane, type_name):
    result = administer(plane, "providers", "create", "new", "--type", type_name)
    assert (result.stdout, result.stderr) == ("", "created provider 'new'\n")
    assert (plane.last.provider.name, plane.last.provider.type) == ("new", type_name)
    assert not plane.last.provider.HasField("key_policy")
    assert not plane.last.provider.HasField("enabled")
    assert not plane.last.provider.HasField("bedrock")
    assert not plane.last.HasField("central_key")


@pytest.mark.parametrize(("flags", "path", "value"), FLAGS)
def test_each_flag_of_create_sets_its_field(plane, flags, path, value):
    administer(plane, "providers", "create", "new", "--type", "openai", *flags)
    assert at(plane.last.provider, path) == value


@pytest.mark.parametrize(
    ("flags", "path", "value"), [*FLAGS, (("--enabled",), "enabled", True), (("--disabled",), "enabled", False)]
)
def test_each_flag_of_update_names_its_field_in_the_mask_and_no_other(plane, flags, path, value):
    result = administer(plane, "providers", "update", "corp", *flags)
    assert list(plane.last.update_mask.paths) == [path]
    assert at(plane.last.provider, path) == value
    assert (result.stdout, result.stderr) == ("", "updated provider 'corp'\n")


def test_a_session_policy_is_read_from_a_file(plane, tmp_path):
    path = tmp_path / "policy.json"
    path.write_text('{"Version": "2012-10-17"}\n')
    administer(plane, "providers", "update", "corp", "--bedrock-session-policy-file", str(path))
    assert plane.last.provider.bedrock.session_policy == '{"Version": "2012-10-17"}'


@pytest.mark.parametrize(
    "flags",
    [
        ("--bedrock-model-map", "no-equals-sign"),
        ("--bedrock-model-map", "=id"),
        ("--bedrock-model-rule", "contains="),
        ("--bedrock-model-rule", "contains=+beta"),
        ("--bedrock-role-duration", "soon"),
        ("--bedrock-role-duration", "10000000h"),
        ("--bedrock-session-policy-file", "/nowhere/policy.json"),
        ("--bedrock-protocol", "converse"),
    ],
)
def test_an_option_of_bedrock_that_cannot_be_read_is_wrong_usage(plane, flags):
    result = administer(plane, "providers", "update", "corp", *flags, code=2)
    assert flags[0] in result.stderr
    assert plane.calls == []


@pytest.mark.parametrize("text", ["soon", "", "5", "25h"])
def test_a_time_out_that_cannot_be_read_is_wrong_usage(plane, text):
    result = administer(plane, "providers", "update", "corp", "--idle-timeout", text, code=2)
    assert "--idle-timeout" in result.stderr
    assert plane.calls == []


def test_a_time_out_returns_to_the_bridges_setting(plane):
    administer(plane, "providers", "update", "corp", "--connect-timeout", "0", "--idle-timeout", "3s")
    assert sorted(plane.last.update_mask.paths) == ["timeouts.connect", "timeouts.idle"]
    assert not plane.last.provider.timeouts.HasField("connect")
    assert plane.last.provider.timeouts.idle == Duration(seconds=3)


def test_time_outs_are_shown_as_they_are_written(plane):
    plane.providers["corp"].timeouts.first_byte.FromMilliseconds(2500)
    assert "timeouts.first_byte: 2.500s\n" in administer(plane, "providers", "show", "corp").stdout


def test_maps_and_lists_of_a_provider_are_shown(plane):
    bedrock = plane.providers["corp"].bedrock
    bedrock.models.update({"b": "2", "a": "1"})
    bedrock.model_rules.add(contains="/abc", family="claude-opus-4-5", betas=["x-1"])
    bedrock.protocol = provider_pb2.BEDROCK_PROTOCOL_MANTLE
    shown = administer_json(plane, "providers", "show", "corp")["bedrock"]
    assert shown["models"] == {"a": "1", "b": "2"}
    assert shown["model_rules"] == [{"contains": "/abc", "family": "claude-opus-4-5", "betas": ["x-1"]}]
    assert shown["protocol"] == "MANTLE"
    text = administer(plane, "providers", "show", "corp").stdout
    assert "bedrock.models.a: 1\n" in text
    assert "bedrock.model_rules: /abc claude-opus-4-5 x-1\n" in text


def test_several_flags_of_update_are_one_change(plane):
    administer(plane, "providers", "update", "corp", "--user-keys", "--disabled", "--etag", "7")
    assert sorted(plane.last.update_mask.paths) == ["enabled", "key_policy.user_keys_allowed"]
    assert plane.last.provider.etag == "7"
    assert len(plane.calls) == 1


def test_every_path_of_the_contracts_update_mask_has_a_flag():
    comment = re.search(r"// Paths: (.*?)google\.protobuf\.FieldMask", PROTO.read_text(), re.DOTALL)
    assert comment is not None
    named = set(re.findall(r"[a-z_]+(?:\.[a-z_]+)?", comment[1]))
    leaves = {path for path in named if not any(other.startswith(f"{path}.") for other in named)}
    given = {str(param.name): "x" for param in update.params}
    assert leaves <= set(given_paths(given))


def test_the_actor_headers_return_to_the_deployments_setting(plane):
    administer(plane, "providers", "update", "corp", "--default-send-actor-headers")
    assert list(plane.last.update_mask.paths) == ["send_actor_headers"]
    assert not plane.last.provider.HasField("send_actor_headers")


def test_a_key_is_read_from_stdin_and_goes_with_the_same_change(plane):
    administer(plane, "providers", "create", "new", "--type", "openai", "--key-stdin", stdin="sk-1\n")
    assert plane.last.central_key.api_key == "sk-1"
    administer(plane, "providers", "update", "corp", "--key-stdin", "--central-key", stdin="sk-2")
    assert plane.last.central_key.api_key == "sk-2"
    assert list(plane.last.update_mask.paths) == ["key_policy.central_key_enabled"]


def test_an_aws_access_key_is_two_or_three_lines(plane):
    create = ("providers", "create", "aws", "--type", "bedrock", "--bedrock-access-key-stdin")
    administer(plane, *create, stdin="AKIA1\r\nsecret/1+\r\n")
    pair = plane.last.central_key.aws_access_key_pair
    assert (pair.access_key_id, pair.secret_access_key, pair.session_token) == ("AKIA1", "secret/1+", "")
    administer(plane, *create, stdin="ASIA1\nsecret\ntoken==\n")
    assert plane.last.central_key.aws_access_key_pair.session_token == "token=="


@pytest.mark.parametrize("stdin", ["", "AKIA1\n", "AKIA1\n\n", "AKIA1\n \n", "a\nb\nc\nd\n"])
def test_a_half_aws_access_key_is_refused_and_asks_nobody(plane, stdin):
    administer(
        plane, "providers", "create", "aws", "--type", "bedrock", "--bedrock-access-key-stdin", stdin=stdin, code=1
    )
    assert plane.calls == []


def test_clear_key_removes_the_key_without_any_field(plane):
    administer(plane, "providers", "update", "corp", "--clear-key")
    assert plane.last.clear_central_key is True
    assert list(plane.last.update_mask.paths) == []


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--etag", "3"),
        ("--clear-key", "--key-stdin"),
        ("--clear-key", "--bedrock-access-key-stdin"),
        ("--key-stdin", "--bedrock-access-key-stdin"),
        ("--default-send-actor-headers", "--send-actor-headers"),
        ("--default-send-actor-headers", "--no-send-actor-headers"),
    ],
)
def test_an_update_that_says_nothing_or_two_things_is_wrong_usage(plane, flags):
    administer(plane, "providers", "update", "corp", *flags, stdin="sk-1", code=2)
    assert plane.calls == []


def test_an_unknown_type_is_wrong_usage_and_the_known_ones_are_named(plane):
    result = administer(plane, "providers", "create", "new", "--type", "mistral", code=2)
    assert "openai-compat" in result.stderr


def test_a_provider_is_shown_without_its_key(plane):
    shown = administer_json(plane, "providers", "show", "corp")
    assert (shown["name"], shown["type"], shown["central_key_set"], shown["bedrock"]) == ("corp", "openai", True, None)
    assert "central_key_set: yes" in administer(plane, "providers", "show", "corp").stdout.splitlines()


def test_providers_are_listed_over_all_pages(plane):
    for name in ("a", "b"):
        plane.providers[name] = provider_of(name, {"key_policy__user_keys_allowed": True})
    assert [one["name"] for one in administer_json(plane, "providers", "list")] == ["corp", "a", "b"]
    headings, corp, *_ = administer(plane, "providers", "list").stdout.splitlines()
    assert re.split("  +", headings) == list(COLUMNS)
    assert corp.split() == ["corp", "openai", "-", "-", "yes", "-", "-", "-", "-"]


def test_a_provider_is_deleted_and_an_etag_goes_along(plane):
    assert administer_json(plane, "providers", "delete", "corp", "--etag", "4") == {}
    assert plane.last.etag == "4"
    assert plane.providers == {}
