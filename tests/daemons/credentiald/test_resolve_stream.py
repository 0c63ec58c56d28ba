"""ResolveProviderStream over real sockets: the same answers as single calls, kept answers, and when they end."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2
from drawbridge.v1.credential_service_pb2_grpc import add_CredentialServiceServicer_to_server
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from credentiald import answers, receipts
from credentiald.breaker_book import BreakerBook
from credentiald.metrics import Metrics
from credentiald.model import ApiKeyMaterial, EnvironmentProvider, Gateway, KeyPolicy, Origin, Provider
from credentiald.outcome_book import OutcomeBook
from credentiald.rpc.credentials import Credentials
from credentiald.rpc.guard import Guard
from credentiald.rpc.resolve_stream import MAX_ITEMS, ResolveStreams
from credentiald.rpc.server import MAIN_SERVICES, Health, RpcListener, listening
from credentiald.rpc.watch_streams import WatchStreams
from credentiald.store import services
from daemonkit.listen import Address
from daemonkit.secret import Secret
from tests.support.credentiald import Running, bearer, reason_of, running
from tests.support.policy_rows import CENTRAL, DATABASE_ROWS, OWN, write_row

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

WAIT_SECONDS = 10
INTERCEPTION = "0190e2f4-1111-7abc-8def-0123456789ab"
PROVIDER_ID = "00000000-0000-8000-8000-0000000000a1"


class Stream:
    """One stream from the side of a bridge."""

    def __init__(self, one: Running, token: str | None = None) -> None:
        self.call = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token if token is None else token))

    async def batch(self, *items: pb.ResolveProviderRequest) -> list[pb.ResolveProviderResult]:
        """The results of one batch."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self.call.write(pb.ResolveProviderStreamRequest(items=items))
            reply = await self.call.read()
        assert reply is not grpc.aio.EOF, await self.call.details()
        return list(reply.results)

    async def ask(self, provider: str, token: str, **fields) -> tuple[str, str]:
        """The source or reason, and the key, of one question."""
        [result] = await self.batch(question(provider, token, **fields))
        return said(result)


@asynccontextmanager
async def stream_to(one: Running, token: str | None = None) -> AsyncIterator[Stream]:
    stream = Stream(one, token)
    try:
        yield stream
    finally:
        stream.call.cancel()


def said(result: pb.ResolveProviderResult) -> tuple[str, str]:
    """The source or reason, and the key."""
    if result.WhichOneof("result") == "refusal":
        return result.refusal.reason, ""
    answer = result.response
    kind = answer.credential.WhichOneof("material")
    source = provider_pb2.CredentialSource.Name(answer.source).removeprefix("CREDENTIAL_SOURCE_")
    return source, getattr(answer.credential, kind).value if kind == "api_key" or kind == "bearer_token" else ""


def question(provider: str, token: str, **fields) -> pb.ResolveProviderRequest:
    return pb.ResolveProviderRequest(
        provider=provider, access_token=token, **{"interception_id": INTERCEPTION} | fields
    )


async def single(one: Running, request: pb.ResolveProviderRequest) -> pb.ResolveProviderResult:
    """What a single call says, in the form of a batch."""
    try:
        return pb.ResolveProviderResult(
            response=await one.credentials.ResolveProvider(request, metadata=bearer(one.bridge_token))
        )
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        assert status is not None
        refusal = pb.ResolveRefusal(code=status.code, message=status.message)
        for packed in status.details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if packed.Unpack(info):
                refusal.reason, refusal.domain = info.reason, info.domain
                refusal.metadata.update(info.metadata)
            elif packed.Unpack(retry):
                refusal.retry_delay.CopyFrom(retry.retry_delay)
        return pb.ResolveProviderResult(refusal=refusal)


def comparable(one: Running, result: pb.ResolveProviderResult) -> pb.ResolveProviderResult:
    """Without what differs from answer to answer, once that is seen to be right."""
    copy = pb.ResolveProviderResult()
    copy.CopyFrom(result)
    if copy.HasField("response"):
        answer = copy.response
        receipt = receipts.read(one.plane.receipt_key, answer.receipt)
        assert receipt is not None
        assert UUID(answer.resolution_id).version == 7
        assert (
            receipt.resolution_id,
            receipt.origin.user_id,
            receipt.origin.provider_id,
            receipt.origin.credential_id,
        ) == (
            answer.resolution_id,
            answer.user.id,
            answer.provider.id,
            answer.credential.credential_id,
        )
        age_seconds = time.time() - receipt.resolve_time_micros / 1e6
        assert 0 <= age_seconds < 60
        answer.resolution_id = ""
        answer.receipt = f"{receipt.interception_id} {receipt.origin.service_id} {receipt.origin.source}".encode()
    return copy


async def compare(one: Running, *requests: pb.ResolveProviderRequest) -> list[tuple[str, str]]:
    """What each is told, which must be the same from a single call, from a first batch and from a later one."""
    single_results = [comparable(one, await single(one, request)) for request in requests]
    async with stream_to(one) as stream:
        for _ in range(3):
            assert [comparable(one, result) for result in await stream.batch(*requests)] == single_results
    return [said(result) for result in single_results]


async def test_every_row_of_the_policy_is_answered_as_by_a_single_call(tmp_path):
    async with running(tmp_path) as one:
        user_id, token = await one.make_user("ann")
        names = [await write_row(one, type_name, row, user_id) for type_name, row in DATABASE_ROWS]
        plain = [question(name, token, interception_id=INTERCEPTION, model="m") for name in names]
        presented = [question(name, token, presented_key=True) for name in names]
        told = await compare(one, *plain, *presented)

    assert len(told) == 128
    assert {CENTRAL, OWN, ""} == {key for _, key in told}
    assert {source for source, _ in told} >= {"CENTRAL_KEY", "USER_KEY", "PRESENTED_KEY", "USER_KEY_REQUIRED"}


async def test_every_other_answer_is_the_one_of_a_single_call(tmp_path):
    async with running(tmp_path, gateway=Gateway(allow_byok=False, send_actor_headers=True)) as one:
        user_id, token = await one.make_user("ann")
        made = await one.make_provider("prov", "anthropic", key=CENTRAL)
        await one.make_provider("off", key=CENTRAL, enabled=False)
        await one.make_provider(
            "aws", "bedrock", key=CENTRAL, bedrock=provider_pb2.BedrockOptions(model="big", small_fast_model="small")
        )
        failed = [made.central_keys[0].credential_id]
        unknown = token[:-8] + "x" * 8
        requests = [
            question("prov", token),
            question("prov", ""),
            question("prov", "sk-ant-x"),
            question("prov", unknown),
            question("prov", one.bridge_token),
            question("nowhere", token),
            question("off", token),
            question("prov", token, operation="openai.chat_completions"),
            question("prov", token, operation="anthropic.messages"),
            question("prov", token, presented_key=True),
            question("prov", token, failed_credential_ids=failed),
            question("prov", token, failed_credential_ids=["another"]),
            question("prov", token, min_revision=10_000),
            question("prov", token, interception_id='quo"ted'),
            question("prov", token, interception_id=""),
            question("prov", token, interception_id=INTERCEPTION.upper()),
            question("prov", "", interception_id="quoted"),
            question("aws", token, model="claude-haiku"),
            question("aws", token, model="claude-opus"),
            question("aws", token),
            pb.ResolveProviderRequest(provider="prov", user=user_id),
            pb.ResolveProviderRequest(),
        ]
        told = await compare(one, *requests)

    assert [source for source, _ in told] == [
        "CENTRAL_KEY", "ACCESS_TOKEN_MISSING", "ACCESS_TOKEN_INVALID", "ACCESS_TOKEN_INVALID", "ACCESS_TOKEN_INVALID",
        "PROVIDER_NOT_FOUND", "PROVIDER_DISABLED", "OPERATION_NOT_ALLOWED", "CENTRAL_KEY", "USER_KEYS_NOT_ALLOWED",
        "KEY_POOL_EXHAUSTED", "CENTRAL_KEY", "STORE_UNAVAILABLE", "INVALID_ARGUMENT", "CENTRAL_KEY", "CENTRAL_KEY",
        "INVALID_ARGUMENT", "CENTRAL_KEY", "CENTRAL_KEY", "CENTRAL_KEY", "CALLER_NOT_ALLOWED", "ACCESS_TOKEN_MISSING",
    ]  # fmt: skip


async def test_a_service_that_may_name_the_user_may_do_so_on_a_stream(tmp_path):
    async with running(tmp_path) as one:
        user_id, _ = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        chat = await one.make_service("chat", "INTERNAL", may_act_for_users=True, act_for_providers=["prov"])
        async with stream_to(one, chat) as stream:
            request = pb.ResolveProviderRequest(provider="prov", user=user_id)
            for _ in range(2):
                assert [said(result) for result in await stream.batch(request)] == [("CENTRAL_KEY", CENTRAL)]


async def test_the_answer_for_a_named_user_is_nobody_elses(tmp_path):
    async with running(tmp_path) as one:
        ann, token = await one.make_user("ann")
        bob, _ = await one.make_user("bob")
        await one.make_provider("prov", key=CENTRAL)
        chat = await one.make_service("chat", "INTERNAL", may_act_for_users=True)
        async with stream_to(one, chat) as stream:
            for _ in range(2):
                results = await stream.batch(
                    pb.ResolveProviderRequest(provider="prov", user=ann),
                    pb.ResolveProviderRequest(provider="prov", user=bob),
                    pb.ResolveProviderRequest(provider="prov"),
                    question("prov", ""),
                    question("prov", token),
                )
                told = [result.response.user.username or result.refusal.reason for result in results]
                assert told == ["ann", "bob", "ACCESS_TOKEN_MISSING", "ACCESS_TOKEN_MISSING", "ann"]
        async with stream_to(one) as stream:
            # The same user and provider asked by another service: its receipt names that one.
            [result] = await stream.batch(question("prov", token))
            receipt = receipts.read(one.plane.receipt_key, result.response.receipt)
            bridge = await one.plane.db.read(services.get, "bridge")
    assert receipt is not None
    assert receipt.origin.service_id == bridge.id


async def test_what_stood_in_for_a_failed_key_is_not_the_answer_for_everybody(tmp_path):
    pool = EnvironmentProvider(
        provider=Provider(
            id=PROVIDER_ID,
            name="pool",
            type="openai",
            policy=KeyPolicy(central_key_enabled=True, user_keys_allowed=False, central_key_fallback=False),
            origin=Origin.ENVIRONMENT,
        ),
        materials=tuple(ApiKeyMaterial(value=Secret(f"sk-{number}")) for number in range(3)),
    )
    async with running(tmp_path, gateway=Gateway(environment_providers=(pool,))) as one, stream_to(one) as stream:
        _, token = await one.make_user("ann")
        keys = one.plane.environment["pool"].provider.central_keys
        failed = [key.credential_id for key in keys[:2]]
        for _ in range(2):
            assert await stream.ask("pool", token, failed_credential_ids=failed) == ("CENTRAL_KEY", "sk-2")
            assert await stream.ask("pool", token) == ("CENTRAL_KEY", "sk-0")
            assert await stream.ask("pool", token, failed_credential_ids=failed[:1]) == ("CENTRAL_KEY", "sk-1")


async def test_ten_thousand_questions_of_many_users_get_each_its_own_answer_in_its_place(tmp_path):
    async with running(tmp_path) as one:
        tokens = [(await one.make_user(f"user-{number}"))[1] for number in range(20)]
        for number in range(5):
            await one.make_provider(f"p{number}", key=f"sk-p{number}")
        asked = [(f"user-{n % 20}", f"p{n // 20 % 5}", str(UUID(int=n + 1))) for n in range(10_000)]
        ids = set()

        async def carry(stream: Stream, part: list[tuple[str, str, str]]) -> None:
            for first in range(0, len(part), 100):
                batch = part[first : first + 100]
                results = await stream.batch(
                    *(
                        question(provider, tokens[int(user.removeprefix("user-"))], interception_id=interception)
                        for user, provider, interception in batch
                    )
                )
                for (user, provider, interception), result in zip(batch, results, strict=True):
                    answer = result.response
                    assert (answer.user.username, answer.provider.name) == (user, provider)
                    assert answer.credential.api_key.value == f"sk-{provider}"
                    receipt = receipts.read(one.plane.receipt_key, answer.receipt)
                    assert (receipt.interception_id, receipt.resolution_id) == (interception, answer.resolution_id)
                    ids.add(answer.resolution_id)

        streams = [Stream(one) for _ in range(4)]
        await asyncio.gather(*(carry(stream, asked[place::4]) for place, stream in enumerate(streams)))
        for stream in streams:
            stream.call.cancel()

    assert len(ids) == 10_000


async def test_a_token_that_is_revoked_between_two_batches_is_refused(tmp_path):
    async with running(tmp_path) as one, stream_to(one) as stream:
        _, token = await one.make_user("ann")
        _, other = await one.make_user("bob")
        await one.make_provider("prov", key=CENTRAL)
        assert await stream.ask("prov", token) == ("CENTRAL_KEY", CENTRAL)
        assert await stream.ask("prov", token) == ("CENTRAL_KEY", CENTRAL)
        listed = await one.admin.ListTokens(admin.ListTokensRequest(user="ann"), metadata=bearer(one.admin_token))
        await one.admin.RevokeToken(admin.RevokeTokenRequest(id=listed.tokens[0].id), metadata=bearer(one.admin_token))

        assert await stream.ask("prov", token) == ("ACCESS_TOKEN_INVALID", "")
        assert await stream.ask("prov", other) == ("CENTRAL_KEY", CENTRAL)


async def test_a_revoke_by_another_process_on_the_same_file_is_obeyed_by_the_next_batch(tmp_path):
    revoke = (
        "import sqlite3, sys\n"
        "conn = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "conn.execute('UPDATE tokens SET revoke_time = 1')\n"
    )
    async with running(tmp_path) as one, stream_to(one) as stream:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        for _ in range(2):
            assert await stream.ask("prov", token) == ("CENTRAL_KEY", CENTRAL)
        await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", revoke, tmp_path / "credentiald.db"], check=True, timeout=30
        )

        assert await stream.ask("prov", token) == ("ACCESS_TOKEN_INVALID", "")


async def test_no_answer_of_before_a_revoke_comes_after_it_however_fast_the_questions_are(tmp_path):
    """A stream that never stops asking, beside tokens that are revoked one after the other."""
    async with running(tmp_path) as one:
        await one.make_provider("prov", key=CENTRAL)
        tokens = [(await one.make_user(f"user-{number}"))[1] for number in range(25)]
        listed = await one.admin.ListTokens(admin.ListTokensRequest(page_size=100), metadata=bearer(one.admin_token))
        revoked: set[str] = set()
        stale: list[str] = []
        asked = 0
        stopping = False

        async def keep_asking() -> None:
            nonlocal asked
            async with stream_to(one) as stream:
                while not stopping:
                    gone = set(revoked)
                    results = await stream.batch(*(question("prov", token) for token in tokens))
                    asked += len(results)
                    stale.extend(
                        token
                        for token, result in zip(tokens, results, strict=True)
                        if token in gone and said(result) != ("ACCESS_TOKEN_INVALID", "")
                    )

        asking = [asyncio.create_task(keep_asking()) for _ in range(2)]
        by_user = {token.username: token.id for token in listed.tokens}
        for number, token in enumerate(tokens):
            await one.admin.RevokeToken(
                admin.RevokeTokenRequest(id=by_user[f"user-{number}"]), metadata=bearer(one.admin_token)
            )
            revoked.add(token)
        stopping = True
        await asyncio.gather(*asking)

    assert asked > 100
    assert stale == []


@pytest.mark.parametrize("change", ["rotate", "delete"])
async def test_a_service_token_that_stops_counting_ends_a_running_stream(tmp_path, change):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        async with stream_to(one) as stream:
            assert await stream.ask("prov", token) == ("CENTRAL_KEY", CENTRAL)
            if change == "rotate":
                request = admin.RotateServiceTokenRequest(name="bridge")
                await one.admin.RotateServiceToken(request, metadata=bearer(one.admin_token))
            else:
                await one.plane.db.write(services.delete, "bridge", now=datetime.now(UTC))
            await stream.call.write(pb.ResolveProviderStreamRequest(items=[question("prov", token)]))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stream.call.read()

    assert reason_of(refused.value) == "SERVICE_TOKEN_INVALID"


@pytest.mark.parametrize(("token", "reason"), [("", "SERVICE_TOKEN_MISSING"), ("sk-x", "SERVICE_TOKEN_INVALID")])
async def test_a_stream_of_a_caller_who_may_not_is_refused_before_anything_is_asked(tmp_path, token, reason):
    async with running(tmp_path) as one, stream_to(one, token) as stream:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.call.read()

    assert reason_of(refused.value) == reason


async def test_what_administrators_change_is_in_the_next_batch(tmp_path):
    async with running(tmp_path) as one, stream_to(one) as stream:
        metadata = bearer(one.admin_token)
        user_id, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        assert await stream.ask("prov", token) == ("CENTRAL_KEY", CENTRAL)
        request = admin.SetCentralKeyRequest(provider="prov")
        request.central_key.api_key = "sk-second"
        await one.admin.SetCentralKey(request, metadata=metadata)
        assert await stream.ask("prov", token) == ("CENTRAL_KEY", "sk-second")
        update = admin.UpdateProviderRequest(
            provider=provider_pb2.Provider(name="prov", base_url="https://new.example/")
        )
        update.update_mask.paths.append("base_url")
        await one.admin.UpdateProvider(update, metadata=metadata)
        [result] = await stream.batch(question("prov", token))
        assert result.response.provider.base_url == "https://new.example/"
        await one.admin.SuspendUser(admin.SuspendUserRequest(user=user_id), metadata=metadata)
        assert await stream.ask("prov", token) == ("USER_SUSPENDED", "")
        await one.admin.ResumeUser(admin.ResumeUserRequest(user=user_id), metadata=metadata)
        assert await stream.ask("prov", token) == ("CENTRAL_KEY", "sk-second")


async def test_a_kept_answer_ends_with_its_token(tmp_path):
    times = [datetime.now(UTC)]
    async with running(tmp_path, clock=lambda: times[0]) as one, stream_to(one) as stream:
        await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        request = admin.CreateTokenRequest(user="ann")
        request.expire_time.FromDatetime(times[0] + timedelta(seconds=30))
        made = await one.admin.CreateToken(request, metadata=bearer(one.admin_token))
        for _ in range(2):
            assert await stream.ask("prov", made.access_token) == ("CENTRAL_KEY", CENTRAL)
        times[0] += timedelta(seconds=29, milliseconds=999)
        assert await stream.ask("prov", made.access_token) == ("CENTRAL_KEY", CENTRAL)
        times[0] += timedelta(milliseconds=1)
        assert await stream.ask("prov", made.access_token) == ("ACCESS_TOKEN_EXPIRED", "")


async def test_an_opened_key_does_not_stay_when_nobody_asks_any_more(tmp_path):
    times = [datetime.now(UTC)]
    async with running(tmp_path, clock=lambda: times[0]) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        watch = WatchStreams(one.plane, one.stored, Metrics("test"), wait_seconds=1.0)
        streams = ResolveStreams(one.plane, Metrics("test"), one.book, sweep_seconds=0.01, heard_of=watch.heard_of)
        server = grpc.aio.server(interceptors=[Guard(one.plane, Metrics("test"), watch.obeyed)])
        outcomes, breakers = OutcomeBook(one.plane, Metrics("test")), BreakerBook(one.stored, one.plane.clock)
        servicer = Credentials(one.plane, Metrics("test"), streams, watch, one.book, outcomes, breakers)
        add_CredentialServiceServicer_to_server(servicer, server)
        server.add_insecure_port(f"unix:{tmp_path}/second.sock")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/second.sock") as channel:
            async with stream_to(Running(**{**vars(one), "main": channel})) as stream:
                assert await stream.ask("prov", token) == ("CENTRAL_KEY", CENTRAL)
            assert streams.kept_answers == 1
            times[0] += answers.MAX_AGE
            async with asyncio.timeout(WAIT_SECONDS):
                while streams.kept_answers:
                    await asyncio.sleep(0.005)
        await server.stop(None)


async def test_one_questions_trouble_is_not_its_neighbours(tmp_path, caplog):
    async with running(tmp_path) as one, stream_to(one) as stream:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        await one.make_provider("odd", key=CENTRAL)
        # A type that no release knows yet, as after going back to an older one: a bug as far as this one can tell.
        await one.plane.db.write(lambda conn: conn.execute("UPDATE providers SET type = 'new' WHERE name = 'odd'"))
        good, odd, missing = await stream.batch(
            question("prov", token), question("odd", token), question("nowhere", token)
        )

    assert said(good) == ("CENTRAL_KEY", CENTRAL)
    assert (odd.refusal.code, odd.refusal.message, odd.refusal.reason) == (13, "internal error", "")
    assert said(missing) == ("PROVIDER_NOT_FOUND", "")
    assert "unhandled error" in caplog.text


async def test_an_empty_batch_has_an_empty_answer_and_an_oversized_one_none(tmp_path):
    async with running(tmp_path) as one, stream_to(one) as stream:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        assert await stream.batch() == []
        assert len(await stream.batch(*[question("prov", token)] * MAX_ITEMS)) == MAX_ITEMS
        await stream.call.write(pb.ResolveProviderStreamRequest(items=[question("prov", token)] * (MAX_ITEMS + 1)))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.call.read()

    assert reason_of(refused.value) == "INVALID_ARGUMENT"


async def test_a_flood_of_bad_tokens_evicts_no_good_answer(tmp_path):
    metrics = Metrics("test")
    async with running(tmp_path, metrics=metrics) as one, stream_to(one) as stream:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        assert await stream.ask("prov", token) == ("CENTRAL_KEY", CENTRAL)
        for number in range(0, answers.CAPACITY + 2 * MAX_ITEMS, MAX_ITEMS):
            bad = [question("prov", f"dbu_{n}") for n in range(number, number + MAX_ITEMS)]
            assert {said(result)[0] for result in await stream.batch(*bad)} == {"ACCESS_TOKEN_INVALID"}
        hits = hits_of(metrics)
        assert await stream.ask("prov", token) == ("CENTRAL_KEY", CENTRAL)

    assert hits_of(metrics) == hits + 1


def hits_of(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("credentiald_answer_cache_total", {"outcome": "hit"}) or 0.0


async def test_batches_hits_and_refusals_are_counted(tmp_path):
    metrics = Metrics("test")
    async with running(tmp_path, metrics=metrics) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        async with stream_to(one) as stream:
            for _ in range(3):
                await stream.batch(question("prov", token), question("prov", token), question("nowhere", token))
            await stream.call.done_writing()
            assert await stream.call.read() is grpc.aio.EOF

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("credentiald_resolve_batch_items_count") == 3
    assert value("credentiald_resolve_batch_items_sum") == 9
    assert value("credentiald_answer_cache_total", outcome="hit") == 4
    assert value("credentiald_answer_cache_total", outcome="miss") == 5
    assert value("credentiald_resolutions_total", source="CENTRAL_KEY") == 6
    assert value("credentiald_resolve_stream_refusals_total", reason="PROVIDER_NOT_FOUND") == 3
    assert value("credentiald_rpcs_total", rpc="ResolveProviderStream", outcome="OK") == 1
    assert value("credentiald_rpc_duration_seconds_count", rpc="ResolveProviderStream") is None


async def test_no_key_or_token_is_in_the_log(tmp_path, caplog):
    async with running(tmp_path) as one, stream_to(one) as stream:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        for _ in range(2):
            await stream.batch(question("prov", token), question("nowhere", token), question("prov", "sk-not-ours"))

    assert "PROVIDER_NOT_FOUND" in str([record.__dict__.get("reason") for record in caplog.records])
    for secret in (CENTRAL, token, "sk-not-ours", one.bridge_token):
        assert secret not in caplog.text + str([record.__dict__ for record in caplog.records])


async def test_a_server_that_stops_ends_idle_streams_at_once_and_answers_what_it_has_read(tmp_path):
    async with running(tmp_path) as one:
        _, token = await one.make_user("ann")
        await one.make_provider("prov", key=CENTRAL)
        address = Address(path=str(tmp_path / "second.sock"))
        listener = RpcListener(
            name="main", setting="listen", addresses=[address], services=MAIN_SERVICES, tls=None, reflection=False
        )
        async with grpc.aio.insecure_channel(str(address)) as channel:
            second = Running(**{**vars(one), "main": channel})
            async with listening(one.plane, Metrics("test"), [listener], Health(), one.recording, grace_seconds=30):
                streams = [Stream(second) for _ in range(200)]
                for stream in streams:
                    assert await stream.batch() == []
                # This one is waiting for the store when the end comes.
                release, all_held = threading.Event(), threading.Barrier(5)

                def hold(_):
                    all_held.wait(WAIT_SECONDS)
                    return release.wait(WAIT_SECONDS)

                held = [asyncio.create_task(one.plane.db.read(hold)) for _ in range(4)]
                await asyncio.to_thread(all_held.wait, WAIT_SECONDS)
                await streams[0].call.write(pb.ResolveProviderStreamRequest(items=[question("prov", token)]))
                async with asyncio.timeout(WAIT_SECONDS):
                    while not one.plane.db._read_threads._work_queue.qsize():
                        await asyncio.sleep(0.001)
                began = time.monotonic()
                asyncio.get_running_loop().call_later(0.1, release.set)
            took_seconds = time.monotonic() - began
            await asyncio.gather(*held)
            reply = await streams[0].call.read()
            ends = [await stream.call.read() for stream in streams]
            codes = {await stream.call.code() for stream in streams}

    assert [said(result) for result in reply.results] == [("CENTRAL_KEY", CENTRAL)]
    assert {end is grpc.aio.EOF for end in ends} == {True}
    assert codes == {grpc.StatusCode.OK}
    assert took_seconds < 2
