"""One credential that is kept fresh: fetched in a thread, by one attempt at a time, for however many wait for it.

When what happens is decided by schedule.py; this holds the credential, the attempt under way and what became of the
last one. Used from the loop only.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from credentiald.aws.lane import Lane
from credentiald.aws.progress import AttemptFailed, Failed, Loaded, Progress
from credentiald.aws.schedule import Failures, Span, Verdict, decide, look_again_time
from credentiald.aws.steps import Step, answered_by, as_failed, told
from credentiald.errors import Refusal
from credentiald.model import AwsKeyPairMaterial

log = logging.getLogger("credentiald.aws")

# From then on an attempt counts as failed, and who waits is told; its thread may still bring a credential.
ATTEMPT_SECONDS = 10.0

Fetch = Callable[[Progress], Loaded]
MakeRefusal = Callable[[Failed, tuple[Step, ...]], Refusal]
OVERDUE = Failed(cause="it does not answer", may_pass=True)
EXPIRED = Failed(cause="it gave a credential that has expired", may_pass=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A credential for one request. `look_again_time`: until when an answer made of it counts without asking again."""

    material: AwsKeyPairMaterial = field(repr=False)
    expire_time: datetime | None
    look_again_time: datetime


class NotFetchedYet(Exception):
    """Something has to be fetched first. `wait` for it and ask again; where nobody can wait, ask singly."""

    def __init__(self, ended: "asyncio.Future[None]", late: Callable[[], Refusal]) -> None:
        super().__init__("not fetched yet")
        self._ended = ended
        self._late = late

    async def wait(self, seconds: float) -> None:
        """Until the attempt is over, however it ended. After `seconds` a refusal says what is waited for."""
        done, _ = await asyncio.wait([self._ended], timeout=max(0.0, seconds))
        if not done:
            raise self._late()


@dataclass(slots=True, kw_only=True)
class _Attempt:
    progress: Progress
    ended: "asyncio.Future[None]"
    overdue: asyncio.TimerHandle | None = None
    is_overdue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplyState:
    """What is known of a supply, for explanations and metrics. No secret, and looking costs nothing.

    `steps` are those of the attempt under way, or of the last one; `answered_by` names the step that gave what is held.
    """

    kind: str
    user_id: str
    span: Span | None
    is_served: bool
    failures: Failures
    fetching: bool
    steps: tuple[Step, ...]
    answered_by: str


class Supply:
    """`kind` is "source" or "role"; `refusal` makes the refusal for a failed attempt; `facts` go on log lines.

    `count` is told "ok" or "failed" for each attempt.
    """

    def __init__(
        self,
        *,
        kind: str,
        user_id: str,
        lane: Lane,
        clock: Callable[[], datetime],
        refusal: MakeRefusal,
        count: Callable[[str], None],
        facts: dict[str, str],
    ) -> None:
        self.kind = kind
        self._user_id = user_id
        self._lane = lane
        self._clock = clock
        self._make_refusal = refusal
        self._count = count
        self._facts = facts
        self._loaded: Loaded | None = None
        self._span: Span | None = None
        self._failures = Failures()
        self._failed: Failed | None = None
        self._steps: tuple[Step, ...] = ()
        self._answered_by = ""
        self._attempt: _Attempt | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._renew: Callable[[], None] | None = None
        self._used_since_fetch = False
        self.used_time = clock()

    def verdict(self, now: datetime) -> Verdict:
        """What becomes of a request at `now`."""
        attempt = self._attempt
        return decide(
            now,
            self._span,
            self._failures,
            fetching=attempt is not None,
            stuck=attempt is not None and attempt.is_overdue,
        )

    def is_failing(self, now: datetime) -> bool:
        """Whether nothing can be served and the last attempt failed."""
        return self._failures.count > 0 and (self._span is None or not self._span.is_served(now))

    def use(self, now: datetime) -> Grant:
        """The credential, which a verdict has said is served."""
        assert self._loaded is not None  # noqa: S101 - a verdict of SERVE says so
        assert self._span is not None  # noqa: S101
        self._used_since_fetch = True
        self.used_time = now
        return Grant(
            material=self._loaded.material,
            expire_time=self._loaded.expire_time,
            look_again_time=look_again_time(now, self._span),
        )

    def begin(self, fetch: Fetch, *, renew: Callable[[], None] | None, before: tuple[Step, ...] = ()) -> None:
        """Start an attempt. `renew` asks for the next one by itself when it is due; None where that needs a request."""
        loop = asyncio.get_running_loop()
        self.used_time = self._clock()
        progress = Progress()
        for step in before:
            progress.add(step)
        attempt = _Attempt(progress=progress, ended=loop.create_future())
        self._attempt, self._renew = attempt, renew
        attempt.overdue = loop.call_later(ATTEMPT_SECONDS, self._overdue, attempt)
        future = self._lane.submit(lambda: fetch(progress))
        future.add_done_callback(lambda done: self._settle(attempt, done.result()))

    def missing(self) -> NotFetchedYet:
        """What to raise for a verdict of FETCH (begun) or WAIT."""
        assert self._attempt is not None  # noqa: S101 - the verdict said so
        return NotFetchedYet(self._attempt.ended, self._late)

    def refusal(self) -> Refusal:
        """What to raise for a verdict of REFUSE."""
        return self._make_refusal(self._failed or OVERDUE, self.steps())

    def _late(self) -> Refusal:
        return self._make_refusal(OVERDUE, self.steps())

    def steps(self) -> tuple[Step, ...]:
        """Those of the attempt under way, or of the last one."""
        return self._attempt.progress.steps() if self._attempt is not None else self._steps

    def state(self, now: datetime) -> SupplyState:
        """What is known."""
        return SupplyState(
            kind=self.kind,
            user_id=self._user_id,
            span=self._span,
            is_served=self._span is not None and self._span.is_served(now),
            failures=self._failures,
            fetching=self._attempt is not None,
            steps=self.steps(),
            answered_by=self._answered_by,
        )

    @property
    def busy(self) -> bool:
        """Whether an attempt is under way."""
        return self._attempt is not None

    def close(self) -> None:
        """No more timers; what a thread still brings is dropped."""
        if self._wake is not None:
            self._wake.cancel()
        if self._attempt is not None:
            self._attempt.progress.stop()
            if self._attempt.overdue is not None:
                self._attempt.overdue.cancel()
            _release(self._attempt)
        self._loaded = self._span = self._renew = None

    def _settle(self, attempt: _Attempt, outcome: Loaded | Exception) -> None:
        if self._attempt is not attempt:
            return
        now = self._clock()
        self._attempt = None
        self._steps = attempt.progress.steps()
        if attempt.overdue is not None:
            attempt.overdue.cancel()
        if isinstance(outcome, Loaded):
            self._take(outcome, now)
        elif not attempt.is_overdue:
            self._fail(failure_of(outcome), now)
        _release(attempt)
        self._plan(now)

    def _take(self, loaded: Loaded, now: datetime) -> None:
        span = Span(fetch_time=now, expire_time=loaded.expire_time)
        if not span.is_served(now):
            self._steps = as_failed(self._steps, EXPIRED.cause)
            self._fail(EXPIRED, now)
            return
        first = self._loaded is None
        outage = self._failures
        self._loaded, self._span = loaded, span
        self._failures, self._failed = Failures(), None
        self._answered_by = answered_by(self._steps)
        self._used_since_fetch = False
        self._count("ok")
        facts = self._facts | {
            "step": self._answered_by,
            "expire_time": span.expire_time.isoformat() if span.expire_time else "none",
        }
        if outage.count:
            log.info("AWS credentials are there again", extra=facts | {"failed_attempts": outage.count})
        elif first:
            log.info("AWS credentials are there", extra=facts)

    def _fail(self, failed: Failed, now: datetime) -> None:
        self._failures = self._failures.after_another(now)
        self._failed = failed
        self._count("failed")
        if self._failures.count > 1:
            return
        facts = self._facts | {"cause": failed.cause, "steps": told(self._steps)}
        if self._span is not None and self._span.is_served(now):
            facts["until"] = self._span.serve_until.isoformat()
            log.warning("AWS credentials cannot be renewed; those at hand are used until they end", extra=facts)
        else:
            log.warning("AWS credentials cannot be had", extra=facts)

    def _overdue(self, attempt: _Attempt) -> None:
        if self._attempt is not attempt:
            return
        now = self._clock()
        attempt.is_overdue = True
        self._steps = attempt.progress.steps()
        self._fail(OVERDUE, now)
        _release(attempt)

    def _plan(self, now: datetime) -> None:
        """Renew by itself what is in use: when it is due, or, after a failure, when the source may be asked again."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        span = self._span
        if span is None or self._renew is None or not span.is_served(now):
            return
        then = max(self._failures.retry_time or span.refresh_time, span.refresh_time)
        seconds = max((then - now).total_seconds(), 0.0)
        self._wake = asyncio.get_running_loop().call_later(seconds, self._woken)

    def _woken(self) -> None:
        self._wake = None
        if self._used_since_fetch and self._renew is not None and self.verdict(self._clock()) in _WANTS_FETCH:
            self._renew()


_WANTS_FETCH = frozenset({Verdict.SERVE_AND_FETCH, Verdict.FETCH})


def failure_of(error: Exception) -> Failed:
    """What an exception of an attempt means."""
    if isinstance(error, AttemptFailed):
        return error.failed
    # Ours: a bug in here must not become a broader identity either. Its type says enough.
    return Failed(cause=f"it failed ({type(error).__name__})", may_pass=True)


def _release(attempt: _Attempt) -> None:
    if not attempt.ended.done():
        attempt.ended.set_result(None)
