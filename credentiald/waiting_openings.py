"""Openings that are not on the disk yet, in the order in which they came, up to a bound."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from credentiald import record_merge
from credentiald.record_model import Decided, Noted, Opening, OpeningRow
from credentiald.resolve import upstream_model
from credentiald.usual_report import OpeningColumns, Told

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
        for one in noted:
            there = openings.setdefault(one[0], one)
            if there is not one:
                openings[one[0]] = record_merge.noted_again(there, one)
        excess = len(openings) - MOST_OPENINGS
        if excess <= 0:
            return 0
        for key in list(islice(openings, excess)):
            del openings[key]
        return excess

    def of(self, reports: Sequence[Told]) -> dict[bytes, Noted]:
        """Those of the interceptions that are reported."""
        openings = self._noted
        return {key: openings[key] for key in [one[0].encode() for one in reports] if key in openings}

    def have(self, noted: Sequence[Noted], *, besides: Mapping[bytes, Noted]) -> bool:
        """Whether each of these waits as it was, comes once, and is none of the others."""
        keys = [one[0] for one in noted]
        return (
            list(map(self._noted.get, keys)) == noted
            and len(set(keys)) == len(keys)
            and besides.keys().isdisjoint(keys)
        )

    def add_oldest(
        self, due: dict[bytes, Noted], matched: Sequence[Noted], *, young_micros: int, now_micros: int
    ) -> None:
        """Add to these the oldest that are not matched, up to what one transaction takes; none that came after
        `young_micros`."""
        most = OPENINGS_AT_ONCE - len(matched)
        left_out: set[bytes] | None = None
        for key, one in self._noted.items():
            # In the order in which they came, so the rest is younger; from the future, where the clock was set back.
            if len(due) >= most or young_micros < one[-1] <= now_micros:
                break
            # Under load, the first is young already.
            if left_out is None:
                left_out = {each[0] for each in matched}
            if key not in left_out:
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
    return list(zip(*opening_columns(noted), strict=True)) if noted else []


def opening_columns(noted: Sequence[Noted]) -> OpeningColumns:
    """The same as columns. Of one at least."""
    columns: Any = zip(*noted, strict=True)
    ids, resolution_ids, decisions, models, clients, bridge_instance_ids, _, times = columns
    origins, operations, upstream_models = _decided_columns(decisions, models)
    texts = list(map(bytes.decode, ids)), list(map(bytes.decode, resolution_ids))
    values = (*texts, origins, bridge_instance_ids, operations, models, upstream_models, clients, times)
    return Opening._make(values)


def _decided_columns(decisions: Sequence[Decided], models: Sequence[str]) -> tuple[list[Any], ...]:
    """Origins, operations and models of the upstream."""
    count, first = len(decisions), decisions[0]
    # To count one value takes a tenth of what looking at each does, and few providers have models of their own.
    if first.bedrock is None and decisions.count(first) == count:
        return [first.origin] * count, [first.operation] * count, [""] * count
    return (
        [one.origin for one in decisions],
        [one.operation for one in decisions],
        [
            "" if decided.bedrock is None else upstream_model(decided.bedrock, model)
            for decided, model in zip(decisions, models, strict=True)
        ],
    )
