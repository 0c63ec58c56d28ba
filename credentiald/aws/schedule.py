"""When a credential is served, when it is fetched anew, and how long a failing source is left alone. Decisions only.

`now` is always an aware UTC datetime of one clock. The rules, with a credential's lifetime as it was when it came:
- It is served until its end less a margin: a tenth of the lifetime, at most a minute, for clocks that differ and for
  the way to AWS.
- It is fetched anew when a quarter of the lifetime is left, at most 15 minutes. A source that gives the same credential
  again (EC2, until five minutes before the end) is asked again when a quarter of what was left is left, and not
  at each use.
- One without an end is looked at every 5 minutes, because files change, and is served for an hour after its source
  last said so.
- After a failure the source is left alone for 1, 2, 4, 8 and then always 15 seconds.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MAX_MARGIN = timedelta(minutes=1)
MAX_LEAD = timedelta(minutes=15)
LOOK_AT_LASTING = timedelta(minutes=5)
SERVE_LASTING = timedelta(hours=1)
_MARGIN_PART = 10
_LEAD_PART = 4
_PAUSES_SECONDS = (1, 2, 4, 8, 15)
# How long an answer made of a credential that is due for a new one is kept.
_LOOK_AGAIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """When a credential was fetched, and when it ends; None for one that does not say."""

    fetch_time: datetime
    expire_time: datetime | None = None

    @property
    def serve_until(self) -> datetime:
        """From then on it is not given to anybody."""
        if self.expire_time is None:
            return self.fetch_time + SERVE_LASTING
        return self.expire_time - min(MAX_MARGIN, self._lifetime / _MARGIN_PART)

    @property
    def refresh_time(self) -> datetime:
        """From then on a new one is wanted."""
        if self.expire_time is None:
            return self.fetch_time + LOOK_AT_LASTING
        return self.expire_time - min(MAX_LEAD, self._lifetime / _LEAD_PART)

    @property
    def _lifetime(self) -> timedelta:
        return max((self.expire_time or self.fetch_time) - self.fetch_time, timedelta())

    def is_served(self, now: datetime) -> bool:
        """Whether it may be given out at `now`."""
        return now < self.serve_until

    def is_due(self, now: datetime) -> bool:
        """Whether a new one is wanted; also when the clock was set back to before this one was fetched."""
        return not self.fetch_time <= now < self.refresh_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Failed attempts in a row, since when, and when the last of them failed."""

    count: int = 0
    first_time: datetime | None = None
    last_time: datetime | None = None

    def after_another(self, now: datetime) -> "Failures":
        """With one more, at `now`."""
        return Failures(count=self.count + 1, first_time=self.first_time or now, last_time=now)

    @property
    def retry_time(self) -> datetime | None:
        """When the source may be asked again; None for at any time."""
        if self.last_time is None:
            return None
        pause = _PAUSES_SECONDS[min(self.count, len(_PAUSES_SECONDS)) - 1]
        return self.last_time + timedelta(seconds=pause)

    def allow(self, now: datetime) -> bool:
        """Whether the source may be asked at `now`; also when the clock was set back to before the last failure."""
        return self.last_time is None or self.retry_time is None or not self.last_time <= now < self.retry_time


class Verdict(StrEnum):
    """What becomes of a request that needs the credential."""

    SERVE = "SERVE"
    SERVE_AND_FETCH = "SERVE_AND_FETCH"
    FETCH = "FETCH"
    WAIT = "WAIT"
    REFUSE = "REFUSE"


def decide(now: datetime, span: Span | None, failures: Failures, *, fetching: bool, stuck: bool) -> Verdict:
    """What to do. `fetching`: an attempt is under way; `stuck`: it is overdue, counted as failed, and not over yet.

    A source that is stuck is not asked a second time: its thread is still there.
    """
    may_fetch = not fetching and failures.allow(now)
    if span is not None and span.is_served(now):
        return Verdict.SERVE_AND_FETCH if span.is_due(now) and may_fetch else Verdict.SERVE
    if fetching:
        return Verdict.REFUSE if stuck else Verdict.WAIT
    return Verdict.FETCH if may_fetch else Verdict.REFUSE


def look_again_time(now: datetime, span: Span) -> datetime:
    """Until when an answer made of the credential counts without asking again."""
    if span.is_due(now):
        return min(span.serve_until, now + _LOOK_AGAIN)
    return min(span.serve_until, span.refresh_time)
