"""The sealing keys of a running process: which there are, a new one, an old one that is done with.

Invariants:
- The database names the key that seals (store/sealing_rows.py). It is named after the key is safe where keys are kept,
  so a crash in between leaves a key too many and never a secret without its key.
- A key is forgotten where keys are kept only in a transaction that has seen that it seals nothing and is not the one
  that seals.
- Keys are added and taken away inside a write transaction of the database: one process at a time.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import final

from credentiald.errors import InvalidArgument, SealingKeyUnknown, SealingSourceUnavailable, StoreUnavailable
from credentiald.sealing import Keyring, Sealer
from credentiald.sealing_places import KeysNotReadable, LocalKeys
from credentiald.sealing_source import LOCAL
from credentiald.sealing_wrapping import WrapFailed, Wrapping
from credentiald.store import sealing_rows
from credentiald.store.connection import Connection
from credentiald.store.database import Database
from credentiald.store.sealing_rows import KnownKey, Pass, Place

# Secrets in one transaction: it holds the lock for writing for some 20 ms.
BATCH = 200
# Questions that need a key wait for it to be decrypted; where that fails, they are refused at once for a while.
ASK_AGAIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class KeyState(StrEnum):
    """What a sealing key is to this database."""

    ACTIVE = "ACTIVE"
    OLD = "OLD"
    NEW = "NEW"
    RETIRED = "RETIRED"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """One sealing key; `kept_in` is empty where it is nowhere to be found, a time None where it is not known."""

    id: str
    state: KeyState
    kept_in: str
    secrets: int
    create_time: datetime | None = None
    retire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingStatus:
    """All sealing keys, the active one first, and how much an older one still seals."""

    active_key_id: str
    source: str
    keys: tuple[KeyView, ...]
    unreadable: int

    @property
    def secrets(self) -> int:
        """Sealed secrets in all."""
        return sum(key.secrets for key in self.keys)

    @property
    def remaining(self) -> int:
        """Of them, those that are to be sealed anew."""
        return sum(key.secrets for key in self.keys if key.id != self.active_key_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the database says of its sealing keys."""

    active_key_id: str
    known: list[KnownKey]
    secrets: dict[str, int]

    def needs(self, key_id: str) -> bool:
        """Whether the key seals anything, or will."""
        return key_id == self.active_key_id or key_id in self.secrets

    @property
    def remaining(self) -> int:
        """How many secrets an older key seals."""
        return sum(count for key_id, count in self.secrets.items() if key_id != self.active_key_id)


def stored(conn: Connection) -> Stored:
    """What the database says of its sealing keys, in one snapshot."""
    return Stored(
        active_key_id=sealing_rows.active_key_id(conn),
        known=sealing_rows.known_keys(conn),
        secrets=sealing_rows.secrets_by_key(conn),
    )


@final
class SealingKeys:
    """The keys of one open database."""

    def __init__(
        self,
        db: Database,
        sealer: Sealer,
        local: LocalKeys,
        clock: Callable[[], datetime],
        wrapping: Wrapping | None = None,
    ) -> None:
        self._db = db
        self._sealer = sealer
        self._local = local
        self._wrapping = wrapping or Wrapping()
        self._clock = clock
        self._refreshing: asyncio.Task[None] | None = None
        # By key, when those outside may be asked again after they did not decrypt it.
        self._ask_again: dict[str, float] = {}
        # What the last pass of this process could not open.
        self._unreadable: frozenset[str] = frozenset()
        self.wanted = asyncio.Event()

    def has(self, key_id: str) -> bool:
        """Whether the key is at hand."""
        return key_id in self._sealer.key_ids

    async def refresh(self) -> None:
        """Learn the keys that others have made. Where that is not possible, the log says why. StoreUnavailable.

        Goes on for others when one who waits is gone, so that who hangs outside is given up once, and not for each.
        """
        before = self._refreshing
        if before is not None and not before.done():
            # It may have looked before the key was there.
            await asyncio.wait([before])
        running = self._refreshing
        if running is None or running is before:
            running = self._refreshing = asyncio.create_task(self._refresh())
            # Looked at, also where all who waited are gone.
            running.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(running)

    async def _refresh(self) -> None:
        try:
            keyring = await asyncio.to_thread(self._local.read)
        except KeysNotReadable as error:
            log.error("sealing keys cannot be looked up", extra={"cause": str(error)})  # noqa: TRY400
            return
        known = await self._db.read(sealing_rows.known_keys)
        if keyring is not None:
            self._sealer.learn(keyring, {key.id: key.fingerprint for key in known})
        await self._unwrap_unknown(known)

    async def _unwrap_unknown(self, known: Iterable[KnownKey]) -> None:
        """Have those keys decrypted that seal something and are encrypted in the database."""
        missing = [key for key in known if self._is_missing(key)]
        if not missing:
            return
        found = await self._db.read(stored)
        for key in missing:
            if key.wrapped is None or not found.needs(key.id):
                continue
            try:
                raw = await self._wrapping.unwrap(
                    key.source, key.wrapped, key_id=key.id, database_id=self._db.database_id
                )
                found_key = Keyring({key.id: raw})
                if found_key.fingerprints()[key.id] != key.fingerprint:
                    raise WrapFailed(f"{key.source}: it decrypts to another key", is_refused=True)
            except WrapFailed as error:
                self._ask_again[key.id] = asyncio.get_running_loop().time() + ASK_AGAIN_SECONDS
                log.error(  # noqa: TRY400
                    "a sealing key cannot be decrypted", extra={"sealing_key": key.id, "cause": str(error)}
                )
            else:
                self._sealer.learn(found_key, {key.id: key.fingerprint})

    def _is_missing(self, key: KnownKey) -> bool:
        """Whether to have this key decrypted now: not where that has just failed."""
        now = asyncio.get_running_loop().time()
        at_hand = self._sealer.has(key.id, key.fingerprint)
        return key.wrapped is not None and not at_hand and self._ask_again.get(key.id, 0.0) <= now

    async def status(self) -> SealingStatus:
        """What there is now, as the places where keys are kept have it now."""
        found = await self._db.read(stored)
        try:
            keyring = await asyncio.to_thread(self._local.read)
        except KeysNotReadable as error:
            log.warning("sealing keys cannot be looked up", extra={"cause": str(error)})
            keyring = None
        return _status(
            found,
            keyring,
            self._local.origin,
            self._sealer.key_ids,
            len(self._unreadable),
            source=self._wrapping.source.text,
        )

    async def rotate(self) -> SealingStatus:
        """Begin to seal with a new key, or go on with a rotation that is under way."""
        await self.refresh()
        if self._wrapping.is_outside:
            found = await self._db.read(stored)
            made = None if found.remaining else await self._made_outside(found)
            activated = await self._db.write(self._begin_outside, made)
        else:
            activated = await self._db.write(self._begin)
        if activated is not None:
            # Not before it is committed: a key that nobody keeps must not be at hand under an id that others may use.
            self._sealer.learn(activated, activated.fingerprints())
        self.wanted.set()
        return await self.status()

    async def retire(self, key_id: str) -> SealingStatus:
        """Forget a key that nothing needs any more."""
        await self._db.write(self._retire, key_id)
        return await self.status()

    async def step(self, place: Place) -> Pass:
        """One step of a pass through all that is sealed."""
        return await self._db.write(sealing_rows.reseal, self._sealer, place, limit=BATCH)

    async def look(self) -> tuple[bool, bool]:
        """Whether the key that seals is at hand, and whether an older one seals anything; cheap."""
        return await self._db.read(
            lambda conn: (sealing_rows.is_active_at_hand(conn, self._sealer), sealing_rows.any_old(conn))
        )

    async def stored(self) -> Stored:
        """What the database says now."""
        return await self._db.read(stored)

    def note_unreadable(self, credential_ids: Iterable[str]) -> None:
        """Keep what a whole pass could not open; new ones go to the log."""
        found = frozenset(credential_ids)
        for credential_id in sorted(found - self._unreadable):
            log.error(
                "a stored secret keeps its old seal, because it does not open", extra={"credential_id": credential_id}
            )
        self._unreadable = found

    async def _made_outside(self, found: Stored) -> tuple[Keyring, bytes]:
        """A new key, and the same encrypted by the source of new ones."""
        keyring = Keyring.generate(self._new_key_id(found))
        [key_id] = keyring.key_ids
        try:
            wrapped = await self._wrapping.wrap(keyring.raw(key_id), key_id=key_id, database_id=self._db.database_id)
        except WrapFailed as error:
            raise SealingSourceUnavailable(cause=str(error)) from None
        return keyring, wrapped

    def _begin_outside(self, conn: Connection, made: tuple[Keyring, bytes] | None) -> Keyring | None:
        found = stored(conn)
        if self._is_under_way(found):
            return None
        if made is None:
            # The one that was under way a moment ago has just ended.
            raise StoreUnavailable
        keyring, wrapped = made
        [key_id] = keyring.key_ids
        if any(key_id == key.id for key in found.known):
            # Another process has just used the same id for a key of its own.
            raise StoreUnavailable
        return self._activate(conn, keyring, key_id, wrapped)

    def _activate(self, conn: Connection, keyring: Keyring, key_id: str, wrapped: bytes | None = None) -> Keyring:
        """The key alone, for who is to have it at hand once this is committed."""
        fingerprint = keyring.fingerprints()[key_id]
        source = LOCAL if wrapped is None else self._wrapping.source.text
        sealing_rows.activate(conn, key_id, source=source, fingerprint=fingerprint, wrapped=wrapped, now=self._clock())
        log.info("secrets are sealed with a new key from now on", extra={"sealing_key": key_id})
        return Keyring({key_id: keyring.raw(key_id)})

    def _new_key_id(self, found: Stored, kept: Iterable[str] = ()) -> str:
        """An id that no key has that is kept, known or at hand."""
        return new_key_id(
            self._clock(), {*kept, *found.secrets, *self._sealer.key_ids, *(key.id for key in found.known)}
        )

    def _is_under_way(self, found: Stored) -> bool:
        if found.remaining and not self.has(found.active_key_id):
            raise SealingKeyUnknown
        return found.remaining > 0

    def _begin(self, conn: Connection) -> Keyring | None:
        found = stored(conn)
        if self._is_under_way(found):
            return None
        try:
            keyring = self._local.read()
            new = _first_unused(keyring, found)
            if new is None and self._local.is_ours:
                new = self._new_key_id(found, keyring.key_ids if keyring else ())
                made = Keyring.generate(new)
                keyring = made if keyring is None else keyring.behind(made)
                self._local.write(keyring)
        except KeysNotReadable as error:
            log.error("a sealing key cannot be made", extra={"cause": str(error)})  # noqa: TRY400
            raise InvalidArgument(field="sealing keys", problem=str(error)) from None
        if new is None or keyring is None:
            raise InvalidArgument(
                field="sealing keys",
                problem=f"there is no new one: put it first in {self._local.origin}, keep the others behind it, "
                "and where it is a variable restart credentiald",
            )
        return self._activate(conn, keyring, new)

    def _retire(self, conn: Connection, key_id: str) -> None:
        found = stored(conn)
        if key_id == found.active_key_id:
            raise InvalidArgument(field="id", problem=f"'{key_id}' is the key that seals: rotate first")
        if found.secrets.get(key_id):
            raise InvalidArgument(
                field="id",
                problem=f"'{key_id}' still seals {found.secrets[key_id]} secrets: "
                "run 'credentiald sealing rotate' and wait for its end",
            )
        try:
            keyring = self._local.read()
            is_kept = keyring is not None and key_id in keyring.key_ids
            if not is_kept and all(key.id != key_id for key in found.known):
                raise InvalidArgument(field="id", problem=f"there is no sealing key '{key_id}'")
            if keyring is not None and is_kept and self._local.is_ours:
                self._local.write(keyring.without(key_id))
        except KeysNotReadable as error:
            raise InvalidArgument(field="sealing keys", problem=str(error)) from None
        sealing_rows.retire(conn, key_id, now=self._clock())


def _first_unused(keyring: Keyring | None, found: Stored) -> str | None:
    """The first key of the keyring, where it never sealed anything here: put there by an operator, or by a rotation
    that did not come further."""
    if keyring is None:
        return None
    first = keyring.key_ids[0]
    return first if all(first != key.id for key in found.known) and first not in found.secrets else None


def new_key_id(now: datetime, taken: set[str]) -> str:
    """`k20261122`, with a number behind it where that is taken."""
    stem = f"k{now:%Y%m%d}"
    count = 1
    while (key_id := stem if count == 1 else f"{stem}-{count}") in taken:
        count += 1
    return key_id


def _status(
    found: Stored,
    keyring: Keyring | None,
    origin: str,
    at_hand: tuple[str, ...],
    unreadable: int,
    *,
    source: str,
) -> SealingStatus:
    encrypted = {key.id: key.source for key in found.known if key.wrapped is not None}
    kept = encrypted | dict.fromkeys(keyring.key_ids if keyring else (), origin)
    known = {key.id: key for key in found.known}
    ids = dict.fromkeys([found.active_key_id, *known, *kept, *sorted(found.secrets)])
    views = []
    for key_id in ids:
        key, secrets = known.get(key_id), found.secrets.get(key_id, 0)
        retired = key is not None and key.retire_time is not None
        if key_id == found.active_key_id:
            state = KeyState.ACTIVE if key_id in at_hand else KeyState.MISSING
        elif secrets:
            state = KeyState.OLD if key_id in at_hand else KeyState.MISSING
        elif retired or key is not None:
            state = KeyState.RETIRED if retired else KeyState.OLD
        else:
            state = KeyState.NEW
        views.append(
            KeyView(
                id=key_id,
                state=state,
                kept_in=kept.get(key_id, ""),
                secrets=secrets,
                create_time=key.create_time if key else None,
                retire_time=key.retire_time if key else None,
            )
        )
    return SealingStatus(active_key_id=found.active_key_id, source=source, keys=tuple(views), unreadable=unreadable)
