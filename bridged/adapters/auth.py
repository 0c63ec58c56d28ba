"""Which header carries the credential: a resolved one, or the user's own as the request presented it."""

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


def credential_headers(shape: AuthShape, resolution: Resolution, presented: PresentedKey | None) -> Headers:
    """The one credential of a request, as header pairs."""
    if resolution.source == Source.PRESENTED_KEY:
        return _presented_headers(shape, presented)
    match resolution.credential:
        case ApiKey(value=key):
            return (_pair(shape.header, key),)
        case Bearer(value=token):
            return (_pair("Authorization", token),)
        case _:
            raise Refused(
                "CREDENTIALD_UNREACHABLE",
                "credentiald's answer has no credential that this type of provider can use: try again; "
                "the operator finds more in credentiald's log",
            )


def _presented_headers(shape: AuthShape, presented: PresentedKey | None) -> Headers:
    if presented is not None:
        for name in dict.fromkeys((*shape.presented, "authorization", *_BARE_KEYS)):
            value: Secret | None = getattr(presented, name)
            if value is not None:
                # An Authorization header goes as the user wrote it, scheme and all.
                return (
                    (("Authorization", value.reveal()),) if name == "authorization" else (_pair(shape.header, value),)
                )
    raise Refused("USER_KEY_REQUIRED", "the request carries no key of your own: send it beside the access token")


def _pair(header: str, key: Secret) -> tuple[str, str]:
    value = key.reveal()
    return (header, f"Bearer {value}" if header == "Authorization" else value)
