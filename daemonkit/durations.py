"""Durations as operators write them: `60d`, `2160h`, `90m`, `30s`, `500ms`, `1h30m`, `0`."""

import re
from datetime import timedelta

_FORM = re.compile(
    r"(?:(?P<days>[0-9]+)d)?(?:(?P<hours>[0-9]+)h)?(?:(?P<minutes>[0-9]+)m(?!s))?"
    r"(?:(?P<seconds>[0-9]+)s)?(?:(?P<milliseconds>[0-9]+)ms)?"
)
_EXAMPLES = "write for example 60d, 12h, 90m, 30s, 500ms, 1h30m or 0"


def parse_duration(text: str) -> timedelta:
    """The duration, never negative; ValueError says what a duration looks like.

    Units go from large to small, each at most once. A number needs its unit; only `0` goes without.
    """
    trimmed = text.strip()
    if trimmed == "0":
        return timedelta()
    found = _FORM.fullmatch(trimmed)
    if not found or not trimmed:
        raise ValueError(f"{text!r} is not a duration: {_EXAMPLES}")
    try:
        return timedelta(**{unit: int(number) for unit, number in found.groupdict(default="0").items()})
    except (OverflowError, ValueError) as error:  # more days than a timedelta holds, more digits than int reads
        raise ValueError(f"{text[:40]!r} is too long a duration") from error


def parse_timeout(text: str) -> timedelta:
    """A duration that is more than nothing."""
    duration = parse_duration(text)
    if not duration:
        raise ValueError("a time limit must be longer than 0")
    return duration
