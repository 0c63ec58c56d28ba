"""What the bridge refuses by itself, and how a refusal looks in each API's shape."""

import logging
import re
import uuid
from typing import Any

import grpc
import pytest

from tests.fakes.credentiald import FakeCredentiald, Refuse
from tests.fakes.scripted_upstream import ScriptedUpstream, hang_up, raw, silence
from tests.support.bridge import AUTH, running_bridge
from tests.support.raw_http import Pairs, RawAnswer, raw_client, raw_exchange, request

CANARY = "dbu_CANARYcanaryCANARYcanaryCANARYcanaryCANARYcanary1"
JSON_BODY = b'{"model":"m"}'


def anthropic_shape(answer: RawAnswer) -> bool:
    body: dict[str, Any] = answer.json()
    return body["type"] == "error" and set(body["error"]) == {"type", "message"} and "request_id" in body


def openai_shape(answer: RawAnswer) -> bool:
    error = answer.json()["error"]
    return {"message", "type", "param", "code"} <= set(error) and error["code"] == str(answer.error).lower()


def google_shape(answer: RawAnswer) -> bool:
    error = answer.json()["error"]
    return error["code"] == answer.status and {"message", "status", "details"} <= set(error)


SHAPES = [
    ("/anthropic/v1/messages", JSON_BODY, anthropic_shape),
    ("/openai/v1/chat/completions", JSON_BODY, openai_shape),
    ("/openai/v1/responses", JSON_BODY, openai_shape),
    ("/google/v1beta/models/g:generateContent", b"{}", google_shape),
]
CLASSES = [
    # reason, status, Retry-After, what brings it about
    ("ACCESS_TOKEN_MISSING", 401, None),
    ("ACCESS_TOKEN_INVALID", 401, None),
    ("PROVIDER_NOT_FOUND", 404, None),
    ("OPERATION_NOT_ALLOWED", 404, None),
    ("PROVIDER_DISABLED", 403, None),
    ("USER_KEY_REQUIRED", 403, None),
    ("CENTRAL_KEY_MISSING", 503, None),
    ("SERVICE_TOKEN_INVALID", 503, "1"),
    ("STORE_UNAVAILABLE", 503, "5"),
    ("KEY_POOL_EXHAUSTED", 429, "17"),
    ("CREDENTIALD_UNREACHABLE", 503, "1"),
    ("UPSTREAM_UNREACHABLE", 502, None),
    ("UPSTREAM_TIMEOUT", 504, None),
    ("BODY_TOO_LARGE", 413, None),
    ("UPGRADE_NOT_SUPPORTED", 426, None),
    ("METHOD_NOT_ALLOWED", 405, None),
    ("INVALID_PATH", 400, None),
]
CODES = {
    "ACCESS_TOKEN_INVALID": grpc.StatusCode.UNAUTHENTICATED,
    "PROVIDER_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "OPERATION_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "PROVIDER_DISABLED": grpc.StatusCode.FAILED_PRECONDITION,
    "USER_KEY_REQUIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "CENTRAL_KEY_MISSING": grpc.StatusCode.FAILED_PRECONDITION,
    "SERVICE_TOKEN_INVALID": grpc.StatusCode.UNAUTHENTICATED,
    "STORE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "KEY_POOL_EXHAUSTED": grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def bring_about(
    reason: str, target: str, body: bytes, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> bytes:
    """A request that meets this refusal."""
    method, headers = "POST", [AUTH]
    if reason in CODES:
        wait = 17 if reason == "KEY_POOL_EXHAUSTED" else None
        credentiald.refuse = Refuse(
            code=CODES[reason], reason=reason, message="words of credentiald", retry_seconds=wait
        )
    elif reason == "CREDENTIALD_UNREACHABLE":
        # A status without our ErrorInfo comes from the transport or a proxy: trouble, whatever its code says.
        credentiald.refuse = Refuse(code=grpc.StatusCode.UNAUTHENTICATED, message="a proxy's words")
    elif reason == "UPSTREAM_UNREACHABLE":
        upstream.script(hang_up())
    elif reason == "UPSTREAM_TIMEOUT":
        upstream.script(silence())
    elif reason == "BODY_TOO_LARGE":
        body = b"x" * 2000
    elif reason == "UPGRADE_NOT_SUPPORTED":
        headers += [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    elif reason == "METHOD_NOT_ALLOWED":
        method = "PUT"
    elif reason == "INVALID_PATH":
        target += "/%2e%2e/x"
    elif reason == "ACCESS_TOKEN_MISSING":
        headers = []
    return request(method, target, headers=headers, body=body)


@pytest.mark.parametrize(("reason", "status", "retry_after"), CLASSES)
@pytest.mark.parametrize(("target", "body", "shape"), SHAPES)
async def test_each_refusal_has_the_shape_of_the_routes_api(
    credentiald: FakeCredentiald,
    upstream: ScriptedUpstream,
    target: str,
    body: bytes,
    shape: Any,
    reason: str,
    status: int,
    retry_after: str | None,
) -> None:
    sent = bring_about(reason, target, body, credentiald, upstream)
    # The time-out is that of one of them: the others must not meet it on a busy machine.
    first_byte_seconds = 0.05 if reason == "UPSTREAM_TIMEOUT" else 5.0
    async with running_bridge(
        credentiald, max_body_bytes=1000, first_byte_timeout_seconds=first_byte_seconds
    ) as bridge:
        answer = await raw_exchange(bridge.port, sent)
    assert (answer.status, answer.error, answer.header("retry-after")) == (status, reason, retry_after)
    assert shape(answer), answer.body
    interception_id = answer.header("x-interception-id") or ""
    assert uuid.UUID(interception_id).version == 7
    assert answer.header("request-id") == answer.header("x-request-id") == interception_id
    assert answer.header("content-type") == "application/json"


async def test_an_upgrade_is_answered_with_an_upgrade_header(credentiald: FakeCredentiald) -> None:
    headers = [AUTH, ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("GET", "/openai/v1/responses", headers=headers))
    assert (answer.status, answer.header("upgrade")) == (426, "HTTP/1.1")
    assert answer.header("connection") == "Upgrade, close"
    assert credentiald.resolves == []


async def test_a_wrong_method_is_told_the_right_ones(credentiald: FakeCredentiald) -> None:
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("GET", "/anthropic/v1/messages", headers=[AUTH]))
    assert (answer.status, answer.header("allow")) == (405, "POST")


@pytest.mark.parametrize("target", ["/anthropic", "/anthropic/", "/api/v2/aibridge/anthropic", "/unknown-yet/"])
async def test_a_probe_with_head_is_answered_without_asking_anyone(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, target: str
) -> None:
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("HEAD", target))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("x-interception-id")
    assert (credentiald.resolves, upstream.requests) == ([], [])


@pytest.mark.parametrize(
    "target",
    ["/", "/anthropic", "/anthropic/v2/nothing", "/openai/v1/files", "/anthropic/v1/messages%2F..", "/v1/models"],
)
async def test_a_path_that_is_not_forwarded_is_refused_by_the_bridge_alone(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, target: str
) -> None:
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("GET", target, headers=[AUTH]))
    assert answer.status in (400, 404)
    assert openai_shape(answer) or anthropic_shape(answer)
    assert (credentiald.resolves, upstream.requests) == ([], [])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":1}', b'{"model":"\xff"}', b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_400(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, body: bytes
) -> None:
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("POST", "/openai/v1/responses", headers=[AUTH], body=body))
    assert (answer.status, answer.error) == (400, "INVALID_BODY")
    assert (credentiald.resolves, upstream.requests) == ([], [])


async def test_a_declared_body_over_the_limit_is_refused_unread(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    head = request("POST", "/anthropic/v1/messages", headers=[AUTH, ("Content-Length", "34603008")])
    async with running_bridge(credentiald, max_body_bytes=32 * 1024 * 1024) as bridge:
        answer = await raw_exchange(bridge.port, head)
    assert (answer.status, answer.error, answer.header("connection")) == (413, "BODY_TOO_LARGE", "close")
    assert upstream.requests == []


@pytest.mark.parametrize("target", ["/anthropic/v1/messages", "/anthropic/v1/messages/count_tokens"])
async def test_a_chunked_body_over_the_limit_is_refused_while_it_comes_and_the_client_gets_to_read_why(
    credentiald: FakeCredentiald, target: str
) -> None:
    head = request("POST", target, headers=[AUTH, ("Transfer-Encoding", "chunked")])
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with running_bridge(credentiald, max_body_bytes=100_000) as bridge, raw_client(bridge.port) as client:
        await client.send(head + chunk * 40 + b"0\r\n\r\n")
        answer = await client.read_answer()
        assert (answer.status, answer.error) == (413, "BODY_TOO_LARGE")
        assert await client.read_to_end() == b""


async def test_a_body_of_exactly_the_limit_passes(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    body = b'{"model":"m"}'.ljust(1000)
    async with running_bridge(credentiald, max_body_bytes=1000) as bridge:
        answer = await raw_exchange(bridge.port, request("POST", "/openai/v1/responses", headers=[AUTH], body=body))
    assert (answer.status, upstream.requests[0].body) == (200, body)


async def test_a_body_that_stops_arriving_is_408(credentiald: FakeCredentiald) -> None:
    head = request("POST", "/openai/v1/responses", headers=[AUTH, ("Content-Length", "10")])
    async with running_bridge(credentiald, idle_timeout_seconds=0.1) as bridge:
        answer = await raw_exchange(bridge.port, head + b"12345")
    assert (answer.status, answer.error) == (408, "REQUEST_TIMEOUT")


async def test_a_client_that_expects_100_is_told_to_go_on_only_if_the_body_is_wanted(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    expect = ("Expect", "100-continue")
    async with running_bridge(credentiald, max_body_bytes=1000) as bridge:
        async with raw_client(bridge.port) as client:
            await client.send(
                request("POST", "/openai/v1/responses", headers=[AUTH, expect, ("Content-Length", str(len(JSON_BODY)))])
            )
            assert (await client.read_head()).status == 100
            await client.send(JSON_BODY)
            assert (await client.read_answer()).status == 200
        async with raw_client(bridge.port) as client:
            await client.send(
                request("POST", "/openai/v1/responses", headers=[AUTH, expect, ("Content-Length", "5000")])
            )
            assert (await client.read_head()).status == 413
    assert upstream.requests[0].header("expect") is None


MALFORMED = [
    # name, bytes, status
    ("a space in a header's name", f"GET /anthropic/v1/models HTTP/1.1\r\nHost: x\r\nX-Api Key: {CANARY}\r\n\r\n", 400),
    ("a NUL in a token", f"GET /anthropic/v1/models HTTP/1.1\r\nHost: x\r\nX-Api-Key: {CANARY}\0\r\n\r\n", 400),
    ("a bare CR in a token", f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARY}\rx\r\n\r\n", 400),
    ("no colon", f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization {CANARY}\r\n\r\n", 400),
    ("a folded header", f"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n {CANARY}\r\n\r\n", 400),
    ("two lengths", f"POST /{CANARY} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
    ("no HTTP at all", f"{CANARY}\r\n\r\n", 400),
    ("HTTP/0.9", f"GET /{CANARY}\r\n\r\n", 400),
    ("no host", f"GET /{CANARY} HTTP/1.1\r\n\r\n", 400),
    ("a proxy's target", f"GET http://evil.example/{CANARY} HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("CONNECT", f"CONNECT {CANARY}.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("another coding", f"POST / HTTP/1.1\r\nHost: x\r\nX: {CANARY}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
    ("a long field", f"GET / HTTP/1.1\r\nHost: x\r\nX: {CANARY * 700}\r\n\r\n", 431),
    ("many fields", "GET / HTTP/1.1\r\nHost: x\r\n" + f"X: {CANARY}\r\n" * 300 + "\r\n", 431),
    ("a long head", "GET / HTTP/1.1\r\nHost: x\r\n" + f"X: {CANARY * 100}\r\n" * 20 + "\r\n", 431),
    ("a long target", f"GET /{CANARY * 700} HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    ("a broken chunk", f"POST /openai/v1/responses HTTP/1.1\r\nHost: x\r\nX-Api-Key: {CANARY}\r\n"
     f"Transfer-Encoding: chunked\r\n\r\n{CANARY}\r\n", 400),
    ("a token in the path", f"GET /openai/v1/{CANARY} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {CANARY}\r\n\r\n", 404),
    ("bad JSON", f"POST /openai/v1/responses HTTP/1.1\r\nHost: x\r\nX-Api-Key: {CANARY}\r\nContent-Length: 60\r\n\r\n"
     + f'{{"{CANARY}'.ljust(60), 400),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
async def test_a_malformed_request_is_refused_and_nothing_of_it_is_answered_or_logged(
    credentiald: FakeCredentiald, caplog: pytest.LogCaptureFixture, data: str, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(data.encode("latin-1"))
        answer = await client.read_answer()
    assert answer.status == status
    assert answer.error in {"INVALID_REQUEST", "INVALID_PATH", "HEAD_TOO_LARGE", "ROUTE_NOT_FOUND", "INVALID_BODY"}
    assert uuid.UUID(answer.header("x-interception-id")).version == 7
    assert b"CANARY" not in answer.raw_head + answer.body
    logged = "\n".join(str(record.__dict__) for record in caplog.records)
    assert "CANARY" not in logged
    assert "aiohttp" not in {record.name.split(".")[0] for record in caplog.records}


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Sk Upstream: sk-upstream-key\r\n\r\n",
    ],
)
async def test_an_answer_that_is_no_http_is_502_and_not_quoted(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    upstream.default = raw(answer)
    async with running_bridge(credentiald) as bridge:
        got = await raw_exchange(bridge.port, request("GET", "/openai/v1/models", headers=[AUTH]))
    assert (got.status, got.error) == (502, "UPSTREAM_UNREACHABLE")
    assert not re.search(rb"sk-upstream|garbage", got.body)
    assert "sk-upstream-key" not in "".join(str(record.__dict__) for record in caplog.records)


async def test_an_upstream_that_is_not_there_is_502(credentiald: FakeCredentiald) -> None:
    credentiald.providers["openai"].provider.base_url = "http://127.0.0.1:1/v1/"
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("GET", "/openai/v1/models", headers=[AUTH]))
    assert (answer.status, answer.error) == (502, "UPSTREAM_UNREACHABLE")
    assert "127.0.0.1" not in answer.body.decode()


@pytest.mark.parametrize(
    "headers", [[("Authorization", "Bearer a b")], [("Authorization", "Basic x")], [("X-Api-Key", " ")]]
)
async def test_what_is_no_token_counts_as_none(credentiald: FakeCredentiald, headers: Pairs) -> None:
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("GET", "/openai/v1/models", headers=headers))
    assert (answer.status, answer.error) == (401, "ACCESS_TOKEN_MISSING")
