"""Ids of interceptions and records: UUIDs of version 7 (RFC 9562), so that they sort by time and index well."""

import os
import time
from collections.abc import Iterator

# Random bytes are asked for in blocks: one system call for many ids.
_BLOCK_IDS = 256
_ID_BYTES = 10


# RFC 9562, 4.1: the variant's two bits are 10.
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class _Ids:
    """Ids, of which nearly everything is made ahead: the random ends in blocks, the beginning once a millisecond."""

    def __init__(self) -> None:
        self._ends: Iterator[str] = iter(())
        self._millis = 0
        self._beginning = ""

    def new(self) -> str:
        """A new id for what begins or happens now."""
        end = next(self._ends, None)
        if end is None:
            self._ends = iter(_random_ends())
            end = next(self._ends)
        millis = time.time_ns() // 1_000_000
        if millis != self._millis:
            self._millis, self._beginning = millis, _beginning(millis)
        return self._beginning + end


def _random_ends() -> list[str]:
    """What stands behind the version of as many new ids."""
    block = os.urandom(_BLOCK_IDS * _ID_BYTES).hex()
    step = 2 * _ID_BYTES
    tails = [block[place : place + step] for place in range(0, len(block), step)]
    return [f"{tail[:3]}-{_VARIANTS[tail[3]]}{tail[4:7]}-{tail[7:19]}" for tail in tails]


new_id = _Ids().new


def smallest_id() -> str:
    """An id that is not larger than any that is made from now on, as long as the clock is not set back."""
    return f"{_beginning(time.time_ns() // 1_000_000)}000-8000-000000000000"


def _beginning(millis: int) -> str:
    """Layout of RFC 9562, 5.7: 48 bits of time, then the version, which is 7."""
    digits = f"{millis:012x}"
    return f"{digits[:8]}-{digits[8:]}-7"
