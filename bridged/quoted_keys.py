"""Upstreams quote what they refuse, now and then with the key: what they say without it, for the record."""

from collections.abc import Iterator

from bridged.client_token import ClientCredentials
from bridged.model import ApiKey, Bearer, Resolution
from daemonkit.secret import MASK, Secret, masked

# What is shorter is no key, and may stand in any text.
_SHORTEST = 8


def without_keys(text: str, resolution: Resolution, client: ClientCredentials | None) -> str:
    """The text without the keys and tokens that the request went out or came in with, and without any of ours."""
    for secret in secrets_of(resolution, client):
        # A key that a client presents may have its scheme before it.
        key = secret.reveal().strip().rpartition(" ")[2]
        if len(key) >= _SHORTEST:
            text = text.replace(key, MASK)
    return masked(text)


def secrets_of(resolution: Resolution, client: ClientCredentials | None) -> Iterator[Secret]:
    """All that a request came in and goes out with; keys that were presented in headers may have their scheme."""
    credential, presented = resolution.credential, None if client is None else client.presented
    found: list[Secret | None] = []
    if isinstance(credential, ApiKey | Bearer):
        found.append(credential.value)
    elif credential is not None:
        found += [credential.secret_access_key, credential.session_token, credential.access_key_id]
    if client is not None:
        found.append(client.token)
    if presented is not None:
        found += [presented.authorization, presented.x_api_key, presented.api_key]
        found += [presented.x_goog_api_key, presented.query_key]
    yield from (one for one in found if one is not None)
