"""Every test here runs on both loops: uvloop, which serves, and asyncio's own, which other tests use."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from bridged.http1.pool import UpstreamPool, running_pool
from tests.fakes.scripted_upstream import ScriptedUpstream, running_upstream


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    del config, item
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


LIMITS = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with running_upstream() as running:
        yield running


@pytest.fixture
async def pool() -> AsyncIterator[UpstreamPool]:
    async with running_pool(**LIMITS) as running:
        yield running
