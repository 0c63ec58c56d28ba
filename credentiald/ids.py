"""Time-ordered UUIDs (RFC 9562, version 7), always written in lower case.

Rows keyed by them are appended rather than scattered, and sorting by id is sorting by time of creation.
"""

import re
import secrets
import struct
import threading
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import final

# The digits as zeros, hyphens as they are, everything else as something else; and what a UUID is then.
_SHAPES = bytes([0x30 if chr(byte) in "0123456789abcdefABCDEF" else 0x2D if byte == 0x2D else 0 for byte in range(256)])
_SHAPE = b"00000000-0000-0000-0000-000000000000"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_WRITTEN = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII).fullmatch
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RANDOM_BITS = 74
_RANDOM_BYTES = 10
_STEP_BITS = 32
_LOW = (1 << 48) - 1
# How far the clock may step back before order gives way to truth about the time.
_TOLERATED_STEP_BACK_MILLIS = 1000


@final
class _Sequence:
    """The last time and random part given out, so that ids of one process rise even within a millisecond.

    RFC 9562, section 6.2, method 2: the random part is a counter that starts at random and rises by random steps.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millis = 0
        self._random = 0

    def next(self, millis: int) -> tuple[int, int]:
        """The time and random part of the next id, for a clock that shows `millis`."""
        step = 1 + secrets.randbits(_STEP_BITS)
        millis, start = self.reserve(millis, step)
        return millis, start + step

    def reserve(self, millis: int, span: int) -> tuple[int, int]:
        """A time, and the random part after which the caller has `span` of them for itself."""
        with self._lock:
            behind = 0 <= self._millis - millis <= _TOLERATED_STEP_BACK_MILLIS
            if behind and not (self._random + span) >> _RANDOM_BITS:
                start = self._random
            else:
                self._millis = self._millis + 1 if behind else millis
                # The top bit starts empty, so that there is room to count.
                start = secrets.randbits(_RANDOM_BITS - 1)
            self._random = start + span
            return self._millis, start


_sequence = _Sequence()


def uuid7(now: datetime, random: bytes | None = None) -> str:
    """A new id for something that begins at `now`.

    Ids of one process rise in the order of the calls while its clock does. With `random` (at least 10 bytes) the
    result depends on the arguments alone.
    """
    millis = (now - _EPOCH) // timedelta(milliseconds=1)
    if random is None:
        millis, tail = _sequence.next(millis)
    else:
        if len(random) < _RANDOM_BYTES:
            raise ValueError(f"a UUID needs {_RANDOM_BYTES} random bytes")
        tail = int.from_bytes(random[:_RANDOM_BYTES], "big") & ((1 << _RANDOM_BITS) - 1)
    return _written(millis, tail)


def uuid7_many(now: datetime, count: int) -> list[bytes]:
    """As many new ids that begin at `now`, in ASCII, rising in their order; cheaper than one at a time."""
    steps = struct.unpack(f"<{count}I", secrets.token_bytes(4 * count))
    span = sum(steps) + count
    millis, start = _sequence.reserve((now - _EPOCH) // timedelta(milliseconds=1), span)
    # The place makes each step at least one.
    totals = enumerate(accumulate(steps), 1)
    low = start & _LOW
    if low + span > _LOW:
        return [_written(millis, start + total + place).encode() for place, total in totals]
    # They differ in nothing but their last twelve digits.
    head = _written(millis, start)[:-12].encode()
    return [head + b"%012x" % (low + total + place) for place, total in totals]


def _written(millis: int, tail: int) -> str:
    """Layout of RFC 9562, section 5.7: 48 bits of time, version, 12 bits, variant, 62 bits."""
    high, middle, low = tail >> 62, tail >> 48 & 0x3FFF | 0x8000, tail & _LOW
    return f"{millis >> 16 & 0xFFFFFFFF:08x}-{millis & 0xFFFF:04x}-7{high:03x}-{middle:04x}-{low:012x}"


def canonical_uuid(text: str) -> str | None:
    """The id as we write it, for a UUID of any version in either case; None for everything else.

    Only the form 8-4-4-4-12 counts: braces, `urn:uuid:` and missing hyphens would be second names for one thing.
    """
    lowered = text.lower()
    return lowered if _UUID.fullmatch(lowered) else None


def uuid_bytes(text: str) -> bytes | None:
    """A UUID in the form 8-4-4-4-12 as ASCII, its case kept; None for everything else. The cheap way to ask."""
    raw = text.encode("utf-8", "surrogatepass")
    return raw if raw.translate(_SHAPES) == _SHAPE else None


def is_uuid(text: str) -> bool:
    """Whether this is a UUID in the form 8-4-4-4-12, in either case."""
    return _WRITTEN(text) is not None
