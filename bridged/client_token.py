"""Whose request this is: the platform token of the client, and what else it carried.

    X-Coder-AI-Governance-Token   present: it is the token, and the others carry the user's own provider key
    Authorization: Bearer …       else the first of these that is not blank is the token
    X-Api-Key
    api-key
    x-goog-api-key
    ?key=

Every copy is left out of what goes upstream, whichever of them was used (headers.py drops the headers, the query
comes back without `key`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bridged import query as queries
from bridged.model import Headers, PresentedKey, Refused, header_values
from daemonkit.secret import Secret

GOVERNANCE_HEADER = "x-coder-ai-governance-token"
# Headers that carry a token or a key in one form or another, in the order in which they are asked.
KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")

# What we issue: prefix, 43 random characters, 6 of checksum (interfaces.md, Tokens).
_ISSUED_TOKEN = re.compile(r"db[us]_[0-9A-Za-z]{49}")
_VISIBLE_ASCII = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials:
    """`token` None: the request has none. `presented` None: it carries no key of the user's own."""

    token: Secret | None
    presented: PresentedKey | None
    query_without_key: str


def find_client_token(headers: Headers, query: str) -> ClientCredentials:
    """The client's token and key.

    INVALID_REQUEST for two governance tokens. ACCESS_TOKEN_INVALID for one that is not ASCII, which none of ours is.
    """
    query_without_key = queries.without(query, "key")
    governance = header_values(headers, GOVERNANCE_HEADER)
    if len(governance) > 1:
        raise Refused("INVALID_REQUEST", "the request has more than one X-Coder-AI-Governance-Token: send one")
    if governance and governance[0]:
        token = governance[0]
        presented = _presented(headers, query, token)
    else:
        token = next(_candidates(headers, query), "")
        presented = None
    if _VISIBLE_ASCII.fullmatch(token) is None:
        raise Refused("ACCESS_TOKEN_INVALID", "the access token is not valid: it has characters that no token has")
    return ClientCredentials(
        token=Secret(token) if token else None,
        presented=presented,
        query_without_key=query_without_key,
    )


def bearer_of(authorization: str) -> str:
    """The token of an Authorization value of exactly two fields, the first being Bearer in any case; else empty."""
    fields = authorization.split()
    return fields[1] if len(fields) == 2 and fields[0].lower() == "bearer" else ""


def _candidates(headers: Headers, query: str) -> Iterator[str]:
    """Everything that may be the token, first in order first; nothing blank."""
    yield from filter(None, map(bearer_of, header_values(headers, "authorization")))
    for name in KEY_HEADERS[1:]:
        yield from filter(None, header_values(headers, name))
    yield from filter(None, map(str.strip, queries.values_of(query, "key")))


def _presented(headers: Headers, query: str, token: str) -> PresentedKey | None:
    def key(values: list[str]) -> Secret | None:
        # Clients that know one setting only send our token twice; a copy is not a key and must not travel on.
        return next((Secret(value) for value in values if value.strip() and not _is_ours(value, token)), None)

    values = {name: header_values(headers, name) for name in KEY_HEADERS}
    presented = PresentedKey(
        authorization=key([value for value in values["authorization"] if value.lower() != "bearer"]),
        x_api_key=key(values["x-api-key"]),
        api_key=key(values["api-key"]),
        x_goog_api_key=key(values["x-goog-api-key"]),
        query_key=key(queries.values_of(query, "key")),
    )
    return presented if presented != PresentedKey() else None


def _is_ours(value: str, token: str) -> bool:
    return token in value or _ISSUED_TOKEN.search(value) is not None
