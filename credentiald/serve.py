"""The wiring diagram of credentiald: what is opened, in which order, and how it stops."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import uvloop

from credentiald.bootstrap import Prepared, StartRefused, prepare
from credentiald.errors import Refusal
from credentiald.metrics import Metrics
from credentiald.model import Gateway, Provider
from credentiald.plane import make_plane
from credentiald.rpc.server import ADMIN_SERVICES, MAIN_SERVICES, Health, RpcListener, listening
from credentiald.settings import Loaded, Settings
from credentiald.store import providers
from credentiald.store.connection import Connection
from credentiald.store.database import Database, open_database
from daemonkit.binding import AddressTaken
from daemonkit.health import health_listener
from daemonkit.logs import running_logs
from daemonkit.settings import ConfigErrors
from daemonkit.stopping import stop_requested
from daemonkit.tls import read_pem
from daemonkit.version import version

log = logging.getLogger("credentiald")

# How long the store may take to say that it is there, for readiness.
_PING_SECONDS = 1.0


def run(loaded: Loaded) -> int:
    """Serve until asked to stop; the exit code."""
    settings = loaded.settings
    try:
        with running_logs(human=settings.log_human, json=settings.log_json, level=settings.log_level):
            for warning in loaded.warnings:
                log.warning(warning)
            prepared = prepare(settings.database, settings.sealing_keys, now=datetime.now(UTC))
            if prepared.created:
                log.info("made the database", extra={"path": str(prepared.database_path)})
            uvloop.run(_serve(settings, loaded.gateway, prepared))
    except (StartRefused, AddressTaken, ConfigErrors, Refusal) as refused:
        print(f"credentiald: {refused}", file=sys.stderr)  # noqa: T201 - the log may go elsewhere
        return 1
    return 0


async def _serve(settings: Settings, gateway: Gateway, prepared: Prepared) -> None:
    stop = stop_requested()
    async with open_database(settings.database, prepared.sealer) as db:
        await _refuse_shared_names(db, gateway)
        plane = make_plane(db, prepared.sealer, gateway)
        metrics = Metrics(version())
        states = Health()
        readiness = Readiness(db)
        async with (
            health_listener(settings.listener("metrics_listen"), reasons=readiness.reasons, registry=metrics.registry),
            listening(plane, metrics, _listeners(settings), states, grace_seconds=settings.grace.total_seconds()),
            readiness.listening(),
        ):
            # What was made up to here lives as long as the process: no need to look through it again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 20)
            log.info("ready", extra={"version": version()})
            await stop
            log.info("draining")
    log.info("stopped")


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


class Readiness:
    """Why credentiald is not ready: not listening yet or no more, or the store does not answer."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._listening = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """The time between the start of the last listener and the beginning of the drain."""
        self._listening = True
        try:
            yield
        finally:
            self._listening = False

    async def reasons(self) -> list[str]:
        """Nothing when ready; else what is missing, without details of ours."""
        if not self._listening:
            return ["not listening"]
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._db.ping()
        except (TimeoutError, Refusal):
            return ["the store does not answer"]
        return []


def _listeners(settings: Settings) -> list[RpcListener]:
    rows = (("main", "listen", MAIN_SERVICES), ("admin", "admin_listen", ADMIN_SERVICES))
    listeners = []
    for name, field, services in rows:
        configured = settings.listener(field)
        listeners.append(
            RpcListener(
                name=name,
                setting=field,
                addresses=configured.addresses,
                services=services,
                tls=read_pem(configured.tls) if configured.tls else None,
                reflection=settings.reflection_on(configured.addresses),
            )
        )
    return listeners
