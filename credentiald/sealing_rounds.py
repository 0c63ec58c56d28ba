"""The work behind a rotation: everything that an older key seals is sealed anew, a little at a time.

What is to be done is in the database (secrets that another key than the active one seals), so a rotation that was
killed goes on wherever a process is left or starts. Several may work on it at once: each step takes what it finds.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from credentiald.errors import Refusal, SealingKeyUnknown
from credentiald.metrics import Metrics
from credentiald.sealing_keys import SealingKeys
from credentiald.store.sealing_rows import Pass, Place

ROUND_SECONDS = 5.0
# Each step is a commit, which makes every kept answer count no more (answers.py): not many of them a second.
STEP_REST_SECONDS = 0.1
# What does not open now may open later, when its key is brought back; the log has said so.
UNREADABLE_REST_SECONDS = 60.0

log = logging.getLogger(__name__)


async def round_of(keys: SealingKeys, metrics: Metrics, *, rest_seconds: float = STEP_REST_SECONDS) -> bool:
    """Learn new keys, and one pass where there is something to seal anew; whether that left something unreadable."""
    is_at_hand, any_old = await keys.look()
    if not is_at_hand:
        await keys.refresh()
    if not any_old:
        metrics.secrets_to_reseal.set(0)
        keys.note_unreadable(())
        return False
    found = await keys.stored()
    metrics.secrets_to_reseal.set(found.remaining)
    if any(not keys.has(key_id) for key_id in found.secrets):
        await keys.refresh()
    unreadable: list[str] = []
    resealed = 0
    place: Place | None = Place()
    while place is not None:
        done = await _step(keys, place)
        resealed += done.resealed
        metrics.resealed(done.resealed)
        # Others may do some of it as well: it is counted anew at the end.
        metrics.secrets_to_reseal.dec(done.resealed)
        unreadable += done.unreadable
        place = done.next
        if done.resealed:
            await asyncio.sleep(rest_seconds)
    keys.note_unreadable(unreadable)
    found = await keys.stored()
    metrics.secrets_to_reseal.set(found.remaining)
    if resealed and not found.remaining:
        log.info("everything is sealed with the new key", extra={"sealing_key": found.active_key_id})
    return bool(unreadable)


async def _step(keys: SealingKeys, place: Place) -> Pass:
    """One step, also where another key was named since the pass looked: by another process, or by this one just now."""
    try:
        return await keys.step(place)
    except SealingKeyUnknown:
        await keys.refresh()
        return await keys.step(place)


@asynccontextmanager
async def resealing(keys: SealingKeys, metrics: Metrics) -> AsyncIterator[None]:
    """Do so at once, when asked to, and every now and then until the end of the block."""

    async def working() -> None:
        while True:
            rest_seconds = ROUND_SECONDS
            keys.wanted.clear()
            try:
                if await round_of(keys, metrics):
                    rest_seconds = UNREADABLE_REST_SECONDS
            except SealingKeyUnknown:
                log.error("the key that seals is not where keys are kept: bring it back")  # noqa: TRY400
                rest_seconds = UNREADABLE_REST_SECONDS
            except Refusal:
                # The store has said so in the log.
                pass
            except Exception:
                log.exception("sealing anew failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_seconds):
                    await keys.wanted.wait()

    task = asyncio.create_task(working())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
