"""The pair as a user has it: both daemons as processes, a scripted upstream behind them, a user with a token."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.scripted_upstream import ScriptedUpstream, running_upstream
from tests.support.processes import Daemon, bridged, commanded, credentiald
from tests.support.rpc import rpcs

READY_SECONDS = 30.0
# One key for each kind of credential, so that a test sees which one arrived.
CENTRAL_KEY = "sk-central-canary-4f1b"


@dataclass
class Pair:
    """Both daemons and what is around them."""

    folder: Path
    upstream: ScriptedUpstream
    credentiald: Daemon
    bridged: Daemon
    token: str = field(repr=False)

    def url(self, provider: str) -> str:
        """Where a client of this provider points its base URL."""
        return f"http://{self.bridged.addresses['http']}/api/v2/aibridge/{provider}"

    def command(self, *words: str, key: str | None = None) -> str:
        """The output of an administering command that must succeed."""
        return commanded(self.folder, self.credentiald, *words, key=key)

    @property
    def output(self) -> str:
        """Everything that both daemons have written."""
        return self.credentiald.output + self.bridged.output


def environment_of(providers: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """CODER_AIBRIDGE_PROVIDER_* variables for these providers by name."""
    return {
        f"CODER_AIBRIDGE_PROVIDER_{number}_{key}": value
        for number, (name, fields) in enumerate(providers.items())
        for key, value in {"NAME": name, **fields}.items()
    }


def status_of(url: str) -> int:
    """The status of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


async def until_ready(daemon: Daemon) -> None:
    """Return when the daemon says that it is ready."""
    async with asyncio.timeout(READY_SECONDS):
        while await asyncio.to_thread(status_of, f"http://{daemon.addresses['metrics']}/readyz") != 200:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running_pair(
    folder: Path, providers: Mapping[str, Mapping[str, str]] | None = None, *arguments: str, **environ: str
) -> AsyncIterator[Pair]:
    """The pair with these providers from the environment; `{upstream}` in a value is the upstream's URL.

    `arguments` are bridged's; of `environ` it gets what OpenTelemetry or Python reads, credentiald all.
    """
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_upstream())
        variables = {
            name: value.replace("{upstream}", upstream.url) for name, value in environment_of(providers or {}).items()
        }
        plane = await asyncio.to_thread(stack.enter_context, credentiald(folder, {**variables, **environ}))
        target = plane.addresses["main"]
        shared = {name: value for name, value in environ.items() if name.startswith(("OTEL_", "PYTHON"))}
        bridge = await asyncio.to_thread(stack.enter_context, bridged(folder, target, shared, *arguments))
        await until_ready(bridge)
        # By rpc: commands are processes, which take several times as long to start.
        async with rpcs(folder, plane) as rpc:
            _, token = await rpc.user("ann")
        yield Pair(folder=folder, upstream=upstream, credentiald=plane, bridged=bridge, token=token)


def keys_list(pair: Pair, user: str) -> dict[str, str]:
    """The status of each provider that allows user keys."""
    listed = json.loads(pair.command("keys", "list", "--user", user, "--json"))
    return {row["provider"]: row["status"] for row in listed}
