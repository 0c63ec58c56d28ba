"""Secret canaries through every class of error: none may appear in any log, answer, metric, command output or file.

Searched raw, in base64, in hex and percent-encoded. Logs of both daemons are at debug level.
"""

import asyncio
import base64
import json
import signal
import urllib.parse
import urllib.request

from tests.fakes.scripted_upstream import CUT, JSON, Recorded, hang_up, raw, reply, stream
from tests.support.http import exchange, send
from tests.support.pair import Pair, running_pair
from tests.support.processes import command

CENTRAL = "sk-canary-central-7d41f0"
OWN = "sk-canary-own-93b2aa"
PRESENTED = "sk-canary-presented-5c0e17"
POOL = ("sk-canary-pool-one-a81f", "sk-canary-pool-two-c93e", "sk-canary-pool-three-07bd")
ADDED = "sk-canary-added-1b6d22"
AWS_SECRET = "canaryAwsSecret/e81c+k"
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


def forms(secret: str) -> set[bytes]:
    """How a secret might be written down."""
    plain = secret.encode()
    padded = base64.b64encode(plain).rstrip(b"=")
    return {
        plain,
        # The last characters of base64 depend on what follows, so they are left out.
        padded[:-2],
        base64.urlsafe_b64encode(plain).rstrip(b"=")[:-2],
        plain.hex().encode(),
        plain.hex().upper().encode(),
        urllib.parse.quote(secret, safe="").encode(),
    }


class Sinks:
    """Everything that came out, by where it came from."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bytes]] = []

    def add(self, where: str, what: bytes | str) -> None:
        self.found.append((where, what if isinstance(what, bytes) else what.encode()))

    def check(self, secrets: list[str]) -> None:
        assert len(self.found) > 20
        for where, what in self.found:
            for number, secret in enumerate(secrets):
                # The secret itself is not said: this text goes into a log of its own.
                assert not any(form in what for form in forms(secret)), f"secret {number} is in {where}"


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


async def test_no_secret_comes_out_anywhere(tmp_path):
    sinks = Sinks()
    async with running_pair(tmp_path, PROVIDERS, "--log-level", "debug", CREDENTIALD_LOG_LEVEL="debug") as pair:
        await asyncio.to_thread(commands, pair, sinks)
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
        tokens = [(tmp_path / f"credentiald.{role}-token").read_text().strip() for role in ("admin", "bridge")] + [
            pair.token
        ]
        pair.bridged.stop()
        pair.credentiald.stop(signal.SIGTERM)
        sinks.add("output of both daemons", pair.output)
        assert '"debug"' in pair.output
        for file in tmp_path.glob("credentiald.db*"):
            sinks.add(f"the file {file.name}", file.read_bytes())
    sinks.check([CENTRAL, OWN, PRESENTED, AWS_SECRET, ADDED, *POOL, *tokens])
    # The keys did go where they belong, so the search was not for something that never existed.
    assert carried


def _carries(request: Recorded, *keys: str) -> bool:
    return any(key.encode() in request.raw_head for key in keys)
