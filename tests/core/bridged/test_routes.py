"""The table of routes, row by row, and against the catalogue and its documentation."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.model import DialectName, Headers, Refused
from bridged.routes import ROUTES, Route, dialect_of, dialect_of_target, match
from credentiald.catalog import CATALOG

MESSAGES, CHAT = DialectName.ANTHROPIC_MESSAGES, DialectName.OPENAI_CHAT
RESPONSES, GENERATE = DialectName.OPENAI_RESPONSES, DialectName.GOOGLE_GENERATE
BEDROCK = DialectName.BEDROCK

ANTHROPIC: Headers = (("Anthropic-Version", "2023-06-01"),)
GOOGLE: Headers = (("X-Goog-Api-Key", "x"),)
DOCS = Path(__file__).parents[3] / "docs" / "operations.md"


def status_of_match(method: str, path: str, query: str) -> int:
    try:
        match(method, path, (), query)
    except Refused as refused:
        return refused.http_status
    return 200


def refusal(method: str, path: str, headers: Headers = (), query: str = "") -> Refused:
    with pytest.raises(Refused) as refused:
        match(method, path, headers, query)
    return refused.value


@pytest.mark.parametrize(
    ("method", "path", "operation", "dialect", "intercepted"),
    [
        ("POST", "/v1/messages", "anthropic.messages", MESSAGES, True),
        ("POST", "/v1/messages/count_tokens", "anthropic.count_tokens", MESSAGES, False),
        ("POST", "/api/event_logging/batch", "anthropic.event_logging", MESSAGES, False),
        ("POST", "/v1/chat/completions", "openai.chat_completions", CHAT, True),
        ("POST", "/v1/responses", "openai.responses", RESPONSES, True),
        ("GET", "/v1/responses/resp_1", "openai.response_items", RESPONSES, False),
        ("DELETE", "/v1/responses/resp_1", "openai.response_items", RESPONSES, False),
        ("POST", "/v1/responses/resp_1/cancel", "openai.response_items", RESPONSES, False),
        ("POST", "/v1/responses/compact", "openai.response_items", RESPONSES, False),
        ("POST", "/v1/conversations", "openai.conversations", RESPONSES, False),
        ("GET", "/v1/conversations/c/items/i", "openai.conversations", RESPONSES, False),
        ("POST", "/v1/embeddings", "openai.embeddings", CHAT, False),
        ("GET", "/v1/models", "openai.models", CHAT, False),
        ("GET", "/v1/models/ft:gpt-4o:org::id", "openai.models", CHAT, False),
        ("GET", "/v1/models/meta%2Fllama", "openai.models", CHAT, False),
        ("POST", "/v1/models/gemini-x:generateContent", "google.generate_content", GENERATE, True),
        ("POST", "/v1beta/models/gemini-x:generateContent", "google.generate_content", GENERATE, True),
        ("POST", "/v1beta/models/g:streamGenerateContent", "google.stream_generate_content", GENERATE, True),
        ("POST", "/v1/models/g:countTokens", "google.count_tokens", GENERATE, False),
        ("POST", "/v1beta/models/g:embedContent", "google.embed_content", GENERATE, False),
        ("POST", "/v1beta/models/g:batchEmbedContents", "google.embed_content", GENERATE, False),
        ("GET", "/v1beta/models", "google.native_models", GENERATE, False),
        ("GET", "/v1beta/models/gemini-x", "google.native_models", GENERATE, False),
        ("GET", "/v1/models/meta-llama/llama-3", "openai.models", CHAT, False),
        ("GET", "/v1/models/", "openai.models", CHAT, False),
        ("POST", "/v1beta/openai/chat/completions", "google.openai_chat_completions", CHAT, True),
        ("POST", "/v1beta/openai/embeddings", "google.openai_embeddings", CHAT, False),
        ("GET", "/v1beta/openai/models", "google.openai_models", CHAT, False),
        ("GET", "/v1beta/openai/models/m", "google.openai_models", CHAT, False),
        ("POST", "/openai/deployments/d/chat/completions", "azure.chat_completions", CHAT, True),
        ("POST", "/openai/deployments/d/embeddings", "azure.embeddings", CHAT, False),
        ("POST", "/openai/deployments/d/responses", "azure.responses", RESPONSES, True),
        ("POST", "/openai/responses", "azure.responses", RESPONSES, True),
        ("GET", "/openai/responses/r/input_items", "azure.response_items", RESPONSES, False),
        ("GET", "/openai/models", "azure.models", CHAT, False),
        ("GET", "/openai/models/m", "azure.models", CHAT, False),
        ("POST", "/openai/v1/chat/completions", "azure.chat_completions", CHAT, True),
        ("POST", "/openai/v1/responses", "azure.responses", RESPONSES, True),
        ("GET", "/openai/v1/responses/r", "azure.response_items", RESPONSES, False),
        ("POST", "/openai/v1/embeddings", "azure.embeddings", CHAT, False),
        ("GET", "/openai/v1/models", "azure.models", CHAT, False),
        ("POST", "/chat/completions", "copilot.chat_completions", CHAT, True),
        ("POST", "/responses", "copilot.responses", RESPONSES, True),
        ("GET", "/models", "copilot.models", CHAT, False),
        ("POST", "/models/session/intent", "copilot.models", CHAT, False),
        ("GET", "/agents", "copilot.agents", CHAT, False),
        ("POST", "/agents/swe/x", "copilot.agents", CHAT, False),
        ("POST", "/v1/agents/swe", "copilot.agents", CHAT, False),
        ("POST", "/mcp/", "copilot.mcp", CHAT, False),
        ("DELETE", "/mcp/readonly", "copilot.mcp", CHAT, False),
        ("POST", "/v1/mcp", "copilot.mcp", CHAT, False),
        ("GET", "/.well-known/oauth-protected-resource", "copilot.well_known", CHAT, False),
        ("GET", "/v1/.well-known/x", "copilot.well_known", CHAT, False),
        ("POST", "/model/us.anthropic.claude-opus-4-6-v1:0/invoke", "bedrock.invoke_model", BEDROCK, True),
        ("POST", "/model/m%3A0/invoke-with-response-stream", "bedrock.invoke_model_stream", BEDROCK, True),
        ("POST", "/model/arn%3Aaws%3Abedrock%3A%3A%2Fx/converse", "bedrock.converse", BEDROCK, True),
        ("POST", "/model/arn:aws:bedrock:us-east-1:1:x%2Fy/converse-stream", "bedrock.converse_stream", BEDROCK, True),
        ("POST", "/model/m/count-tokens", "bedrock.count_tokens", BEDROCK, False),
        ("GET", "/inference-profiles", "bedrock.list_inference_profiles", BEDROCK, False),
        ("GET", "/foundation-models", "bedrock.list_foundation_models", BEDROCK, False),
    ],
)
def test_a_path_of_an_api_has_its_operation(
    method: str, path: str, operation: str, dialect: DialectName, intercepted: bool
) -> None:
    found = match(method, path, (), "")
    assert (found.operation, found.dialect, found.route.intercepted) == (operation, dialect, intercepted)
    assert found.path == path


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/x", "/v1/unheard-of", "/elsewhere", "", "/"])
@pytest.mark.parametrize(
    ("headers", "query", "operation", "dialect"),
    [
        (ANTHROPIC, "", "anthropic.models", MESSAGES),
        (ANTHROPIC + GOOGLE, "?key=k", "anthropic.models", MESSAGES),
        (GOOGLE, "", "google.models", GENERATE),
        ((), "?limit=1&k%65y=k", "google.models", GENERATE),
        ((), "?keys=k", "openai.models", CHAT),
        ((("X-Api-Key", "k"),), "", "openai.models", CHAT),
    ],
)
def test_where_the_path_does_not_tell_the_headers_do(
    path: str, headers: Headers, query: str, operation: str, dialect: DialectName
) -> None:
    assert dialect_of(path, headers, query) is dialect
    if path.startswith("/v1/models"):
        assert match("GET", path, headers, query).operation == operation


@pytest.mark.parametrize(
    ("target", "dialect"),
    [
        ("/a/v1/messages/batches", MESSAGES),
        ("/a/v1/messages/../x", MESSAGES),
        ("/Unknown!/v1/messages", MESSAGES),
        ("/api/v2/aibridge/a/v1/responses%2Fx", CHAT),
        ("/a/v1/responses/r/../x", RESPONSES),
        ("/a/v1/chat/completions/x", CHAT),
        ("/a/v1beta/files", GENERATE),
        ("/a/v1beta/openai/chat/completions/..", CHAT),
        ("/a/openai/deployments/d/images", CHAT),
        ("/a/model/m/invoke/..", BEDROCK),
        ("/a/inference-profiles/x", BEDROCK),
        ("/a/models/m/x", CHAT),
        ("http://evil.example/x", CHAT),
        ("", CHAT),
    ],
)
def test_a_refused_target_still_gets_the_error_shape_of_its_api(target: str, dialect: DialectName) -> None:
    assert dialect_of_target(target, ()) is dialect


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v1/",
        "/v1/messages/",
        "/v1/Messages",
        "/v1%2Fmessages",
        "/v1/messages/batches",
        "/v1/completions",
        "/v1/files",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/batches",
        "/v1/fine_tuning/jobs",
        "/v1/organization/users",
        "/v1/chat%2Fcompletions",
        "/v1/conversations/c/items%2Fi",
        "/v1/conversations/c/items%252Fi",
        "/mcp/a%2Fb",
        "/agents/%2fx",
        "/v1beta/files",
        "/v1beta/openai/models/a/b",
        "/openai/deployments/d/images/generations",
        "/openai/deployments//chat/completions",
        "/model/anthropic.claude",
        "/model/anthropic.claude/invoke/x",
        "/model/arn:aws:bedrock:us-east-1:1:inference-profile/x/invoke",
        "/model//invoke",
        "/model/m/async-invoke",
        "/inference-profiles/x",
        "/guardrails",
    ],
)
def test_what_is_not_in_the_table_is_not_found(path: str) -> None:
    refused = refusal("POST", path)
    assert (refused.http_status, refused.reason) == (404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages"),
        ("HEAD", "/v1/messages"),
        ("DELETE", "/v1/messages/count_tokens"),
        ("GET", "/v1/chat/completions"),
        ("PUT", "/v1/responses"),
        ("GET", "/v1/embeddings"),
        ("GET", "/v1/models/m:generateContent"),
        ("DELETE", "/v1beta/models/m"),
        ("POST", "/v1beta/openai/models"),
        ("PATCH", "/openai/deployments/d/chat/completions"),
        ("GET", "/chat/completions"),
        ("TRACE", "/v1/models"),
        ("CONNECT", "/v1/models"),
        ("get", "/v1/models"),
        ("DELETE", "/v1/models/ft:gpt-4o:org::id"),
        ("DELETE", "/openai/models/m"),
    ],
)
def test_another_method_is_refused_with_those_that_the_path_takes(method: str, path: str) -> None:
    refused = refusal(method, path)
    assert (refused.http_status, refused.reason) == (405, "METHOD_NOT_ALLOWED")
    assert refused.allow
    assert method not in refused.allow
    for allowed in refused.allow:
        assert match(allowed, path, (), "")


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/unheard-of"])
def test_a_websocket_is_told_at_once_to_use_plain_requests(path: str) -> None:
    refused = refusal("GET", path, (("Connection", "Upgrade"), ("upgrade", "WebSocket")))
    assert (refused.http_status, refused.reason) == (426, "UPGRADE_NOT_SUPPORTED")


def test_an_offer_of_http2_is_not_taken_for_a_websocket() -> None:
    assert match("GET", "/v1/models", (("Upgrade", "h2c"),), "").operation == "openai.models"


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        ("/v1beta/models/gemini-2.5:streamGenerateContent", "gemini-2.5", True),
        ("/v1/models/tuned%2Fx:generateContent", "tuned/x", False),
        ("/openai/deployments/my-gpt/chat/completions", "my-gpt", False),
        ("/v1/chat/completions", "", False),
        ("/model/us.anthropic.claude:0/invoke", "us.anthropic.claude:0", False),
        ("/model/arn%3Aaws%3Abedrock%2Fx/invoke-with-response-stream", "arn:aws:bedrock/x", True),
        ("/model/m/converse", "m", False),
        ("/model/m/converse-stream", "m", True),
        ("/model/m/count-tokens", "m", False),
    ],
)
def test_paths_that_name_a_model_say_so(path: str, model: str, stream: bool) -> None:
    facts = match("POST", path, (), "").path_facts
    assert (facts.model, facts.stream) == (model, stream)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.template} {route.operation}")
def test_whole_bodies_are_read_where_they_are_signed_or_translated(route: Route) -> None:
    for_bedrock = route.operation in CATALOG["bedrock"].operations
    assert route.reads_body or not for_bedrock


@given(st.sampled_from(["GET", "POST"]), st.text(max_size=40), st.text(max_size=10))
def test_any_path_has_a_row_or_a_refusal_and_always_a_dialect(method: str, path: str, query: str) -> None:
    assert dialect_of(path, (), query) in DialectName
    assert dialect_of_target(path, ()) in DialectName
    assert status_of_match(method, path, query) in (200, 404, 405)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.template} {route.operation}")
def test_every_row_is_reached_by_its_own_template(route: Route) -> None:
    path = re.sub(r"{\w+}", "x1", route.template).replace("*", "y/z")
    hint = {MESSAGES: ANTHROPIC, GENERATE: GOOGLE}.get(route.dialect, ())
    assert all(match(method, path, hint, "").route == route for method in route.methods)


def test_operations_are_those_of_the_catalogue_and_no_others() -> None:
    in_catalogue = set().union(*(row.operations for row in CATALOG.values()))
    bedrocks_own = {operation for operation in in_catalogue if operation.startswith("bedrock.")}
    assert {route.operation for route in ROUTES} | bedrocks_own == in_catalogue


def test_the_documentation_lists_the_table() -> None:
    documented = {}
    for line in DOCS.read_text().splitlines():
        if line.startswith("| `"):
            operation, methods, body, templates, types = (cell.strip() for cell in line.strip("|").split("|"))
            documented[operation.strip("`")] = (
                methods,
                body,
                set(re.findall(r"`([^`]+)`", templates)),
                set(types.split(", ")),
            )
    every_method = max((route.methods for route in ROUTES), key=len)
    actual = {}
    for operation in {route.operation for route in ROUTES}:
        rows = [route for route in ROUTES if route.operation == operation]
        methods = {"any" if row.methods == every_method else ", ".join(row.methods) for row in rows}
        body = {"read" if row.intercepted else "held" if row.held else "passed" for row in rows}
        assert (len(methods), len(body)) == (1, 1)
        types = {name for name, row in CATALOG.items() if operation in row.operations}
        actual[operation] = (methods.pop(), body.pop(), {row.template for row in rows}, types)
    assert documented == actual
