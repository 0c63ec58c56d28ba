"""Rotation of the sealing key over real sockets: nobody notices (G8)."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as admin
from drawbridge.v1 import credential_service_pb2 as pb
from drawbridge.v1 import sealing_pb2
from drawbridge.v1 import user_key_service_pb2 as user_keys

from credentiald.sealing import Keyring
from credentiald.store import revision, sealing_rows
from tests.support.aws import Stream
from tests.support.credentiald import bearer, reason_of, running
from tests.support.sealed_store import key_ids_in, opened

WAIT_SECONDS = 10.0
USERS = 6


async def ended(one):
    """The status when nothing is left to be sealed anew."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            status = await one.admin.GetSealingStatus(admin.GetSealingStatusRequest(), metadata=bearer(one.admin_token))
            if not status.secrets_remaining:
                return status
            await asyncio.sleep(0.02)


async def rotate(one):
    return await one.admin.RotateSealingKey(admin.RotateSealingKeyRequest(), metadata=bearer(one.admin_token))


async def set_key(one, token, key):
    await one.user_keys.SetUserKey(user_keys.SetUserKeyRequest(provider="corp", key=key), metadata=bearer(token))


async def resolve(one, token):
    return await one.credentials.ResolveProvider(
        pb.ResolveProviderRequest(provider="corp", access_token=token), metadata=bearer(one.bridge_token)
    )


@asynccontextmanager
async def asking(one, tokens):
    """Users' keys are resolved all the time; what each answer was, by token."""
    answers = {token: set() for token in tokens}
    errors = []

    async def ask(token):
        while True:
            try:
                answer = await resolve(one, token)
                answers[token].add((answer.credential.api_key.value, answer.credential.credential_id))
            except Exception as error:
                errors.append(error)
                raise

    tasks = [asyncio.create_task(ask(token)) for token in tokens]
    try:
        yield answers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert errors == []


async def made(one):
    """A provider with a central key, and users with keys of their own; the users' tokens."""
    await one.make_provider("corp", key="sk-central", flags=(True, True, True))
    tokens = [(await one.make_user(f"user-{number}"))[1] for number in range(USERS)]
    for number, token in enumerate(tokens):
        await set_key(one, token, f"sk-user-{number}")
    return tokens


async def test_no_resolve_fails_and_no_answer_changes_while_everything_is_sealed_anew(tmp_path):
    async with running(tmp_path) as one:
        tokens = await made(one)
        before, old = opened(tmp_path), key_ids_in(tmp_path)
        seen = await one.plane.db.read(revision.current)
        async with asking(one, tokens) as answers:
            for _ in range(5):
                await rotate(one)
                await ended(one)
        assert all(len(each) == 1 for each in answers.values())
        assert sorted(key for each in answers.values() for key, _ in each) == [f"sk-user-{n}" for n in range(USERS)]
        assert await one.plane.db.read(revision.current) == seen
        assert opened(tmp_path) == before
        assert key_ids_in(tmp_path).isdisjoint(old)


async def test_bridges_that_watch_are_told_nothing(tmp_path):
    async with running(tmp_path) as one:
        await made(one)
        call = one.credentials.WatchProviders(metadata=bearer(one.bridge_token))
        await call.write(pb.WatchProvidersRequest(bridge_instance_id="bridge-1"))
        first = await call.read()
        await call.write(pb.WatchProvidersRequest(revision=first.revision))
        await rotate(one)
        await ended(one)
        # The next change is the next thing that the stream says.
        await one.make_provider("later", key="sk-later")
        async with asyncio.timeout(WAIT_SECONDS):
            message = await call.read()
            while not message.changes:
                message = await call.read()
        assert [change.kind for change in message.changes] == ["provider.created"]
        assert message.revision == first.revision + 1
        call.cancel()


async def test_a_second_process_opens_and_seals_with_a_key_that_the_first_made(tmp_path):
    async with running(tmp_path) as one, running(tmp_path, sockets="second-") as two:
        tokens = await made(one)
        async with asking(two, tokens[1:]) as answers:
            new = (await rotate(one)).active_key_id
            # Asked for at once, long before the second looks by itself.
            await set_key(two, tokens[0], "sk-changed")
            await ended(two)
        assert all(len(each) == 1 for each in answers.values())
        assert (await resolve(one, tokens[0])).credential.api_key.value == "sk-changed"
        assert key_ids_in(tmp_path) == {new}
        await one.admin.RetireSealingKey(
            admin.RetireSealingKeyRequest(id=next(key for key in one.plane.sealer.key_ids if key != new)),
            metadata=bearer(one.admin_token),
        )
        assert Keyring.parse((tmp_path / "credentiald.sealing").read_text()).key_ids == (new,)
        # The second has never been told that the old one is gone: it does not use it all the same.
        await set_key(two, tokens[0], "sk-again")
        assert key_ids_in(tmp_path) == {new}


async def test_a_key_that_is_nowhere_is_503_and_comes_back_with_its_file(tmp_path):
    async with running(tmp_path) as one, running(tmp_path, sockets="second-") as two:
        tokens = await made(one)
        file = tmp_path / "credentiald.sealing"
        kept = file.read_text()
        await rotate(one)
        await ended(one)
        rotated = file.read_text()
        file.write_text(kept)
        # The second never saw the new key: it cannot open anything, and says so without blaming anybody's token.
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await resolve(two, tokens[0])
        assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.UNAVAILABLE, "SEALED")
        file.write_text(rotated)
        assert (await resolve(two, tokens[0])).credential.api_key.value == "sk-user-0"


async def test_the_status_names_keys_and_no_secret(tmp_path):
    async with running(tmp_path) as one:
        await made(one)
        await rotate(one)
        status = await ended(one)
        assert [key.state for key in status.keys] == [
            sealing_pb2.SEALING_KEY_STATE_ACTIVE,
            sealing_pb2.SEALING_KEY_STATE_OLD,
        ]
        assert (status.secrets, status.source) == (USERS + 2, "local")
        assert status.active_key_id == await one.plane.db.read(sealing_rows.active_key_id)
        for line in (tmp_path / "credentiald.sealing").read_text().split():
            assert line.partition(":")[2] not in str(status)


async def test_a_batch_is_told_to_ask_singly_for_a_key_that_is_looked_up_first(tmp_path):
    async with running(tmp_path) as one, running(tmp_path, sockets="second-") as two:
        tokens = await made(one)
        await rotate(one)
        await ended(one)
        stream = Stream(two)
        questions = [pb.ResolveProviderRequest(provider="corp", access_token=token) for token in tokens[:2]]
        # Not SEALED: that would be a client's 503.
        assert {got.reason for got in await stream.ask(*questions)} == {"ASK_SINGLY"}
        assert (await resolve(two, tokens[0])).credential.api_key.value == "sk-user-0"
        keys = [got.answer.credential.api_key.value for got in await stream.ask(*questions)]
        assert keys == ["sk-user-0", "sk-user-1"]
        await stream.close()
