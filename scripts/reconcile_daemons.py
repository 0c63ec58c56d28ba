"""What scripts/reconcile runs and kills: credentiald, one bridge or two, and the upstream, each a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from reconcile_plan import PROVIDERS

from tests.support.processes import Daemon, bridged, commanded, credentiald

FOLDER = Path(__file__).resolve().parent
READY_SECONDS = 30.0
_BASE = {"anthropic": "", "openai": "/v1", "google": "", "bedrock": ""}
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NotStarted(Exception):
    """A process did not come up; the message says which, for a person."""


def fetch(url: str) -> str:
    """The body of a GET, past any proxy."""
    with _opener.open(url, timeout=READY_SECONDS) as answer:
        body: bytes = answer.read()
    return body.decode()


class Daemons:
    """The processes; credentiald comes back under the same addresses, a bridge under new ones."""

    def __init__(
        self, folder: Path, upstream_port: int, bridges: int, environ: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._account_url = f"http://127.0.0.1:{upstream_port}/account"
        self.environ = {**providers(upstream_port), **(environ or {})}
        self.stacks: dict[str, ExitStack] = {}
        self.plane = self.start_plane()
        self.bridges: dict[str, Daemon] = {}
        commanded(folder, self.plane, "users", "create", "reconcile")
        self.token = commanded(folder, self.plane, "tokens", "create", "--user", "reconcile").strip()
        for number in range(bridges):
            self.start_bridge(f"bridge {number}")
        self.lost = 0
        self.plane_start_time = time.monotonic()

    def close(self) -> None:
        """Stop what runs."""
        for stack in self.stacks.values():
            stack.close()

    @property
    def admin_token(self) -> str:
        """Of the administrator that may ask for all records."""
        return (self.folder / "credentiald.admin-token").read_text().strip()

    def addresses(self) -> list[str]:
        """Where bridges listen now."""
        return [one.addresses["http"] for one in self.bridges.values()]

    def account(self) -> list[dict[str, Any]]:
        """The upstream's own count."""
        account: list[dict[str, Any]] = json.loads(fetch(self._account_url))
        return account

    def restart_plane(self, dead_seconds: float) -> None:
        """kill -9 of credentiald, and another one after that time."""
        self.plane.process.send_signal(signal.SIGKILL)
        self.stacks.pop("credentiald").close()
        time.sleep(dead_seconds)
        self.plane = self.start_plane()
        self.plane_start_time = time.monotonic()

    def restart_bridge(self) -> None:
        """kill -9 of a bridge, and another one for it."""
        name = random.choice(list(self.bridges))
        killed = self.bridges.pop(name)
        killed.process.send_signal(signal.SIGKILL)
        self.stacks.pop(name).close()
        self.start_bridge(name)

    def waiting(self) -> float:
        """How many requests and records are under way in the bridges."""
        return sum(
            self.metric(one, name)
            for one in self.bridges.values()
            for name in ("bridged_requests_in_flight", "bridged_records_waiting")
        )

    def streams_opened(self) -> dict[str, float]:
        """How many streams each bridge has opened to credentiald so far."""
        return {name: self.metric(one, "bridged_resolve_streams_opened_total") for name, one in self.bridges.items()}

    def waiting_in_plane(self) -> float:
        """How many openings and reports wait in credentiald."""
        return self.metric(self.plane, "credentiald_records_waiting")

    def said_lost(self) -> float:
        """How many interceptions' records the bridges say they have lost, those that live."""
        return sum(self.metric(one, "bridged_records_lost_total") for one in self.bridges.values())

    def complaints(self) -> list[str]:
        """What the daemons that live have logged at level error, and all that they have written to standard error."""
        return [
            text
            for one in (self.plane, *self.bridges.values())
            for text in (
                *(json.dumps(line) for line in one.lines if line["level"] in ("error", "critical")),
                *one.errors,
            )
        ]

    @staticmethod
    def metric(daemon: Daemon, name: str) -> float:
        lines = fetch(f"http://{daemon.addresses['metrics']}/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def start_plane(self) -> Daemon:
        """On sockets that nobody else can take while it is away, as a port may be taken for any connection."""
        sockets = ("--listen", f"unix:{self.folder}/main", "--admin-listen", f"unix:{self.folder}/admin")
        stack = self.stacks["credentiald"] = ExitStack()
        return stack.enter_context(credentiald(self.folder, self.environ, *sockets))

    def start_bridge(self, name: str) -> None:
        """A bridge of that name."""
        stack = self.stacks[name] = ExitStack()
        self.bridges[name] = stack.enter_context(bridged(self.folder, self.plane.addresses["main"]))


@asynccontextmanager
async def running(folder: Path, *, seed: int, own_models: bool, bridges: int) -> AsyncIterator[Daemons]:
    """All of it, from nothing; stopped at the end of the block."""
    with upstream(seed, own_models=own_models) as port:
        daemons = await asyncio.to_thread(Daemons, folder, port, bridges)
        try:
            await until(lambda: all(is_ready(one) for one in daemons.bridges.values()), READY_SECONDS)
            yield daemons
        finally:
            await asyncio.to_thread(daemons.close)


async def until(holds: Any, timeout_seconds: float) -> bool:
    """Whether `holds`, asked in a thread again and again, became true within the time."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if await asyncio.to_thread(holds):
                return True
        await asyncio.sleep(0.1)
    return False


def is_ready(daemon: Daemon) -> bool:
    """True; OSError where it is not."""
    fetch(f"http://{daemon.addresses['metrics']}/readyz")
    return True


def providers(port: int) -> dict[str, str]:
    """The settings of the providers that the upstream at this port answers for."""
    names = dict.fromkeys(PROVIDERS.values())
    fields = {name: {"TYPE": name, "NAME": name, "KEY": "sk-reconcile"} for name in names}
    return {
        "AWS_REGION": "us-east-1",
        **{
            f"CODER_AIBRIDGE_PROVIDER_{number}_{field}": value
            for number, name in enumerate(names)
            for field, value in {**fields[name], "BASE_URL": f"http://127.0.0.1:{port}{_BASE[name]}"}.items()
        },
    }


@contextmanager
def upstream(seed: int, *, own_models: bool) -> Iterator[int]:
    """The upstream's process; its port."""
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "reconcile_upstream.py"), str(seed), "true" if own_models else "false"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise NotStarted("the upstream does not come up")
            yield int(line)
        finally:
            process.kill()
