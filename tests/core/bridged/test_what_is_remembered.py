"""Tables that remember lines and names: within bounds, and nothing that looks like a secret."""

import pytest

from bridged import client_token, clients, head_lines, headers, recording
from bridged.http1 import framing, request_head, response_head
from bridged.http1.framing import HeadLimits, Malformed
from bridged.model import HeaderNames, Refused, named_values
from daemonkit.secret import Secret

TOKEN = "dbu_" + "A" * 49
LINES = [
    f"Authorization: Bearer {TOKEN}",
    f"Referer: https://h/x?key={TOKEN}",
    f"X-Own: {TOKEN}",
    f"User-Agent: own/1 {TOKEN}",
    f"User-Agent: {TOKEN}",
    f"{TOKEN}: x",
    TOKEN,
    "X-Own: sk-ant-Zq9xVw",
    "X-Own: basic Zq9xVw",
    "X-Own: Bearer Zq9xVw",
]


def everything_remembered() -> str:
    return repr(
        [
            dict(framing._fields),
            framing._fields._names,
            framing._starts,
            dict(response_head._fields),
            response_head._fields._names,
            response_head._starts,
            request_head._starts,
            dict(head_lines._INTERCEPTED),
            dict(head_lines._PASSED),
            dict(head_lines._RESPONSE),
            dict(recording._AGENTS),
            dict(recording._REQUEST_HEADERS),
            recording._REQUEST_HEADERS.others,
        ]
    ).lower()


@pytest.mark.parametrize("line", LINES)
def test_no_line_that_holds_what_looks_like_a_secret_is_remembered(line: str) -> None:
    head = f"GET /x HTTP/1.1\r\nHost: remembered.example\r\n{line}\r\n\r\n".encode()
    try:
        read = framing.read_head(head, HeadLimits()).headers
        named_values(read, recording._REQUEST_HEADERS)
        head_lines.request_lines(read, Secret(TOKEN), intercepted=True)
        head_lines.request_lines(read, Secret(TOKEN), intercepted=False)
        answered = response_head.read_head(head.replace(b"GET /x HTTP/1.1", b"HTTP/1.1 200 OK"))[2]
        head_lines.response_lines(answered, interception_id="i", date=b"Date: x\r\n", keeps_length=True)
    except (Malformed, Refused):
        assert line == TOKEN
    remembered = everything_remembered()
    assert "remembered.example" in remembered
    for secret in (TOKEN, "Zq9xVw"):
        assert secret.lower() not in remembered


@pytest.mark.parametrize("agent", [f"codex_exec/1 {TOKEN}", f"codex_exec/{TOKEN}", "codex_exec/1 (Bearer Zq9xVw)"])
def test_a_user_agent_with_a_secret_in_it_tells_the_client_and_is_not_remembered(agent: str) -> None:
    names = HeaderNames(*clients.HEADER_NAMES)
    for one in ("codex_exec/remembered", agent):
        named = named_values((("User-Agent", one),), names)
        shown, client = recording._AGENTS[named["user-agent"]]
        assert client == clients.CODEX
        assert TOKEN not in shown
    remembered = everything_remembered()
    assert "codex_exec/remembered" in remembered
    for secret in (TOKEN, "Zq9xVw"):
        assert secret.lower() not in remembered


def test_user_agents_are_remembered_within_bounds() -> None:
    for number in range(2000):
        assert recording._AGENTS[f"own/{number}"] == (f"own/{number}", "")
    assert 0 < len(recording._AGENTS) <= 256
    assert recording._AGENTS["a" * 600] == ("a" * 512, "")
    assert max(map(len, recording._AGENTS)) <= 512


def test_names_of_headers_are_remembered_within_bounds() -> None:
    names = HeaderNames("x-own")
    for number in range(5000):
        assert named_values((("X-Own", " v "), (f"X-{number}", "w"), ("Y" * 33, "w")), names) == {"x-own": "v"}
    assert 0 < len(names.others) < len(names) <= 2048
    assert "Y" * 33 not in names.others


def test_a_request_line_that_leaves_with_a_query_is_not_remembered() -> None:
    for target in ("/remembered/path", "/asked?key=Zq9xVw", "/" + "a" * 300):
        leaving = request_head.OutgoingRequest(
            method="GET", scheme="http", host="h", port=None, target=target, headers=()
        )
        assert request_head.request_head(leaving, b"Host: h\r\n").startswith(f"GET {target} HTTP/1.1\r\n".encode())
    remembered = everything_remembered()
    assert "/remembered/path" in remembered
    assert "/asked" not in remembered
    assert "/aaaa" not in remembered


def test_what_a_proxy_is_sent_does_not_make_a_target_good_that_is_none() -> None:
    def head(target: str, prefix: str = "") -> bytes:
        leaving = request_head.OutgoingRequest("GET", "http", "h", None, target, ())
        return request_head.request_head(leaving, b"Host: h\r\n", target_prefix=prefix)

    assert head("/twice", "http://h").startswith(b"GET http://h/twice HTTP/1.1\r\n")
    with pytest.raises(ValueError, match="not well-formed"):
        head("http://h/twice")


def test_long_names_are_judged_and_not_remembered() -> None:
    name = "X-" + "a" * 30_000
    assert client_token.find_client_token(((name, "v"), ("X-Api-Key", "k")), "").token is not None
    assert headers.fate_of_request(name) is headers.Fate.PASSES
    assert headers.fate_of_request("X-Own") is headers.Fate.PASSES
    assert headers.fate_of_request("X-Forwarded-" + "a" * 30_000) is headers.Fate.DROPPED
    for table in (client_token._CARRIERS, headers._REQUEST_FATES):
        assert len(table) > 0
        assert max(map(len, table)) < 100
