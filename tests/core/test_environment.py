"""Providers from CODER_AIBRIDGE_*: what each configuration becomes, and every error with all others."""

import itertools
import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentiald.environment import indexed_texts
from credentiald.gateway_settings import DEFAULT_BEDROCK_MODEL, DEFAULT_BEDROCK_SMALL_FAST_MODEL
from credentiald.model import (
    ApiKeyMaterial,
    AwsKeyPairMaterial,
    BedrockModelRule,
    BedrockOptions,
    BedrockProtocol,
    EnvironmentProvider,
    KeyPolicy,
    Origin,
    Timeouts,
)
from credentiald.settings import Loaded, load
from daemonkit.secret import Secret
from daemonkit.settings import ConfigErrors

CENTRAL = KeyPolicy(central_key_enabled=True, user_keys_allowed=False, central_key_fallback=False)
USERS = KeyPolicy(central_key_enabled=False, user_keys_allowed=True, central_key_fallback=False)
ROLE = "arn:aws:iam::123456789012:role/bedrock"


def loaded(environ: dict[str, str], **files: str) -> Loaded:
    def read_file(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[path]

    return load({}, environ, read_file=read_file)


def providers(environ: dict[str, str], **files: str) -> tuple[EnvironmentProvider, ...]:
    return loaded(environ, **files).gateway.environment_providers


def errors(environ: dict[str, str], **files: str) -> list[str]:
    with pytest.raises(ConfigErrors) as raised:
        loaded(environ, **files)
    return raised.value.errors


def indexed(*entries: dict[str, str]) -> dict[str, str]:
    """The variables of providers 0, 1 and so on."""
    return {
        f"CODER_AIBRIDGE_PROVIDER_{index}_{field}": text
        for index, entry in enumerate(entries)
        for field, text in entry.items()
    }


def legacy(**texts: str) -> dict[str, str]:
    return {f"CODER_AIBRIDGE_{name}": text for name, text in texts.items()}


def keys_of(one: EnvironmentProvider) -> list[str]:
    return [material.value.reveal() for material in one.materials if isinstance(material, ApiKeyMaterial)]


def test_no_variables_are_no_providers():
    assert providers({"PATH": "/bin", "OPENAI_API_KEY": "x"}) == ()


def test_the_four_providers_of_the_setup_guide():
    found = providers(
        indexed(
            {
                "TYPE": "anthropic",
                "NAME": "anthropic-corp",
                "KEY": "sk-ant-corp-xxx",
                "BASE_URL": "https://llm-proxy.internal.example.com/anthropic",
            },
            {"TYPE": "anthropic", "NAME": "anthropic-direct", "KEY": "sk-ant-direct-yyy"},
            {
                "TYPE": "openai",
                "NAME": "azure-openai",
                "KEY": "azure-key-zzz",
                "BASE_URL": "https://my-deployment.openai.azure.com/",
            },
            {
                "TYPE": "anthropic",
                "NAME": "anthropic-bedrock",
                "BEDROCK_REGION": "us-west-2",
                "BEDROCK_ACCESS_KEY": "AKIAIOSFODNN7EXAMPLE",
                "BEDROCK_ACCESS_KEY_SECRET": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            },
        )
    )
    assert [one.provider.name for one in found] == [
        "anthropic-corp",
        "anthropic-direct",
        "azure-openai",
        "anthropic-bedrock",
    ]
    assert all(one.provider.policy == CENTRAL and one.provider.origin is Origin.ENVIRONMENT for one in found)
    assert [keys_of(one) for one in found] == [["sk-ant-corp-xxx"], ["sk-ant-direct-yyy"], ["azure-key-zzz"], []]
    assert found[0].provider.base_url == "https://llm-proxy.internal.example.com/anthropic"
    assert found[1].provider.base_url == ""
    assert found[3].provider.bedrock == BedrockOptions(
        region="us-west-2", model=DEFAULT_BEDROCK_MODEL, small_fast_model=DEFAULT_BEDROCK_SMALL_FAST_MODEL
    )
    assert found[3].materials == (
        AwsKeyPairMaterial(
            access_key_id=Secret("AKIAIOSFODNN7EXAMPLE"),
            secret_access_key=Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ),
    )


def test_the_chatgpt_example_works_with_the_users_own_key():
    (chatgpt,) = providers(
        indexed({"TYPE": "openai", "NAME": "chatgpt", "BASE_URL": "https://chatgpt.com/backend-api/codex"})
    )
    assert chatgpt.provider.policy == USERS
    assert chatgpt.materials == ()


@pytest.mark.parametrize("tier", ["individual", "business", "enterprise"])
def test_the_copilot_tiers_work_with_the_users_own_key(tier):
    url = f"https://api.{tier}.githubcopilot.com"
    (copilot,) = providers(indexed({"TYPE": "copilot", "NAME": f"copilot-{tier}", "BASE_URL": url}))
    assert (copilot.provider.policy, copilot.provider.base_url) == (USERS, url)


def test_the_order_is_numeric_and_legacy_providers_come_first():
    entries = [{"TYPE": "openai", "NAME": f"p{index}"} for index in range(11)]
    environ = [*indexed(*entries).items(), *legacy(OPENAI_KEY="a", ANTHROPIC_KEY="b").items()]
    random.Random(7).shuffle(environ)
    names = [one.provider.name for one in providers(dict(environ))]
    assert names == ["openai", "anthropic", *(f"p{index}" for index in range(11))]


def test_the_name_defaults_to_the_type_and_ids_follow_from_the_name():
    (first,) = providers(indexed({"TYPE": "OpenAI "}))
    (again,) = providers(indexed({"TYPE": "openai", "KEY": "another"}))
    (other,) = providers(indexed({"TYPE": "openai", "NAME": "other"}))
    assert first.provider.name == first.provider.type == "openai"
    assert first.provider.id == again.provider.id != other.provider.id


@pytest.mark.parametrize("field", ["KEY", "KEYS", "KEY_FILE", "KEYS_FILE"])
@pytest.mark.parametrize(
    ("text", "keys"), [("a", ["a"]), (" a , b ", ["a", "b"]), ("a,b,c,d,e", list("abcde")), ("a\n", ["a"])]
)
def test_keys_are_a_list_under_each_of_their_names(field, text, keys):
    (one,) = providers(indexed({"TYPE": "openai", field: "f" if field.endswith("_FILE") else text}), f=text)
    assert keys_of(one) == keys


def test_keys_of_nothing_but_spaces_count_as_none():
    (one,) = providers(indexed({"TYPE": "openai", "KEY": "  ", "KEYS": ""}))
    assert (one.provider.policy, one.materials) == (USERS, ())


def test_every_secret_has_a_file_twin():
    (one,) = providers(
        indexed(
            {
                "TYPE": "bedrock",
                "BEDROCK_ACCESS_KEY_FILE": "id",
                "BEDROCK_ACCESS_KEY_SECRET_FILE": "secret",
                "BEDROCK_SESSION_TOKEN_FILE": "token",
            }
        ),
        id="AKIA\n",
        secret="s3cret\n",
        token="t0ken\n",
    )
    assert one.materials == (
        AwsKeyPairMaterial(
            access_key_id=Secret("AKIA"), secret_access_key=Secret("s3cret"), session_token=Secret("t0ken")
        ),
    )


def test_legacy_secrets_have_file_twins_too():
    found = providers(legacy(OPENAI_KEY_FILE="a", ANTHROPIC_KEY_FILE="b"), a="one\n", b="two\n")
    assert [keys_of(one) for one in found] == [["one"], ["two"]]


def test_bedrock_takes_a_bearer_token_a_pair_or_the_ambient_chain():
    bearer, pair, ambient = providers(
        indexed(
            {"TYPE": "bedrock", "NAME": "bearer", "KEY": "token", "BEDROCK_REGION": "eu-west-1"},
            {"TYPE": "bedrock", "NAME": "pair", "BEDROCK_ACCESS_KEY": "id", "BEDROCK_ACCESS_KEY_SECRET": "secret"},
            {"TYPE": "bedrock", "NAME": "ambient"},
        )
    )
    assert keys_of(bearer) == ["token"]
    assert bearer.provider.bedrock == BedrockOptions(region="eu-west-1")
    assert pair.provider.bedrock == ambient.provider.bedrock == BedrockOptions()
    assert len(pair.materials) == 1
    assert ambient.materials == ()
    assert [one.provider.policy for one in (bearer, pair, ambient)] == [CENTRAL] * 3


def test_the_fields_of_ours_arrive():
    (one,) = providers(
        indexed(
            {
                "TYPE": "anthropic",
                "NAME": "aws",
                "DISPLAY_NAME": "Über AWS",
                "SEND_ACTOR_HEADERS": "true",
                "CONNECT_TIMEOUT": "1500ms",
                "FALLBACK_PROVIDER": "spare",
                "FIRST_BYTE_TIMEOUT": "2m",
                "ALLOW_USER_KEYS": "true",
                "CENTRAL_KEY_FALLBACK": "true",
                "BEDROCK_BASE_URL": "https://bedrock.internal.example/",
                "BEDROCK_ROLE_ARN": ROLE,
                "BEDROCK_EXTERNAL_ID": "ext-1",
                "BEDROCK_MODEL": "m",
                "BEDROCK_SMALL_FAST_MODEL": "s",
            }
        )
    )
    assert one.provider.display_name == "Über AWS"
    assert one.provider.send_actor_headers is True
    assert one.provider.fallback_provider == "spare"
    assert one.provider.timeouts == Timeouts(connect=timedelta(seconds=1.5), first_byte=timedelta(minutes=2))
    assert one.provider.base_url == "https://bedrock.internal.example/"
    assert one.provider.policy == KeyPolicy(central_key_enabled=True, user_keys_allowed=True, central_key_fallback=True)
    assert one.provider.bedrock == BedrockOptions(role_arn=ROLE, external_id="ext-1", model="m", small_fast_model="s")


# key: whether there is one; central, users: flag as given or None; result: the flags, or a part of the error.
NO_SOURCE, NO_KEY = "has no source", "KEY is required because CENTRAL_KEY is on"
POLICIES = [
    (True, None, None, (True, False)),
    (True, None, True, (True, True)),
    (True, None, False, (True, False)),
    (True, True, None, (True, False)),
    (True, True, True, (True, True)),
    (True, True, False, (True, False)),
    (True, False, None, NO_SOURCE),
    (True, False, True, (False, True)),
    (True, False, False, NO_SOURCE),
    (False, None, None, (False, True)),
    (False, None, True, (False, True)),
    (False, None, False, NO_SOURCE),
    (False, True, None, NO_KEY),
    (False, True, True, NO_KEY),
    (False, True, False, NO_KEY),
    (False, False, None, (False, True)),
    (False, False, True, (False, True)),
    (False, False, False, NO_SOURCE),
]


def test_models_are_not_mapped_by_default_where_clients_choose_them():
    one = providers(indexed({"TYPE": "anthropic", "BEDROCK_REGION": "us-east-2", "BEDROCK_PROTOCOL": "mantle"}))[0]

    assert one.provider.bedrock == BedrockOptions(region="us-east-2", protocol=BedrockProtocol.MANTLE)


def test_bedrocks_options_arrive():
    one = providers(
        indexed(
            {
                "TYPE": "bedrock",
                "BEDROCK_MODELS": "opus=us.anthropic.opus-v1:0, sonnet=arn:x",
                "BEDROCK_MODEL_RULES": "/abc=claude-opus-4-5+effort-2025-11-24, /def=claude-sonnet-4-5",
                "BEDROCK_ROLE_ARN": ROLE,
                "BEDROCK_ROLE_DURATION": "1h30m",
                "BEDROCK_SESSION_POLICY": '{"Version": "2012-10-17"}',
                "BEDROCK_SET_SOURCE_IDENTITY": "true",
                "BEDROCK_SESSION_TAGS": "yes",
                "BEDROCK_PROTOCOL": "Mantle",
            }
        )
    )[0]

    assert one.provider.bedrock == BedrockOptions(
        models=(("opus", "us.anthropic.opus-v1:0"), ("sonnet", "arn:x")),
        model_rules=(
            BedrockModelRule(contains="/abc", family="claude-opus-4-5", betas=("effort-2025-11-24",)),
            BedrockModelRule(contains="/def", family="claude-sonnet-4-5"),
        ),
        role_arn=ROLE,
        role_duration_seconds=5400,
        session_policy='{"Version": "2012-10-17"}',
        set_source_identity=True,
        session_tags=True,
        protocol=BedrockProtocol.MANTLE,
    )


def test_the_table_of_policies_has_every_combination_once():
    given_flags = (True, False), (None, True, False), (None, True, False)
    assert sorted(map(repr, itertools.product(*given_flags))) == sorted(repr(row[:3]) for row in POLICIES)


@pytest.mark.parametrize(("key", "central", "users", "result"), POLICIES)
def test_policy_flags_override_what_follows_from_the_key(key, central, users, result):
    entry = {"TYPE": "openai"} | ({"KEY": "k"} if key else {})
    entry |= {} if central is None else {"CENTRAL_KEY": str(central).lower()}
    entry |= {} if users is None else {"ALLOW_USER_KEYS": str(users).lower()}
    if isinstance(result, str):
        assert [error for error in errors(indexed(entry)) if result in error]
        return
    (one,) = providers(indexed(entry))
    assert (one.provider.policy.central_key_enabled, one.provider.policy.user_keys_allowed) == result
    assert bool(one.materials) == (key and result[0])


def test_a_key_that_is_never_used_is_dropped_with_a_warning():
    found = loaded(indexed({"TYPE": "openai", "KEY": "k", "CENTRAL_KEY": "false", "ALLOW_USER_KEYS": "true"}))
    assert found.gateway.environment_providers[0].materials == ()
    assert found.warnings == ("provider 0: CENTRAL_KEY is false, so the configured key is never used",)


AWS_PAIR = {"BEDROCK_ACCESS_KEY": "id", "BEDROCK_ACCESS_KEY_SECRET": "secret"}
ERRORS = [
    ({"CODER_AIBRIDGE_PROVIDER_FOO_TYPE": "openai"}, "parse number: FOO"),
    ({"CODER_AIBRIDGE_PROVIDER_00_TYPE": "openai"}, "parse number: 00"),
    ({"CODER_AIBRIDGE_PROVIDER_-1_TYPE": "openai"}, "parse number: -1"),
    ({"CODER_AIBRIDGE_PROVIDER_0": "openai"}, "invalid env var"),
    ({"CODER_AIBRIDGE_PROVIDER_": "openai"}, "invalid env var"),
    ({"CODER_AIBRIDGE_PROVIDER_0_": "openai"}, "invalid env var"),
    ({"CODER_AIBRIDGE_PROVIDER_1_TYPE": "openai"}, "provider num 0 skipped"),
    (
        {"CODER_AIBRIDGE_PROVIDER_0_TYPE": "openai", "CODER_AIBRIDGE_PROVIDER_2_TYPE": "google"},
        "provider num 1 skipped",
    ),
    (indexed({"NAME": "x"}), "provider 0: TYPE is required"),
    (indexed({"TYPE": " "}), "provider 0: TYPE is required"),
    (indexed({"TYPE": "x"}), 'unknown TYPE "x" (must be one of openai, anthropic'),
    (indexed({"TYPE": "openai"}, {"TYPE": "openai"}), 'duplicate NAME "openai" (multiple providers of the same type'),
    (indexed({"TYPE": "openai", "NAME": "a"}, {"TYPE": "google", "NAME": "a"}), 'duplicate NAME "a"'),
    (indexed({"TYPE": "openai", "BEDROCK_REGION": "us-west-2"}), "BEDROCK_* fields are only supported with TYPE"),
    (indexed({"TYPE": "copilot", **AWS_PAIR}), "BEDROCK_* fields are only supported with TYPE bedrock or anthropic"),
    (indexed({"TYPE": "openai", "KEY": "a", "KEYS": "b"}), "KEY and KEYS are mutually exclusive"),
    (indexed({"TYPE": "openai", "KEY": "a", "KEY_FILE": "f"}), "KEY and KEY_FILE are mutually exclusive"),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_ACCESS_KEY": "a", "BEDROCK_ACCESS_KEYS": "b"}),
        "BEDROCK_ACCESS_KEY and BEDROCK_ACCESS_KEYS are mutually exclusive",
    ),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_ACCESS_KEY_SECRET": "a", "BEDROCK_ACCESS_KEY_SECRETS": "b"}),
        "BEDROCK_ACCESS_KEY_SECRET and BEDROCK_ACCESS_KEY_SECRETS are mutually exclusive",
    ),
    (indexed({"TYPE": "copilot", "KEY": "a"}), "KEY/KEYS are not supported for TYPE"),
    (indexed({"TYPE": "copilot", "CENTRAL_KEY": "true"}), "CENTRAL_KEY must be false for TYPE copilot"),
    (indexed({"TYPE": "openai", "KEYS": "a,,b"}), "key at index 1 is empty"),
    (indexed({"TYPE": "openai", "KEYS": "a,b,a"}), "duplicate key at index 2"),
    (indexed({"TYPE": "openai", "KEYS": "a,b,c,d,e,f"}), "too many keys (6), maximum is 5"),
    (indexed({"TYPE": "openai", "KEY": "a" * 10241}), "key at index 0 is larger than 10240 bytes"),
    (indexed({"TYPE": "openai", "KEY": "a\nb"}), "key at index 0 must be visible ASCII"),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_ACCESS_KEYS": "a,b", "BEDROCK_ACCESS_KEY_SECRETS": "c"}),
        "BEDROCK_ACCESS_KEYS count (2) must match BEDROCK_ACCESS_KEY_SECRETS count (1)",
    ),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_ACCESS_KEY": "a"}),
        "both access key and access key secret must be provided together",
    ),
    (
        indexed({"TYPE": "anthropic", "BEDROCK_ACCESS_KEY_SECRET": "a"}),
        "both access key and access key secret must be provided together",
    ),
    (
        indexed({"TYPE": "anthropic", "KEY": "a", "BEDROCK_REGION": "us-west-2"}),
        "KEY/KEYS and BEDROCK_* fields are mutually exclusive",
    ),
    (indexed({"TYPE": "bedrock", "KEY": "a", **AWS_PAIR}), "KEY/KEYS and BEDROCK_ACCESS_KEY are mutually exclusive"),
    (indexed({"TYPE": "bedrock", "BEDROCK_SESSION_TOKEN": "t"}), "goes with exactly one access key pair"),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_REGION": "evil.example/"}),
        "BEDROCK_REGION must be the name of an AWS region",
    ),
    (indexed({"TYPE": "bedrock", "BEDROCK_ROLE_ARN": "role"}), "BEDROCK_ROLE_ARN must be the ARN of a role"),
    (indexed({"TYPE": "bedrock", "BEDROCK_ROLE_ARN": ROLE, "KEY": "k"}), "BEDROCK_ROLE_ARN does not go with KEY"),
    (indexed({"TYPE": "bedrock", "BEDROCK_MODELS": "a"}), "BEDROCK_MODELS: 'a' is not NAME=ID"),
    (indexed({"TYPE": "bedrock", "BEDROCK_MODELS": "a=b,a=c"}), "BEDROCK_MODELS names a model twice"),
    (indexed({"TYPE": "bedrock", "BEDROCK_MODEL_RULES": "x="}), "BEDROCK_MODEL_RULES: 'x=' is not CONTAINS=FAMILY"),
    (indexed({"TYPE": "bedrock", "BEDROCK_ROLE_DURATION": "1h"}), "BEDROCK_ROLE_DURATION needs BEDROCK_ROLE_ARN"),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_ROLE_ARN": ROLE, "BEDROCK_ROLE_DURATION": "1m"}),
        "BEDROCK_ROLE_DURATION must be from 900 to 43200 seconds",
    ),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_ROLE_ARN": ROLE, "BEDROCK_ROLE_DURATION": "soon"}),
        "BEDROCK_ROLE_DURATION: 'soon' is not a duration",
    ),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_ROLE_ARN": ROLE, "BEDROCK_SESSION_POLICY": "{"}),
        "BEDROCK_SESSION_POLICY must be the JSON document",
    ),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_ROLE_ARN": ROLE, "BEDROCK_SESSION_TAGS": "maybe"}),
        "BEDROCK_SESSION_TAGS: 'maybe' is not a switch",
    ),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_SET_SOURCE_IDENTITY": "true"}),
        "BEDROCK_SET_SOURCE_IDENTITY needs BEDROCK_ROLE_ARN",
    ),
    (indexed({"TYPE": "bedrock", "BEDROCK_PROTOCOL": "converse"}), "BEDROCK_PROTOCOL: 'converse' is not possible"),
    (indexed({"TYPE": "bedrock", "BEDROCK_EXTERNAL_ID": "e"}), "BEDROCK_EXTERNAL_ID needs BEDROCK_ROLE_ARN"),
    (
        indexed({"TYPE": "bedrock", "BASE_URL": "https://a", "BEDROCK_BASE_URL": "https://b"}),
        "BASE_URL and BEDROCK_BASE_URL are mutually exclusive",
    ),
    (indexed({"TYPE": "openai", "TPYE": "x"}), "TPYE is not a known field: did you mean TYPE?"),
    (indexed({"TYPE": "openai", "FALLBACK_PROVIDER": "A b"}), 'FALLBACK_PROVIDER "A b" must be lower-case'),
    (indexed({"TYPE": "openai", "FALLBACK_PROVIDER": "openai"}), "FALLBACK_PROVIDER is the provider itself"),
    (
        indexed({"TYPE": "openai", "FALLBACK_PROVIDER": "anthropic"}, {"TYPE": "anthropic"}),
        'provider "openai": FALLBACK_PROVIDER "anthropic" has no turn of a conversation in common with it',
    ),
    (indexed({"TYPE": "openai", "IDLE_TIMEOUT": "soon"}), "IDLE_TIMEOUT: 'soon' is not a duration"),
    (indexed({"TYPE": "openai", "CONNECT_TIMEOUT": "25h"}), "CONNECT_TIMEOUT: must be from 1ms to 24h"),
    (indexed({"TYPE": "openai", "DUMP_DIR": "/x"}), "DUMP_DIR: dumps of requests are not supported yet"),
    (indexed({"TYPE": "openai", "NAME": "Open AI"}), 'NAME "Open AI" must be lower-case'),
    (indexed({"TYPE": "openai", "NAME": "v1"}), 'NAME "v1" is reserved'),
    (indexed({"TYPE": "azure", "KEY": "k"}), "BASE_URL is required for TYPE azure"),
    (indexed({"TYPE": "openai-compat", "KEY": "k"}), "BASE_URL is required for TYPE openai-compat"),
    (indexed({"TYPE": "openai", "BASE_URL": "https://u:p@x/"}), "BASE_URL must not hold a user name or password"),
    (
        indexed({"TYPE": "openai", "BASE_URL": "http://169.254.169.254/"}),
        "BASE_URL has a host that is a cloud's metadata",
    ),
    (
        indexed({"TYPE": "bedrock", "BEDROCK_BASE_URL": "https://[fe80::1]"}),
        "BEDROCK_BASE_URL has a host that is link-",
    ),
    (indexed({"TYPE": "openai", "ALLOW_USER_KEYS": "maybe"}), "ALLOW_USER_KEYS: 'maybe' is not a switch"),
    (indexed({"TYPE": "openai", "DISPLAY_NAME": "a\x1b[0m"}), "DISPLAY_NAME has characters that cannot be printed"),
    (indexed({"TYPE": "openai", "KEY_FILE": "away"}), "KEY_FILE: cannot read 'away'"),
    (
        indexed({"TYPE": "openai", "KEY": "k"}) | legacy(OPENAI_KEY="l"),
        'legacy CODER_AIBRIDGE_OPENAI_KEY conflicts with indexed provider named "openai"; remove one or the other',
    ),
    (
        indexed({"TYPE": "google", "NAME": "anthropic"}) | legacy(ANTHROPIC_KEY="l"),
        'legacy CODER_AIBRIDGE_ANTHROPIC_KEY conflicts with indexed provider named "anthropic"; remove one or the',
    ),
    (
        indexed({"TYPE": "anthropic"}) | legacy(BEDROCK_REGION="us-west-2"),
        'legacy CODER_AIBRIDGE_BEDROCK_* conflicts with indexed provider named "anthropic"',
    ),
    (
        legacy(ANTHROPIC_KEY="k", BEDROCK_REGION="us-west-2"),
        "CODER_AIBRIDGE_ANTHROPIC_KEY and CODER_AIBRIDGE_BEDROCK_* are mutually exclusive",
    ),
    (legacy(BEDROCK_ACCESS_KEY="k"), "both access key and access key secret must be provided together"),
    (legacy(BEDROCK_ACCESS_KEY_SECRET="k"), "both access key and access key secret must be provided together"),
    (
        legacy(OPENAI_KEY="k", OPENAI_KEY_FILE="f"),
        "CODER_AIBRIDGE_OPENAI_KEY and CODER_AIBRIDGE_OPENAI_KEY_FILE are both",
    ),
    (legacy(OPENAI_KEY="k", OPENAI_BASE_URL="ftp://x"), "BASE_URL must be absolute"),
    (
        indexed({"TYPE": "openai"}) | {"CODER_AI_GATEWAY_PROVIDER_0_TYPE": "openai"},
        "cannot mix CODER_AIBRIDGE_PROVIDER_* and CODER_AI_GATEWAY_PROVIDER_* environment variables",
    ),
    (legacy(PROVDER_0_KEY="k"), "did you mean CODER_AIBRIDGE_PROVIDER_<N>_KEY?"),
    (legacy(RETENTON="60d"), "did you mean CODER_AIBRIDGE_RETENTION?"),
    (legacy(RETENTION="1000000d"), "CODER_AIBRIDGE_RETENTION: '1000000d' is more than a hundred years"),
    (legacy(INJECT_CODER_MCP_TOOLS="true"), "injecting MCP tools is not supported"),
]


@pytest.mark.parametrize(("environ", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_each_mistake_is_an_error_of_its_own(environ, message):
    found = errors(environ, f="x")
    assert [error for error in found if message in error], found
    assert len(found) == 1 or len(environ) > 1, found


def test_all_mistakes_are_reported_at_once():
    found = errors(
        indexed({"TPYE": "openai"}, {"TYPE": "openai", "KEYS": "a,,b", "BASE_URL": "x"}, {"TYPE": "nothing"})
        | legacy(ENABLED="maybe", RETENTION="long", ANTHROPIC_KEY="k", BEDROCK_REGION="us-west-2", NONSENSE="1")
        | {"CREDENTIALD_GRACE": "x", "CREDENTIALD_LISTEN": "nowhere", "CREDENTIALD_NONSENSE": "1"}
    )
    expected = [
        "CREDENTIALD_NONSENSE is not",
        "CODER_AIBRIDGE_NONSENSE is not",
        "CREDENTIALD_LISTEN: ",
        "CREDENTIALD_GRACE: ",
        "CODER_AIBRIDGE_ENABLED: ",
        "CODER_AIBRIDGE_RETENTION: ",
        "mutually exclusive",
        "provider 0: TPYE",
        "provider 0: TYPE is required",
        "provider 1: KEYS: key at index 1",
        "provider 1: BASE_URL",
        "provider 2: unknown TYPE",
    ]
    assert [text for text in expected if not any(text in error for error in found)] == []
    assert len(found) == len(expected)


def test_no_error_holds_a_key():
    canary = "canary-7c1f"
    secrets = ["KEY", "KEYS", "BEDROCK_ACCESS_KEY", "BEDROCK_ACCESS_KEYS", "BEDROCK_ACCESS_KEY_SECRET"]
    entry = dict.fromkeys([*secrets, "BEDROCK_SESSION_TOKEN"], f"{canary},{canary},,x y {canary}")
    broken = [{"TYPE": kind, **entry} for kind in ("openai", "copilot", "bedrock", "anthropic", "nothing")]
    one_each = [{"TYPE": "openai", "NAME": f"n{index}", name: entry["KEY"]} for index, name in enumerate(secrets)]
    names = ["OPENAI_KEY", "ANTHROPIC_KEY", "BEDROCK_ACCESS_KEY"]
    found = errors(indexed(*broken, *one_each) | legacy(**dict.fromkeys(names, f"{canary} {canary}")))
    assert len(found) > 20
    assert canary not in "\n".join(found)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        (legacy(OPENAI_KEY="k"), ["openai"]),
        (legacy(OPENAI_BASE_URL="https://x"), []),
        (legacy(ANTHROPIC_KEY="k"), ["anthropic"]),
        (legacy(ANTHROPIC_BASE_URL="https://x"), []),
        (legacy(BEDROCK_REGION="us-west-2"), ["anthropic"]),
        (legacy(BEDROCK_BASE_URL="https://x"), ["anthropic"]),
        (legacy(BEDROCK_ACCESS_KEY="a", BEDROCK_ACCESS_KEY_SECRET="b"), ["anthropic"]),
        (legacy(BEDROCK_MODEL="m", BEDROCK_SMALL_FAST_MODEL="s"), []),
        (legacy(OPENAI_KEY=" "), []),
        (legacy(OPENAI_KEY="k") | indexed({"TYPE": "openai", "NAME": "second"}), ["openai", "second"]),
    ],
)
def test_legacy_providers_exist_if_a_key_or_bedrock_is_configured(environ, names):
    assert [one.provider.name for one in providers(environ)] == names


def test_a_legacy_bedrock_provider_maps_models_by_default():
    (one,) = providers(legacy(BEDROCK_REGION="us-west-2", BEDROCK_MODEL="mine"))
    assert one.provider.type == "anthropic"
    assert one.provider.policy == CENTRAL
    assert one.provider.bedrock == BedrockOptions(
        region="us-west-2", model="mine", small_fast_model=DEFAULT_BEDROCK_SMALL_FAST_MODEL
    )


def test_settings_without_effect_are_warnings():
    found = loaded(legacy(OPENAI_BASE_URL="https://x") | {"CODER_AI_GATEWAY_PROVIDER_0_TYPE": "openai"})
    assert [warning.split(" ")[0] for warning in found.warnings] == [
        "CODER_AI_GATEWAY_PROVIDER_*",
        "CODER_AIBRIDGE_OPENAI_BASE_URL",
    ]


YAML = """
aibridge:
  retention: 90d
  openai_key_file: key
  providers:
    - type: anthropic
      name: listed
      keys: [a, b]
      base_url: https://x.example/
    - {type: copilot}
"""


def test_a_yaml_list_configures_providers():
    found = loaded({"CREDENTIALD_CONFIG": "c"}, c=YAML, key="k\n")
    openai, listed, copilot = found.gateway.environment_providers
    assert [one.provider.name for one in (openai, listed, copilot)] == ["openai", "listed", "copilot"]
    assert [keys_of(one) for one in (openai, listed, copilot)] == [["k"], ["a", "b"], []]
    assert found.gateway_settings.retention.days == 90
    origins = {one.name: one.origin for one in found.effective}
    assert origins["aibridge.retention"] == origins["provider listed"] == "file c"


def test_indexed_variables_win_over_the_yaml_list_as_a_whole():
    found = loaded(indexed({"TYPE": "google"}) | {"CREDENTIALD_CONFIG": "c"}, c=YAML, key="k")
    assert [one.provider.name for one in found.gateway.environment_providers] == ["openai", "google"]
    assert any("aibridge.providers of the YAML file is not used" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("aibridge: {providers: {type: openai}}", "aibridge.providers must be a list"),
        ("aibridge: {providers: [openai]}", "aibridge.providers[0] must hold fields"),
        ("aibridge: {providers: [{tpye: openai}]}", "aibridge.providers[0]: TPYE is not a known field"),
        ("aibridge: {providers: [{type: [{}]}]}", "aibridge.providers[0]: type must be a single value"),
        ("aibridge: {retenton: 1d}", "aibridge.retenton in c is not a known setting: did you mean aibridge.retention?"),
        ("aibridge: 60d", "aibridge in c must hold settings"),
    ],
)
def test_mistakes_in_the_yaml_list_are_errors(yaml, message):
    assert [error for error in errors({"CREDENTIALD_CONFIG": "c"}, c=yaml) if message in error]


def test_ports_that_a_container_platform_injects_are_no_providers():
    assert providers({"CODER_AIBRIDGE_PROVIDER_PORT": "tcp://10.0.0.1:80", "CODER_AIBRIDGE_SERVICE_HOST": "x"}) == ()


@given(
    st.dictionaries(
        st.text(alphabet="0123456789_TYPEKNAM-é", max_size=12).map(lambda text: f"CODER_AIBRIDGE_PROVIDER_{text}"),
        st.sampled_from(["", "openai", "bedrock", "a,b", "x"]),
        max_size=5,
    )
)
def test_any_variables_are_providers_or_config_errors(environ):
    texts, name_errors = indexed_texts(environ)
    assert list(texts) == sorted(texts)
    try:
        count = len(providers(environ))
    except ConfigErrors as refused:
        count, name_errors = len(texts), [] if refused.errors else ["refused without a reason"]
    assert (count, name_errors) == (len(texts), [])
