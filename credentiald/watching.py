"""What metrics and warnings say that nobody passes by with: looked up now and then, for the length of a block."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

from credentiald.errors import StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.model import Provider
from credentiald.plane import Plane
from credentiald.provider_health import resting_keys
from credentiald.record_rules import KeepRules, StrayNames
from credentiald.store import models, record_retention
from credentiald.store.records import Records
from credentiald.store.times import to_micros

log = logging.getLogger(__name__)

ROUND_SECONDS = 15.0
_HEARD_WITHIN = timedelta(seconds=60)


async def look(plane: Plane, records: Records, metrics: Metrics) -> Collection[str]:
    """Tell the metrics which names there are and how many bridges; the names of providers. StoreUnavailable."""
    providers = await plane.db.read(plane.all_providers)
    metrics.resting_keys(await plane.db.read(resting_keys, plane))
    names = {one.id: one.name for one in providers}
    priced = {(names[one], model) for one, model in await plane.db.read(models.prices) if one in names}
    mapped = {(one.name, model) for one in providers for model in _mapped_models(one)}
    metrics.records.know({one.name: one.type for one in providers}, priced | mapped)
    since_micros = to_micros(plane.clock() - _HEARD_WITHIN)
    metrics.records.bridges.set(await records.read(record_retention.heard_since, since_micros=since_micros))
    return names.values()


def tell_strays(strays: StrayNames, names: Collection[str]) -> None:
    """Warn of names in settings that no provider has, once each."""
    for setting, untold in strays.untold(names):
        log.warning("a setting names what is no provider", extra={"setting": setting, "names": untold})


def _mapped_models(provider: Provider) -> Iterator[str]:
    """The models at Bedrock that clients' ones are mapped to."""
    options = provider.bedrock
    if options is not None:
        yield from (model for model in (options.model, options.small_fast_model) if model)
        yield from (model for _, model in options.models)


@asynccontextmanager
async def watching(plane: Plane, records: Records, metrics: Metrics, rules: KeepRules) -> AsyncIterator[None]:
    """Look at once and every now and then until the end of the block."""
    strays = StrayNames(rules)

    async def looking() -> None:
        while True:
            # The store has said so in the log; what was known before stays.
            with contextlib.suppress(StoreUnavailable):
                tell_strays(strays, await look(plane, records, metrics))
            await asyncio.sleep(ROUND_SECONDS)

    task = asyncio.create_task(looking())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
