"""What scripts/stress runs: both daemons, two upstreams and the well-behaved client, each a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stress_clients import Bridge
from stress_figures import Verdict, descriptors, rss_mib

# Kept out of the installed package, like everything of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.processes import Daemon, bridged, commanded, credentiald

FOLDER = Path(__file__).resolve().parent
READY_SECONDS = 20.0
# What misbehaves, and what the well-behaved client asks.
KINDS = ("large", "sink", "idle", "ticks", "stream", "json")
CALM = "calm"
# A body of the full campaign has to pass.
MAX_BODY = "512MiB"


class NotStarted(Exception):
    """A process did not come up; the message says which, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What the well-behaved client saw for a while."""

    requests: int
    failures: list[str]
    troubles: list[str]
    p50_ms: float
    p99_ms: float
    max_ms: float

    def verdict(self, *, may_be_troubled: bool = False) -> Verdict:
        """That none of its requests failed, or was told to come again, unless that is judged elsewhere."""
        failures = [*self.failures, *([] if may_be_troubled else self.troubles)]
        first = f" ({failures[0]})" if failures else ""
        return Verdict(
            good=self.requests > 0 and not failures,
            text=f"another client: {self.requests} requests, {len(failures)} failed{first}; "
            f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, longest {self.max_ms:.0f} ms",
        )


class _Bad(list[dict[str, object]]):
    """Lines of a log, of which only the bad ones are kept."""

    def append(self, line: dict[str, object]) -> None:
        if line["level"] in ("error", "critical"):
            super().append(line)


class Pair:
    """The processes, and how they are."""

    def __init__(
        self,
        folder: Path,
        plane: Daemon,
        bridge: Daemon,
        token: str,
        upstream_port: int,
        client: subprocess.Popen[str],
    ) -> None:
        self._daemons = {"bridged": bridge, "credentiald": plane}
        self._state_url = f"http://127.0.0.1:{upstream_port}/state"
        self._client = client
        self.admin_address = plane.addresses["admin"]
        self.admin_token = (folder / "credentiald.admin-token").read_text().strip()
        host, _, port = bridge.addresses["http"].rpartition(":")
        self.bridge = Bridge(host=host, port=int(port), token=token)
        for daemon in self._daemons.values():
            daemon.lines = _Bad()

    def rss_mib(self, name: str) -> float:
        """Memory of a daemon."""
        return rss_mib(self._daemons[name].process.pid)

    def descriptors(self) -> int:
        """Open files of the bridge."""
        return descriptors(self._daemons["bridged"].process.pid)

    def open_at_upstream(self) -> int:
        """Connections that the upstream of those who misbehave has."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._state_url, timeout=READY_SECONDS) as answer:
            count: int = json.loads(answer.read())["open"]
        return count

    def complaints(self, name: str) -> list[str]:
        """What a daemon has logged at level error, and all that it has written to its standard error."""
        daemon = self._daemons[name]
        return [json.dumps(line) for line in daemon.lines] + daemon.errors

    async def steady(self) -> Steady:
        """What the well-behaved client saw since this was asked last."""
        return Steady(**json.loads(await asyncio.to_thread(self._ask_client)))

    def _ask_client(self) -> str:
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        self._client.stdin.write("\n")
        self._client.stdin.flush()
        return self._client.stdout.readline()


@contextlib.contextmanager
def running(folder: Path, large_bytes: int, stall_seconds: float) -> Iterator[Pair]:
    """All of it, from nothing; stopped at the end of the block."""
    with contextlib.ExitStack() as stack:
        abused, calm = (stack.enter_context(_upstream(large_bytes, stall_seconds)) for _ in range(2))
        ports = {**dict.fromkeys(KINDS, abused), CALM: calm}
        environ = {
            f"CODER_AIBRIDGE_PROVIDER_{number}_{name}": value
            for number, (kind, port) in enumerate(ports.items())
            for name, value in (
                ("TYPE", "openai"), ("NAME", kind), ("KEY", "stress"),
                ("BASE_URL", f"http://127.0.0.1:{port}/{'json' if kind == CALM else kind}/v1"),
            )
        }  # fmt: skip
        plane = stack.enter_context(credentiald(folder, environ))
        # Its descriptors are counted in a folder of /proc.
        flags = ("--max-body", MAX_BODY, "--debuggable")
        bridge = stack.enter_context(bridged(folder, plane.addresses["main"], None, *flags))
        commanded(folder, plane, "users", "create", "stress")
        token = commanded(folder, plane, "tokens", "create", "--user", "stress").strip()
        wait_ready(f"http://{bridge.addresses['metrics']}/readyz")
        client = stack.enter_context(script("stress_steady.py", bridge.addresses["http"]))
        assert client.stdin is not None
        client.stdin.write(f"{token}\n")
        client.stdin.flush()
        yield Pair(folder, plane, bridge, token, abused, client)


@contextlib.contextmanager
def _upstream(large_bytes: int, stall_seconds: float) -> Iterator[int]:
    with script("stress_upstream.py", str(large_bytes), str(stall_seconds)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise NotStarted("the upstream does not come up")
        yield int(line)


@contextlib.contextmanager
def script(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / name), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_ready(url: str) -> None:
    """Until `url` answers with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with opener.open(url, timeout=2):
                return
        except OSError as problem:
            if time.monotonic() > deadline:
                raise NotStarted(f"bridged is not ready: {problem}") from None
        time.sleep(0.02)
