"""AdminService and UserKeyService over real sockets: what may be saved, what is shown, what goes with what."""

import sqlite3
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2, error_reason_pb2, provider_pb2, user_key_service_pb2, user_pb2
from google.protobuf.duration_pb2 import Duration

from credentiald.model import (
    ApiKeyMaterial,
    CentralKey,
    EnvironmentProvider,
    Gateway,
    KeyKind,
    KeyPolicy,
    Origin,
    Provider,
)
from daemonkit.secret import Secret
from tests.support.credentiald import bearer, info_of, reason_of, running

KEY = "sk-central-canary"
ON_OFF, OFF_ON, ON_ON = (True, False, False), (False, True, False), (True, True, True)


async def refused(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason_of(error.value)


def update_of(name, paths, *, key="", clear=False, etag="", **fields):
    request = admin.UpdateProviderRequest(
        provider=provider_pb2.Provider(name=name, etag=etag, **fields), clear_central_key=clear
    )
    request.update_mask.paths.extend(paths)
    if key:
        request.central_key.api_key = key
    return request


def policy(**flags):
    return provider_pb2.KeyPolicy(**flags)


@pytest.mark.parametrize(
    ("type_name", "flags", "key", "fields", "reason"),
    [
        ("openai", (False, False, False), "", {}, "INVALID_KEY_POLICY"),
        ("openai", (False, False, True), KEY, {}, "INVALID_KEY_POLICY"),
        ("bedrock", (False, False, False), "", {}, "INVALID_KEY_POLICY"),
        ("openai", None, "", {}, "KEY_REQUIRED"),
        ("openai", ON_ON, "", {}, "KEY_REQUIRED"),
        ("openai", ON_OFF, "  ", {}, "KEY_REQUIRED"),
        ("openai", ON_OFF, "x" * 10241, {}, "KEY_TOO_LARGE"),
        ("openai", ON_OFF, "a\nb", {}, "INVALID_ARGUMENT"),
        ("azure", ON_OFF, KEY, {}, "INVALID_ARGUMENT"),
        ("openai", ON_OFF, KEY, {"base_url": "not a url"}, "INVALID_ARGUMENT"),
        ("openai", ON_OFF, KEY, {"base_url": "http://169.254.169.254/v1"}, "UPSTREAM_NOT_ALLOWED"),
        ("opneai", None, KEY, {}, "INVALID_ARGUMENT"),
        ("copilot", ON_OFF, KEY, {}, "INVALID_ARGUMENT"),
        ("openai", ON_OFF, KEY, {"id": "not-a-uuid"}, "INVALID_ARGUMENT"),
        ("openai", OFF_ON, "", {"bedrock": provider_pb2.BedrockOptions(region="us-east-1")}, "INVALID_ARGUMENT"),
    ],
)
async def test_what_must_not_be_saved_is_refused_and_leaves_nothing(tmp_path, type_name, flags, key, fields, reason):
    async with running(tmp_path) as one:
        assert await refused(one.make_provider("prov", type_name, flags=flags, key=key, **fields)) == reason
        listed = await one.admin.ListProviders(admin.ListProvidersRequest(), metadata=bearer(one.admin_token))
        assert list(listed.providers) == []


async def test_trying_a_provider_out_says_what_bridges_have_to_be_set_to(tmp_path):
    async with running(tmp_path) as one:
        for url, words in [
            ("https://api.example", []),
            ("http://10.0.0.1:8000/v1", ["--allow-upstream-networks", "--plaintext-upstreams lab"]),
        ]:
            await one.make_provider("lab", "openai", flags=ON_OFF, key=KEY, base_url=url)
            request = admin.CheckProviderRequest(name="lab")
            found = await one.admin.CheckProvider(request, metadata=bearer(one.admin_token))
            assert found.reason == error_reason_pb2.ERROR_REASON_UNSPECIFIED
            assert [
                word for word in ("--allow-upstream-networks", "--plaintext-upstreams lab") if word in found.message
            ] == words
            await one.admin.DeleteProvider(admin.DeleteProviderRequest(name="lab"), metadata=bearer(one.admin_token))
        await one.make_provider("old", "openai", flags=ON_OFF, key=KEY)
        # Saved by a version without that rule.
        with sqlite3.connect(one.folder / "credentiald.db") as conn:
            conn.execute("UPDATE providers SET base_url = 'http://169.254.169.254'")
        found = await one.admin.CheckProvider(admin.CheckProviderRequest(name="old"), metadata=bearer(one.admin_token))
        assert found.reason == error_reason_pb2.ERROR_REASON_UPSTREAM_NOT_ALLOWED


async def test_all_nine_types_can_be_saved_and_show_only_whether_a_key_is_set(tmp_path):
    with_url = {"azure", "openai-compat"}
    async with running(tmp_path) as one:
        for type_name in ["openai", "anthropic", "bedrock", "azure", "google", "openai-compat", "openrouter", "vercel"]:
            fields = {"base_url": "https://llm.example/base"} if type_name in with_url else {}
            made = await one.make_provider(f"p-{type_name}", type_name, key=KEY, **fields)
            assert made.central_key_set
            assert KEY not in str(made)
            assert [key.kind for key in made.central_keys] == [provider_pb2.KEY_KIND_API_KEY]
        copilot = await one.make_provider("p-copilot", "copilot")
        bedrock = await one.make_provider("ambient", "bedrock")

        assert (copilot.key_policy.central_key_enabled, copilot.key_policy.user_keys_allowed) == (False, True)
        assert not bedrock.central_key_set


@pytest.mark.parametrize("name", ["", "Prov", "a_b", "api", "v1beta"])
async def test_names_that_are_not_allowed(tmp_path, name):
    async with running(tmp_path) as one:
        assert await refused(one.make_provider(name, key=KEY)) == "INVALID_NAME"


async def test_a_retry_with_the_same_id_or_name_meets_what_exists(tmp_path):
    async with running(tmp_path) as one:
        chosen = str(uuid4())
        await one.make_provider("prov", key=KEY, id=chosen)

        assert await refused(one.make_provider("prov", key=KEY)) == "ALREADY_EXISTS"
        assert await refused(one.make_provider("other", key=KEY, id=chosen)) == "ALREADY_EXISTS"


async def test_an_update_changes_what_the_mask_names_and_nothing_else(tmp_path):
    async with running(tmp_path) as one:
        made = await one.make_provider("prov", key=KEY, display_name="Before")
        request = update_of("prov", ["base_url"], display_name="ignored", base_url="https://llm.example/v1")
        changed = await one.admin.UpdateProvider(request, metadata=bearer(one.admin_token))

        assert (changed.display_name, changed.base_url) == ("Before", "https://llm.example/v1")
        assert changed.central_keys == made.central_keys
        assert changed.etag != made.etag


async def test_every_option_of_bedrock_is_kept_and_changed_by_its_own_path(tmp_path):
    options = provider_pb2.BedrockOptions(
        region="eu-west-1",
        role_arn="arn:aws:iam::123456789012:role/x",
        external_id="e",
        model="m",
        small_fast_model="s",
        models={"a": "1", "b": "2"},
        model_rules=[provider_pb2.BedrockModelRule(contains="/x", family="claude-opus-4-5", betas=["b-1"])],
        role_duration_seconds=1800,
        session_policy='{"Version": "2012-10-17"}',
        protocol=provider_pb2.BEDROCK_PROTOCOL_MANTLE,
        set_source_identity=True,
        session_tags=True,
    )
    async with running(tmp_path) as one:
        await one.make_provider("prov", "bedrock")
        for field, _ in options.ListFields():
            if field.name == "role_arn":
                continue
            paths = ["bedrock.role_arn", f"bedrock.{field.name}"]
            changed = await one.admin.UpdateProvider(
                update_of("prov", paths, bedrock=options), metadata=bearer(one.admin_token)
            )
            assert getattr(changed.bedrock, field.name) == getattr(options, field.name)
        assert changed.bedrock == options
        none = update_of("prov", ["bedrock"], bedrock=provider_pb2.BedrockOptions())
        cleared = await one.admin.UpdateProvider(none, metadata=bearer(one.admin_token))
        assert cleared.bedrock == provider_pb2.BedrockOptions(protocol=provider_pb2.BEDROCK_PROTOCOL_INVOKE_MODEL)


async def test_time_outs_are_kept_changed_by_their_own_paths_and_go_to_bridges(tmp_path):
    given = provider_pb2.ProviderTimeouts(connect=Duration(seconds=2), first_byte=Duration(nanos=1_000_000))
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")

        async def told(provider):
            question = credential_service_pb2.ResolveProviderRequest(provider=provider, access_token=token)
            answer = await one.credentials.ResolveProvider(question, metadata=bearer(one.bridge_token))
            return answer.provider

        made = await one.make_provider("prov", key=KEY, timeouts=given)
        assert made.timeouts == given
        assert not (await one.make_provider("plain", key=KEY)).HasField("timeouts")

        idle = provider_pb2.ProviderTimeouts(idle=Duration(seconds=86_400))
        request = update_of("prov", ["timeouts.idle", "timeouts.connect"], timeouts=idle)
        changed = await one.admin.UpdateProvider(request, metadata=bearer(one.admin_token))
        expected = provider_pb2.ProviderTimeouts(first_byte=Duration(nanos=1_000_000), idle=Duration(seconds=86_400))
        assert changed.timeouts == expected
        assert (await told("prov")).timeouts == expected
        assert not (await told("plain")).HasField("timeouts")

        cleared = await one.admin.UpdateProvider(update_of("prov", ["timeouts"]), metadata=bearer(one.admin_token))
        assert not cleared.HasField("timeouts")


async def test_a_fallback_provider_is_kept_cleared_and_told_to_bridges(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        made = await one.make_provider("prov", key=KEY, fallback_provider="not-yet-there")
        assert made.fallback_provider == "not-yet-there"
        question = credential_service_pb2.ResolveProviderRequest(provider="prov", access_token=token)
        answer = await one.credentials.ResolveProvider(question, metadata=bearer(one.bridge_token))
        assert answer.provider.fallback_provider == "not-yet-there"

        cleared = await one.admin.UpdateProvider(
            update_of("prov", ["fallback_provider"]), metadata=bearer(one.admin_token)
        )
        assert cleared.fallback_provider == ""


async def test_a_fallback_provider_has_a_turn_in_common(tmp_path):
    async with running(tmp_path) as one:
        await one.make_provider("claude", "anthropic", key=KEY)
        await one.make_provider("aws", "bedrock", fallback_provider="claude")
        await one.make_provider("prov", key=KEY)

        async def update(name):
            request = update_of("prov", ["fallback_provider"], fallback_provider=name)
            return await one.admin.UpdateProvider(request, metadata=bearer(one.admin_token))

        for name in ("claude", "aws", "prov", "No Name"):
            assert await refused(update(name)) == "INVALID_ARGUMENT"
        assert await refused(one.make_provider("new", key=KEY, fallback_provider="claude")) == "INVALID_ARGUMENT"
        await one.make_provider("router", "openrouter", key=KEY)
        assert (await update("router")).fallback_provider == "router"


async def test_the_refusal_of_an_exhausted_pool_names_the_fallback_provider(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ada")
        made = await one.make_provider("prov", key=KEY, fallback_provider="spare")
        question = credential_service_pb2.ResolveProviderRequest(
            provider="prov", access_token=token, failed_credential_ids=[made.central_keys[0].credential_id]
        )
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await one.credentials.ResolveProvider(question, metadata=bearer(one.bridge_token))
        assert reason_of(error.value) == "KEY_POOL_EXHAUSTED"
        assert info_of(error.value).metadata["fallback_provider"] == "spare"


@pytest.mark.parametrize(
    "duration",
    [Duration(), Duration(seconds=-1), Duration(nanos=999), Duration(seconds=86_401), Duration(seconds=2**62)],
)
async def test_a_time_out_that_is_none_is_refused(tmp_path, duration):
    async with running(tmp_path) as one:
        await one.make_provider("prov", key=KEY)
        for field in ("connect", "first_byte", "idle"):
            timeouts = provider_pb2.ProviderTimeouts(**{field: duration})
            request = update_of("prov", [f"timeouts.{field}"], timeouts=timeouts)
            call = one.admin.UpdateProvider(request, metadata=bearer(one.admin_token))
            assert await refused(call) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (update_of("prov", ["nmae"]), "INVALID_ARGUMENT"),
        (update_of("prov", ["type"], type="anthropic"), "INVALID_ARGUMENT"),
        (update_of("prov", []), "INVALID_ARGUMENT"),
        (update_of("prov", [], key=KEY, clear=True), "INVALID_ARGUMENT"),
        (update_of("prov", ["enabled"], etag="99"), "ETAG_MISMATCH"),
        (update_of("prov", ["enabled"], etag="nonsense"), "ETAG_MISMATCH"),
        (update_of("nowhere", ["enabled"]), "PROVIDER_NOT_FOUND"),
        (update_of("prov", [], clear=True), "KEY_REQUIRED"),
        (update_of("prov", ["key_policy"], key_policy=policy(central_key_enabled=False)), "INVALID_KEY_POLICY"),
        (update_of("prov", ["bedrock.region"], bedrock=provider_pb2.BedrockOptions(region="r")), "INVALID_ARGUMENT"),
    ],
)
async def test_updates_that_are_refused_change_nothing(tmp_path, request_, reason):
    async with running(tmp_path) as one:
        made = await one.make_provider("prov", key=KEY)
        assert await refused(one.admin.UpdateProvider(request_, metadata=bearer(one.admin_token))) == reason
        after = await one.admin.GetProvider(admin.GetProviderRequest(name="prov"), metadata=bearer(one.admin_token))
        assert after == made


async def test_turning_the_central_key_off_clears_it_and_turning_it_on_needs_one(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        await one.make_provider("prov", flags=ON_ON, key=KEY)
        path = ["key_policy.central_key_enabled"]
        off = update_of("prov", path, key_policy=policy(central_key_enabled=False))
        on = update_of("prov", path, key_policy=policy(central_key_enabled=True))
        cleared = await one.admin.UpdateProvider(off, metadata=metadata)
        assert not cleared.central_key_set
        assert await refused(one.admin.UpdateProvider(on, metadata=metadata)) == "KEY_REQUIRED"
        on.central_key.api_key = KEY
        assert (await one.admin.UpdateProvider(on, metadata=metadata)).central_key_set


async def test_clearing_the_key_of_a_bedrock_provider_returns_to_ambient(tmp_path):
    async with running(tmp_path) as one:
        await one.make_provider("prov", "bedrock", key=KEY)
        changed = await one.admin.DeleteCentralKey(
            admin.DeleteCentralKeyRequest(provider="prov"), metadata=bearer(one.admin_token)
        )
        assert not changed.central_key_set


async def test_user_keys_survive_policy_changes_and_go_with_the_provider(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        _, token = await one.make_user("ann")
        await one.make_provider("prov", flags=ON_ON, key=KEY)
        await set_own_key(one, token)
        path = ["key_policy.user_keys_allowed"]
        for allowed in (False, True):
            request = update_of("prov", path, key_policy=policy(user_keys_allowed=allowed))
            await one.admin.UpdateProvider(request, metadata=metadata)
            assert await statuses(one, token) == (["KEY_SAVED"] if allowed else [])
        await one.admin.DeleteProvider(admin.DeleteProviderRequest(name="prov"), metadata=metadata)
        await one.make_provider("prov", flags=OFF_ON)
        assert await statuses(one, token) == ["NO_KEY"]


async def set_own_key(one, token, key="sk-own", user=""):
    return await one.user_keys.SetUserKey(
        user_key_service_pb2.SetUserKeyRequest(provider="prov", key=key, user=user), metadata=bearer(token)
    )


async def statuses(one, token, user="") -> list[str]:
    listed = await one.user_keys.ListUserKeys(
        user_key_service_pb2.ListUserKeysRequest(user=user), metadata=bearer(token)
    )
    names = {1: "KEY_SAVED", 2: "USING_SHARED_KEY", 3: "NO_KEY"}
    return [names[key.status] for key in listed.user_keys]


async def test_user_keys_are_refused_where_they_cannot_be_used(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        assert await refused(set_own_key(one, token)) == "PROVIDER_NOT_FOUND"
        await one.make_provider("prov", flags=ON_OFF, key=KEY)
        assert await refused(set_own_key(one, token)) == "USER_KEYS_NOT_ALLOWED"
        enabled = update_of("prov", ["enabled", "key_policy"], enabled=False, key_policy=policy(user_keys_allowed=True))
        await one.admin.UpdateProvider(enabled, metadata=bearer(one.admin_token))
        assert await refused(set_own_key(one, token)) == "PROVIDER_DISABLED"
        await one.admin.UpdateProvider(update_of("prov", ["enabled"], enabled=True), metadata=bearer(one.admin_token))
        assert await refused(set_own_key(one, token, key=" ")) == "KEY_REQUIRED"
        assert await refused(set_own_key(one, token, key="x" * 10241)) == "KEY_TOO_LARGE"


async def test_an_administrator_may_act_on_a_users_keys_and_a_user_only_on_its_own(tmp_path):
    async with running(tmp_path) as one:
        _, ann = await one.make_user("ann")
        await one.make_user("bob")
        await one.make_provider("prov", flags=OFF_ON)
        assert await refused(set_own_key(one, ann, user="bob")) == "CALLER_NOT_ALLOWED"
        await set_own_key(one, one.admin_token, user="bob")
        assert await statuses(one, one.admin_token, user="bob") == ["KEY_SAVED"]
        assert await statuses(one, ann) == ["NO_KEY"]
        for _ in range(2):
            await one.user_keys.DeleteUserKey(
                user_key_service_pb2.DeleteUserKeyRequest(provider="prov", user="bob"), metadata=bearer(one.admin_token)
            )
        assert await statuses(one, one.admin_token, user="bob") == ["NO_KEY"]


def environment_provider(name="env-one", material="sk-env") -> EnvironmentProvider:
    return EnvironmentProvider(
        provider=Provider(
            id=str(uuid4()),
            name=name,
            type="openai",
            policy=KeyPolicy(central_key_enabled=True, user_keys_allowed=True, central_key_fallback=True),
            central_keys=(CentralKey(credential_id="", kind=KeyKind.API_KEY, create_time=None),),
            origin=Origin.ENVIRONMENT,
        ),
        materials=(ApiKeyMaterial(value=Secret(material)),),
    )


async def test_environment_providers_are_listed_marked_and_read_only(tmp_path):
    gateway = Gateway(environment_providers=(environment_provider(),))
    async with running(tmp_path, gateway=gateway) as one:
        metadata = bearer(one.admin_token)
        _, token = await one.make_user("ann")
        await one.make_provider("a-first", key=KEY)
        await one.make_provider("z-last", key=KEY)
        listed = await one.admin.ListProviders(admin.ListProvidersRequest(), metadata=metadata)

        assert [(one.name, provider_pb2.ProviderOrigin.Name(one.origin)) for one in listed.providers] == [
            ("a-first", "PROVIDER_ORIGIN_DATABASE"),
            ("env-one", "PROVIDER_ORIGIN_ENVIRONMENT"),
            ("z-last", "PROVIDER_ORIGIN_DATABASE"),
        ]
        assert await refused(one.make_provider("env-one", key=KEY)) == "ALREADY_EXISTS"
        for call in (
            one.admin.UpdateProvider(update_of("env-one", ["enabled"]), metadata=metadata),
            one.admin.DeleteProvider(admin.DeleteProviderRequest(name="env-one"), metadata=metadata),
            one.admin.DeleteCentralKey(admin.DeleteCentralKeyRequest(provider="env-one"), metadata=metadata),
            one.admin.SetCentralKey(
                admin.SetCentralKeyRequest(provider="env-one", central_key=provider_pb2.KeyMaterial(api_key=KEY)),
                metadata=metadata,
            ),
        ):
            assert await refused(call) == "PROVIDER_READ_ONLY"
        assert await statuses(one, token) == ["USING_SHARED_KEY"]


async def test_the_id_of_an_environment_key_is_stable_and_follows_the_key(tmp_path):
    first = environment_provider()
    ids = []
    for material in ("sk-env", "sk-env", "sk-other"):
        gateway = Gateway(environment_providers=(
            EnvironmentProvider(provider=first.provider, materials=(ApiKeyMaterial(value=Secret(material)),)),
        ))  # fmt: skip
        async with running(tmp_path, gateway=gateway) as one:
            shown = await one.admin.GetProvider(
                admin.GetProviderRequest(name="env-one"), metadata=bearer(one.admin_token)
            )
            ids.append(shown.central_keys[0].credential_id)

    assert ids[0] == ids[1] != ids[2]


async def test_pages_join_up_and_their_tokens_fit_no_other_list(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        names = [f"user-{number:02}" for number in range(7)]
        for name in names:
            await one.admin.CreateUser(admin.CreateUserRequest(user=user_pb2.User(username=name)), metadata=metadata)
        seen, page_token = [], ""
        while True:
            page = await one.admin.ListUsers(
                admin.ListUsersRequest(page_size=3, page_token=page_token), metadata=metadata
            )
            seen += [user.username for user in page.users]
            if not page.next_page_token:
                break
            page_token = page.next_page_token
            assert len(page.users) == 3
        assert seen == names
        other = admin.ListServicesRequest(page_token=page_token)
        assert await refused(one.admin.ListServices(other, metadata=metadata)) == "INVALID_ARGUMENT"
        for wrong in ("x", "AAAA", "é"):
            request = admin.ListUsersRequest(page_token=wrong)
            assert await refused(one.admin.ListUsers(request, metadata=metadata)) == "INVALID_ARGUMENT"
        negative = admin.ListUsersRequest(page_size=-1)
        assert await refused(one.admin.ListUsers(negative, metadata=metadata)) == "INVALID_ARGUMENT"


async def test_users_their_tokens_and_what_goes_with_them(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        user_id, token = await one.make_user("Ann")
        for name in ("ann", "ANN"):
            request = admin.CreateUserRequest(user=user_pb2.User(username=name))
            assert await refused(one.admin.CreateUser(request, metadata=metadata)) == "ALREADY_EXISTS"
        for name in ("", "a b", "a/b", "é", str(uuid4())):
            request = admin.CreateUserRequest(user=user_pb2.User(username=name))
            assert await refused(one.admin.CreateUser(request, metadata=metadata)) == "INVALID_NAME"
        past = admin.CreateTokenRequest(user="Ann")
        past.expire_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=1))
        assert await refused(one.admin.CreateToken(past, metadata=metadata)) == "INVALID_ARGUMENT"
        assert (
            await refused(one.admin.RevokeToken(admin.RevokeTokenRequest(id=str(uuid4())), metadata=metadata))
            == "TOKEN_NOT_FOUND"
        )
        await one.admin.DeleteUser(admin.DeleteUserRequest(user=user_id), metadata=metadata)
        listed = await one.admin.ListTokens(admin.ListTokensRequest(), metadata=metadata)
        assert list(listed.tokens) == []
        assert await refused(statuses(one, token)) == "ACCESS_TOKEN_INVALID"


async def test_a_rotated_service_token_is_refused_and_the_new_one_works(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        rotated = await one.admin.RotateServiceToken(admin.RotateServiceTokenRequest(name="admin"), metadata=metadata)
        assert (
            await refused(one.admin.ListUsers(admin.ListUsersRequest(), metadata=metadata)) == "SERVICE_TOKEN_INVALID"
        )
        await one.admin.ListUsers(admin.ListUsersRequest(), metadata=bearer(rotated.service_token))
        missing = admin.RotateServiceTokenRequest(name="nobody")
        assert (
            await refused(one.admin.RotateServiceToken(missing, metadata=bearer(rotated.service_token)))
            == "SERVICE_NOT_FOUND"
        )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"role": "ADMIN", "may_act_for_users": True}, "INVALID_ARGUMENT"),
        ({"role": "INTERNAL", "act_for_providers": ["prov"]}, "INVALID_ARGUMENT"),
        ({"role": "INTERNAL", "may_act_for_users": True, "act_for_providers": ["Not A Name"]}, "INVALID_ARGUMENT"),
        ({"role": "UNSPECIFIED"}, "INVALID_ARGUMENT"),
    ],
)
async def test_services_that_make_no_sense_are_refused(tmp_path, fields, reason):
    async with running(tmp_path) as one:
        assert await refused(one.make_service("svc", **fields)) == reason


async def test_every_change_is_one_revision_with_a_row_in_the_log_and_a_refused_one_is_none(tmp_path):
    async with running(tmp_path) as one:
        before = await one.plane.db.read(
            lambda conn: conn.execute("SELECT max(revision) FROM change_log").fetchone()[0]
        )
        await one.make_provider("prov", key=KEY)
        await refused(one.make_provider("prov", key=KEY))
        await one.make_user("ann")
        rows = await one.plane.db.read(
            lambda conn: conn.execute(
                "SELECT revision, kind FROM change_log WHERE revision > ? ORDER BY revision", (before,)
            ).fetchall()
        )

        assert [row[0] for row in rows] == [before + 1, before + 2, before + 3]
        assert [row[1] for row in rows] == ["provider.created", "user.created", "token.created"]


async def test_an_id_of_an_environment_provider_cannot_be_taken_because_user_keys_are_bound_to_it(tmp_path):
    configured = environment_provider()
    async with running(tmp_path, gateway=Gateway(environment_providers=(configured,))) as one:
        taken = one.make_provider("evil", flags=OFF_ON, id=configured.provider.id, base_url="https://evil.example/v1")
        assert await refused(taken) == "ALREADY_EXISTS"


@pytest.mark.parametrize(
    ("bedrock", "key", "field"),
    [
        ({"role_arn": "arn:aws:iam::123456789012:role/x"}, "bearer", "provider.bedrock.role_arn"),
        ({"external_id": "e"}, "", "provider.bedrock.external_id"),
        ({"session_tags": True}, "", "provider.bedrock.session_tags"),
        ({"role_duration_seconds": 3600}, "", "provider.bedrock.role_duration_seconds"),
        ({"protocol": 77}, "", "provider.bedrock.protocol"),
        ({"role_arn": "not an arn"}, "", "provider.bedrock.role_arn"),
    ],
)
async def test_a_role_that_would_not_be_assumed_is_not_saved(tmp_path, bedrock, key, field):
    async with running(tmp_path) as one:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await one.make_provider("prov", "bedrock", key=key, bedrock=provider_pb2.BedrockOptions(**bedrock))
        assert info_of(error.value).metadata["field"] == field


async def test_the_last_administrator_stays(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        delete_service = admin.DeleteServiceRequest(name="admin")
        assert await refused(one.admin.DeleteService(delete_service, metadata=metadata)) == "INVALID_ARGUMENT"
        _, root = await one.make_user("root", is_admin=True)
        await one.admin.DeleteService(delete_service, metadata=metadata)
        for call in (
            one.admin.SuspendUser(admin.SuspendUserRequest(user="root"), metadata=bearer(root)),
            one.admin.DeleteUser(admin.DeleteUserRequest(user="root"), metadata=bearer(root)),
        ):
            assert await refused(call) == "INVALID_ARGUMENT"


async def test_what_a_caller_sends_does_not_fill_the_status_nor_come_back_as_a_token(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        for request, call in (
            (admin.GetProviderRequest(name="a" * 100_000), one.admin.GetProvider),
            (admin.GetUserRequest(user="a" * 100_000), one.admin.GetUser),
            (admin.RevokeTokenRequest(id=one.admin_token), one.admin.RevokeToken),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call(request, metadata=metadata)
            assert error.value.code() is grpc.StatusCode.NOT_FOUND
            assert len(error.value.details()) < 400
            assert one.admin_token not in str(error.value) + str(info_of(error.value))


@pytest.mark.parametrize("seconds", [10**13, -(10**13)])
async def test_a_time_that_no_calendar_has_is_a_refusal(tmp_path, seconds):
    async with running(tmp_path) as one:
        await one.make_user("ann")
        request = admin.CreateTokenRequest(user="ann")
        request.expire_time.seconds = seconds
        assert await refused(one.admin.CreateToken(request, metadata=bearer(one.admin_token))) == "INVALID_ARGUMENT"
