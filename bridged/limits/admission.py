"""Whether a request is taken on: all limits in their order. No clock, no I/O.

    enter     its head is there: rate of its token, slots of its user, of the provider, of the bridge
    resolved  credentiald has said whose it is: slots of that user and of that provider, where they were not known
    leave     it is over, exactly once

Before credentiald has answered, a token stands for the user that it was last resolved for. One that was not yet is
nobody's, see shares.STRANGERS; only tokens that were accepted are remembered, so made-up ones push nobody out.
Tokens are numbers here (see entrance.py), users and providers ids of credentiald's and names.
"""

from dataclasses import dataclass
from enum import StrEnum

from bridged.limits.rates import Rates
from bridged.limits.recent import Recent
from bridged.limits.shares import STRANGERS, Shares

# How long a token stands for its user after it was resolved, and how many do.
_KNOWN_SECONDS = 600.0
_MOST_KNOWN = 1 << 14


class Limit(StrEnum):
    """What may be reached."""

    BRIDGE = "bridge"
    PROVIDER = "provider"
    USER = "user"
    RATE = "rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """Requests at once: in all, for one provider, of one user. `rate_per_second` is of one token. 0 is no limit."""

    bridge: int = 0
    provider: int = 0
    user: int = 0
    rate_per_second: int = 0

    def by_limit(self) -> tuple[tuple[Limit, int], ...]:
        """Each with its number."""
        return (
            (Limit.BRIDGE, self.bridge),
            (Limit.PROVIDER, self.provider),
            (Limit.USER, self.user),
            (Limit.RATE, self.rate_per_second),
        )

    @property
    def are_none(self) -> bool:
        """Whether nothing is limited."""
        return not any(most for _, most in self.by_limit())

    def of_worker(self, workers: int) -> "AdmissionLimits":
        """The part of one of so many processes, rounded up."""
        return AdmissionLimits(
            bridge=-(-self.bridge // workers),
            provider=-(-self.provider // workers),
            user=-(-self.user // workers),
            rate_per_second=-(-self.rate_per_second // workers),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """A limit is reached. `wait_seconds` is exact for a rate, and 0 where nobody knows."""

    limit: Limit
    wait_seconds: float = 0.0


class Slot:
    """The place of one request. `shares` are the provider's, once it has a slot of that, too."""

    __slots__ = ("principal", "shares", "token")

    def __init__(self, token: int, principal: str) -> None:
        self.token = token
        self.principal = principal
        self.shares: Shares | None = None


_OVER_BRIDGE = Over(limit=Limit.BRIDGE)
_OVER_PROVIDER = Over(limit=Limit.PROVIDER)
_OVER_USER = Over(limit=Limit.USER)


class Admission:
    """The limits, and who has which slots. Times are of one clock that does not go back, in seconds."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._most_of_user = limits.user
        self._most_of_provider = limits.provider
        self._rates = Rates(limits.rate_per_second) if limits.rate_per_second else None
        self._shares = Shares(limits.bridge)
        # By the names of providers that credentiald has answered with.
        self._providers: dict[str, Shares] = {}
        self._known: Recent[str] = Recent(lasts_seconds=_KNOWN_SECONDS, most=_MOST_KNOWN)

    @property
    def in_use(self) -> int:
        """How many requests have a slot."""
        return self._shares.in_use

    def enter(self, token: int, provider: str, now: float) -> Slot | Over:
        """A slot for a request of which the head is there."""
        if self._rates is not None:
            wait_seconds = self._rates.wait_seconds(token, now)
            if wait_seconds:
                return Over(limit=Limit.RATE, wait_seconds=wait_seconds)
        principal = self._known.get(token) or STRANGERS
        # To strangers nothing is told of users and providers.
        if principal != STRANGERS:
            if self._most_of_user and self._shares.held_by(principal) >= self._most_of_user:
                return _OVER_USER
            of_provider = self._providers.get(provider)
            if of_provider is not None and not of_provider.room_for(principal, now):
                return _OVER_PROVIDER
        if not self._shares.room_for(principal, now):
            return _OVER_BRIDGE
        self._shares.take(principal)
        return Slot(token, principal)

    def resolved(self, slot: Slot, provider: str, user_id: str, now: float) -> Over | None:
        """It is known whose the request is, and which provider's; None where it may go on.

        May be called again: a slot at another provider takes the place of the one before.
        """
        self._known.put(slot.token, user_id, now)
        if slot.principal != user_id:
            self._shares.move(slot.principal, user_id, now)
            if slot.shares is not None:
                slot.shares.move(slot.principal, user_id, now)
            slot.principal = user_id
            if self._most_of_user and self._shares.held_by(user_id) > self._most_of_user:
                return _OVER_USER
        if self._most_of_provider:
            of_provider = self._providers.get(provider)
            if of_provider is None:
                of_provider = self._providers[provider] = Shares(self._most_of_provider)
            if slot.shares is of_provider:
                return None
            if not of_provider.room_for(user_id, now):
                return _OVER_PROVIDER
            if slot.shares is not None:
                slot.shares.give_back(user_id)
            of_provider.take(user_id)
            slot.shares = of_provider
        return None

    def leave(self, slot: Slot) -> None:
        """The request is over."""
        self._shares.give_back(slot.principal)
        if slot.shares is not None:
            slot.shares.give_back(slot.principal)
