"""A fake credentiald and a scripted upstream for every test that wants them."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.credentiald import FakeCredentiald, provider, running_credentiald
from tests.fakes.scripted_upstream import ScriptedUpstream, running_upstream

UPSTREAM_KEY = "sk-upstream-key"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with running_upstream() as running:
        yield running


@pytest.fixture
async def credentiald(upstream: ScriptedUpstream) -> AsyncIterator[FakeCredentiald]:
    """Knows one provider of each shape, all of them at the scripted upstream."""
    async with running_credentiald() as fake:
        fake.providers["anthropic"] = provider("anthropic", upstream.url, api_key=UPSTREAM_KEY)
        fake.providers["openai"] = provider("openai", upstream.url + "/v1/", api_key=UPSTREAM_KEY)
        fake.providers["google"] = provider("google", upstream.url, api_key=UPSTREAM_KEY)
        fake.providers["azure"] = provider("azure", upstream.url, api_key=UPSTREAM_KEY)
        fake.providers["copilot"] = provider("copilot", upstream.url, presented=True)
        yield fake
