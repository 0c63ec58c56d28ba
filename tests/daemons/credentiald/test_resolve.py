"""ResolveProvider, ExplainProvider and ListUserKeys over real sockets: every row of the policy, every check."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import explain_service_pb2, provider_pb2, user_key_pb2, user_key_service_pb2
from drawbridge.v1.error_reason_pb2 import ErrorReason

from credentiald import receipts
from credentiald.model import Gateway
from credentiald.record_model import Origin
from tests.support.credentiald import bearer, info_of, reason_of, running
from tests.support.policy_rows import CENTRAL, DATABASE_ROWS, OWN, expected_of, write_row

INTERCEPTION = "01a20022-d2e9-775f-ac33-2f548721bfe8"


async def ask(one, provider, token, **fields) -> pb.ResolveProviderResponse:
    return await one.credentials.ResolveProvider(
        pb.ResolveProviderRequest(provider=provider, access_token=token, **fields), metadata=bearer(one.bridge_token)
    )


async def resolved(one, provider, token, **fields) -> tuple[str, str]:
    """The source or reason, and the key."""
    try:
        answer = await ask(one, provider, token, **fields)
    except grpc.aio.AioRpcError as error:
        return reason_of(error), ""
    kind = answer.credential.WhichOneof("material")
    key = answer.credential.aws_credentials.secret_access_key
    if kind and kind != "aws_credentials":
        key = getattr(answer.credential, kind).value
    return provider_pb2.CredentialSource.Name(answer.source).removeprefix("CREDENTIAL_SOURCE_"), key


async def test_every_row_of_the_policy_table_through_resolve_explain_and_the_list_of_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient-secret")
    async with running(tmp_path) as one:
        user_id, token = await one.make_user("ann")
        statuses = {}
        for type_name, combination in DATABASE_ROWS:
            name = await write_row(one, type_name, combination, user_id)
            expected = expected_of(type_name, combination)
            source, key = await resolved(one, name, token)
            explained = await one.explain.ExplainProvider(
                explain_service_pb2.ExplainProviderRequest(provider=name), metadata=bearer(token)
            )
            where = f"{type_name} {combination}"
            assert source == expected, where
            assert key == {"CENTRAL_KEY": CENTRAL, "USER_KEY": OWN, "AMBIENT": "ambient-secret"}.get(expected, ""), (
                where
            )
            said = provider_pb2.CredentialSource.Name(explained.source).removeprefix("CREDENTIAL_SOURCE_")
            if explained.reason:
                said = ErrorReason.Name(explained.reason).removeprefix("ERROR_REASON_")
            assert said == source, where
            assert [row.result for row in explained.rows if row.applies] == [expected], where
            assert CENTRAL not in str(explained)
            assert OWN not in str(explained)
            _, users, _, has_key, _ = combination
            if users:
                shared = expected in ("CENTRAL_KEY", "AMBIENT")
                statuses[name] = "KEY_SAVED" if has_key else "USING_SHARED_KEY" if shared else "NO_KEY"
        listed = await one.user_keys.ListUserKeys(user_key_service_pb2.ListUserKeysRequest(), metadata=bearer(token))
        assert {
            key.provider: user_key_pb2.UserKeyStatus.Name(key.status).removeprefix("USER_KEY_STATUS_")
            for key in listed.user_keys
        } == statuses


@pytest.mark.parametrize("flags", [(True, False, False), (False, True, False), (True, True, False), (True, True, True)])
async def test_a_presented_key_counts_as_the_users_key(tmp_path, flags):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", flags=flags, key=CENTRAL if flags[0] else "")

        expected = "PRESENTED_KEY" if flags[1] else "USER_KEYS_NOT_ALLOWED"
        assert await resolved(one, "prov", token, presented_key=True) == (expected, "")


async def test_the_deployment_forbids_presented_keys(tmp_path):
    async with running(tmp_path, gateway=Gateway(allow_byok=False)) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", flags=(True, True, True), key=CENTRAL)

        assert await resolved(one, "prov", token, presented_key=True) == ("USER_KEYS_NOT_ALLOWED", "")
        assert await resolved(one, "prov", token) == ("CENTRAL_KEY", CENTRAL)


async def test_checks_are_made_in_the_order_of_the_contract(tmp_path):
    now = datetime.now(UTC)
    times = [now]
    async with running(tmp_path, gateway=Gateway(enabled=False), clock=lambda: times[0]) as one:
        user_id, token = await one.make_user("ann")
        metadata = bearer(one.admin_token)
        expiring = await one.admin.CreateToken(_token_request("ann", now + timedelta(hours=1)), metadata=metadata)
        # Nobody without a valid user token learns anything about gateway or providers.
        assert (await resolved(one, "nowhere", ""))[0] == "ACCESS_TOKEN_MISSING"
        assert (await resolved(one, "nowhere", "sk-ant-x"))[0] == "ACCESS_TOKEN_INVALID"
        assert (await resolved(one, "nowhere", one.bridge_token))[0] == "ACCESS_TOKEN_INVALID"
        assert (await resolved(one, "nowhere", expiring.access_token))[0] == "GATEWAY_DISABLED"
        times[0] = now + timedelta(hours=1)
        assert (await resolved(one, "nowhere", expiring.access_token))[0] == "ACCESS_TOKEN_EXPIRED"
        await one.admin.SuspendUser(admin.SuspendUserRequest(user=user_id), metadata=metadata)
        assert (await resolved(one, "nowhere", token))[0] == "USER_SUSPENDED"
        await one.admin.ResumeUser(admin.ResumeUserRequest(user="ann"), metadata=metadata)
        assert (await resolved(one, "nowhere", token))[0] == "GATEWAY_DISABLED"


def _token_request(user, expire_time):
    request = admin.CreateTokenRequest(user=user)
    request.expire_time.FromDatetime(expire_time)
    return request


async def test_provider_then_disabled_then_operation_then_policy(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        metadata = bearer(one.admin_token)
        await one.make_provider("prov", "anthropic", flags=(False, True, False), enabled=False)
        wrong = {"operation": "openai.chat_completions"}
        assert (await resolved(one, "other", token, **wrong))[0] == "PROVIDER_NOT_FOUND"
        assert (await resolved(one, "prov", token, **wrong))[0] == "PROVIDER_DISABLED"
        request = admin.UpdateProviderRequest(provider=provider_pb2.Provider(name="prov", enabled=True))
        request.update_mask.paths.append("enabled")
        await one.admin.UpdateProvider(request, metadata=metadata)
        assert (await resolved(one, "prov", token, **wrong))[0] == "OPERATION_NOT_ALLOWED"
        assert (await resolved(one, "prov", token, operation="anthropic.messages"))[0] == "USER_KEY_REQUIRED"


async def test_a_revoked_token_is_refused_at_once(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        assert await resolved(one, "prov", token) == ("CENTRAL_KEY", CENTRAL)
        listed = await one.admin.ListTokens(admin.ListTokensRequest(user="ann"), metadata=bearer(one.admin_token))
        await one.admin.RevokeToken(admin.RevokeTokenRequest(id=listed.tokens[0].id), metadata=bearer(one.admin_token))

        assert await resolved(one, "prov", token) == ("ACCESS_TOKEN_INVALID", "")


async def test_the_answer_has_what_an_adapter_needs_and_a_receipt(tmp_path):
    async with running(tmp_path) as one:
        user_id, token = await one.make_user("ann")
        made = await one.make_provider("prov", "anthropic", key=CENTRAL)
        answer = await ask(one, "prov", token, operation="anthropic.messages", interception_id=INTERCEPTION)
        receipt = receipts.read(one.plane.receipt_key, answer.receipt)

        assert (answer.provider.id, answer.provider.type, answer.provider.wire_type) == (
            made.id,
            "anthropic",
            "anthropic",
        )
        assert answer.provider.base_url == "https://api.anthropic.com/"
        assert (answer.user.id, answer.user.username) == (user_id, "ann")
        assert answer.credential.credential_id == made.central_keys[0].credential_id
        assert UUID(answer.resolution_id).version == 7
        assert receipt == receipts.Receipt(
            INTERCEPTION,
            answer.resolution_id,
            Origin(
                receipt.origin.service_id, user_id, made.id, "prov", "anthropic", "CENTRAL_KEY",
                answer.credential.credential_id,
            ),
            receipt.resolve_time_micros,
        )  # fmt: skip


async def test_a_service_may_name_the_user_only_where_it_was_granted(tmp_path):
    async with running(tmp_path) as one:
        user_id, _ = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        await one.make_provider("other", key=CENTRAL)
        tokens = {
            "plain": await one.make_service("plain", "INTERNAL"),
            "all": await one.make_service("all", "INTERNAL", may_act_for_users=True),
            "one": await one.make_service("one", "INTERNAL", may_act_for_users=True, act_for_providers=["prov"]),
        }

        async def outcome(service, provider, user=user_id):
            try:
                answer = await one.credentials.ResolveProvider(
                    pb.ResolveProviderRequest(provider=provider, user=user), metadata=bearer(tokens[service])
                )
            except grpc.aio.AioRpcError as error:
                return reason_of(error)
            return answer.credential.api_key.value

        assert await outcome("plain", "prov") == "CALLER_NOT_ALLOWED"
        assert await outcome("all", "other") == CENTRAL
        assert await outcome("one", "prov") == CENTRAL
        assert await outcome("one", "other") == "CALLER_NOT_ALLOWED"
        assert await outcome("one", "nowhere") == "CALLER_NOT_ALLOWED"
        assert await outcome("all", "prov", str(uuid4())) == "USER_NOT_FOUND"
        assert await outcome("all", "prov", "ann") == "USER_NOT_FOUND"


async def test_a_failed_credential_is_not_offered_again_and_nothing_stands_in_for_it(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        made = await one.make_provider("prov", key=CENTRAL)
        failed = [made.central_keys[0].credential_id]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(one, "prov", token, failed_credential_ids=failed)

        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert info_of(refused.value).reason == "KEY_POOL_EXHAUSTED"


async def test_an_older_view_does_not_answer(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        answer = await ask(one, "prov", token)

        assert (await resolved(one, "prov", token, min_revision=answer.revision))[0] == "CENTRAL_KEY"
        later = answer.revision + 1
        assert (await resolved(one, "prov", token, min_revision=later))[0] == "STORE_UNAVAILABLE"
        # Nor does it answer with a refusal, which might not be one in the newer view.
        assert (await resolved(one, "nowhere", token, min_revision=later))[0] == "STORE_UNAVAILABLE"
        assert (await resolved(one, "prov", "sk-not-ours", min_revision=later))[0] == "STORE_UNAVAILABLE"


async def test_an_interception_id_is_a_uuid(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        assert (await resolved(one, "prov", token, interception_id="x" * 300_000))[0] == "INVALID_ARGUMENT"


async def test_explaining_is_for_oneself_and_for_administrators(tmp_path):
    async with running(tmp_path) as one:
        await one.make_user("ann")
        bob_id, bob = await one.make_user("bob")
        await one.make_provider("prov", key=CENTRAL)

        async def outcome(token, user):
            try:
                explained = await one.explain.ExplainProvider(
                    explain_service_pb2.ExplainProviderRequest(provider="prov", user=user), metadata=bearer(token)
                )
            except grpc.aio.AioRpcError as error:
                return reason_of(error)
            return explained.user.username

        assert await outcome(bob, "") == "bob"
        assert await outcome(bob, bob_id) == "bob"
        assert await outcome(bob, "ann") == "CALLER_NOT_ALLOWED"
        assert await outcome(bob, "nobody-there") == "CALLER_NOT_ALLOWED"
        assert await outcome(one.admin_token, "ann") == "ann"
        assert await outcome(one.admin_token, "") == "INVALID_ARGUMENT"
        assert await outcome(one.admin_token, "nobody-there") == "USER_NOT_FOUND"
