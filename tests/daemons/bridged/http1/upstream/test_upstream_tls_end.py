"""A body that only the end of its connection ends, over TLS: whole if TLS was ended too, cut if it was not.

On uvloop alone, which serves: asyncio's own loop says the same of both ends.
"""

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest
import trustme
import uvloop

from bridged.http1.pool import running_pool
from bridged.http1.response_head import BodyFraming
from bridged.http_types import UpstreamBroken
from tests.support.upstream_answers import Answer, ask, outgoing

LIMITS = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}


def serve_one(listener: socket.socket, context: ssl.SSLContext, size: int, *, says_end: bool) -> None:
    accepted, _ = listener.accept()
    with context.wrap_socket(accepted, server_side=True) as connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(size))
        if says_end:
            # It waits for the same word from us, who close the connection instead.
            with contextlib.suppress(OSError):
                connection.unwrap()


def answer_of(size: int, version: ssl.TLSVersion, *, says_end: bool) -> Answer:
    authority, trusting = trustme.CA(), ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(trusting)
    context.maximum_version = version

    async def asked(port: int) -> Answer:
        async with running_pool(**LIMITS, tls=trusting) as pool:
            return await ask(pool, outgoing(port, scheme="https"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve_one, args=(listener, context, size), kwargs={"says_end": says_end})
        server.start()
        answer = uvloop.run(asyncio.wait_for(asked(listener.getsockname()[1]), 10))
        server.join()
    assert (answer.status, answer.framing) == (200, BodyFraming.CLOSE)
    return answer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [10, 300_000])
def test_the_end_of_tls_is_the_end_of_the_body(size: int, version: ssl.TLSVersion) -> None:
    answer = answer_of(size, version, says_end=True)
    assert (answer.error, len(answer.body), answer.is_complete) == (None, size, True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [10, 300_000])
def test_the_end_of_the_connection_without_an_end_of_tls_is_a_cut(size: int, version: ssl.TLSVersion) -> None:
    answer = answer_of(size, version, says_end=False)
    assert isinstance(answer.error, UpstreamBroken)
    assert not answer.is_complete
