"""bridged as a process: its command line, its listeners, its signals, on the event loop that it really uses."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.fakes.credentiald import SERVICE_TOKEN, FakeCredentiald, Refuse
from tests.fakes.scripted_upstream import STALL, ScriptedUpstream, reply, stream
from tests.support.bridge import AUTH, until
from tests.support.processes import Daemon, bridged, clean_environment
from tests.support.raw_http import RawAnswer, raw_client, raw_exchange, request

ASK = request("POST", "/anthropic/v1/messages", headers=[AUTH], body=b'{"model":"m","stream":true}')
TOKEN = {"BRIDGED_CREDENTIALD_TOKEN": SERVICE_TOKEN}
FLAGS = ("--allow-upstream-loopback", "--allow-upstream-networks", "--plaintext-upstreams")


def port_of(running: Daemon, listener: str = "http") -> int:
    return int(running.addresses[listener].rpartition(":")[2])


def command(*words: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridged", *words],
        cwd=folder,
        env=clean_environment(**environ),
        capture_output=True,
        text=True,
        timeout=30,
    )


async def ready(running: Daemon, listener: str) -> RawAnswer:
    return await raw_exchange(port_of(running, listener), request("GET", "/readyz"))


async def test_a_stream_through_the_process_and_a_drain_that_lets_it_finish(
    tmp_path: Path, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    gate = asyncio.Event()
    upstream.script(stream(b"data: 1\n\n", gate, b"data: 2\n\n"))
    # A request that went well is told at debug level.
    with bridged(tmp_path, credentiald.target, TOKEN, "--log-level", "debug") as running:
        for listener in ("http", "metrics"):
            while (await ready(running, listener)).status != 200:
                await asyncio.sleep(0.02)
        async with raw_client(port_of(running)) as client:
            await client.send(ASK)
            await client.read_head()
            assert await client.read_some() == b"data: 1\n\n"
            stopping = asyncio.create_task(asyncio.to_thread(running.stop))
            await until(lambda: any(line["msg"] == "draining" for line in running.lines))
            assert (await ready(running, "metrics")).status == 503
            gate.set()
            assert await client.read_some() == b"data: 2\n\n"
            assert await client.read_some() == b""
        assert await stopping == 0
    (told,) = [line for line in running.lines if line["msg"] == "request"]
    assert (told["provider"], told["operation"], told["status"]) == ("anthropic", "anthropic.messages", 200)
    assert credentiald.authorizations == {f"Bearer {SERVICE_TOKEN}"}
    assert SERVICE_TOKEN not in running.output


async def test_after_the_grace_the_process_ends_streams_with_an_error_event(
    tmp_path: Path, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(b"data: 1\n\n", STALL))
    with bridged(tmp_path, credentiald.target, TOKEN, "--grace", "200ms") as running:
        async with raw_client(port_of(running)) as client:
            await client.send(ASK)
            await client.read_head()
            stopping = asyncio.create_task(asyncio.to_thread(running.stop, signal.SIGINT))
            body = b""
            while piece := await client.read_some():
                body += piece
        assert b"event: error\n" in body
        assert await stopping == 0


async def test_a_second_signal_stops_at_once(
    tmp_path: Path, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(b"data: 1\n\n", STALL))
    with bridged(tmp_path, credentiald.target, TOKEN) as running:
        async with raw_client(port_of(running)) as client:
            await client.send(ASK)
            await client.read_head()
            running.process.send_signal(signal.SIGTERM)
            await until(lambda: any(line["msg"] == "draining" for line in running.lines))
            assert await asyncio.to_thread(running.stop) == 128 + signal.SIGTERM


async def test_a_second_signal_names_the_records_that_are_lost_by_it(
    tmp_path: Path, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(reply(200, b"{}"), stream(b"data: 1\n\n", STALL))
    credentiald.report_refuse = Refuse(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE")
    with bridged(tmp_path, credentiald.target, TOKEN) as running:
        answer = await raw_exchange(port_of(running), ASK)
        await until(lambda: credentiald.reports > 0)
        async with raw_client(port_of(running)) as client:
            await client.send(ASK)
            await client.read_head()
            running.process.send_signal(signal.SIGTERM)
            await until(lambda: any(line["msg"] == "draining" for line in running.lines))
            assert await asyncio.to_thread(running.stop) == 128 + signal.SIGTERM
    *_, stopping, lost = running.lines
    assert (stopping["msg"], stopping["requests"]) == ("stopping at once", 1)
    assert (lost["msg"], lost["reason"]) == ("records of interceptions are lost", "stopped")
    assert lost["interception_ids"] == [answer.header("x-interception-id")]


async def test_the_client_leaving_closes_the_upstream_of_the_process(
    tmp_path: Path, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream.script(stream(b"data: 1\n\n", STALL))
    with bridged(tmp_path, credentiald.target, TOKEN) as running:
        async with raw_client(port_of(running)) as client:
            await client.send(ASK)
            await client.read_head()
            client.leave()
        assert await asyncio.wait_for(upstream.requests[0].closed.wait(), 5)


async def test_metrics_count_without_names(
    tmp_path: Path, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    with bridged(tmp_path, credentiald.target, TOKEN) as running:
        await raw_exchange(port_of(running), ASK)
        await raw_exchange(port_of(running), request("GET", "/anthropic/v1/nothing", headers=[AUTH]))
        text = (await raw_exchange(port_of(running, "metrics"), request("GET", "/metrics"))).body.decode()
    assert 'bridged_requests_total{operation="anthropic.messages",status="2xx"} 1.0' in text
    assert 'bridged_requests_total{operation="none",status="4xx"} 1.0' in text
    assert 'bridged_resolves_total{outcome="OK"} 1.0' in text
    assert "bridged_requests_in_flight 0.0" in text
    assert "corp" not in text


async def test_the_settings_say_where_the_process_goes(
    tmp_path: Path, credentiald: FakeCredentiald, upstream: ScriptedUpstream
) -> None:
    upstream_url = credentiald.providers["anthropic"].provider.base_url
    # Nobody is there, and plain http to it needs a provider of this name.
    elsewhere = "http://[fd12:3456::1]:9"
    found = []
    for flags, url in [
        (("--allow-upstream-loopback=false",), upstream_url),
        ((), elsewhere),
        (("--allow-upstream-networks=fd12::/16",), elsewhere),
        (("--allow-upstream-networks=private", "--plaintext-upstreams=anthropic"), elsewhere),
    ]:
        credentiald.providers["anthropic"].provider.base_url = url
        with bridged(tmp_path, credentiald.target, TOKEN, "--connect-timeout=300ms", *flags) as running:
            answer = await raw_exchange(port_of(running), ASK)
            found.append(
                (answer.header("x-drawbridge-error"), [flag for flag in FLAGS if flag in answer.body.decode()])
            )
    assert found[:3] == [("UPSTREAM_NOT_ALLOWED", [flag]) for flag in FLAGS]
    assert found[3][0] in ("UPSTREAM_UNREACHABLE", "UPSTREAM_TIMEOUT")
    assert upstream.requests == []


def test_a_taken_port_is_a_clear_message(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for flag in ("--listen", "--metrics-listen"):
            other = "--metrics-listen" if flag == "--listen" else "--listen"
            done = command("serve", flag, address, other, "127.0.0.1:0", folder=tmp_path, **TOKEN)
            assert done.returncode == 1
            assert address in done.stderr
            assert "Traceback" not in done.stderr


def test_all_configuration_errors_are_told_at_once(tmp_path: Path) -> None:
    for words in (("serve",), ("config", "check")):
        done = command(*words, "--grace", "soon", folder=tmp_path, BRIDGED_LISTN="x", BRIDGED_MAX_BODY="much")
        assert done.returncode == 2
        assert "BRIDGED_LISTEN" in done.stderr
        assert "soon" in done.stderr
        assert "much" in done.stderr


def test_config_check_shows_the_settings_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "credentiald.bridge-token").write_text(SERVICE_TOKEN + "\n")
    done = command("config", "check", folder=tmp_path)
    rows = {one["name"]: one for one in json.loads(command("config", "check", "--json", folder=tmp_path).stdout)}
    assert done.returncode == 0
    assert rows["credentiald_token"]["value"] == "<set>"
    assert SERVICE_TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("demo-upstream", "--help"), ("serve", "--help")])
def test_help_loads_no_server(tmp_path: Path, words: tuple[str, ...]) -> None:
    code = (
        "import sys; sys.argv = ['bridged', *sys.argv[1:]]\n"
        "from bridged.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'grpc', 'aiohttp', 'uvloop', 'prometheus_client', 'msgspec'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_demo_upstream_says_where_it_listens_and_stops_when_asked(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bridged", "demo-upstream", "--listen", "127.0.0.1:0"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert (told["msg"], told["listener"]) == ("listening", "demo")
        host, _, port = told["address"].rpartition(":")
        with socket.create_connection((host, int(port))):
            pass
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("words", [("--pace", "soon"), ("--listen", "0.0.0.0:0"), ("--listen", "nowhere")])
def test_the_demo_upstream_refuses_what_it_cannot_do(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = command("demo-upstream", *words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words[1] in done.stderr
