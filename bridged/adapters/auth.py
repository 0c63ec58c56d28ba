"""Which header carries the credential: a resolved one, or the user's own as the request presented it."""

import re
from dataclasses import dataclass

from bridged.model import ApiKey, Bearer, Headers, PresentedKey, Refused, Resolution, Source
from daemonkit.secret import Secret

# Fields of PresentedKey that hold a bare key.
_BARE_KEYS = ("x_api_key", "api_key", "x_goog_api_key", "query_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthShape:
    """Where a kind of upstream looks for its credential.

    `header` carries a key; as `Bearer <key>` where it is Authorization. `presented` orders the fields of a PresentedKey
    after which one wins, if a client sent several; those that are left out come last.
    """

    header: str
    presented: tuple[str, ...]


BEARER = AuthShape(header="Authorization", presented=("authorization",))


# A key that was stored or decoded from `?key=` may hold anything; what goes into a header may not.
_FIT_FOR_HEADER = re.compile(r"[ -~]+")
# What a key that is not fit is to whoever can mend it.
_UNFIT: dict[Source, tuple[str, str]] = {
    Source.PRESENTED_KEY: ("INVALID_REQUEST", "the key in the request has characters that no key has"),
    Source.USER_KEY: ("USER_KEY_REQUIRED", "your stored key has characters that no key has: store it again"),
    Source.CENTRAL_KEY: ("CENTRAL_KEY_MISSING", "the central key has characters that no key has: ask an administrator"),
}


def credential_headers(shape: AuthShape, resolution: Resolution, presented: PresentedKey | None) -> Headers:
    """The one credential of a request, as a header pair.

    USER_KEY_REQUIRED where a key was to be presented and none was; CREDENTIALD_UNREACHABLE for an answer without a
    credential that fits; the refusals of _UNFIT for keys that would break out of their header.
    """
    name, value = _credential(shape, resolution, presented)
    if _FIT_FOR_HEADER.fullmatch(value) is None:
        raise Refused(*_UNFIT.get(resolution.source, _UNFIT[Source.CENTRAL_KEY]))
    return ((name, value),)


def _credential(shape: AuthShape, resolution: Resolution, presented: PresentedKey | None) -> tuple[str, str]:
    if resolution.source == Source.PRESENTED_KEY:
        return _presented(shape, presented)
    match resolution.credential:
        case ApiKey(value=key):
            return _pair(shape.header, key)
        case Bearer(value=token):
            return _pair("Authorization", token)
        case _:
            raise Refused(
                "CREDENTIALD_UNREACHABLE",
                "credentiald's answer has no credential that this type of provider can use: try again; "
                "the operator finds more in credentiald's log",
            )


def _presented(shape: AuthShape, presented: PresentedKey | None) -> tuple[str, str]:
    order = dict.fromkeys((*shape.presented, "authorization", *_BARE_KEYS))
    name, key = next(((name, key) for name in order if (key := getattr(presented, name, None))), (None, None))
    if key is None:
        raise Refused("USER_KEY_REQUIRED", "the request carries no key of your own: send it beside the access token")
    # An Authorization header goes as the user wrote it, scheme and all.
    return ("Authorization", key.reveal()) if name == "authorization" else _pair(shape.header, key)


def _pair(header: str, key: Secret) -> tuple[str, str]:
    value = key.reveal()
    return (header, f"Bearer {value}" if header == "Authorization" else value)
