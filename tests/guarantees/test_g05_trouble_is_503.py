"""G5: trouble with the store, KMS, STS or IMDS is 503 with Retry-After, never 401; nothing falls through to a broader
identity.

Proved by a matrix of faults on a pair that runs: a store that is locked, damaged, taken away, or whose rows do not
open; sealing keys that Vault does not open; AWS's sources and STS failing, hanging, talking nonsense or giving what
has ended; a credentiald that stands still, is gone, refuses the bridge, or answers with any status there is. A client
gets 503 with Retry-After; the upstream gets nothing, although a broader identity would have been at hand: the central
key for a user's, the machine's for a role's. When the fault is over, the same clients are served with the keys of
before.

Wider: tests/daemons/aws (every step of the chain), tests/daemons/pair/test_trouble.py,
tests/daemons/credentiald/test_unsealing.py (AWS KMS), tests/store/test_database.py.
"""

import asyncio
import contextlib
import fcntl
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import provider_pb2, user_key_service_pb2

from tests.fakes.aws import EXPIRED, FAIL, GARBAGE, HANG, MISSING, AwsEndpoints, aws_endpoints, chain_environment
from tests.fakes.credentiald import SERVICE_TOKEN, USER_TOKEN, Refuse, provider, running_credentiald
from tests.fakes.scripted_upstream import running_upstream
from tests.fakes.vault import FakeVault
from tests.fakes.vault import serving as serving_vault
from tests.support.credentiald import bearer, reason_of
from tests.support.http import Answer, send
from tests.support.pair import Pair, running_pair, until_ready
from tests.support.ports import keeping
from tests.support.processes import bridged, credentiald
from tests.support.rpc import Rpcs, rpcs

LISTENERS = {"--listen": "main", "--admin-listen": "admin", "--metrics-listen": "metrics"}
ROLE = "arn:aws:iam::123456789012:role/bedrock"
CENTRAL, OWN, PAIR_SECRET = "sk-central-canary-51", "sk-own-canary-52", "canaryStoredPairSecret53"
BODY = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}'
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
# The time that a question to credentiald may take.
TIMEOUT = "500ms"
# What becomes of any question on a machine that stands still for so long, in the bridge or in credentiald.
TOO_LATE = {"CREDENTIALD_UNREACHABLE", "STORE_UNAVAILABLE"}


@dataclass
class Scene:
    """A pair with a central key, a user's own key beside a central one, ambient AWS, and a role behind a pair."""

    pair: Pair
    rpc: Rpcs
    aws: AwsEndpoints

    async def asked(self, name: str, token: str = "", path: str = CHAT) -> Answer:
        headers = {"Authorization": f"Bearer {token or self.pair.token}"}
        return await send(self.pair.bridged.addresses["http"], "POST", f"/{name}{path}", headers, BODY)

    async def settled(self, name: str, token: str, path: str, *, passing: set[str]) -> Answer:
        """The answer that is none of those 503 that a busy machine brings about, as questions have so little time."""
        async with asyncio.timeout(20):
            while (answer := await self.asked(name, token, path)).header("X-Drawbridge-Error") in passing:
                assert answer.status == 503, answer
        return answer

    async def check_trouble(self, fault: str, name: str, reasons: set[str], *, path: str = CHAT) -> None:
        """A client with a good token is told of trouble, one with a bad one at least of nothing else."""
        self.pair.upstream.requests.clear()
        for token in ("", "dbu_" + "x" * 49):
            answer = await self.settled(name, token, path, passing=TOO_LATE - reasons)
            where = f"{fault}, {name}: {answer.status} {answer.body!r}"
            if token and answer.status == 401 and "STORE_UNAVAILABLE" not in reasons:
                # Whose token it is could be looked up, and it is nobody's.
                continue
            assert (answer.status, answer.header("X-Drawbridge-Error")) in {(503, one) for one in reasons}, where
            assert int(answer.header("Retry-After")) >= 1, where
        assert not self.pair.upstream.requests, fault

    async def served(self, name: str, path: str = CHAT) -> str:
        """Which key the upstream gets, once the client is served again."""
        async with asyncio.timeout(30):
            while (await self.asked(name, path=path)).status != 200:
                await asyncio.sleep(0.05)
        request = self.pair.upstream.requests[-1]
        return request.header("authorization") or ""

    async def bedrock(self, name: str, *, pair: bool = False, role_arn: str = "") -> None:
        """A Bedrock provider, which is ambient without a pair."""
        options = provider_pb2.BedrockOptions(region="us-west-2", role_arn=role_arn)
        one = provider_pb2.Provider(name=name, type="bedrock", base_url=self.pair.upstream.url, bedrock=options)
        request = pb.CreateProviderRequest(provider=one)
        if pair:
            request.central_key.aws_access_key_pair.access_key_id = "AKIASTOREDPAIR"
            request.central_key.aws_access_key_pair.secret_access_key = PAIR_SECRET
        await self.rpc.call("CreateProvider", request)


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    timeout = ("--credentiald-timeout", TIMEOUT)
    with aws_endpoints() as aws:
        environ = chain_environment(aws, "container", "imds")
        async with running_pair(folder, None, *timeout, **environ) as pair, rpcs(folder, pair.credentiald) as rpc:
            base_url = f"{pair.upstream.url}/v1"
            await rpc.provider("central", base_url, key=CENTRAL)
            await rpc.provider("mine", base_url, key=CENTRAL, flags=(True, True, True))
            await rpc.administered_keys.SetUserKey(
                user_key_service_pb2.SetUserKeyRequest(provider="mine", user="ann", key=OWN),
                metadata=bearer(rpc.admin_token),
            )
            at = Scene(pair=pair, rpc=rpc, aws=aws)
            assert await at.served("central") == f"Bearer {CENTRAL}"
            assert await at.served("mine") == f"Bearer {OWN}"
            yield at


@contextmanager
def store_that_is_locked(folder: Path) -> Iterator[None]:
    """No reader gets in (sqlite.org/walformat.html, "WAL Locks": bytes 120 to 127 of the -shm file)."""
    with open(folder / "credentiald.db-shm", "r+b") as shared:
        fcntl.lockf(shared, fcntl.LOCK_EX, 8, 120)
        try:
            yield
        finally:
            fcntl.lockf(shared, fcntl.LOCK_UN, 8, 120)


@contextmanager
def changed_file(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "credentiald.db", isolation_level=None, timeout=10)) as file:
        yield file


@contextmanager
def store_that_is_damaged(folder: Path) -> Iterator[None]:
    """Every page but the first is nonsense, and nobody has an older one in memory."""
    path = folder / "credentiald.db"
    with changed_file(folder) as file:
        file.execute("UPDATE meta SET create_time = create_time + 1")
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        whole = path.read_bytes()
        with path.open("r+b") as pages:
            pages.seek(4096)
            pages.write(b"\xa5" * (len(whole) - 4096))
        # Whoever has read between the two has to read anew. This connection still has what it needs for a change.
        file.execute("UPDATE meta SET create_time = create_time + 1")
    try:
        yield
    finally:
        with path.open("r+b") as pages:
            pages.write(whole)
        with changed_file(folder) as file:
            file.execute("UPDATE meta SET create_time = create_time - 2")


@contextmanager
def keys_that_do_not_open(folder: Path) -> Iterator[None]:
    with changed_file(folder) as file:
        for table in ("central_keys", "user_keys"):
            file.execute(f"UPDATE {table} SET key_id = 'k' || key_id")
        yield
        for table in ("central_keys", "user_keys"):
            file.execute(f"UPDATE {table} SET key_id = substr(key_id, 2)")


STORE = {"STORE_UNAVAILABLE", "CREDENTIALD_UNREACHABLE"}
STORES = [
    (store_that_is_locked, STORE),
    (store_that_is_damaged, STORE),
    (keys_that_do_not_open, {"SEALED"}),
]


async def test_trouble_with_the_store_is_503_for_every_source_and_heals(tmp_path):
    async with scene(tmp_path) as at:
        for fault, reasons in STORES:
            with fault(tmp_path):
                for name in ("central", "mine"):
                    await at.check_trouble(fault.__name__, name, reasons)
            assert await at.served("central") == f"Bearer {CENTRAL}"
            assert await at.served("mine") == f"Bearer {OWN}"
        # A file that was taken away is not what was opened: nothing is written to it, and nobody loses a token by it.
        (tmp_path / "credentiald.db").rename(tmp_path / "elsewhere")
        assert (await at.asked("central")).status in (200, 503)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await at.rpc.user("bob")
        assert reason_of(refused.value) == "STORE_UNAVAILABLE"


AMBIENT = {"AMBIENT_CREDENTIALS_UNAVAILABLE", "CREDENTIALD_UNREACHABLE"}
# What fails, how, and what a provider is asked for with it; the machine's own identity is in each case there or behind.
AWS = [
    *(("container", mode, False, "") for mode in (FAIL, HANG, MISSING, EXPIRED, GARBAGE)),
    *(("sts", mode, pair, "") for mode in (FAIL, HANG) for pair in (True, False)),
    ("sts", FAIL, True, "AccessDenied"),
    ("sts", FAIL, False, "AccessDenied"),
]


async def test_trouble_with_aws_is_503_and_no_other_identity_takes_its_place(tmp_path):
    async with scene(tmp_path) as at:
        await at.bedrock("good")
        assert "ASIACONTAINER" in await at.served("good", MESSAGES)
        for number, (service, mode, pair, code) in enumerate(AWS):
            # Each is another provider, so none has a credential of before.
            name, where = f"aws-{number}", f"{service} {mode} {code} pair={pair}"
            await at.bedrock(name, pair=pair, role_arn=ROLE if service == "sts" else "")
            at.aws.modes, at.aws.sts_code = {service: mode}, code
            at.pair.upstream.requests.clear()
            if code:
                # Nothing to wait for: an operator has to change the role. AWS may take longer than anybody waits.
                answer = await at.settled(name, "", MESSAGES, passing=AMBIENT | TOO_LATE)
                assert (answer.status, answer.header("X-Drawbridge-Error")) == (503, "ROLE_NOT_ASSUMABLE"), where
                assert not at.pair.upstream.requests, where
            else:
                await at.check_trouble(where, name, AMBIENT, path=MESSAGES)
            at.aws.modes = {}
            # Others have what they have.
            assert "ASIACONTAINER" in await at.served("good", MESSAGES)


async def test_a_credentiald_that_is_away_is_503_and_heals(tmp_path):
    async with scene(tmp_path) as at:
        at.pair.credentiald.process.send_signal(signal.SIGSTOP)
        try:
            for name in ("central", "mine"):
                await at.check_trouble("it stands still", name, STORE)
        finally:
            at.pair.credentiald.process.send_signal(signal.SIGCONT)
        assert await at.served("mine") == f"Bearer {OWN}"
        at.pair.credentiald.stop(signal.SIGKILL)
        for name in ("central", "mine"):
            await at.check_trouble("it is gone", name, STORE)


async def test_sealing_keys_that_are_out_of_reach_at_the_start_are_503_and_heal(tmp_path):
    with serving_vault(FakeVault()) as vault:
        environ = {
            "CREDENTIALD_SEALING_KEY_SOURCE": f"vault:{vault.address}/{vault.mount}/drawbridge",
            "CREDENTIALD_VAULT_TOKEN": vault.token,
        }
        async with running_pair(tmp_path, None, **environ) as pair, rpcs(tmp_path, pair.credentiald) as rpc:
            await rpc.provider("central", f"{pair.upstream.url}/v1", key=CENTRAL)
            at = Scene(pair=pair, rpc=rpc, aws=AwsEndpoints())
            assert await at.served("central") == f"Bearer {CENTRAL}"
            addresses = pair.credentiald.addresses
            same = [part for flag, name in LISTENERS.items() for part in (flag, addresses[name])]
            pair.credentiald.stop()
            vault.sealed = True
            again = credentiald(tmp_path, environ, *same)
            with keeping(*addresses.values()):
                daemon = await asyncio.to_thread(again.__enter__)
            try:
                await until_told(at, "SEALED")
                await at.check_trouble("Vault is sealed", "central", {"SEALED"})
                vault.sealed, vault.denied = False, True
                await at.check_trouble("Vault denies", "central", {"SEALED"})
                vault.denied = False
                assert await at.served("central") == f"Bearer {CENTRAL}"
            finally:
                await asyncio.to_thread(again.__exit__, None, None, None)
            assert vault.token not in daemon.output


async def until_told(at: Scene, reason: str) -> None:
    """The bridge has found the credentiald that was started anew."""
    async with asyncio.timeout(20):
        while (answer := await at.asked("central")).header("X-Drawbridge-Error") != reason:
            assert answer.status == 503, answer
            await asyncio.sleep(0.05)


# What a status without a word of ours means: a proxy, another program, a bug. Never that the client's token is bad.
BARE = [Refuse(code=code) for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
OURS = [
    Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason=reason)
    for reason in ("SERVICE_TOKEN_MISSING", "SERVICE_TOKEN_INVALID", "SERVICE_TOKEN_EXPIRED", "SERVICE_OF_LATER")
]
OTHERS = [
    Refuse(code=grpc.StatusCode.PERMISSION_DENIED, reason="CALLER_NOT_ALLOWED"),
    *(Refuse(code=grpc.StatusCode.UNAVAILABLE, reason=one) for one in ("STORE_UNAVAILABLE", "SEALED", "OF_LATER")),
    Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason="ACCESS_TOKEN_INVALID", domain="somebody-elses"),
]


@pytest.mark.parametrize("has_stream", [True, False])
async def test_whatever_status_a_bridge_gets_that_is_not_about_the_client_is_503(tmp_path, has_stream):
    async with running_upstream() as upstream, running_credentiald() as plane:
        if not has_stream:
            await plane.stop()
            plane.has_stream = False
            await plane.start()
        plane.providers["corp"] = provider("openai", upstream.url, name="corp", api_key=CENTRAL)
        environ = {"BRIDGED_CREDENTIALD_TOKEN": SERVICE_TOKEN}
        bridge = bridged(tmp_path, plane.target, environ, "--credentiald-timeout", TIMEOUT)
        daemon = await asyncio.to_thread(bridge.__enter__)
        try:
            await until_ready(daemon)
            for refuse in (*BARE, *OURS, *OTHERS):
                plane.refuse = refuse
                headers = {"Authorization": f"Bearer {USER_TOKEN}"}
                for path in (f"/corp{CHAT}", "/corp/v1/embeddings"):
                    answer = await send(daemon.addresses["http"], "POST", path, headers, BODY)
                    where = f"{refuse.code.name} {refuse.reason}: {answer.status} {answer.body!r}"
                    assert answer.status == 503, where
                    assert int(answer.header("Retry-After")) >= 1, where
            assert not upstream.requests
            plane.refuse = None
            async with asyncio.timeout(15):
                while (await send(daemon.addresses["http"], "POST", f"/corp{CHAT}", headers, BODY)).status != 200:
                    await asyncio.sleep(0.05)
        finally:
            await asyncio.to_thread(bridge.__exit__, None, None, None)
