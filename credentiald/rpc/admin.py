"""AdminService: providers here, the rest in the modules admin_*.py beside this one."""

from typing import TYPE_CHECKING, Any

from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import provider_health_pb2, provider_pb2
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceServicer
from google.protobuf.empty_pb2 import Empty

from credentiald import administer_providers as providers
from credentiald import provider_health
from credentiald.check_provider import check_provider
from credentiald.errors import InvalidArgument
from credentiald.plane import Plane
from credentiald.rpc import check_codec, codec, health_codec, masks, paging
from credentiald.rpc.admin_keys import Keys, given_key
from credentiald.rpc.admin_log import caller_name, log_change
from credentiald.rpc.admin_models import Models
from credentiald.rpc.admin_principals import Principals
from credentiald.rpc.admin_sealing import Sealing
from credentiald.rpc.audit import Audit
from credentiald.store.records import Records

if TYPE_CHECKING:
    from credentiald.rpc.server import Auditing


class Admin(Principals, Models, Keys, Sealing, Audit, AdminServiceServicer):
    """Answers administrators."""

    def __init__(self, plane: Plane, pages: paging.Pages, records: Records, auditing: "Auditing | None" = None) -> None:
        super().__init__(plane, pages)
        self._audit = auditing.book if auditing else None
        self._audit_file = auditing.file if auditing else None
        self._records = records

    async def CreateProvider(self, request: pb.CreateProviderRequest, context: Any) -> provider_pb2.Provider:
        message = request.provider
        draft = providers.new_provider(
            name=message.name,
            type_name=message.type,
            display_name=message.display_name,
            base_url=message.base_url,
            enabled=message.enabled if message.HasField("enabled") else True,
            bedrock=codec.bedrock_options(message.bedrock) if message.HasField("bedrock") else None,
            send_actor_headers=message.send_actor_headers if message.HasField("send_actor_headers") else None,
            timeouts=codec.timeouts(message.timeouts),
            fallback_provider=message.fallback_provider,
            provider_id=message.id,
            **masks.present_fields(message.key_policy),
        )
        made = await providers.create_provider(self._plane, draft, central_key=given_key(request))
        log_change("provider created", made.name)
        return codec.provider(made)

    async def GetProvider(self, request: pb.GetProviderRequest, context: Any) -> provider_pb2.Provider:
        return codec.provider(await providers.get_provider(self._plane, request.name))

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Any) -> pb.ListProvidersResponse:
        size = paging.size_of(request.page_size)
        after = self._pages.after(request.page_token, "providers")
        found = await providers.list_providers(self._plane, after=after, limit=size + 1)
        page, next_token = self._pages.cut(found, size, "providers", lambda one: one.name)
        return pb.ListProvidersResponse(providers=[codec.provider(one) for one in page], next_page_token=next_token)

    async def UpdateProvider(self, request: pb.UpdateProviderRequest, context: Any) -> provider_pb2.Provider:
        paths = list(request.update_mask.paths)
        key = given_key(request)
        if not paths and key is None and not request.clear_central_key:
            raise InvalidArgument(field="update_mask", problem="names nothing to change")
        if key is not None and request.clear_central_key:
            raise InvalidArgument(field="clear_central_key", problem="excludes central_key")
        name = request.provider.name
        changed = await providers.update_provider(
            self._plane,
            name,
            masks.edit_of(request.provider, paths),
            expected_version=codec.version_of(request.provider.etag, resource="provider", name=name),
            central_key=key,
            clear_central_key=request.clear_central_key,
        )
        log_change("provider updated", name)
        return codec.provider(changed)

    async def DeleteProvider(self, request: pb.DeleteProviderRequest, context: Any) -> Empty:
        version = codec.version_of(request.etag, resource="provider", name=request.name)
        await providers.delete_provider(self._plane, request.name, expected_version=version)
        log_change("provider deleted", request.name)
        return Empty()

    async def CheckProvider(self, request: pb.CheckProviderRequest, context: Any) -> pb.CheckProviderResponse:
        return check_codec.checked(await check_provider(self._plane, request.name, username=caller_name()))

    async def GetProviderHealth(
        self, request: pb.GetProviderHealthRequest, context: Any
    ) -> provider_health_pb2.ProviderHealth:
        return health_codec.health(await provider_health.health_of(self._plane, self._records, request.name))

    async def ListProviderHealth(
        self, request: pb.ListProviderHealthRequest, context: Any
    ) -> pb.ListProviderHealthResponse:
        size = paging.size_of(request.page_size)
        after = self._pages.after(request.page_token, "provider health")
        found = await provider_health.list_health(self._plane, self._records, after=after, limit=size + 1)
        page, next_token = self._pages.cut(found, size, "provider health", lambda one: one.provider.name)
        messages = [health_codec.health(one) for one in page]
        fitting = health_codec.fitting(messages)
        if fitting < len(messages):
            next_token = self._pages.token(messages[fitting - 1].provider, "provider health")
        return pb.ListProviderHealthResponse(providers=messages[:fitting], next_page_token=next_token)
