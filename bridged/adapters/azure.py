"""Azure OpenAI: OpenAI's API below `/openai/v1/`, and Azure's older paths with a deployment and an `api-version`."""

from bridged.adapters.api_key import without_version
from bridged.adapters.auth import AuthShape
from bridged.adapters.destination import Base
from bridged.routes import RouteMatch

# Entra ID users present a bearer token of their own in Authorization; keys go into api-key.
API_KEY = AuthShape(header="api-key", presented=("api_key", "authorization"))


def path(match: RouteMatch, base: Base) -> str:
    """`/openai/…` is the same path on the host; `/v1/X` is base + `X`, an empty base path being `/openai/v1/`."""
    if match.path.startswith("/openai/"):
        return match.path
    return f"{base.path or '/openai/v1'}/{without_version(match)}"


def auth(match: RouteMatch) -> AuthShape:
    """`api-key`, or Authorization where the user presented that."""
    del match
    return API_KEY
