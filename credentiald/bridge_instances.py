"""Bridges that were heard of lately, and up to which interception each has told everything.

Bridges choose the ids of their instances, so there is a bound to how many of one service are known at a time.
"""

from collections.abc import Mapping

INSTANCE_CHARACTERS = 64
# Of one service; a new one takes the place of one that has been silent for so long that it counts as vanished.
MOST_INSTANCES = 4096
SILENT_MICROS = 60_000_000
# How often it is written down that a bridge is there.
_WRITTEN_MICROS = 10_000_000

# The service's id and the id that the bridge chose.
Instance = tuple[str, str]


class Instances:
    """What one process has heard. Times are microseconds since 1970."""

    def __init__(self, most: int = MOST_INSTANCES) -> None:
        self._most = most
        # By service; the one that was heard of last is the last.
        self._heard: dict[str, dict[str, int]] = {}
        self._written: dict[Instance, int] = {}
        self._marks: dict[Instance, str] = {}
        self._marks_before: dict[Instance, str] = {}

    def __len__(self) -> int:
        return sum(map(len, self._heard.values()))

    def __contains__(self, instance: Instance) -> bool:
        return instance[1] in self._heard.get(instance[0], ())

    def heard(self, instance: Instance, micros: int) -> bool:
        """A bridge was heard of; whether that is to be written down."""
        service_id, instance_id = instance
        known = self._heard.setdefault(service_id, {})
        if known.pop(instance_id, None) is None and len(known) >= self._most:
            oldest, heard_micros = next(iter(known.items()))
            if micros - heard_micros < SILENT_MICROS:
                return False
            self._forget((service_id, oldest))
        known[instance_id] = micros
        return micros - self._written.get(instance, 0) >= _WRITTEN_MICROS

    def told(self, instance: Instance, mark: str) -> None:
        """No interception of this bridge below the mark is under way or waits to be reported; empty for not told."""
        if mark and instance[1] in self._heard.get(instance[0], ()):
            self._marks[instance] = mark
        else:
            self._marks.pop(instance, None)

    def settled(self) -> dict[Instance, str]:
        """Below which interception nothing more will be heard of each bridge.

        That is what it said at the time of the last call, so that openings which were in memory then are in the file;
        less, where it says less now, as when its clock was set back.
        """
        before, self._marks_before = self._marks_before, self._marks.copy()
        return {one: min(mark, before[one]) for one, mark in self._marks.items() if one in before}

    def unwritten(self, *, all_newer: bool = False) -> dict[Instance, int]:
        """What is to be written down: where the file is far behind, or all where it is behind at all."""
        least = 1 if all_newer else _WRITTEN_MICROS
        return {
            (service_id, instance_id): micros
            for service_id, known in self._heard.items()
            for instance_id, micros in known.items()
            if micros - self._written.get((service_id, instance_id), 0) >= least
        }

    def written(self, heard: Mapping[Instance, int]) -> None:
        """These have been written down."""
        for (service_id, instance_id), micros in heard.items():
            if instance_id in self._heard.get(service_id, ()):
                self._written[service_id, instance_id] = micros

    def forget(self, *, before_micros: int) -> None:
        """Forget bridges that were last heard of before that time."""
        for service_id, known in self._heard.items():
            for instance_id in [one for one, micros in known.items() if micros < before_micros]:
                self._forget((service_id, instance_id))

    def _forget(self, instance: Instance) -> None:
        self._heard[instance[0]].pop(instance[1], None)
        for one in (self._written, self._marks, self._marks_before):
            one.pop(instance, None)
