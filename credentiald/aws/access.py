"""What the rest of credentiald asks of AWS: where a provider's requests go, and with which credential.

An answer that is known costs no wait. Else `NotFetchedYet` is raised, and the caller waits for it or leaves it. All
that is kept is keyed by provider, version of its configuration and, where a role's session names one, user: no two
providers share a credential, a thread or a failure.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from credentiald.aws.account import AwsAccount
from credentiald.aws.lane import Lane
from credentiald.aws.probe import Probe, Probed, run
from credentiald.aws.progress import Failed, Loaded, Progress
from credentiald.aws.regions import Identity, Placement
from credentiald.aws.role_request import assume_role_arguments, session_name
from credentiald.aws.schedule import Span, Verdict
from credentiald.aws.steps import IDENTITY, KEY_PAIR, Outcome, Step, as_failed, told
from credentiald.aws.supply import EXPIRED, OVERDUE, Grant, NotFetchedYet, Supply, SupplyState, failure_of
from credentiald.errors import AmbientCredentialsUnavailable, Refusal, RegionRequired, RoleNotAssumable
from credentiald.model import AwsKeyPairMaterial, BedrockOptions, Provider

SOURCE, ROLE = "source", "role"

# A supply that nobody has asked for this long is forgotten, with its credential and its outage.
FORGET = timedelta(minutes=30)
SWEEP_SECONDS = 60.0
# Where a region is missing, the machine's settings are read anew after this long.
_READ_AGAIN = timedelta(seconds=5)
_MOST_PLACES = 1000
# How long an explanation waits for the machine's AWS files.
_PLACE_SECONDS = 3.0

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
    user_id: str
    username: str
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
        # The facts of a refusal, not the refusal: one that is raised for many holds on to what each of them asked.
        self._missing_places: dict[_PlaceKey, tuple[dict[str, str], datetime]] = {}
        self._placing: dict[_PlaceKey, asyncio.Future[None]] = {}
        self._files = Lane("files")
        self._lanes: dict[str, Lane] = {}
        self._supplies: dict[_Key, tuple[str, Supply]] = {}
        self._probing: set[Progress] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        # Attempts by provider, kind and outcome, for the metrics.
        self.attempts: Counter[tuple[str, str, str]] = Counter()

    def placement(self, provider: Provider, identity: Identity) -> Placement:
        """Where the provider's requests go; RegionRequired, or NotFetchedYet where files have to be read first."""
        key = (provider.name, provider.bedrock, provider.base_url, identity)
        known = self._places.get(key)
        if known is not None:
            return known
        refused = self._missing_places.get(key)
        if refused is not None and timedelta() <= self._clock() - refused[1] < _READ_AGAIN:
            raise RegionRequired(**refused[0])
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
                unread = {"provider": provider.name, "settings": "the AWS configuration, which cannot be read"}
                facts = outcome.facts if isinstance(outcome, RegionRequired) else unread
                self._missing_places[key] = (facts, self._clock())
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
            wanted.provider.id, wanted.provider.version, wanted.region, wanted.pair_id or "ambient", wanted.user_id
        )
        return self._supply(ROLE, key, wanted)

    def _supply(self, kind: str, key: _Key, wanted: Wanted) -> Supply:
        known = self._supplies.get(key)
        if known is not None:
            return known[1]
        self._forget_older(key)
        provider = wanted.provider.name
        facts = {"provider": provider} | ({"role_arn": wanted.options.role_arn} if kind == ROLE else {})
        supply = Supply(
            kind=kind,
            user_id=key.user_id,
            lane=self._lane(key.provider_id, provider),
            clock=self._clock,
            refusal=partial(refusal_of, kind, provider, wanted.options.role_arn),
            count=partial(self._count, provider, kind),
            facts=facts,
        )
        self._supplies[key] = (provider, supply)
        self._sweep_later()
        return supply

    def _count(self, provider: str, kind: str, outcome: str) -> None:
        self.attempts[provider, kind, outcome] += 1

    def _lane(self, provider_id: str, name: str) -> Lane:
        return self._lanes.setdefault(provider_id, Lane(name))

    def _forget_older(self, key: _Key) -> None:
        """Forget older versions of this provider's configuration."""
        self._forget([
            other for other in self._supplies
            if other.provider_id == key.provider_id and other.version < key.version
        ])  # fmt: skip

    def _sweep(self) -> None:
        """Forget what nobody uses; once a minute while anything is held."""
        self._sweeping = None
        now = self._clock()
        self._forget([
            key for key, (_, supply) in self._supplies.items()
            if not supply.busy and abs(now - supply.used_time) >= FORGET
        ])  # fmt: skip
        self._sweep_later()

    def _sweep_later(self) -> None:
        if self._supplies and self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _forget(self, keys: list[_Key]) -> None:
        for key in keys:
            self._supplies.pop(key)[1].close()
        used = {key.provider_id for key in self._supplies}
        for provider_id in [one for one, lane in self._lanes.items() if one not in used and lane.idle]:
            del self._lanes[provider_id]

    def states(self, provider_id: str | None = None) -> Iterator[tuple[str, SupplyState]]:
        """Name of the provider and state, for every supply, or for those of one provider."""
        now = self._clock()
        for key, (name, supply) in self._supplies.items():
            if provider_id is None or key.provider_id == provider_id:
                yield name, supply.state(now)

    async def account(
        self, provider: Provider, identity: Identity, *, user_id: str, username: str, pair_id: str = ""
    ) -> AwsAccount:
        """How a request would get its credential. Reads the machine's AWS files if it must, and asks nobody."""
        try:
            placement = await self.placed(provider, identity, seconds=_PLACE_SECONDS)
        except Refusal as refusal:
            return AwsAccount(identity=identity, placement=None, refusal=refusal)
        role_arn = provider.bedrock.role_arn if provider.bedrock else ""
        if identity is Identity.BEARER or (identity is Identity.PAIR and not role_arn):
            return AwsAccount(identity=identity, placement=placement)
        where = (provider.id, provider.version, placement.region.name)
        keys = [_Key(*where, "ambient", "")] if identity is Identity.AMBIENT else []
        if role_arn:
            keys.append(_Key(*where, pair_id or "ambient", user_id))
        known = [self._supplies[key][1] for key in keys if key in self._supplies]
        now = self._clock()
        states = tuple(supply.state(now) for supply in known)
        # The last of them is what requests get; what it is made of matters only where it is not there.
        served = bool(states) and len(states) == len(keys) and states[-1].is_served
        # Also where the next request would try again: what the last one met is what is known.
        failing = [supply for supply in reversed(known) if supply.is_failing(now)]
        return AwsAccount(
            identity=identity,
            placement=placement,
            role_arn=role_arn,
            role_session_name=session_name(username) if role_arn else "",
            states=states,
            refusal=failing[0].refusal() if failing and not served else None,
        )

    async def placed(self, provider: Provider, identity: Identity, *, seconds: float) -> Placement:
        """As `placement`, waiting for files to be read; a refusal after `seconds`."""
        end = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                return self.placement(provider, identity)
            except NotFetchedYet as error:
                missing = error
            await missing.wait(end - asyncio.get_running_loop().time())

    async def probe(self, provider: Provider, probe: Probe, *, seconds: float) -> tuple[Probed, tuple[Step, ...]]:
        """What a probe finds, and its steps, in a thread of the provider's own."""
        progress = Progress()
        self._probing.add(progress)
        future = self._lane(provider.id, provider.name).submit(partial(run, probe, progress))
        future.add_done_callback(lambda _: self._probing.discard(progress))
        done, _ = await asyncio.wait([future], timeout=seconds)
        outcome = future.result() if done else OVERDUE
        if isinstance(outcome, Exception):
            outcome = failure_of(outcome)
        probed = outcome if isinstance(outcome, Probed) else Probed(failed=outcome)
        steps = progress.steps()
        now = self._clock()
        if probed.expire_time is not None and not Span(fetch_time=now, expire_time=probed.expire_time).is_served(now):
            # A request would not get it either; whose it was does not matter any more.
            return Probed(failed=EXPIRED), as_failed([one for one in steps if one.name != IDENTITY], EXPIRED.cause)
        return probed, steps

    def close(self) -> None:
        """Forget everything; threads that hang are left to themselves, processes are killed."""
        for progress in self._probing:
            progress.stop()
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._forget(list(self._supplies))


def _load_ambient(region: str, progress: Progress) -> Loaded:
    from credentiald.aws.chain import load_ambient

    return load_ambient(region, progress)


def _assume(wanted: Wanted, source: AwsKeyPairMaterial, progress: Progress) -> Loaded:
    from credentiald.aws.sts import assume_role

    arguments = assume_role_arguments(wanted.options, username=wanted.username, provider=wanted.provider.name)
    return assume_role(source, region=wanted.region, arguments=arguments, progress=progress)


def refusal_of(kind: str, provider: str, role_arn: str, failed: Failed, steps: tuple[Step, ...]) -> Refusal:
    """What a failed attempt is to its caller: for good where AWS has refused the role, else what may pass."""
    if kind == ROLE and not failed.may_pass:
        return RoleNotAssumable(provider=provider, role_arn=role_arn, cause=failed.cause)
    return AmbientCredentialsUnavailable(provider=provider, steps=told(steps))
