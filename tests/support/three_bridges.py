"""Three bridges before one credentiald, all of them processes, and what is measured with them."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.pair import until_ready
from tests.support.processes import Daemon, bridged, credentiald

BRIDGES = 3


def port_of(daemon: Daemon) -> int:
    return int(daemon.addresses["http"].rpartition(":")[2])


@asynccontextmanager
async def three_bridges(
    folder: Path,
    environ: Mapping[str, str] | None = None,
    *arguments: str,
    bridge_arguments: Sequence[str] = (),
) -> AsyncIterator[tuple[Daemon, list[int]]]:
    """credentiald, and the ports of the bridges, which are ready. `environ` and `arguments` are credentiald's."""
    async with AsyncExitStack() as stack:
        plane = await asyncio.to_thread(stack.enter_context, credentiald(folder, environ, *arguments))
        target = plane.addresses["main"]
        bridges = [
            await asyncio.to_thread(stack.enter_context, bridged(folder, target, None, *bridge_arguments))
            for _ in range(BRIDGES)
        ]
        for daemon in (plane, *bridges):
            await until_ready(daemon)
        yield plane, [port_of(one) for one in bridges]


@asynccontextmanager
async def running_tasks(*coroutines: Any) -> AsyncIterator[None]:
    """They run for the length of the block, whatever becomes of them."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def quantile_ms(seconds: Sequence[float], part: float) -> float:
    return sorted(seconds)[math.ceil(len(seconds) * part) - 1] * 1000
