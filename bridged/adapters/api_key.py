"""Upstreams that take one key in one header, at a base URL with or without the version in its path."""

from bridged.adapters.auth import BEARER, AuthShape
from bridged.adapters.destination import Base
from bridged.model import Refused
from bridged.routes import RouteMatch

X_API_KEY = AuthShape(header="x-api-key", presented=("x_api_key", "authorization"))


def below_version(match: RouteMatch, base: Base) -> str:
    """`/v1/X` is base + `X`: the base URL has the version (OpenAI and those like it)."""
    return f"{base.path}/{without_version(match)}"


def whole_path(match: RouteMatch, base: Base) -> str:
    """`/v1/X` is base + `/v1/X`: the base URL is the host's (Anthropic)."""
    return base.path + match.path


def bearer(match: RouteMatch) -> AuthShape:
    """`Authorization: Bearer`."""
    del match
    return BEARER


def x_api_key(match: RouteMatch) -> AuthShape:
    """`x-api-key`; of presented keys x-api-key wins over Authorization, as in Anthropic's own SDKs."""
    del match
    return X_API_KEY


def without_version(match: RouteMatch) -> str:
    """`X` of `/v1/X`. OPERATION_NOT_ALLOWED for other paths: no provider of these types has them."""
    if not match.path.startswith("/v1/"):
        raise Refused("OPERATION_NOT_ALLOWED", "this provider has no such path: check the path against its type")
    return match.path.removeprefix("/v1/")
