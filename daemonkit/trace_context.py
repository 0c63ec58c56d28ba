"""The context of a trace as it travels: `traceparent` (W3C Trace Context, 3.2), read and written without a library.

Pure. What does not follow the format counts as not there, because a caller's mistake is no reason to refuse a request.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

# Version 00 ends after the flags; a later one may go on after another dash. ff is no version.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED = 0x01


class TraceParent(NamedTuple):
    """The span that somebody else is in: numbers, never zero. `is_sampled`: its side records it."""

    trace_id: int
    span_id: int
    is_sampled: bool


def parse_trace_parent(values: Sequence[str]) -> TraceParent | None:
    """What the values of all `traceparent` headers say; None for none, for several, and for what is not well-formed."""
    if len(values) != 1:
        return None
    found = _TRACEPARENT.fullmatch(values[0].strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "00" and more is not None:
        return None
    parent = TraceParent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return parent if parent.trace_id and parent.span_id else None


def trace_parent_text(trace_id: int, span_id: int, *, is_sampled: bool) -> str:
    """The value of `traceparent` for a span of ours."""
    return f"00-{trace_id:032x}-{span_id:016x}-{_SAMPLED if is_sampled else 0:02x}"
