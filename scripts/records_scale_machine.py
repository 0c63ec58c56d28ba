"""What the machine did while scripts/records_scale measured: whether it stood still, as a process beside it that does
nothing but sleep sees it, and what CPU and disk the measuring process had. What is slow while the machine stands still,
or reads from a busy disk, says little of what was asked.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

_SLEEP_SECONDS = 0.005
NOTED_SECONDS = 0.01
# getrusage(2) counts in them, whatever the disk has.
_BLOCK_BYTES = 512


class Taken(NamedTuple):
    """What this process has taken so far, all threads together, and when that was (time.perf_counter)."""

    at: float
    cpu_seconds: float
    read_bytes: int

    @classmethod
    def now(cls) -> Taken:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.perf_counter(), used.ru_utime + used.ru_stime, used.ru_inblock * _BLOCK_BYTES)


@dataclass(slots=True)
class Machine:
    """A time that is over: from when to when nothing ran that was to run (time.perf_counter, which all processes of a
    machine share)."""

    still: list[tuple[float, float]] = field(default_factory=list)

    def still_seconds(self, begin: float, end: float) -> float:
        """For how long, between these."""
        return sum(max(0.0, min(end, last) - max(begin, first)) for first, last in self.still)

    def longest_still_seconds(self) -> float:
        """At once; what is shorter than NOTED_SECONDS was not noticed."""
        return max((last - first for first, last in self.still), default=NOTED_SECONDS)


@contextmanager
def watched() -> Iterator[Machine]:
    """What is yielded is whole when the block is left."""
    machine = Machine()
    with tempfile.TemporaryFile("w+") as noted:
        watcher = subprocess.Popen([sys.executable, "-S", __file__], stdout=noted)
        try:
            yield machine
        finally:
            watcher.terminate()
            watcher.wait()
        noted.seek(0)
        for line in noted:
            if line.endswith("\n"):
                first, last = map(float, line.split())
                machine.still.append((first, last))


def _watch() -> None:
    """Until killed."""
    due = time.perf_counter() + _SLEEP_SECONDS
    while True:
        time.sleep(_SLEEP_SECONDS)
        now = time.perf_counter()
        if now - due >= NOTED_SECONDS:
            print(due, now, flush=True)
        due = now + _SLEEP_SECONDS


if __name__ == "__main__":
    _watch()
