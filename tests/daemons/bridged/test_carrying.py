"""What goes through the bridge: bytes, targets, headers, both ways."""

import asyncio
import contextlib
import gzip
import json
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridged.bridge import MOST_GATHERED_BYTES
from tests.fakes.credentiald import SERVICE_TOKEN, USER_TOKEN, FakeCredentiald, provider, running_credentiald
from tests.fakes.scripted_upstream import ScriptedUpstream, hang_up, raw, reply, running_upstream, stream
from tests.support.bridge import AUTH, running_bridge, until
from tests.support.raw_http import raw_client, raw_exchange, request

BODY = b'{ "model":"m\\u00e9",  "stream" : false, "unknown":[1,{"a":null}],"model":"m2" }\n'

INTERCEPTED = [
    ("/anthropic/v1/messages?beta=true", "/v1/messages?beta=true", "x-api-key", "sk-upstream-key"),
    ("/api/v2/aibridge/anthropic/v1/messages", "/v1/messages", "x-api-key", "sk-upstream-key"),
    ("/openai/v1/chat/completions", "/v1/chat/completions", "authorization", "Bearer sk-upstream-key"),
    ("/openai/v1/responses?x=%2F&y", "/v1/responses?x=%2F&y", "authorization", "Bearer sk-upstream-key"),
    ("/azure/v1/chat/completions", "/openai/v1/chat/completions", "api-key", "sk-upstream-key"),
    (
        "/azure/openai/deployments/d%2Fe:1/chat/completions?api-version=2024-10-21",
        "/openai/deployments/d%2Fe:1/chat/completions?api-version=2024-10-21",
        "api-key",
        "sk-upstream-key",
    ),
    ("/google/v1/chat/completions", "/v1beta/openai/chat/completions", "authorization", "Bearer sk-upstream-key"),
]
PASSED_THROUGH = [
    ("POST", "/anthropic/v1/messages/count_tokens", "/v1/messages/count_tokens"),
    ("GET", "/anthropic/v1/models?limit=1000", "/v1/models?limit=1000"),
    ("GET", "/openai/v1/models/a%2Fb:c", "/v1/models/a%2Fb:c"),
    ("POST", "/openai/v1/embeddings", "/v1/embeddings"),
    ("DELETE", "/openai/v1/responses/resp_1", "/v1/responses/resp_1"),
    ("POST", "/google/v1beta/models/g:generateContent", "/v1beta/models/g:generateContent"),
    ("POST", "/google/v1/models/g:streamGenerateContent?alt=sse", "/v1/models/g:streamGenerateContent?alt=sse"),
]


@pytest.mark.parametrize(("target", "expected", "header", "value"), INTERCEPTED)
async def test_an_intercepted_request_arrives_with_its_bytes_its_target_and_the_chosen_credential(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, target: str, expected: str, header: str, value: str
) -> None:
    upstream.default = reply(200, b'{"answer":  1}')
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("POST", target, headers=[AUTH], body=BODY))
    sent = upstream.requests[0]
    assert (answer.status, answer.body, answer.complete) == (200, b'{"answer":  1}', True)
    assert (sent.method, sent.target, sent.body, sent.chunked) == ("POST", expected, BODY, False)
    assert sent.header(header) == value
    assert sent.header("host") == f"127.0.0.1:{upstream.port}"
    assert USER_TOKEN.encode() not in sent.raw_head + sent.body


@pytest.mark.parametrize(("method", "target", "expected"), PASSED_THROUGH)
async def test_a_passed_through_request_arrives_as_it_was_sent(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, method: str, target: str, expected: str
) -> None:
    body = None if method == "GET" else BODY
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request(method, target, headers=[AUTH], body=body))
    sent = upstream.requests[0]
    assert answer.status == 200
    assert (sent.method, sent.target, sent.body, sent.chunked) == (method, expected, body or b"", False)


async def test_a_chunked_body_of_a_passed_through_request_streams_on_in_chunks(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    head = request("POST", "/openai/v1/embeddings", headers=[AUTH, ("Transfer-Encoding", "chunked")])
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        await client.send(head + b"5\r\nfirst\r\n")
        sent = await upstream.wait_for_request()  # it left before the body was complete
        assert not sent.body_complete
        await client.send(b"6\r\n, last\r\n0\r\n\r\n")
        answer = await client.read_answer()
    assert (answer.status, sent.body, sent.chunked) == (200, b"first, last", True)


async def test_a_chunked_body_of_an_intercepted_request_arrives_whole(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    head = request("POST", "/openai/v1/chat/completions", headers=[AUTH, ("Transfer-Encoding", "chunked")])
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, head + b'd\r\n{"model":"m"}\r\n0\r\n\r\n')
    assert (answer.status, upstream.requests[0].body) == (200, b'{"model":"m"}')


async def test_compressed_bodies_pass_as_they_came_both_ways(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    packed = gzip.compress(BODY)
    encoding = ("Content-Encoding", "gzip")
    upstream.default = reply(200, packed, [encoding, ("Content-Type", "application/json")])
    async with running_bridge(credentiald) as bridge:
        for target in ("/anthropic/v1/messages", "/anthropic/v1/messages/count_tokens"):
            sent = request("POST", target, headers=[AUTH, encoding, ("Accept-Encoding", "gzip")], body=packed)
            answer = await raw_exchange(bridge.port, sent)
            assert (answer.body, answer.header("content-encoding")) == (packed, "gzip")
    assert [one.body for one in upstream.requests] == [packed, packed]
    # Taps can read only what is not compressed; what they do not read keeps the client's wish.
    assert [one.header("accept-encoding") for one in upstream.requests] == ["identity", "gzip"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[1]", b"", b'{"model":5}', b'{"model":"' + b"m" * 600 + b'"}'])
async def test_a_body_that_is_held_for_others_is_the_upstreams_to_judge(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, body: bytes
) -> None:
    upstream.script(reply(400, b'{"theirs":1}'))
    async with running_bridge(credentiald) as bridge:
        sent = request("POST", "/anthropic/v1/messages/count_tokens", headers=[AUTH], body=body)
        answer = await raw_exchange(bridge.port, sent)
    assert (answer.status, answer.body) == (400, b'{"theirs":1}')
    assert [one.body for one in upstream.requests] == [body]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=6), body=st.binary(max_size=2000))
def test_any_bytes_of_a_body_pass_both_ways(chunks: list[bytes], body: bytes) -> None:
    async def carry() -> tuple[bytes, bytes, bool]:
        async with running_upstream() as upstream, running_credentiald() as credentiald:
            credentiald.providers["corp"] = provider("openai", upstream.url, api_key="k")
            upstream.script(stream(*chunks, headers=[("Content-Type", "application/octet-stream")]))
            async with running_bridge(credentiald) as bridge:
                answer = await raw_exchange(
                    bridge.port, request("POST", "/corp/v1/embeddings", headers=[AUTH], body=body)
                )
            return upstream.requests[0].body, answer.body, answer.complete

    assert asyncio.run(carry()) == (body, b"".join(chunks), True)


async def test_the_clients_headers_reach_the_upstream_but_for_those_that_end_at_the_bridge(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    passing = [
        ("anthropic-beta", "a-1,b-2"),
        ("Anthropic-Beta", "c-3"),
        ("anthropic-version", "2023-06-01"),
        ("User-Agent", "claude-cli/2"),
        ("X-Stainless-Retry-Count", "0"),
        ("x-claude-code-session-id", "s"),
        ("x-note", "grüße".encode().decode("latin-1")),
        ("content-type", "application/json"),
    ]
    ending = [
        AUTH,
        ("X-Api-Key", USER_TOKEN),
        ("Cookie", "a=b"),
        ("Connection", "keep-alive, X-Named"),
        ("X-Named", "1"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-AI-Bridge-Actor-ID", "root"),
        ("Proxy-Authorization", "Basic x"),
    ]
    async with running_bridge(credentiald) as bridge:
        sent = request("POST", "/anthropic/v1/messages", headers=[*passing, *ending], body=b'{"model":"m"}')
        await raw_exchange(bridge.port, sent)
    received = upstream.requests[0].headers
    names = [name.lower() for name, _ in received]
    assert [pair[1] for pair in received if pair[0].lower() == "anthropic-beta"] == ["a-1,b-2", "c-3"]
    for name, value in passing:
        assert (name.lower(), value) in [(key.lower(), text) for key, text in received]
    for name in (
        "authorization",
        "cookie",
        "x-named",
        "x-forwarded-for",
        "x-ai-bridge-actor-id",
        "proxy-authorization",
    ):
        assert name not in names
    assert set(names) - {name.lower() for name, _ in passing} == {
        "host",
        "content-length",
        "accept-encoding",
        "x-api-key",
    }


async def test_the_upstreams_headers_reach_the_client_but_for_those_of_the_connection(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    passing = [
        ("Content-Type", "application/json"),
        ("request-id", "req_upstream"),
        ("anthropic-ratelimit-requests-remaining", "9"),
        ("Retry-After", "7"),
        ("x-should-retry", "false"),
        ("Server", "cloudflare"),
        ("X-Twice", "1"),
        ("x-twice", "2"),
    ]
    ending = [("Set-Cookie", "a=b"), ("Connection", "X-Own"), ("X-Own", "1"), ("Alt-Svc", "h3")]
    upstream.default = reply(429, b'{"type":"error"}', [*passing, *ending])
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(
            bridge.port, request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m"}')
        )
    names = {name.lower() for name, _ in answer.headers}
    assert (answer.status, answer.body) == (429, b'{"type":"error"}')  # an upstream's error is the upstream's answer
    for name, value in passing:
        assert (name.lower(), value) in [(key.lower(), text) for key, text in answer.headers]
    assert names.isdisjoint({"set-cookie", "x-own", "alt-svc", "x-drawbridge-error"})
    assert names - {name.lower() for name, _ in passing} == {"content-length", "date", "x-interception-id"}


async def test_nothing_is_invented_for_an_answer_without_a_body(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.default = reply(204, b"", [])
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("DELETE", "/openai/v1/responses/r", headers=[AUTH]))
    assert (answer.status, answer.body) == (204, b"")
    assert {name.lower() for name, _ in answer.headers} <= {"date", "x-interception-id", "content-length"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_neither_followed_nor_handed_on(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream, status: int
) -> None:
    async with running_upstream() as elsewhere:
        upstream.default = reply(status, b"", [("Location", elsewhere.url + "/v1/messages")])
        async with running_bridge(credentiald) as bridge:
            answer = await raw_exchange(
                bridge.port, request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m"}')
            )
        # A client would follow it, and take its token along to wherever the upstream says.
        assert (answer.status, answer.header("x-drawbridge-error")) == (502, "UPSTREAM_UNREACHABLE")
        assert "location" not in {name.lower() for name, _ in answer.headers}
        assert elsewhere.requests == []


async def test_many_requests_share_a_connection(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    async with running_bridge(credentiald) as bridge, raw_client(bridge.port) as client:
        ids = []
        for number in range(3):
            upstream.script(reply(200, str(number).encode()))
            body = json.dumps({"model": "m", "n": number}).encode()
            await client.send(request("POST", "/openai/v1/chat/completions", headers=[AUTH], body=body))
            answer = await client.read_answer()
            ids.append(answer.header("x-interception-id"))
            assert answer.body == str(number).encode()
    assert len(set(ids)) == 3
    assert [one.interception_id for one in credentiald.resolves] == ids


async def test_credentiald_is_asked_once_with_what_it_needs_and_no_key(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(429, b"{}"))
    headers = [("X-Coder-AI-Governance-Token", USER_TOKEN), ("Authorization", "Bearer sk-own-key")]
    async with running_bridge(credentiald) as bridge:
        await raw_exchange(
            bridge.port, request("POST", "/copilot/chat/completions", headers=headers, body=b'{"model":"gpt-x"}')
        )
    (asked,) = credentiald.resolves
    assert (asked.provider, asked.access_token, asked.operation) == ("copilot", USER_TOKEN, "copilot.chat_completions")
    assert (asked.model, asked.presented_key) == ("gpt-x", True)
    assert b"sk-own-key" not in asked.SerializeToString()
    assert credentiald.authorizations == {f"Bearer {SERVICE_TOKEN}"}
    # The user's own key is what goes on, in the header it came in; the governance token is not.
    assert upstream.requests[0].header("authorization") == "Bearer sk-own-key"
    assert USER_TOKEN.encode() not in upstream.requests[0].raw_head


async def test_the_actor_is_named_only_where_the_provider_says_so(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    credentiald.providers["told"] = provider("openai", upstream.url, api_key="k", send_actor_headers=True)
    async with running_bridge(credentiald) as bridge:
        for name in ("told", "openai"):
            await raw_exchange(bridge.port, request("GET", f"/{name}/v1/models", headers=[AUTH]))
    named = [one.header("x-ai-bridge-actor-metadata-username") for one in upstream.requests]
    assert named == ["ada", None]


async def test_an_upstream_that_closes_between_requests_does_no_harm(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(200, b"1", [("Connection", "close")]), hang_up(), reply(200, b"3"))
    async with running_bridge(credentiald) as bridge:
        body = b'{"model":"m"}'
        sent = request("POST", "/openai/v1/chat/completions", headers=[AUTH], body=body)
        answers = [await raw_exchange(bridge.port, sent) for _ in range(3)]
    # A POST whose connection broke is not sent again behind the client's back: it may have been billed.
    assert [one.status for one in answers] == [200, 502, 200]
    assert len(upstream.requests) == 3


async def test_a_204_has_no_content_length(credentiald: FakeCredentiald, upstream: ScriptedUpstream) -> None:
    upstream.default = raw(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", close=False)
    async with running_bridge(credentiald) as bridge:
        answer = await raw_exchange(bridge.port, request("DELETE", "/openai/v1/responses/r", headers=[AUTH]))
    assert answer.status == 204
    assert "content-length" not in {name.lower() for name, _ in answer.headers}


async def test_bodies_that_are_gathered_have_a_bound_in_sum(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    body = json.dumps({"model": "m"}).encode()
    ask = request("POST", "/openai/v1/chat/completions", headers=[AUTH], body=body)
    async with running_bridge(credentiald) as bridge:
        held = bridge.bridge.reserve(MOST_GATHERED_BYTES - len(body) + 1)
        refused = await raw_exchange(bridge.port, ask)
        bridge.bridge.release(held)
        answers = [await raw_exchange(bridge.port, ask) for _ in range(3)]
        # What was gathered is given back, so the whole bound can be had again.
        bridge.bridge.release(bridge.bridge.reserve(MOST_GATHERED_BYTES))
    assert (refused.status, refused.error) == (503, "CAPACITY")
    assert [answer.status for answer in answers] == [200, 200, 200]


async def test_a_streamed_body_waits_in_the_client_until_there_is_a_connection(
    credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    # A listener whose queue is full takes no connection and refuses none.
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        credentiald.providers["full"] = provider("openai", f"http://127.0.0.1:{full.getsockname()[1]}/v1")
        async with running_bridge(credentiald, max_body_bytes=2**26) as bridge:
            _, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
            size = 2**25
            writer.write(request("POST", "/full/v1/embeddings", headers=[AUTH, ("Content-Length", str(size))]))
            writer.write(bytes(size))
            await until(lambda: bridge.bridge.under_way == 1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await writer.drain()
            left_bytes = writer.transport.get_write_buffer_size()
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    # What the kernel and one read take is little beside the body.
    assert left_bytes > size / 2
    assert upstream.requests == []
