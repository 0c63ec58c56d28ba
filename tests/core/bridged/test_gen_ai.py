"""Our facts in the words of OpenTelemetry's conventions for generative AI."""

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from bridged import gen_ai
from bridged.adapters import ADAPTERS
from bridged.model import RequestFacts
from bridged.records import AnswerRecords, TokenUsage
from bridged.routes import ROUTES
from credentiald.catalog import CATALOG

# Of PROVIDER_NAMES those that the conventions do not know: a name of one's own is right then.
OWN_NAMES = {"github.copilot", "openrouter", "vercel"}


def test_every_turn_of_a_conversation_is_an_operation_of_the_conventions() -> None:
    turns = {route.operation for route in ROUTES if route.intercepted}

    assert turns <= gen_ai.OPERATIONS.keys()
    assert gen_ai.OPERATIONS.keys() <= {route.operation for route in ROUTES}
    known = {one.value for one in gen_ai_attributes.GenAiOperationNameValues}
    assert set(gen_ai.OPERATIONS.values()) <= known


def test_every_provider_type_has_a_name_of_the_conventions_or_one_of_its_own() -> None:
    known = {one.value for one in gen_ai_attributes.GenAiProviderNameValues}

    assert gen_ai.PROVIDER_NAMES.keys() == CATALOG.keys() == ADAPTERS.keys() | {"bedrock"}
    assert set(gen_ai.PROVIDER_NAMES.values()) - known == OWN_NAMES


def test_every_attribute_is_one_of_the_conventions() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    facts = RequestFacts(model="m", stream=True)
    usage = TokenUsage(input_tokens=1, output_tokens=2, metadata={"output_reasoning": 1})
    written = {
        **gen_ai.request_attributes("anthropic.messages", "anthropic", facts),
        **gen_ai.response_attributes(AnswerRecords(msg_id="i", model="m-1", usage=usage)),
    }

    assert written.keys() <= known
    assert len(written) == 11


def test_input_tokens_include_those_of_the_cache() -> None:
    usage = TokenUsage(input_tokens=3, output_tokens=50, cache_read_input_tokens=20, cache_write_input_tokens=100)

    assert gen_ai.response_attributes(AnswerRecords(usage=usage)) == {
        "gen_ai.usage.input_tokens": 123,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 20,
        "gen_ai.usage.cache_creation.input_tokens": 100,
    }


def test_what_an_upstream_did_not_report_is_left_out() -> None:
    assert gen_ai.response_attributes(AnswerRecords()) == {}


@pytest.mark.parametrize(
    ("operation", "model", "name"),
    [
        ("openai.chat_completions", "gpt-5", "chat gpt-5"),
        ("openai.embeddings", "", "embeddings"),
        ("google.generate_content", "gemini-3", "generate_content gemini-3"),
        ("openai.models", "gpt-5", ""),
        ("anthropic.count_tokens", "m", ""),
    ],
)
def test_a_span_is_named_by_operation_and_model(operation: str, model: str, name: str) -> None:
    assert gen_ai.span_name(operation, model) == name


def test_what_is_none_of_generative_ai_has_none_of_its_attributes() -> None:
    assert gen_ai.request_attributes("openai.models", "openai", RequestFacts()) == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("claude-sonnet-5", "claude-sonnet-5"),
        ("m" * 5000, "m" * 128),
        ("a\nb\x1b\ud800", "a?b??"),
        ("dbu_" + "a1" * 20, "Secret(…)"),
    ],
)
def test_names_that_others_chose_are_bounded_and_hold_no_token(text: str, shown: str) -> None:
    assert gen_ai.bounded(text) == shown


@pytest.mark.parametrize(
    ("text", "kind"),
    [("overloaded_error", "overloaded_error"), ("Something went wrong: sk-1", "_OTHER"), ("x" * 65, "_OTHER")],
)
def test_an_upstreams_word_for_an_error_is_a_word(text: str, kind: str) -> None:
    assert gen_ai.error_kind(text) == kind
