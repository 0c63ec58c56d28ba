"""The catalogue of provider types, and what follows from a row."""

import pytest

from bridged.routes import ROUTES
from credentiald.catalog import CATALOG, TURNS, effective_base_url, has_operation, policy_with_defaults, wire_type
from credentiald.model import BedrockOptions, BedrockProtocol, KeyPolicy

NINE = ["openai", "anthropic", "copilot", "bedrock", "azure", "google", "openai-compat", "openrouter", "vercel"]


def test_the_catalogue_has_the_nine_types():
    assert sorted(CATALOG) == sorted(NINE)


@pytest.mark.parametrize(
    ("type_name", "url"),
    [
        ("openai", "https://api.openai.com/v1/"),
        ("anthropic", "https://api.anthropic.com/"),
        ("google", "https://generativelanguage.googleapis.com/"),
        ("copilot", "https://api.individual.githubcopilot.com"),
        ("openrouter", "https://openrouter.ai/api/v1/"),
        ("vercel", "https://ai-gateway.vercel.sh/v1/"),
        ("azure", ""),
        ("openai-compat", ""),
        ("bedrock", ""),
    ],
)
def test_default_base_urls(type_name, url):
    assert effective_base_url(type_name, "") == url
    assert effective_base_url(type_name, "https://other.example/") == "https://other.example/"


@pytest.mark.parametrize(
    ("type_name", "url", "bedrock", "wire"),
    [
        ("openai", "https://my-deployment.openai.azure.com/", None, "azure"),
        ("openai", "https://x.services.ai.azure.com/models", None, "azure"),
        ("openai", "https://MY.OpenAI.Azure.com", None, "azure"),
        ("openai", "https://openai.azure.com.evil.example/", None, "openai"),
        ("openai", "https://evil.example/.openai.azure.com", None, "openai"),
        ("openai", "", None, "openai"),
        ("openai-compat", "https://my.openai.azure.com/", None, "openai-compat"),
        ("anthropic", "", BedrockOptions(), "bedrock"),
        ("anthropic", "", None, "anthropic"),
        ("bedrock", "", BedrockOptions(), "bedrock"),
    ],
)
def test_the_wire_type_follows_host_and_bedrock_options(type_name, url, bedrock, wire):
    assert wire_type(type_name, url, bedrock) == wire


@pytest.mark.parametrize("operation", ["anthropic.models", "openai.models", "google.models"])
@pytest.mark.parametrize("type_name", [name for name in NINE if name != "bedrock"])
def test_listing_models_is_one_operation_whatever_it_is_called(type_name, operation):
    assert has_operation(type_name, operation)


@pytest.mark.parametrize(
    ("type_name", "operation", "allowed"),
    [
        ("anthropic", "anthropic.messages", True),
        ("anthropic", "openai.chat_completions", False),
        ("openai", "openai.responses", True),
        ("openai", "copilot.chat_completions", False),
        ("openai", "azure.chat_completions", False),
        ("azure", "azure.chat_completions", True),
        ("copilot", "copilot.mcp", True),
        ("google", "google.generate_content", True),
        ("google", "openai.responses", False),
        ("bedrock", "anthropic.messages", True),
        ("openai", "openai.fine_tuning", False),
    ],
)
def test_operations_belong_to_types(type_name, operation, allowed):
    assert has_operation(type_name, operation) is allowed


@pytest.mark.parametrize(
    ("protocol", "operation", "allowed"),
    [
        (BedrockProtocol.INVOKE_MODEL, "anthropic.messages", True),
        (BedrockProtocol.INVOKE_MODEL, "bedrock.converse_stream", True),
        (BedrockProtocol.INVOKE_MODEL, "bedrock.list_inference_profiles", True),
        (BedrockProtocol.INVOKE_MODEL, "openai.responses", False),
        (BedrockProtocol.MANTLE, "anthropic.messages", True),
        (BedrockProtocol.MANTLE, "openai.responses", True),
        (BedrockProtocol.MANTLE, "openai.chat_completions", True),
        (BedrockProtocol.MANTLE, "bedrock.invoke_model", False),
    ],
)
def test_the_protocol_of_a_bedrock_provider_decides_its_operations(protocol, operation, allowed):
    assert has_operation("bedrock", operation, BedrockOptions(protocol=protocol)) is allowed


def test_only_bedrock_stands_without_a_stored_key():
    assert [name for name, row in CATALOG.items() if row.allows_ambient] == ["bedrock"]


def test_flags_that_are_not_given_take_the_default_of_the_type():
    assert policy_with_defaults("openai", user_keys_allowed=True) == KeyPolicy(
        central_key_enabled=True, user_keys_allowed=True, central_key_fallback=False
    )
    assert policy_with_defaults("copilot") == KeyPolicy(
        central_key_enabled=False, user_keys_allowed=True, central_key_fallback=False
    )


def test_the_turns_that_are_recorded_are_those_that_bridges_intercept():
    assert {route.operation for route in ROUTES if route.intercepted} == TURNS
