"""The administrator of a soak: makes a user, a token for them, and takes both away again."""

from __future__ import annotations

from uuid import uuid4

import grpc
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import user_pb2
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceStub

RPC_SECONDS = 10.0


async def change_something(address: str, token: str) -> str:
    """What was done; it begins with `trouble` where credentiald said to come again. Other errors are raised."""
    name = f"soak-{uuid4().hex}"
    more = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": RPC_SECONDS}
    try:
        async with grpc.aio.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
            stub = AdminServiceStub(channel)
            await stub.CreateUser(pb.CreateUserRequest(user=user_pb2.User(username=name)), **more)
            made = await stub.CreateToken(pb.CreateTokenRequest(user=name), **more)
            await stub.RevokeToken(pb.RevokeTokenRequest(id=made.token.id), **more)
            await stub.DeleteUser(pb.DeleteUserRequest(user=name), **more)
    except grpc.aio.AioRpcError as refused:
        if refused.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return f"trouble: {refused.details()}"
    return name
