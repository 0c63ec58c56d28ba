"""What metrics say that nobody passes by with: looked up now and then, for the length of a block."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from credentiald.errors import StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.plane import Plane
from credentiald.provider_health import resting_keys
from credentiald.store import models, providers, record_retention
from credentiald.store.records import Records
from credentiald.store.times import to_micros

ROUND_SECONDS = 15.0
_HEARD_WITHIN = timedelta(seconds=60)


async def look(plane: Plane, records: Records, metrics: Metrics) -> None:
    """Tell the metrics which names there are and how many bridges. StoreUnavailable."""
    names = {provider_id: name for provider_id, (name, _) in (await plane.db.read(providers.names)).items()}
    names |= {one.provider.id: name for name, one in plane.environment.items()}
    metrics.resting_keys(await plane.db.read(resting_keys, plane))
    configured = [(names.get(provider_id), model) for provider_id, model in await plane.db.read(models.prices)]
    metrics.records.know(names.values(), {(name, model) for name, model in configured if name is not None})
    since_micros = to_micros(plane.clock() - _HEARD_WITHIN)
    metrics.records.bridges.set(await records.read(record_retention.heard_since, since_micros=since_micros))


@asynccontextmanager
async def watching(plane: Plane, records: Records, metrics: Metrics) -> AsyncIterator[None]:
    """Look at once and every now and then until the end of the block."""

    async def looking() -> None:
        while True:
            # The store has said so in the log; what was known before stays.
            with contextlib.suppress(StoreUnavailable):
                await look(plane, records, metrics)
            await asyncio.sleep(ROUND_SECONDS)

    task = asyncio.create_task(looking())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
