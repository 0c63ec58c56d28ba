"""Listeners of both daemons as an operator meets them: TLS, sockets, taken ports, plaintext, health, reflection."""

import asyncio
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.fakes.scripted_upstream import running_upstream
from tests.support.pair import CENTRAL_KEY, environment_of, status_of, until_ready
from tests.support.processes import bridged, clean_environment, command, commanded, credentiald

EXIT_SECONDS = 20


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, issued in (("server", server), ("client", client)):
        issued.private_key_pem.write_to_path(folder / f"{name}-key.pem")
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(folder / f"{name}.pem", append=number > 0)
    return folder


async def test_both_planes_speak_tls_with_client_certificates(tmp_path, certificates):
    def files(prefix, name):
        return (
            f"--{prefix}-cert",
            str(certificates / f"{name}.pem"),
            f"--{prefix}-key",
            str(certificates / f"{name}-key.pem"),
        )

    ca = str(certificates / "ca.pem")
    async with running_upstream() as upstream:
        environ = environment_of({"openai": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": upstream.url}})
        plane_tls = (*files("tls", "server"), "--tls-client-ca", ca, "--metrics-tls-cert", "none")
        bridge_tls = (*files("tls", "server"), "--metrics-tls-cert", "none", "--credentiald-ca", ca,
                      *files("credentiald", "client"))  # fmt: skip
        with (
            credentiald(tmp_path, environ, *plane_tls) as plane,
            bridged(tmp_path, plane.addresses["main"], None, *bridge_tls) as bridge,
        ):
            await until_ready(bridge)
            admin = {
                "CREDENTIALD_ADMIN_CA": ca,
                "CREDENTIALD_ADMIN_CERT": str(certificates / "client.pem"),
                "CREDENTIALD_ADMIN_KEY": str(certificates / "client-key.pem"),
            }
            commanded(tmp_path, plane, "users", "create", "ann", **admin)
            token = commanded(tmp_path, plane, "tokens", "create", "--user", "ann", **admin).strip()
            without = command(tmp_path, plane, "users", "list")
            answer = await asyncio.to_thread(posted, bridge.addresses["http"], token, ca)

        assert answer == {"scripted": True}
        assert without.returncode == 1
        assert plane.errors == [], "a handshake that failed puts no line of another form into the log"
        assert upstream.requests[0].header("authorization") == f"Bearer {CENTRAL_KEY}"


def posted(address, token, ca):
    request = urllib.request.Request(
        f"https://{address}/openai/v1/chat/completions",
        data=b'{"model":"m"}',
        headers={"Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cafile=ca)) as answer:
        return json.load(answer)


async def test_the_planes_meet_on_a_unix_socket_that_nobody_can_take_over(tmp_path):
    path = tmp_path / "plane.sock"
    with credentiald(tmp_path, None, "--listen", f"unix:{path}") as plane:
        assert plane.addresses["main"] == f"unix:{path}"
        with bridged(tmp_path, f"unix:{path}") as bridge:
            await until_ready(bridge)
        second = start("credentiald", tmp_path, "--listen", f"unix:{path}", "--admin-listen", "127.0.0.1:0")

        assert second.returncode == 1
        assert "--listen" in second.stderr or "listen" in second.stderr
        assert str(path) in second.stderr


def start(module, folder, *arguments, **environ):
    """A daemon that is expected to refuse to start."""
    if "--metrics-listen" not in arguments:
        arguments = (*arguments, "--metrics-listen", "127.0.0.1:0")
    return subprocess.run(
        [sys.executable, "-m", module, "serve", *arguments],
        cwd=folder,
        env=clean_environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=EXIT_SECONDS,
    )


@pytest.mark.parametrize(("module", "flag"), [("credentiald", "--admin-listen"), ("bridged", "--listen")])
def test_a_taken_port_is_a_clear_message(tmp_path, module, flag):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        others = ("--listen", "127.0.0.1:0") if module == "credentiald" else ()
        refused = start(module, tmp_path, flag, address, *others)

    assert refused.returncode == 1
    assert address in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("module", ["credentiald", "bridged"])
def test_plaintext_that_other_machines_can_reach_is_refused(tmp_path, module):
    refused = start(module, tmp_path, "--listen", "0.0.0.0:0")

    assert refused.returncode == 2
    assert "--insecure-plaintext" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_plaintext_to_a_credentiald_on_another_machine_is_refused(tmp_path):
    refused = start("bridged", tmp_path, "--listen", "127.0.0.1:0", "--credentiald", "dns:///credentiald.example:7410")

    assert refused.returncode == 2
    assert "--insecure-plaintext" in refused.stderr


@pytest.mark.parametrize(
    ("module", "environ", "said"),
    [
        ("credentiald", {"CREDENTIALD_LISTN": "x", "CODER_AIBRIDGE_PROVIDER_0_TPYE": "openai"},
         ["CREDENTIALD_LISTEN", "TYPE", "CREDENTIALD_LISTN"]),
        ("credentiald", {"CREDENTIALD_DATABASE": "postgresql://localhost/x"}, ["PostgreSQL"]),
        ("bridged", {"BRIDGED_MAX_BDOY": "1", "CODER_AIBRIDGE_RATE_LIMIT": "x"}, ["BRIDGED_MAX_BODY", "RATE_LIMIT"]),
    ],
)  # fmt: skip
def test_every_configuration_error_is_said_at_once(tmp_path, module, environ, said):
    refused = start(module, tmp_path, "--listen", "127.0.0.1:0", **environ)

    assert refused.returncode == 2
    for words in said:
        assert words in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_names_that_container_platforms_inject_and_those_of_the_commands_are_ignored(tmp_path):
    environ = {
        "CREDENTIALD_SERVICE_HOST": "10.0.0.1",
        "CREDENTIALD_PORT_7410_TCP": "tcp://10.0.0.1:7410",
        "CREDENTIALD_PORT": "tcp://10.0.0.1:7410",
        "CREDENTIALD_ADMIN": "127.0.0.1:1",
        "CREDENTIALD_TOKEN": "x",
    }
    with credentiald(tmp_path, environ) as plane:
        assert plane.stop(signal.SIGTERM) == 0


async def test_health_and_reflection_are_open_and_health_turns_with_the_drain(tmp_path):
    with credentiald(tmp_path) as plane:
        for listener, expected in (("main", "CredentialService"), ("admin", "AdminService")):
            async with grpc.aio.insecure_channel(plane.addresses[listener]) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                for service in ("", f"drawbridge.v1.{expected}"):
                    answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING
                asked = reflection_pb2.ServerReflectionRequest(list_services="")
                listed = [
                    service.name
                    async for answer in reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                        iter([asked])
                    )
                    for service in answer.list_services_response.service
                ]
                assert f"drawbridge.v1.{expected}" in listed
        assert status_of(f"http://{plane.addresses['metrics']}/readyz") == 200
        async with grpc.aio.insecure_channel(plane.addresses["main"]) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            plane.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await asyncio.to_thread(plane.process.wait, EXIT_SECONDS) == 0


def test_reflection_can_be_switched_off(tmp_path):
    with (
        credentiald(tmp_path, None, "--reflection", "off") as plane,
        grpc.insecure_channel(plane.addresses["main"]) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))

    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_name_in_the_environment_and_in_the_database_refuses_to_start(tmp_path):
    with credentiald(tmp_path) as plane:
        commanded(tmp_path, plane, "providers", "create", "openai", "--type", "openai", "--key-stdin", key="sk-x")
    refused = start(
        "credentiald", tmp_path, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
        CODER_AIBRIDGE_OPENAI_KEY="sk-y",
    )  # fmt: skip

    assert refused.returncode == 1
    assert "openai" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_lost_tokens_can_be_made_anew_by_whoever_has_the_sealing_keys(tmp_path):
    with credentiald(tmp_path) as plane:
        commanded(tmp_path, plane, "users", "create", "ann")
    before = (tmp_path / "credentiald.admin-token").read_text()
    (tmp_path / "credentiald.admin-token").unlink()
    made = subprocess.run(
        [sys.executable, "-m", "credentiald", "init", "--new-tokens"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    with credentiald(tmp_path) as plane:
        listed = json.loads(commanded(tmp_path, plane, "users", "list", "--json"))
        old = command(tmp_path, plane, "users", "list", CREDENTIALD_ADMIN_TOKEN=before.strip())

    assert made.returncode == 0, made.stderr
    assert [user["username"] for user in listed] == ["ann"]
    assert old.returncode == 1


@pytest.mark.parametrize("flags", [("--log-human", "none"), ("--log-level", "error")])
def test_listeners_are_announced_also_where_the_log_would_not_say_so(tmp_path, flags):
    process = subprocess.Popen(
        [sys.executable, "-m", "credentiald", "serve", *flags, "--listen", "127.0.0.1:0", "--admin-listen",
         "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"],
        cwd=tmp_path, env=clean_environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        process.terminate()

    assert all(re.fullmatch(r"listening listener=\w+ address=127\.0\.0\.1:\d+\n", line) for line in lines)


@pytest.mark.alone
async def test_the_drain_takes_no_longer_than_its_grace(tmp_path):
    with credentiald(tmp_path, None, "--grace", "2s") as plane:
        async with (
            grpc.aio.insecure_channel(plane.addresses["main"]) as main,
            grpc.aio.insecure_channel(plane.addresses["admin"]) as administration,
        ):
            for channel in (main, administration):
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
                await watch.read()
            started = time.monotonic()
            plane.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(plane.process.wait, EXIT_SECONDS) == 0

    assert time.monotonic() - started < 3.8
