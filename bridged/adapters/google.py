"""Google's Gemini API: native paths, and OpenAI-shaped ones below `/v1beta/openai/`."""

from bridged.adapters.auth import AuthShape
from bridged.adapters.destination import Base
from bridged.routes import RouteMatch

_OPENAI_SHAPED = "/v1beta/openai/"
# Where OpenAI's SDKs, pointed at the instance, expect what Google has elsewhere.
_MOVED = {
    "/v1/chat/completions": _OPENAI_SHAPED + "chat/completions",
    "/v1/embeddings": _OPENAI_SHAPED + "embeddings",
}

NATIVE = AuthShape(header="x-goog-api-key", presented=("x_goog_api_key", "query_key", "authorization"))
OPENAI_SHAPED = AuthShape(header="Authorization", presented=("authorization", "x_goog_api_key", "query_key"))


def path(match: RouteMatch, base: Base) -> str:
    """Base + the path as sent, but OpenAI's two paths where Google has them."""
    return base.path + _MOVED.get(match.path, match.path)


def auth(match: RouteMatch) -> AuthShape:
    """`x-goog-api-key`; a bearer token on the OpenAI-shaped paths."""
    return OPENAI_SHAPED if _MOVED.get(match.path, match.path).startswith(_OPENAI_SHAPED) else NATIVE
