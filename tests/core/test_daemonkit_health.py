"""The listener for metrics and health, over real sockets; and that malformed requests are never quoted."""

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme
from prometheus_client import CollectorRegistry, Counter

from daemonkit.binding import AddressTaken
from daemonkit.health import health_listener
from daemonkit.listen import Address, parse_addresses
from daemonkit.tls import Listener, server_context

CANARY = "dbu_" + "canary7" * 7


def listener(addresses: str = "127.0.0.1:0", **files: str) -> Listener:
    given = {"cert": "", "key": "", "client_ca": ""} | files
    return Listener(
        name="metrics_listen", addresses=parse_addresses(addresses), tls_name="metrics_tls", main=None, **given
    )


def serving(configured: Listener | None = None, reasons: Sequence[str] = ()):
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc()
    configured = configured or listener()
    tls = server_context(configured.tls) if configured.tls else None
    return health_listener(configured, reasons=lambda: list(reasons), registry=registry, tls=tls)


async def send(address: Address, raw: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """All that the server answers to these bytes until it closes."""
    if address.is_unix:
        reader, writer = await asyncio.open_unix_connection(address.path)
    else:
        reader, writer = await asyncio.open_connection(
            address.host, address.port, ssl=tls, server_hostname="localhost" if tls else None
        )
    writer.write(raw)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


def request(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


async def test_healthz_says_that_the_loop_is_alive_whatever_readiness_says():
    async with serving(reasons=["draining"]) as (address,):
        answer = await send(address, request("/healthz"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nok\n")


async def test_readyz_lists_why_not():
    async with serving(reasons=["the store does not answer", "draining"]) as (address,):
        head, _, body = (await send(address, request("/readyz"))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert json.loads(body) == {"ready": False, "reasons": ["the store does not answer", "draining"]}


async def test_readyz_is_200_without_reasons_also_from_a_coroutine():
    async def nothing() -> list[str]:
        return []

    async with health_listener(listener(), reasons=nothing, registry=CollectorRegistry(), tls=None) as (address,):
        head, _, body = (await send(address, request("/readyz?x=1"))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body) == {"ready": True, "reasons": []}


async def test_readiness_that_cannot_be_found_out_is_not_ready():
    def broken() -> list[str]:
        raise RuntimeError(CANARY)

    async with health_listener(listener(), reasons=broken, registry=CollectorRegistry(), tls=None) as (address,):
        answer = await send(address, request("/readyz"))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert CANARY.encode() not in answer


async def test_metrics_are_those_of_the_registry():
    async with serving() as (address,):
        answer = await send(address, request("/metrics"))
    assert b"\nthings_total 1.0\n" in answer


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "GET", 404), ("/healthz/", "GET", 404), ("/%68ealthz", "GET", 404), ("/healthz", "POST", 405)],
)
async def test_other_paths_and_methods_are_refused(path, method, status):
    async with serving() as (address,):
        answer = await send(address, request(path, method))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_head_has_no_body():
    async with serving() as (address,):
        answer = await send(address, request("/healthz", "HEAD"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


MALFORMED = [
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Api Key: " + CANARY.encode() + b"\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \x00" + CANARY.encode() + b"\r\n\r\n",
    b"GET /" + CANARY.encode() + b" HTTP/9\r\n\r\n",
    CANARY.encode() + b"\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + CANARY.encode() * 300 + b"\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: " + CANARY.encode() + b"\r\n\r\n",
]


@pytest.mark.parametrize("raw", MALFORMED)
async def test_a_malformed_request_is_quoted_in_no_answer_and_no_log(raw, caplog):
    with caplog.at_level(logging.DEBUG):
        async with serving() as (address,):
            answer = await send(address, raw)
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert b"canary" not in answer
    assert "canary" not in caplog.text


async def test_each_listener_says_where_it_really_is(caplog, tmp_path: Path):
    with caplog.at_level(logging.INFO):
        async with serving(listener(f"127.0.0.1:0,unix:{tmp_path}/s")) as addresses:
            answers = [await send(address, request("/healthz")) for address in addresses]
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert addresses[0].port != 0
    said = [(one.listener, one.address) for one in caplog.records if one.msg == "listening"]
    assert said == [("metrics", str(address)) for address in addresses]


@pytest.mark.parametrize("kind", ["127.0.0.1:{port}", "unix:{folder}/s"])
async def test_an_address_that_is_taken_is_a_sentence(kind, tmp_path: Path, unused_tcp_port):
    where = kind.format(port=unused_tcp_port, folder=tmp_path)
    async with serving(listener(where)) as (address,):
        with pytest.raises(AddressTaken) as taken:
            async with serving(listener(where)):
                pytest.fail("the address is taken")
        assert (await send(address, request("/healthz"))).startswith(b"HTTP/1.1 200 ")
    assert str(taken.value) == f"metrics_listen: cannot listen on {where}: Address already in use"


async def test_a_socket_that_a_killed_daemon_left_behind_is_replaced(tmp_path: Path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
    async with serving(listener(f"unix:{path}")) as (address,):
        answer = await send(address, request("/healthz"))
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(AddressTaken, match="File exists"):
        async with serving(listener(f"unix:{path}")):
            pytest.fail("the file is in the way")
    assert path.read_text() == "data"


async def test_tls_is_spoken_and_client_certificates_are_asked_for(tmp_path: Path):
    authority = trustme.CA()
    server_cert, client_cert = authority.issue_cert("localhost"), authority.issue_cert("bridge")
    files = {name: str(tmp_path / name) for name in ("cert", "key", "client_ca")}
    server_cert.cert_chain_pems[0].write_to_path(files["cert"])
    server_cert.private_key_pem.write_to_path(files["key"])
    authority.cert_pem.write_to_path(files["client_ca"])
    stranger, known = ssl.create_default_context(), ssl.create_default_context()
    for context in (stranger, known):
        authority.configure_trust(context)
    client_cert.configure_cert(known)
    async with serving(listener(**files)) as (address,):
        answer = await send(address, request("/healthz"), known)
        try:
            refused = await send(address, request("/healthz"), stranger)
        except (ssl.SSLError, ConnectionError):
            refused = b""
    assert refused == b""
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_connection_that_stays_open_does_not_hold_up_the_end():
    async with asyncio.timeout(5):
        async with serving() as (address,):
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            await writer.drain()
        with pytest.raises(OSError):
            await asyncio.open_connection(address.host, address.port)
    writer.close()
