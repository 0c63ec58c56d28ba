"""The wiring diagram of bridged: what is opened, in which order, and how it drains."""

import asyncio
import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import uvloop

from bridged.breaker import BreakerRules
from bridged.breaking import Breaking
from bridged.bridge import Bridge
from bridged.dump.dumper import running_dumper
from bridged.dump.folder import DumpFolder
from bridged.dump.room import Room
from bridged.egress import Egress
from bridged.http1.downstream import Limits, Server, listening
from bridged.http1.pool import running_pool
from bridged.http1.proxies import Proxies, parse_proxies
from bridged.identity_files import followed_identity
from bridged.limits.entrance import Entrance
from bridged.metrics import Metrics
from bridged.readiness import Readiness
from bridged.recorder import running_recorder
from bridged.resolver import running_resolver
from bridged.settings import Loaded, Settings
from bridged.settings_table import REFUSE
from daemonkit.binding import BACKLOG, AddressTaken, bound_sockets
from daemonkit.descriptors import most_pairs, raise_descriptor_limit
from daemonkit.garbage import leave_what_is_there
from daemonkit.health import health_listener
from daemonkit.logs import announce, running_logs
from daemonkit.private_memory import keep_memory_private
from daemonkit.rereading import Rereading, rereading
from daemonkit.settings import ConfigErrors
from daemonkit.stopping import stop_requested
from daemonkit.supervisor import Bound, Plan, WorkersFailed, supervise
from daemonkit.tls_reload import TlsListeners, UnusableTls
from daemonkit.trace_settings import traces_wanted
from daemonkit.version import version
from daemonkit.worker import Worker

if TYPE_CHECKING:
    from bridged.tracing import Tracing

log = logging.getLogger(__name__)

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PROXY_VARIABLES = ("https_proxy", "http_proxy", "no_proxy")


class CannotStart(Exception):
    """A file that a setting names is not usable; the text is for the operator."""


def run(loaded: Loaded) -> int:
    """Serve until asked to stop; the exit code."""
    return _logging(loaded, lambda: _serve_traced(loaded), warnings=loaded.warnings)


def run_worker(loaded: Loaded, worker: Worker) -> int:
    """Serve as one of several until the supervisor asks to stop; the exit code."""
    of_worker = replace(loaded, settings=replace(loaded.settings, metrics_listen=worker.metrics_listen))
    return _logging(loaded, lambda: _serve_traced(of_worker, worker))


def run_supervisor(loaded: Loaded, flags: Mapping[str, str | None]) -> int:
    """Run the workers until asked to stop; the exit code. `flags` are for them to read as well."""
    settings = loaded.settings

    def supervised() -> None:
        with ExitStack() as stack:
            found = [bound_sockets(one, setting_name="listen", backlog=BACKLOG) for one in settings.listen]
            sockets = tuple(stack.enter_context(one) for several, _ in found for one in several)
            listener = Bound(
                name="http",
                setting="listen",
                addresses=tuple(address for _, address in found),
                sockets=sockets,
                handed=True,
            )
            plan = Plan(
                module="bridged",
                count=settings.workers,
                flags=flags,
                listeners=(listener,),
                grace_seconds=settings.grace.total_seconds(),
            )
            asyncio.run(supervise(plan, settings.listener("metrics_listen")))

    return _logging(loaded, supervised, warnings=loaded.warnings)


def _logging(loaded: Loaded, serving: Callable[[], None], *, warnings: Sequence[str] = ()) -> int:
    """The exit code of what serves, with logs around it."""
    settings = loaded.settings
    try:
        with running_logs(
            human=settings.log_human, json=settings.log_json, level=settings.log_level, shared=settings.workers > 1
        ):
            for warning in warnings:
                log.warning(warning)
            if not settings.debuggable:
                keep_memory_private()
            serving()
    except (AddressTaken, CannotStart, ConfigErrors, UnusableTls, WorkersFailed) as problem:
        print(f"bridged: {problem}", file=sys.stderr)  # noqa: T201 - the log may go elsewhere
        return 1
    return 0


def _keep_freed_memory() -> None:
    """Let malloc keep up to 64 MiB that was freed, instead of giving every large body back and faulting it in again.

    glibc only (mallopt(3)); elsewhere nothing changes. A body of 1 MB costs a fifth less.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 1024 * 1024)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 * 1024 * 1024)


def _serve_traced(loaded: Loaded, worker: Worker | None = None) -> None:
    """Serve, with traces where they are on; else nothing of OpenTelemetry is loaded."""
    if not traces_wanted(loaded.settings.traces, os.environ):
        uvloop.run(serve(loaded, worker))
        return
    from bridged.tracing import Tracing
    from daemonkit.tracing import running_tracer

    with running_tracer("bridged") as tracer:
        uvloop.run(serve(loaded, worker, Tracing(tracer)))


async def serve(loaded: Loaded, worker: Worker | None = None, tracing: "Tracing | None" = None) -> None:
    """Run bridged until asked to stop; as a worker, on the sockets of its supervisor."""
    async with rereading() as files:
        await _serve(loaded, files, worker, tracing)


async def _serve(loaded: Loaded, files: Rereading, worker: Worker | None, tracing: "Tracing | None") -> None:
    settings = loaded.settings
    _keep_freed_memory()
    pairs = most_pairs(raise_descriptor_limit())
    # Called where it is ended at once, and only there: what is lost by that would be lost without a word.
    last_words = ExitStack()
    stop: Awaitable[object] = (stop_requested if worker is None else worker.stop_requested)(last_words.close)
    readiness, metrics = Readiness(), Metrics()
    metrics.started(version())
    idle_seconds = settings.idle_timeout.total_seconds()

    def not_ready() -> list[str]:
        return readiness.reasons(asyncio.get_running_loop().time())

    metrics.watch_readiness(not_ready)
    listener, metrics_listener = settings.listener("listen"), settings.listener("metrics_listen")
    tls_listeners = TlsListeners(files, metrics.tls)
    tls, metrics_tls = tls_listeners.context(listener, "http"), tls_listeners.context(metrics_listener, "metrics")
    identities = followed_identity(settings, loaded.token_file, files, metrics.tls)
    async with (
        health_listener(
            metrics_listener,
            reasons=not_ready,
            registry=metrics.registry,
            tls=metrics_tls,
            announced=worker is None,
        ),
        running_resolver(
            settings.credentiald,
            identities,
            timeout_seconds=settings.credentiald_timeout.total_seconds(),
            readiness=readiness,
            metrics=metrics,
        ) as resolver,
        # Its end is after that of the last request, and before that of the way to credentiald.
        running_recorder(resolver.append_records, metrics, bound_bytes=settings.record_queue) as recorder,
        running_pool(
            connect_timeout_seconds=settings.connect_timeout.total_seconds(),
            first_byte_timeout_seconds=settings.first_byte_timeout.total_seconds(),
            idle_timeout_seconds=idle_seconds,
            max_connections=pairs,
            proxies=_proxies(),
            egress=Egress(networks=settings.allow_upstream_networks, loopback=settings.allow_upstream_loopback),
        ) as pool,
        running_dumper(_dump_folder(settings, metrics), metrics.dump) as dumper,
    ):
        bridge = Bridge(
            resolver,
            pool,
            metrics,
            max_body_bytes=settings.max_body,
            not_ready=not_ready,
            recorder=recorder,
            needs_records=settings.without_records == REFUSE,
            asks_for_usage=settings.ask_for_usage,
            tracing=tracing,
            send_trace_headers=settings.send_trace_headers,
            breaking=_breaking(settings, metrics),
            ends_on=settings.end_streams_on,
            entrance=_entrance(settings, metrics),
            plaintext_upstreams=settings.plaintext_upstreams,
            dumper=dumper,
        )
        last_words.callback(recorder.close)
        last_words.callback(lambda: log.warning("stopping at once", extra={"requests": bridge.under_way}))
        resolver.tell_changes(bridge.obey)
        resolver.tell_oldest(bridge.reporting.oldest_id)
        resolver.tell_return(bridge.reporting.tell_openings)
        if bridge.breaking is not None:
            resolver.tell_breakers(bridge.breaking.views)
        async with listening(
            bridge,
            listener.addresses if worker is None else (),
            limits=Limits(connections=pairs, body_seconds=idle_seconds, stall_seconds=idle_seconds),
            tls=tls,
            shared=() if worker is None else worker.sockets("listen"),
        ) as server:
            for address in server.addresses:
                announce("http", address)
            leave_what_is_there()
            if worker is not None:
                worker.serving()
            await stop
            readiness.draining = True
            await drain(bridge, server, settings.grace)
            await bridge.outcomes.close()
    log.info("stopped")


async def drain(bridge: Bridge, server: Server, grace: timedelta) -> None:
    """Accept nothing new, let what runs finish within the grace, then end it in the way of its API."""
    log.info("draining", extra={"grace_seconds": grace.total_seconds()})
    bridge.drain()
    server.stop_accepting()
    if await bridge.wait_until_idle(grace.total_seconds()):
        return
    log.warning("the grace is over: ending what still runs", extra={"requests": bridge.under_way})
    bridge.end_requests()


def _dump_folder(settings: Settings, metrics: Metrics) -> DumpFolder | None:
    """The folder of the API dump; None where there is none."""
    if not settings.dump_dir:
        return None
    room = Room(settings.max_dump, writers=settings.workers, removed=metrics.dump.removed.inc)
    try:
        return DumpFolder(settings.dump_dir, room)
    except OSError as error:
        raise CannotStart(
            f"dump_dir: cannot use {settings.dump_dir!r}: {error.strerror or type(error).__name__}"
        ) from None


def _breaking(settings: Settings, metrics: Metrics) -> Breaking | None:
    """The breakers; None where they are off."""
    if not settings.circuit_breaker_enabled:
        return None
    rules = BreakerRules(
        failure_threshold=settings.circuit_breaker_failure_threshold,
        interval_seconds=settings.circuit_breaker_interval.total_seconds(),
        timeout_seconds=settings.circuit_breaker_timeout.total_seconds(),
        max_requests=settings.circuit_breaker_max_requests,
    )
    return Breaking(rules, metrics)


def _entrance(settings: Settings, metrics: Metrics) -> Entrance | None:
    """What keeps the limits; None where there are none."""
    limits = settings.limits()
    for limit, most in limits.by_limit():
        metrics.limited(limit.value, most)
    return None if limits.are_none else Entrance(limits, metrics)


def _proxies() -> Proxies:
    """The proxies on the way to upstreams, from the variables that every client reads, in either case."""
    values = {name: os.environ.get(name.upper()) or os.environ.get(name) or "" for name in _PROXY_VARIABLES}
    try:
        return parse_proxies(**values)
    except ValueError as error:
        raise CannotStart(str(error)) from None
