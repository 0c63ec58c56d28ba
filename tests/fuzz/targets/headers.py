"""Heads both ways: lines say what the tables say, nothing breaks out of a line, no copy of the token goes on.

An input is lines of `Name: value`.
"""

import contextlib

from bridged.head_lines import request_lines, response_lines
from bridged.headers import request_headers, response_headers, without_token
from bridged.http1.fields import field_lines
from bridged.model import Headers, Refused
from daemonkit.secret import Secret

TOKEN = "dbu_" + "a1B2c3D" * 7
DATE = b"Date: Sun, 22 Nov 2026 00:00:00 GMT\r\n"
_BOTH = (b"\r\nconnection:", b"\r\ntransfer-encoding:", b"\r\nkeep-alive:", b"\r\nupgrade:")
NEVER_UP = (*_BOTH, b"\r\ncookie:", b"\r\nte:")
NEVER_DOWN = (*_BOTH, b"\r\nset-cookie:")
WORDS = [
    b"Connection: ",
    b"Cookie: ",
    b"Authorization: Bearer ",
    TOKEN.encode(),
    b"X-Forwarded-For: ",
    b"Host: ",
    b"\n",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"X-AI-Bridge-Actor-Id: 1",
    b"Upgrade: h2c",
    b", close",
    b"X-Coder-AI-Governance-Token: ",
    b"Set-Cookie: a=b",
    b"Keep-Alive: 1",
    b"\r",
    b"\0",
    b"\xe9",
    b"%64",
    b"X-Y: ",
]
SEEDS = [
    b"Accept: */*\nUser-Agent: x/1\nX-Private: y\nConnection: X-Private, close",
    b"Authorization: Bearer " + TOKEN.encode() + b"\nCookie: a=b\nReferer: https://h/?key=" + TOKEN.encode(),
    b"Content-Type: text/event-stream\nContent-Length: 17\nX-Accel-Buffering: no\nSet-Cookie: s=1",
    b"x-api-key: " + TOKEN.encode() + b"\nX-Forwarded-Host: evil\nForwarded: for=1",
]


def one_input(data: bytes) -> None:
    headers: Headers = tuple(
        (name, value.strip())
        for name, colon, value in (line.partition(":") for line in data.decode("latin-1").split("\n"))
        if colon
    )
    for intercepted in (False, True):
        expected = _outcome(lambda i=intercepted: request_headers(without_token(headers, Secret(TOKEN)), intercepted=i))
        for _ in range(2):
            lines = _lines(lambda i=intercepted: request_lines(headers, Secret(TOKEN), intercepted=i))
            assert lines == expected, headers
        _hold(lines, NEVER_UP)
        if isinstance(lines, bytes):
            values = [line.partition(b":")[2] for line in lines.split(b"\r\n")]
            assert not [value for value in values if TOKEN.encode() in value], headers
    kept = _outcome(lambda: response_headers(headers, interception_id="iid"))
    _hold(kept, NEVER_DOWN)
    with contextlib.suppress(Refused, ValueError):
        response_lines(headers, interception_id="iid", date=DATE, keeps_length=True)


def _outcome(make: object) -> bytes | str:
    try:
        return field_lines(make())  # type: ignore[operator]
    except Refused as refused:
        return str(refused.reason)


def _lines(make: object) -> bytes | str:
    try:
        return make()  # type: ignore[operator, no-any-return]
    except Refused as refused:
        return str(refused.reason)


def _hold(lines: bytes | str, never: tuple[bytes, ...]) -> None:
    """Whole lines with one colon's name each, nothing of a connection."""
    if isinstance(lines, str):
        return
    assert not lines or lines.endswith(b"\r\n")
    for line in lines.split(b"\r\n")[:-1]:
        assert b":" in line, lines
        assert not {0, 10, 13} & set(line), lines
    lowered = b"\r\n" + lines.lower()
    assert not [name for name in never if name in lowered], lines
