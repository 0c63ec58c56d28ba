"""Pools of keys over real sockets: who is given which key, what bridges tell, and what administrators do and see."""

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2

from credentiald import bootstrap
from credentiald.metrics import Metrics
from credentiald.model import ApiKeyMaterial, EnvironmentProvider, Gateway, KeyPolicy, Origin, Provider
from credentiald.plane import make_plane
from credentiald.probe_claims import CLAIM
from credentiald.rpc.server import MAIN_SERVICES, Health, RpcListener, listening
from credentiald.store.database import open_database
from daemonkit.listen import Address
from daemonkit.secret import Secret
from tests.support.credentiald import Running, bearer, info_of, reason_of, running
from tests.support.key_pools import ENVIRONMENT_ID, Bridge, Clock, complaints_in_the_file, ids_of, make_pool, states_of


async def test_a_key_that_was_refused_rests_for_its_bridge_and_comes_last_for_the_others(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        first, _ = await make_pool(one, "sk-1", "sk-2")
        teller, other = Bridge(one, token), Bridge(one, token, name="bridge-2")
        assert await teller.tell(await teller.ask(), "UNAUTHORIZED", http_status=401, error="invalid_api_key") == 0
        # It was on the disk when the call returned.
        assert complaints_in_the_file(one) == [(first, "bridge-1", "UNAUTHORIZED")]
        assert [await teller.key(), await other.key()] == ["sk-2", "sk-2"]
        assert [await teller.key(failed=[(await ids_of(one))[1]]), await other.key(failed=(await ids_of(one))[1:])] == [
            "unauthorized",
            "sk-1",
        ]
        assert await states_of(one) == ["RESTING", "AVAILABLE"]


async def test_after_its_rest_one_request_tries_the_key_and_a_good_answer_ends_it(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        bridge, other = Bridge(one, token), Bridge(one, token, name="bridge-2")
        await bridge.tell(await bridge.ask(), "RATE_LIMITED", wait=7)
        clock.move(6.9)
        assert await bridge.key() == "sk-2"
        clock.move(0.2)
        assert await states_of(one) == ["TO_BE_PROBED", "AVAILABLE"]
        probe = await bridge.ask()
        assert (probe.credential.api_key.value, probe.probe) == ("sk-1", True)
        assert [await bridge.key(), await other.key()] == ["sk-2", "sk-2"]
        # Nothing was learnt: the next one tries.
        await bridge.tell(probe, "UNKNOWN", http_status=503)
        probe = await other.ask()
        assert probe.probe
        await other.tell(probe, "ACCEPTED", http_status=200)
        assert complaints_in_the_file(one) == []
        assert [await bridge.key(), await other.key()] == ["sk-1", "sk-1"]
        assert await states_of(one) == ["AVAILABLE", "AVAILABLE"]


async def test_a_probe_that_is_never_told_of_is_waited_for_no_longer_than_its_claim(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        bridge = Bridge(one, token)
        await bridge.tell(await bridge.ask(), "UNAUTHORIZED")
        clock.move(60)
        assert [await bridge.key(), await bridge.key()] == ["sk-1?", "sk-2"]
        clock.move(CLAIM.total_seconds())
        assert [await bridge.key(), await bridge.key()] == ["sk-1?", "sk-2"]


@pytest.mark.parametrize(
    ("told", "cause", "seconds"),
    [
        ([("UNAUTHORIZED", None), ("UNAUTHORIZED", None)], "unauthorized", 60),
        ([("UNAUTHORIZED", None), ("RATE_LIMITED", 90)], "rate_limited", 90),
        ([("RATE_LIMITED", 33.2), ("RATE_LIMITED", 90)], "rate_limited", 34),
        ([("RATE_LIMITED", 1_000_000), ("SPEND_LIMITED", None)], "rate_limited", 3600),
    ],
)
async def test_a_pool_without_a_key_for_this_bridge_says_why_and_how_long(tmp_path, told, cause, seconds):
    async with running(tmp_path, clock=Clock()) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        bridge = Bridge(one, token)
        for kind, wait in told:
            await bridge.tell(await bridge.ask(), kind, wait=wait)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bridge.ask()
        info = info_of(refused.value)
        assert (info.reason, dict(info.metadata)) == (
            "KEY_POOL_EXHAUSTED",
            {"provider": "corp", "cause": cause, "retry_after_seconds": str(seconds)},
        )


async def test_answers_say_how_large_the_pool_is_and_which_token_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient-secret")
    async with running(tmp_path) as one:
        user_id, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2", "sk-3")
        await one.make_provider("single", flags=(True, False, False), key="sk-1")
        await one.make_provider("own", flags=(False, True, False))
        await one.make_provider(
            "aws", "bedrock", flags=(True, False, False), bedrock=provider_pb2.BedrockOptions(region="eu-west-1")
        )
        listed = await one.admin.ListTokens(admin.ListTokensRequest(user="ann"), metadata=bearer(one.admin_token))
        bridge = Bridge(one, token)
        asked = {
            "pool": await bridge.ask(),
            "single": await bridge.ask("single"),
            "presented": await bridge.ask("own", presented_key=True),
            "ambient": await bridge.ask("aws"),
        }
        assert {name: answer.pool_size for name, answer in asked.items()} == {
            "pool": 3,
            "single": 1,
            "presented": 0,
            "ambient": 0,
        }
        assert {answer.access_token_id for answer in asked.values()} == {listed.tokens[0].id}
        acting = await one.make_service("batch", "INTERNAL", may_act_for_users=True)
        request = pb.ResolveProviderRequest(provider="corp", user=user_id)
        answer = await one.credentials.ResolveProvider(request, metadata=bearer(acting))
        assert (answer.access_token_id, answer.pool_size) == ("", 3)


async def test_a_key_from_the_environment_rests_as_well_and_also_after_a_restart(tmp_path):
    policy = KeyPolicy(central_key_enabled=True, user_keys_allowed=False, central_key_fallback=False)
    fixed = Provider(id=ENVIRONMENT_ID, name="fixed", type="openai", policy=policy, origin=Origin.ENVIRONMENT)
    materials = tuple(ApiKeyMaterial(value=Secret(key)) for key in ("sk-1", "sk-2"))
    gateway = Gateway(environment_providers=(EnvironmentProvider(provider=fixed, materials=materials),))
    clock = Clock()
    async with running(tmp_path, gateway=gateway, clock=clock) as one:
        _, token = await one.make_user("ann")
        bridge = Bridge(one, token)
        await bridge.tell(await bridge.ask("fixed"), "SPEND_LIMITED")
        assert await bridge.key("fixed") == "sk-2"
        admin_token, bridge_token = one.admin_token, one.bridge_token
    async with running(tmp_path, gateway=gateway, clock=clock) as one:
        one.admin_token, one.bridge_token = admin_token, bridge_token
        assert await Bridge(one, token).key("fixed") == "sk-2"
        assert await states_of(one, "fixed") == ["RESTING", "AVAILABLE"]


async def test_another_worker_on_the_same_file_knows_at_once_and_ends_the_rest_as_well(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        prepared = bootstrap.prepare(f"sqlite:///{tmp_path / 'credentiald.db'}", None, now=clock())
        async with open_database(f"sqlite:///{tmp_path / 'credentiald.db'}", prepared.sealer) as db:
            plane = make_plane(db, prepared.sealer, Gateway(), clock)
            listener = RpcListener(
                name="second",
                setting="listen",
                addresses=[Address(path=str(tmp_path / "second.sock"))],
                services=MAIN_SERVICES,
                tls=None,
                reflection=False,
            )
            async with (
                listening(plane, Metrics("test"), [listener], Health(), one.recording, grace_seconds=0),
                grpc.aio.insecure_channel(f"unix:{tmp_path}/second.sock") as channel,
            ):
                here, there = Bridge(one, token), Bridge(Running(**{**vars(one), "main": channel}), token)
                stream = there.stream()
                assert await there.batch(stream, there.question()) == ["sk-1"]
                assert await there.batch(stream, there.question()) == ["sk-1"]
                await here.tell(await here.ask(), "RATE_LIMITED", wait=5)
                assert await there.batch(stream, there.question()) == ["sk-2"]
                clock.move(5)
                probe = await there.ask()
                assert probe.probe
                # Told to the worker that did not give it out.
                assert await here.tell(probe, "ACCEPTED") == 0
                assert await there.batch(stream, there.question()) == ["sk-1"]
                stream.cancel()


async def test_what_is_refused_after_the_choice_of_a_key_tries_nothing(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        bridge = Bridge(one, token)
        await bridge.tell(await bridge.ask(), "RATE_LIMITED", wait=1)
        clock.move(1)
        assert len(one.plane.probes) == 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bridge.ask(operation="google.generate_content")
        assert reason_of(refused.value) == "OPERATION_NOT_ALLOWED"
        assert len(one.plane.probes) == 0
        assert await bridge.key() == "sk-1?"
