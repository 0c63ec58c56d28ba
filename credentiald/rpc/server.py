"""The two gRPC listeners: the main one for bridges, services and users, and the one for administration.

Which services a listener has is the table below. Health and (by setting) reflection are on both.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from drawbridge.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    explain_service_pb2,
    explain_service_pb2_grpc,
    record_service_pb2,
    record_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
    user_key_service_pb2,
    user_key_service_pb2_grpc,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from credentiald.audit_book import AuditBook
from credentiald.breaker_book import BreakerBook
from credentiald.metrics import Metrics
from credentiald.outcome_book import OutcomeBook
from credentiald.plane import Plane
from credentiald.record_book import RecordBook
from credentiald.record_rules import KeepRules
from credentiald.rpc import access, paging
from credentiald.rpc.admin import Admin
from credentiald.rpc.audit_acts import Acts
from credentiald.rpc.credentials import Credentials
from credentiald.rpc.guard import Guard
from credentiald.rpc.records import Records
from credentiald.rpc.resolve_stream import ResolveStreams
from credentiald.rpc.usage import Usage
from credentiald.rpc.users import Explain, UserKeys
from credentiald.rpc.watch_streams import running_watch
from credentiald.store.audit import AuditFile
from credentiald.store.records import Records as StoredRecords
from daemonkit.binding import AddressTaken, remove_stale_socket
from daemonkit.listen import Address
from daemonkit.logs import announce
from daemonkit.tls import TlsBytes
from daemonkit.tls_reload import ServedTls

if TYPE_CHECKING:
    from credentiald.tracing import Tracing

log = logging.getLogger("credentiald")

CREDENTIALS = credential_service_pb2.DESCRIPTOR.services_by_name["CredentialService"].full_name
USER_KEYS = user_key_service_pb2.DESCRIPTOR.services_by_name["UserKeyService"].full_name
EXPLAIN = explain_service_pb2.DESCRIPTOR.services_by_name["ExplainService"].full_name
ADMIN = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

RECORDS = record_service_pb2.DESCRIPTOR.services_by_name["RecordService"].full_name
USAGE = usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"].full_name

MAIN_SERVICES = (CREDENTIALS, RECORDS, USER_KEYS, EXPLAIN, USAGE)
ADMIN_SERVICES = (ADMIN, USER_KEYS, EXPLAIN, USAGE)

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_metadata_size", 16 * 1024),
    # Bridges keep their connections alive while they are idle.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)


_TRIES_AFTER_SEALED = 100
_TRY_AGAIN_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcListener:
    """One gRPC listener: its name in the log, its setting, where it listens, which services it has.

    `was_sealed`: this process listened there until now, and has announced it.
    """

    name: str
    setting: str
    addresses: Sequence[Address]
    services: tuple[str, ...]
    tls: ServedTls | None
    reflection: bool
    was_sealed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Where records go, what of their content is kept, and where questions about them are answered from."""

    book: RecordBook
    stored: StoredRecords
    rules: KeepRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """Where the audit goes, and where questions about it are answered from."""

    book: AuditBook
    file: AuditFile


class Health:
    """The health of every listener, switched to NOT_SERVING as one when the drain begins."""

    def __init__(self) -> None:
        self._servicers: list[health.aio.HealthServicer] = []

    async def add(self, servicer: health.aio.HealthServicer, services: Iterable[str]) -> None:
        """Report these services, and the server as a whole, as serving."""
        for service in ("", *services):
            await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        self._servicers.append(servicer)

    async def drain(self) -> None:
        """Report everything as not serving, for good."""
        for servicer in self._servicers:
            await servicer.enter_graceful_shutdown()


@asynccontextmanager
async def listening(
    plane: Plane,
    metrics: Metrics,
    listeners: Sequence[RpcListener],
    states: Health,
    recording: Recording,
    *,
    grace_seconds: float,
    revoke_wait_seconds: float = 1.0,
    is_worker: bool = False,
    tracing: "Tracing | None" = None,
    auditing: Auditing | None = None,
) -> AsyncIterator[None]:
    """The listeners, bound for the length of the block; then what is under way has `grace_seconds`.

    What takes something away waits for `revoke_wait_seconds` at most until every bridge that watches obeys.
    A worker shares its ports with other workers, and its supervisor announces them.
    """
    # Two daemons that are started by accident must not share a port in silence.
    options = (("grpc.so_reuseport", int(is_worker)), *SERVER_OPTIONS)
    metrics.know_rpcs(access.RPCS)
    async with running_watch(plane, recording.stored, metrics, wait_seconds=revoke_wait_seconds) as watch:
        book = auditing.book if auditing else None
        acts = None if book is None else Acts(plane, book)
        streams = ResolveStreams(plane, metrics, recording.book, heard_of=watch.heard_of, tracing=tracing, audit=book)
        outcomes = OutcomeBook(plane, metrics)
        breakers = BreakerBook(recording.stored, plane.clock)
        pages = paging.Pages(plane.db.deployment_key("page-token"))
        servers: list[grpc.aio.Server] = []
        try:
            for listener in listeners:
                is_administration = ADMIN in listener.services
                guard = Guard(plane, metrics, watch.obeyed, tracing, acts, tells_who_is_not_admitted=is_administration)
                server = grpc.aio.server(interceptors=[guard], options=options)
                servers.append(server)
                _add_services(
                    server,
                    listener,
                    Credentials(plane, metrics, streams, watch, recording.book, outcomes, breakers, book),
                    Records(plane, metrics, recording.book, recording.rules),
                    Admin(plane, pages, recording.stored, auditing),
                    plane,
                    pages,
                )
                usage_service_pb2_grpc.add_UsageServiceServicer_to_server(Usage(plane, recording.stored, pages), server)
                servicer = health.aio.HealthServicer()
                health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
                bound = [await _bound_soon(server, listener, address) for address in listener.addresses]
                await server.start()
                await states.add(servicer, listener.services)
                for address in () if is_worker or listener.was_sealed else bound:
                    announce(listener.name, address)
            yield
        finally:
            await states.drain()
            streams.drain()
            watch.drain()
            await asyncio.gather(*(server.stop(grace_seconds) for server in servers))
            await outcomes.close()


def _add_services(
    server: grpc.aio.Server,
    listener: RpcListener,
    credentials: Credentials,
    records: Records,
    admin: Admin,
    plane: Plane,
    pages: paging.Pages,
) -> None:
    if CREDENTIALS in listener.services:
        credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(credentials, server)
    if RECORDS in listener.services:
        record_service_pb2_grpc.add_RecordServiceServicer_to_server(records, server)
    if ADMIN in listener.services:
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)
    user_key_service_pb2_grpc.add_UserKeyServiceServicer_to_server(UserKeys(plane, pages), server)
    explain_service_pb2_grpc.add_ExplainServiceServicer_to_server(Explain(plane), server)
    if listener.reflection:
        names = (*listener.services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)


async def _bound_soon(server: grpc.aio.Server, listener: RpcListener, address: Address) -> Address:
    """As `bind`; a listener that was sealed a moment ago may not have let go of its port yet."""
    tries = 1 if not listener.was_sealed else _TRIES_AFTER_SEALED
    while True:
        try:
            return bind(server, listener, address)
        except AddressTaken:
            tries -= 1
            if not tries:
                raise
        await asyncio.sleep(_TRY_AGAIN_SECONDS)


def bind(server: grpc.aio.Server, listener: RpcListener, address: Address) -> Address:
    """The address with the port that the system gave; AddressTaken where it cannot be had."""
    try:
        if address.is_unix:
            # gRPC would take a socket away from a server that listens on it.
            remove_stale_socket(address.path)
        if listener.tls is None or address.is_unix:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), _credentials(listener.tls))
    except (RuntimeError, OSError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is taken, or not ours"
        raise AddressTaken(f"{listener.setting}: cannot listen on {address}: {why}") from error
    return address if address.is_unix else address.with_port(port)


def _credentials(tls: ServedTls) -> grpc.ServerCredentials:
    """Credentials that follow the files. gRPC asks before each handshake, on threads of its own."""
    given = tls.pem

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        pem = tls.pem
        if pem is given:
            return None
        given = pem
        return _configuration(pem)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        changed,  # type: ignore[arg-type]  # None is "unchanged" in gRPC's documentation, and unknown to its types
        require_client_authentication=given.client_ca is not None,
    )


def _configuration(pem: TlsBytes) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], root_certificates=pem.client_ca)
