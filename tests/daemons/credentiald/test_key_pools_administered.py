"""What administrators do with the keys of a pool, and what they are shown of it."""

import sqlite3
from datetime import UTC, timedelta

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import error_reason_pb2, explain_service_pb2, provider_health_pb2, provider_pb2

from credentiald import watching
from credentiald.metrics import Metrics
from tests.support.credentiald import bearer, reason_of, running
from tests.support.key_pools import (
    OTHER_PAIR,
    PAIR,
    SAME_ID,
    START,
    Bridge,
    Clock,
    add,
    complaints_in_the_file,
    ids_of,
    make_pool,
    ping,
    states_of,
)


async def test_an_administrator_adds_orders_and_removes_keys_and_what_was_told_stays_with_the_key(tmp_path):
    async with running(tmp_path, clock=Clock()) as one:
        _, token = await one.make_user("ann")
        metadata = bearer(one.admin_token)
        first, second = await make_pool(one, "sk-1", "sk-2")
        added = await add(one, "sk-0", first=True)
        zeroth = added.central_keys[0].credential_id
        assert [key.credential_id for key in added.central_keys] == [zeroth, first, second]
        bridge = Bridge(one, token)
        await bridge.tell(await bridge.ask(), "SPEND_LIMITED")
        ordered = await one.admin.OrderCentralKeys(
            admin.OrderCentralKeysRequest(provider="corp", credential_ids=[second, zeroth], etag=added.etag),
            metadata=metadata,
        )
        assert [key.credential_id for key in ordered.central_keys] == [second, zeroth, first]
        assert await states_of(one) == ["AVAILABLE", "RESTING", "AVAILABLE"]
        assert [await bridge.key(), await bridge.key(failed=[second])] == ["sk-2", "sk-1"]
        await one.admin.RemoveCentralKey(
            admin.RemoveCentralKeyRequest(provider="corp", credential_id=zeroth), metadata=metadata
        )
        assert await ids_of(one) == [second, first]
        assert complaints_in_the_file(one) == []


@pytest.mark.parametrize("change", ["set", "removed", "deleted"])
async def test_with_a_key_that_goes_goes_what_was_told_of_it(tmp_path, change):
    async with running(tmp_path, clock=Clock()) as one:
        _, token = await one.make_user("ann")
        first, _, _ = await make_pool(one, "sk-1", "sk-2", "sk-3")
        bridge = Bridge(one, token)
        late = await bridge.ask()
        await bridge.tell(await bridge.ask(), "UNAUTHORIZED")
        if change == "set":
            request = admin.SetCentralKeyRequest(
                provider="corp", central_key=provider_pb2.KeyMaterial(api_key="sk-new")
            )
            await one.admin.SetCentralKey(request, metadata=bearer(one.admin_token))
        elif change == "removed":
            removal = admin.RemoveCentralKeyRequest(provider="corp", credential_id=first)
            await one.admin.RemoveCentralKey(removal, metadata=bearer(one.admin_token))
        else:
            await one.admin.DeleteProvider(admin.DeleteProviderRequest(name="corp"), metadata=bearer(one.admin_token))
        # What is told of a key that is gone is no trouble, and nothing.
        assert await bridge.tell(late, "UNAUTHORIZED") == 0
        assert complaints_in_the_file(one) == []


async def test_what_a_pool_may_not_be(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        ids = await make_pool(one, *(f"sk-{number}" for number in range(5)))
        await make_pool(one, "sk-1", name="small")
        await one.make_provider(
            "aws", "bedrock", flags=(True, False, False), bedrock=provider_pb2.BedrockOptions(region="eu-west-1")
        )

        async def pair(material: provider_pb2.KeyMaterial) -> None:
            await one.admin.AddCentralKey(
                admin.AddCentralKeyRequest(provider="aws", central_key=material), metadata=metadata
            )

        await pair(PAIR)
        await pair(OTHER_PAIR)
        refusals = [
            (add(one, "sk-5"), "INVALID_ARGUMENT", "has 5 keys"),
            (add(one, "sk-1", name="small"), "INVALID_ARGUMENT", "already"),
            (add(one, " sk-1 ", name="small"), "INVALID_ARGUMENT", "already"),
            (add(one, " ", name="small"), "KEY_REQUIRED", ""),
            (add(one, "sk-9", name="small", etag="77"), "ETAG_MISMATCH", ""),
            (add(one, "sk-9", name="nowhere"), "PROVIDER_NOT_FOUND", ""),
            (add(one, "bearer", name="aws"), "INVALID_ARGUMENT", "one kind"),
            (pair(SAME_ID), "INVALID_ARGUMENT", "already"),
        ]
        for wanted in ([], [ids[0], ids[0]], ["unknown"]):
            request = admin.OrderCentralKeysRequest(provider="corp", credential_ids=wanted)
            call = one.admin.OrderCentralKeys(request, metadata=metadata)
            refusals.append((call, "INVALID_ARGUMENT", ""))
        only = (await ids_of(one, "small"))[0]
        for provider, credential_id, reason in (("small", only, "KEY_REQUIRED"), ("corp", only, "INVALID_ARGUMENT")):
            request = admin.RemoveCentralKeyRequest(provider=provider, credential_id=credential_id)
            refusals.append((one.admin.RemoveCentralKey(request, metadata=metadata), reason, ""))
        for call, reason, text in refusals:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert (reason_of(refused.value), text in (refused.value.details() or "")) == (reason, True)
        assert [len(await ids_of(one, name)) for name in ("corp", "small", "aws")] == [5, 1, 2]
        # Bedrock without a pair has ambient credentials again.
        for credential_id in await ids_of(one, "aws"):
            request = admin.RemoveCentralKeyRequest(provider="aws", credential_id=credential_id)
            await one.admin.RemoveCentralKey(request, metadata=metadata)
        assert await ids_of(one, "aws") == []


async def test_pairs_of_a_pool_stand_in_for_each_other(tmp_path):
    async with running(tmp_path, clock=Clock()) as one:
        _, token = await one.make_user("ann")
        await one.make_provider(
            "aws", "bedrock", flags=(True, False, False), bedrock=provider_pb2.BedrockOptions(region="eu-west-1")
        )
        for material in (PAIR, OTHER_PAIR):
            request = admin.AddCentralKeyRequest(provider="aws", central_key=material)
            await one.admin.AddCentralKey(request, metadata=bearer(one.admin_token))
        bridge = Bridge(one, token)
        answer = await bridge.ask("aws")
        await bridge.tell(answer, "UNAUTHORIZED", http_status=403, error="UnrecognizedClientException")
        second = await bridge.ask("aws")
        assert [each.credential.aws_credentials.access_key_id for each in (answer, second)] == ["AKIA1", "AKIA2"]


async def test_the_health_of_providers_says_who_complains_and_which_breakers_are_open(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        first, second = await make_pool(one, "sk-1", "sk-2")
        await one.make_provider("other", flags=(True, False, False), key="sk-1")
        bridge = Bridge(one, token)
        await bridge.tell(await bridge.ask(), "RATE_LIMITED", wait=20, http_status=429, error="rate_limit_error")
        breaker = pb.BreakerState(
            provider="corp", operation="openai.chat_completions", model="gpt-5", state="BREAKER_PHASE_OPEN",
            failures=5, last_error="503 overloaded",
        )  # fmt: skip
        breaker.since.FromDatetime(START)
        await ping(one, "bridge-1", breaker)
        metadata = bearer(one.admin_token)
        found = await one.admin.GetProviderHealth(admin.GetProviderHealthRequest(name="corp"), metadata=metadata)
        [complaint] = found.keys[0].complaints
        assert [key.credential_id for key in found.keys] == [first, second]
        assert (complaint.service, complaint.bridge_instance_id, complaint.http_status, complaint.error) == (
            "bridge",
            "bridge-1",
            429,
            "rate_limit_error",
        )
        assert complaint.kind == pb.CREDENTIAL_OUTCOME_KIND_RATE_LIMITED
        assert complaint.until.ToDatetime(tzinfo=UTC) == START + timedelta(seconds=20)
        assert found.keys[0].rest_until == complaint.until
        assert [(each.bridge_instance_id, list(each.breakers)) for each in found.bridges] == [("bridge-1", [breaker])]
        pages = await one.admin.ListProviderHealth(admin.ListProviderHealthRequest(page_size=1), metadata=metadata)
        rest = await one.admin.ListProviderHealth(
            admin.ListProviderHealthRequest(page_token=pages.next_page_token), metadata=metadata
        )
        assert list(pages.providers) == [found]
        assert [(each.provider, each.keys[0].state, list(each.bridges)) for each in rest.providers] == [
            ("other", provider_health_pb2.KEY_STATE_AVAILABLE, [])
        ]


async def test_an_explanation_names_the_key_that_is_given_out_and_where_else_a_request_may_get_to(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("single", flags=(True, False, False), key="sk-1", fallback_provider="corp")
        first, second = await make_pool(one, "sk-1", "sk-2")

        async def explained(name: str) -> tuple[str, dict[str, str]]:
            found = await one.explain.ExplainProvider(
                explain_service_pb2.ExplainProviderRequest(provider=name), metadata=bearer(token)
            )
            told = ("central_keys", "central_keys_resting", "fallback_provider")
            return found.credential_id, {each.name: each.value for each in found.inputs if each.name in told}

        assert await explained("corp") == (first, {"central_keys": "2", "central_keys_resting": "0"})
        bridge = Bridge(one, token)
        await bridge.tell(await bridge.ask(), "UNAUTHORIZED")
        assert await explained("corp") == (second, {"central_keys": "2", "central_keys_resting": "1"})
        assert await bridge.key() == "sk-2"
        await bridge.tell(await bridge.ask(), "UNAUTHORIZED")
        # Both rest, but only for that bridge.
        assert await explained("corp") == (first, {"central_keys": "2", "central_keys_resting": "2"})
        assert await Bridge(one, token, name="bridge-2").key() == "sk-1"
        assert await explained("single") == (*await ids_of(one, "single"), {"fallback_provider": "corp"})


async def test_how_many_keys_rest_is_in_the_metrics_while_there_is_such_a_provider(tmp_path):
    metrics, clock = Metrics("test"), Clock()

    async def resting() -> dict[str, float]:
        await watching.look(one.plane, one.stored, metrics)
        return {
            sample.labels["provider"]: sample.value
            for family in metrics.registry.collect()
            if family.name == "credentiald_resting_keys"
            for sample in family.samples
        }

    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2", "sk-3")
        await make_pool(one, "sk-1", name="other")
        for name in ("bridge-1", "bridge-2"):
            bridge = Bridge(one, token, name=name)
            await bridge.tell(await bridge.ask(), "UNAUTHORIZED")
        assert await resting() == {"corp": 2, "other": 0}
        first, second, third = await ids_of(one)
        for credential_id in (second, third):
            removal = admin.RemoveCentralKeyRequest(provider="corp", credential_id=credential_id)
            await one.admin.RemoveCentralKey(removal, metadata=bearer(one.admin_token))
        # The only key that is left is given out whatever was told of it.
        assert await resting() == {"corp": 0, "other": 0}
        await add(one, "sk-4")
        assert await resting() == {"corp": 1, "other": 0}
        assert first in await ids_of(one)
        clock.move(60)
        assert await resting() == {"corp": 0, "other": 0}
        await one.admin.DeleteProvider(admin.DeleteProviderRequest(name="other"), metadata=bearer(one.admin_token))
        assert await resting() == {"corp": 0}


async def test_a_key_of_a_pool_that_cannot_be_opened_is_found_by_trying_the_provider_out(tmp_path):
    async with running(tmp_path) as one:
        first, second = await make_pool(one, "sk-1", "sk-2")

        async def reason() -> int:
            request = admin.CheckProviderRequest(name="corp")
            return (await one.admin.CheckProvider(request, metadata=bearer(one.admin_token))).reason

        assert await reason() == error_reason_pb2.ERROR_REASON_UNSPECIFIED
        with sqlite3.connect(one.folder / "credentiald.db") as conn:
            conn.execute(
                "UPDATE central_keys SET ciphertext = (SELECT ciphertext FROM central_keys WHERE credential_id = ?)"
                " WHERE credential_id = ?",
                (first, second),
            )
        assert await reason() == error_reason_pb2.ERROR_REASON_SEALED
