"""Whether the machine stood still while scripts/records_scale measured: a process beside it does nothing but sleep and
notes when it came late, and how long some process waited for the disk meanwhile (where the kernel says so: Linux,
Documentation/accounting/psi.rst). What is slow in such a moment says little of what was asked.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_SLEEP_SECONDS = 0.005
NOTED_SECONDS = 0.01
_DISK = Path("/proc/pressure/io")


@dataclass(frozen=True, slots=True)
class Moment:
    """From when to when (time.perf_counter, which all processes of a machine share), and seconds of it: for how long
    nothing ran that was to run, and for how long something waited for the disk."""

    begin: float
    end: float
    still: float
    disk: float


@dataclass(slots=True)
class Machine:
    """The moments of a time that is over."""

    moments: list[Moment] = field(default_factory=list)

    def during(self, begin: float, end: float) -> Moment:
        """What of them lies between."""
        found = [one for one in self.moments if one.begin < end and one.end > begin]
        return Moment(begin, end, sum(one.still for one in found), sum(one.disk for one in found))

    def longest_still(self) -> float:
        """Seconds for which nothing ran at once, 0 if that was not noticed."""
        return max((one.still for one in self.moments), default=0.0)


@contextmanager
def watched() -> Iterator[Machine]:
    """What is yielded has its moments when the block is left."""
    machine = Machine()
    with tempfile.TemporaryFile("w+") as noted:
        watcher = subprocess.Popen([sys.executable, "-S", __file__], stdout=noted)
        try:
            yield machine
        finally:
            watcher.terminate()
            watcher.wait()
        noted.seek(0)
        machine.moments += [Moment(*map(float, line.split())) for line in noted if line.endswith("\n")]


def _watch() -> None:
    """Until killed."""
    before, waited = time.perf_counter(), _disk_seconds()
    while True:
        time.sleep(_SLEEP_SECONDS)
        now, waiting = time.perf_counter(), _disk_seconds()
        still, disk = now - before - _SLEEP_SECONDS, waiting - waited
        if max(still, disk) >= NOTED_SECONDS:
            print(before, now, still, disk, flush=True)
        before, waited = now, waiting


def _disk_seconds() -> float:
    """For how long some process has waited for a disk, since the machine began."""
    try:
        return int(_DISK.read_text().partition("total=")[2].split()[0]) / 1_000_000
    except OSError:
        return 0.0


if __name__ == "__main__":
    _watch()
