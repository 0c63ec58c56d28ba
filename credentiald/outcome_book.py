"""What bridges tell of keys: whose word counts, and what of it is written down.

- A word counts with the receipt of a resolve of the same service, once, and of no more than `MOST_A_MINUTE` a service.
- It is in the database when `tell` returns, for all workers, and the disk is not waited for: a busy one took a quarter
  of a second, in which other bridges used the key. What a power cut takes back is told again by the next request that
  the upstream refuses. What is told at the same time is stored together, and only where it changes
  the state of a key: each commit makes kept answers be decided anew, which is how other bridges learn of it. So that
  nobody can keep them from being kept, there are `AT_ONCE` of them in a row at most, then one in `PAUSE_SECONDS`.
- How many have told is bounded by the bound a minute; a word that comes late counts for nothing.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from credentiald import receipts
from credentiald.bridge_instances import Instance
from credentiald.errors import Refusal, StoreUnavailable
from credentiald.key_health import Change, Cooldown, Outcome, OutcomeKind, judge
from credentiald.metrics import Metrics
from credentiald.model import Source
from credentiald.plane import Plane
from credentiald.receipts import Receipt
from credentiald.store import key_health, providers
from credentiald.store.connection import Connection
from credentiald.store.times import from_micros

log = logging.getLogger(__name__)

# Of one service, by one worker.
MOST_A_MINUTE = 3000
# Commits come one in so many seconds, whoever tells of whatever; after a silence so many follow each other at once, as
# where an upstream refuses the keys of several providers, or one key after the other.
PAUSE_SECONDS = 0.05
AT_ONCE = 10
# The head of an answer comes sooner than that, if at all.
_LATEST = timedelta(hours=1)
# The oldest are forgotten first: one that comes again then says what is known, and counts against the bound.
_MOST_RECEIPTS = 65_536
_ERROR_CHARACTERS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One word of a bridge, as it came."""

    receipt: bytes
    kind: OutcomeKind
    retry_after: timedelta | None
    http_status: int
    error: str


@dataclass(slots=True, eq=False)
class _Waiting:
    """What came with one call, and whom it concerns in the log: the provider's name by the credential's id."""

    outcomes: Sequence[Outcome]
    names: Mapping[str, str]
    done: "asyncio.Future[None]"


class OutcomeBook:
    """Made for each process; `close` it when nobody tells anything any more."""

    def __init__(self, plane: Plane, metrics: Metrics, *, most_a_minute: int = MOST_A_MINUTE) -> None:
        self._plane = plane
        self._metrics = metrics
        self._most_a_minute = most_a_minute
        self._read_receipt = receipts.reader(plane.receipt_key)
        # Ids of resolutions, the oldest first.
        self._receipts: OrderedDict[str, None] = OrderedDict()
        self._minute = 0
        self._told: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []
        self._storing: asyncio.Task[None] | None = None
        # Up to when the commits that were made are paid for, at one in PAUSE_SECONDS; of the loop's clock.
        self._paid_seconds = 0.0

    async def tell(self, instance: Instance, told: Sequence[Told]) -> int:
        """Store what counts; how many do not. StoreUnavailable: nothing of it counts, it may be told again."""
        outcomes: list[Outcome] = []
        taken: list[str] = []
        names: dict[str, str] = {}
        for one in told:
            receipt = self._read_receipt(one.receipt)
            result = self._result(instance, receipt)
            self._metrics.outcome_told(one.kind.value, result)
            if receipt is None or result != "counted":
                continue
            taken.append(receipt.resolution_id)
            self._receipts[receipt.resolution_id] = None
            self._plane.probes.give_back(receipt.origin.credential_id, instance)
            names[receipt.origin.credential_id] = receipt.origin.provider_name
            outcomes.append(_outcome(one, receipt, instance))
        while len(self._receipts) > _MOST_RECEIPTS:
            self._receipts.popitem(last=False)
        try:
            await self._store(outcomes, names)
        except BaseException:
            for resolution_id in taken:
                self._receipts.pop(resolution_id, None)
            raise
        return len(told) - len(outcomes)

    def _result(self, instance: Instance, receipt: Receipt | None) -> str:
        """Whether a word counts, and if not, why."""
        service_id = instance[0]
        if receipt is None or receipt.origin.service_id != service_id or not _is_recent(receipt, self._plane):
            return "not_theirs"
        if receipt.resolution_id in self._receipts:
            return "repeated"
        minute = int(self._plane.clock().timestamp() // 60)
        if minute != self._minute:
            self._minute = minute
            self._told.clear()
        self._told[service_id] += 1
        if self._told[service_id] <= self._most_a_minute:
            return "counted"
        if self._told[service_id] == self._most_a_minute + 1:
            log.warning(
                "a service tells more of keys than counts: the rest of this minute is ignored",
                extra={"service_id": service_id, "most_a_minute": self._most_a_minute},
            )
        return "over_bound"

    async def _store(self, outcomes: Sequence[Outcome], names: Mapping[str, str]) -> None:
        """Wait until the outcomes are stored, with all that are told meanwhile."""
        if not outcomes:
            return
        one = _Waiting(outcomes, names, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_waiting())
        await one.done

    async def _store_waiting(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                trouble: Exception | None = None
                stored = False
                try:
                    stored = await self._store_together(waiting)
                except Refusal as refusal:
                    trouble = refusal
                except Exception:
                    log.exception("what bridges told of keys could not be stored")
                    trouble = StoreUnavailable()
                for one in waiting:
                    if one.done.done():
                        continue
                    if trouble is None:
                        one.done.set_result(None)
                    else:
                        one.done.set_exception(trouble)
                if stored:
                    await asyncio.sleep(self._pause_seconds())
        finally:
            self._storing = None

    def _pause_seconds(self) -> float:
        """How long there is to be no commit after the one that was made just now."""
        now_seconds = asyncio.get_running_loop().time()
        self._paid_seconds = max(self._paid_seconds, now_seconds) + PAUSE_SECONDS
        return max(0.0, self._paid_seconds - now_seconds - (AT_ONCE - 1) * PAUSE_SECONDS)

    async def _store_together(self, waiting: Sequence[_Waiting]) -> bool:
        """Whether there was anything to store."""
        plane, outcomes = self._plane, [outcome for one in waiting for outcome in one.outcomes]
        # A write makes kept answers count no more even if it changes nothing.
        if not await plane.db.read(_changes, plane, outcomes):
            return False
        names = {key: name for one in waiting for key, name in one.names.items()}
        for change in await plane.db.write_unsynced(_apply, plane, outcomes):
            _log(change, names)
        return True

    async def close(self) -> None:
        """Wait for what is being stored."""
        if self._storing is not None:
            await asyncio.gather(self._storing, return_exceptions=True)


def _is_recent(receipt: Receipt, plane: Plane) -> bool:
    """Whether it is of a central key that was given out lately."""
    age = plane.clock() - from_micros(receipt.resolve_time_micros)
    return receipt.origin.source == Source.CENTRAL_KEY.value and age < _LATEST


def _outcome(told: Told, receipt: Receipt, instance: Instance) -> Outcome:
    return Outcome(
        credential_id=receipt.origin.credential_id,
        provider_id=receipt.origin.provider_id,
        teller=instance,
        kind=told.kind,
        retry_after=told.retry_after,
        error=told.error[:_ERROR_CHARACTERS],
        http_status=told.http_status,
        resolve_time=from_micros(receipt.resolve_time_micros),
    )


def _changes(conn: Connection, plane: Plane, outcomes: Sequence[Outcome]) -> list[Change]:
    """What the outcomes change, one after the other, at keys that are still in a pool of more than one."""
    now = plane.clock()
    pools: dict[str, Sequence[str]] = {}
    complaints: dict[str, list[Cooldown]] = {}
    changes = []
    for one in outcomes:
        if one.provider_id not in pools:
            pools[one.provider_id] = _pool(conn, plane, one.provider_id)
            complaints[one.provider_id] = key_health.of_provider(conn, one.provider_id, now=now)
        pool, known = pools[one.provider_id], complaints[one.provider_id]
        if len(pool) < 2 or one.credential_id not in pool:
            continue
        change = judge(one, [each for each in known if each.credential_id == one.credential_id], now)
        if change is not None:
            changes.append(change)
            complaints[one.provider_id] = list(_after(known, change))
    return changes


def _after(known: Sequence[Cooldown], change: Change) -> Iterator[Cooldown]:
    rests = change.rests
    for one in known:
        replaced = rests is not None and (one.credential_id, one.teller) == (rests.credential_id, rests.teller)
        if one not in change.over and not replaced:
            yield one
    if rests is not None:
        yield rests


def _pool(conn: Connection, plane: Plane, provider_id: str) -> Sequence[str]:
    for configured in plane.environment.values():
        if configured.provider.id == provider_id:
            return [key.credential_id for key in configured.provider.central_keys]
    return providers.pool_of(conn, provider_id)


def _apply(conn: Connection, plane: Plane, outcomes: Sequence[Outcome]) -> list[Change]:
    changes = _changes(conn, plane, outcomes)
    for change in changes:
        key_health.remove(conn, change.over)
        if change.rests is not None:
            key_health.put(conn, change.rests)
    key_health.remove_old(conn, now=plane.clock())
    return changes


def _log(change: Change, names: Mapping[str, str]) -> None:
    for one in change.over:
        log.info("a key's rest is over: it was accepted", extra=_facts(one, names))
    if change.rests is not None:
        facts = {"until": change.rests.until_time.isoformat(), "strikes": change.rests.strikes}
        log.warning("a key rests", extra=_facts(change.rests, names) | facts)


def _facts(one: Cooldown, names: Mapping[str, str]) -> dict[str, object]:
    return {
        "provider": names.get(one.credential_id, ""),
        "credential_id": one.credential_id,
        "kind": one.kind.value,
        "service_id": one.teller[0],
        "bridge_instance_id": one.teller[1],
    }
