"""Openings that are not on the disk yet, in the order in which they came, up to a bound."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from credentiald import record_merge
from credentiald.record_model import Noted, OpeningRow
from credentiald.resolve import upstream_model
from credentiald.usual_report import Told

MOST_OPENINGS = 200_000
# Of one transaction.
OPENINGS_AT_ONCE = 2000


class WaitingOpenings:
    """By interception. Each stays until it is on the disk: `stored`."""

    def __init__(self) -> None:
        self._noted: dict[bytes, Noted] = {}

    def __len__(self) -> int:
        return len(self._noted)

    @property
    def by_interception(self) -> Mapping[bytes, Noted]:
        """All of them."""
        return self._noted

    def oldest_micros(self) -> int | None:
        """When the oldest came, None where there is none."""
        return next((one[-1] for one in self._noted.values()), None)

    def add(self, noted: Sequence[Noted]) -> int:
        """More of them; how many of the oldest had to be dropped for these."""
        openings = self._noted
        fresh = {one[0]: one for one in noted}
        if len(fresh) == len(noted) and openings.keys().isdisjoint(fresh):
            openings.update(fresh)
        else:
            for one in noted:
                openings[one[0]] = record_merge.noted_again(openings.get(one[0]), one)
        excess = max(len(openings) - MOST_OPENINGS, 0)
        for key in list(islice(openings, excess)):
            del openings[key]
        return excess

    def of(self, reports: Sequence[Told]) -> dict[bytes, Noted]:
        """Those of the interceptions that are reported."""
        openings = self._noted
        return {key: openings[key] for key in [one[0].encode() for one in reports] if key in openings}

    def add_oldest(self, due: dict[bytes, Noted], *, young_micros: int, now_micros: int) -> None:
        """Add to these the oldest, up to what one transaction takes; none that came after `young_micros`."""
        for key, one in self._noted.items():
            # In the order in which they came, so the rest is younger; from the future, where the clock was set back.
            if len(due) >= OPENINGS_AT_ONCE or young_micros < one[-1] <= now_micros:
                break
            due[key] = one

    def are_enough(self, noted: Sequence[Noted]) -> bool:
        """Whether one transaction takes no more than these."""
        return len(noted) >= OPENINGS_AT_ONCE

    def stored(self, noted: Sequence[Noted]) -> None:
        """These are on the disk."""
        openings = self._noted
        for one in noted:
            # One that was noted again meanwhile is another.
            if openings.get(one[0]) is one:
                del openings[one[0]]


def opening_rows(noted: Sequence[Noted]) -> list[OpeningRow]:
    """What was noted, as it is stored."""
    if not noted:
        return []
    columns: Any = zip(*noted, strict=True)
    ids, resolution_ids, decisions, models, clients, bridge_instance_ids, _, times = columns
    origins, operations, bedrock, *_ = zip(*decisions, strict=True)
    upstream_models = [
        # Few providers have models of their own.
        "" if options is None else upstream_model(options, model)
        for options, model in zip(bedrock, models, strict=True)
    ]
    texts = map(bytes.decode, ids), map(bytes.decode, resolution_ids)
    return list(
        zip(*texts, origins, bridge_instance_ids, operations, models, upstream_models, clients, times, strict=True)
    )
