"""Both daemons with two workers each, as processes: what they share, what a dead one costs, how all of them end."""

import asyncio
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from drawbridge.v1 import credential_service_pb2
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceStub

from tests.fakes.scripted_upstream import STALL, running_upstream, stream
from tests.support.bridge import until
from tests.support.http import send
from tests.support.pair import CENTRAL_KEY, Pair, environment_of, status_of, until_ready
from tests.support.processes import bridged, clean_environment, commanded, credentiald
from tests.support.raw_http import raw_client, request
from tests.support.rpc import rpcs
from tests.support.workers import owner_of, pids_of

CHAT = "/openai/v1/chat/completions"
# Who has which connection is in folders of /proc.
TWO = ("--workers", "2", "--debuggable")


@asynccontextmanager
async def pair_of_two(folder, *arguments):
    """The pair with two workers on both sides."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_upstream())
        environ = environment_of({"openai": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": f"{upstream.url}/v1"}})
        plane = await asyncio.to_thread(stack.enter_context, credentiald(folder, environ, *TWO))
        main = plane.addresses["main"]
        bridge = await asyncio.to_thread(stack.enter_context, bridged(folder, main, None, *TWO, *arguments))
        await until_ready(plane)
        await until_ready(bridge)
        async with rpcs(folder, plane) as rpc:
            _, token = await rpc.user("ann")
        yield Pair(folder=folder, upstream=upstream, credentiald=plane, bridged=bridge, token=token)


def port_of(address):
    return int(address.rpartition(":")[2])


async def opened(pair, client):
    """A stream on this connection up to its first event; the worker that has it."""
    headers = [("Authorization", f"Bearer {pair.token}")]
    await client.send(request("POST", CHAT, headers=headers, body=b'{"model":"m","stream":true}'))
    assert (await client.read_head()).status == 200
    assert await client.read_some() == b"data: 1\n\n"
    return owner_of(client.writer.get_extra_info("sockname")[1], pids_of(pair.bridged))


@asynccontextmanager
async def a_stream_on_each(pair):
    """A stream on each of the two workers of the bridge, with the worker's pid."""
    port = port_of(pair.bridged.addresses["http"])
    async with raw_client(port) as first:
        one = await opened(pair, first)
        # Only the other one can accept while this one rests.
        os.kill(one, signal.SIGSTOP)
        try:
            async with raw_client(port) as second:
                other = await opened(pair, second)
                os.kill(one, signal.SIGCONT)
                yield (first, one), (second, other)
        finally:
            if alive(one):
                os.kill(one, signal.SIGCONT)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def chat(pair, **headers):
    headers = {"Authorization": f"Bearer {pair.token}", **headers}
    return await send(pair.bridged.addresses["http"], "POST", CHAT, headers, b'{"model":"m","messages":[]}')


def series(daemon):
    """The samples of /metrics by their names and labels."""
    with urllib.request.urlopen(f"http://{daemon.addresses['metrics']}/metrics", timeout=5) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    samples = [line.rpartition(" ")[::2] for line in lines]
    assert len(samples) == len(dict(samples)), "a series came twice"
    return {name: float(value) for name, value in samples}


async def test_two_workers_of_each_daemon_serve_and_their_metrics_add_up(tmp_path):
    async with pair_of_two(tmp_path) as pair:
        pair.upstream.script(stream(b"data: 1\n\n", STALL), stream(b"data: 1\n\n", STALL))
        async with a_stream_on_each(pair) as ((_, one), (_, other)):
            answers = [await chat(pair) for _ in range(6)]
            bridge = await asyncio.to_thread(series, pair.bridged)
        plane = await asyncio.to_thread(series, pair.credentiald)

        assert one != other
        assert {answer.status for answer in answers} == {200}
        assert bridge["bridged_requests_in_flight"] == 2
        assert bridge['bridged_requests_total{operation="openai.chat_completions",status="2xx"}'] == 6
        assert bridge['bridged_resolves_total{outcome="OK"}'] == 8
        assert bridge["bridged_resolve_duration_seconds_count"] == 8
        assert bridge['bridged_resolve_duration_seconds_bucket{le="+Inf"}'] == 8
        assert [value for name, value in bridge.items() if name.startswith("bridged_build_info")] == [1]
        assert plane['credentiald_resolutions_total{source="CENTRAL_KEY"}'] == 8
        for daemon, listeners in ((pair.bridged, 2), (pair.credentiald, 3)):
            assert len([line for line in daemon.lines if line["msg"] == "listening"]) == listeners
            assert len(pids_of(daemon)) == 2


async def test_each_worker_has_its_part_of_a_limit(tmp_path):
    async with pair_of_two(tmp_path, "--max-concurrency", "2") as pair:
        pair.upstream.script(stream(b"data: 1\n\n", STALL), stream(b"data: 1\n\n", STALL))
        async with a_stream_on_each(pair):
            answers = [await chat(pair) for _ in range(6)]
            bridge = await asyncio.to_thread(series, pair.bridged)

        assert {answer.status for answer in answers} == {503}
        assert bridge['bridged_limit{limit="bridge"}'] == 2
        assert bridge['bridged_limit_refusals_total{limit="bridge"}'] == 6


async def test_a_killed_worker_costs_only_its_own_requests_and_is_replaced(tmp_path):
    async with pair_of_two(tmp_path) as pair:
        gate = asyncio.Event()
        events = (b"data: 1\n\n", gate, b"data: 2\n\n")
        for _ in range(3):
            assert (await chat(pair)).status == 200
        counted = await asyncio.to_thread(series, pair.bridged)
        pair.upstream.script(stream(*events), stream(*events))
        async with a_stream_on_each(pair) as ((doomed, victim), (spared, survivor)):
            os.kill(victim, signal.SIGKILL)
            with pytest.raises((AssertionError, ConnectionError, asyncio.IncompleteReadError)):
                assert await doomed.read_some(), "the stream is over"
            gate.set()
            assert await spared.read_some() == b"data: 2\n\n"
            assert await spared.read_some() == b""
            await until(lambda: len(pids_of(pair.bridged)) == 3, timeout_seconds=15)
            await until_ready(pair.bridged)
            answers = [await chat(pair) for _ in range(4)]

        assert {answer.status for answer in answers} == {200}
        assert alive(survivor)
        [died] = [line for line in pair.bridged.lines if line["msg"] == "a worker died and is started anew"]
        assert died["end"] == "was killed by SIGKILL"
        answered = 'bridged_requests_total{operation="openai.chat_completions",status="2xx"}'
        assert counted[answered] == 3
        # 3 before, the spared stream, 4 after: what the dead one had counted is not lost.
        assert (await asyncio.to_thread(series, pair.bridged))[answered] == 8


def of_processes(daemon, module):
    """What is said of the processes of a daemon: ready, draining, workers, restarts."""
    found = series(daemon)
    return tuple(found.get(f"{module}_{one}") for one in ("ready", "draining", "workers", "worker_restarts_total"))


async def test_a_worker_that_hangs_makes_its_daemon_not_ready_and_its_gauges_are_left_out(tmp_path):
    async with pair_of_two(tmp_path) as pair:
        pair.upstream.script(stream(b"data: 1\n\n", STALL), stream(b"data: 1\n\n", STALL))
        async with a_stream_on_each(pair) as ((_, hanging), _):
            before = await asyncio.to_thread(series, pair.bridged)
            os.kill(hanging, signal.SIGSTOP)
            during = await asyncio.to_thread(series, pair.bridged)
            said = await asyncio.to_thread(of_processes, pair.bridged, "bridged")
            os.kill(hanging, signal.SIGCONT)
            await until_ready(pair.bridged)
            after = await asyncio.to_thread(of_processes, pair.bridged, "bridged")

        assert said == (0, 0, 1, 0)
        assert after == (1, 0, 2, 0)
        assert (before["bridged_requests_in_flight"], during["bridged_requests_in_flight"]) == (2, 1)
        # What it had counted stays in the sums.
        assert during['bridged_resolves_total{outcome="OK"}'] == before['bridged_resolves_total{outcome="OK"}'] == 2


@pytest.mark.parametrize("module", ["bridged", "credentiald"])
async def test_a_daemon_whose_workers_all_died_says_that_it_is_not_ready(tmp_path, module):
    async with pair_of_two(tmp_path) as pair:
        daemon = getattr(pair, module)
        for pid in pids_of(daemon):
            os.kill(pid, signal.SIGKILL)
        # New ones take a second until they serve.
        without = await asyncio.to_thread(of_processes, daemon, module)
        await until(lambda: len(pids_of(daemon)) == 4, timeout_seconds=30)
        await until_ready(daemon)
        whole = await asyncio.to_thread(of_processes, daemon, module)

        assert without[:3] == (0, 0, 0)
        assert whole == (1, 0, 2, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_drain_lets_streams_of_all_workers_finish(tmp_path, number):
    async with pair_of_two(tmp_path) as pair:
        gate = asyncio.Event()
        events = (b"data: 1\n\n", gate, b"data: 2\n\n")
        pair.upstream.script(stream(*events), stream(*events))
        async with a_stream_on_each(pair) as streams:
            # A service manager may signal every process of the service.
            for _, worker in streams:
                os.kill(worker, number) if number == signal.SIGTERM else None
            stopping = asyncio.create_task(asyncio.to_thread(pair.bridged.stop, number))
            draining = "draining the workers"
            await until(lambda: any(line["msg"] == draining for line in pair.bridged.lines))
            ready = await asyncio.to_thread(status_of, f"http://{pair.bridged.addresses['metrics']}/readyz")
            gate.set()
            for client, _ in streams:
                assert await client.read_some() == b"data: 2\n\n"
                assert await client.read_some() == b""
            assert await stopping == 0
        assert ready == 503
        assert await asyncio.to_thread(pair.credentiald.stop) == 0
        assert not [pid for daemon in (pair.bridged, pair.credentiald) for pid in pids_of(daemon) if alive(pid)]


@pytest.mark.alone
async def test_the_drain_of_all_workers_ends_with_the_grace(tmp_path):
    async with pair_of_two(tmp_path, "--grace", "300ms") as pair:
        pair.upstream.script(stream(b"data: 1\n\n", STALL), stream(b"data: 1\n\n", STALL))
        async with a_stream_on_each(pair):
            started = time.monotonic()
            assert await asyncio.to_thread(pair.bridged.stop) == 0
            assert time.monotonic() - started < 4


@pytest.mark.alone
async def test_a_second_signal_ends_supervisor_and_workers_at_once(tmp_path):
    async with pair_of_two(tmp_path) as pair:
        pair.upstream.script(stream(b"data: 1\n\n", STALL), stream(b"data: 1\n\n", STALL))
        async with a_stream_on_each(pair):
            pair.bridged.process.send_signal(signal.SIGTERM)
            await until(lambda: any(line["msg"] == "draining the workers" for line in pair.bridged.lines))
            started = time.monotonic()
            assert await asyncio.to_thread(pair.bridged.stop) == 128 + signal.SIGTERM
            await until(lambda: not any(alive(pid) for pid in pids_of(pair.bridged)))
            assert time.monotonic() - started < 4


@pytest.mark.alone
async def test_workers_that_are_ended_at_once_name_the_records_that_are_lost_by_it(tmp_path):
    async with pair_of_two(tmp_path) as pair:
        gate = asyncio.Event()
        events = (b"data: 1\n\n", gate, b"data: 2\n\n")
        pair.upstream.script(stream(*events), stream(*events))
        async with a_stream_on_each(pair) as streams:
            assert await asyncio.to_thread(pair.credentiald.stop) == 0
            gate.set()
            for client, _ in streams:
                assert await client.read_some() == b"data: 2\n\n"
                assert await client.read_some() == b""
        pair.bridged.process.send_signal(signal.SIGTERM)
        # From here on they try for five seconds more.
        await until(lambda: any(line["msg"] == "draining the workers" for line in pair.bridged.lines))
        assert await asyncio.to_thread(pair.bridged.stop) == 128 + signal.SIGTERM
        lost = [line for line in pair.bridged.lines if line["msg"] == "records of interceptions are lost"]
        assert [(line["reason"], line["interceptions"]) for line in lost] == [("stopped", 1)] * 2
        assert sum(line["msg"] == "stopping at once" for line in pair.bridged.lines) == 2


async def test_workers_whose_supervisor_is_killed_drain_and_end(tmp_path):
    async with pair_of_two(tmp_path) as pair:
        workers = [pid for daemon in (pair.bridged, pair.credentiald) for pid in pids_of(daemon)]
        await asyncio.to_thread(pair.bridged.stop, signal.SIGKILL)
        await asyncio.to_thread(pair.credentiald.stop, signal.SIGKILL)
        await until(lambda: not any(alive(pid) for pid in workers), timeout_seconds=10)

        assert len(workers) == 4


async def test_a_revoked_token_is_refused_by_every_worker_of_credentiald_at_once(tmp_path):
    environ = environment_of({"openai": {"TYPE": "openai", "KEY": CENTRAL_KEY}})
    with credentiald(tmp_path, environ, *TWO) as plane:
        service = (tmp_path / "credentiald.bridge-token").read_text().strip()
        commanded(tmp_path, plane, "users", "create", "ann")
        token = commanded(tmp_path, plane, "tokens", "create", "--user", "ann").strip()
        [listed] = json.loads(commanded(tmp_path, plane, "tokens", "list", "--user", "ann", "--json"))
        async with AsyncExitStack() as stack:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(plane.addresses["main"], options=options))
                for _ in range(24)
            ]
            calls = [
                CredentialServiceStub(channel).ResolveProviderStream(metadata=(("authorization", f"Bearer {service}"),))
                for channel in channels
            ]
            # Twice: the second answer is one that the worker has kept.
            before = [await refusal_of(call, token) for call in calls * 2]
            workers = {owner_of(port, pids_of(plane)) for port in client_ports(port_of(plane.addresses["main"]))}
            commanded(tmp_path, plane, "tokens", "revoke", listed["id"])
            after = [await refusal_of(call, token) for call in calls]
            for call in calls:
                call.cancel()

    assert workers - {None} == set(pids_of(plane))
    assert set(before) == {""}
    assert set(after) == {"ACCESS_TOKEN_INVALID"}


async def refusal_of(call, token):
    """The reason why a question on this stream is refused, empty where it is answered."""
    question = credential_service_pb2.ResolveProviderRequest(provider="openai", access_token=token)
    async with asyncio.timeout(10):
        await call.write(credential_service_pb2.ResolveProviderStreamRequest(items=[question]))
        [result] = (await call.read()).results
    return result.refusal.reason


def client_ports(server_port):
    """The ports of this machine's clients of a server."""
    with open("/proc/net/tcp") as v4, open("/proc/net/tcp6") as v6:
        rows = [line.split() for file in (v4, v6) for line in file.read().splitlines()[1:]]
    pairs = [[int(place.rpartition(":")[2], 16) for place in row[1:3]] for row in rows]
    return {theirs for ours, theirs in pairs if ours == server_port and theirs}


def start(module, folder, *arguments):
    """A daemon that is expected to refuse to start."""
    return subprocess.run(
        [sys.executable, "-m", module, "serve", *TWO, *arguments],
        cwd=folder,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("module", "flag"),
    [(module, flag) for module in ("bridged", "credentiald") for flag in ("--listen", "--metrics-listen")]
    + [("credentiald", "--admin-listen")],
)
def test_workers_refuse_a_unix_socket(tmp_path, module, flag):
    refused = start(module, tmp_path, flag, f"unix:{tmp_path}/one.sock")

    assert refused.returncode == 2
    assert f"unix:{tmp_path}/one.sock cannot be shared by workers" in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("module", "flag"), [("credentiald", "--admin-listen"), ("bridged", "--listen")])
def test_a_port_that_somebody_else_has_is_a_clear_message(tmp_path, module, flag):
    free = [part for one in ("--listen", "--metrics-listen") if one != flag for part in (one, "127.0.0.1:0")]
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = start(module, tmp_path, flag, address, *free)

    assert refused.returncode == 1
    assert address in refused.stderr
    assert "Traceback" not in refused.stderr


def test_workers_that_never_serve_are_given_up_with_a_reason(tmp_path):
    free = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
    refused = start("bridged", tmp_path, *free, "--credentiald-ca", str(tmp_path / "missing.pem"))

    assert refused.returncode == 1
    assert "missing.pem" in refused.stderr
    assert "before it could serve" in refused.stderr
    assert "Traceback" not in refused.stderr


def waits_for(inode):
    """Whether anybody waits for the lock of a file."""
    with open("/proc/locks") as locks:
        return any("->" in line and f":{inode} " in line for line in locks)


@pytest.mark.parametrize("module", ["credentiald", "bridged"])
async def test_workers_that_log_into_a_pipe_lock_it(tmp_path, module):
    own = ["--credentiald", "127.0.0.1:1"] if module == "bridged" else ["--admin-listen", "127.0.0.1:0"]
    reading, writing = os.pipe()
    fcntl.lockf(writing, fcntl.LOCK_EX)
    process = subprocess.Popen(
        [sys.executable, "-m", module, "serve", "--log-human", "none", "--log-json", "-", "--workers", "2", *own,
         *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")],
        cwd=tmp_path, env=clean_environment(), stdout=writing,
    )  # fmt: skip
    with open(reading, "rb") as pipe, process:
        try:
            await until(lambda: waits_for(os.fstat(writing).st_ino) or select.select([pipe], [], [], 0)[0])
            assert not select.select([pipe], [], [], 0)[0]
            fcntl.lockf(writing, fcntl.LOCK_UN)
            os.close(writing)
            assert json.loads(await asyncio.to_thread(pipe.readline))["level"]
        finally:
            process.terminate()
