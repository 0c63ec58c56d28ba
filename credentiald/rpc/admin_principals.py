"""The part of AdminService that is about users, their access tokens, and services."""

from typing import Any

from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import user_pb2
from google.protobuf.empty_pb2 import Empty

from credentiald import administer_principals as principals
from credentiald.plane import Plane
from credentiald.rpc import codec, paging


class Principals:
    """Users, tokens and services; Admin adds the rest of the service."""

    def __init__(self, plane: Plane, pages: paging.Pages) -> None:
        self._plane = plane
        self._pages = pages

    async def CreateUser(self, request: pb.CreateUserRequest, context: Any) -> user_pb2.User:
        wanted = request.user
        return codec.user(
            await principals.create_user(self._plane, username=wanted.username, admin=wanted.admin, user_id=wanted.id)
        )

    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> user_pb2.User:
        return codec.user(await principals.get_user(self._plane, request.user))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        size = paging.size_of(request.page_size)
        after = self._pages.after(request.page_token, "users")
        found = await principals.list_users(self._plane, after=after, limit=size + 1)
        page, next_token = self._pages.cut(found, size, "users", lambda one: one.username)
        return pb.ListUsersResponse(users=[codec.user(one) for one in page], next_page_token=next_token)

    async def SuspendUser(self, request: pb.SuspendUserRequest, context: Any) -> user_pb2.User:
        return codec.user(await principals.suspend_user(self._plane, request.user))

    async def ResumeUser(self, request: pb.ResumeUserRequest, context: Any) -> user_pb2.User:
        return codec.user(await principals.resume_user(self._plane, request.user))

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Any) -> Empty:
        await principals.delete_user(self._plane, request.user)
        return Empty()

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        expire_time = codec.moment(request.expire_time) if request.HasField("expire_time") else None
        token, secret = await principals.create_token(
            self._plane, user=request.user, expire_time=expire_time, token_id=request.id
        )
        return pb.CreateTokenResponse(token=codec.token(token), access_token=secret.reveal())

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        size = paging.size_of(request.page_size)
        list_filter = f"tokens/{request.user}"
        after = self._pages.after(request.page_token, list_filter)
        found = await principals.list_tokens(self._plane, user=request.user, after=after, limit=size + 1)
        page, next_token = self._pages.cut(found, size, list_filter, lambda one: one.id)
        return pb.ListTokensResponse(tokens=[codec.token(one) for one in page], next_page_token=next_token)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> user_pb2.Token:
        return codec.token(await principals.revoke_token(self._plane, request.id))

    async def CreateService(self, request: pb.CreateServiceRequest, context: Any) -> pb.CreateServiceResponse:
        wanted = request.service
        service, secret = await principals.create_service(
            self._plane,
            name=wanted.name,
            role=codec.role(wanted.role),
            may_act_for_users=wanted.may_act_for_users,
            act_for_providers=list(wanted.act_for_providers),
            certificate_sans=list(wanted.certificate_sans),
            with_token=request.with_token,
            service_id=wanted.id,
        )
        return pb.CreateServiceResponse(
            service=codec.service(service), service_token="" if secret is None else secret.reveal()
        )

    async def ListServices(self, request: pb.ListServicesRequest, context: Any) -> pb.ListServicesResponse:
        size = paging.size_of(request.page_size)
        after = self._pages.after(request.page_token, "services")
        found = await principals.list_services(self._plane, after=after, limit=size + 1)
        page, next_token = self._pages.cut(found, size, "services", lambda one: one.name)
        return pb.ListServicesResponse(services=[codec.service(one) for one in page], next_page_token=next_token)

    async def RotateServiceToken(
        self, request: pb.RotateServiceTokenRequest, context: Any
    ) -> pb.RotateServiceTokenResponse:
        keep_old = codec.length(request.keep_old, field="keep_old")
        service, secret = await principals.rotate_service_token(self._plane, request.name, keep_old=keep_old)
        return pb.RotateServiceTokenResponse(service=codec.service(service), service_token=secret.reveal())

    async def RevokeOldServiceToken(self, request: pb.RevokeOldServiceTokenRequest, context: Any) -> user_pb2.Service:
        return codec.service(await principals.revoke_old_service_token(self._plane, request.name))

    async def SetServiceCertificates(self, request: pb.SetServiceCertificatesRequest, context: Any) -> user_pb2.Service:
        return codec.service(
            await principals.set_service_certificates(self._plane, request.name, list(request.certificate_sans))
        )

    async def DeleteService(self, request: pb.DeleteServiceRequest, context: Any) -> Empty:
        await principals.delete_service(self._plane, request.name)
        return Empty()
