"""Which key of a pool a request gets, and what becomes of a key when a bridge tells how it fared. Decisions only.

A pool is a provider's central keys in order of preference. A bridge whose key was refused complains of it, and the key
rests for that bridge. To all others the complaint is advice: they are given the key after those that nobody complains
of, so a bridge that lies can spoil the order but take nothing away. When the rest is over, one request tries the key
(the probe); what is told of the probe ends the rest or begins a longer one. A pool of one has nothing to spare and is
none of this module's business.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from credentiald.bridge_instances import Instance


class OutcomeKind(StrEnum):
    """What an upstream said to a key."""

    ACCEPTED = "ACCEPTED"
    UNAUTHORIZED = "UNAUTHORIZED"
    RATE_LIMITED = "RATE_LIMITED"
    SPEND_LIMITED = "SPEND_LIMITED"
    UNKNOWN = "UNKNOWN"


class KeyState(StrEnum):
    """How a key is, all complaints taken together."""

    AVAILABLE = "AVAILABLE"
    RESTING = "RESTING"
    TO_BE_PROBED = "TO_BE_PROBED"


class Cause(StrEnum):
    """Why a pool has no key left for a request: what is to be said of those that it was not tried with."""

    RATE_LIMITED = "rate_limited"
    UNAUTHORIZED = "unauthorized"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    """How long a key rests: `first`, twice as long after each probe that fails, `longest` at most.

    `asked` is the longest that the upstream's own word counts for; zero where it does not.
    """

    first: timedelta
    longest: timedelta
    asked: timedelta = timedelta()


RESTS: Mapping[OutcomeKind, _Rest] = {
    OutcomeKind.UNAUTHORIZED: _Rest(first=timedelta(seconds=60), longest=timedelta(minutes=15)),
    OutcomeKind.RATE_LIMITED: _Rest(
        first=timedelta(seconds=60), longest=timedelta(seconds=60), asked=timedelta(hours=1)
    ),
    OutcomeKind.SPEND_LIMITED: _Rest(first=timedelta(hours=1), longest=timedelta(hours=24)),
}
# An upstream that says "now" is not asked in the same moment again.
_LEAST_REST = timedelta(seconds=1)
# A deadline that moves by less is not worth a change, since each makes every kept answer be decided anew.
_LEAST_CHANGE = timedelta(seconds=1)
# How long after its rest a complaint counts for anything: so long the next one is counted with it.
FORGOTTEN_AFTER = timedelta(hours=1)
# Where nothing is known of how long a key rests, as where the caller alone knows.
_UNKNOWN_WAIT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooldown:
    """One bridge's complaint of one key.

    `until_time` is when the key's rest is over, `strikes` how often it was refused in a row, `error` and `http_status`
    what the upstream said last.
    """

    credential_id: str
    provider_id: str
    teller: Instance
    kind: OutcomeKind
    since_time: datetime
    until_time: datetime
    strikes: int
    error: str
    http_status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a key fared that was given out at `resolve_time`. `retry_after` is the upstream's wish, None for none."""

    credential_id: str
    provider_id: str
    teller: Instance
    kind: OutcomeKind
    retry_after: timedelta | None
    error: str
    http_status: int
    resolve_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an outcome changes: a complaint, in place of the teller's earlier one, and complaints that are over."""

    rests: Cooldown | None = None
    over: tuple[Cooldown, ...] = ()


def judge(outcome: Outcome, complaints: Iterable[Cooldown], now: datetime) -> Change | None:
    """What the outcome changes, given the complaints of its key; None for nothing.

    A deadline is never made earlier. Nobody's word makes the rest longer that another one gives a key.
    """
    if outcome.kind is OutcomeKind.ACCEPTED:
        # Only who tried the key after a rest can say that it is over: it was given out as a probe.
        over = tuple(one for one in complaints if one.until_time <= outcome.resolve_time)
        return Change(over=over) if over else None
    if outcome.kind is OutcomeKind.UNKNOWN:
        return None
    own = next((one for one in complaints if one.teller == outcome.teller), None)
    same = own if own is not None and own.kind is outcome.kind else None
    is_probe = same is not None and same.until_time <= outcome.resolve_time
    strikes = (same.strikes if same else 0) + (is_probe or same is None)
    rests = Cooldown(
        credential_id=outcome.credential_id,
        provider_id=outcome.provider_id,
        teller=outcome.teller,
        kind=outcome.kind,
        since_time=own.since_time if own else now,
        until_time=now + rest_of(outcome.kind, strikes, outcome.retry_after),
        strikes=strikes,
        error=outcome.error,
        http_status=outcome.http_status,
    )
    if own is None or own.until_time <= now:
        return Change(rests=rests)
    # Requests that were on their way when the key was complained of: only an upstream that names a time says more.
    says_more = same is None or outcome.retry_after is not None
    return Change(rests=rests) if says_more and rests.until_time >= own.until_time + _LEAST_CHANGE else None


def rest_of(kind: OutcomeKind, strikes: int, retry_after: timedelta | None) -> timedelta:
    """How long a key rests that was refused for the so many-th time in a row, the first being 1."""
    rest = RESTS[kind]
    if retry_after is not None and rest.asked:
        return min(max(retry_after, _LEAST_REST), rest.asked)
    doublings = 0
    length = rest.first
    while doublings < strikes - 1 and length < rest.longest:
        length, doublings = length * 2, doublings + 1
    return min(length, rest.longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The key for a request, by its place in the pool.

    `is_probe`: the request tries it after its rest. `until_time` is when the choice may be another one, unless a
    complaint or a probe changes it before; None for never.
    """

    place: int
    is_probe: bool = False
    until_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhausted:
    """No key is left for a request; the shortest wait until one may be."""

    cause: Cause
    wait: timedelta


Claims = Mapping[str, Mapping[Instance, datetime]]
"""By credential, whose request is trying it, and until when it may take."""


class Complaints:
    """The complaints of a pool's keys, so put together that one choice does not look at each of them.

    Bridges choose how many there are, and a batch of questions makes a choice for each.
    """

    def __init__(self, cooldowns: Iterable[Cooldown]) -> None:
        self._own: dict[tuple[str, Instance], Cooldown] = {}
        # By key, when the rests are over, the earliest first.
        self._ends: dict[str, list[datetime]] = {}
        for one in cooldowns:
            self._own[one.credential_id, one.teller] = one
            self._ends.setdefault(one.credential_id, []).append(one.until_time)
        for ends in self._ends.values():
            ends.sort()

    def __bool__(self) -> bool:
        return bool(self._ends)

    def own(self, key: str, asker: Instance) -> Cooldown | None:
        """The asker's own complaint."""
        return self._own.get((key, asker))

    def last_end(self, key: str) -> datetime | None:
        """When the key's rest is over for everybody; None where nobody complains."""
        ends = self._ends.get(key)
        return ends[-1] if ends else None

    def next_change(self, key: str, now: datetime) -> datetime | None:
        """When the next rest is over, or the next complaint forgotten."""
        ends = self._ends.get(key, [])
        moments = list(_after(ends, now))
        moments += [end + FORGOTTEN_AFTER for end in _after(ends, now - FORGOTTEN_AFTER)]
        return min(moments, default=None)


def _after(ends: Sequence[datetime], moment: datetime) -> Sequence[datetime]:
    """The first of them that is later than the moment, if there is one."""
    place = bisect_right(ends, moment)
    return ends[place : place + 1]


def choose(
    keys: Sequence[str],
    complaints: Complaints,
    claims: Claims,
    *,
    asker: Instance,
    failed: Collection[str],
    now: datetime,
) -> Choice | Exhausted:
    """The key for a request of `asker`, out of the ids of a pool in their order.

    First of all the first key that nobody complains of, or whose rest is over and that nobody is trying. Then one of
    which only others complain. Never one in `failed`, one that the asker itself complained of before its rest is over,
    or, after that, one that another request of the asker is trying.
    """
    last_resort: Choice | None = None
    until_time = _next_change(keys, complaints, claims, now)
    for place, key in enumerate(keys):
        if key in failed:
            continue
        last_end, trying = complaints.last_end(key), _live(claims.get(key), now)
        if last_end is None:
            return Choice(place=place, until_time=until_time)
        own = complaints.own(key, asker)
        if own is not None and (own.until_time > now or asker in trying):
            continue
        if last_end <= now and not trying:
            return Choice(place=place, is_probe=True, until_time=until_time)
        if last_resort is None:
            last_resort = Choice(place=place, is_probe=own is not None, until_time=until_time)
    return last_resort or _exhausted(keys, complaints, claims, asker=asker, failed=failed, now=now)


def _exhausted(
    keys: Sequence[str],
    complaints: Complaints,
    claims: Claims,
    *,
    asker: Instance,
    failed: Collection[str],
    now: datetime,
) -> Exhausted:
    """Why, and the shortest wait: for a limit where there is one, since waiting does not mend a key that is wrong."""
    untried = [key for key in keys if key not in failed]
    waits: dict[bool, list[timedelta]] = {True: [], False: []}
    for key in untried or keys:
        own = complaints.own(key, asker)
        if own is None:
            continue
        end = max(own.until_time, _live(claims.get(key), now).get(asker, now))
        if end > now:
            waits[own.kind is OutcomeKind.UNAUTHORIZED].append(end - now)
    limits, refused = waits[False], waits[True]
    wait = min(limits or refused, default=_UNKNOWN_WAIT)
    if not untried:
        return Exhausted(cause=Cause.FAILED, wait=wait)
    return Exhausted(cause=Cause.RATE_LIMITED if limits else Cause.UNAUTHORIZED, wait=wait)


def state_of(complaints: Iterable[Cooldown], now: datetime) -> tuple[KeyState, datetime | None]:
    """How a key is that these complaints are about, and until when it rests, for whom it rests longest."""
    until_time = max((one.until_time for one in complaints), default=None)
    if until_time is None:
        return KeyState.AVAILABLE, None
    return (KeyState.RESTING, until_time) if until_time > now else (KeyState.TO_BE_PROBED, None)


def _live(claims: Mapping[Instance, datetime] | None, now: datetime) -> dict[Instance, datetime]:
    return {instance: end for instance, end in (claims or {}).items() if end > now}


def _next_change(keys: Sequence[str], complaints: Complaints, claims: Claims, now: datetime) -> datetime | None:
    """The next moment at which a choice may be another one without anybody saying anything."""
    moments = [moment for key in keys if (moment := complaints.next_change(key, now)) is not None]
    for key in keys:
        moments += _live(claims.get(key), now).values()
    return min(moments, default=None)
