"""TLS to upstreams: only whom we trust, and no detail of the machine in what the client is told."""

import ssl
from pathlib import Path

import pytest
import trustme

from bridged.http_types import UpstreamRequest, UpstreamUnreachable
from bridged.upstream import running_upstream as our_upstream
from tests.fakes.scripted_upstream import running_upstream


def asking(host: str, port: int) -> UpstreamRequest:
    return UpstreamRequest(method="GET", scheme="https", host=host, port=port, target="/v1/models", headers=())


@pytest.mark.parametrize(
    ("trusted", "host", "problem"),
    [(True, "localhost", None), (False, "localhost", "certificate is not valid"), (True, "127.0.0.1", "certificate")],
)
async def test_an_upstreams_certificate_must_be_trusted_and_for_its_host(
    trusted: bool, host: str, problem: str | None
) -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_tls)
    client_tls = ssl.create_default_context()
    if trusted:
        authority.configure_trust(client_tls)
    limits = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}
    async with running_upstream(tls=server_tls) as upstream, our_upstream(**limits, tls=client_tls) as client:
        if problem is None:
            response = await client.send(asking(host, upstream.port))
            assert response.status == 200
            response.close()
        else:
            with pytest.raises(UpstreamUnreachable, match=problem):
                await client.send(asking(host, upstream.port))
            assert upstream.requests == []


async def test_a_host_that_has_no_address_is_said_so() -> None:
    limits = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}
    async with our_upstream(**limits) as client:
        with pytest.raises(UpstreamUnreachable, match="host name is not known"):
            await client.send(asking("nobody.invalid", 443))


async def test_proxy_variables_and_netrc_are_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login root password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    limits = {"connect_timeout_seconds": 5, "first_byte_timeout_seconds": 5, "idle_timeout_seconds": 5}
    async with running_upstream() as upstream, our_upstream(**limits) as client:
        sent = UpstreamRequest(
            method="GET", scheme="http", host="127.0.0.1", port=upstream.port, target="/v1/models?", headers=()
        )
        response = await client.send(sent)
        response.close()
    assert (response.status, upstream.requests[0].header("authorization")) == (200, None)
    # Nothing is added: an upstream sees what the client sent.
    assert [name.lower() for name, _ in upstream.requests[0].headers] == ["host"]
