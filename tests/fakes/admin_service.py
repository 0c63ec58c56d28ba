"""An in-memory credentiald for tests of the command line: real gRPC on a unix socket, no store and no policy.

Lists come two to a page. Every call is kept in `calls` with the token that it carried.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Never, TypeVar

import grpc
from drawbridge.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    explain_service_pb2,
    explain_service_pb2_grpc,
    model_pb2,
    provider_health_pb2,
    provider_pb2,
    usage_service_pb2,
    usage_service_pb2_grpc,
    user_key_pb2,
    user_key_service_pb2,
    user_key_service_pb2_grpc,
    user_pb2,
)
from google.protobuf import any_pb2, empty_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from credentiald.errors import ModelNotFound, ProviderNotFound, Refusal, ServiceNotFound, TokenNotFound, UserNotFound

PAGE_SIZE = 2
CREATE_SECONDS = 1_800_000_000
UPDATE_SECONDS = CREATE_SECONDS + 60

Item = TypeVar("Item")


@dataclass
class FakePlane:
    """What the fake knows, and what it was asked. Put things in, or a refusal or a status to answer with."""

    address: str
    users: dict[str, user_pb2.User] = field(default_factory=dict)
    tokens: dict[str, user_pb2.Token] = field(default_factory=dict)
    services: dict[str, user_pb2.Service] = field(default_factory=dict)
    providers: dict[str, provider_pb2.Provider] = field(default_factory=dict)
    models: dict[tuple[str, str], model_pb2.Model] = field(default_factory=dict)
    user_keys: list[user_key_pb2.UserKey] = field(default_factory=list)
    explanation: explain_service_pb2.ExplainProviderResponse = field(
        default_factory=explain_service_pb2.ExplainProviderResponse
    )
    checked: admin_service_pb2.CheckProviderResponse = field(default_factory=admin_service_pb2.CheckProviderResponse)
    health: dict[str, provider_health_pb2.ProviderHealth] = field(default_factory=dict)
    sessions: list[usage_service_pb2.Session] = field(default_factory=list)
    interceptions: list[usage_service_pb2.Interception] = field(default_factory=list)
    thread: usage_service_pb2.GetInterceptionResponse = field(default_factory=usage_service_pb2.GetInterceptionResponse)
    usage: list[usage_service_pb2.UsageRow] = field(default_factory=list)
    # As of the releases before `mine` was a filter.
    knows_mine: bool = True
    calls: list[tuple[str, Message, str]] = field(default_factory=list)
    refusal: Refusal | None = None
    status: tuple[grpc.StatusCode, str] | None = None
    trailing: tuple[tuple[str, str], ...] = ()

    @property
    def last(self) -> Any:
        """The latest request."""
        return self.calls[-1][1]

    @property
    def last_method(self) -> str:
        return self.calls[-1][0]

    @property
    def last_authorization(self) -> str:
        return self.calls[-1][2]

    def note(self, method: str, request: Message, context: grpc.ServicerContext) -> None:
        """Keep the call, and answer it at once where the test says how."""
        metadata = dict(context.invocation_metadata())
        self.calls.append((method, request, str(metadata.get("authorization", ""))))
        if self.refusal is not None:
            refuse(context, self.refusal)
        if self.status is not None:
            context.abort(*self.status)


def refuse(context: grpc.ServicerContext, refusal: Refusal) -> Never:
    """Abort with the status that credentiald would send."""
    info = error_details_pb2.ErrorInfo(reason=refusal.reason(), domain="drawbridge", metadata=refusal.facts)
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=int(refusal.code), message=str(refusal), details=[detail])
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort returns")


def page_of(items: list[Item], token: str) -> tuple[list[Item], str]:
    """One page, and the token of the next."""
    start = int(token or 0)
    end = start + PAGE_SIZE
    return items[start:end], str(end) if end < len(items) else ""


class _Admin(admin_service_pb2_grpc.AdminServiceServicer):
    def __init__(self, plane: FakePlane) -> None:
        self._plane = plane

    def _user(self, name: str, context: grpc.ServicerContext) -> user_pb2.User:
        return self._plane.users.get(name) or refuse(context, UserNotFound(user=name))

    def _provider(self, name: str, context: grpc.ServicerContext) -> provider_pb2.Provider:
        return self._plane.providers.get(name) or refuse(context, ProviderNotFound(provider=name))

    def _model(self, provider: str, name: str, context: grpc.ServicerContext) -> model_pb2.Model:
        return self._plane.models.get((provider, name)) or refuse(context, ModelNotFound(provider=provider, model=name))

    def CreateModel(self, request, context):
        self._plane.note("CreateModel", request, context)
        self._plane.models[request.model.provider, request.model.name] = request.model
        return request.model

    def GetModel(self, request, context):
        self._plane.note("GetModel", request, context)
        return self._model(request.provider, request.name, context)

    def ListModels(self, request, context):
        self._plane.note("ListModels", request, context)
        found = [one for one in self._plane.models.values() if request.provider in ("", one.provider)]
        models, token = page_of(found, request.page_token)
        return admin_service_pb2.ListModelsResponse(models=models, next_page_token=token)

    def UpdateModel(self, request, context):
        self._plane.note("UpdateModel", request, context)
        return self._model(request.model.provider, request.model.name, context)

    def DeleteModel(self, request, context):
        self._plane.note("DeleteModel", request, context)
        self._model(request.provider, request.name, context)
        del self._plane.models[request.provider, request.name]
        return empty_pb2.Empty()

    def CreateUser(self, request, context):
        self._plane.note("CreateUser", request, context)
        user = user_pb2.User(
            id=f"id-{request.user.username}",
            username=request.user.username,
            admin=request.user.admin,
            state=user_pb2.USER_STATE_ACTIVE,
            etag="1",
        )
        user.create_time.FromSeconds(CREATE_SECONDS)
        user.update_time.FromSeconds(UPDATE_SECONDS)
        self._plane.users[user.username] = user
        return user

    def GetUser(self, request, context):
        self._plane.note("GetUser", request, context)
        return self._user(request.user, context)

    def ListUsers(self, request, context):
        self._plane.note("ListUsers", request, context)
        users, token = page_of(list(self._plane.users.values()), request.page_token)
        return admin_service_pb2.ListUsersResponse(users=users, next_page_token=token)

    def SuspendUser(self, request, context):
        self._plane.note("SuspendUser", request, context)
        user = self._user(request.user, context)
        user.state = user_pb2.USER_STATE_SUSPENDED
        return user

    def ResumeUser(self, request, context):
        self._plane.note("ResumeUser", request, context)
        user = self._user(request.user, context)
        user.state = user_pb2.USER_STATE_ACTIVE
        return user

    def DeleteUser(self, request, context):
        self._plane.note("DeleteUser", request, context)
        del self._plane.users[self._user(request.user, context).username]
        return empty_pb2.Empty()

    def CreateToken(self, request, context):
        self._plane.note("CreateToken", request, context)
        token = user_pb2.Token(id=f"token-{len(self._plane.tokens)}", username=request.user)
        if request.HasField("expire_time"):
            token.expire_time.CopyFrom(request.expire_time)
        self._plane.tokens[token.id] = token
        return admin_service_pb2.CreateTokenResponse(token=token, access_token=f"dbu_of_{request.user}")

    def ListTokens(self, request, context):
        self._plane.note("ListTokens", request, context)
        of_user = [one for one in self._plane.tokens.values() if request.user in ("", one.username)]
        tokens, token = page_of(of_user, request.page_token)
        return admin_service_pb2.ListTokensResponse(tokens=tokens, next_page_token=token)

    def RevokeToken(self, request, context):
        self._plane.note("RevokeToken", request, context)
        token = self._plane.tokens.get(request.id) or refuse(context, TokenNotFound(id=request.id))
        token.revoke_time.FromSeconds(UPDATE_SECONDS)
        return token

    def CreateService(self, request, context):
        self._plane.note("CreateService", request, context)
        self._plane.services[request.service.name] = request.service
        token = "" if request.service.certificate_sans and not request.with_token else "dbs_new"
        return admin_service_pb2.CreateServiceResponse(service=request.service, service_token=token)

    def ListServices(self, request, context):
        self._plane.note("ListServices", request, context)
        services, token = page_of(list(self._plane.services.values()), request.page_token)
        return admin_service_pb2.ListServicesResponse(services=services, next_page_token=token)

    def RotateServiceToken(self, request, context):
        self._plane.note("RotateServiceToken", request, context)
        service = self._plane.services.get(request.name) or refuse(context, ServiceNotFound(service=request.name))
        context.set_trailing_metadata(self._plane.trailing)
        return admin_service_pb2.RotateServiceTokenResponse(service=service, service_token="dbs_rotated")

    def RevokeOldServiceToken(self, request, context):
        self._plane.note("RevokeOldServiceToken", request, context)
        return self._plane.services.get(request.name) or refuse(context, ServiceNotFound(service=request.name))

    def SetServiceCertificates(self, request, context):
        self._plane.note("SetServiceCertificates", request, context)
        service = self._plane.services.get(request.name) or refuse(context, ServiceNotFound(service=request.name))
        service.certificate_sans[:] = request.certificate_sans
        return service

    def DeleteService(self, request, context):
        self._plane.note("DeleteService", request, context)
        if self._plane.services.pop(request.name, None) is None:
            refuse(context, ServiceNotFound(service=request.name))
        return empty_pb2.Empty()

    def CreateProvider(self, request, context):
        self._plane.note("CreateProvider", request, context)
        provider = request.provider
        provider.central_key_set = request.HasField("central_key")
        provider.origin = provider_pb2.PROVIDER_ORIGIN_DATABASE
        self._plane.providers[provider.name] = provider
        return provider

    def GetProvider(self, request, context):
        self._plane.note("GetProvider", request, context)
        return self._provider(request.name, context)

    def ListProviders(self, request, context):
        self._plane.note("ListProviders", request, context)
        providers, token = page_of(list(self._plane.providers.values()), request.page_token)
        return admin_service_pb2.ListProvidersResponse(providers=providers, next_page_token=token)

    def UpdateProvider(self, request, context):
        self._plane.note("UpdateProvider", request, context)
        provider = self._provider(request.provider.name, context)
        request.update_mask.MergeMessage(request.provider, provider)
        return provider

    def DeleteProvider(self, request, context):
        self._plane.note("DeleteProvider", request, context)
        del self._plane.providers[self._provider(request.name, context).name]
        return empty_pb2.Empty()

    def CheckProvider(self, request, context):
        self._plane.note("CheckProvider", request, context)
        self._provider(request.name, context)
        return self._plane.checked

    def AddCentralKey(self, request, context):
        self._plane.note("AddCentralKey", request, context)
        provider = self._provider(request.provider, context)
        added = provider_pb2.CentralKey(credential_id=f"key-{len(provider.central_keys)}")
        provider.central_keys.insert(0 if request.first else len(provider.central_keys), added)
        return provider

    def RemoveCentralKey(self, request, context):
        self._plane.note("RemoveCentralKey", request, context)
        return self._provider(request.provider, context)

    def OrderCentralKeys(self, request, context):
        self._plane.note("OrderCentralKeys", request, context)
        return self._provider(request.provider, context)

    def GetProviderHealth(self, request, context):
        self._plane.note("GetProviderHealth", request, context)
        known = provider_health_pb2.ProviderHealth(provider=self._provider(request.name, context).name)
        return self._plane.health.get(request.name, known)

    def ListProviderHealth(self, request, context):
        self._plane.note("ListProviderHealth", request, context)
        found, token = page_of(list(self._plane.health.values()), request.page_token)
        return admin_service_pb2.ListProviderHealthResponse(providers=found, next_page_token=token)

    def SetCentralKey(self, request, context):
        self._plane.note("SetCentralKey", request, context)
        provider = self._provider(request.provider, context)
        provider.central_key_set = True
        return provider

    def DeleteCentralKey(self, request, context):
        self._plane.note("DeleteCentralKey", request, context)
        provider = self._provider(request.provider, context)
        provider.central_key_set = False
        return provider


class _UserKeys(user_key_service_pb2_grpc.UserKeyServiceServicer):
    def __init__(self, plane: FakePlane) -> None:
        self._plane = plane

    def ListUserKeys(self, request, context):
        self._plane.note("ListUserKeys", request, context)
        user_keys, token = page_of(self._plane.user_keys, request.page_token)
        return user_key_service_pb2.ListUserKeysResponse(user_keys=user_keys, next_page_token=token)

    def SetUserKey(self, request, context):
        self._plane.note("SetUserKey", request, context)
        saved = user_key_pb2.UserKey(provider=request.provider, status=user_key_pb2.USER_KEY_STATUS_KEY_SAVED)
        return user_key_service_pb2.SetUserKeyResponse(user_key=saved)

    def DeleteUserKey(self, request, context):
        self._plane.note("DeleteUserKey", request, context)
        return empty_pb2.Empty()


class _Explain(explain_service_pb2_grpc.ExplainServiceServicer):
    def __init__(self, plane: FakePlane) -> None:
        self._plane = plane

    def ExplainProvider(self, request, context):
        self._plane.note("ExplainProvider", request, context)
        return self._plane.explanation


class _Usage(usage_service_pb2_grpc.UsageServiceServicer):
    def __init__(self, plane: FakePlane) -> None:
        self._plane = plane

    def _whose(self, request):
        return "id-of-own" if request.filter.mine and self._plane.knows_mine else ""

    def ListSessions(self, request, context):
        self._plane.note("ListSessions", request, context)
        sessions, token = page_of(self._plane.sessions, request.page_token)
        return usage_service_pb2.ListSessionsResponse(
            sessions=sessions, next_page_token=token, user_id=self._whose(request)
        )

    def ListInterceptions(self, request, context):
        self._plane.note("ListInterceptions", request, context)
        interceptions, token = page_of(self._plane.interceptions, request.page_token)
        return usage_service_pb2.ListInterceptionsResponse(
            interceptions=interceptions, next_page_token=token, user_id=self._whose(request)
        )

    def GetInterception(self, request, context):
        self._plane.note("GetInterception", request, context)
        return self._plane.thread

    def QueryUsage(self, request, context):
        self._plane.note("QueryUsage", request, context)
        rows, token = page_of(self._plane.usage, request.page_token)
        return usage_service_pb2.QueryUsageResponse(rows=rows, next_page_token=token, user_id=self._whose(request))


@contextmanager
def serving(folder: Path, credentials: grpc.ServerCredentials | None = None) -> Iterator[FakePlane]:
    """The fake on a unix socket in `folder`, or with `credentials` on a port of localhost, while the block lasts."""
    plane = FakePlane(address=f"unix:{folder}/admin.sock")
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(_Admin(plane), server)
    user_key_service_pb2_grpc.add_UserKeyServiceServicer_to_server(_UserKeys(plane), server)
    explain_service_pb2_grpc.add_ExplainServiceServicer_to_server(_Explain(plane), server)
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(_Usage(plane), server)
    if credentials is None:
        server.add_insecure_port(plane.address)
    else:
        plane.address = f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield plane
    finally:
        server.stop(grace=None).wait()
