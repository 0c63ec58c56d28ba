"""G8: rotating the sealing key is online and resumable.

Proved on a credentiald that runs, with some thousand sealed secrets: while they are sealed anew, questions get the
keys of before, every one; the process is killed (kill -9) in the middle, time after time, at once after it had begun
and while it goes on; each time every row opens with what the sealing file has, and the next process goes on by
itself. At the end nothing needs the old key: it is retired, which was refused before, and everything opens without
it.

Wider: tests/store/test_sealing_rotation.py (killed between any two steps), tests/daemons/credentiald/test_sealing.py.
"""

import asyncio
import contextlib
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import user_key_service_pb2

from credentiald.model import ApiKeyMaterial, SealedSecret
from credentiald.sealing import DeploymentSecret, Keyring, Sealer, central_key_context, user_key_context
from daemonkit.secret import Secret
from tests.support.bridge import until
from tests.support.credentiald import bearer
from tests.support.processes import credentiald
from tests.support.rpc import Rpcs, rpcs

# Some steps of a rotation, each of which is a transaction and a rest; and so many that it is not over before a machine
# that is busy has killed it so often.
SECRETS, MANY_SECRETS, KILLS = 1200, 5000, 3
KEYS = {"one": "sk-central-canary-81", "mine": "sk-own-canary-82"}


def filled(folder: Path, secrets: int) -> None:
    """Many users with a key each, in the file."""
    sealer = sealer_of(folder)
    with contextlib.closing(sqlite3.connect(folder / "credentiald.db")) as file, file:
        for number in range(secrets):
            user_id, credential_id = f"user-{number:05}", f"credential-{number:05}"
            context = user_key_context(user_id=user_id, provider_id="p", credential_id=credential_id)
            sealed = sealer.seal_material(ApiKeyMaterial(value=Secret(f"sk-{number}")), context)
            file.execute("INSERT INTO users VALUES (?, ?, ?, 0, 0, 1, 0, 0)", (user_id, user_id, user_id))
            file.execute(
                "INSERT INTO user_keys (user_id, provider_id, credential_id, key_id, nonce, ciphertext, update_time)"
                " VALUES (?, 'p', ?, ?, ?, ?, 0)",
                (user_id, credential_id, sealed.key_id, sealed.nonce, sealed.ciphertext),
            )


def sealer_of(folder: Path) -> Sealer:
    return Sealer(Keyring.parse((folder / "credentiald.sealing").read_text()))


def opened(folder: Path) -> tuple[dict[str, str], Counter[str]]:
    """Every stored key by its credential id, opened with what the sealing file has; and which keys seal how many."""
    sealer, found, sealed_by = sealer_of(folder), {}, Counter[str]()
    with contextlib.closing(sqlite3.connect(folder / "credentiald.db")) as file:
        file.row_factory = sqlite3.Row
        for table in ("central_keys", "user_keys"):
            for row in file.execute(f"SELECT * FROM {table}"):
                about = {name: row[name] for name in ("provider_id", "credential_id")}
                context = (
                    central_key_context(**about)
                    if table == "central_keys"
                    else user_key_context(user_id=row["user_id"], **about)
                )
                sealed = SealedSecret(key_id=row["key_id"], nonce=row["nonce"], ciphertext=row["ciphertext"])
                found[row["credential_id"]] = sealer.open_material(sealed, context).value.reveal()
                sealed_by[row["key_id"]] += 1
        meta = file.execute("SELECT * FROM meta").fetchone()
        sealed = SealedSecret(
            key_id=meta["deployment_key_id"], nonce=meta["deployment_nonce"], ciphertext=meta["deployment_ciphertext"]
        )
        found["deployment"] = DeploymentSecret.open(sealed, sealer, meta["database_id"]).derive("test").hex()
        sealed_by[meta["deployment_key_id"]] += 1
    return found, sealed_by


@asynccontextmanager
async def asking(rpc: Rpcs, token: str) -> AsyncIterator[Counter[tuple[str, str]]]:
    """Questions all the time, for the length of the block; what they were answered."""
    answers: Counter[tuple[str, str]] = Counter()
    leaving = asyncio.Event()

    async def ask(name: str) -> None:
        while not leaving.is_set():
            try:
                said = await rpc.resolved(name, token)
            except AssertionError:
                # No word of credentiald's: it is gone.
                return
            answers[name, said] += 1

    tasks = [asyncio.create_task(ask(name)) for name in KEYS]
    try:
        yield answers
    finally:
        leaving.set()
        await asyncio.gather(*tasks)


async def rotate(rpc: Rpcs) -> None:
    await rpc.call("RotateSealingKey", pb.RotateSealingKeyRequest())


def sealed_by(folder: Path) -> Counter[str]:
    with contextlib.closing(sqlite3.connect(folder / "credentiald.db")) as file:
        rows = file.execute("SELECT key_id, count(*) FROM user_keys GROUP BY key_id")
        return Counter(dict(rows))


async def test_a_rotation_that_is_killed_again_and_again_fails_no_question_and_ends_by_itself(tmp_path):
    said: Counter[tuple[str, str]] = Counter()
    with credentiald(tmp_path) as plane:
        async with rpcs(tmp_path, plane) as rpc:
            _, token = await rpc.user("ann")
            await rpc.provider("one", "http://127.0.0.1:9/v1", key=KEYS["one"])
            await rpc.provider("mine", "http://127.0.0.1:9/v1", flags=(False, True, False))
            await rpc.administered_keys.SetUserKey(
                user_key_service_pb2.SetUserKeyRequest(provider="mine", user="ann", key=KEYS["mine"]),
                metadata=bearer(rpc.admin_token),
            )
            filled(tmp_path, MANY_SECRETS)
            before, [(old, count)] = opened(tmp_path)[0], opened(tmp_path)[1].items()
            assert count == MANY_SECRETS + 3
            async with asking(rpc, token) as answers:
                await until(lambda: len(answers) == len(KEYS))
                await rotate(rpc)
                # The first death: it has begun, or is about to.
                plane.stop(signal.SIGKILL)
            said += answers
    for life in range(KILLS + 1):
        after, _ = opened(tmp_path)
        assert after == before
        remaining = sealed_by(tmp_path)[old]
        assert remaining
        # It goes on without being told; it dies as soon as it came a little further, the last one when all is done.
        enough = remaining if life < KILLS else 1
        with credentiald(tmp_path) as plane:
            async with rpcs(tmp_path, plane) as rpc, asking(rpc, token) as answers:
                if life == 0:
                    with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT"):
                        await rpc.call("RetireSealingKey", pb.RetireSealingKeyRequest(id=old))
                await until(lambda least=enough: sealed_by(tmp_path)[old] < least)
                await until(lambda: len(answers) >= len(KEYS))
                plane.stop(signal.SIGKILL)
            said += answers
    after, sealed = opened(tmp_path)
    assert after == before
    assert set(said) == set(KEYS.items())
    [new] = sealed
    assert new != old
    with credentiald(tmp_path) as plane:
        async with rpcs(tmp_path, plane) as rpc:
            await rpc.call("RetireSealingKey", pb.RetireSealingKeyRequest(id=old))
    assert Keyring.parse((tmp_path / "credentiald.sealing").read_text()).key_ids == (new,)
    assert opened(tmp_path)[0] == before
    with credentiald(tmp_path) as plane:
        async with rpcs(tmp_path, plane) as rpc:
            assert {name: await rpc.resolved(name, token) for name in KEYS} == KEYS


async def test_what_is_stored_meanwhile_is_sealed_with_the_new_key_and_ids_stay(tmp_path):
    with credentiald(tmp_path) as plane:
        async with rpcs(tmp_path, plane) as rpc:
            _, token = await rpc.user("ann")
            await rpc.provider("mine", "http://127.0.0.1:9/v1", flags=(False, True, False))
            filled(tmp_path, SECRETS)
            [old] = sealed_by(tmp_path)
            await rotate(rpc)
            await rpc.administered_keys.SetUserKey(
                user_key_service_pb2.SetUserKeyRequest(provider="mine", user="ann", key=KEYS["mine"]),
                metadata=bearer(rpc.admin_token),
            )
            with contextlib.closing(sqlite3.connect(tmp_path / "credentiald.db")) as file:
                query = "SELECT key_id, credential_id FROM user_keys WHERE provider_id != 'p'"
                [(key_id, credential_id)] = file.execute(query).fetchall()
            assert key_id != old
            answer = await rpc.resolve("mine", token)
            assert answer.credential.credential_id == credential_id
            revision = answer.revision
            await until(lambda: old not in sealed_by(tmp_path))
            answer = await rpc.resolve("mine", token)
            assert (answer.credential.credential_id, answer.credential.api_key.value) == (credential_id, KEYS["mine"])
            # No change that anybody has to be told of.
            assert answer.revision == revision
