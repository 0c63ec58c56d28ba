"""How answers are delimited: every row of answer_framing's table."""

import pytest

from bridged.http1.answer_framing import Coding, Framing, answer_head
from bridged.http1.framing import HeadLimits, Request, read_head
from bridged.model import Headers
from tests.data.http1.smuggling.requests import head

LENGTH: Headers = (("Content-Type", "a/b"), ("Content-Length", "5"))
PLAIN: Headers = (("Content-Type", "a/b"),)


def asked(method: str = "GET", version: str = "1.1") -> Request:
    return read_head(head("Connection: keep-alive", first=f"{method} /x HTTP/{version}"), HeadLimits())


ROWS = [
    # method, version, status, framing, coding, Transfer-Encoding, the connection stays
    ("GET", "1.1", 200, Framing.LENGTH, Coding.COUNTED, False, True),
    ("GET", "1.1", 200, Framing.CHUNKED, Coding.CHUNKED, True, True),
    ("GET", "1.1", 200, Framing.NONE, Coding.NOTHING, False, True),
    ("GET", "1.0", 200, Framing.LENGTH, Coding.COUNTED, False, True),
    ("GET", "1.0", 200, Framing.CHUNKED, Coding.UNTIL_CLOSE, False, False),
    ("HEAD", "1.1", 200, Framing.LENGTH, Coding.NOTHING, False, True),
    ("HEAD", "1.1", 200, Framing.CHUNKED, Coding.NOTHING, True, True),
    ("HEAD", "1.0", 200, Framing.CHUNKED, Coding.NOTHING, False, True),
    ("GET", "1.1", 204, Framing.CHUNKED, Coding.NOTHING, False, True),
    ("GET", "1.1", 304, Framing.LENGTH, Coding.NOTHING, False, True),
]


@pytest.mark.parametrize(("method", "version", "status", "framing", "coding", "chunked", "stays"), ROWS)
def test_a_body_leaves_as_the_client_can_read_it(
    method: str, version: str, status: int, framing: Framing, coding: Coding, chunked: bool, stays: bool
) -> None:
    headers = LENGTH if framing is Framing.LENGTH else PLAIN
    data, how, _, keep_alive = answer_head(
        asked(method, version), status, headers, framing, keep_alive=True, length_bytes=None
    )
    assert (how, keep_alive) == (coding, stays)
    assert (b"\r\nTransfer-Encoding: chunked\r\n" in data) is chunked
    assert (b"\r\nConnection: close\r\n" in data) is not stays
    assert (b"\r\nConnection: keep-alive\r\n" in data) is (stays and version == "1.0")


def test_the_head_is_status_headers_and_an_empty_line() -> None:
    data, _, length_bytes, _ = answer_head(
        asked(), 200, (*LENGTH, ("X", "\xe9")), Framing.LENGTH, keep_alive=True, length_bytes=None
    )
    assert data == b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\nX: \xe9\r\n\r\n"
    assert length_bytes == 5


def test_who_sends_upgrade_says_so_in_the_one_connection_line() -> None:
    data, *_ = answer_head(asked(), 426, PLAIN, Framing.NONE, keep_alive=False, length_bytes=None)
    assert data.endswith(b"\r\nConnection: Upgrade, close\r\n\r\n")
    assert data.count(b"Connection:") == 1


@pytest.mark.parametrize("status", [299, 529, 599])
def test_a_status_without_a_phrase_has_none(status: int) -> None:
    data, *_ = answer_head(asked(), status, PLAIN, Framing.NONE, keep_alive=True, length_bytes=None)
    assert data.startswith(b"HTTP/1.1 %d \r\n" % status)


@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\nb", "a\rb", "a\0b"])
@pytest.mark.parametrize("place", ["name", "value"])
def test_no_header_can_bring_another_with_it(bad: str, place: str) -> None:
    pair = (bad, "v") if place == "name" else ("N", bad)
    with pytest.raises(ValueError, match="control characters"):
        answer_head(asked(), 200, (pair,), Framing.NONE, keep_alive=True, length_bytes=None)


@pytest.mark.parametrize("headers", [PLAIN, (("Content-Length", "x"),), (*LENGTH, *LENGTH)])
def test_a_counted_body_has_one_length(headers: Headers) -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        answer_head(asked(), 200, headers, Framing.LENGTH, keep_alive=True, length_bytes=None)
