"""What happens when in scripts/chaos: the faults there are, and the order that a seed makes of them. No I/O."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of fault: how long it lasts at least and at most. `short`: the campaign of CI has it, too."""

    text: str
    seconds: tuple[float, float]
    short: bool = True


KINDS = {
    "kill-credentiald": Kind(text="kill -9 of credentiald, and another one after that time", seconds=(0.0, 1.5)),
    "kill-bridge": Kind(text="kill -9 of a bridge, and another one", seconds=(0.0, 0.5), short=False),
    "drain-bridge": Kind(text="SIGTERM for a bridge, beside its successor", seconds=(0.0, 0.0)),
    "stop-credentiald": Kind(text="SIGSTOP of credentiald, then SIGCONT", seconds=(0.5, 7.0)),
    "stop-bridge": Kind(text="SIGSTOP of a bridge, then SIGCONT", seconds=(0.5, 4.0)),
    "slow-link": Kind(text="bridge to credentiald: delayed and throttled", seconds=(1.0, 3.0)),
    "silent-link": Kind(text="bridge to credentiald: accepted, and silent", seconds=(0.5, 6.5)),
    "broken-link": Kind(text="bridge to credentiald: reset, cut short, half closed", seconds=(0.5, 2.0)),
    "corrupt-link": Kind(text="bridge to credentiald: a byte changed in each connection", seconds=(0.5, 2.0)),
    "refused-link": Kind(text="bridge to credentiald: connections refused", seconds=(0.5, 3.0)),
    "client-link": Kind(text="clients to a bridge: everything that can be wrong with a link", seconds=(1.0, 3.0)),
    "upstream-link": Kind(text="bridge to an upstream: everything that can be wrong with a link", seconds=(1.0, 3.0)),
    "full-disk": Kind(text="no room left for credentiald's files", seconds=(1.0, 5.0)),
    "clock-forward": Kind(text="a daemon's clock minutes ahead, and back again", seconds=(0.5, 3.0)),
    "clock-back": Kind(text="a daemon's clock minutes behind, and right again", seconds=(0.5, 3.0)),
    "broken-tls": Kind(text="certificate files swapped for broken ones, then for new ones", seconds=(1.0, 2.0)),
    "noise": Kind(text="a smuggling corpus at a bridge, noise at credentiald's listener", seconds=(0.0, 0.0)),
    "seal-rotation": Kind(text="the sealing key is rotated", seconds=(0.0, 0.0)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One fault. `dice` is a seed of its own for what else it needs chance for."""

    number: int
    fault: str
    seconds: float
    rest_seconds: float
    dice: int


def steps(seed: int, faults: Sequence[str], rest_seconds: tuple[float, float] = (0.3, 1.5)) -> Iterator[Step]:
    """Without an end: rounds of all faults, each round in another order."""
    dice = random.Random(f"{seed}:schedule")
    number = 0
    while True:
        for fault in dice.sample(list(faults), len(faults)):
            yield Step(
                number=number,
                fault=fault,
                seconds=dice.uniform(*KINDS[fault].seconds),
                rest_seconds=dice.uniform(*rest_seconds),
                dice=dice.randrange(2**31),
            )
            number += 1


@dataclass(slots=True, kw_only=True)
class Window:
    """When a fault was there, on the monotonic clock; `recovered` is when the pair was well again, None if never."""

    fault: str
    began: float
    ended: float
    recovered: float | None = None
    # What was done, for the reader.
    detail: str = ""

    def recovery_seconds(self) -> float | None:
        """From the end of the fault on."""
        return None if self.recovered is None else max(0.0, self.recovered - self.ended)


def excused(began: float, ended: float, windows: Sequence[Window], *, slack_seconds: float) -> bool:
    """Whether a request of that time may have met a fault, or its consequences."""
    return any(
        began <= (window.recovered or float("inf")) + slack_seconds and window.began - slack_seconds <= ended
        for window in windows
    )
