"""Ways to an upstream: names, addresses, TLS, proxies, and what is said when there is none."""

import asyncio
import datetime
import logging
import socket
import ssl

import pytest
import trustme

from bridged.http1 import connect
from bridged.http1.connect import addresses_in_turn
from bridged.http1.pool import running_pool
from bridged.http1.proxies import Proxies, parse_proxies
from bridged.http_types import UpstreamTimeout, UpstreamUnreachable
from tests.fakes.connect_proxy import running_proxy
from tests.fakes.scripted_upstream import reply, running_upstream, stream
from tests.support.tcp_server import tcp_server
from tests.support.upstream_answers import Names, ask, outgoing, post

LIMITS = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}
AUTHORITY = trustme.CA()


def server_tls(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def test_tls_carries_requests_and_keeps_its_connection() -> None:
    body = bytes(range(256)) * 4096
    async with (
        running_upstream(tls=server_tls("localhost")) as upstream,
        running_pool(**LIMITS, tls=client_tls()) as pool,
    ):
        upstream.script(reply(body=body), stream(b"data: 1\n\n", b"data: 2\n\n"), reply())
        request = {"scheme": "https", "host": "localhost"}
        answers = [await ask(pool, post(upstream.port, body, **request)) for _ in range(3)]

        assert [bytes(one.body) for one in answers] == [body, b"data: 1\n\ndata: 2\n\n", b"{}"]
        assert [one.body == body for one in upstream.requests] == [True] * 3
        assert len({id(one.closed) for one in upstream.requests}) == 1
        (connection,) = pool.connections
        spoken = connection.transport.get_extra_info("ssl_object")
        assert (spoken.selected_alpn_protocol(), spoken.server_hostname) == ("http/1.1", "localhost")


@pytest.mark.parametrize(
    ("trusted", "names", "host", "problem"),
    [
        (True, ["127.0.0.1"], "127.0.0.1", None),
        (False, ["localhost"], "localhost", "its authority is not one that this machine trusts"),
        (True, ["localhost"], "127.0.0.1", "it is for another host"),
        (True, ["other.test"], "localhost", "it is for another host"),
    ],
)  # fmt: skip
async def test_only_whom_we_trust_gets_a_request(
    trusted: bool, names: list[str], host: str, problem: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    tls = client_tls() if trusted else ssl.create_default_context()
    async with running_upstream(tls=server_tls(*names)) as upstream, running_pool(**LIMITS, tls=tls) as pool:
        answer = await ask(pool, outgoing(upstream.port, scheme="https", host=host))

    if problem is None:
        assert answer.status == 200
    else:
        assert isinstance(answer.error, UpstreamUnreachable)
        assert str(answer.error) == f"its certificate is not valid: {problem}"
        assert upstream.requests == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_an_expired_certificate_is_said_so() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    AUTHORITY.issue_cert("localhost", not_before=past, not_after=past).configure_cert(context)
    async with running_upstream(tls=context) as upstream, running_pool(**LIMITS, tls=client_tls()) as pool:
        answer = await ask(pool, outgoing(upstream.port, scheme="https", host="localhost"))

    assert str(answer.error) == "its certificate is not valid: it has expired"


async def test_plain_http_at_a_tls_port_and_tls_at_a_plain_one_are_said_so() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with (
        running_upstream(tls=server_tls("localhost")) as guarded,
        tcp_server(refuse) as plain_port,
        running_pool(**LIMITS, tls=client_tls()) as pool,
    ):
        one = await ask(pool, outgoing(plain_port, scheme="https", host="127.0.0.1"))
        other = await ask(pool, outgoing(guarded.port, host="localhost"))

    assert isinstance(one.error, UpstreamUnreachable)
    assert str(one.error) == "no TLS connection could be made"
    assert isinstance(other.error, UpstreamUnreachable)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "text"), [("127.0.0.1", "Connection refused"), ("nobody.invalid", "its host name is not known")]
)
async def test_nobody_there_is_said_so(host: str, text: str) -> None:
    async with running_pool(**LIMITS) as pool:
        answer = await ask(pool, outgoing(unused_port(), host=host))

    assert isinstance(answer.error, UpstreamUnreachable)
    assert str(answer.error) == text


async def test_a_connection_that_takes_too_long_times_out() -> None:
    # TLS that never answers.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        limits = LIMITS | {"connect_timeout_seconds": 0.2}
        async with running_pool(**limits) as pool:
            answer = await ask(pool, outgoing(listener.getsockname()[1], scheme="https", host="localhost"))

    assert isinstance(answer.error, UpstreamTimeout)
    assert "no connection" in str(answer.error)


async def test_a_connection_that_a_stopped_process_finds_made_came_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the time had been over for long when it was made.
    monkeypatch.setattr(connect, "_LATE_SECONDS", -60.0)
    async with running_upstream() as upstream:
        async with running_pool(**LIMITS) as pool:
            answer = await ask(pool, outgoing(upstream.port))
            assert not pool.connections
        assert not upstream.requests

    assert isinstance(answer.error, UpstreamTimeout)


async def test_an_address_that_is_dead_costs_only_a_moment() -> None:
    loop = asyncio.get_running_loop()
    async with running_upstream() as upstream:
        # One that refuses, one that never answers (a listener whose backlog is full), and one that works.
        with socket.create_server(("127.0.0.2", upstream.port), backlog=0) as silent, socket.socket() as filling:
            filling.setblocking(False)
            await loop.sock_connect(filling, silent.getsockname())
            names = Names({"three.test": [["::1", "127.0.0.2", "127.0.0.1"]]})
            async with running_pool(**LIMITS, resolve_name=names) as pool:
                began = loop.time()
                answer = await ask(pool, outgoing(upstream.port, host="three.test"))
                took_seconds = loop.time() - began

    assert answer.status == 200
    assert took_seconds < 2


def test_families_take_turns_beginning_with_the_first() -> None:
    found = [(6, "a"), (6, "b"), (6, "c"), (4, "x"), (4, "x"), (4, "y")]
    assert addresses_in_turn(found) == ["a", "x", "b", "y", "c"]
    assert addresses_in_turn([(4, "x"), (6, "a")]) == ["x", "a"]
    assert addresses_in_turn([(4, "x")]) == ["x"]


async def test_an_ipv6_upstream_is_reached_and_named_in_brackets() -> None:
    heads: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with tcp_server(connected, host="::1") as port, running_pool(**LIMITS) as pool:
        answer = await ask(pool, outgoing(port, host="::1"))

    assert answer.status == 200
    assert f"\r\nHost: [::1]:{port}\r\n".encode() in heads[0]


def by_proxy(url: str) -> Proxies:
    return parse_proxies(https_proxy=url, http_proxy=url)


async def test_https_goes_through_a_tunnel_that_sees_only_the_name() -> None:
    async with (
        running_upstream(tls=server_tls("api.test")) as upstream,
        running_proxy(upstream.port) as proxy,
        running_pool(
            **LIMITS, tls=client_tls(), proxies=by_proxy(f"http://user:canary@127.0.0.1:{proxy.port}")
        ) as pool,
    ):
        request = post(8443, b"{}", scheme="https", host="api.test", headers=(("Authorization", "Bearer sk"),))
        answers = [await ask(pool, request) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]
    assert proxy.requests == [
        b"CONNECT api.test:8443 HTTP/1.1\r\nHost: api.test:8443\r\nProxy-Authorization: Basic dXNlcjpjYW5hcnk=\r\n\r\n"
    ]
    assert upstream.requests[0].headers == [
        ("Host", "api.test:8443"), ("Authorization", "Bearer sk"), ("Content-Length", "2"),
    ]  # fmt: skip


async def test_the_certificate_inside_a_tunnel_is_verified_for_the_upstream() -> None:
    async with (
        running_upstream(tls=server_tls("127.0.0.1")) as upstream,
        running_proxy(upstream.port) as proxy,
        running_pool(**LIMITS, tls=client_tls(), proxies=by_proxy(f"http://127.0.0.1:{proxy.port}")) as pool,
    ):
        answer = await ask(pool, outgoing(443, scheme="https", host="api.test"))

    assert str(answer.error) == "by its proxy: its certificate is not valid: it is for another host"
    assert upstream.requests == []


async def test_a_proxy_may_speak_tls_itself() -> None:
    async with (
        running_upstream(tls=server_tls("api.test")) as upstream,
        running_proxy(upstream.port, tls=server_tls("127.0.0.1")) as proxy,
        running_pool(**LIMITS, tls=client_tls(), proxies=by_proxy(f"https://127.0.0.1:{proxy.port}")) as pool,
    ):
        answer = await ask(pool, post(443, b"{}", scheme="https", host="api.test"))

        assert (answer.status, bytes(answer.body)) == (200, b'{"scripted":true}')
        assert proxy.requests[0].startswith(b"CONNECT api.test:443 HTTP/1.1\r\n")


async def test_http_is_asked_for_with_an_absolute_target() -> None:
    async with (
        running_upstream() as upstream,
        running_proxy(upstream.port) as proxy,
        running_pool(**LIMITS, proxies=by_proxy(f"http://u:p@127.0.0.1:{proxy.port}")) as pool,
    ):
        answers = [
            await ask(pool, outgoing(port, host="api.test", target="/a?b=%20"), may_be_plain=True)
            for port in (80, 80, 8080)
        ]

        assert [answer.status for answer in answers] == [200] * 3
        assert [request.request_line for request in upstream.requests] == [
            "GET http://api.test/a?b=%20 HTTP/1.1",
            "GET http://api.test/a?b=%20 HTTP/1.1",
            "GET http://api.test:8080/a?b=%20 HTTP/1.1",
        ]
        assert upstream.requests[0].headers == [("Host", "api.test"), ("Proxy-Authorization", "Basic dTpw")]
        assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (b"HTTP/1.1 407 Required\r\nContent-Length: 6\r\n\r\ncanary", "the proxy refused with status 407"),
        (b"HTTP/1.0 502 canary\r\n\r\n", "the proxy refused with status 502"),
        (b"HTTP/1.1 200 OK\r\n\r\ncanary", "the proxy sent bytes of its own into the tunnel"),
        (b"SSH-2.0-canary 200 \r\n", "the proxy's answer is not well-formed HTTP"),
        (b"HTTP/1.1 20", "the proxy closed the connection"),
    ],
)  # fmt: skip
async def test_a_proxy_that_makes_no_tunnel_is_said_so_without_its_words(told: bytes, text: str) -> None:
    async with (
        running_upstream(tls=server_tls("api.test")) as upstream,
        running_proxy(upstream.port) as proxy,
        running_pool(**LIMITS, tls=client_tls(), proxies=by_proxy(f"http://127.0.0.1:{proxy.port}")) as pool,
    ):
        proxy.answer = (told,)
        answer = await ask(pool, outgoing(443, scheme="https", host="api.test"))

    assert isinstance(answer.error, UpstreamUnreachable)
    assert str(answer.error) == text
    assert upstream.requests == []


async def test_a_tunnel_may_be_granted_in_pieces_and_with_a_length() -> None:
    async with (
        running_upstream(tls=server_tls("api.test")) as upstream,
        running_proxy(upstream.port) as proxy,
        running_pool(**LIMITS, tls=client_tls(), proxies=by_proxy(f"http://127.0.0.1:{proxy.port}")) as pool,
    ):
        proxy.answer = (b"HTTP/1.0 200 ", b"OK\r\nContent-Length: 9\r\n", b"\r\n")
        answer = await ask(pool, outgoing(443, scheme="https", host="api.test"))

    assert answer.status == 200


async def test_an_exception_goes_directly() -> None:
    proxies = parse_proxies(http_proxy="http://127.0.0.1:1", no_proxy="localhost.test,127.0.0.0/8")
    async with running_upstream() as upstream, running_pool(**LIMITS, proxies=proxies) as pool:
        answer = await ask(pool, outgoing(upstream.port))

    assert answer.status == 200


async def test_a_proxy_that_is_not_there_is_said_so() -> None:
    async with running_pool(**LIMITS, proxies=by_proxy(f"http://user:canary@127.0.0.1:{unused_port()}")) as pool:
        answer = await ask(pool, outgoing(443, scheme="https", host="api.test"))

    assert str(answer.error) == "by its proxy: Connection refused"


async def test_variables_of_the_environment_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with running_upstream() as upstream, running_pool(**LIMITS) as pool:
        answer = await ask(pool, outgoing(upstream.port))

    assert answer.status == 200
    assert [name.lower() for name, _ in upstream.requests[0].headers] == ["host"]
