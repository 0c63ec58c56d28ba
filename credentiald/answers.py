"""Decided answers, kept for the next request of the same token to the same provider.

This is the one place where opened keys stay in memory (SECURITY.md says so). Its rules:
- An answer counts only while the store is in the state in which it was decided; one commit, by this process or by
  another, and all of them are forgotten. So a revoke or a rotation needs no message to be obeyed.
- An answer counts no longer than the token and the credential it was made of, and at most `MAX_AGE`.
- Where bridges complain of keys of a pool, an answer counts for one bridge, and until the keys' health may change by
  itself; a key that is only tried is for one request and never kept.
- Refusals are not kept: a flood of bad tokens evicts nothing, and what was refused is looked at again each time.
- Tokens are in here as hashes only. Nothing here prints what it holds.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from credentiald.model import BedrockOptions
from credentiald.record_model import Decided

MAX_AGE = timedelta(seconds=60)
CAPACITY = 4096

# Service id, hash of the access token, provider, operation, whether the request presents a key. The model is not in
# it: what it changes is told from `Kept.bedrock` for each request, and its names are the client's to invent.
Key = tuple[str, bytes, str, str, bool]
# The same, and the bridge's instance id, for what is decided for one bridge.
_OwnKey = tuple[str, bytes, str, str, bool, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One decision, as the bytes of its message without what differs from request to request.

    `before` and `between` stand around the resolution id in a reply to a request in the usual form
    (reply_bytes.usual). `receipt_part` is that of receipts.unchanged_part, `source` the name of the credential's
    source, `decided` what openings say, `bedrock` what maps models, `revision` of the state that decided. It counts
    from `decide_time` until `expire_time`, and only for the bridge instance `only_for` where that is set.
    """

    message: bytes = field(repr=False)
    before: bytes = field(repr=False)
    between: bytes = field(repr=False)
    receipt_part: bytes
    source: str
    decided: Decided
    bedrock: BedrockOptions | None
    revision: int
    decide_time: datetime
    expire_time: datetime
    only_for: str | None = None


def counts_until(decide_time: datetime, expire_time: datetime | None) -> datetime:
    """How long a decision may be kept whose token or credential ends at `expire_time`; None for never."""
    oldest = decide_time + MAX_AGE
    return oldest if expire_time is None else min(oldest, expire_time)


class Answers:
    """At most `capacity` answers, the oldest of which makes room. `state` is any value that names the store's state."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._kept: dict[Key | _OwnKey, Kept] = {}
        self._has_own = False
        self._capacity = capacity
        self._state: object = None

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"Answers({len(self._kept)})"

    def renew(self, state: object) -> None:
        """Call before `find`: forget everything unless the store is as it was. None for "not known"."""
        if state != self._state or state is None:
            self._kept.clear()
            self._has_own = False
            self._state = state

    def find(self, key: Key, now: datetime, instance_id: str = "") -> Kept | None:
        """The answer that counts at `now`, for this bridge."""
        kept = self._kept.get(key)
        if kept is None and self._has_own:
            kept = self._kept.get((*key, instance_id))
        # The lower end is for clocks that are set back: age must not be negative.
        return kept if kept is not None and kept.decide_time <= now < kept.expire_time else None

    def keep(self, key: Key, kept: Kept, state: object) -> None:
        """Keep what was decided by a read that began in `state`, if that is still the state."""
        if state is None or state != self._state:
            return
        place: Key | _OwnKey = key
        if kept.only_for is not None:
            place, self._has_own = (*key, kept.only_for), True
        self._kept.pop(place, None)
        if len(self._kept) >= self._capacity:
            del self._kept[next(iter(self._kept))]
        self._kept[place] = kept

    def forget_old(self, now: datetime) -> None:
        """Forget what does not count any more, so that no key stays for want of a next request."""
        for place in [place for place, kept in self._kept.items() if not kept.decide_time <= now < kept.expire_time]:
            del self._kept[place]
