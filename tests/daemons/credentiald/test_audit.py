"""The audit over real sockets: who did what, which credential went where, and where it cannot be written."""

import asyncio
import base64
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import (
    credential_service_pb2,
    explain_service_pb2,
    provider_pb2,
    usage_service_pb2,
    user_key_service_pb2,
    user_pb2,
)
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from credentiald import audit_book, audit_model, audit_refusals
from credentiald.audit_book import Mode
from credentiald.audit_chain import Head, Row
from credentiald.metrics import Metrics
from credentiald.rpc import audit_acts
from credentiald.rpc.access import ACCESS
from credentiald.rpc.audit_table import TABLE, Told
from credentiald.store import audit
from credentiald.store.audit import audit_path
from tests.support.credentiald import Running, bearer, reason_of, running

WAIT_SECONDS = 10.0
CANARY = "sk-ant-canary-5a1f0c"


async def entries(one: Running, **wanted) -> list[pb.ListAuditEntriesResponse]:
    """All entries that are asked for, the earliest first."""
    found, request = [], pb.ListAuditEntriesRequest(**wanted)
    while True:
        page = await one.admin.ListAuditEntries(request, metadata=bearer(one.admin_token))
        found += page.entries
        if not page.next_page_token:
            return found[::-1]
        request.page_token = page.next_page_token


async def acts(one: Running, **wanted) -> list[tuple[str, str]]:
    return [(entry.what, entry.outcome) for entry in await entries(one, kind="act", **wanted)]


async def resolve(one: Running, token: str, provider: str = "corp", **more):
    question = credential_service_pb2.ResolveProviderRequest(
        provider=provider,
        access_token=token,
        interception_id=str(uuid4()),
        operation="openai.chat_completions",
        bridge_instance_id="b-1",
        **more,
    )
    return question, await one.credentials.ResolveProvider(question, metadata=bearer(one.bridge_token))


async def until_written(one: Running) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while one.audit.waiting():
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def out_of_the_way(one: Running) -> Iterator[None]:
    """The audit's file is not where it was, for the length of the block: nothing can be written into it."""
    path = audit_path(one.folder / "credentiald.db")
    path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        path.with_suffix(".away").rename(path)


def whole(one: Running) -> Head:
    """The end of the chain, which is whole."""
    verdict = audit.verify(
        audit_path(one.folder / "credentiald.db"), expected=None, database_id=one.plane.db.database_id
    )
    assert verdict.damage is None, verdict.damage
    return verdict.head


def test_every_rpc_has_a_row_and_what_changes_something_is_an_act():
    assert set(TABLE) == set(ACCESS)
    reading = ("Get", "List", "Check", "Query", "Ping", "Explain", "Resolve", "Report", "Append", "Watch")
    for method, rule in TABLE.items():
        name = method.rpartition("/")[2]
        assert (rule.told is Told.ACT) == (not name.startswith(reading)), method
        assert (rule.told is Told.RELEASE) == name.startswith("Resolve"), method


async def test_an_act_is_told_with_who_and_what_it_changed(tmp_path):
    async with running(tmp_path) as one:
        await one.make_provider("corp", key=CANARY, base_url="https://a.example/v1")
        user_id, token = await one.make_user("ann")
        metadata = bearer(one.admin_token)
        await one.admin.UpdateProvider(
            pb.UpdateProviderRequest(
                provider=provider_pb2.Provider(name="corp", base_url="https://b.example/v1", enabled=False),
                update_mask=FieldMask(paths=["base_url", "enabled"]),
            ),
            metadata=metadata,
        )
        await one.admin.SuspendUser(pb.SuspendUserRequest(user="ann"), metadata=metadata)
        await one.admin.DeleteProvider(pb.DeleteProviderRequest(name="corp"), metadata=metadata)
        created, _, made, updated, suspended, deleted = await entries(one, kind="act")

        assert (updated.what, updated.outcome, updated.provider) == ("UpdateProvider", "DONE", "corp")
        assert (updated.service, updated.role) == ("admin", "ADMIN")
        assert updated.peer.startswith("unix:")
        assert [(change.field, change.old, change.new) for change in updated.changes] == [
            ("base_url", "https://a.example/v1", "https://b.example/v1"),
            ("enabled", "true", "false"),
        ]
        [step] = updated.revisions
        assert (step.kind, step.name) == ("provider.updated", "corp")
        assert [(change.field, change.old, change.new) for change in suspended.changes] == [
            ("state", "USER_STATE_ACTIVE", "USER_STATE_SUSPENDED")
        ]
        assert suspended.username == "ann"
        assert ("base_url", "https://b.example/v1", False) in [
            (change.field, change.old, change.HasField("new")) for change in deleted.changes
        ]

        async def hashed(secret: str) -> str:
            return (await one.admin.GetAuditHash(pb.GetAuditHashRequest(secret=secret), metadata=metadata)).hash

        # A key that turns up somewhere is found by its hash, and so is a token.
        assert [(one.field, one.hash) for one in created.secrets] == [("central_key.api_key", await hashed(CANARY))]
        assert [(one.field, one.hash) for one in made.secrets] == [("access_token", await hashed(token))]
        assert {change.field: change.new for change in made.changes}["user_id"] == user_id
        assert await acts(one, provider="corp") == [
            ("CreateProvider", "DONE"),
            ("UpdateProvider", "DONE"),
            ("DeleteProvider", "DONE"),
        ]
        assert await acts(one, user="ANN") == [
            ("CreateUser", "DONE"),
            ("CreateToken", "DONE"),
            ("SuspendUser", "DONE"),
        ]
        assert (await acts(one))[-3:] == [
            ("DeleteProvider", "DONE"),
            ("GetAuditHash", "DONE"),
            ("GetAuditHash", "DONE"),
        ]
        whole(one)


async def test_a_users_own_keys_are_acts_of_the_user_and_reading_is_none(tmp_path):
    async with running(tmp_path) as one:
        await one.make_provider("corp", flags=(False, True, False))
        user_id, token = await one.make_user("ann")
        before = len(await acts(one))
        keys, metadata = one.user_keys, bearer(token)
        await keys.SetUserKey(user_key_service_pb2.SetUserKeyRequest(provider="corp", key=CANARY), metadata=metadata)
        await keys.ListUserKeys(user_key_service_pb2.ListUserKeysRequest(), metadata=metadata)
        await one.explain.ExplainProvider(
            explain_service_pb2.ExplainProviderRequest(provider="corp"), metadata=metadata
        )
        await keys.DeleteUserKey(user_key_service_pb2.DeleteUserKeyRequest(provider="corp"), metadata=metadata)
        made, removed = (await entries(one, kind="act"))[before:]
        assert (made.what, made.caller_username, made.caller_user_id, made.role) == (
            "SetUserKey",
            "ann",
            user_id,
            "USER",
        )
        assert made.secrets[0].field == "key"
        [given], [taken] = made.changes, removed.changes
        assert (given.field, given.new) == (taken.field, taken.old) == ("credential_id", given.new)


async def test_looking_at_what_is_somebody_elses_is_told_and_at_ones_own_is_not(tmp_path):
    async with running(tmp_path) as one:
        await one.make_provider("corp", key=CANARY)
        await one.make_user("ann")
        _, root = await one.make_user("root", is_admin=True)
        before = len(await acts(one))
        explain, usage = one.explain, one.usage
        for token, user in ((root, "ann"), (root, "root"), (root, ""), (one.admin_token, "ann")):
            await explain.ExplainProvider(
                explain_service_pb2.ExplainProviderRequest(provider="corp", user=user), metadata=bearer(token)
            )
        for asked in ({}, {"user": "root"}, {"mine": True}):
            await usage.ListSessions(
                usage_service_pb2.ListSessionsRequest(filter=usage_service_pb2.UsageFilter(**asked)),
                metadata=bearer(root),
            )
        await one.admin.CheckProvider(pb.CheckProviderRequest(name="corp"), metadata=bearer(root))
        with pytest.raises(grpc.aio.AioRpcError):
            await usage.GetInterception(
                usage_service_pb2.GetInterceptionRequest(id=str(uuid4())), metadata=bearer(root)
            )
        told = [(entry.what, entry.outcome, entry.caller_username) for entry in await entries(one, kind="act")]
        assert told[before:] == [
            ("ExplainProvider", "DONE", "root"),
            ("ExplainProvider", "DONE", ""),
            ("ListSessions", "DONE", "root"),
            ("CheckProvider", "DONE", "root"),
            ("GetInterception", "INTERCEPTION_NOT_FOUND", "root"),
        ]


async def test_every_release_is_told_whether_it_was_decided_now_or_kept(tmp_path):
    async with running(tmp_path) as one:
        provider = await one.make_provider("corp", key=CANARY)
        user_id, token = await one.make_user("ann")
        asked = [await resolve(one, token, model="gpt-5")]
        stream = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token))
        for _ in range(3):
            questions = [
                credential_service_pb2.ResolveProviderRequest(
                    provider=provider_name,
                    access_token=token,
                    interception_id=str(uuid4()),
                    operation="openai.chat_completions",
                    bridge_instance_id="b-1",
                    model="gpt-5",
                )
                for provider_name in ("corp", "corp", "unknown")
            ]
            await stream.write(credential_service_pb2.ResolveProviderStreamRequest(items=questions))
            reply = await stream.read()
            assert [result.HasField("response") for result in reply.results] == [True, True, False]
            asked += [(question, result.response) for question, result in zip(questions, reply.results, strict=True)][
                :2
            ]
        stream.cancel()
        await until_written(one)
        told = await entries(one, kind="release")
        assert [(entry.interception_id, entry.resolution_id) for entry in told] == [
            (question.interception_id, answer.resolution_id) for question, answer in asked
        ]
        token_id = (await entries(one, kind="act", user="ann"))[1].changes[0].new
        for entry in told:
            assert (entry.service, entry.role, entry.bridge_instance_id) == ("bridge", "BRIDGE", "b-1")
            assert (entry.user_id, entry.username, entry.token_id) == (user_id, "ann", token_id)
            assert (entry.provider_id, entry.provider, entry.source) == (provider.id, "corp", "CENTRAL_KEY")
            assert entry.credential_id == provider.central_keys[0].credential_id
            assert (entry.what, entry.model) == ("openai.chat_completions", "gpt-5")
        whole(one)


async def test_who_is_not_let_in_to_administration_is_counted_together(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_refusals, "REFUSALS_SECONDS", 0.2)
    async with running(tmp_path) as one:
        _, user = await one.make_user("ann")
        for token in ("", "dbs_wrong", "dbs_wrong", user):
            with pytest.raises(grpc.aio.AioRpcError):
                await one.admin.ListUsers(pb.ListUsersRequest(), metadata=bearer(token))
        async with asyncio.timeout(WAIT_SECONDS):
            while not (told := await entries(one, kind="refusals")):
                await asyncio.sleep(0.02)
        assert sorted((entry.what, entry.outcome, entry.caller_username, entry.count) for entry in told) == [
            ("ListUsers", "ACCESS_TOKEN_INVALID", "", 2),
            ("ListUsers", "ACCESS_TOKEN_MISSING", "", 1),
            ("ListUsers", "CALLER_NOT_ALLOWED", "ann", 1),
        ]
        assert len({entry.sequence for entry in told}) == 1


async def test_refused_acts_are_told_up_to_a_rate_and_then_counted(tmp_path):
    async with running(tmp_path) as one:
        for _ in range(30):
            with pytest.raises(grpc.aio.AioRpcError):
                await one.admin.SuspendUser(pb.SuspendUserRequest(user="nobody"), metadata=bearer(one.admin_token))
        told = await entries(one, kind="act")
        assert {(entry.what, entry.outcome) for entry in told} == {("SuspendUser", "USER_NOT_FOUND")}
        assert told[0].asked[0].new == "nobody"
        assert len(told) == 20
    async with running(tmp_path) as one:
        [counted] = await entries(one, kind="refusals")
        assert (counted.what, counted.outcome, counted.count) == ("SuspendUser", "USER_NOT_FOUND", 10)


async def test_no_secret_is_in_the_file(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        await one.make_provider("corp", key=f"{CANARY}-central")
        await one.make_provider("mine", flags=(False, True, False))
        pair = provider_pb2.AwsAccessKeyPair(access_key_id=f"AKIA{CANARY}", secret_access_key=f"{CANARY}-pair")
        with contextlib.suppress(grpc.aio.AioRpcError):
            await one.admin.CreateProvider(
                pb.CreateProviderRequest(
                    provider=provider_pb2.Provider(name="aws", type="bedrock"),
                    central_key=provider_pb2.KeyMaterial(aws_access_key_pair=pair),
                ),
                metadata=metadata,
            )
        _, token = await one.make_user("ann")
        service_token = await one.make_service("more", "BRIDGE")
        await one.user_keys.SetUserKey(
            user_key_service_pb2.SetUserKeyRequest(provider="mine", key=f"{CANARY}-user"), metadata=bearer(token)
        )
        # Refused, and told of all the same.
        with pytest.raises(grpc.aio.AioRpcError):
            await one.admin.SetCentralKey(
                pb.SetCentralKeyRequest(
                    provider="nothing", central_key=provider_pb2.KeyMaterial(api_key=f"{CANARY}-refused")
                ),
                metadata=metadata,
            )
        # A key in a field where none belongs.
        misplaced = provider_pb2.Provider(name="p", type="openai", base_url=f"https://user:{CANARY}@host/")
        for request in (
            pb.UpdateProviderRequest(provider=misplaced, update_mask=FieldMask(paths=["base_url"])),
            pb.UpdateProviderRequest(provider=misplaced, update_mask=FieldMask(paths=[CANARY])),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await one.admin.UpdateProvider(request, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await one.admin.CreateProvider(pb.CreateProviderRequest(provider=misplaced), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await one.admin.SuspendUser(pb.SuspendUserRequest(user=token), metadata=metadata)
        await one.admin.GetAuditHash(pb.GetAuditHashRequest(secret=f"{CANARY}-asked"), metadata=metadata)
        await resolve(one, token)
        await resolve(one, token, "mine")
        await until_written(one)
        secrets = [CANARY, token, service_token, one.admin_token, one.bridge_token]
        told = str(await entries(one))
    path = audit_path(tmp_path / "credentiald.db")
    content = b"".join(file.read_bytes() for file in tmp_path.glob(f"{path.name}*")) + told.encode()
    assert b"SetUserKey" in content
    for secret in secrets:
        assert secret.encode() not in content
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + secret.encode())
            assert coded[4:-4] not in content


# -- where it cannot be written ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def a_provider_and_a_user(folder: Path, mode: Mode, **more) -> AsyncIterator[tuple[Running, str]]:
    async with running(folder, audit=mode, **more) as one:
        await one.make_provider("corp", key=CANARY)
        _, token = await one.make_user("ann")
        await until_written(one)
        yield one, token


async def test_in_the_mode_on_releases_and_acts_go_on_and_are_told_later(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.ON) as (one, token):
        with out_of_the_way(one):
            question, _ = await resolve(one, token)
            call = one.admin.SuspendUser(pb.SuspendUserRequest(user="ann"), metadata=bearer(one.admin_token))
            assert (await call).state == user_pb2.USER_STATE_SUSPENDED
            assert ("drawbridge-audit-waiting", "1") in [tuple(pair) for pair in await call.trailing_metadata()]
            assert one.audit.is_in_trouble
        await until_written(one)
        assert (await acts(one))[-1] == ("SuspendUser", "DONE")
        assert [entry.interception_id for entry in await entries(one, kind="release")] == [question.interception_id]
        whole(one)


async def test_what_waits_too_long_is_lost_and_the_loss_is_an_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_book, "_MOST_RELEASES_WAITING", 3)
    monkeypatch.setattr(audit_book, "MOST_RELEASES", 2)
    metrics = Metrics("test")
    async with a_provider_and_a_user(tmp_path, Mode.ON, metrics=metrics) as (one, token):
        with out_of_the_way(one):
            asked = [(await resolve(one, token))[0].interception_id for _ in range(8)]
            assert one.audit.lost_count == 5
        await until_written(one)
        [lost] = await entries(one, kind="lost")
        assert lost.count == 5
        assert [entry.interception_id for entry in await entries(one, kind="release")] == asked[5:]
        assert metrics.registry.get_sample_value("credentiald_audit_lost_total") == 5
        whole(one)


async def test_strict_releases_nothing_that_cannot_be_written_not_even_a_kept_answer(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.STRICT) as (one, token):
        stream = one.credentials.ResolveProviderStream(metadata=bearer(one.bridge_token))
        question = credential_service_pb2.ResolveProviderRequest(
            provider="corp", access_token=token, interception_id=str(uuid4()), operation="openai.chat_completions"
        )

        async def ask() -> str:
            await stream.write(credential_service_pb2.ResolveProviderStreamRequest(items=[question]))
            [result] = (await stream.read()).results
            assert (CANARY in str(result)) == result.HasField("response")
            return result.refusal.reason if result.HasField("refusal") else "released"

        assert [await ask(), await ask()] == ["released"] * 2
        with out_of_the_way(one):
            assert [await ask(), await ask()] == ["AUDIT_UNAVAILABLE"] * 2
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await resolve(one, token)
            assert reason_of(refused.value) == "AUDIT_UNAVAILABLE"
        assert await ask() == "released"
        stream.cancel()
        assert len(await entries(one, kind="release")) == 3
        whole(one)


async def test_strict_announces_an_act_and_does_nothing_that_it_cannot_announce(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.STRICT) as (one, _):
        metadata = bearer(one.admin_token)
        with out_of_the_way(one):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await one.admin.SuspendUser(pb.SuspendUserRequest(user="ann"), metadata=metadata)
            assert reason_of(refused.value) == "AUDIT_UNAVAILABLE"
        user = await one.admin.GetUser(pb.GetUserRequest(user="ann"), metadata=metadata)
        assert user.state == user_pb2.USER_STATE_ACTIVE
        await one.admin.SuspendUser(pb.SuspendUserRequest(user="ann"), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await one.admin.SuspendUser(pb.SuspendUserRequest(user="nobody"), metadata=metadata)
        told = (await entries(one, kind="act"))[-4:]
        assert [(entry.what, entry.outcome) for entry in told] == [
            ("SuspendUser", "INTENDED"),
            ("SuspendUser", "DONE"),
            ("SuspendUser", "INTENDED"),
            ("SuspendUser", "USER_NOT_FOUND"),
        ]
        assert [entry.intent_sequence for entry in told] == [0, told[0].sequence, 0, told[2].sequence]


async def test_strict_hands_out_a_token_that_was_made_though_its_second_entry_has_to_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_acts, "_MOST_SECONDS", 0.2)
    async with a_provider_and_a_user(tmp_path, Mode.STRICT) as (one, _):
        write, aways = one.plane.db.write, contextlib.ExitStack()

        async def write_and_take_away(*args, **kwargs):
            done = await write(*args, **kwargs)
            aways.enter_context(out_of_the_way(one))
            return done

        monkeypatch.setattr(one.plane.db, "write", write_and_take_away)
        request = pb.RotateServiceTokenRequest(name="bridge")
        with aways:
            call = one.admin.RotateServiceToken(request, metadata=bearer(one.admin_token))
            made = (await call).service_token
            assert ("drawbridge-audit-waiting", "strict") in [tuple(pair) for pair in await call.trailing_metadata()]
            monkeypatch.setattr(one.plane.db, "write", write)
        await until_written(one)
        assert [outcome for _, outcome in (await acts(one))[-2:]] == ["INTENDED", "DONE"]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await one.credentials.Ping(credential_service_pb2.PingRequest(), metadata=bearer(one.bridge_token))
        assert reason_of(refused.value) == "SERVICE_TOKEN_INVALID"
        await one.credentials.Ping(credential_service_pb2.PingRequest(), metadata=bearer(made))


async def test_strict_announces_refused_acts_up_to_a_rate_and_refuses_more_of_that_caller(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.STRICT) as (one, _):
        # Who has the name of a service is another caller all the same.
        _, token = await one.make_user("admin")
        await until_written(one)
        before = whole(one).sequence
        reasons = []
        for _ in range(40):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await one.user_keys.DeleteUserKey(
                    user_key_service_pb2.DeleteUserKeyRequest(provider="nothing"), metadata=bearer(token)
                )
            reasons.append(reason_of(refused.value))
        assert reasons == ["PROVIDER_NOT_FOUND"] * 20 + ["TOO_MANY_REFUSED_ACTS"] * 20
        assert whole(one).sequence == before + 40
        # Nobody else is refused for it.
        await one.admin.SuspendUser(pb.SuspendUserRequest(user="ann"), metadata=bearer(one.admin_token))
    async with running(tmp_path) as one:
        [counted] = await entries(one, kind="refusals")
        assert (counted.what, counted.outcome, counted.count) == ("DeleteUserKey", "TOO_MANY_REFUSED_ACTS", 20)


async def test_every_answer_of_a_strict_credentiald_is_on_the_disk_when_it_is_read(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.STRICT) as (one, token):
        answers = await asyncio.gather(*(resolve(one, token) for _ in range(40)))
        # Read as somebody else would, without asking the daemon.
        with contextlib.closing(sqlite3.connect(audit_path(tmp_path / "credentiald.db"))) as conn:
            blocks = conn.execute("SELECT body FROM entries WHERE kind = 'release'").fetchall()
        told = {release.interception_id for (body,) in blocks for release in audit_model.releases(body)}
        assert told == {question.interception_id for question, _ in answers}
        # They waited together.
        assert len(blocks) < 40


# -- lists ------------------------------------------------------------------------------------------------------------


async def test_pages_of_any_size_have_every_entry_once_the_latest_first(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.ON) as (one, token):
        for _ in range(2):
            await asyncio.gather(*(resolve(one, token) for _ in range(7)))
            await until_written(one)
        expected = [(entry.sequence, entry.interception_id, entry.what) for entry in await entries(one)]
        assert len(expected) == len(set(expected)) == 1 + 3 + 14
        for size in (1, 2, 5, 6):
            found = [
                (entry.sequence, entry.interception_id, entry.what) for entry in await entries(one, page_size=size)
            ]
            assert found == expected


async def test_lists_are_filtered_by_time_kind_service_and_user(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.ON) as (one, token):
        await resolve(one, token)
        await until_written(one)
        everything = await entries(one)
        middle = everything[2].time
        assert await entries(one, start_time=middle) == everything[2:]
        assert await entries(one, end_time=middle) == everything[:2]
        assert [entry.kind for entry in await entries(one, service="bridge")] == ["release"]
        assert [entry.kind for entry in await entries(one, user="ann")] == ["act", "act", "release"]
        assert await entries(one, user="somebody") == []
        assert await entries(one, provider="other") == []
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await entries(one, kind="everything")
        assert reason_of(refused.value) == "INVALID_ARGUMENT"


async def test_the_head_that_is_told_is_the_end_of_the_chain(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.ON) as (one, _):
        head = await one.admin.GetAuditHead(pb.GetAuditHeadRequest(), metadata=bearer(one.admin_token))
        assert (head.sequence, head.hash) == (whole(one).sequence, whole(one).hash.hex())
        assert (head.mode, head.waiting, head.lost) == ("on", 0, 0)
        last = (await entries(one))[-1]
        assert (last.sequence, last.hash) == (head.sequence, head.hash)


async def test_the_head_is_logged_when_something_was_appended_and_at_the_end(tmp_path, caplog):
    async with a_provider_and_a_user(tmp_path, Mode.ON) as (one, _):
        one.audit.log_head()
        one.audit.log_head()
        began, *heads = [record for record in caplog.records if record.message == "audit head"]
        # What the start has found is in the log at once.
        assert began.sequence == 1
        assert [(record.sequence, record.hash) for record in heads] == [(whole(one).sequence, whole(one).hash.hex())]
        await one.make_user("bob")
    last = [record for record in caplog.records if record.message == "audit head"][-1]
    assert last.sequence == heads[0].sequence + 2


async def test_an_entry_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.ON) as (one, _):
        with contextlib.closing(sqlite3.connect(audit_path(tmp_path / "credentiald.db"))) as conn:
            conn.execute("DROP TRIGGER entries_are_not_changed")
            conn.execute("UPDATE entries SET body = x'00' WHERE sequence = 2")
            conn.commit()
        told = await entries(one)
        assert [entry.outcome for entry in told] == ["", "UNREADABLE", "DONE", "DONE"]
        verdict = audit.verify(audit_path(tmp_path / "credentiald.db"), expected=None, database_id=None)
        assert verdict.damage is not None
        assert verdict.damage.sequence == 2


@pytest.mark.parametrize(
    "change",
    ["body = 7", "body = '{}'", "kind = 'release', body = 7", "hash = 'x'", "time = 'now'", "from_time = 'x'",
     "from_time = 1 << 62", "kind = 'nothing'", "kind = 'lost', body = '{\"until_micros\": 4611686018427387904}'"],
)  # fmt: skip
async def test_no_entry_hides_the_others_whatever_was_written_into_it(tmp_path, change):
    async with a_provider_and_a_user(tmp_path, Mode.ON) as (one, _):
        with contextlib.closing(sqlite3.connect(audit_path(tmp_path / "credentiald.db"))) as conn:
            conn.execute("DROP TRIGGER entries_are_not_changed")
            conn.execute(f"UPDATE entries SET {change} WHERE sequence = 2")
            conn.commit()
        for wanted in ({}, {"user": "ann"}, {"end_time": Timestamp(seconds=1 << 33)}):
            told = await entries(one, **wanted)
            assert {entry.sequence for entry in told} >= {3, 4}
            # Nor is it hidden by what it is not about.
            assert [entry.sequence for entry in told if entry.outcome == "UNREADABLE"] in ([], [2])
            assert "body" not in change or [entry.sequence for entry in told if entry.outcome == "UNREADABLE"]


async def test_which_sealing_key_seals_and_which_was_retired_is_told(tmp_path):
    async with running(tmp_path) as one:
        metadata = bearer(one.admin_token)
        status = await one.admin.RotateSealingKey(pb.RotateSealingKeyRequest(), metadata=metadata)
        new, old = status.active_key_id, status.keys[1].id
        async with asyncio.timeout(WAIT_SECONDS):
            while status.secrets_remaining:
                await asyncio.sleep(0.02)
                status = await one.admin.GetSealingStatus(pb.GetSealingStatusRequest(), metadata=metadata)
        await one.admin.RetireSealingKey(pb.RetireSealingKeyRequest(id=old), metadata=metadata)
        told = [{one.field: (one.old, one.new) for one in act.changes} for act in await entries(one, kind="act")]
        assert told == [
            {f"sealing_key[{old}]": ("active", "old"), f"sealing_key[{new}]": ("", "active")},
            {f"sealing_key[{old}]": ("old", "retired")},
        ]


async def test_entries_that_are_cut_off_while_credentiald_runs_are_missed(tmp_path, caplog):
    metrics = Metrics("test")
    async with a_provider_and_a_user(tmp_path, Mode.ON, metrics=metrics) as (one, _):
        was = whole(one)
        with contextlib.closing(sqlite3.connect(audit_path(tmp_path / "credentiald.db"))) as conn:
            conn.execute("DROP TRIGGER entries_are_not_removed")
            conn.execute("DELETE FROM entries WHERE sequence > ?", (was.sequence - 2,))
            conn.commit()
        await one.make_user("bob")
        [lost] = await entries(one, kind="lost")
        assert (lost.count, lost.asked[-1].field) == (2, "lost[written]")
        assert metrics.registry.get_sample_value("credentiald_audit_lost_total") == 2
        [told] = [record for record in caplog.records if "that were written are gone" in record.message]
        # With this it can be proved.
        head = Head(told.sequence, bytes.fromhex(told.hash))
        assert head == was
        found = audit.verify(audit_path(tmp_path / "credentiald.db"), expected=head, database_id=None)
        assert found.damage is not None
        await one.make_user("cid")
        assert len(await entries(one, kind="lost")) == 1


async def test_rows_that_somebodys_trigger_swallows_are_not_taken_for_written(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.STRICT) as (one, token):
        with contextlib.closing(sqlite3.connect(audit_path(tmp_path / "credentiald.db"))) as conn:
            conn.execute("CREATE TRIGGER swallow BEFORE INSERT ON entries BEGIN SELECT RAISE(IGNORE); END")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await one.admin.SuspendUser(pb.SuspendUserRequest(user="ann"), metadata=bearer(one.admin_token))
        assert reason_of(refused.value) == "AUDIT_UNAVAILABLE"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await resolve(one, token)
        assert reason_of(refused.value) == "AUDIT_UNAVAILABLE"


async def test_a_token_that_is_revoked_by_its_id_in_capitals_is_told_of_like_any_other(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.ON) as (one, _):
        [token] = (await one.admin.ListTokens(pb.ListTokensRequest(), metadata=bearer(one.admin_token))).tokens
        await one.admin.RevokeToken(pb.RevokeTokenRequest(id=token.id.upper()), metadata=bearer(one.admin_token))
        assert [change.field for change in (await entries(one, kind="act"))[-1].changes] == ["revoke_time"]


async def test_what_was_pasted_into_the_wrong_field_is_not_in_the_file(tmp_path):
    async with a_provider_and_a_user(tmp_path, Mode.STRICT) as (one, token):
        wrong = [
            one.admin.RevokeToken(pb.RevokeTokenRequest(id=token), metadata=bearer(one.admin_token)),
            one.admin.SuspendUser(pb.SuspendUserRequest(user=token), metadata=bearer(one.admin_token)),
            one.admin.CreateProvider(
                pb.CreateProviderRequest(
                    provider=provider_pb2.Provider(name="x", type="openai", base_url=f"https://a:{CANARY}@b.example")
                ),
                metadata=bearer(one.admin_token),
            ),
        ]
        for call in wrong:
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        await resolve(one, token, model=token)
        told = (await entries(one, kind="act"))[-6:]
        assert [entry.outcome for entry in told].count("INTENDED") == 3
    path = audit_path(tmp_path / "credentiald.db")
    content = b"".join(file.read_bytes() for file in tmp_path.glob(f"{path.name}*"))
    assert CANARY.encode() not in content
    assert token.encode() not in content


async def test_an_act_whose_caller_has_gone_is_told_as_it_ended(tmp_path):
    async with running(tmp_path) as one:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        write = one.plane.db._write_thread  # the thread is held, so that the call ends before its write
        gate = loop.create_future()

        def hold() -> None:
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(asyncio.wait_for(asyncio.shield(gate), WAIT_SECONDS), loop).result()

        held = loop.run_in_executor(write, hold)
        await begun.wait()
        call = one.admin.CreateUser(
            pb.CreateUserRequest(user=user_pb2.User(username="ann")), metadata=bearer(one.admin_token), timeout=0.3
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        gate.set_result(None)
        await held
        async with asyncio.timeout(WAIT_SECONDS):
            while not (told := await entries(one, kind="act")):
                await asyncio.sleep(0.02)
        assert [(entry.what, entry.outcome, len(entry.revisions)) for entry in told] == [("CreateUser", "CANCELLED", 0)]
        assert (await entries(one, user="ann"))[-1].asked[-1].new == "ann"


def test_rows_of_the_file_are_rows_of_the_chain():
    assert Row._fields == ("sequence", "time", "from_time", "kind", "body", "hash")
