"""Ids of interceptions: UUIDs of version 7 (RFC 9562), so that they sort by time and index well."""

import os
import time

# Random bytes are asked for in blocks: one system call for many ids.
_BLOCK_IDS = 256
_ID_BYTES = 10


class _Random:
    """Ten random bytes at a time."""

    def __init__(self) -> None:
        self._block = b""
        self._position = 0

    def take(self) -> bytes:
        """Bytes that were given to nobody else."""
        position = self._position
        if position >= len(self._block):
            self._block, position = os.urandom(_BLOCK_IDS * _ID_BYTES), 0
        self._position = position + _ID_BYTES
        return self._block[position : position + _ID_BYTES]


_random = _Random()


# RFC 9562, 4.1: the variant's two bits are 10.
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_interception_id() -> str:
    """A new id for a request that arrives now."""
    tail = _random.take().hex()
    millis = f"{time.time_ns() // 1_000_000:012x}"
    # Layout of RFC 9562, 5.7: the version is 7.
    return f"{millis[:8]}-{millis[8:]}-7{tail[:3]}-{_VARIANTS[tail[3]]}{tail[4:7]}-{tail[7:19]}"
