"""Which header carries the credential: a resolved one, or the user's own as the request presented it."""

from dataclasses import dataclass

from bridged.model import ApiKey, Bearer, Headers, PresentedKey, Refused, Resolution, Source
from daemonkit.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthShape:
    """Where a kind of upstream looks for its credential.

    `header` carries a key; as `Bearer <key>` where it is Authorization. `presented` are the fields of a PresentedKey
    that this kind takes, the one that wins first. What a client has for another vendor never goes here.
    """

    header: str
    presented: tuple[str, ...]


# Looking a member up costs as much as a call.
_PRESENTED_KEY = Source.PRESENTED_KEY
BEARER = AuthShape(header="Authorization", presented=("authorization",))


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
    # Visible ASCII and spaces: a key that was stored or decoded from `?key=` may hold anything; what goes into a header
    # may not.
    if not (value.isascii() and value.isprintable() and value):
        raise Refused(*_UNFIT.get(resolution.source, _UNFIT[Source.CENTRAL_KEY]))
    return ((name, value),)


def _credential(shape: AuthShape, resolution: Resolution, presented: PresentedKey | None) -> tuple[str, str]:
    if resolution.source is _PRESENTED_KEY:
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
    names = shape.presented
    name, key = next(((name, key) for name in names if (key := getattr(presented, name, None))), (None, None))
    if key is None:
        raise Refused(
            "USER_KEY_REQUIRED",
            f"the request carries no key of your own that this provider takes: send it in the header {shape.header}, "
            "beside the access token in X-Coder-AI-Governance-Token",
        )
    # An Authorization header goes as the user wrote it, scheme and all.
    return ("Authorization", key.reveal()) if name == "authorization" else _pair(shape.header, key)


def _pair(header: str, key: Secret) -> tuple[str, str]:
    value = key.reveal()
    return (header, f"Bearer {value}" if header == "Authorization" else value)
