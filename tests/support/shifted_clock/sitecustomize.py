"""Shifts the wall clock of a Python that has this folder on its path, workers that it starts included.

DRAWBRIDGE_CLOCK_FILE names a file of eight bytes, a double in seconds, which may change at any time: `time.time`,
`time.time_ns` and what `datetime` makes of now are off by that much. Clocks that only go forward are left alone, as
they are where an administrator sets a machine's clock; so is what libraries in C ask the kernel for (gRPC, SQLite).
"""

from __future__ import annotations

import datetime as datetime_module
import mmap
import os
import struct
import time
from typing import Any

_DOUBLE = struct.Struct("d")


def shift(path: str) -> None:
    """Put the shifted clock in the place of the real one."""
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), _DOUBLE.size, access=mmap.ACCESS_READ)
    real_time, real_time_ns, real = time.time, time.time_ns, datetime_module.datetime

    def shift_seconds() -> float:
        return float(_DOUBLE.unpack_from(shared)[0])

    class Meta(type(real)):  # type: ignore[misc]
        """What C makes is one of us."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

    class Datetime(real, metaclass=Meta):
        """The same but for what time it is now."""

        @classmethod
        def now(cls, tz: datetime_module.tzinfo | None = None) -> Any:
            return real.now(tz) + datetime_module.timedelta(seconds=shift_seconds())

        @classmethod
        def utcnow(cls) -> Any:
            return real.utcnow() + datetime_module.timedelta(seconds=shift_seconds())

    time.time = lambda: real_time() + shift_seconds()
    time.time_ns = lambda: real_time_ns() + int(shift_seconds() * 1e9)
    datetime_module.datetime = Datetime  # type: ignore[misc,assignment]


if "DRAWBRIDGE_CLOCK_FILE" in os.environ:
    shift(os.environ["DRAWBRIDGE_CLOCK_FILE"])
