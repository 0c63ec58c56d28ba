"""From a database whose sealing keys are encrypted outside to one that is open: asked until it works.

Until then credentiald is sealed: it listens, and everything is refused with SEALED. Whoever decrypts may be out of
reach or may say no; either may pass, so both are asked again, less and less often.
"""

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from credentiald import ids
from credentiald.bootstrap import FirstKey, Outside, Prepared, outside_of, prepare
from credentiald.bootstrap.refusals import StartRefused, UnwrappedKeyWrong
from credentiald.sealing_keys import new_key_id
from credentiald.sealing_wrapping import WrapFailed, Wrapping
from credentiald.settings import Loaded
from credentiald.vault import VaultAccess, read_token
from daemonkit.secret import Secret

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
_KEY_BYTES = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The database, and where its keys are."""

    database_url: str
    sealing_keys: Secret | None
    wrapping: Wrapping
    clock: Callable[[], datetime]

    def is_sealed(self) -> bool:
        """Whether somebody outside has to be asked before the database can be opened. StartRefused."""
        return outside_of(self.database_url, self.sealing_keys, is_outside=self.wrapping.is_outside) is not None


def place_of(loaded: Loaded) -> Place:
    """As it is configured."""
    settings = loaded.settings
    access = VaultAccess(
        token=partial(read_token, settings.vault_token, loaded.vault_token_path),
        ca_file=settings.vault_ca,
        namespace=settings.vault_namespace,
    )
    return Place(
        database_url=settings.database,
        sealing_keys=settings.sealing_keys,
        wrapping=Wrapping(source=settings.sealing_key_source, before=settings.sealing_key_sources_before, vault=access),
        clock=lambda: datetime.now(UTC),
    )


async def prepared(place: Place) -> Prepared:
    """The database, made or checked, with its keys; one attempt. WrapFailed, StartRefused."""
    outside = await _look(place)
    while True:
        try:
            return await _prepared(place, outside)
        except UnwrappedKeyWrong as error:
            raise WrapFailed(str(error), is_refused=True) from None
        except StartRefused:
            before, outside = outside, await _look(place)
            if outside == before:
                raise
            # Another process has made the database, or rotated, in the meantime.


async def _look(place: Place) -> Outside | None:
    return await asyncio.to_thread(
        outside_of, place.database_url, place.sealing_keys, is_outside=place.wrapping.is_outside
    )


async def _prepared(place: Place, outside: Outside | None) -> Prepared:
    unwrapped: dict[str, bytes] = {}
    first = None
    if outside is not None and outside.is_new:
        first = await _first_key(place)
    elif outside is not None:
        for key in outside.wrapped:
            unwrapped[key.id] = await place.wrapping.unwrap(
                key.source, key.wrapped or b"", key_id=key.id, database_id=outside.database_id
            )
    return await asyncio.to_thread(
        prepare, place.database_url, place.sealing_keys, now=place.clock(), unwrapped=unwrapped, first=first
    )


async def _first_key(place: Place) -> FirstKey:
    now = place.clock()
    database_id, key_id, key = ids.uuid7(now), new_key_id(now, set()), os.urandom(_KEY_BYTES)
    wrapped = await place.wrapping.wrap(key, key_id=key_id, database_id=database_id)
    return FirstKey(database_id=database_id, key_id=key_id, key=key, wrapped=wrapped, source=place.wrapping.source.text)


async def unsealed(
    place: Place,
    failed: Callable[[WrapFailed], None],
    *,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> Prepared:
    """The database, once the keys are there; `failed` is told of each attempt that was in vain. StartRefused."""
    longest = FIRST_WAIT_SECONDS
    told = ""
    while True:
        try:
            return await prepared(place)
        except WrapFailed as error:
            failed(error)
            if str(error) != told:
                told = str(error)
                log.warning("sealed: a sealing key cannot be decrypted", extra={"cause": told})
        # Between half of it and all of it, so that replicas do not ask at once.
        await wait(longest * (1 + chance()) / 2)
        longest = min(2 * longest, LONGEST_WAIT_SECONDS)
