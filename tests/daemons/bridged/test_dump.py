"""The API dump: what is in its files, who may read them, and that no request waits for one."""

import asyncio
import base64
import gzip
import json
import logging
import os
import stat
import urllib.parse
from pathlib import Path

import pytest
from drawbridge.v1 import credential_service_pb2 as pb

from tests.fakes.credentiald import USER_TOKEN, FakeCredentiald, pool, provider
from tests.fakes.scripted_upstream import CUT, STALL, Exchange, Script, ScriptedUpstream, hang_up, reply, stream
from tests.support.bridge import AUTH, RunningBridge, running_bridge, until
from tests.support.bridge_reports import sample
from tests.support.raw_http import raw_client, raw_exchange, request

BODY = b'{"model":"claude/fable","stream":false,"messages":[{"role":"user","content":"a prompt"}]}'
MESSAGES = "/anthropic/v1/messages"
EVENT = b'event: x\ndata: {"text":"an answer"}\n\n'


def files_in(folder: Path) -> dict[str, str]:
    """Texts by where they are, with times and ids taken out of the names."""
    found = {}
    for path in sorted(folder.rglob("*.txt")):
        millis, _, rest = path.name.partition("-")
        assert millis.isdigit()
        words = rest.partition(".")[0].split("-")
        again = words[-1] if len(words[-1]) < 3 else ""
        name = f"{path.parent.relative_to(folder)}/{again}.{path.name.partition('.')[2]}"
        assert name not in found
        found[name] = path.read_text()
    return found


async def test_a_turn_is_in_two_files_below_its_provider_and_its_model(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.default = reply(200, b'{"answer":  1}')
    headers = [AUTH, ("Content-Type", "application/json"), ("X-Unheard-Of", "a value"), ("User-Agent", "me")]
    async with running_bridge(credentiald, dump_dir=str(tmp_path / "dump")) as bridge:
        answer = await raw_exchange(bridge.port, request("POST", MESSAGES, headers=headers, body=BODY))
    assert answer.body == b'{"answer":  1}'
    files = files_in(tmp_path / "dump")
    assert sorted(files) == ["anthropic/claude-fable/.req.txt", "anthropic/claude-fable/.resp.txt"]
    asked, answered = files.values()
    interception_id = answer.header("x-interception-id")
    sent, received, body = asked.split("\n\n", 2)
    assert sent == "\n".join([
        f"# request as it was sent to http://127.0.0.1:{upstream.port}, attempt 1 of interception {interception_id}",
        "POST /v1/messages HTTP/1.1",
        "Accept-Encoding: identity",
        f"Content-Length: {len(BODY)}",
        "Content-Type: application/json",
        f"Host: 127.0.0.1:{upstream.port}",
        "User-Agent: me",
        "x-api-key: ***",
        "X-Unheard-Of: ***",
    ])  # fmt: skip
    assert received.splitlines()[:3] == [
        "# request as it was received", "POST /anthropic/v1/messages HTTP/1.1", "Authorization: ***"
    ]  # fmt: skip
    title, _, text = body.partition("\n")
    assert title == "# body as it was sent, its JSON made readable here"
    assert json.loads(text) == json.loads(BODY)
    assert '\n      "content": "a prompt"\n' in text
    assert answered == "\n".join([
        f"# answer of the upstream, attempt 1 of interception {interception_id}",
        "HTTP/1.1 200",
        "Content-Length: 14",
        "Content-Type: application/json",
        "",
        "# body as it came, its JSON made readable here",
        "{",
        '  "answer": 1',
        "}",
        "# complete: 14 bytes of body",
        "",
    ])  # fmt: skip


async def test_only_the_owner_may_read_any_of_it(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        async with running_bridge(credentiald, dump_dir=str(tmp_path / "dump")) as bridge:
            await raw_exchange(bridge.port, request("POST", MESSAGES, headers=[AUTH], body=BODY))
    finally:
        os.umask(before)
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "dump").rglob("*")}
    assert modes == {True: 0o700, False: 0o600}
    assert stat.S_IMODE((tmp_path / "dump").stat().st_mode) == 0o700


async def test_a_stream_is_in_its_file_while_it_runs_and_says_how_it_ended(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    upstream.script(stream(EVENT * 40, go_on, EVENT, CUT))
    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge, raw_client(bridge.port) as client:
        await client.send(request("POST", MESSAGES, headers=[AUTH], body=BODY))
        await client.read_head()
        answered = "anthropic/claude-fable/.resp.txt"
        await until(lambda: files_in(tmp_path).get(answered, "").count("an answer") > 20)
        go_on.set()
        await until(lambda: "# broke off" in files_in(tmp_path)[answered])
    text = files_in(tmp_path)[answered]
    assert text.count("an answer") == 41
    assert text.endswith(
        f"# broke off after {41 * len(EVENT)} bytes: it closed the connection in the middle of its answer\n"
    )


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("target", [MESSAGES, "/openai/v1/embeddings"])
async def test_what_was_asked_is_in_its_file_before_there_is_an_answer(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path, target: str, pieces: int
) -> None:
    go_on = asyncio.Event()
    upstream.script(stream(go_on, EVENT))

    def texts(ending: str) -> str:
        return "".join(path.read_text() for path in tmp_path.rglob(f"*{ending}.txt"))

    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge, raw_client(bridge.port) as client:
        data = request("POST", target, headers=[AUTH], body=BODY)
        await client.send(data[:-20] if pieces > 1 else data)
        if pieces > 1:
            await until(lambda: target == MESSAGES or bool(texts("req")))
            await client.send(data[-20:])
        await until(lambda: texts("req").endswith("}\n"))
        before = texts("req")
        assert "a prompt" in before
        go_on.set()
        await client.read_answer()
        await until(lambda: "# complete" in texts("resp"))
    assert texts("req") == before


@pytest.mark.parametrize(
    ("script", "said"), [(hang_up(), "it closed the connection"), (stream(EVENT, STALL), "CLIENT_GONE")]
)
async def test_an_attempt_without_a_whole_answer_says_why(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path, script: Script, said: str
) -> None:
    upstream.script(script)
    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge, raw_client(bridge.port) as client:
        await client.send(request("POST", MESSAGES, headers=[AUTH], body=BODY))
        await client.read_head()
    assert any(said in text for name, text in files_in(tmp_path).items() if not name.endswith(".req.txt"))


async def test_what_is_passed_through_is_in_a_folder_of_its_own_with_what_was_streamed(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge:
        await raw_exchange(
            bridge.port, request("POST", "/openai/v1/embeddings?x=1", headers=[AUTH], body=b'{"input":"words"}')
        )
    names = [path.name for path in sorted((tmp_path / "openai" / "passthrough").iterdir())]
    assert [name.partition("-v1-embeddings-")[1] for name in names] == ["-v1-embeddings-"] * 2
    assert '"input": "words"' in (tmp_path / "openai" / "passthrough" / names[0]).read_text()


async def test_each_key_and_each_provider_that_is_tried_has_files_of_its_own(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    answers = pool(2, "openai", upstream.url)
    for answer in answers:
        answer.provider.fallback_provider = "spare"
    credentiald.pools["openai"] = answers
    credentiald.providers["spare"] = provider("openai", upstream.url, name="spare", api_key="sk-spare-key")
    upstream.script(reply(429, b'{"first":1}'), reply(503, b'{"second":1}'), reply(200, b'{"third":1}'))
    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge:
        body = b'{"model":"m","messages":[]}'
        answer = await raw_exchange(
            bridge.port, request("POST", "/openai/v1/chat/completions", headers=[AUTH], body=body)
        )
    assert answer.body == b'{"third":1}'
    files = files_in(tmp_path)
    answers = [name for name in files if name.endswith("resp.txt")]
    assert answers == ["openai/m/.resp.txt", "openai/m/2.resp.txt", "spare/m/3.resp.txt"]
    assert '"first": 1' in files["openai/m/.resp.txt"]
    assert '"second": 1' in files["openai/m/2.resp.txt"]
    assert '"third": 1' in files["spare/m/3.resp.txt"]
    assert "attempt 3 of" in files["spare/m/3.req.txt"]


@pytest.mark.parametrize("status", [200, 429])
async def test_an_answer_of_which_others_let_go_at_its_head_is_written_to_its_end(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path, status: int
) -> None:
    credentiald.pools["openai"] = pool(2, "openai", upstream.url)
    # More than is held back of an answer that may be about a key.
    large = b'{"error":"' + b"y" * 70_000
    upstream.default = stream(large, b'","last":"piece"}', status=status, headers=[("Content-Type", "text/plain")])
    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge:
        body = b'{"model":"m","stream":true}'
        asked = request("POST", "/openai/v1/chat/completions", headers=[AUTH], body=body)
        assert (await raw_exchange(bridge.port, asked)).status == status
    text = files_in(tmp_path)["openai/m/.resp.txt"]
    assert f'","last":"piece"}}\n# complete: {len(large) + 17} bytes of body' in text


async def test_a_compressed_answer_is_written_decoded_and_one_that_nobody_can_read_is_not(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    coded = [("Content-Type", "text/plain"), ("Content-Encoding", "gzip")]
    unknown = [("Content-Type", "text/plain"), ("Content-Encoding", "secret-coding")]
    upstream.script(
        reply(200, gzip.compress(b"the key is sk-upstream-key, twice: sk-upstream-key"), coded),
        reply(200, b"encoded", unknown),
    )
    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge:
        for model in (b'{"model":"a"}', b'{"model":"b"}'):
            await raw_exchange(bridge.port, request("POST", MESSAGES, headers=[AUTH], body=model))
    files = files_in(tmp_path)
    assert "# body as it came, decoded from gzip\nthe key is ***, twice: ***\n" in files["anthropic/a/.resp.txt"]
    assert "encoded" not in files["anthropic/b/.resp.txt"].replace("secret-coding", "")
    assert "cannot be read" in files["anthropic/b/.resp.txt"]


# -- secrets -----------------------------------------------------------------------------------------------------------

CENTRAL = "sk-canary/central+7d41f0"
PRESENTED = "canary-own-key-93b2aa/x"
AWS_ID, AWS_SECRET, AWS_SESSION = "ASIACANARY7EXAMPLE12", "canaryAwsSecret/e81c+k", "canary-session/" + "Tok+en/" * 150
COOKIE = "session=canary-cookie-5c0e17"
OTHER = "canary-in-a-header-of-no-list"
SECRETS = (USER_TOKEN, CENTRAL, PRESENTED, AWS_ID, AWS_SECRET, AWS_SESSION, "canary-cookie-5c0e17", OTHER)


def forms(secret: str) -> set[bytes]:
    """How a secret might be written down; of base64 what does not depend on what stands around it."""
    plain = secret.encode()
    found = {plain, plain.hex().encode(), plain.hex().upper().encode(), urllib.parse.quote(secret, safe="").encode()}
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"x" * before + plain)[-(-8 * before // 6) : 8 * (before + len(plain)) // 6])
    return found


def echo(*, piece_bytes: int) -> Script:
    """An upstream that tells all that it was told, in every form, in pieces of a stream."""

    async def script(exchange: Exchange) -> None:
        told = exchange.request.raw_head + exchange.request.body
        texts = [
            told,
            base64.b64encode(told),
            told.hex().encode(),
            urllib.parse.quote_from_bytes(told, safe="").encode(),
        ]
        texts.append(json.dumps(told.decode("latin-1")).encode())
        said = b"\n".join(texts)
        exchange.send_head(200, [("Content-Type", "text/event-stream"), ("Set-Cookie", COOKIE)], chunked=True)
        for start in range(0, len(said), piece_bytes):
            exchange.send(said[start : start + piece_bytes])
            await exchange.drain()
        exchange.end()

    return script


def everywhere(token: str) -> list[tuple[str, str]]:
    return [("Cookie", COOKIE), ("X-Custom", OTHER), ("X-Forwarded-Thing", token), ("User-Agent", f"agent {token}")]


GOVERNANCE = ("X-Coder-AI-Governance-Token", USER_TOKEN)
TURN = json.dumps({
    "model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": f"a prompt with {USER_TOKEN}"}]
}).encode()  # fmt: skip
CASES = [
    ("anthropic", "POST", "/v1/messages", [AUTH]),
    ("anthropic", "POST", f"/v1/messages?beta=true&x={USER_TOKEN}", [("X-Api-Key", USER_TOKEN)]),
    ("anthropic", "GET", f"/v1/models?limit=1&a={PRESENTED}", [AUTH]),
    ("openai", "POST", "/v1/chat/completions", [AUTH]),
    ("openai", "POST", "/v1/responses", [AUTH]),
    ("openai", "POST", "/v1/embeddings", [AUTH]),
    ("openai", "GET", f"/v1/models/{USER_TOKEN}", [AUTH]),
    ("azure", "POST", "/v1/chat/completions", [("api-key", USER_TOKEN)]),
    ("google", "POST", f"/v1beta/models/g:generateContent?key={USER_TOKEN}", []),
    ("google", "POST", f"/v1beta/models/g:streamGenerateContent?alt=sse&key={USER_TOKEN}", []),
    ("google", "POST", "/v1beta/models/g:generateContent", [("x-goog-api-key", USER_TOKEN)]),
    ("own", "POST", "/v1/chat/completions", [GOVERNANCE, ("Authorization", f"Bearer {PRESENTED}")]),
    ("own-google", "POST", f"/v1beta/models/g:generateContent?key={PRESENTED}", [GOVERNANCE]),
    ("bedrock", "POST", "/v1/messages", [AUTH]),
    ("bedrock", "POST", f"/model/{USER_TOKEN}/invoke", [AUTH]),
    ("bearer", "POST", "/v1/messages", [AUTH]),
]


def bedrock(upstream: ScriptedUpstream, *, bearer: str = "") -> pb.ResolveProviderResponse:
    answer = provider("bedrock", upstream.url, bearer=bearer)
    answer.provider.bedrock.region = "us-west-2"
    if not bearer:
        keys = answer.credential.aws_credentials
        keys.access_key_id, keys.secret_access_key, keys.session_token = AWS_ID, AWS_SECRET, AWS_SESSION
    return answer


@pytest.mark.parametrize("piece_bytes", [7, 100_000])
async def test_no_secret_is_in_any_file_in_any_form_whatever_client_and_upstream_say(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path, piece_bytes: int
) -> None:
    for name in ("anthropic", "openai", "google", "azure"):
        credentiald.providers[name] = provider(name, upstream.url, api_key=CENTRAL)
    credentiald.providers["own"] = provider("openai", upstream.url, presented=True)
    credentiald.providers["own-google"] = provider("google", upstream.url, presented=True)
    credentiald.providers["bedrock"] = bedrock(upstream)
    credentiald.providers["bearer"] = bedrock(upstream, bearer=CENTRAL)
    upstream.default = echo(piece_bytes=piece_bytes)
    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge:
        for name, method, path, headers in CASES:
            body = TURN if method == "POST" else b""
            asked = request(method, f"/{name}{path}", headers=[*headers, *everywhere(USER_TOKEN)], body=body)
            await raw_exchange(bridge.port, asked)
    assert len(upstream.requests) == len(CASES)
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) == 2 * len(CASES)
    signatures = [one.header("authorization") or "" for one in upstream.requests]
    signatures = [one.partition("Signature=")[2] for one in signatures if "Signature=" in one]
    assert len(signatures) == 2
    for path in found:
        # The secrets themselves are not said: this text goes into a log of its own.
        name, text = str(path).encode(), path.read_bytes()
        # What the upstream told was written, in each of its forms.
        assert text.count(b"***") > (5 if b"answer of the upstream" in text else 2)
        for number, secret in enumerate((*SECRETS, *signatures)):
            there = [form for form in forms(secret) if form in name or form in text]
            assert not there, f"secret {number} is in {path.name}"


async def test_what_another_attempt_went_out_with_is_no_more_in_the_files_than_its_own(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    answers = pool(2, "openai", upstream.url)
    for number, answer in enumerate(answers):
        answer.credential.api_key.value = f"pool-canary-{number}"
    credentiald.pools["openai"] = answers
    quoted = b'{"error":"neither pool-canary-0 nor pool-canary-1"}'
    upstream.script(reply(429, b'{"error":"not pool-canary-0"}'), reply(200, quoted))
    async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge:
        await raw_exchange(bridge.port, request("POST", "/openai/v1/chat/completions", headers=[AUTH], body=TURN))
    files = files_in(tmp_path)
    assert len(files) == 4
    assert "neither *** nor ***" in files["openai/m/2.resp.txt"]
    assert not any("pool-canary" in text for text in files.values())


# -- trouble -----------------------------------------------------------------------------------------------------------


async def asks(bridge: RunningBridge, model: str = "m") -> None:
    body = json.dumps({"model": model}).encode()
    answer = await raw_exchange(bridge.port, request("POST", MESSAGES, headers=[AUTH], body=body))
    assert (answer.status, answer.complete) == (200, True)


@pytest.mark.parametrize("model", ["../../../up", "..", "/etc/passwd", "a/../../b", "\u0000", ".hidden", "x" * 250, ""])
async def test_no_model_leads_out_of_the_folder(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path, model: str
) -> None:
    async with running_bridge(credentiald, dump_dir=str(tmp_path / "dump")) as bridge:
        await asks(bridge, model)
    assert [path.name for path in tmp_path.iterdir()] == ["dump"]
    (folder,) = (tmp_path / "dump" / "anthropic").iterdir()
    assert len(list(folder.iterdir())) == 2
    assert not folder.name.startswith(".")
    assert len(folder.name) < 100


@pytest.mark.parametrize("makes", ["a link", "a file"])
async def test_what_is_in_the_way_is_not_followed_and_costs_the_dump_and_not_the_request(
    credentiald: FakeCredentiald,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    makes: str,
) -> None:
    elsewhere, dump = tmp_path / "elsewhere", tmp_path / "dump"
    elsewhere.mkdir()
    dump.mkdir(mode=0o700)
    if makes == "a link":
        (dump / "anthropic").symlink_to(elsewhere)
    else:
        (dump / "anthropic").write_text("")
    with caplog.at_level(logging.WARNING):
        async with running_bridge(credentiald, dump_dir=str(dump)) as bridge:
            await asks(bridge)
            await asks(bridge)
        assert sample(bridge.metrics.registry, "bridged_dump_dropped_total", reason="disk") == 2
    assert list(elsewhere.iterdir()) == []
    # Not one line a request.
    assert [one.levelname for one in caplog.records if "dumps of requests are dropped" in one.getMessage()] == [
        "WARNING"
    ]


async def test_what_the_disk_does_not_take_is_dropped_and_counted_and_the_request_goes_on(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.default = reply(200, b"x" * 300_000)
    async with running_bridge(credentiald, dump_dir=str(tmp_path), dump_queue_bytes=200_000) as bridge:
        await asks(bridge)
        assert sample(bridge.metrics.registry, "bridged_dump_dropped_total", reason="queue") == 1
    (text,) = [text for name, text in files_in(tmp_path).items() if "resp" in name]
    assert "bytes are not here: they came faster than they could be written" in text
    assert text.count("x") < 200_000


async def test_heads_that_wait_for_the_disk_count_like_bodies(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.default = reply(200, b"{}", [("X-Long", "x" * 12_000)])
    async with running_bridge(credentiald, dump_dir=str(tmp_path), dump_queue_bytes=10_000) as bridge:
        await asks(bridge)
        assert sample(bridge.metrics.registry, "bridged_dump_dropped_total", reason="queue") == 1
        long = request("POST", MESSAGES, headers=[AUTH, ("X-Long", "x" * 12_000)], body=BODY)
        await raw_exchange(bridge.port, long)
        assert sample(bridge.metrics.registry, "bridged_dump_dropped_total", reason="queue") == 2


async def test_without_a_folder_nothing_is_written_and_nothing_looks_at_calls(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    async with running_bridge(credentiald) as bridge:
        await asks(bridge)
        assert not bridge.bridge.watches_calls
        assert sample(bridge.metrics.registry, "bridged_dump_enabled") == 0


async def test_that_there_is_a_dump_is_in_the_log_and_in_the_metrics(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with running_bridge(credentiald, dump_dir=str(tmp_path)) as bridge:
            await asks(bridge)
            registry = bridge.metrics.registry
            assert sample(registry, "bridged_dump_enabled") == 1
            await until(lambda: sample(registry, "bridged_dump_files_total") == 2)
            await until(lambda: sample(registry, "bridged_dump_bytes_total") > 300)
    assert any("the API dump is on" in one.getMessage() for one in caplog.records)
