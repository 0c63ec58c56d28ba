"""What leaves for an upstream is one request, byte for byte as it was decided."""

import pytest

from bridged.http1.request_head import OutgoingRequest, authority_of, host_line, port_of, request_head

HOST = b"Host: api.test\r\n"


def outgoing(**changes: object) -> OutgoingRequest:
    values: dict[str, object] = {
        "method": "POST", "scheme": "https", "host": "api.test", "port": None, "target": "/v1/x", "headers": (),
    }  # fmt: skip
    return OutgoingRequest(**(values | changes))  # type: ignore[arg-type]


def test_order_spelling_and_target_leave_as_they_were_decided() -> None:
    request = outgoing(
        target="//a/%2F/../b?q=%zz&&",
        headers=(("x-B", "1"), ("X-b", ""), ("A_b", "caf\xe9 \t,"), ("x-B", "2")),
        body=b"{}",
    )
    assert request_head(request, HOST) == (
        b"POST //a/%2F/../b?q=%zz&& HTTP/1.1\r\nHost: api.test\r\n"
        b"x-B: 1\r\nX-b: \r\nA_b: caf\xe9 \t,\r\nx-B: 2\r\nContent-Length: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"body": b"abc"}, b"Content-Length: 3\r\n"),
        ({"body": b""}, b"Content-Length: 0\r\n"),
        ({}, b"Content-Length: 0\r\n"),
        ({"method": "GET"}, b""),
        ({"method": "DELETE"}, b""),
        ({"method": "GET", "body": b"x"}, b"Content-Length: 1\r\n"),
        ({"streamed": True}, b"Transfer-Encoding: chunked\r\n"),
        ({"streamed": True, "content_length": 7}, b"Content-Length: 7\r\n"),
        ({"streamed": True, "content_length": 0}, b"Content-Length: 0\r\n"),
    ],
)
def test_the_body_is_framed_in_one_way(changes: dict[str, object], line: bytes) -> None:
    head = request_head(outgoing(**changes), HOST)
    assert head.partition(b"Host: api.test\r\n")[2] == line + b"\r\n"


@pytest.mark.parametrize("canary", ["\r\n", "\r", "\n", "\0", "\x08", "\x7f", "a\r\nX: y", "\u0100"])
@pytest.mark.parametrize(
    "place",
    [
        lambda canary: {"headers": (("X", canary),)},
        lambda canary: {"headers": (("a", "b"), (f"X{canary}", "c"))},
        lambda canary: {"target": f"/{canary}"},
        lambda canary: {"method": f"GET{canary}"},
    ],
)
def test_nothing_can_end_a_line_but_we(place: object, canary: str) -> None:
    assert callable(place)
    with pytest.raises(ValueError, match=r"control characters|not of HTTP|request line"):
        request_head(outgoing(**place(canary)), HOST)


@pytest.mark.parametrize(
    "changes",
    [{"target": "/a b"}, {"target": ""}, {"target": "http://x/"}, {"method": "GET /"}, {"method": ""}],
)
def test_a_request_line_has_three_words_and_the_second_is_a_path(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="request line"):
        request_head(outgoing(**changes), HOST)


@pytest.mark.parametrize(
    ("scheme", "host", "port", "line"),
    [
        ("https", "api.test", 443, b"Host: api.test\r\n"),
        ("https", "api.test", 80, b"Host: api.test:80\r\n"),
        ("http", "api.test", 80, b"Host: api.test\r\n"),
        ("http", "127.0.0.1", 8080, b"Host: 127.0.0.1:8080\r\n"),
        ("https", "::1", 443, b"Host: [::1]\r\n"),
        ("https", "2001:db8::1", 8443, b"Host: [2001:db8::1]:8443\r\n"),
        ("https", "b\xfccher.test", 443, b"Host: xn--bcher-kva.test\r\n"),
    ],
)
def test_the_host_is_named_as_it_is_reached(scheme: str, host: str, port: int, line: bytes) -> None:
    assert host_line(scheme, host, port) == line


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a@b", "a#b", "a?b", "a\r\nb", "a\\b", "[::1]"])
def test_a_host_that_would_be_read_as_something_else_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="not well-formed"):
        authority_of(host, 80)


def test_ports_have_their_defaults() -> None:
    assert [port_of("http", None), port_of("https", None), port_of("https", 8443)] == [80, 443, 8443]
    with pytest.raises(ValueError, match="neither http nor https"):
        port_of("ftp", 21)


def test_a_proxy_gets_an_absolute_target_and_its_own_credential() -> None:
    head = request_head(
        outgoing(method="GET"), HOST, target_prefix="http://api.test", proxy_line=b"Proxy-Authorization: Basic eA==\r\n"
    )
    assert head == (b"GET http://api.test/v1/x HTTP/1.1\r\nHost: api.test\r\nProxy-Authorization: Basic eA==\r\n\r\n")
