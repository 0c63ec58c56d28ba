"""What an administrator took away, and which requests under way that concerns: values in, values out.

Every request is decided by what is true when credentiald is asked. This is about those that were decided before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bridged.model import Refused, Resolution, Source


class EndsOn(StrEnum):
    """What, once taken away, ends the requests that run on it."""

    TOKENS = "tokens"
    USERS = "users"
    KEYS = "keys"
    PROVIDERS = "providers"
    POLICY = "policy"


DEFAULT_ENDS_ON = frozenset({EndsOn.TOKENS, EndsOn.USERS, EndsOn.KEYS})


def parse_ends_on(text: str) -> frozenset[EndsOn]:
    """Words of EndsOn with commas, or `none`; ValueError says what is possible."""
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["none"]:
        return frozenset()
    unknown = [word for word in words if word not in set(EndsOn)]
    if unknown:
        possible = ", ".join(EndsOn)
        raise ValueError(f"{unknown[0]!r} is not possible: write none, or of {possible} those that apply, with commas")
    return frozenset(map(EndsOn, words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A row of credentiald's log of changes. `change_seconds` since 1970, by credentiald's clock."""

    revision: int
    kind: str
    resource_id: str
    change_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedProvider:
    """A provider as it is now."""

    id: str
    enabled: bool
    central_key_enabled: bool
    user_keys_allowed: bool
    central_key_ids: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What happened up to `revision`, and the providers that it is about by id; with `snapshot` all that there are.

    `changes_missing`: some of what happened is not known.
    """

    database_id: str
    revision: int
    changes: Sequence[Change] = ()
    providers: Mapping[str, WatchedProvider] = field(default_factory=dict)
    snapshot: bool = False
    changes_missing: bool = False


_TOKEN_REVOKED = Refused(
    "ACCESS_TOKEN_INVALID", "the access token was revoked while the request was running: get another one"
)
_USER_DELETED = Refused("ACCESS_TOKEN_INVALID", "the user was deleted while the request was running")
_USER_SUSPENDED = Refused("USER_SUSPENDED", "the user was suspended while the request was running")
_USER_KEY_GONE = Refused(
    "USER_KEY_REQUIRED", "the key of the user was removed or replaced while the request was running: try again"
)
_CENTRAL_KEY_GONE = Refused(
    "CENTRAL_KEY_MISSING", "the key of the provider was removed or replaced while the request was running: try again"
)
_PROVIDER_DISABLED = Refused("PROVIDER_DISABLED", "the provider was disabled while the request was running")
_PROVIDER_GONE = Refused("PROVIDER_NOT_FOUND", "the provider was deleted while the request was running")
_USER_KEYS_OFF = Refused(
    "USER_KEYS_NOT_ALLOWED", "the provider takes no keys of users since the request began: leave yours out"
)
_CENTRAL_KEY_OFF = Refused(
    "USER_KEY_REQUIRED", "the provider's own key is not for users any more: add a key of your own"
)
# The reasons for which requests are ended, as metrics have them.
REASONS = frozenset(
    one.reason
    for one in (
        _TOKEN_REVOKED, _USER_DELETED, _USER_SUSPENDED, _USER_KEY_GONE, _CENTRAL_KEY_GONE, _PROVIDER_DISABLED,
        _PROVIDER_GONE, _USER_KEYS_OFF, _CENTRAL_KEY_OFF,
    )
)  # fmt: skip
_CENTRAL = frozenset({Source.CENTRAL_KEY, Source.AMBIENT})
# Whose changes are nothing to requests with another id; changes of anything else may be about all.
_WITH_IDS = frozenset({"token", "user", "user_key", "provider"})


class Taken:
    """What was taken away, to be held against every request under way. `ends_on` is what counts."""

    def __init__(self, news: News, ends_on: frozenset[EndsOn]) -> None:
        self._ends_on = ends_on
        self._snapshot = news.snapshot
        self._providers = news.providers
        # Kinds, ids, and the revision of the last change of it.
        gone: dict[str, dict[str, int]] = {}
        self._changed = {(change.kind.partition(".")[0], change.resource_id) for change in news.changes}
        self._is_about_all = (
            news.snapshot or news.changes_missing or any(resource not in _WITH_IDS for resource, _ in self._changed)
        )
        for change in news.changes:
            gone.setdefault(change.kind, {})[change.resource_id] = change.revision
        none: dict[str, int] = {}
        self._tokens = gone.get("token.revoked", none) if EndsOn.TOKENS in ends_on else none
        self._suspended = gone.get("user.suspended", none) if EndsOn.USERS in ends_on else none
        self._deleted = gone.get("user.deleted", none) if EndsOn.USERS in ends_on else none
        self._set_user_keys = gone.get("user_key.set", none)
        self._deleted_user_keys = gone.get("user_key.deleted", none)
        self._deleted_providers = gone.get("provider.deleted", none)

    def concerns(self, resolution: Resolution) -> bool:
        """Whether what was decided so might be decided otherwise now."""
        changed, user_id, provider_id = self._changed, resolution.user_id, resolution.provider_id
        return (
            self._is_about_all
            or ("token", resolution.access_token_id) in changed
            or ("user", user_id) in changed
            or ("user_key", f"{user_id}/{provider_id}") in changed
            or ("provider", provider_id) in changed
        )

    def why(self, resolution: Resolution) -> Refused | None:
        """Why a request that was decided so is to be ended; None where it may go on.

        One that was decided after a change has taken account of that: the user is active again, the key is the new one.
        """
        decided = resolution.revision
        if self._tokens.get(resolution.access_token_id, 0) > decided:
            return _TOKEN_REVOKED
        if self._suspended.get(resolution.user_id, 0) > decided:
            return _USER_SUSPENDED
        if self._deleted.get(resolution.user_id, 0) > decided:
            return _USER_DELETED
        provider = self._providers.get(resolution.provider_id)
        is_gone = provider is None and (self._snapshot or resolution.provider_id in self._deleted_providers)
        return (
            (self._key_gone(resolution, provider, is_gone=is_gone) if EndsOn.KEYS in self._ends_on else None)
            or (_provider_gone(provider, is_gone=is_gone) if EndsOn.PROVIDERS in self._ends_on else None)
            or (_not_allowed(resolution, provider) if EndsOn.POLICY in self._ends_on else None)
        )

    def _key_gone(self, resolution: Resolution, provider: WatchedProvider | None, *, is_gone: bool) -> Refused | None:
        if resolution.source is Source.USER_KEY:
            one = f"{resolution.user_id}/{resolution.provider_id}"
            gone_in = max(self._set_user_keys.get(one, 0), self._deleted_user_keys.get(one, 0))
            return _USER_KEY_GONE if is_gone or gone_in > resolution.revision else None
        if resolution.source is Source.CENTRAL_KEY:
            is_gone = is_gone or (provider is not None and resolution.credential_id not in provider.central_key_ids)
            return _CENTRAL_KEY_GONE if is_gone else None
        return None


def _provider_gone(provider: WatchedProvider | None, *, is_gone: bool) -> Refused | None:
    if is_gone:
        return _PROVIDER_GONE
    return _PROVIDER_DISABLED if provider is not None and not provider.enabled else None


def _not_allowed(resolution: Resolution, provider: WatchedProvider | None) -> Refused | None:
    if provider is None:
        return None
    if resolution.source in _CENTRAL:
        return None if provider.central_key_enabled else _CENTRAL_KEY_OFF
    return None if provider.user_keys_allowed else _USER_KEYS_OFF
