"""G1: no secret byte appears in any log, trace, metric, error, gRPC status, HTTP answer, record, database column or
`repr`.

Proved with canaries (central keys, a pool's, one that was added, a user's, one that a request presents, a pair of
AWS, tokens of users and services and for Vault, sealing keys) that go through every class of refusal of a pair that
runs, with logs at debug level, traces and the API dump on. Then everything that came out anywhere is searched for each
of them: as it is, in base64 at each alignment, in hex and percent-encoded: answers, statuses of gRPC with their details
and trailing metadata, metrics, output of commands, both logs, spans, every file in the folder, those of the dump too,
but for those that are there to hold the secret. Last, every value that holds one is printed in every way that Python
has.

Wider: tests/daemons/aws/test_process.py (AWS's sources), tests/daemons/bridged/test_bedrock_streams.py.
"""

import asyncio
import base64
import contextlib
import json
import logging
import pickle
import signal
import sqlite3
import traceback
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2, credential_service_pb2, provider_pb2, user_key_service_pb2
from grpc_status import rpc_status

from bridged import model as bridged_model
from bridged.adapters.destination import Address
from bridged.client_token import ClientCredentials
from credentiald import model
from credentiald.answers import Kept
from credentiald.resolve import Question
from credentiald.sealing import DeploymentSecret, Keyring, SealContext, Sealer
from daemonkit.logs import human_line, json_line
from daemonkit.secret import Secret
from tests.fakes.otlp_collector import running_collector
from tests.fakes.scripted_upstream import CUT, JSON, Recorded, hang_up, raw, reply, stream
from tests.fakes.vault import FakeVault
from tests.fakes.vault import serving as serving_vault
from tests.support.bridge import until
from tests.support.credentiald import bearer
from tests.support.http import exchange, send
from tests.support.pair import Pair, running_pair
from tests.support.ports import keeping
from tests.support.processes import command, credentiald
from tests.support.raw_http import raw_client, request
from tests.support.rpc import rpcs

CENTRAL = "sk-canary-central-7d41f0"
OWN = "sk-canary-own-93b2aa"
PRESENTED = "sk-canary-presented-5c0e17"
POOL = ("sk-canary-pool-one-a81f", "sk-canary-pool-two-c93e", "sk-canary-pool-three-07bd")
ADDED = "sk-canary-added-1b6d22"
AWS_SECRET = "canaryAwsSecret/e81c+k"
VAULT_TOKEN = "hvs.canary-vault-4be09a"
LISTENERS = {"--listen": "main", "--admin-listen": "admin", "--metrics-listen": "metrics"}
PROVIDERS = {
    "openai": {"TYPE": "openai", "KEY": CENTRAL, "BASE_URL": "{upstream}/v1", "ALLOW_USER_KEYS": "true"},
    "anthropic": {"TYPE": "anthropic", "KEY": CENTRAL, "BASE_URL": "{upstream}"},
    "google": {"TYPE": "google", "KEY": CENTRAL, "BASE_URL": "{upstream}"},
    "pool": {"TYPE": "openai", "KEYS": ",".join(POOL), "BASE_URL": "{upstream}/v1"},
    "unreachable": {"TYPE": "openai", "KEY": CENTRAL, "BASE_URL": "http://127.0.0.1:9/v1"},
    "bedrock": {
        "TYPE": "bedrock",
        "BASE_URL": "{upstream}",
        "BEDROCK_REGION": "us-west-2",
        "BEDROCK_ACCESS_KEY": "AKIAIOSFODNN7EXAMPLE",
        "BEDROCK_ACCESS_KEY_SECRET": AWS_SECRET,
    },
}
BODY = b'{"model":"m","stream":true,"messages":[]}'
EVENT = b'data: {"x":1}\n\n'
ECHO = "quoted-by-the-upstream"


def forms(secret: bytes) -> set[bytes]:
    """How a secret might be written down. The secret may begin at any place of what base64 takes together."""
    found = {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        urllib.parse.quote_from_bytes(secret, "").encode(),
    }
    for before in range(3):
        # The characters that hold nothing but the secret's bits.
        first, end = -(-before * 8 // 6), (before + len(secret)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * before + secret)[first:end])
    return found


class Sinks:
    """Everything that came out, by where it came from."""

    def __init__(self, least: int = 60) -> None:
        self.found: list[tuple[str, bytes]] = []
        self._least = least

    def add(self, where: str, what: bytes | str) -> None:
        self.found.append((where, what if isinstance(what, bytes) else what.encode()))

    def check(self, secrets: dict[str, str | bytes]) -> None:
        assert len(self.found) > self._least
        for name, secret in secrets.items():
            for form in forms(secret if isinstance(secret, bytes) else secret.encode()):
                for where, what in self.found:
                    # The secret itself is not said: this text goes into a log of its own.
                    assert form not in what, f"{name} is in {where}"


async def answers(pair: Pair, sinks: Sinks) -> None:
    """One request for each class of error that a bridge has, with tokens and keys wherever a client can put them."""
    address, token = pair.bridged.addresses["http"], pair.token
    own = {"X-Coder-AI-Governance-Token": token, "Authorization": f"Bearer {PRESENTED}"}
    bearer = {"Authorization": f"Bearer {token}"}
    chat = "/openai/v1/chat/completions"
    requests = [
        ("wrong token", chat, {"Authorization": f"Bearer {token[:-1]}x"}, BODY),
        ("a provider's key as token", chat, {"Authorization": f"Bearer {CENTRAL}"}, BODY),
        ("unknown provider", "/nowhere/v1/chat/completions", bearer, BODY),
        ("unknown route", f"/openai/{token}", bearer, BODY),
        ("token in the query", f"/google/v1beta/models/m:generateContent?key={token}&x={PRESENTED}", {}, b"{"),
        ("token in a bad path", f"/openai/../{token}", bearer, BODY),
        ("not allowed", "/anthropic/v1/messages", own, BODY),
        ("bad body", chat, bearer, b'{"model": "' + PRESENTED.encode()),
        ("unreachable", "/unreachable/v1/chat/completions", bearer, BODY),
        ("bedrock", "/bedrock/v1/messages", bearer, BODY),
        ("presented", chat, own, BODY),
    ]
    for name, target, headers, body in requests:
        sinks.add(name, (await send(address, "POST", target, headers, body)).raw)
    for name, script in {
        "hang up": hang_up(),
        "cut": stream(EVENT, CUT),
        "garbage": raw(b"nonsense\r\n\r\n"),
        "echo": reply(500, b'{"error":"no"}'),
    }.items():
        pair.upstream.script(script)
        answer = await send(address, "POST", chat, bearer, BODY)
        sinks.add(f"upstream {name}", answer.raw)
    await quoted(pair, chat, bearer)
    # An upstream that quotes the key wherever it can: the one is refused, and the other is at its limit.
    for status, key in ((401, POOL[0]), (429, POOL[1]), (401, POOL[2])):
        error = dict.fromkeys(("type", "code", "status", "message", "param"), key)
        pair.upstream.script(reply(status, json.dumps({"error": error}).encode(), JSON))
    sinks.add("a pool", (await send(address, "POST", "/pool/v1/chat/completions", bearer, BODY)).raw)
    for name, head in {
        "a space in a name": f"X-Api Key: {token}",
        "a control character": f"Authorization: Bearer {token}\x00{PRESENTED}",
        "a bare line feed": f"Authorization: Bearer {token}\nX: {PRESENTED}",
        "a folded line": f"Authorization: Bearer\r\n {token}",
        "no colon": token,
        "a broken length": f"Content-Length: {token}",
        "a large field": f"X-Api-Key: {token}{'x' * 40_000}",
    }.items():
        sinks.add(name, await exchange(address, f"POST {chat} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode("latin-1")))
    sinks.add("a broken request line", await exchange(address, f"{token} {PRESENTED}\r\n\r\n".encode()))


async def quoted(pair: Pair, target: str, headers: dict[str, str]) -> None:
    """The upstream quotes the key: the client hears what it says, and the dump must not have it."""
    host, _, port = pair.bridged.addresses["http"].rpartition(":")
    coded = base64.b64encode(f"key={CENTRAL}".encode()).decode()
    said = json.dumps({"plain": CENTRAL, "coded": coded, "hex": CENTRAL.encode().hex()}).encode()
    pair.upstream.script(reply(200, said, [*JSON, ("X-Said", CENTRAL)]))
    assert CENTRAL.encode() in (await send(f"{host}:{port}", "POST", target, headers, BODY)).body
    # And in two pieces, of which the bridge has one before there is the other.
    gate, head, tail = asyncio.Event(), f'data: {{"{ECHO}":"{CENTRAL[:9]}', f'{CENTRAL[9:]}"}}\n\n'
    pair.upstream.script(stream(EVENT * 40 + head.encode(), gate, tail.encode() + EVENT * 40))
    async with raw_client(int(port)) as client:
        await client.send(request("POST", target, headers=list(headers.items()), body=BODY))
        await client.read_head()
        heard = b""
        while piece := await client.read_some():
            heard += piece
            if heard.startswith(EVENT * 40):
                gate.set()
    assert CENTRAL.encode() in heard


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


def commands(pair: Pair, sinks: Sinks) -> None:
    """Commands that are given a key and refused, and those that show things."""
    for words, key in (
        (("keys", "set", "openai"), OWN),
        (("keys", "set", "nowhere"), OWN),
        (("keys", "set", "openai", "--user", "ann"), OWN),
        (("keys", "set", "anthropic", "--user", "ann"), OWN),
        (("providers", "create", "p", "--type", "copilot", "--key-stdin"), OWN),
        (("providers", "create", "db", "--type", "openai", "--key-stdin"), OWN),
        (("keys", "add", "db"), ADDED),
        (("keys", "add", "db"), ADDED),
        (("keys", "add", "pool"), ADDED),
        (("providers", "list", "--json"), None),
        (("providers", "show", "openai", "--json"), None),
        (("keys", "list", "--user", "ann", "--json"), None),
        (("explain", "openai", "--user", "ann"), None),
        (("explain", "openai", "--user", "ann", "--json"), None),
        (("tokens", "list", "--json"), None),
        (("services", "list", "--json"), None),
    ):
        done = command(pair.folder, pair.credentiald, *words, key=key)
        sinks.add(" ".join(words), done.stdout + done.stderr)
    health(pair, sinks)
    shown = json.loads(pair.command("providers", "show", "db", "--json"))
    assert shown["central_key_set"] is True


def health(pair: Pair, sinks: Sinks) -> None:
    """What is shown of keys that were refused."""
    for words in (("health",), ("health", "pool"), ("health", "--json"), ("check", "pool"), ("show", "pool")):
        done = command(pair.folder, pair.credentiald, "providers", *words)
        sinks.add(" ".join(words), done.stdout + done.stderr)


async def statuses(pair: Pair, sinks: Sinks) -> None:
    """Refusals of credentiald as a program hears them, with all that travels beside them."""
    token, bad = pair.token, pair.token[:-1] + ("x" if pair.token[-1] != "x" else "y")
    material = provider_pb2.KeyMaterial(api_key=ADDED)
    pair_of_aws = provider_pb2.KeyMaterial(
        aws_access_key_pair=provider_pb2.AwsAccessKeyPair(access_key_id="AKIAX", secret_access_key=AWS_SECRET)
    )
    async with rpcs(pair.folder, pair.credentiald) as rpc:
        resolve, set_key = rpc.credentials.ResolveProvider, rpc.administered_keys.SetUserKey
        asks, sets = credential_service_pb2.ResolveProviderRequest, user_key_service_pb2.SetUserKeyRequest
        create, replace = rpc.admin.CreateProvider, rpc.admin.SetCentralKey
        replaces = admin_service_pb2.SetCentralKeyRequest
        for number, (call, message, caller) in enumerate(
            [
                (resolve, asks(provider="openai", access_token=token), bad),
                (resolve, asks(provider="openai", access_token=token), ""),
                (resolve, asks(provider="openai", access_token=token), token),
                (resolve, asks(provider="openai", access_token=bad), rpc.bridge_token),
                (resolve, asks(provider="openai", access_token=CENTRAL), rpc.bridge_token),
                (resolve, asks(provider="nowhere", access_token=token), rpc.bridge_token),
                (resolve, asks(provider="anthropic", access_token=token, presented_key=True), rpc.bridge_token),
                (resolve, asks(provider="anthropic", access_token=token, operation="x"), rpc.bridge_token),
                (resolve, asks(provider="pool", access_token=token, failed_credential_ids=["x"]), rpc.admin_token),
                (set_key, sets(provider="nowhere", user="ann", key=OWN), rpc.admin_token),
                (set_key, sets(provider="anthropic", user="ann", key=OWN), rpc.admin_token),
                (set_key, sets(provider="openai", user="nobody", key=OWN), rpc.admin_token),
                (set_key, sets(provider="openai", user="ann", key=OWN + "\n" + "x" * 20_000), rpc.admin_token),
                (create, provider_request("Not a name", material), rpc.admin_token),
                (create, provider_request("openai", material), rpc.admin_token),
                (create, provider_request("p", material, base_url=f"https://user:{ADDED}@host/"), rpc.admin_token),
                (create, provider_request("p", pair_of_aws), rpc.admin_token),
                (create, provider_request("p", material, type="copilot"), rpc.admin_token),
                (
                    replace,
                    replaces(provider="openai", central_key=material),
                    rpc.admin_token,
                ),
                (
                    replace,
                    replaces(provider="no", central_key=material),
                    rpc.bridge_token,
                ),
            ]
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(message, metadata=bearer(caller))
            error = refused.value
            told = [error.details(), error.debug_error_string(), repr(error), str(rpc_status.from_call(error))]
            beside = [*error.initial_metadata(), *error.trailing_metadata()]
            sinks.add(f"status {number}", "\n".join(map(str, told)))
            for name, value in beside:
                sinks.add(f"metadata {name} of status {number}", value)


def provider_request(
    name: str, material: provider_pb2.KeyMaterial, **fields: str
) -> admin_service_pb2.CreateProviderRequest:
    made = provider_pb2.Provider(name=name, **{"type": "openai", **fields})
    return admin_service_pb2.CreateProviderRequest(provider=made, central_key=material)


# What is there to hold secrets.
HOLDERS = {"credentiald.sealing", "credentiald.admin-token", "credentiald.bridge-token"}


async def test_no_secret_comes_out_anywhere(tmp_path):
    sinks = Sinks()
    with running_collector() as collector:
        environ = {"CREDENTIALD_LOG_LEVEL": "debug", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        dump = tmp_path / "dump"
        further = ("--log-level", "debug", "--dump-dir", str(dump))
        async with running_pair(tmp_path, PROVIDERS, *further, **environ) as pair:
            await asyncio.to_thread(commands, pair, sinks)
            await statuses(pair, sinks)
            await answers(pair, sinks)
            # What the bridge tells of keys is on its way.
            async with asyncio.timeout(10):
                while pair.credentiald.output.count("a key rests") < len(POOL):
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(health, pair, sinks)
            rest = command(pair.folder, pair.credentiald, "providers", "health", "pool").stdout
            assert rest.count(" resting until ") == len(POOL)
            for name, daemon in (("credentiald", pair.credentiald), ("bridged", pair.bridged)):
                base = f"http://{daemon.addresses['metrics']}"
                sinks.add(f"metrics of {name}", await asyncio.to_thread(fetched, f"{base}/metrics"))
                sinks.add(f"readiness of {name}", await asyncio.to_thread(fetched, f"{base}/readyz"))
            carried = [request for request in pair.upstream.requests if _carries(request, CENTRAL, OWN, PRESENTED)]
            # Records are on their way as well.
            await asyncio.to_thread(pair.bridged.stop)
            for words in (("records", "interceptions", "--json"), ("records", "sessions", "--json")):
                done = command(pair.folder, pair.credentiald, *words)
                sinks.add(" ".join(words), done.stdout + done.stderr)
            await asyncio.to_thread(pair.credentiald.stop, signal.SIGTERM)
            sinks.add("output of both daemons", pair.output)
            assert '"debug"' in pair.output
            secrets = secrets_of(tmp_path, pair)
    for file in sorted(tmp_path.rglob("*")):
        if file.is_file() and file.name not in HOLDERS:
            sinks.add(f"the file {file.name}", file.read_bytes())
            sinks.add(f"the name of {file.name}", str(file.relative_to(tmp_path)))
    sinks.add("spans", collector.raw)
    # Of each provider that was asked at all, the echoes of the upstream among it.
    assert {folder.name for folder in dump.iterdir()} == {"openai", "pool", "google", "unreachable", "bedrock"}
    assert any(file.name.endswith(".resp.txt") and ECHO.encode() in file.read_bytes() for file in dump.rglob("*.txt"))
    assert {"bridged", "credentiald"} <= {span.service for span in collector.spans}
    sinks.check(secrets)
    # The keys did go where they belong, so the search was not for something that never existed.
    assert carried


async def test_the_token_for_vault_comes_out_nowhere(tmp_path):
    sinks = Sinks(least=7)
    with serving_vault(FakeVault(token=VAULT_TOKEN)) as vault:
        environ = {
            "CREDENTIALD_LOG_LEVEL": "debug",
            "CREDENTIALD_SEALING_KEY_SOURCE": f"vault:{vault.address}/{vault.mount}/drawbridge",
            "CREDENTIALD_VAULT_TOKEN": VAULT_TOKEN,
        }
        async with running_pair(tmp_path, PROVIDERS, "--log-level", "debug", **environ) as pair:
            done = command(pair.folder, pair.credentiald, "sealing", "status", "--json")
            sinks.add("sealing status", done.stdout + done.stderr)
            addresses = pair.credentiald.addresses
            same = [part for flag, name in LISTENERS.items() for part in (flag, addresses[name])]
            pair.credentiald.stop()
            sinks.add("output of both daemons", pair.output)
            vault.denied = True
            again = credentiald(tmp_path, environ, *same)
            with keeping(*addresses.values()):
                daemon = await asyncio.to_thread(again.__enter__)
            try:
                await until(lambda: "denied" in daemon.output)
                address = pair.bridged.addresses["http"]
                headers = {"Authorization": f"Bearer {pair.token}"}
                sinks.add("a client", (await send(address, "POST", "/openai/v1/chat/completions", headers, BODY)).raw)
                for target in ("/readyz", "/metrics"):
                    sinks.add(target, (await send(daemon.addresses["metrics"], "GET", target)).raw)
            finally:
                await asyncio.to_thread(again.__exit__, None, None, None)
            sinks.add("output of the sealed one", daemon.output)
        assert vault.calls
        # Nor to whom only the database names: who can write to it is not trusted with keys.
        with serving_vault(FakeVault()) as theirs:
            with contextlib.closing(sqlite3.connect(tmp_path / "credentiald.db")) as conn, conn:
                conn.execute("UPDATE sealing_keys SET source = ?", (f"vault:{theirs.address}/transit/drawbridge",))
            with credentiald(tmp_path, environ) as daemon:
                await until(lambda: "the database names it and no setting does" in daemon.output)
                sinks.add("output of the one that was misled", daemon.output)
            assert theirs.asked == []
    for file in sorted(tmp_path.rglob("*")):
        if file.is_file() and file.name not in HOLDERS:
            sinks.add(f"the file {file.name}", file.read_bytes())
    sinks.check({"the token for Vault": VAULT_TOKEN})


def secrets_of(folder: Path, pair: Pair) -> dict[str, str | bytes]:
    """Every secret there is, by what it is."""
    keyid, _, sealing_key = (folder / "credentiald.sealing").read_text().strip().partition(":")
    assert keyid
    return {
        "the central key": CENTRAL,
        "a user's key": OWN,
        "a presented key": PRESENTED,
        "a pair of AWS": AWS_SECRET,
        "a key that was added": ADDED,
        **{f"key {number} of a pool": key for number, key in enumerate(POOL)},
        "a user's token": pair.token,
        "the administrator's token": (folder / "credentiald.admin-token").read_text().strip(),
        "the bridge's token": (folder / "credentiald.bridge-token").read_text().strip(),
        "the sealing key as written": sealing_key,
        "the sealing key": base64.b64decode(sealing_key),
    }


def _carries(request: Recorded, *keys: str) -> bool:
    return any(key.encode() in request.raw_head for key in keys)


HELD = "sk-canary-held-2c9f"


def values_with_secrets(tmp_path: Path) -> list[object]:
    """One value of each type that holds a secret, on either side."""
    secret, moment = Secret(HELD), datetime.now(UTC)
    key = Keyring.parse(f"k1:{base64.b64encode(HELD.encode().ljust(32, b'.')).decode()}")
    sealer = Sealer(key)
    material = model.ApiKeyMaterial(value=secret)
    return [
        secret,
        key,
        key.to_text(),
        sealer,
        DeploymentSecret(HELD.encode()),
        material,
        model.AwsKeyPairMaterial(access_key_id=secret, secret_access_key=secret, session_token=secret),
        sealer.seal_material(material, SealContext(purpose="p")),
        Question(provider="p", access_token=secret),
        bridged_model.ApiKey(value=secret),
        bridged_model.Bearer(value=secret),
        bridged_model.AwsKeys(access_key_id=secret, secret_access_key=secret, session_token=secret),
        bridged_model.PresentedKey(authorization=secret, x_api_key=secret, query_key=secret),
        ClientCredentials(token=secret, presented=None, query_without_key=""),
        Address(scheme="https", host="h", port=None, target="/", headers=(("x-api-key", HELD),)),
        Kept(
            message=HELD.encode(), before=HELD.encode(), between=HELD.encode(), receipt_part=b"", source="",
            decided=None, bedrock=None, revision=1, decide_time=moment, expire_time=moment,
        ),
    ]  # fmt: skip


def test_no_value_shows_the_secret_that_it_holds(tmp_path, caplog):
    for value in values_with_secrets(tmp_path):
        logging.getLogger("test").warning("%s %r", value, value, extra={"value": value})
        shown = [str(value), repr(value), f"{value}", f"{value!r}", f"{[value]}", json.dumps(value, default=str)]
        try:
            raise RuntimeError(value)
        except RuntimeError as error:
            shown += [repr(error), "".join(traceback.format_exception(error))]
        if not isinstance(value, Address | Kept):
            # These are put together for one request, and compared by nobody.
            with contextlib.suppress(TypeError):
                shown.append(repr(pickle.dumps(value)))
        shown += [json_line(record) + human_line(record) for record in caplog.records]
        for text in shown:
            assert HELD not in text, type(value).__name__
            assert not any(form in text.encode() for form in forms(HELD.encode())), type(value).__name__


def test_a_token_that_got_into_a_line_of_a_log_is_masked(caplog):
    token = f"dbu_{'a1B' * 16}x"
    try:
        raise RuntimeError(f"with {token}")
    except RuntimeError:
        logging.getLogger("test").exception("a %s", token, extra={"fact": {"token": [token]}})
    [record] = caplog.records
    for line in (json_line(record), human_line(record)):
        assert token[4:20] not in line
        assert line.count("Secret(…)") + line.count("Secret(\\u2026)") >= 3
