"""Whose request this is: the platform token of the client, and what else it carried.

    X-Coder-AI-Governance-Token   present: it is the token, bare or after `Bearer`; the others carry the user's own key
    Authorization: Bearer …       else the first of these that is not blank is the token
    X-Api-Key
    api-key
    x-goog-api-key
    Authorization: AWS4-…         the access key id of AWS's clients; the signature is by any secret, nobody looks at it
    ?key=

Every copy is left out of what goes upstream, whichever of them was used: headers.py drops the headers, and any other
that has the token in it; the query comes back without `key`, and without any other parameter that has.
"""

import base64
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from bridged import query as queries
from bridged.model import Headers, PresentedKey, Refused, header_values
from daemonkit.secret import Secret

GOVERNANCE_HEADER = "x-coder-ai-governance-token"
# Headers that carry a token or a key in one form or another, in the order in which they are asked.
KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")

# What we issue: prefix, 43 random characters, 6 of checksum (interfaces.md, Tokens).
_ISSUED_TOKEN = re.compile(r"db[us]_[0-9A-Za-z]{49}")
_VISIBLE_ASCII = re.compile(r"[ -~]*")
# AWS, "Create a signed AWS API request": Credential=<access key id>/<day>/<region>/<service>/aws4_request.
_AWS_SCHEME = re.compile(r"\s*AWS4-", re.IGNORECASE)
_AWS_ACCESS_KEY_ID = re.compile(r"[\s,]Credential=([^/,\s]+)/")


class _Carriers(dict[str, bool]):
    """Whether a header of this name, as it is written, may carry a token or key; remembered, within bounds."""

    _MOST = 4096
    _LONGEST = 64

    def __missing__(self, name: str) -> bool:
        carries = name.lower() in (GOVERNANCE_HEADER, *KEY_HEADERS)
        if len(name) <= self._LONGEST:
            if len(self) >= self._MOST:
                self.clear()
            self[name] = carries
        return carries


_CARRIERS = _Carriers()
may_carry_token = _CARRIERS.__getitem__


# Made for every request, and therefore neither frozen nor by keywords only: either would double what it costs.
@dataclass(slots=True)
class ClientCredentials:
    """`token` None: the request has none. `presented` None: it carries no key of the user's own."""

    token: Secret | None
    presented: PresentedKey | None
    query_without_key: str


def find_client_token(headers: Headers, query: str) -> ClientCredentials:
    """The client's token and key.

    INVALID_REQUEST for two governance tokens. ACCESS_TOKEN_INVALID for one that is not ASCII, which none of ours is.
    """
    found: list[tuple[str, str]] = []
    for pair in headers:
        if _CARRIERS[pair[0]]:
            found.append(pair)  # noqa: PERF401 - a comprehension is a call, and takes longer than this
    headers = tuple(found)
    if len(headers) == 1 and not query and headers[0][1].startswith("Bearer db"):
        # Nearly every request: a token of ours, and nothing beside it.
        token = headers[0][1][7:]
        if _ISSUED_TOKEN.fullmatch(token) is not None and headers[0][0].lower() == "authorization":
            return ClientCredentials(Secret(token), None, "")
    governance = header_values(headers, GOVERNANCE_HEADER)
    if len(governance) > 1:
        raise Refused("INVALID_REQUEST", "the request has more than one X-Coder-AI-Governance-Token: send one")
    if governance:
        # Some clients write every token as a bearer token.
        token = bearer_of(governance[0]) or governance[0].strip()
        if not token:
            # The other headers carry the user's own key then, and that goes to nobody but a provider.
            raise Refused(
                "ACCESS_TOKEN_MISSING",
                "the header X-Coder-AI-Governance-Token is empty: put the access token into it, or leave it out",
            )
        presented = _presented(headers, query, token)
    else:
        token = next(_candidates(headers, query), "")
        presented = None
    if _VISIBLE_ASCII.fullmatch(token) is None:
        raise Refused("ACCESS_TOKEN_INVALID", "the access token is not valid: it has characters that no token has")
    return ClientCredentials(
        token=Secret(token) if token else None,
        presented=presented,
        query_without_key=_without_token(queries.without(query, "key"), token) if query else "",
    )


def bearer_of(authorization: str) -> str:
    """The token of an Authorization value of exactly two fields, the first being Bearer in any case; else empty."""
    fields = authorization.split()
    return fields[1] if len(fields) == 2 and fields[0].lower() == "bearer" else ""


def access_key_id_of(authorization: str) -> str:
    """The access key id of an Authorization value that is a signature of AWS's; else empty."""
    if _AWS_SCHEME.match(authorization) is None:
        return ""
    found = _AWS_ACCESS_KEY_ID.search(authorization)
    return found[1] if found is not None else ""


def _candidates(headers: Headers, query: str) -> Iterator[str]:
    """Everything that may be the token, first in order first; nothing blank."""
    yield from filter(None, map(bearer_of, header_values(headers, "authorization")))
    for name in KEY_HEADERS[1:]:
        yield from filter(None, header_values(headers, name))
    yield from filter(None, map(access_key_id_of, header_values(headers, "authorization")))
    yield from filter(None, map(str.strip, queries.values_of(query, "key")))


def _presented(headers: Headers, query: str, token: str) -> PresentedKey | None:
    def key(values: list[str]) -> Secret | None:
        # Clients that know one setting only send our token twice; a copy is not a key and must not travel on.
        return next((Secret(value) for value in values if value.strip() and not is_ours(value, token)), None)

    values = {name: header_values(headers, name) for name in KEY_HEADERS}
    presented = PresentedKey(
        authorization=key([value for value in values["authorization"] if _may_be_a_key(value)]),
        x_api_key=key(values["x-api-key"]),
        api_key=key(values["api-key"]),
        x_goog_api_key=key(values["x-goog-api-key"]),
        query_key=key(queries.values_of(query, "key")),
    )
    return presented if presented != PresentedKey() else None


def _may_be_a_key(authorization: str) -> bool:
    """Not the scheme alone, and no signature: it is of a request that is not the one that leaves."""
    return authorization.lower() != "bearer" and _AWS_SCHEME.match(authorization) is None


def may_be_ours(text: str, token: str) -> bool:
    """Whether it is worth looking for our token in this text; False is certain."""
    return token in text or may_hold_any_token(text)


def may_hold_any_token(text: str) -> bool:
    """The same for a token that is not known: whether there is one of ours, or a form that could hide one."""
    return "%" in text or "basic " in text.lower() or _ISSUED_TOKEN.search(text) is not None


def is_ours(value: str, token: str) -> bool:
    """Whether a value has our token in it, as it is or in a form that HTTP gives to credentials."""
    return any(token in form or _ISSUED_TOKEN.search(form) is not None for form in _forms(value))


def _forms(value: str) -> Iterator[str]:
    yield value
    if "%" in value:
        yield unquote(value)
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "basic":
        # RFC 7617: user and password in base64.
        with contextlib.suppress(ValueError):
            yield base64.b64decode(rest, validate=True).decode("latin-1")


def _without_token(query: str, token: str) -> str:
    """The query without any parameter that has the token in it: whatever it is called, it is not for the upstream."""
    if not query or not token or not is_ours(query, token):
        return query
    kept = [part for part in query[1:].split("&") if not is_ours(part, token)]
    return "?" + "&".join(kept) if kept else ""
