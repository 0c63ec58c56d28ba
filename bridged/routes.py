"""What the bridge forwards: one table. What is not in it is 404, because a central key may open far more.

The table says for each path which methods it takes, the operation that credentiald is asked about, the dialect (for
the shape of errors and the reading of requests), and whether the bridge reads the body (`intercepted`, `held`) or
passes it through. Whether a provider has an operation is credentiald's decision; docs/operations.md shows both.

In a template a word in braces is one segment, in which an encoded slash is forwarded as sent (`{name}`: one without a
colon, which Google's actions begin with), and a `*` at the end is whatever follows. Where several rows share a template
(`/v1/models`), the client's headers decide which API is meant. Rows above win over rows below.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from bridged import paths
from bridged import query as queries
from bridged.model import DialectName, Headers, Refused, RequestFacts, header_values

_POST = ("POST",)
_GET = ("GET",)
_READ = ("GET", "HEAD")
# CONNECT and TRACE are about the connection, not about a resource of an API.
_ANY = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_MESSAGES = DialectName.ANTHROPIC_MESSAGES
_CHAT = DialectName.OPENAI_CHAT
_RESPONSES = DialectName.OPENAI_RESPONSES
_GENERATE = DialectName.GOOGLE_GENERATE
_BEDROCK = DialectName.BEDROCK


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `streams`: the answer may be an event stream.

    `intercepted`: a turn of a conversation. `held`: none, but the body is read as a whole all the same, because some
    upstreams get it translated or signed.
    """

    template: str
    methods: tuple[str, ...]
    operation: str
    dialect: DialectName
    intercepted: bool = False
    held: bool = False
    streams: bool = False

    @property
    def reads_body(self) -> bool:
        """Whether the bridge has the whole body before it asks credentiald."""
        return self.intercepted or self.held


def _intercepted(template: str, operation: str, dialect: DialectName) -> Route:
    return Route(template, _POST, operation, dialect, intercepted=True, streams=True)


ROUTES: tuple[Route, ...] = (
    # Anthropic
    _intercepted("/v1/messages", "anthropic.messages", _MESSAGES),
    Route("/v1/messages/count_tokens", _POST, "anthropic.count_tokens", _MESSAGES, held=True),
    Route("/api/event_logging/*", _ANY, "anthropic.event_logging", _MESSAGES),
    # OpenAI
    _intercepted("/v1/chat/completions", "openai.chat_completions", _CHAT),
    _intercepted("/v1/responses", "openai.responses", _RESPONSES),
    Route("/v1/responses/{id}", _ANY, "openai.response_items", _RESPONSES, streams=True),
    Route("/v1/responses/{id}/*", _ANY, "openai.response_items", _RESPONSES),
    Route("/v1/conversations", _ANY, "openai.conversations", _RESPONSES),
    Route("/v1/conversations/{id}", _ANY, "openai.conversations", _RESPONSES),
    Route("/v1/conversations/{id}/*", _ANY, "openai.conversations", _RESPONSES),
    Route("/v1/embeddings", _POST, "openai.embeddings", _CHAT),
    # Google, native, in both versions of its path
    *(
        Route(f"/{version}/models/{{model}}:{action}", _POST, f"google.{operation}", _GENERATE, turn, streams=turn)
        for version in ("v1beta", "v1")
        for action, operation, turn in (
            ("generateContent", "generate_content", True),
            ("streamGenerateContent", "stream_generate_content", True),
            ("countTokens", "count_tokens", False),
            ("embedContent", "embed_content", False),
            ("batchEmbedContents", "embed_content", False),
        )
    ),
    Route("/v1beta/models", _READ, "google.native_models", _GENERATE),
    Route("/v1beta/models/{name}", _READ, "google.native_models", _GENERATE),
    # Google, OpenAI-shaped
    _intercepted("/v1beta/openai/chat/completions", "google.openai_chat_completions", _CHAT),
    Route("/v1beta/openai/embeddings", _POST, "google.openai_embeddings", _CHAT),
    Route("/v1beta/openai/models", _READ, "google.openai_models", _CHAT),
    Route("/v1beta/openai/models/{id}", _READ, "google.openai_models", _CHAT),
    # Three APIs have this path. Reading only: a central key that may delete a fine-tuned model must not do so for
    # everyone who has a token.
    *(
        Route(template, _READ, operation, dialect)
        for template in ("/v1/models", "/v1/models/{id}", "/v1/models/*")
        for operation, dialect in (
            ("openai.models", _CHAT),
            ("anthropic.models", _MESSAGES),
            ("google.models", _GENERATE),
        )
    ),
    # Azure
    _intercepted("/openai/deployments/{deployment}/chat/completions", "azure.chat_completions", _CHAT),
    _intercepted("/openai/deployments/{deployment}/responses", "azure.responses", _RESPONSES),
    Route("/openai/deployments/{deployment}/embeddings", _POST, "azure.embeddings", _CHAT),
    _intercepted("/openai/v1/chat/completions", "azure.chat_completions", _CHAT),
    Route("/openai/v1/embeddings", _POST, "azure.embeddings", _CHAT),
    *(
        route
        for prefix in ("/openai", "/openai/v1")
        for route in (
            _intercepted(f"{prefix}/responses", "azure.responses", _RESPONSES),
            Route(f"{prefix}/responses/{{id}}", _ANY, "azure.response_items", _RESPONSES, streams=True),
            Route(f"{prefix}/responses/{{id}}/*", _ANY, "azure.response_items", _RESPONSES),
            Route(f"{prefix}/models", _READ, "azure.models", _CHAT),
            Route(f"{prefix}/models/{{id}}", _READ, "azure.models", _CHAT),
        )
    ),
    # Bedrock's own: a signature covers the body, so it is read even where there is none.
    _intercepted("/model/{model}/invoke", "bedrock.invoke_model", _BEDROCK),
    _intercepted("/model/{model}/invoke-with-response-stream", "bedrock.invoke_model_stream", _BEDROCK),
    _intercepted("/model/{model}/converse", "bedrock.converse", _BEDROCK),
    _intercepted("/model/{model}/converse-stream", "bedrock.converse_stream", _BEDROCK),
    Route("/model/{model}/count-tokens", _POST, "bedrock.count_tokens", _BEDROCK, held=True),
    Route("/inference-profiles", _GET, "bedrock.list_inference_profiles", _BEDROCK, held=True),
    Route("/foundation-models", _GET, "bedrock.list_foundation_models", _BEDROCK, held=True),
    # Copilot, whose own paths have no version
    _intercepted("/chat/completions", "copilot.chat_completions", _CHAT),
    _intercepted("/responses", "copilot.responses", _RESPONSES),
    Route("/models", _ANY, "copilot.models", _CHAT),
    Route("/models/{id}", _ANY, "copilot.models", _CHAT),
    Route("/models/{id}/*", _ANY, "copilot.models", _CHAT),
    *(
        Route(f"{version}/{template}", _ANY, operation, _CHAT, streams=streams)
        for version in ("", "/v1")
        for template, operation, streams in (
            ("agents", "copilot.agents", False),
            ("agents/*", "copilot.agents", True),
            ("mcp", "copilot.mcp", True),
            ("mcp/*", "copilot.mcp", True),
            (".well-known/*", "copilot.well_known", False),
        )
    ),
)


# The path says it; elsewhere the body does.
_STREAMING_OPERATIONS = frozenset(
    {"google.stream_generate_content", "bedrock.invoke_model_stream", "bedrock.converse_stream"}
)


@dataclass(slots=True, kw_only=True)
class RouteMatch:
    """A row with what the path says. `path` is within the instance, as sent; the rest is the row's."""

    route: Route
    path: str
    path_facts: RequestFacts
    operation: str = field(init=False)
    dialect: DialectName = field(init=False)
    intercepted: bool = field(init=False)
    reads_body: bool = field(init=False)

    def __post_init__(self) -> None:
        self.operation, self.dialect = self.route.operation, self.route.dialect
        self.intercepted, self.reads_body = self.route.intercepted, self.route.reads_body


def match(method: str, path: str, headers: Headers, query: str) -> RouteMatch:
    """The row for a request.

    UPGRADE_NOT_SUPPORTED for WebSocket, whatever the path: a client that reads 426 goes on with plain requests at once
    (Codex), on 404 it tries again for seconds. ROUTE_NOT_FOUND and METHOD_NOT_ALLOWED as they say.
    """
    if any("websocket" in value.lower() for value in header_values(headers, "upgrade")):
        raise Refused("UPGRADE_NOT_SUPPORTED", "the bridge speaks no WebSocket: use plain HTTP requests")
    rows, segments = _rows_of(path)
    if not rows:
        raise Refused("ROUTE_NOT_FOUND", "the bridge does not forward this path: check the base URL of the client")
    route = _meant(rows, headers, query)
    if method not in route.methods:
        allowed = ", ".join(route.methods)
        raise Refused("METHOD_NOT_ALLOWED", f"this path takes {allowed} only", allow=route.methods)
    return RouteMatch(route=route, path=path, path_facts=_path_facts(route, segments))


def is_settled_by_path(path: str) -> bool:
    """Whether method and path alone tell the row, so that the match of one request is that of the next."""
    return len(_LITERAL.get(path, ())) == 1


def dialect_of(path: str, headers: Headers, query: str) -> DialectName:
    """The shape of errors for a path within an instance, forwarded or not: what the path tells, else the headers."""
    rows, _ = _rows_of(path)
    if rows:
        return _meant(rows, headers, query).dialect
    shapes = next(
        (shapes for prefix, shapes in _SHAPES if path == prefix or path.startswith(prefix + "/")), frozenset()
    )
    return next(iter(shapes)) if len(shapes) == 1 else _hinted(headers, query)


def dialect_of_target(raw_target: str, headers: Headers) -> DialectName:
    """`dialect_of` for a target that was refused before it was taken apart."""
    path, query = paths.roughly(raw_target)
    return dialect_of(path, headers, query)


def _hinted(headers: Headers, query: str) -> DialectName:
    if header_values(headers, "anthropic-version"):
        return _MESSAGES
    if header_values(headers, "x-goog-api-key") or queries.values_of(query, "key"):
        return _GENERATE
    return _CHAT


def _meant(rows: tuple[Route, ...], headers: Headers, query: str) -> Route:
    if len(rows) == 1:
        return rows[0]
    hint = _hinted(headers, query)
    return next(row for row in rows if row.dialect is hint)


def _path_facts(route: Route, segments: Mapping[str, str]) -> RequestFacts:
    model = segments.get("model") or segments.get("deployment") or ""
    return RequestFacts(model=unquote(model), stream=route.operation in _STREAMING_OPERATIONS)


def _rows_of(path: str) -> tuple[tuple[Route, ...], Mapping[str, str]]:
    literal = _LITERAL.get(path)
    if literal is not None:
        return literal, {}
    for pattern, rows in _PATTERNS:
        found = pattern.fullmatch(path)
        if found is not None:
            return rows, found.groupdict()
    return (), {}


def _by_template() -> dict[str, tuple[Route, ...]]:
    rows: dict[str, tuple[Route, ...]] = {}
    for route in ROUTES:
        rows[route.template] = (*rows.get(route.template, ()), route)
    return rows


def _compiled(template: str) -> re.Pattern[str]:
    # Below a `*` an encoded slash, also one encoded twice, would be read in two ways: such a path is not in the table.
    pattern = re.escape(template).replace(r"\*", "(?:(?!%(?:25)*2[Ff]).)*")
    pattern = pattern.replace(r"\{name\}", "(?P<name>[^/:]+)")
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", pattern))


def _shapes() -> list[tuple[str, frozenset[DialectName]]]:
    """What a path below or beside known ones is taken for: literal beginnings of the table, longest first."""
    shapes: dict[str, frozenset[DialectName]] = {"/v1beta": frozenset({_GENERATE}), "/openai": frozenset({_CHAT})}
    for route in ROUTES:
        prefix = re.split(r"/?[{*]", route.template)[0]
        shapes[prefix] = shapes.get(prefix, frozenset()) | {route.dialect}
    return sorted(shapes.items(), key=lambda item: -len(item[0]))


_LITERAL = {template: rows for template, rows in _by_template().items() if not set(template) & set("{*")}
_PATTERNS = [(_compiled(template), rows) for template, rows in _by_template().items() if template not in _LITERAL]
_SHAPES = _shapes()
