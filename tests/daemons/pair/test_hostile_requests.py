"""Requests that mean harm, against both daemons as they run: one clear 4xx each, at once, with nothing of them in it.

Never a 500, never a hang, never a second answer, and nothing for the upstream or the logs.
"""

import asyncio
import json
import re

from tests.data.http1.smuggling.requests import ACCEPTED, BROKEN_BODIES, REFUSED
from tests.support.http import parse
from tests.support.pair import CENTRAL_KEY, Pair, running_pair

CANARY = "dbu_CANARYcanaryCANARYcanaryCANARYcanaryCANARYcanary1"
PROVIDERS = {
    "openai": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}/v1"},
    "anthropic": {"TYPE": "anthropic", "KEY": CENTRAL_KEY, "BASE_URL": "{upstream}"},
}
CHAT, EMBEDDINGS, MESSAGES = "/openai/v1/chat/completions", "/openai/v1/embeddings", "/anthropic/v1/messages"
DEADLINE_SECONDS = 20
LARGE = 240 * 1024
OVER = 33 * 1024 * 1024


def post(target: str, body: str = "", *, fields: str = "", method: str = "POST") -> str:
    """A request with the right token and a canary, as latin-1; `fields` are lines of its own."""
    if "ength:" not in fields and "ncoding:" not in fields:
        fields += f"Content-Length: {len(body)}\r\n"
    fields = f"Host: x\r\nAuthorization: Bearer TOKEN\r\nX-Note: {CANARY}\r\n{fields}"
    return f"{method} {target} HTTP/1.1\r\n{fields}\r\n{body}"


BAD_UTF8 = "\xc3\x28\xff"
INVALID = "INVALID_REQUEST"
TOO_LARGE = "HEAD_TOO_LARGE"
CHUNKED = "Transfer-Encoding: chunked\r\n"
HOSTILE = {
    # name: bytes as latin-1, status, reason
    "bad UTF-8 in the path": (post(f"{CHAT}/{BAD_UTF8}"), 400, INVALID),
    "bad UTF-8 in the query": (post(f"{CHAT}?x={BAD_UTF8}"), 400, INVALID),
    "encoded bad UTF-8 in the path": (post("/openai/v1/models/%C3%28", method="GET"), 400, "INVALID_PATH"),
    "overlong dots": (post("/openai/v1/models/%C0%AE%C0%AE", method="GET"), 400, "INVALID_PATH"),
    "bad UTF-8 in the token": (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARY}{BAD_UTF8}\r\nContent-Length: 2\r\n\r\n{{}}",
        401, None,
    ),
    "bad UTF-8 in a header's name": (post(CHAT, fields=f"X-{BAD_UTF8}: 1\r\n"), 400, INVALID),
    "bad UTF-8 in Host": (f"GET {CHAT} HTTP/1.1\r\nHost: {BAD_UTF8}\r\nX-Note: {CANARY}\r\n\r\n", 400, INVALID),
    "bad UTF-8 in a body": (post(CHAT, f'{{"model":"{BAD_UTF8}{CANARY}"}}'), 400, "INVALID_BODY"),
    "a surrogate in a body": (post(CHAT, f'{{"model":"\\ud800{CANARY}'), 400, "INVALID_BODY"),
    "a body of UTF-16": (post(MESSAGES, "\xff\xfe{\0}\0"), 400, "INVALID_BODY"),
    "a deep body": (post(MESSAGES, "[" * 200_000), 400, "INVALID_BODY"),
    "a deep member": (post(CHAT, '{"messages":' + '{"a":' * 100_000), 400, "INVALID_BODY"),
    **{
        f"the method {method}": (post(CHAT, method=method), 405, "METHOD_NOT_ALLOWED")
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
    },
    **{f"the method {method}": (post(CHAT, method=method), 400, INVALID) for method in ("BREW", "post", "GET\t")},
    "the method CONNECT": (post(CHAT, method="CONNECT"), 400, INVALID),
    "a method that is no token": (post(CHAT, method="PO(ST"), 400, INVALID),
    "no method": (post(CHAT, method=""), 400, INVALID),
    "the preface of HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, INVALID),
    "a handshake of TLS": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\0" * 40, 400, INVALID),
    **{
        f"the path {path}": (post(path), 400, "INVALID_PATH")
        for path in (
            "/openai/v1/../v1/chat/completions",
            "/../openai/v1/chat/completions",
            "/openai/./v1/chat/completions",
            "/openai/v1/%2e%2e/chat/completions",
            "/openai/v1/.%2E/chat/completions",
            "/openai/v1/%252e%252e/chat/completions",
            "/openai/v1/..%2Fchat/completions",
            "/openai/v1/..%5Cchat/completions",
            "/openai/v1/..\\chat/completions",
            "/openai/v1/..;x/chat/completions",
            "/openai/v1/%2e%2e%3bx/chat/completions",
            "/openai/v1/chat/completions%00",
            "/openai/v1/chat/completions%0d%0aX:y",
            "/openai/v1/chat/completions#x",
            "/openai/v1/chat/%zz",
            "/openai/v1/%" + "25" * 20 + "2e",
            "/api/v2/aibridge/../aibridge/openai/v1/chat/completions",
        )
    },
    **{
        f"the path {path}": (post(path), 404, "ROUTE_NOT_FOUND")
        for path in (
            "/openai/v1%2Fchat/completions",
            "/openai%2Fv1/chat/completions",
            "/openai/v1/chat%2fcompletions",
            "/openai/v1/chat%252Fcompletions",
            "//openai/v1/chat/completions",
            "/openai//v1/chat/completions",
            "/OPENAI/v1/chat/completions",
        )
    },
    "an absolute target": (post("http://evil.example/" + CANARY), 400, INVALID),
    "a target that is a star": (post("*", method="OPTIONS"), 400, INVALID),
    "two lengths": (post(CHAT, "{}", fields="Content-Length: 2\r\nContent-Length: 2\r\n"), 400, INVALID),
    "two other lengths": (post(CHAT, "{}", fields="Content-Length: 2\r\nContent-Length: 1\r\n"), 400, INVALID),
    "a length and chunks": (post(CHAT, "0\r\n\r\n", fields="Content-Length: 5\r\n" + CHUNKED), 400, INVALID),
    "chunks of garbage": (post(CHAT, f"{CANARY}\r\n{CANARY}\r\n", fields=CHUNKED), 400, None),
    "chunks of garbage, passed through": (post(EMBEDDINGS, f"{CANARY}\r\n{CANARY}\r\n", fields=CHUNKED), 400, None),
    "a chunk longer than it says": (post(CHAT, f"1\r\n{CANARY}\r\n0\r\n\r\n", fields=CHUNKED), 400, None),
    "a chunk of 2^64": (post(CHAT, "1" + "0" * 16 + f"\r\n{CANARY}", fields=CHUNKED), 400, None),
    **{
        f"a canary {where}": (post(CHAT, fields=fields), 400, INVALID)
        for where, fields in {
            "in a length": f"Content-Length: {CANARY}\r\n",
            "in a coding": f"Transfer-Encoding: {CANARY}\r\n",
            "in a second Host": f"Host: {CANARY}\r\n",
            "in a name with a space": f"X {CANARY}: 1\r\n",
            "without a colon": f"{CANARY}\r\n",
            "in a folded line": f"X: 1\r\n {CANARY}\r\n",
            "before a NUL": f"X-Api-Key: {CANARY}\0\r\n",
            "after a bare CR": f"X-Api-Key: 1\r{CANARY}\r\n",
            "after a bare LF": f"X-Api-Key: 1\n{CANARY}: 1\r\n",
        }.items()
    },
    "a field of 240 KB": (post(CHAT, fields=f"X: {'y' * LARGE}\r\n"), 431, TOO_LARGE),
    "fields of 240 KB": (post(CHAT, fields=f"X: {'y' * 1000}\r\n" * 240), 431, TOO_LARGE),
    "a name of 240 KB": (post(CHAT, fields=f"{'y' * LARGE}: 1\r\n"), 431, TOO_LARGE),
    "a target of 240 KB": (post("/openai/" + "y" * LARGE), 431, TOO_LARGE),
    "a query of 240 KB": (post(f"{CHAT}?{'y' * LARGE}"), 431, TOO_LARGE),
    "a method of 240 KB": (post(CHAT, method="Y" * LARGE), 431, TOO_LARGE),
    "a token of 30 KB": (f"GET {CHAT} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {CANARY * 600}\r\n\r\n", 405, None),
    "a body of 33 MiB, announced": (post(CHAT, "{", fields=f"Content-Length: {OVER}\r\n"), 413, "BODY_TOO_LARGE"),
    "a body of 33 MiB": (post(CHAT, " " * OVER), 413, "BODY_TOO_LARGE"),
    "a body of 33 MiB, passed through": (post(EMBEDDINGS, " " * OVER), 413, "BODY_TOO_LARGE"),
    "a chunk of 33 MiB": (
        post(CHAT, f"{OVER:x}\r\n{' ' * OVER}\r\n0\r\n\r\n", fields=CHUNKED), 413, "BODY_TOO_LARGE"
    ),
    "33 MiB in chunks, passed through": (
        post(EMBEDDINGS, f"10000\r\n{' ' * 65536}\r\n" * 528 + "0\r\n\r\n", fields=CHUNKED), 413, "BODY_TOO_LARGE"
    ),
}  # fmt: skip


async def all_that_comes(pair: Pair, data: bytes) -> bytes:
    """Every byte of the answers to these bytes, the client's side being ended once the first answer is there."""
    host, _, port = pair.bridged.addresses["http"].rpartition(":")
    async with asyncio.timeout(DEADLINE_SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        got = b""
        try:
            writer.write(data)
            got = await reader.read(65536)
            if writer.can_write_eof():
                writer.write_eof()
            while more := await reader.read(65536):
                got += more
        except ConnectionError:
            # What was said before the reset counts.
            pass
        finally:
            writer.transport.abort()
    return got


def with_token(pair: Pair, text: str) -> bytes:
    return text.replace("Bearer TOKEN", f"Bearer {pair.token}").encode("latin-1")


def check_one_refusal(name: str, got: bytes) -> None:
    """Exactly one answer, of 4xx, in the shape of an API, with an id, and without a word of what was sent."""
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", got)) == 1, f"{name}: {got[:500]!r}"
    answer = parse(got)
    assert 400 <= answer.status < 500, f"{name}: {answer.status}"
    assert answer.header("X-Interception-Id"), name
    assert json.loads(answer.body)["error"]["message"], name
    assert b"canary" not in got.lower(), name
    assert b"evil" not in got, name


async def check_unharmed(pair: Pair) -> None:
    """A good request is answered, none but it was whole at the upstream, and no log has a canary or an error."""
    good = post(CHAT, '{"model":"m"}', fields="Connection: close\r\n" + "Content-Length: 13\r\n")
    assert parse(await all_that_comes(pair, with_token(pair, good).replace(CANARY.encode(), b"x"))).status == 200
    assert [request.body for request in pair.upstream.requests if request.body_complete] == [b'{"model":"m"}']
    assert "canary" not in pair.output.lower()
    for daemon in (pair.bridged, pair.credentiald):
        assert [line for line in daemon.lines if line["level"] == "error"] == []
        assert daemon.errors == []


async def test_each_hostile_request_gets_one_clear_refusal(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, "--log-level", "debug") as pair:
        for name, (text, status, reason) in HOSTILE.items():
            got = await all_that_comes(pair, with_token(pair, text))
            check_one_refusal(name, got)
            answer = parse(got)
            assert answer.status == status, f"{name}: {answer.status} {answer.body!r}"
            assert reason in (None, answer.header("X-Drawbridge-Error")), f"{name}: {answer.body!r}"
        await check_unharmed(pair)


async def test_each_row_of_the_corpus_gets_one_clear_refusal_whatever_route_it_is_on(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, "--log-level", "debug") as pair:
        for row in (*REFUSED, *BROKEN_BODIES):
            for target in (CHAT, EMBEDDINGS, MESSAGES):
                fields = f"Host: x\r\nAuthorization: Bearer {pair.token}\r\nX-Note: {CANARY}\r\n".encode()
                data = row.data.replace(b"Host: x\r\n", fields, 1).replace(b"POST /x ", f"POST {target} ".encode(), 1)
                check_one_refusal(f"{row.name} at {target}", await all_that_comes(pair, data))
        await check_unharmed(pair)


async def test_odd_requests_of_the_corpus_are_answered_one_by_one_and_never_with_a_failure_of_ours(tmp_path):
    async with running_pair(tmp_path, PROVIDERS, "--log-level", "debug") as pair:
        for row in ACCEPTED:
            got = await all_that_comes(pair, row.data)
            statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]
            # 100 is no answer: it finds out whether a client that ended its side is still there.
            assert {status // 100 for status in statuses} <= {1, 4}, f"{row.name}: {statuses}"
            assert 1 <= sum(status >= 400 for status in statuses) <= len(row.messages), f"{row.name}: {statuses}"
        await check_unharmed(pair)
