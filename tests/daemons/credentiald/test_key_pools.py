"""Pools of keys over real sockets: who is given which key, what bridges tell, and what administrators do and see."""

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import error_reason_pb2, explain_service_pb2, provider_health_pb2, provider_pb2

from credentiald import bootstrap, outcome_book, receipts, watching
from credentiald.breaker_book import MOST_BREAKERS, Breaker, to_text
from credentiald.bridge_instances import MOST_INSTANCES
from credentiald.ids import uuid7
from credentiald.key_health import Choice, Complaints, Cooldown, OutcomeKind, choose
from credentiald.metrics import Metrics
from credentiald.model import ApiKeyMaterial, EnvironmentProvider, Gateway, KeyPolicy, Origin, Provider
from credentiald.outcome_book import OutcomeBook, Told
from credentiald.plane import make_plane
from credentiald.probe_claims import CLAIM
from credentiald.rpc.server import MAIN_SERVICES, Health, RpcListener, listening
from credentiald.store import bridge_words, key_health
from credentiald.store.database import open_database
from credentiald.store.times import to_micros
from daemonkit.listen import Address
from daemonkit.secret import Secret
from tests.support.credentiald import Running, bearer, info_of, reason_of, running

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ENVIRONMENT_ID = "00000000-0000-8000-8000-0000000000a1"
WAIT_SECONDS = 10


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Bridge:
    """One process of a bridge, with its service's token."""

    def __init__(self, one: Running, user_token: str, *, name: str = "bridge-1", token: str | None = None) -> None:
        self._one = one
        self._user_token = user_token
        self.name = name
        self._metadata = bearer(one.bridge_token if token is None else token)

    def question(self, provider: str = "corp", failed: Sequence[str] = (), **fields: Any) -> pb.ResolveProviderRequest:
        return pb.ResolveProviderRequest(
            **{
                "provider": provider,
                "access_token": self._user_token,
                "failed_credential_ids": failed,
                "bridge_instance_id": self.name,
                "interception_id": uuid7(datetime.now(UTC)),
            }
            | fields
        )

    async def ask(
        self, provider: str = "corp", failed: Sequence[str] = (), **fields: Any
    ) -> pb.ResolveProviderResponse:
        return await self._one.credentials.ResolveProvider(
            self.question(provider, failed, **fields), metadata=self._metadata
        )

    async def key(self, provider: str = "corp", failed: Sequence[str] = ()) -> str:
        """The key that a question brings, with "?" for one to be tried; or why there is none."""
        try:
            answer = await self.ask(provider, failed)
        except grpc.aio.AioRpcError as error:
            return info_of(error).metadata["cause"]
        return answer.credential.api_key.value + "?" * answer.probe

    async def tell(self, answer: pb.ResolveProviderResponse, kind: str, *, wait: float | None = None, **fields) -> int:
        return await self.tell_all(outcome(answer, kind, wait=wait, **fields))

    async def tell_all(self, *outcomes: pb.CredentialOutcome) -> int:
        """How many were ignored."""
        request = pb.ReportOutcomeRequest(bridge_instance_id=self.name, outcomes=outcomes)
        return (await self._one.credentials.ReportOutcome(request, metadata=self._metadata)).ignored

    async def batch(self, stream: Any, *questions: pb.ResolveProviderRequest) -> list[str]:
        """What `key` says, for the questions of one batch."""
        async with asyncio.timeout(WAIT_SECONDS):
            await stream.write(pb.ResolveProviderStreamRequest(items=questions))
            reply = await stream.read()
        return [
            one.response.credential.api_key.value + "?" * one.response.probe
            if one.HasField("response")
            else one.refusal.metadata["cause"]
            for one in reply.results
        ]

    def stream(self) -> Any:
        return self._one.credentials.ResolveProviderStream(metadata=self._metadata)


def outcome(
    answer: pb.ResolveProviderResponse, kind: str, *, wait: float | None = None, **fields: Any
) -> pb.CredentialOutcome:
    message = pb.CredentialOutcome(
        receipt=answer.receipt, kind=pb.CredentialOutcomeKind.Value(f"CREDENTIAL_OUTCOME_KIND_{kind}"), **fields
    )
    if wait is not None:
        message.retry_after.FromTimedelta(timedelta(seconds=wait))
    return message


async def make_pool(one: Running, *keys: str, name: str = "corp") -> list[str]:
    """The ids of the keys of a new provider."""
    await one.make_provider(name, flags=(True, False, False), key=keys[0])
    for key in keys[1:]:
        await add(one, key, name=name)
    return await ids_of(one, name)


async def add(one: Running, key: str, *, name: str = "corp", **fields: Any) -> provider_pb2.Provider:
    request = admin.AddCentralKeyRequest(provider=name, central_key=provider_pb2.KeyMaterial(api_key=key), **fields)
    return await one.admin.AddCentralKey(request, metadata=bearer(one.admin_token))


async def ids_of(one: Running, name: str = "corp") -> list[str]:
    found = await one.admin.GetProvider(admin.GetProviderRequest(name=name), metadata=bearer(one.admin_token))
    return [key.credential_id for key in found.central_keys]


async def states_of(one: Running, name: str = "corp") -> list[str]:
    request = admin.GetProviderHealthRequest(name=name)
    found = await one.admin.GetProviderHealth(request, metadata=bearer(one.admin_token))
    return [provider_health_pb2.KeyState.Name(key.state).removeprefix("KEY_STATE_") for key in found.keys]


def complaints_in_the_file(one: Running) -> list[tuple[Any, ...]]:
    """What another process sees."""
    with sqlite3.connect(one.folder / "credentiald.db") as conn:
        return conn.execute("SELECT credential_id, instance_id, kind FROM key_cooldowns ORDER BY 1, 2").fetchall()


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


async def test_what_is_told_counts_with_the_callers_own_receipt_once_and_soon(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        await one.make_provider("single", flags=(True, False, False), key="sk-single")
        bridge = Bridge(one, token)
        stranger = Bridge(one, token, token=await one.make_service("bridge-x", "BRIDGE"))
        answer = await bridge.ask()
        assert await stranger.tell(answer, "UNAUTHORIZED") == 1
        assert await bridge.tell_all(pb.CredentialOutcome(receipt=b"nonsense"), outcome(answer, "UNKNOWN")) == 1
        assert await bridge.tell(answer, "UNAUTHORIZED") == 1
        # A pool of one has nothing to spare.
        assert await bridge.tell(await bridge.ask("single"), "UNAUTHORIZED") == 0
        assert complaints_in_the_file(one) == []
        assert [await bridge.key(), await stranger.key(), await bridge.key("single")] == ["sk-1", "sk-1", "sk-single"]
        late = await bridge.ask()
        clock.move(3600)
        assert await bridge.tell(late, "UNAUTHORIZED") == 1


@pytest.mark.parametrize(
    ("role", "fields", "reason"),
    [
        ("INTERNAL", {"bridge_instance_id": "one"}, "CALLER_NOT_ALLOWED"),
        ("BRIDGE", {}, "INVALID_ARGUMENT"),
        ("BRIDGE", {"bridge_instance_id": "x" * 65}, "INVALID_ARGUMENT"),
        ("BRIDGE", {"bridge_instance_id": "one", "outcomes": [pb.CredentialOutcome()] * 101}, "INVALID_ARGUMENT"),
    ],
)
async def test_who_may_not_tell(tmp_path, role, fields, reason):
    async with running(tmp_path) as one:
        token = await one.make_service("caller", role)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await one.credentials.ReportOutcome(pb.ReportOutcomeRequest(**fields), metadata=bearer(token))
        assert reason_of(refused.value) == reason


async def test_a_service_is_listened_to_so_often_a_minute_and_another_one_as_well(tmp_path, caplog):
    clock, metrics = Clock(), Metrics("test")
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        other_token = await one.make_service("bridge-x", "BRIDGE")
        book = OutcomeBook(one.plane, metrics, most_a_minute=3)

        async def tell(caller: Bridge, count: int) -> int:
            answers = [await caller.ask() for _ in range(count)]
            service_id = service_of(one, answers[0])
            return await book.tell(
                (service_id, caller.name),
                [
                    Told(receipt=each.receipt, kind=OutcomeKind.UNKNOWN, retry_after=None, http_status=0, error="")
                    for each in answers
                ],
            )

        assert await tell(Bridge(one, token), 5) == 2
        assert await tell(Bridge(one, token, name="bridge-2"), 1) == 1
        assert await tell(Bridge(one, token, token=other_token), 3) == 0
        clock.move(60)
        assert await tell(Bridge(one, token), 3) == 0
        counts = {
            each: metrics.registry.get_sample_value(
                "credentiald_credential_outcomes_total", {"kind": "UNKNOWN", "outcome": each}
            )
            for each in ("counted", "over_bound", "repeated")
        }
        assert counts == {"counted": 9, "over_bound": 3, "repeated": 0}
        assert caplog.text.count("tells more of keys than counts") == 1


def service_of(one: Running, answer: pb.ResolveProviderResponse) -> str:
    receipt = receipts.read(one.plane.receipt_key, answer.receipt)
    assert receipt is not None
    return receipt.origin.service_id


async def test_a_bridge_that_complains_of_every_key_for_ever_takes_no_provider_down(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        ids = await make_pool(one, "sk-1", "sk-2", "sk-3")
        own = Bridge(one, token, token=await one.make_service("bridge-x", "BRIDGE"))
        neighbour = Bridge(one, token, name="bridge-2")
        served = []
        for turn in range(12):
            kind = ("UNAUTHORIZED", "RATE_LIMITED", "SPEND_LIMITED")[turn % 3]
            # A new instance each time, or the same one, and whichever key it can have.
            liar = Bridge(one, token, name=f"liar-{turn % 7}")
            for place in range(len(ids)):
                failed = [*ids[:place], *ids[place + 1 :]]
                try:
                    answer = await liar.ask(failed=failed)
                except grpc.aio.AioRpcError:
                    continue
                await liar.tell(answer, kind, wait=1_000_000)
            for honest in (own, neighbour):
                answer = await honest.ask()
                served.append(answer.credential.credential_id)
                if answer.probe:
                    await honest.tell(answer, "ACCEPTED")
                # Also when it has lost a key itself.
                served.append((await honest.ask(failed=[ids[turn % 3]])).credential.credential_id)
            clock.move((1, 61, 4000)[turn % 3])
        assert len(served) == 48
        assert set(served) <= set(ids)


async def test_kept_answers_follow_the_health_of_the_keys_bridge_by_bridge(tmp_path):
    clock, metrics = Clock(), Metrics("test")

    def misses() -> float:
        return metrics.registry.get_sample_value("credentiald_answer_cache_total", {"outcome": "miss"}) or 0

    async with running(tmp_path, clock=clock, metrics=metrics) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        here, there = Bridge(one, token, name="here"), Bridge(one, token, name="there")
        stream = here.stream()
        both = (here, there)

        async def keys() -> list[str]:
            return [(await bridge.batch(stream, bridge.question()))[0] for bridge in both]

        # While nobody complains, an answer is for all.
        assert await keys() == ["sk-1", "sk-1"]
        assert misses() == 1
        first, second = await here.ask(), await there.ask(failed=[(await here.ask()).credential.credential_id])
        await here.tell(first, "RATE_LIMITED", wait=10)
        await there.tell(second, "RATE_LIMITED", wait=20)
        # From now on for each by itself, and as long as nothing changes.
        before = misses()
        assert [await keys() for _ in range(3)] == [["sk-2", "sk-1"]] * 3
        assert misses() == before + 2
        # Also where two bridges' questions should meet in one batch.
        assert await here.batch(stream, *(bridge.question() for bridge in (*both, *both))) == ["sk-2", "sk-1"] * 2
        clock.move(10)
        # The rest of the first key is over. A key that is tried is for one request of a batch.
        assert await here.batch(stream, *(here.question() for _ in range(3))) == ["sk-1?", "sk-2", "sk-2"]
        assert await keys() == ["sk-2", "sk-1"]
        clock.move(10)
        assert [await there.batch(stream, there.question()) for _ in range(2)] == [["sk-2?"], ["sk-1"]]
        stream.cancel()


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


async def test_what_is_told_together_is_stored_together_and_only_where_it_changes_something(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        bridges = [Bridge(one, token, name=f"bridge-{number}") for number in range(20)]
        answers = [[await bridge.ask() for _ in range(3)] for bridge in bridges]
        state = one.plane.db.state()

        async def tell(place: int) -> None:
            told = zip(bridges, answers, strict=True)
            await asyncio.gather(*(bridge.tell(each[place], "UNAUTHORIZED") for bridge, each in told))

        await tell(0)
        assert len(complaints_in_the_file(one)) == 20
        assert 1 <= one.plane.db.state()[0] - state[0] < 20
        state = one.plane.db.state()
        await tell(1)
        # The key rests already; and a good answer to what was no probe says nothing.
        await bridges[0].tell(answers[0][2], "ACCEPTED")
        assert one.plane.db.state() == state


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


PAIR = provider_pb2.KeyMaterial(
    aws_access_key_pair=provider_pb2.AwsAccessKeyPair(access_key_id="AKIA1", secret_access_key="one")
)
SAME_ID = provider_pb2.KeyMaterial(
    aws_access_key_pair=provider_pb2.AwsAccessKeyPair(access_key_id="AKIA1", secret_access_key="two")
)
OTHER_PAIR = provider_pb2.KeyMaterial(
    aws_access_key_pair=provider_pb2.AwsAccessKeyPair(access_key_id="AKIA2", secret_access_key="two")
)


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


async def ping(one: Running, name: str, *breakers: pb.BreakerState) -> None:
    request = pb.PingRequest(bridge_instance_id=name, breakers=breakers)
    await one.credentials.Ping(request, metadata=bearer(one.bridge_token))


async def test_a_bridges_last_word_of_its_breakers_counts_and_there_is_a_bound_to_it(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        await make_pool(one, "sk-1")

        async def shown() -> list[int]:
            request = admin.GetProviderHealthRequest(name="corp")
            found = await one.admin.GetProviderHealth(request, metadata=bearer(one.admin_token))
            return [len(each.breakers) for each in found.bridges]

        breaker = pb.BreakerState(provider="corp", state="BREAKER_PHASE_OPEN", last_error="x")
        await ping(one, "bridge-1", *[breaker] * 100)
        await ping(one, "bridge-2", pb.BreakerState(provider="corp", operation="x" * 1000, state=9))
        assert sorted(await shown()) == [1, 64]
        clock.move(2)
        await ping(one, "bridge-1")
        assert await shown() == [1]
        clock.move(120)
        assert await shown() == []


async def test_what_the_store_did_not_take_does_not_count_and_may_be_told_again(tmp_path):
    async with running(tmp_path, clock=Clock()) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        bridge = Bridge(one, token)
        answer = await bridge.ask()
        path, aside = one.folder / "credentiald.db", one.folder / "aside.db"
        path.rename(aside)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bridge.tell(answer, "UNAUTHORIZED")
        assert reason_of(refused.value) == "STORE_UNAVAILABLE"
        aside.rename(path)
        assert await bridge.tell(answer, "UNAUTHORIZED") == 0
        assert await bridge.key() == "sk-2"


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


async def test_no_key_is_in_the_log_of_what_was_told(tmp_path, caplog):
    async with running(tmp_path, clock=Clock()) as one:
        _, token = await one.make_user("ann")
        first, _ = await make_pool(one, "sk-canary-1", "sk-canary-2")
        bridge = Bridge(one, token)
        await bridge.tell(await bridge.ask(), "UNAUTHORIZED", error="x" * 1000)
        [record] = [each for each in caplog.records if each.message == "a key rests"]
        assert (record.provider, record.credential_id, record.kind) == ("corp", first, "UNAUTHORIZED")
        assert record.until == (START + timedelta(seconds=60)).isoformat()
        assert "sk-canary" not in str([vars(each) for each in caplog.records])


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


async def test_however_much_is_told_kept_answers_are_kept_for_a_moment_each(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        ids = await make_pool(one, *(f"sk-{number}" for number in range(5)))
        bridges = [Bridge(one, token, name=f"bridge-{number}") for number in range(20)]
        told = [
            (bridge, await bridge.ask(failed=[*ids[:place], *ids[place + 1 :]]))
            for bridge in bridges
            for place in range(5)
        ]
        loop = asyncio.get_running_loop()
        before, start = one.plane.db.state()[0], loop.time()
        limit = asyncio.Semaphore(3)

        async def tell(bridge: Bridge, answer: pb.ResolveProviderResponse) -> None:
            async with limit:
                await bridge.tell(answer, "UNAUTHORIZED")

        await asyncio.gather(*(tell(*each) for each in told))
        assert len(complaints_in_the_file(one)) == 100
        most = (loop.time() - start) / outcome_book.PAUSE_SECONDS + outcome_book.AT_ONCE
        assert one.plane.db.state()[0] - before <= most


async def test_what_is_told_soon_after_something_else_does_not_wait(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        pools = [await make_pool(one, "sk-one", "sk-two", name=f"pool-{number}") for number in range(8)]
        first, second = Bridge(one, token), Bridge(one, token, name="bridge-2")
        given = [await first.ask(f"pool-{number}") for number in range(len(pools))]
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number, answer in enumerate(given):
            assert not await first.tell(answer, "RATE_LIMITED")
            assert await second.key(f"pool-{number}") == "sk-two"
        assert loop.time() - start < (len(pools) - 1) * outcome_book.PAUSE_SECONDS


async def test_what_was_told_of_keys_is_not_looked_at_for_a_provider_with_one_key_or_another_source(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        await one.make_provider("single", flags=(True, False, False), key="sk-single")
        await one.make_provider("own", flags=(False, True, False))
        with sqlite3.connect(one.folder / "credentiald.db") as conn:
            conn.execute("DROP TABLE key_cooldowns")
        bridge = Bridge(one, token)
        assert await bridge.key("single") == "sk-single"
        await bridge.ask("own", presented_key=True)
        with pytest.raises(grpc.aio.AioRpcError):
            await bridge.ask()


async def test_what_is_forgotten_goes_when_something_else_is_told(tmp_path):
    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        _, token = await one.make_user("ann")
        await make_pool(one, "sk-1", "sk-2")
        for name in ("bridge-1", "bridge-2"):
            bridge = Bridge(one, token, name=name)
            await bridge.tell(await bridge.ask(), "RATE_LIMITED", wait=1)
            clock.move(3700)
        assert [instance for _, instance, _ in complaints_in_the_file(one)] == ["bridge-2"]
        # It counts for nothing any more: no probe, and one answer for all.
        assert await bridge.key() == "sk-1"


async def test_a_store_of_records_that_takes_nothing_keeps_no_bridge_from_being_heard(tmp_path):
    async with running(tmp_path, clock=Clock()) as one:
        path = one.folder / "credentiald.records.db"
        path.rename(one.folder / "aside")
        await ping(one, "bridge-1", pb.BreakerState(provider="corp", state="BREAKER_PHASE_OPEN"))
        (one.folder / "aside").rename(path)
        # Its next word is written down, though it says nothing new.
        await ping(one, "bridge-1", pb.BreakerState(provider="corp", state="BREAKER_PHASE_OPEN"))
        assert '"OPEN"' in await one.stored.read(bridge_words.breakers_of, (await service_id_of(one), "bridge-1"))


async def service_id_of(one: Running) -> str:
    listed = await one.admin.ListServices(admin.ListServicesRequest(), metadata=bearer(one.admin_token))
    return next(service.id for service in listed.services if service.name == "bridge")


@pytest.mark.parametrize("seed", range(4))
async def test_a_kept_answer_says_what_a_fresh_look_would_say_whatever_happened_before(tmp_path, seed):
    chance, clock, metrics = random.Random(seed), Clock(), Metrics("test")
    async with running(tmp_path, clock=clock, metrics=metrics) as one:
        _, token = await one.make_user("ann")
        ids = await make_pool(one, "sk-0", "sk-1", "sk-2")
        names = {"here": "", "there": "", "elsewhere": await one.make_service("bridge-x", "BRIDGE")}
        bridges = [Bridge(one, token, name=name, token=own or None) for name, own in names.items()]
        streams = {bridge.name: bridge.stream() for bridge in bridges}
        listed = await one.admin.ListServices(admin.ListServicesRequest(), metadata=bearer(one.admin_token))
        service_ids = {service.name: service.id for service in listed.services}
        given: list[tuple[Bridge, pb.ResolveProviderResponse]] = []
        provider_id = (await bridges[0].ask()).provider.id
        for _ in range(150):
            if chance.random() < 0.15:
                clock.move(chance.choice((0.2, 5, 29, 31, 61, 900)))
            if given and chance.random() < 0.15:
                bridge, answer = given.pop(chance.randrange(len(given)))
                kind = chance.choice(("ACCEPTED", "UNAUTHORIZED", "RATE_LIMITED", "SPEND_LIMITED"))
                await bridge.tell(answer, kind, wait=chance.choice((None, 0.5, 4, 100)))
            bridge = chance.choice(bridges)
            service_id = service_ids["bridge-x" if bridge.name == "elsewhere" else "bridge"]
            wanted = choose(
                ids,
                Complaints(await one.plane.db.read(key_health.of_provider, provider_id, now=clock())),
                one.plane.probes.ends,
                asker=(service_id, bridge.name),
                failed=(),
                now=clock(),
            )
            async with asyncio.timeout(WAIT_SECONDS):
                await streams[bridge.name].write(pb.ResolveProviderStreamRequest(items=[bridge.question()]))
                [result] = (await streams[bridge.name].read()).results
            if isinstance(wanted, Choice):
                found = result.response
                assert (found.credential.credential_id, found.probe) == (ids[wanted.place], wanted.is_probe)
                given.append((bridge, found))
            else:
                assert result.refusal.metadata["cause"] == wanted.cause.value
        for stream in streams.values():
            stream.cancel()
        hits = metrics.registry.get_sample_value("credentiald_answer_cache_total", {"outcome": "hit"})
        assert hits is not None
        assert hits > 5


async def test_however_many_complain_a_batch_of_questions_is_answered(tmp_path):
    clock = Clock()

    def complain(conn: Any) -> None:
        for provider_id, credential_id in conn.execute(
            "SELECT provider_id, credential_id FROM central_keys"
        ).fetchall():
            for number in range(5 * key_health.MOST_OF_ONE_SERVICE):
                key_health.put(
                    conn,
                    Cooldown(
                        credential_id=credential_id, provider_id=provider_id,
                        teller=(f"service-{number % 5}", f"{number:036}"), kind=OutcomeKind.UNAUTHORIZED,
                        since_time=START, until_time=START + timedelta(seconds=60 + number), strikes=1, error="",
                        http_status=401,
                    ),
                )  # fmt: skip

    async with running(tmp_path, clock=clock) as one:
        tokens = [(await one.make_user(f"user-{number}"))[1] for number in range(16)]
        await make_pool(one, *(f"sk-{number}" for number in range(5)))
        await one.plane.db.write(complain)
        bridges = [Bridge(one, tokens[number % 16], name=f"bridge-{number}") for number in range(256)]
        stream = bridges[0].stream()
        assert await bridges[0].batch(stream, *(bridge.question() for bridge in bridges)) == ["sk-0"] * 256
        stream.cancel()


async def test_bridges_that_tell_as_much_as_they_can_hide_no_health(tmp_path):
    breakers = [
        Breaker(f"corp-{number % 4}", "x" * 128, "y" * 128, "OPEN", to_micros(START), 5, "z" * 128)
        for number in range(MOST_BREAKERS)
    ]

    def fill(conn: Any) -> None:
        for number in range(1000):
            teller = (f"service-{number % 3}", f"{number:064}")
            bridge_words.tell_breakers(conn, teller, to_text(breakers), now_micros=to_micros(START))

    def complain(conn: Any) -> None:
        for provider_id, credential_id in conn.execute(
            "SELECT provider_id, credential_id FROM central_keys"
        ).fetchall():
            for number in range(200):
                key_health.put(
                    conn,
                    Cooldown(
                        credential_id=credential_id, provider_id=provider_id,
                        teller=(f"service-{number % 3}", f"{number:064}"), kind=OutcomeKind.UNAUTHORIZED,
                        since_time=START, until_time=START + timedelta(seconds=number), strikes=1,
                        error="\U0001f511" * 128,
                        http_status=401,
                    ),
                )  # fmt: skip

    clock = Clock()
    async with running(tmp_path, clock=clock) as one:
        names = [f"corp-{number}" for number in range(4)]
        for name in names:
            await make_pool(one, *(f"sk-{number}" for number in range(5)), name=name)
        await one.stored.write(fill)
        await one.plane.db.write(complain)
        metadata, request, shown = bearer(one.admin_token), admin.ListProviderHealthRequest(), []
        while not shown or request.page_token:
            page = await one.admin.ListProviderHealth(request, metadata=metadata)
            shown.extend(page.providers)
            request.page_token = page.next_page_token
        assert [each.provider for each in shown] == names
        for each in shown:
            assert each == await one.admin.GetProviderHealth(
                admin.GetProviderHealthRequest(name=each.provider), metadata=metadata
            )
            assert {len(key.complaints) for key in each.keys} == {64}
            assert each.keys[0].rest_until.ToDatetime(tzinfo=UTC) == START + timedelta(seconds=199)
            assert len(each.bridges) == 64


async def test_a_bridge_that_is_one_too_many_of_its_service_has_no_word_written_down(tmp_path):
    async with running(tmp_path, clock=Clock()) as one:
        await make_pool(one, "sk-1")
        service_id = await service_id_of(one)
        for number in range(MOST_INSTANCES):
            one.book.instances.heard((service_id, f"made-up-{number}"), to_micros(START))
        await ping(one, "bridge-1", pb.BreakerState(provider="corp", state="BREAKER_PHASE_OPEN"))
        assert await one.stored.read(lambda conn: conn.execute("SELECT id FROM bridge_instances").fetchall()) == []
