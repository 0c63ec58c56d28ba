"""A real credentiald in the test's own event loop: real SQLite file, real gRPC over unix sockets."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import provider_pb2, user_pb2
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceStub
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceStub
from drawbridge.v1.explain_service_pb2_grpc import ExplainServiceStub
from drawbridge.v1.record_service_pb2_grpc import RecordServiceStub
from drawbridge.v1.usage_service_pb2_grpc import UsageServiceStub
from drawbridge.v1.user_key_service_pb2_grpc import UserKeyServiceStub
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from credentiald import bootstrap
from credentiald.audit_book import AuditBook, Mode, running_audit
from credentiald.metrics import Metrics
from credentiald.model import Gateway
from credentiald.plane import Plane, make_plane
from credentiald.price_list import PriceList
from credentiald.record_book import RecordBook
from credentiald.record_rounds import running_book
from credentiald.record_rules import KeepRules
from credentiald.rpc.server import (
    ADMIN_SERVICES,
    MAIN_SERVICES,
    Auditing,
    Health,
    Recording,
    RpcListener,
    listening,
)
from credentiald.sealing_rounds import resealing
from credentiald.store.audit import AuditFile, open_audit
from credentiald.store.database import open_database
from credentiald.store.records import Records, open_records
from daemonkit.listen import Address

if TYPE_CHECKING:
    from credentiald.tracing import Tracing


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a caller with this token; none for an empty one."""
    return (("authorization", f"Bearer {token}"),) if token else ()


@dataclass
class Running:
    """A served plane, with stubs to both listeners and the tokens of the first services."""

    plane: Plane
    folder: Path
    main: grpc.aio.Channel
    administration: grpc.aio.Channel
    book: RecordBook
    stored: Records
    audit_file: AuditFile
    audit: AuditBook
    admin_token: str = field(repr=False)
    bridge_token: str = field(repr=False)

    @property
    def credentials(self) -> CredentialServiceStub:
        return CredentialServiceStub(self.main)

    @property
    def user_keys(self) -> UserKeyServiceStub:
        return UserKeyServiceStub(self.main)

    @property
    def user_keys_of_admin(self) -> UserKeyServiceStub:
        return UserKeyServiceStub(self.administration)

    @property
    def explain(self) -> ExplainServiceStub:
        return ExplainServiceStub(self.main)

    @property
    def records(self) -> RecordServiceStub:
        return RecordServiceStub(self.main)

    @property
    def usage(self) -> UsageServiceStub:
        return UsageServiceStub(self.main)

    @property
    def recording(self) -> Recording:
        """What another server on the same files gets."""
        return Recording(book=self.book, stored=self.stored, rules=KeepRules())

    @property
    def admin(self) -> AdminServiceStub:
        return AdminServiceStub(self.administration)

    async def make_user(self, username: str, *, is_admin: bool = False) -> tuple[str, str]:
        """A new user's id and access token."""
        metadata = bearer(self.admin_token)
        user = await self.admin.CreateUser(
            admin.CreateUserRequest(user=user_pb2.User(username=username, admin=is_admin)), metadata=metadata
        )
        made = await self.admin.CreateToken(admin.CreateTokenRequest(user=username), metadata=metadata)
        return user.id, made.access_token

    async def make_service(self, name: str, role: str, **fields: object) -> str:
        """A new service's token."""
        made = await self.admin.CreateService(
            admin.CreateServiceRequest(
                service=user_pb2.Service(name=name, role=user_pb2.ServiceRole.Value(f"SERVICE_ROLE_{role}"), **fields)
            ),
            metadata=bearer(self.admin_token),
        )
        return made.service_token

    async def make_provider(
        self, name: str, type_name: str = "openai", *, flags: tuple[bool, bool, bool] | None = None, key: str = "",
        **fields: object,
    ) -> provider_pb2.Provider:  # fmt: skip
        """A new provider. `flags` are central key, user keys, fallback."""
        policy = None
        if flags is not None:
            names = ("central_key_enabled", "user_keys_allowed", "central_key_fallback")
            policy = provider_pb2.KeyPolicy(**dict(zip(names, flags, strict=True)))
        request = admin.CreateProviderRequest(
            provider=provider_pb2.Provider(name=name, type=type_name, key_policy=policy, **fields)
        )
        if key:
            request.central_key.api_key = key
        return await self.admin.CreateProvider(request, metadata=bearer(self.admin_token))


@asynccontextmanager
async def running(
    folder: Path,
    *,
    gateway: Gateway | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    metrics: Metrics | None = None,
    rules: KeepRules | None = None,
    writes_log: bool = False,
    tracing: "Tracing | None" = None,
    revoke_wait_seconds: float = 1.0,
    sockets: str = "",
    audit: Mode = Mode.ON,
) -> AsyncIterator[Running]:
    """A plane on a database in `folder`, served until the end of the block.

    `sockets` tells the sockets of several in one folder apart.
    """
    url = f"sqlite:///{folder / 'credentiald.db'}"
    prepared = bootstrap.prepare(url, None, now=clock())
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(open_database(url, prepared.sealer))
        plane = make_plane(db, prepared.sealer, gateway or Gateway(), clock)
        addresses = {name: Address(path=str(folder / f"{sockets}{name}.sock")) for name in ("main", "admin")}
        listeners = [
            RpcListener(
                name="main",
                setting="listen",
                addresses=[addresses["main"]],
                services=MAIN_SERVICES,
                tls=None,
                reflection=True,
            ),
            RpcListener(
                name="admin",
                setting="admin_listen",
                addresses=[addresses["admin"]],
                services=ADMIN_SERVICES,
                tls=None,
                reflection=False,
            ),
        ]
        counting = metrics or Metrics("test")
        stored = await stack.enter_async_context(open_records(url))
        book = await stack.enter_async_context(
            running_book(
                stored, counting, clock, writes_log=writes_log, read_prices=PriceList(db).current, tracing=tracing
            )
        )
        recording = Recording(book=book, stored=stored, rules=rules or KeepRules())
        audit_file = await stack.enter_async_context(open_audit(url))
        audit_book = await stack.enter_async_context(running_audit(audit_file, counting.audit, clock, mode=audit))
        await stack.enter_async_context(
            listening(
                plane,
                counting,
                listeners,
                Health(),
                recording,
                grace_seconds=0,
                revoke_wait_seconds=revoke_wait_seconds,
                tracing=tracing,
                auditing=Auditing(book=audit_book, file=audit_file),
            )
        )
        await stack.enter_async_context(resealing(plane.sealing_keys, counting))
        channels = {
            name: await stack.enter_async_context(grpc.aio.insecure_channel(str(address)))
            for name, address in addresses.items()
        }
        yield Running(
            plane=plane,
            folder=folder,
            main=channels["main"],
            administration=channels["admin"],
            book=book,
            stored=stored,
            audit_file=audit_file,
            audit=audit_book,
            admin_token=prepared.admin_token_path.read_text().strip(),
            bridge_token=prepared.bridge_token_path.read_text().strip(),
        )


def info_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The one ErrorInfo of a refusal."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no status details in {error.code()}: {error.details()}"
    infos = []
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            infos.append(info)
    assert len(infos) == 1
    return infos[0]


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason of a refusal."""
    return info_of(error).reason
