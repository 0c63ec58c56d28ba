"""What the rest of credentiald asks of AWS: where a provider's requests go, and with which credential.

An answer that is known costs no wait. Else `NotFetchedYet` is raised, and the caller waits for it or leaves it. All
that is kept is keyed by provider, version of its configuration and, where a role's session names one, user: no two
providers share a credential, a thread or a failure.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from credentiald.aws.lane import Lane
from credentiald.aws.progress import Failed, Loaded, Progress
from credentiald.aws.regions import Identity, Placement
from credentiald.aws.role_request import assume_role_arguments
from credentiald.aws.schedule import Verdict
from credentiald.aws.steps import KEY_PAIR, Outcome, Step, told
from credentiald.aws.supply import Grant, NotFetchedYet, Supply, SupplyState
from credentiald.errors import AmbientCredentialsUnavailable, Refusal, RegionRequired, RoleNotAssumable
from credentiald.model import AwsKeyPairMaterial, BedrockOptions, Provider, User

SOURCE, ROLE = "source", "role"

# A supply that nobody has asked for this long is forgotten.
_FORGET = timedelta(hours=1)
_SWEEP = timedelta(minutes=1)
# Where a region is missing, the machine's settings are read anew after this long.
_READ_AGAIN = timedelta(seconds=5)
_MOST_PLACES = 1000

_PlaceKey = tuple[str, BedrockOptions | None, str, Identity]


@dataclass(frozen=True, slots=True)
class _Key:
    """`source` is "ambient" or the id of a stored pair; `user_id` is empty for what names no user."""

    provider_id: str
    version: int
    region: str
    source: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The credential of one request: for which provider and user, and from which pair (None: the ambient chain)."""

    provider: Provider
    user: User
    region: str
    pair: AwsKeyPairMaterial | None = None
    pair_id: str = ""

    @property
    def options(self) -> BedrockOptions:
        """The provider's options."""
        return self.provider.bedrock or BedrockOptions()


class AwsAccess:
    """Everything of AWS that is kept, for all providers. Used from the loop only."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._places: dict[_PlaceKey, Placement] = {}
        self._missing_places: dict[_PlaceKey, tuple[RegionRequired, datetime]] = {}
        self._placing: dict[_PlaceKey, asyncio.Future[None]] = {}
        self._files = Lane("files")
        self._lanes: dict[str, Lane] = {}
        self._supplies: dict[_Key, tuple[str, Supply]] = {}
        self._swept: datetime | None = None

    def placement(self, provider: Provider, identity: Identity) -> Placement:
        """Where the provider's requests go; RegionRequired, or NotFetchedYet where files have to be read first."""
        key = (provider.name, provider.bedrock, provider.base_url, identity)
        known = self._places.get(key)
        if known is not None:
            return known
        refused = self._missing_places.get(key)
        if refused is not None and timedelta() <= self._clock() - refused[1] < _READ_AGAIN:
            raise refused[0]
        late = RegionRequired(provider=provider.name, settings="the AWS configuration, which cannot be read in time")
        raise NotFetchedYet(self._begin_placing(key, provider), lambda: late)

    def _begin_placing(self, key: _PlaceKey, provider: Provider) -> "asyncio.Future[None]":
        if key in self._placing:
            return self._placing[key]
        from credentiald.aws.endpoints import place

        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._placing[key] = ended

        def settle(done: "asyncio.Future[Placement | Exception]") -> None:
            del self._placing[key]
            outcome = done.result()
            if len(self._places) + len(self._missing_places) >= _MOST_PLACES:
                self._places.clear()
                self._missing_places.clear()
            self._missing_places.pop(key, None)
            if isinstance(outcome, Placement):
                self._places[key] = outcome
            else:
                refusal = (
                    outcome
                    if isinstance(outcome, RegionRequired)
                    else RegionRequired(provider=provider.name, settings="the AWS configuration, which cannot be read")
                )
                self._missing_places[key] = (refusal, self._clock())
            ended.set_result(None)

        self._files.submit(partial(place, provider, key[3])).add_done_callback(settle)
        return ended

    def credential(self, wanted: Wanted) -> Grant:
        """The credential; a refusal, or NotFetchedYet where it has to be fetched first."""
        if wanted.options.role_arn:
            return self._from_role(wanted)
        if wanted.pair is not None:
            raise ValueError("a pair without a role is a credential already")
        return self._from_chain(wanted)

    def _from_chain(self, wanted: Wanted) -> Grant:
        supply = self._source_supply(wanted)
        return self._asked(supply, lambda: self._begin_chain(supply, wanted))

    def _begin_chain(self, supply: Supply, wanted: Wanted) -> None:
        supply.begin(partial(_load_ambient, wanted.region), renew=lambda: self._begin_chain(supply, wanted))

    def _from_role(self, wanted: Wanted) -> Grant:
        supply = self._role_supply(wanted)
        return self._asked(supply, lambda: self._begin_role(supply, wanted))

    def _begin_role(self, supply: Supply, wanted: Wanted) -> None:
        """Start to assume the role, with the pair or with what the chain gives; that may have to be fetched first."""
        if wanted.pair is not None:
            # A pair is not kept for the sake of the next time: requests bring it along.
            supply.begin(
                partial(_assume, wanted, wanted.pair),
                renew=None,
                before=(Step(name=KEY_PAIR, outcome=Outcome.ANSWERED),),
            )
            return
        grant = self._from_chain(wanted)
        answered = self._source_supply(wanted).state(self._clock()).answered_by
        supply.begin(
            partial(_assume, wanted, grant.material),
            renew=lambda: self._renew_role(supply, wanted),
            before=(Step(name=answered, outcome=Outcome.ANSWERED),),
        )

    def _renew_role(self, supply: Supply, wanted: Wanted) -> None:
        try:
            self._begin_role(supply, wanted)
        except (NotFetchedYet, Refusal):
            # The chain is being asked, or fails, which it says itself; the next request comes here again.
            return

    def _asked(self, supply: Supply, begin: Callable[[], None]) -> Grant:
        now = self._clock()
        verdict = supply.verdict(now)
        if verdict is Verdict.SERVE:
            return supply.use(now)
        if verdict is Verdict.SERVE_AND_FETCH:
            try:
                begin()
            except (NotFetchedYet, Refusal):
                # What the new one would be made of is not there: the old one still counts.
                return supply.use(now)
            return supply.use(now)
        if verdict is Verdict.FETCH:
            begin()
        if verdict is Verdict.REFUSE:
            raise supply.refusal()
        raise supply.missing()

    def _source_supply(self, wanted: Wanted) -> Supply:
        key = _Key(wanted.provider.id, wanted.provider.version, wanted.region, "ambient", "")
        return self._supply(SOURCE, key, wanted)

    def _role_supply(self, wanted: Wanted) -> Supply:
        key = _Key(
            wanted.provider.id, wanted.provider.version, wanted.region, wanted.pair_id or "ambient", wanted.user.id
        )
        return self._supply(ROLE, key, wanted)

    def _supply(self, kind: str, key: _Key, wanted: Wanted) -> Supply:
        known = self._supplies.get(key)
        if known is not None:
            return known[1]
        self._forget_old(key)
        provider = wanted.provider.name
        facts = {"provider": provider} | ({"role_arn": wanted.options.role_arn} if kind == ROLE else {})
        supply = Supply(
            kind=kind,
            user_id=key.user_id,
            lane=self._lane(key.provider_id, provider),
            clock=self._clock,
            refusal=partial(_refusal, kind, provider, wanted.options.role_arn),
            facts=facts,
        )
        self._supplies[key] = (provider, supply)
        return supply

    def _lane(self, provider_id: str, name: str) -> Lane:
        return self._lanes.setdefault(provider_id, Lane(name))

    def _forget_old(self, key: _Key) -> None:
        """Forget older versions of this provider's configuration, and now and then what nobody uses."""
        now = self._clock()
        sweeps = self._swept is None or not timedelta() <= now - self._swept < _SWEEP
        if sweeps:
            self._swept = now
        for other, (_, supply) in list(self._supplies.items()):
            older = other.provider_id == key.provider_id and other.version < key.version
            unused = sweeps and not supply.busy and now - supply.used_time > _FORGET
            if older or unused:
                supply.close()
                del self._supplies[other]
        used = {other.provider_id for other in self._supplies} | {key.provider_id}
        for provider_id in [one for one, lane in self._lanes.items() if one not in used and lane.idle]:
            del self._lanes[provider_id]

    def states(self, provider_id: str | None = None) -> Iterator[tuple[str, SupplyState]]:
        """Name of the provider and state, for every supply, or for those of one provider."""
        now = self._clock()
        for key, (name, supply) in self._supplies.items():
            if provider_id is None or key.provider_id == provider_id:
                yield name, supply.state(now)

    def lane_of(self, provider: Provider) -> Lane:
        """The provider's threads, for a probe on demand."""
        return self._lane(provider.id, provider.name)

    def close(self) -> None:
        """Forget everything; threads that hang are left to themselves."""
        for _, supply in self._supplies.values():
            supply.close()
        self._supplies.clear()


def _load_ambient(region: str, progress: Progress) -> Loaded:
    from credentiald.aws.chain import load_ambient

    return load_ambient(region, progress)


def _assume(wanted: Wanted, source: AwsKeyPairMaterial, progress: Progress) -> Loaded:
    from credentiald.aws.sts import assume_role

    arguments = assume_role_arguments(wanted.options, username=wanted.user.username, provider=wanted.provider.name)
    return assume_role(source, region=wanted.region, arguments=arguments, progress=progress)


def _refusal(kind: str, provider: str, role_arn: str, failed: Failed, steps: tuple[Step, ...]) -> Refusal:
    """For good, where AWS has refused the role; else what may pass."""
    if kind == ROLE and not failed.may_pass:
        return RoleNotAssumable(provider=provider, role_arn=role_arn, cause=failed.cause)
    return AmbientCredentialsUnavailable(provider=provider, steps=told(steps))
