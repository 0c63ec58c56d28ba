"""rpc × role, the whole table, over real sockets."""

import inspect

import grpc
import pytest
from drawbridge.v1 import (
    admin_service_pb2,
    credential_service_pb2,
    explain_service_pb2,
    record_service_pb2,
    usage_service_pb2,
    user_key_service_pb2,
)
from drawbridge.v1 import admin_service_pb2 as pb
from google.protobuf.message_factory import GetMessageClass

from credentiald import tokens
from credentiald.rpc.access import ACCESS
from tests.support.credentiald import bearer, info_of, running

FILES = (
    credential_service_pb2,
    record_service_pb2,
    user_key_service_pb2,
    explain_service_pb2,
    usage_service_pb2,
    admin_service_pb2,
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
BRIDGES = {"bridge", "internal"}
USERS = {"user", "admin_user", "admin"}
ADMINS = {"admin_user", "admin"}
# The table as contract.md states it, by service.
MAY_CALL = {
    "CredentialService": BRIDGES,
    "RecordService": {"bridge"},
    "UserKeyService": USERS,
    "ExplainService": USERS,
    "UsageService": USERS,
    "AdminService": ADMINS,
}
# Where a rpc differs from its service.
ONLY = {"ReportOutcome": {"bridge"}, "WatchProviders": {"bridge"}}
CALLERS = ("none", "garbage", "unknown_user", "user", "admin_user", "bridge", "internal", "admin")


def test_every_rpc_of_the_contract_has_a_row():
    assert set(ACCESS) == set(METHODS)


async def refusal_of(one, method: str, token: str) -> tuple[grpc.StatusCode, str]:
    descriptor = METHODS[method]
    channel = one.administration if "AdminService" in method else one.main
    call = channel.unary_unary(
        method,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(descriptor.output_type).FromString,
    )
    try:
        await call(GetMessageClass(descriptor.input_type)(), metadata=bearer(token))
    except grpc.aio.AioRpcError as error:
        return error.code(), info_of(error).reason
    return grpc.StatusCode.OK, ""


async def test_each_role_may_call_what_the_contract_says_and_nothing_else(tmp_path):
    async with running(tmp_path) as one:
        _, user = await one.make_user("ann")
        _, admin_user = await one.make_user("root", is_admin=True)
        token_of = {
            "none": "",
            "garbage": "sk-ant-something",
            "unknown_user": user[:-8] + "x" * 8,
            "user": user,
            "admin_user": admin_user,
            "bridge": one.bridge_token,
            "internal": await one.make_service("chat", "INTERNAL"),
            "admin": one.admin_token,
        }
        assert set(token_of) == set(CALLERS)
        for method in METHODS:
            service = method.split("/")[1].rpartition(".")[2]
            for caller, token in token_of.items():
                code, reason = await refusal_of(one, method, token)
                where = f"{caller} -> {method}: {code} {reason}"
                family = "SERVICE_TOKEN" if service in ("CredentialService", "RecordService") else "ACCESS_TOKEN"
                if caller == "none":
                    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, f"{family}_MISSING"), where
                elif caller in ("garbage", "unknown_user"):
                    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, f"{family}_INVALID"), where
                elif caller in ONLY.get(method.rpartition("/")[2], MAY_CALL[service]):
                    # Let in: an empty request is then refused, or answered, on its merits.
                    assert reason not in ("CALLER_NOT_ALLOWED", "SERVICE_TOKEN_INVALID", "ACCESS_TOKEN_INVALID"), where
                else:
                    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED"), where


@pytest.mark.parametrize("trouble", ["unknown", "revoked", "suspended"])
async def test_a_users_token_that_does_not_count_is_never_an_answer_about_a_client_where_a_service_calls(
    tmp_path, trouble
):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        _, token = await one.make_user("ann")
        if trouble == "unknown":
            token = tokens.mint(tokens.USER_PREFIX).reveal()
        elif trouble == "revoked":
            [listed] = (await one.admin.ListTokens(pb.ListTokensRequest(), metadata=metadata)).tokens
            await one.admin.RevokeToken(pb.RevokeTokenRequest(id=listed.id), metadata=metadata)
        else:
            await one.admin.SuspendUser(pb.SuspendUserRequest(user="ann"), metadata=metadata)
        code, reason = await refusal_of(one, "/drawbridge.v1.CredentialService/ResolveProvider", token)

        assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "SERVICE_TOKEN_INVALID")


async def test_administration_is_not_on_the_main_listener_and_credentials_not_on_the_other(tmp_path):
    async with running(tmp_path) as one:
        for channel, method in (
            (one.main, "/drawbridge.v1.AdminService/ListUsers"),
            (one.administration, "/drawbridge.v1.CredentialService/Ping"),
        ):
            call = channel.unary_unary(method)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", metadata=bearer(one.admin_token))
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_servicers_answer_every_rpc_themselves():
    from credentiald.rpc.admin import Admin
    from credentiald.rpc.credentials import Credentials
    from credentiald.rpc.records import Records
    from credentiald.rpc.usage import Usage
    from credentiald.rpc.users import Explain, UserKeys

    classes = {"AdminService": Admin, "CredentialService": Credentials, "UserKeyService": UserKeys,
               "ExplainService": Explain, "RecordService": Records, "UsageService": Usage}  # fmt: skip
    for method in METHODS:
        service, name = method.split("/")[1].rpartition(".")[2], method.split("/")[2]
        assert inspect.iscoroutinefunction(getattr(classes[service], name)), method


async def test_bytes_that_are_no_message_get_a_clear_status_from_every_rpc(tmp_path, caplog):
    async with running(tmp_path) as one:
        for method, descriptor in METHODS.items():
            channel = one.administration if "AdminService" in method else one.main
            make = channel.stream_stream if descriptor.client_streaming else channel.unary_unary
            service = descriptor.containing_service.name
            token = one.admin_token if ADMINS & MAY_CALL[service] else one.bridge_token
            for caller, expected in ((token, grpc.StatusCode.INVALID_ARGUMENT), ("", grpc.StatusCode.UNAUTHENTICATED)):
                # A field that says it is longer than the message.
                sent = iter([b"\x0a\x7f"]) if descriptor.client_streaming else b"\x0a\x7f"
                call = make(method)(sent, metadata=bearer(caller), timeout=5)
                assert (method, await call.code()) == (method, expected)
    assert not [line for line in caplog.records if line.exc_info]
