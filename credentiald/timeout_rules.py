"""What the time-outs of a provider may be. Decisions only; who reads them from where is told in the words of both."""

from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta

from credentiald.model import Timeouts
from daemonkit.durations import parse_duration

# In the order of the fields of Timeouts.
TIMEOUT_FIELDS = tuple(one.name for one in fields(Timeouts))
_SHORTEST, _LONGEST = timedelta(milliseconds=1), timedelta(hours=24)


def timeout_problems(timeouts: Timeouts) -> Iterator[tuple[str, str]]:
    """The field and what is wrong with it, for each that is wrong."""
    for name in TIMEOUT_FIELDS:
        value: timedelta | None = getattr(timeouts, name)
        if value is not None and not _SHORTEST <= value <= _LONGEST:
            yield name, "must be from 1ms to 24h"


def parse_provider_timeout(text: str) -> timedelta | None:
    """A duration; None, which is as the bridge is set, for 0. ValueError says what is wrong."""
    duration = parse_duration(text)
    if duration > _LONGEST:
        raise ValueError("must be from 1ms to 24h")
    return duration or None
