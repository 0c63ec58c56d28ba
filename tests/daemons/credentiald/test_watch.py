"""WatchProviders over real sockets: what a bridge is told, and what administrators wait for."""

import asyncio
import sqlite3
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import provider_pb2
from drawbridge.v1 import user_key_service_pb2 as user_keys

from credentiald.metrics import Metrics
from credentiald.rpc import watch_streams
from credentiald.rpc.names import UNACKNOWLEDGED
from credentiald.store import revision
from credentiald.store import watchers as stored_watchers
from credentiald.store.records import records_path
from credentiald.watchers import LOST_SECONDS
from tests.support.credentiald import bearer, reason_of, running

WAIT_SECONDS = 5.0


class Watch:
    """One stream, message by message."""

    def __init__(self, call):
        self.call = call

    async def next(self):
        """The next message that is no heartbeat."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                message = await self.call.read()
                assert message is not grpc.aio.EOF, "the stream has ended"
                if message.changes or message.snapshot:
                    return message

    async def obey(self, message):
        await self.call.write(pb.WatchProvidersRequest(revision=message.revision))

    async def say_goodbye(self):
        await self.call.write(pb.WatchProvidersRequest(leaving=True))
        await ended(self.call)


@asynccontextmanager
async def watching(one, name="bridge-1", *, obey=True, **resume):
    """A stream that has had its first message, and has obeyed it."""
    call = one.credentials.WatchProviders(metadata=bearer(one.bridge_token))
    await call.write(pb.WatchProvidersRequest(bridge_instance_id=name, **resume))
    watch = Watch(call)
    try:
        watch.first = await watch.next()
        if obey:
            await watch.obey(watch.first)
        yield watch
    finally:
        call.cancel()


async def token_id_of(one, user):
    listed = await one.admin.ListTokens(admin.ListTokensRequest(user=user), metadata=bearer(one.admin_token))
    return listed.tokens[0].id


async def revoke(one, token_id):
    """How many bridges had not confirmed it when it returned, as credentiald says it; empty for all have."""
    call = one.admin.RevokeToken(admin.RevokeTokenRequest(id=token_id), metadata=bearer(one.admin_token))
    await call
    return dict(await call.trailing_metadata()).get(UNACKNOWLEDGED, "")


async def test_the_first_message_has_all_providers_and_nothing_secret(tmp_path):
    async with running(tmp_path) as one:
        await one.make_provider("two", key="sk-central-secret")
        await one.make_provider("one", flags=(False, True, False), enabled=False)
        async with watching(one) as watch:
            first = watch.first
            assert first.snapshot
            assert first.database_id == one.plane.db.database_id
            assert [(each.name, each.enabled, len(each.central_keys)) for each in first.providers] == [
                ("one", False, 0),
                ("two", True, 1),
            ]
            assert not first.providers[0].key_policy.central_key_enabled
            assert b"sk-central-secret" not in first.SerializeToString()


async def test_changes_come_in_order_without_gaps_and_with_the_provider_as_it_is_now(tmp_path):
    async with running(tmp_path) as one:
        async with watching(one) as watch:
            user_id, _ = await one.make_user("ann")
            provider = await one.make_provider("prov", key="sk-central")
            seen = [watch.first.revision]
            kinds, named = [], []
            while "provider.created" not in kinds:
                message = await watch.next()
                await watch.obey(message)
                seen.extend(change.revision for change in message.changes)
                kinds.extend(change.kind for change in message.changes)
                named.extend((each.id, each.enabled) for each in message.providers)
                assert message.revision == seen[-1]
        assert kinds == ["user.created", "token.created", "provider.created"]
        assert all(later == earlier + 1 for earlier, later in pairwise(seen))
        assert named == [(provider.id, True)]
        assert user_id


@pytest.mark.parametrize("what", ["token", "user", "provider", "key", "user_key"])
async def test_what_takes_something_away_returns_once_the_bridge_has_obeyed(tmp_path, what):
    async with running(tmp_path) as one:
        await one.make_user("ann")
        await one.make_provider("prov", flags=(True, True, True), key="sk-central")
        metadata = bearer(one.admin_token)
        await one.user_keys_of_admin.SetUserKey(
            user_keys.SetUserKeyRequest(user="ann", provider="prov", key="sk-own"), metadata=metadata
        )
        token_id = await token_id_of(one, "ann")
        calls = {
            "token": lambda: revoke(one, token_id),
            "user": lambda: one.admin.SuspendUser(admin.SuspendUserRequest(user="ann"), metadata=metadata),
            "provider": lambda: one.admin.DeleteProvider(admin.DeleteProviderRequest(name="prov"), metadata=metadata),
            "key": lambda: one.admin.SetCentralKey(
                admin.SetCentralKeyRequest(provider="prov", central_key=provider_pb2.KeyMaterial(api_key="sk-next")),
                metadata=metadata,
            ),
            "user_key": lambda: one.user_keys_of_admin.DeleteUserKey(
                user_keys.DeleteUserKeyRequest(user="ann", provider="prov"), metadata=metadata
            ),
        }
        async with watching(one) as watch:
            returned = asyncio.ensure_future(_awaited(calls[what]()))
            message = await watch.next()
            assert not returned.done(), "it returned before the bridge had obeyed"
            await watch.obey(message)
            async with asyncio.timeout(WAIT_SECONDS):
                await returned
            assert message.changes


async def ended(call):
    """Read a stream to its end."""
    async with asyncio.timeout(WAIT_SECONDS):
        while await call.read() is not grpc.aio.EOF:
            pass


async def _awaited(call):
    return await call


async def test_a_bridge_that_does_not_obey_is_waited_for_within_the_bound_and_has_to_begin_again(tmp_path):
    async with running(tmp_path, revoke_wait_seconds=0.2) as one:
        await one.make_user("ann")
        token_id = await token_id_of(one, "ann")
        async with watching(one) as watch:
            began = time.monotonic()
            assert await revoke(one, token_id) == "1"
            waited = time.monotonic() - began
            assert 0.2 <= waited < WAIT_SECONDS
            await ended(watch.call)
            assert await watch.call.code() is grpc.StatusCode.OK


async def test_a_bridge_whose_stream_was_ended_for_what_it_owes_has_not_obeyed(tmp_path, monkeypatch):
    monkeypatch.setattr(watch_streams, "_LEAST_PATIENCE_SECONDS", 0.0)
    async with running(tmp_path, revoke_wait_seconds=0.5) as one, watching(one) as watch:
        # It owes this one first, so that its time is over before that of the revoke.
        await one.make_user("ann")
        token_id = await token_id_of(one, "ann")
        await watch.next()
        returned = asyncio.ensure_future(revoke(one, token_id))
        await ended(watch.call)
        assert await returned == "1", "who does not answer was taken for one that has obeyed"


async def test_a_bridge_that_was_lost_without_a_word_has_not_obeyed(tmp_path):
    async with running(tmp_path, revoke_wait_seconds=0.2) as one:
        await one.make_user("ann")
        async with watching(one):
            pass
        assert await revoke(one, await token_id_of(one, "ann")) == "1"


async def test_until_it_watches_again_and_acknowledges(tmp_path):
    async with running(tmp_path, revoke_wait_seconds=60.0) as one:
        await one.make_user("ann")
        async with watching(one):
            pass
        token_id, before = await token_id_of(one, "ann"), await one.plane.db.read(revision.current)
        returned = asyncio.ensure_future(revoke(one, token_id))
        async with watching(one, obey=False) as watch:
            message = watch.first
            while message.revision <= before:
                # It was told before the revoke was made.
                message = await watch.next()
            assert not returned.done()
            await watch.obey(message)
            async with asyncio.timeout(WAIT_SECONDS):
                assert await returned == ""


@pytest.mark.parametrize("is_before", [False, True])
async def test_who_was_lost_at_one_process_may_acknowledge_at_another(tmp_path, is_before):
    async with running(tmp_path, revoke_wait_seconds=60.0) as one, running(tmp_path, sockets="second") as other:
        await one.make_user("ann")
        token_id = await token_id_of(one, "ann")
        async with watching(one):
            pass
        async with watching(other) as watch:
            returned = asyncio.ensure_future(revoke(one if is_before else other, token_id))
            message = await watch.next()
            assert not returned.done()
            await watch.obey(message)
            async with asyncio.timeout(WAIT_SECONDS):
                assert await returned == ""


async def test_who_was_lost_at_another_process_has_not_obeyed(tmp_path):
    async with running(tmp_path, revoke_wait_seconds=0.2) as one, running(tmp_path, sockets="second") as other:
        await one.make_user("ann")
        async with watching(other):
            pass
        assert await revoke(one, await token_id_of(one, "ann")) == "1"


async def test_nor_has_who_watched_at_a_process_that_has_stopped(tmp_path):
    async with running(tmp_path, revoke_wait_seconds=0.2) as one:
        await one.make_user("ann")
        token_id = await token_id_of(one, "ann")
        async with running(tmp_path, sockets="second") as other, watching(other):
            pass
        assert await revoke(one, token_id) == "1"


@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("way", ["stream", "single", "ping"])
async def test_a_bridge_that_was_stopped_for_long_counts_again_before_it_is_answered(
    tmp_path, monkeypatch, way, is_elsewhere
):
    loop, later_seconds = asyncio.get_running_loop(), [0.0]
    time_of_loop = loop.time
    monkeypatch.setattr(loop, "time", lambda: time_of_loop() + later_seconds[0])
    async with running(tmp_path, revoke_wait_seconds=0.2) as one, running(tmp_path, sockets="second") as other:
        await one.make_user("ann")
        metadata, question = bearer(one.bridge_token), pb.ResolveProviderRequest(bridge_instance_id="bridge-1")
        stream = one.credentials.ResolveProviderStream(metadata=metadata)
        async with watching(one):
            pass
        assert await revoke(one, await token_id_of(one, "ann")) == "1"
        later_seconds[0] = LOST_SECONDS + 1
        assert await suspend(one, "ann") == "", "it is waited for though it must be gone"
        if way == "stream":
            await stream.write(pb.ResolveProviderStreamRequest(items=[question]))
            assert await stream.read() is not grpc.aio.EOF
        elif way == "single":
            with pytest.raises(grpc.aio.AioRpcError):
                await one.credentials.ResolveProvider(question, metadata=metadata)
        else:
            await one.credentials.Ping(pb.PingRequest(bridge_instance_id="bridge-1"), metadata=metadata)
        assert await suspend(other if is_elsewhere else one, "ann") == "1"
        stream.cancel()


async def suspend(one, user):
    call = one.admin.SuspendUser(admin.SuspendUserRequest(user=user), metadata=bearer(one.admin_token))
    await call
    return dict(await call.trailing_metadata()).get(UNACKNOWLEDGED, "")


async def test_where_nobody_can_write_down_who_watches_nothing_is_said_to_be_obeyed(tmp_path, monkeypatch):
    async with running(tmp_path, revoke_wait_seconds=0.5) as one, running(tmp_path, sockets="second") as other:
        await one.make_user("ann")
        token_id = await token_id_of(one, "ann")
        async with watching(other):
            with sqlite3.connect(records_path(one.plane.db.path), isolation_level=None) as conn:
                conn.execute("BEGIN IMMEDIATE")
                # What was written before is old by now.
                monkeypatch.setattr(stored_watchers, "LOST_MICROS", -60_000_000)
                assert await revoke(one, token_id) == "unknown"
                conn.execute("ROLLBACK")
            conn.close()


async def test_who_does_not_wait_does_not_know(tmp_path):
    async with running(tmp_path, revoke_wait_seconds=0) as one:
        await one.make_user("ann")
        assert await revoke(one, await token_id_of(one, "ann")) == ""
        async with watching(one):
            assert await suspend(one, "ann") == "unknown"


async def test_a_bridge_whose_older_connection_is_broken_without_our_knowing_obeys_on_the_newer(tmp_path):
    async with running(tmp_path, revoke_wait_seconds=60.0) as one:
        await one.make_user("ann")
        async with watching(one), watching(one) as watch:
            returned = asyncio.ensure_future(revoke(one, await token_id_of(one, "ann")))
            message = await watch.next()
            assert not returned.done()
            await watch.obey(message)
            async with asyncio.timeout(WAIT_SECONDS):
                assert await returned == ""


async def test_who_says_goodbye_is_not_waited_for_and_neither_is_where_it_was_before(tmp_path):
    async with running(tmp_path, revoke_wait_seconds=60.0) as one:
        await one.make_user("ann")
        token_id = await token_id_of(one, "ann")
        async with running(tmp_path, sockets="second") as other, watching(other):
            pass
        async with watching(one):
            pass
        async with watching(one) as watch:
            await watch.say_goodbye()
            assert await watch.call.code() is grpc.StatusCode.OK
        async with asyncio.timeout(WAIT_SECONDS):
            assert await revoke(one, token_id) == ""


async def test_who_resumes_is_told_what_it_has_missed(tmp_path):
    async with running(tmp_path) as one:
        await one.make_user("ann")
        token_id = await token_id_of(one, "ann")
        async with watching(one) as watch:
            seen = watch.first
        await revoke(one, token_id)
        async with watching(one, database_id=seen.database_id, revision=seen.revision) as watch:
            assert [(change.kind, change.resource_id) for change in watch.first.changes] == [
                ("token.revoked", token_id)
            ]
            assert watch.first.changes[0].change_time.seconds > 0
            assert not watch.first.changes_missing
        async with watching(one, database_id="another", revision=seen.revision) as watch:
            assert watch.first.changes_missing
            assert not watch.first.changes


async def test_a_bridge_whose_token_was_rotated_is_let_go_after_it_has_obeyed(tmp_path):
    async with running(tmp_path) as one:
        token = await one.make_service("edge", "BRIDGE")
        call = one.credentials.WatchProviders(metadata=bearer(token))
        await call.write(pb.WatchProvidersRequest(bridge_instance_id="bridge-1"))
        watch = Watch(call)
        await watch.obey(await watch.next())
        rotating = asyncio.ensure_future(
            _awaited(
                one.admin.RotateServiceToken(
                    admin.RotateServiceTokenRequest(name="edge"), metadata=bearer(one.admin_token)
                )
            )
        )
        message = await watch.next()
        assert [change.kind for change in message.changes] == ["service.rotated"]
        assert not rotating.done()
        await watch.obey(message)
        await rotating
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ended(call)
        assert reason_of(refused.value) == "SERVICE_TOKEN_INVALID"
        # It gets no more answers, and has obeyed what came after those that it had.
        await one.make_user("ann")
        assert await revoke(one, await token_id_of(one, "ann")) == ""


async def test_a_bridge_whose_token_was_rotated_before_its_first_word_watches_nothing(tmp_path):
    async with running(tmp_path) as one:
        token = await one.make_service("edge", "BRIDGE")
        call = one.credentials.WatchProviders(metadata=bearer(token))
        for _ in range(3):
            # On the same connection: when this is answered, the stream has been let in.
            await one.credentials.Ping(pb.PingRequest(), metadata=bearer(token))
        await one.admin.RotateServiceToken(
            admin.RotateServiceTokenRequest(name="edge"), metadata=bearer(one.admin_token)
        )
        await call.write(pb.WatchProvidersRequest(bridge_instance_id="bridge-1"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ended(call)
        assert reason_of(refused.value) == "SERVICE_TOKEN_INVALID"


async def test_a_bridge_that_acknowledges_without_reading_is_told_no_more(tmp_path):
    metrics = Metrics("test")

    def watching_now():
        return [sample.value for metric in metrics.watchers.collect() for sample in metric.samples]

    def change(conn):
        revision.record(
            conn, kind="user.created", resource="user", resource_id="x" * 200_000, name="", now=datetime.now(UTC)
        )

    async with running(tmp_path, metrics=metrics) as one:
        call = one.credentials.WatchProviders(metadata=bearer(one.bridge_token))
        await call.write(pb.WatchProvidersRequest(bridge_instance_id="bridge-1"))
        async with asyncio.timeout(WAIT_SECONDS):
            while watching_now() != [1.0]:
                await asyncio.sleep(0.01)
            while watching_now() == [1.0]:
                await one.plane.db.write(change)
                await call.write(pb.WatchProvidersRequest(revision=1 << 40))
        assert watching_now() == [0.0]
        call.cancel()


async def test_one_service_has_so_many_streams_at_a_time_and_another_one_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(watch_streams, "MOST_OF_ONE_SERVICE", 2)
    async with running(tmp_path) as one, watching(one, "bridge-1"), watching(one, "bridge-2"):
        over = one.credentials.WatchProviders(metadata=bearer(one.bridge_token))
        await over.write(pb.WatchProvidersRequest(bridge_instance_id="bridge-3"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ended(over)
        assert reason_of(refused.value) == "INVALID_ARGUMENT"
        token = await one.make_service("edge", "BRIDGE")
        call = one.credentials.WatchProviders(metadata=bearer(token))
        await call.write(pb.WatchProvidersRequest(bridge_instance_id="bridge-1"))
        assert (await Watch(call).next()).snapshot
        call.cancel()


async def test_bridges_that_watch_at_another_process_are_waited_for(tmp_path):
    async with running(tmp_path) as one, running(tmp_path, sockets="second") as other:
        await one.make_user("ann")
        token_id = await token_id_of(one, "ann")
        async with watching(other) as watch:
            returned = asyncio.ensure_future(revoke(one, token_id))
            message = await watch.next()
            assert [change.kind for change in message.changes] == ["token.revoked"]
            assert not returned.done()
            await watch.obey(message)
            async with asyncio.timeout(WAIT_SECONDS):
                await returned


async def test_a_look_that_fails_for_whatever_reason_is_not_the_last(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watch_streams, "_AFTER_BUG_SECONDS", 0.01)
    async with running(tmp_path) as one, running(tmp_path, sockets="second") as other:
        await one.make_user("ann")
        token_id = await token_id_of(one, "ann")
        async with watching(other) as watch:
            # Nothing does this but a bug of ours.
            other.plane.db._versions.close()
            async with asyncio.timeout(WAIT_SECONDS):
                while "it could not be looked at what was changed" not in caplog.text:
                    await asyncio.sleep(0.005)
            other.plane.db._versions = other.plane.db._watcher.cursor()
            returned = asyncio.ensure_future(revoke(one, token_id))
            message = await watch.next()
            assert [change.kind for change in message.changes] == ["token.revoked"]
            await watch.obey(message)
            await returned


async def test_a_policy_change_is_told_with_the_policy(tmp_path):
    async with running(tmp_path) as one:
        await one.make_provider("prov", key="sk-central")
        async with watching(one) as watch:
            request = admin.UpdateProviderRequest(
                provider=provider_pb2.Provider(
                    name="prov", key_policy=provider_pb2.KeyPolicy(central_key_enabled=False, user_keys_allowed=True)
                )
            )
            request.update_mask.paths.extend(["key_policy.central_key_enabled", "key_policy.user_keys_allowed"])
            updating = asyncio.ensure_future(
                _awaited(one.admin.UpdateProvider(request, metadata=bearer(one.admin_token)))
            )
            message = await watch.next()
            await watch.obey(message)
            await updating
            (policy,) = [each.key_policy for each in message.providers]
            assert (policy.central_key_enabled, policy.user_keys_allowed) == (False, True)
