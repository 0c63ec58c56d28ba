"""The wiring diagram of credentiald: what is opened, in which order, and how it stops."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import uvloop
from prometheus_client import CollectorRegistry

from credentiald import record_log, unsealing
from credentiald.audit_book import Mode, running_audit
from credentiald.bootstrap import fitting_sealer, prepare
from credentiald.bootstrap.audit_start import note_start
from credentiald.bootstrap.refusals import StartRefused
from credentiald.errors import Refusal, StoreUnavailable
from credentiald.metrics import Metrics
from credentiald.model import Gateway, Provider
from credentiald.plane import make_plane
from credentiald.price_list import PriceList
from credentiald.readiness import Readiness
from credentiald.record_book import RecordBook
from credentiald.record_rounds import running_book
from credentiald.rpc.sealed_server import sealed_listening
from credentiald.rpc.server import (
    ADMIN_SERVICES,
    MAIN_SERVICES,
    Auditing,
    Health,
    Recording,
    RpcListener,
    listening,
)
from credentiald.sealing import Sealer
from credentiald.sealing_places import LocalKeys
from credentiald.sealing_rounds import resealing
from credentiald.sealing_wrapping import WrapFailed
from credentiald.settings import Loaded, Settings
from credentiald.store import audit_heads, providers
from credentiald.store.audit import audit_path, open_audit
from credentiald.store.connection import Connection
from credentiald.store.database import Database, open_database
from credentiald.store.records import Records, open_records, records_path
from credentiald.store.sqlite import database_path
from credentiald.watching import watching
from daemonkit.binding import AddressTaken, bound_sockets
from daemonkit.garbage import leave_what_is_there
from daemonkit.health import health_listener, why_not_ready
from daemonkit.logs import running_logs
from daemonkit.private_memory import keep_memory_private
from daemonkit.rereading import rereading
from daemonkit.settings import ConfigErrors
from daemonkit.stopping import stop_requested
from daemonkit.supervisor import Bound, Plan, WorkersFailed, supervise
from daemonkit.tls_reload import TlsListeners, UnusableTls
from daemonkit.trace_settings import traces_wanted
from daemonkit.version import version
from daemonkit.worker import Worker

if TYPE_CHECKING:
    from credentiald.tracing import Tracing

log = logging.getLogger("credentiald")

_NO_AUDIT = "off"
# The gRPC listeners: name in the log, setting, services.
_LISTENERS = (("main", "listen", MAIN_SERVICES), ("admin", "admin_listen", ADMIN_SERVICES))


def run(loaded: Loaded) -> int:
    """Serve until asked to stop; the exit code."""
    settings = loaded.settings

    def serving() -> None:
        place = unsealing.place_of(loaded)
        sealer = None if place.is_sealed() else _prepared_sealer(settings)
        with _tracing(settings) as tracing:
            uvloop.run(_serve(loaded, settings, place, sealer, tracing))

    return _logging(settings, serving, warnings=loaded.warnings)


def run_worker(loaded: Loaded, worker: Worker) -> int:
    """Serve as one of several until the supervisor asks to stop; the exit code."""
    settings = replace(
        loaded.settings,
        listen=worker.addresses("listen"),
        admin_listen=worker.addresses("admin_listen"),
        metrics_listen=worker.metrics_listen,
    )

    def serving() -> None:
        place = unsealing.place_of(loaded)
        sealer = None if place.is_sealed() else fitting_sealer(settings.database, settings.sealing_keys)
        with _tracing(settings) as tracing:
            uvloop.run(_serve(loaded, settings, place, sealer, tracing, worker))

    return _logging(settings, serving)


def run_supervisor(loaded: Loaded, flags: Mapping[str, str | None]) -> int:
    """Run the workers until asked to stop; the exit code. `flags` are for them to read as well."""
    settings = loaded.settings

    def supervised() -> None:
        # Where somebody outside has to be asked, each worker does so, and finds or makes the database by itself.
        if not unsealing.place_of(loaded).is_sealed():
            _prepared_sealer(settings)
        with ExitStack() as stack:
            plan = Plan(
                module="credentiald",
                count=settings.workers,
                flags=flags,
                listeners=tuple(_kept(settings, name, field, stack) for name, field, _ in _LISTENERS),
                grace_seconds=settings.grace.total_seconds(),
            )
            asyncio.run(supervise(plan, settings.listener("metrics_listen")))

    return _logging(settings, supervised, warnings=loaded.warnings)


def _kept(settings: Settings, name: str, field: str, stack: ExitStack) -> Bound:
    """A listener's addresses, kept until the stack unwinds; each worker binds them for itself."""
    found = []
    for wanted in settings.listener(field).addresses:
        sockets, address = bound_sockets(wanted, setting_name=field, reuse_port=True)
        found.append((tuple(map(stack.enter_context, sockets)), address))
    return Bound(
        name=name,
        setting=field,
        addresses=tuple(address for _, address in found),
        sockets=tuple(one for sockets, _ in found for one in sockets),
        handed=False,
    )


def _prepared_sealer(settings: Settings) -> Sealer:
    """The sealer of a database that is ready to be opened."""
    prepared = prepare(settings.database, settings.sealing_keys, now=datetime.now(UTC))
    if prepared.created:
        log.info("made the database", extra={"path": str(prepared.database_path)})
    _note_start(settings)
    return prepared.sealer


def _note_start(settings: Settings) -> None:
    """The first entry of this run; once for all of its workers."""
    if settings.audit == _NO_AUDIT:
        log.warning("the audit is off: nobody writes down who administers, and which credentials are released")
        return
    now = datetime.now(UTC)
    unseen = note_start(settings.database, version=version(), mode=settings.audit, now=now)
    if unseen:
        log.warning("the audit does not know who made some changes: see its entry", extra={"changes": unseen})


def _logging(settings: Settings, serving: Callable[[], None], *, warnings: Sequence[str] = ()) -> int:
    """The exit code of what serves, with logs around it."""
    try:
        with running_logs(
            human=settings.log_human, json=settings.log_json, level=settings.log_level, shared=settings.workers > 1
        ):
            for warning in warnings:
                log.warning(warning)
            if not settings.debuggable:
                keep_memory_private()
            serving()
    except (StartRefused, AddressTaken, ConfigErrors, Refusal, UnusableTls, WorkersFailed) as refused:
        print(f"credentiald: {refused}", file=sys.stderr)  # noqa: T201 - the log may go elsewhere
        return 1
    return 0


@contextmanager
def _tracing(settings: Settings) -> Iterator["Tracing | None"]:
    """Who is told of spans, where traces are on; else nobody, and nothing of OpenTelemetry is loaded."""
    if not traces_wanted(settings.traces, os.environ):
        yield None
        return
    from credentiald.tracing import Tracing
    from daemonkit.tracing import running_tracer

    with running_tracer("credentiald") as tracer:
        yield Tracing(tracer)


async def _serve(
    loaded: Loaded,
    settings: Settings,
    place: unsealing.Place,
    sealer: Sealer | None,
    tracing: "Tracing | None",
    worker: Worker | None = None,
) -> None:
    stop: asyncio.Future[Any] = stop_requested() if worker is None else worker.stop_requested()
    metrics, readiness = Metrics(version()), Readiness()

    async def registry() -> CollectorRegistry:
        # Readiness waits for the store, which no gauge can when it is read.
        metrics.ready.set(not await why_not_ready(readiness.reasons))
        return metrics.registry

    async with rereading() as files:
        tls = TlsListeners(files, metrics.tls)
        metrics_listener = settings.listener("metrics_listen")
        listeners = _listeners(settings, tls)
        async with health_listener(
            metrics_listener,
            reasons=readiness.reasons,
            registry=registry,
            tls=tls.context(metrics_listener, "metrics"),
            announced=worker is None,
        ):
            if sealer is None:
                sealer, listeners = await _unsealed(place, listeners, metrics, readiness, stop, worker)
                if sealer is not None:
                    await asyncio.to_thread(_note_start, settings)
            if sealer is not None:
                await _serve_open(loaded, settings, place, sealer, listeners, metrics, readiness, stop, tracing, worker)
    log.info("stopped")


async def _unsealed(
    place: unsealing.Place,
    listeners: list[RpcListener],
    metrics: Metrics,
    readiness: Readiness,
    stop: asyncio.Future[Any],
    worker: Worker | None,
) -> tuple[Sealer | None, list[RpcListener]]:
    """The sealer, once those outside have decrypted its keys; None where the signal to stop came first."""

    def failed(error: WrapFailed) -> None:
        metrics.unseal_attempted("refused" if error.is_refused else "unreachable")
        readiness.sealed = f"sealed: {error}"

    metrics.sealed.set(1)
    readiness.sealed = "sealed: the sealing keys are not decrypted yet"
    async with sealed_listening(listeners, is_worker=worker is not None) as real:
        if worker is not None:
            # It listens, which is all that the supervisor waits for.
            worker.serving()
        asking = asyncio.create_task(unsealing.unsealed(place, failed))
        try:
            await asyncio.wait([asking, stop], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return None, real
            prepared = asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    metrics.unseal_attempted("ok")
    metrics.sealed.set(0)
    readiness.sealed = ""
    log.info("unsealed")
    return prepared.sealer, real


async def _serve_open(
    loaded: Loaded,
    settings: Settings,
    place: unsealing.Place,
    sealer: Sealer,
    listeners: list[RpcListener],
    metrics: Metrics,
    readiness: Readiness,
    stop: asyncio.Future[Any],
    tracing: "Tracing | None",
    worker: Worker | None,
) -> None:
    gateway = loaded.gateway
    async with (
        open_database(settings.database, sealer) as db,
        open_records(settings.database) as records,
        _running_book(loaded, db, records, metrics, tracing) as book,
        _auditing(settings, metrics, db) as auditing,
    ):
        await _refuse_shared_names(db, gateway)
        local_keys = LocalKeys(db.path, settings.sealing_keys, loaded.sealing_keys_path)
        plane = make_plane(db, sealer, gateway, local_keys=local_keys, wrapping=place.wrapping)
        metrics.watch_aws(plane.aws)
        path = database_path(settings.database)
        metrics.watch_store({"database": path, "records": records_path(path), "audit": audit_path(path)})
        async with (
            listening(
                plane,
                metrics,
                listeners,
                Health(),
                Recording(book=book, stored=records, rules=settings.keep_rules()),
                grace_seconds=settings.grace.total_seconds(),
                revoke_wait_seconds=settings.revoke_wait.total_seconds(),
                is_worker=worker is not None,
                tracing=tracing,
                auditing=auditing,
            ),
            readiness.listening(db),
            watching(plane, records, metrics, settings.keep_rules()),
            resealing(plane.sealing_keys, metrics),
        ):
            leave_what_is_there()
            log.info("ready", extra={"version": version()})
            if worker is not None and not listeners[0].was_sealed:
                worker.serving()
            await stop
            metrics.draining.set(1)
            log.info("draining")
        plane.aws.close()


@asynccontextmanager
async def _auditing(settings: Settings, metrics: Metrics, db: Database) -> AsyncIterator[Auditing | None]:
    if settings.audit == _NO_AUDIT:
        yield None
        return
    async with open_audit(settings.database) as file:
        async with running_audit(file, metrics.audit, lambda: datetime.now(UTC), mode=Mode(settings.audit)) as book:
            yield Auditing(book=book, file=file)
        # The next start misses what is not there then. Where this fails, it knows an earlier end.
        with suppress(StoreUnavailable):
            await db.write(audit_heads.note_later, book.last_head)


def _running_book(
    loaded: Loaded, db: Database, records: Records, metrics: Metrics, tracing: "Tracing | None"
) -> AbstractAsyncContextManager[RecordBook]:
    writes_log = loaded.gateway_settings.structured_logging
    if writes_log:
        # Asked for by a setting of its own, so --log-level does not take it back.
        record_log.log.setLevel(logging.INFO)
    return running_book(
        records,
        metrics,
        lambda: datetime.now(UTC),
        retention=loaded.gateway_settings.retention,
        writes_log=writes_log,
        read_prices=PriceList(db).current,
        tracing=tracing,
    )


async def _refuse_shared_names(db: Database, gateway: Gateway) -> None:
    """Providers from the environment and from the database share one namespace, of names and of ids."""
    shared = await db.read(_stored, [one.provider for one in gateway.environment_providers])
    if shared:
        raise StartRefused(
            f"these providers are both in the environment and in the database: {', '.join(shared)}; "
            "rename or remove one of each"
        )


def _stored(conn: Connection, configured: list[Provider]) -> list[str]:
    ids = providers.ids(conn)
    return [one.name for one in configured if one.id in ids or providers.find(conn, one.name) is not None]


def _listeners(settings: Settings, tls: TlsListeners) -> list[RpcListener]:
    listeners = []
    for name, field, services in _LISTENERS:
        configured = settings.listener(field)
        listeners.append(
            RpcListener(
                name=name,
                setting=field,
                addresses=configured.addresses,
                services=services,
                tls=tls.of(configured, name),
                reflection=settings.reflection_on(configured.addresses),
            )
        )
    return listeners
