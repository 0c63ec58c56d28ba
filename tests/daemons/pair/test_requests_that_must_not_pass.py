"""Requests that must not pass: each a clear answer, none a hang or a 500. One pair for those that change nothing."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.chats import BODY, CHAT, PROVIDERS, chat
from tests.support.http import exchange, parse, send
from tests.support.pair import Pair, running_pair
from tests.support.rpc import rpcs

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with running_pair(tmp_path_factory.mktemp("pair"), PROVIDERS) as running:
        yield running


async def test_a_bridge_with_a_wrong_service_token_says_503_and_not_401(tmp_path: Path) -> None:
    async with running_pair(tmp_path, PROVIDERS) as pair:
        pair.command("services", "rotate", "bridge")
        answer = await chat(pair, pair.token)

        assert (answer.status, answer.header("X-Drawbridge-Error")) == (503, "SERVICE_TOKEN_INVALID")


async def test_a_token_that_is_revoked_is_refused_from_then_on(pair: Pair) -> None:
    async with rpcs(pair.folder, pair.credentiald) as rpc:
        _, token = await rpc.user("bob")
    assert (await chat(pair, token)).status == 200
    [listed] = json.loads(pair.command("tokens", "list", "--user", "bob", "--json"))
    pair.command("tokens", "revoke", listed["id"])
    answer = await chat(pair, token)

    assert (answer.status, answer.header("X-Drawbridge-Error")) == (401, "ACCESS_TOKEN_INVALID")


GOOD, NONE = "good", ""
BAD_REQUESTS = [
    # method, target, token, body, status, reason
    ("POST", CHAT, NONE, BODY, 401, "ACCESS_TOKEN_MISSING"),
    ("POST", CHAT, "sk-not-ours", BODY, 401, "ACCESS_TOKEN_INVALID"),
    ("POST", CHAT, GOOD, b"{", 400, "INVALID_BODY"),
    ("POST", CHAT, GOOD, b"[1]", 400, "INVALID_BODY"),
    ("POST", CHAT, GOOD, b'{"model":1}', 400, "INVALID_BODY"),
    ("POST", CHAT, GOOD, b'{"model":"\xff"}', 400, "INVALID_BODY"),
    ("POST", "/anthropic/v1/messages", GOOD, b"nonsense", 400, "INVALID_BODY"),
    ("GET", CHAT, GOOD, b"", 405, "METHOD_NOT_ALLOWED"),
    ("DELETE", "/anthropic/v1/messages", GOOD, b"", 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/nowhere/v1/chat/completions", GOOD, BODY, 404, "PROVIDER_NOT_FOUND"),
    ("POST", "/openai/v1/fine_tuning/jobs", GOOD, BODY, 404, "ROUTE_NOT_FOUND"),
    ("POST", "/anthropic/v1/chat/completions", GOOD, BODY, 404, "OPERATION_NOT_ALLOWED"),
    ("POST", "/openai/chat/completions", GOOD, BODY, 404, "OPERATION_NOT_ALLOWED"),
    ("POST", "/openai/v1/../v1/chat/completions", GOOD, BODY, 400, "INVALID_PATH"),
    ("POST", "/openai/v1/%2e%2e/chat/completions", GOOD, BODY, 400, "INVALID_PATH"),
    ("POST", "/openai/v1/.%2E/chat/completions", GOOD, BODY, 400, "INVALID_PATH"),
    ("GET", "/openai/v1/models/..%2Fadmin", GOOD, b"", 400, "INVALID_PATH"),
    ("POST", "/openai/v1%2Fchat/completions", GOOD, BODY, 404, "ROUTE_NOT_FOUND"),
    ("POST", "/Not_A_Name/v1/chat/completions", GOOD, BODY, 404, "ROUTE_NOT_FOUND"),
]


@pytest.mark.parametrize("prefix", ["", "/api/v2/aibridge"])
async def test_requests_that_must_not_pass(pair: Pair, prefix: str) -> None:
    sent = len(pair.upstream.requests)
    for method, target, token, body, status, reason in BAD_REQUESTS:
        headers = {"Authorization": f"Bearer {pair.token if token == GOOD else token}"} if token else {}
        answer = await send(pair.bridged.addresses["http"], method, prefix + target, headers, body)
        where = f"{method} {target}: {answer.status} {answer.body!r}"

        assert (answer.status, answer.header("X-Drawbridge-Error")) == (status, reason), where
        error = json.loads(answer.body)["error"]
        assert error["message"], where
        if target.startswith("/anthropic") and "messages" in target:
            assert json.loads(answer.body)["type"] == "error", where
        elif status != 404:
            assert error["code"] == reason.lower(), where
        for name in ("X-Interception-Id", "request-id", "x-request-id"):
            assert answer.header(name) == answer.header("X-Interception-Id") != "", where
    assert len(pair.upstream.requests) == sent


async def test_a_body_over_the_limit_is_413_whether_announced_or_not(pair: Pair) -> None:
    sent = len(pair.upstream.requests)
    address = pair.bridged.addresses["http"]
    headers = {"Authorization": f"Bearer {pair.token}"}
    size = 33 * 1024 * 1024
    announced = await send(address, "POST", CHAT, {**headers, "Content-Length": str(size)}, b" ")
    whole = await send(address, "POST", CHAT, headers, b" " * size, timeout_seconds=30)
    chunk = b"%x\r\n%b\r\n" % (1 << 20, b" " * (1 << 20))
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {pair.token}\r\n"
    raw = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 33
    chunked = parse(await exchange(address, raw, timeout_seconds=30))

    for answer in (announced, whole, chunked):
        assert (answer.status, answer.header("X-Drawbridge-Error")) == (413, "BODY_TOO_LARGE")
        assert json.loads(answer.body)["error"]["code"] == "body_too_large"
    assert len(pair.upstream.requests) == sent
