"""Ids of interceptions and records: UUIDs of version 7 (RFC 9562), so that they sort by time and index well."""

import os
import time
from collections.abc import Iterator

# Random bytes are asked for in blocks: one system call for many ids.
_BLOCK_IDS = 256
_ID_BYTES = 10


# RFC 9562, 4.1: the variant's two bits are 10.
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class _Digits:
    """Twenty random hexadecimal digits at a time."""

    def __init__(self) -> None:
        self._block: Iterator[str] = iter(())

    def take(self) -> str:
        """Digits that were given to nobody else."""
        digits = next(self._block, None)
        if digits is None:
            block = os.urandom(_BLOCK_IDS * _ID_BYTES).hex()
            step = 2 * _ID_BYTES
            self._block = iter([block[place : place + step] for place in range(0, len(block), step)])
            digits = next(self._block)
        return digits


_digits = _Digits()


def new_id() -> str:
    """A new id for what begins or happens now."""
    tail = _digits.take()
    millis = _millis()
    # Layout of RFC 9562, 5.7: the version is 7.
    return f"{millis[:8]}-{millis[8:]}-7{tail[:3]}-{_VARIANTS[tail[3]]}{tail[4:7]}-{tail[7:19]}"


def smallest_id() -> str:
    """An id that is not larger than any that is made from now on, as long as the clock is not set back."""
    millis = _millis()
    return f"{millis[:8]}-{millis[8:]}-7000-8000-000000000000"


def _millis() -> str:
    return f"{time.time_ns() // 1_000_000:012x}"
