"""How each kind of upstream is addressed and authenticated: one row a wire type.

A vendor with a known path rule and a known header is a row; one with its own is a module and a row.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bridged.adapters import api_key, azure, copilot, google
from bridged.adapters.auth import AuthShape, credential_headers
from bridged.adapters.destination import Address, Base, parse_base_url
from bridged.model import PresentedKey, Refused, Resolution
from bridged.routes import RouteMatch

__all__ = ["ADAPTERS", "Adapter", "Address", "address"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """`path` gives the raw path on the upstream's host, `auth` the header of the credential."""

    path: Callable[[RouteMatch, Base], str]
    auth: Callable[[RouteMatch], AuthShape]


_OPENAI = Adapter(path=api_key.below_version, auth=api_key.bearer)

ADAPTERS: dict[str, Adapter] = {
    "openai": _OPENAI,
    "openai-compat": _OPENAI,
    "openrouter": _OPENAI,
    "vercel": _OPENAI,
    "anthropic": Adapter(path=api_key.whole_path, auth=api_key.x_api_key),
    "azure": Adapter(path=azure.path, auth=azure.auth),
    "google": Adapter(path=google.path, auth=google.auth),
    "copilot": Adapter(path=copilot.path, auth=api_key.bearer),
}


def address(resolution: Resolution, match: RouteMatch, *, query: str, presented: PresentedKey | None) -> Address:
    """Where a request goes and with which credential.

    `query` is the client's without its key (client_token.py). Path and query leave as they came. OPERATION_NOT_ALLOWED
    for a type that this bridge cannot reach, USER_KEY_REQUIRED and the others as the modules say.
    """
    adapter = ADAPTERS.get(resolution.wire_type)
    if adapter is None:
        raise Refused(
            "OPERATION_NOT_ALLOWED",
            "this bridge cannot reach providers of this type: upgrade the bridge",
        )
    base = parse_base_url(resolution.base_url)
    return Address(
        base.scheme,
        base.host,
        base.port,
        adapter.path(match, base) + query,
        credential_headers(adapter.auth(match), resolution, presented),
    )
