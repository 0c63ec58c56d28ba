"""UserKeyService and ExplainService: what a user asks for itself, and an administrator for anyone."""

from typing import Any

from drawbridge.v1 import explain_service_pb2, user_key_service_pb2
from drawbridge.v1.explain_service_pb2_grpc import ExplainServiceServicer
from drawbridge.v1.user_key_service_pb2_grpc import UserKeyServiceServicer
from google.protobuf.empty_pb2 import Empty

from credentiald.errors import CallerNotAllowed, InvalidArgument
from credentiald.explain import explain
from credentiald.manage_user_keys import delete_user_key, list_user_keys, set_user_key
from credentiald.model import Role
from credentiald.plane import Plane
from credentiald.rpc import codec, paging
from credentiald.rpc.guard import current_caller
from daemonkit.secret import Secret


def named_user(requested: str, rpc: str) -> str:
    """Whose row is meant: the caller's own, or the one an administrator names (id or username)."""
    caller = current_caller()
    if not requested:
        if caller.user is None:
            raise InvalidArgument(field="user", problem="name a user: the caller is a service")
        return caller.user.id
    if caller.role is Role.ADMIN:
        return requested
    if caller.user is not None and requested.casefold() in (caller.user.id, caller.user.username.casefold()):
        return caller.user.id
    raise CallerNotAllowed(role=caller.role.value, rpc=f"{rpc} for another user")


class UserKeys(UserKeyServiceServicer):
    """Answers for the user's own provider keys."""

    def __init__(self, plane: Plane, pages: paging.Pages) -> None:
        self._plane = plane
        self._pages = pages

    async def ListUserKeys(
        self, request: user_key_service_pb2.ListUserKeysRequest, context: Any
    ) -> user_key_service_pb2.ListUserKeysResponse:
        user = named_user(request.user, "ListUserKeys")
        list_filter = f"user_keys/{user}"
        size = paging.size_of(request.page_size)
        after = self._pages.after(request.page_token, list_filter)
        views = await list_user_keys(self._plane, user=user, after=after, limit=size + 1)
        page, next_token = self._pages.cut(views, size, list_filter, lambda view: view.provider.name)
        return user_key_service_pb2.ListUserKeysResponse(
            user_keys=[codec.user_key(view) for view in page], next_page_token=next_token
        )

    async def SetUserKey(
        self, request: user_key_service_pb2.SetUserKeyRequest, context: Any
    ) -> user_key_service_pb2.SetUserKeyResponse:
        user = named_user(request.user, "SetUserKey")
        view = await set_user_key(self._plane, user=user, provider=request.provider, key=Secret(request.key))
        return user_key_service_pb2.SetUserKeyResponse(user_key=codec.user_key(view))

    async def DeleteUserKey(self, request: user_key_service_pb2.DeleteUserKeyRequest, context: Any) -> Empty:
        user = named_user(request.user, "DeleteUserKey")
        await delete_user_key(self._plane, user=user, provider=request.provider)
        return Empty()


class Explain(ExplainServiceServicer):
    """Answers why."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def ExplainProvider(
        self, request: explain_service_pb2.ExplainProviderRequest, context: Any
    ) -> explain_service_pb2.ExplainProviderResponse:
        user = named_user(request.user, "ExplainProvider")
        account = await explain(
            self._plane,
            provider=request.provider,
            user=user,
            presented_key=request.presented_key,
            operation=request.operation,
        )
        return codec.explanation(account)
