"""Who is trying a key whose rest is over, as far as this process has given it out."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from credentiald.bridge_instances import Instance

# Who tries a key and says nothing for so long is not waited for.
CLAIM = timedelta(seconds=30)
_MOST = 4096


class ProbeClaims:
    """By credential and bridge, until when its try is waited for. At most `most`; the oldest makes room."""

    def __init__(self, most: int = _MOST) -> None:
        self._ends: dict[str, dict[Instance, datetime]] = {}
        self._in_order: dict[tuple[str, Instance], None] = {}
        self._most = most

    def __len__(self) -> int:
        return len(self._in_order)

    @property
    def ends(self) -> Mapping[str, Mapping[Instance, datetime]]:
        """All of them, also those whose time is over."""
        return self._ends

    def take(self, credential_id: str, instance: Instance, now: datetime) -> None:
        """A request of this bridge tries the key from now on."""
        self.give_back(credential_id, instance)
        self._forget_old(now)
        self._ends.setdefault(credential_id, {})[instance] = now + CLAIM
        self._in_order[credential_id, instance] = None

    def give_back(self, credential_id: str, instance: Instance) -> None:
        """The bridge has told how the key fared."""
        if (credential_id, instance) in self._in_order:
            del self._in_order[credential_id, instance]
            of_key = self._ends[credential_id]
            del of_key[instance]
            if not of_key:
                del self._ends[credential_id]

    def _forget_old(self, now: datetime) -> None:
        # The oldest come first, and each lasts as long as the others.
        while self._in_order:
            credential_id, instance = next(iter(self._in_order))
            if len(self) < self._most and self._ends[credential_id][instance] > now:
                return
            self.give_back(credential_id, instance)
