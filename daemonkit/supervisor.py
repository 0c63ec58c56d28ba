"""The process above several workers: starts them, starts those anew that die, and speaks for all of them.

Workers are new processes (`python -m bridged serve --worker-fd N`), in a session of their own so that a terminal's
Ctrl-C reaches them only through the supervisor. What is said on the line is in worker.py.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry, Metric, generate_latest

from daemonkit.health import health_listener, why_not_ready
from daemonkit.listen import Address
from daemonkit.log_metrics import LogMetrics
from daemonkit.logs import announce
from daemonkit.merged_metrics import families_of, lasting, merged, registry_of
from daemonkit.process_metrics import ProcessMetrics
from daemonkit.rereading import rereading
from daemonkit.stopping import stop_requested
from daemonkit.tls import Listener
from daemonkit.tls_metrics import TlsMetrics
from daemonkit.tls_reload import TlsListeners
from daemonkit.worker import AT_ONCE, SERVING, Handover

log = logging.getLogger(__name__)

Happening = Callable[[], Coroutine[None, None, None]]

_START_SECONDS = 60.0
_ASK_SECONDS = 2.0
# Rest before a worker is started anew: doubled each time that it died young.
_FIRST_REST_SECONDS = 0.1
_LONGEST_REST_SECONDS = 30.0
_YOUNG_SECONDS = 10.0
# Beyond the grace: for ending what the grace did not see end, and for the end of the process.
_END_SECONDS = 10.0
# For saying what is lost with a worker that is ended at once.
_AT_ONCE_SECONDS = 3.0


class WorkersFailed(Exception):
    """The workers cannot be started, or did not end in time; the text is for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A listener of the workers, bound in the supervisor.

    `name` is that of the log, `setting` that of the settings table. `handed` says whether workers accept on these
    sockets; else they bind the address themselves, and the sockets only keep it.
    """

    name: str
    setting: str
    addresses: tuple[Address, ...]
    sockets: tuple[socket.socket, ...]
    handed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run: `count` times `python -m module serve`, each with these flags."""

    module: str
    count: int
    flags: Mapping[str, str | None]
    listeners: tuple[Bound, ...]
    grace_seconds: float


async def supervise(plan: Plan, metrics: Listener) -> None:
    """Run the workers until asked to stop, then until they have drained. WorkersFailed, AddressTaken."""
    # mkdtemp: nobody else may enter.
    folder = tempfile.mkdtemp(prefix="drawbridge-")
    own = CollectorRegistry()
    LogMetrics(plan.module, own)
    process = ProcessMetrics(plan.module, own, serving=0)
    restarted = process.worker_restarts.inc
    crew = _Crew([_Slot(plan, number, f"{folder}/{number}.sock", restarted) for number in range(plan.count)])

    def at_once() -> None:
        crew.end_at_once()
        shutil.rmtree(folder, ignore_errors=True)

    stop = stop_requested(at_once)

    async def registry() -> CollectorRegistry:
        # What only the supervisor knows: a worker that is dead or hangs cannot say that it is not ready.
        why, counted = await asyncio.gather(why_not_ready(crew.reasons), crew.metrics())
        process.ready.set(not why)
        process.draining.set(crew.draining)
        # As text, like theirs: a registry tells apart what reads alike.
        return registry_of(merged([families_of(generate_latest(own).decode()), *counted]))

    try:
        async with rereading(also=crew.hang_up) as files:
            tls = TlsListeners(files, TlsMetrics(plan.module, own)).context(metrics, "metrics")
            async with health_listener(metrics, reasons=crew.reasons, registry=registry, tls=tls):
                await _run(plan, crew, stop)
    finally:
        await crew.end()
        shutil.rmtree(folder, ignore_errors=True)
    log.info("stopped")


async def _run(plan: Plan, crew: "_Crew", stop: asyncio.Future[signal.Signals]) -> None:
    crew.start()
    if await crew.until(stop, crew.serving):
        for listener in plan.listeners:
            for address in listener.addresses:
                announce(listener.name, address)
        await crew.until(stop)
    log.info("draining the workers", extra={"grace_seconds": plan.grace_seconds})
    crew.drain()
    for listener in plan.listeners:
        for one in listener.sockets:
            one.close()
    if not await crew.ended(plan.grace_seconds + _END_SECONDS):
        raise WorkersFailed("workers did not end within the grace and were killed")


class _Slot:
    """One worker and those that come after it."""

    def __init__(self, plan: Plan, number: int, metrics_path: str, restarted: Callable[[], None]) -> None:
        self._plan = plan
        self._number = number
        self._metrics_path = metrics_path
        self._restarted = restarted
        self._process: asyncio.subprocess.Process | None = None
        self._line: socket.socket | None = None
        self._draining = asyncio.Event()
        self._serving = False
        self._last: list[Metric] = []
        self._of_the_dead: list[Metric] = []
        self.served = asyncio.Event()

    async def keep(self) -> None:
        """Keep a worker running until the drain. WorkersFailed if the first one never serves."""
        loop = asyncio.get_running_loop()
        rest_seconds = _FIRST_REST_SECONDS
        while not self._draining.is_set():
            start_time = loop.time()
            code = await self._live()
            if self._draining.is_set():
                if code != 0:
                    log.error("a worker did not drain", extra={"worker": self._number, "end": _end_of(code)})
                return
            if not self.served.is_set():
                raise WorkersFailed(f"worker {self._number} {_end_of(code)} before it could serve")
            if loop.time() - start_time > _YOUNG_SECONDS:
                rest_seconds = _FIRST_REST_SECONDS
            log.error(
                "a worker died and is started anew",
                extra={"worker": self._number, "end": _end_of(code), "rest_seconds": rest_seconds},
            )
            self._restarted()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), rest_seconds)
            rest_seconds = min(2 * rest_seconds, _LONGEST_REST_SECONDS)

    def drain(self) -> None:
        """Ask the worker to drain, also one that is just being started."""
        self._draining.set()
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End the worker, whatever it does."""
        self._send(signal.SIGKILL)

    def end_at_once(self) -> None:
        """Have the worker end without a drain, as soon as it has said what is lost."""
        self._send(AT_ONCE)

    def wait_for_end(self, deadline: float) -> None:
        """Return when the worker is gone, or at this time of the monotonic clock. Stops the loop."""
        if self._line is None:
            return
        with contextlib.suppress(OSError):
            while (left_seconds := deadline - time.monotonic()) > 0:
                self._line.settimeout(left_seconds)
                if not self._line.recv(1):
                    return

    def hang_up(self) -> None:
        """Have the worker read its files anew; one that is being started does so anyway."""
        if self._serving:
            self._send(signal.SIGHUP)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def reasons(self) -> list[str]:
        """Why this worker is not ready."""
        if not self._serving:
            return ["a worker is starting"]
        try:
            answer = json.loads(await self._asked("/readyz"))
            return [str(reason) for reason in answer["reasons"]]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return ["a worker does not answer"]

    async def metrics(self) -> list[Metric]:
        """What this worker and those before it say; of one that does not answer, only what it had counted."""
        answered = False
        if self._serving:
            process = self._process
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
                families = families_of(await self._asked("/metrics"))
                # It may have died since, and been counted among the dead.
                if self._process is process and self._serving:
                    self._last, answered = families, True
        # What it said last of itself may be true no more.
        return merged([self._last if answered else lasting(self._last), self._of_the_dead])

    async def _live(self) -> int:
        """The exit code of one worker, from its start to its end."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._process = await self._spawned(theirs)
            self._line = ours
            try:
                await self._hear(ours)
                return await self._process.wait()
            finally:
                self._line = None
                self._serving = False
                self._of_the_dead = merged([self._of_the_dead, lasting(self._last)])
                self._last = []

    async def _spawned(self, line: socket.socket) -> asyncio.subprocess.Process:
        # The folder where the daemon was started is a place for modules only if it was one for the supervisor.
        path_flags = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
        handed = [one.fileno() for listener in self._plan.listeners if listener.handed for one in listener.sockets]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *path_flags,
            *("-m", self._plan.module, "serve", "--worker-fd", str(line.fileno())),
            stdin=subprocess.DEVNULL,
            pass_fds=(line.fileno(), *handed),
            start_new_session=True,
        )

    async def _hear(self, line: socket.socket) -> None:
        """Hand over, and wait until the worker serves; return early if it ends before."""
        assert self._process is not None  # noqa: S101 - for the type checker
        loop = asyncio.get_running_loop()
        line.setblocking(False)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await loop.sock_sendall(line, self._handover().to_bytes())
                if self._draining.is_set():
                    line.shutdown(socket.SHUT_WR)
                said = await loop.sock_recv(line, len(SERVING))
        except TimeoutError:
            log.error("a worker does not start", extra={"worker": self._number, "seconds": _START_SECONDS})  # noqa: TRY400
            self.kill()
            return
        except OSError:
            return
        if said == SERVING:
            self._serving = True
            self.served.set()
            log.info("a worker serves", extra={"worker": self._number, "pid": self._process.pid})

    def _handover(self) -> Handover:
        listeners = self._plan.listeners
        return Handover(
            flags=self._plan.flags,
            addresses={one.setting: ",".join(map(str, one.addresses)) for one in listeners},
            sockets={one.setting: [each.fileno() for each in one.sockets] for one in listeners if one.handed},
            metrics_path=self._metrics_path,
        )

    async def _asked(self, path: str) -> str:
        timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
        connector = aiohttp.UnixConnector(self._metrics_path, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://worker{path}") as answer,
        ):
            return await answer.text()


class _Crew:
    """All workers as one."""

    def __init__(self, slots: Sequence[_Slot]) -> None:
        self._slots = slots
        self._keeping: list[asyncio.Task[None]] = []
        self.draining = False

    def start(self) -> None:
        """Start every worker."""
        self._keeping = [asyncio.create_task(slot.keep()) for slot in self._slots]

    async def serving(self) -> None:
        """Return when each of them has served."""
        for slot in self._slots:
            await slot.served.wait()

    async def until(
        self, stop: asyncio.Future[signal.Signals], *done: Callable[[], Coroutine[None, None, None]]
    ) -> bool:
        """Wait for `done` or, without it, for the signal to stop; False where the signal came first. WorkersFailed."""
        waiting = [asyncio.create_task(one()) for one in done]
        try:
            anything: list[asyncio.Future[Any]] = [stop, *waiting, *self._keeping]
            await asyncio.wait(anything, return_when=asyncio.FIRST_COMPLETED)
            for task in self._keeping:
                if task.done():
                    task.result()
            return not stop.done()
        finally:
            for one in waiting:
                one.cancel()

    def drain(self) -> None:
        """Ask all to drain."""
        self.draining = True
        for slot in self._slots:
            slot.drain()

    async def ended(self, timeout_seconds: float) -> bool:
        """Whether all of them end within the time."""
        _, left = await asyncio.wait(self._keeping, timeout=timeout_seconds)
        return not left

    def end_at_once(self) -> None:
        """End all of them without a drain: those are killed that do not within a few seconds. Stops the loop."""
        for slot in self._slots:
            slot.end_at_once()
        deadline = time.monotonic() + _AT_ONCE_SECONDS
        for slot in self._slots:
            slot.wait_for_end(deadline)
        self.kill()

    def kill(self) -> None:
        """End all of them, whatever they do."""
        for slot in self._slots:
            slot.kill()

    async def end(self) -> None:
        """End what still runs at once, and wait for it."""
        for slot in self._slots:
            slot.drain()
        self.kill()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def reasons(self) -> list[str]:
        """Why not all of them are ready, each reason once."""
        if self.draining:
            return ["draining"]
        found = await asyncio.gather(*(slot.reasons() for slot in self._slots))
        return list(dict.fromkeys(reason for reasons in found for reason in reasons))

    async def metrics(self) -> list[list[Metric]]:
        """The metrics of each."""
        return await asyncio.gather(*(slot.metrics() for slot in self._slots))

    def hang_up(self) -> None:
        """Have all read their files anew."""
        for slot in self._slots:
            slot.hang_up()


def _end_of(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
