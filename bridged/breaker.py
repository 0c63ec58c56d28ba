"""Circuit breakers: an upstream that fails time after time is left alone for a while, then tried carefully.

Pure: no clock and no log; seconds are given, and changes of state go to whoever asked to hear of them. There is a
breaker for each provider, operation and model that failed; what never did costs one look into a table. The states and
their meaning are those of sony/gobreaker, which other gateways use:

    closed     failures in a row are counted and forgotten at a success, or when an interval is over. At the threshold
               the breaker opens.
    open       nothing goes through. When the time-out is over it is half-open.
    half-open  so many requests as are allowed go through as probes. One failure opens it again, and as many successes
               as probes are allowed close it.

It differs from it in four things:

1. A probe that ends without a word of the upstream (its client left) gives its place back.
2. What began before a breaker changed its state says nothing about it any more; a new interval is no such change, so
   an upstream that takes longer than an interval to fail is counted all the same.
3. A breaker that was opened by nothing but the limits of the credential that all share (`Failure.SHARED_LIMIT`) does
   not stop whoever has a credential of their own.
4. A provider with another base URL is another upstream: what was held against the former one is forgotten.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil

# Models are the client's to make up, so there is a bound; the breakers of those not heard of for longest go first.
MOST_BREAKERS = 1024


class State(StrEnum):
    """Of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Failure(StrEnum):
    """Whose failure it is: the upstream's, or it has no more for the credential that all share."""

    UPSTREAM = "upstream"
    SHARED_LIMIT = "shared_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """`failure_threshold` failures in a row open; an `interval_seconds` of 0 forgets none of them with time."""

    failure_threshold: int = 5
    interval_seconds: float = 10.0
    timeout_seconds: float = 30.0
    max_requests: int = 3


# Provider, operation, model at the upstream.
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A breaker went from one state to another. `failures` in a row; `last_error` is the last of them, in a word."""

    key: Key
    before: State
    after: State
    failures: int
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerView:
    """A breaker that is not closed, or has failures against it.

    `since_seconds`: when it got into this state, of a closed one when its interval began.
    """

    key: Key
    state: State
    since_seconds: float
    failures: int
    last_error: str


class _Breaker:
    """One breaker; closed as it is made."""

    __slots__ = (
        "base_url", "changed", "failures", "is_shared_limit", "last_error", "places", "since_seconds", "state",
        "successes",
    )  # fmt: skip

    def __init__(self, base_url: str, now_seconds: float) -> None:
        self.base_url = base_url
        self.state = State.CLOSED
        # When it got into this state, and by the count of all changes; closed: when its interval began.
        self.since_seconds = now_seconds
        self.changed = 0
        self.failures = 0
        # Half-open: places that are left for probes, and those that went well.
        self.places = 0
        self.successes = 0
        # Whether every failure in the row was one of the shared credential's limits.
        self.is_shared_limit = True
        self.last_error = ""


class Admission:
    """A request may go to the upstream. Give each to `succeeded`, `failed` or `given_back`, once.

    `probe` is the breaker that it is a probe of, None for all others; these share one value.
    """

    __slots__ = ("changes", "probe")

    def __init__(self, changes: int, probe: _Breaker | None = None) -> None:
        self.changes = changes
        self.probe = probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A request may not go to the upstream; when it is worth asking again."""

    retry_after_seconds: int


class Breakers:
    """All breakers of a bridge. Times are those of one clock that does not go back."""

    def __init__(
        self, rules: BreakerRules, on_change: Callable[[Change], None], *, most_breakers: int = MOST_BREAKERS
    ) -> None:
        self._rules = rules
        self._on_change = on_change
        self._most_breakers = most_breakers
        # The one whose failure is longest ago comes first.
        self._breakers: dict[Key, _Breaker] = {}
        # How many changes of state there were: an admission that has seen fewer than its breaker's is out of date.
        self._changes = 0
        # That of whom no breaker concerns.
        self.usual = Admission(0)

    @property
    def are_none(self) -> bool:
        """Whether nothing has failed, so that all are admitted as usual and no success needs to be told."""
        return not self._breakers

    def admit(self, key: Key, base_url: str, now_seconds: float, *, is_shared: bool) -> Admission | Stopped:
        """Whether a request may go. `is_shared`: its credential is not the user's own."""
        breaker = self._breakers.get(key)
        if breaker is None:
            return self.usual
        if breaker.base_url != base_url:
            self._forget(key, breaker)
            return self.usual
        if breaker.state is State.CLOSED:
            return self.usual
        if breaker.is_shared_limit and not is_shared:
            return self.usual
        if breaker.state is State.OPEN:
            left_seconds = breaker.since_seconds + self._rules.timeout_seconds - now_seconds
            if left_seconds > 0:
                return Stopped(retry_after_seconds=max(1, ceil(left_seconds)))
            breaker.places, breaker.successes = self._rules.max_requests, 0
            self._become(key, breaker, State.HALF_OPEN, now_seconds)
        if not breaker.places:
            return Stopped(retry_after_seconds=1)
        breaker.places -= 1
        return Admission(self._changes, breaker)

    def succeeded(self, key: Key, admission: Admission, now_seconds: float) -> None:
        """The upstream answered, and not with a failure."""
        breaker = self._breakers.get(key)
        if breaker is None or admission.changes < breaker.changed:
            return
        if breaker.state is State.CLOSED:
            breaker.failures = 0
        elif admission.probe is breaker:
            breaker.successes += 1
            if breaker.successes >= self._rules.max_requests:
                breaker.failures = 0
                self._become(key, breaker, State.CLOSED, now_seconds)

    def failed(
        self, key: Key, base_url: str, admission: Admission, now_seconds: float, failure: Failure, error: str
    ) -> None:
        """The upstream did not answer, or with a failure: `error` in a word."""
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._make(key, base_url, now_seconds)
        elif admission.changes < breaker.changed or breaker.base_url != base_url:
            return
        if breaker.state is State.CLOSED:
            self._count(key, breaker, now_seconds, failure, error)
            if breaker.failures >= self._rules.failure_threshold:
                self._become(key, breaker, State.OPEN, now_seconds)
        elif admission.probe is breaker:
            breaker.failures += 1
            breaker.last_error = error
            breaker.is_shared_limit = failure is Failure.SHARED_LIMIT
            self._become(key, breaker, State.OPEN, now_seconds)

    def given_back(self, admission: Admission) -> None:
        """It ended without a word about the upstream: another may be the probe."""
        breaker = admission.probe
        if breaker is not None and breaker.changed <= admission.changes:
            breaker.places += 1

    def views(self, now_seconds: float) -> Iterator[BreakerView]:
        """What there is to tell; an open one whose time-out is over counts as half-open."""
        rules = self._rules
        for key, breaker in self._breakers.items():
            state, since_seconds = breaker.state, breaker.since_seconds
            if state is State.CLOSED and (not breaker.failures or self._is_interval_over(breaker, now_seconds)):
                continue
            if state is State.OPEN and now_seconds >= since_seconds + rules.timeout_seconds:
                state, since_seconds = State.HALF_OPEN, since_seconds + rules.timeout_seconds
            yield BreakerView(
                key=key,
                state=state,
                since_seconds=since_seconds,
                failures=breaker.failures,
                last_error=breaker.last_error,
            )

    def _count(self, key: Key, breaker: _Breaker, now_seconds: float, failure: Failure, error: str) -> None:
        if self._is_interval_over(breaker, now_seconds):
            breaker.failures, breaker.since_seconds = 0, now_seconds
        if not breaker.failures:
            breaker.is_shared_limit = True
        breaker.failures += 1
        breaker.is_shared_limit &= failure is Failure.SHARED_LIMIT
        breaker.last_error = error
        self._breakers[key] = self._breakers.pop(key)

    def _is_interval_over(self, breaker: _Breaker, now_seconds: float) -> bool:
        interval_seconds = self._rules.interval_seconds
        return interval_seconds > 0 and now_seconds >= breaker.since_seconds + interval_seconds

    def _make(self, key: Key, base_url: str, now_seconds: float) -> _Breaker:
        if len(self._breakers) >= self._most_breakers:
            self._make_room()
        breaker = self._breakers[key] = _Breaker(base_url, now_seconds)
        return breaker

    def _make_room(self) -> None:
        """One of those that stop nobody goes, if there is any: models that are made up must not open what is open."""
        stopping_nobody = (key for key, breaker in self._breakers.items() if breaker.state is State.CLOSED)
        key = next(stopping_nobody, None) or next(iter(self._breakers))
        self._forget(key, self._breakers[key])

    def _forget(self, key: Key, breaker: _Breaker) -> None:
        """Keep nothing of it; probes that are under way are none any more."""
        del self._breakers[key]
        if breaker.state is not State.CLOSED:
            self._told(key, breaker, State.CLOSED)

    def _become(self, key: Key, breaker: _Breaker, state: State, now_seconds: float) -> None:
        self._told(key, breaker, state)
        breaker.changed = self._changes
        breaker.state, breaker.since_seconds = state, now_seconds

    def _told(self, key: Key, breaker: _Breaker, state: State) -> None:
        self._changes += 1
        self.usual = Admission(self._changes)
        self._on_change(
            Change(
                key=key,
                before=breaker.state,
                after=state,
                failures=breaker.failures,
                last_error=breaker.last_error,
            )
        )
