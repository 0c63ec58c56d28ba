"""G3: after a revoke has returned, no new upstream request on any bridge uses that key or token; running streams end by
setting within 100 ms at p99.

Proved with three bridges under load, real processes, in many trials: `DRAWBRIDGE_TRIALS` says how many
(scripts/revocation gives 1000); CI runs the short form. Each trial has a stream and two clients on each of the bridges
that use what is taken away, beside other load: a token, a user, a central key, a provider. The upstream knows to the
byte which requests had been sent when the rpc returned; after that none with it may come, and the streams end. The
figures go to standard output. The two moments that load meets rarely are brought about on purpose: a decision that is
on its way to the bridge, and a request that waits for its connection.

Wider: tests/daemons/bridged/test_watch.py, tests/daemons/credentiald/test_watch.py, docs/trust.md (measured).
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from drawbridge.v1 import admin_service_pb2 as pb
from drawbridge.v1 import provider_pb2, user_pb2
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceStub

from credentiald.rpc.names import UNACKNOWLEDGED
from tests.fakes.counting_upstream import CountingUpstream, Sent, running_counting_upstream
from tests.fakes.credentiald import (
    SERVICE_TOKEN,
    USER_TOKEN,
    FakeCredentiald,
    Refuse,
    provider,
    running_credentiald,
)
from tests.support.bridge import until
from tests.support.credentiald import bearer
from tests.support.pair import running_pair
from tests.support.processes import Daemon, bridged
from tests.support.raw_http import RawClient, raw_client, raw_exchange, request
from tests.support.rpc import rpcs
from tests.support.tcp_server import tcp_server
from tests.support.three_bridges import BRIDGES, port_of, quantile_ms, running_tasks, three_bridges

# What is measured here would be another thing beside other tests.
pytestmark = pytest.mark.alone

TRIALS = int(os.environ.get("DRAWBRIDGE_TRIALS", "16"))
# For each bridge: with what is taken away, and beside it.
CLIENTS, OTHERS = 2, 2
# So many that a bridge that is stopped nearly always has answers that it has not read.
ASKING = 16
# What is promised at p99, with room for a machine that is busy with other things: scripts/revocation is held to 100 ms.
P99_SECONDS = float(os.environ.get("DRAWBRIDGE_P99_SECONDS", "1.0"))
ENDS_ON = "tokens,users,keys,providers"


@dataclass
class Figures:
    """Of one kind: when streams ended after the call and its return, how long that took, what was sent wrongly."""

    called_seconds: list[float] = field(default_factory=list)
    stream_seconds: list[float] = field(default_factory=list)
    rpc_seconds: list[float] = field(default_factory=list)
    sent_after: int = 0


@dataclass
class Deployment:
    """Three bridges before one credentiald and one upstream."""

    upstream: CountingUpstream
    admin: AdminServiceStub
    metadata: Any
    ports: list[int]
    numbers: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    async def call(self, name: str, message: Any) -> Any:
        return await getattr(self.admin, name)(message, metadata=self.metadata)

    async def user(self, name: str) -> tuple[str, str]:
        """A new user's token with its id."""
        await self.call("CreateUser", pb.CreateUserRequest(user=user_pb2.User(username=name)))
        made = await self.call("CreateToken", pb.CreateTokenRequest(user=name))
        return made.access_token, made.token.id

    async def provider(self, name: str) -> None:
        """A new provider with a key of its own, at a path of its own of the upstream."""
        message = pb.CreateProviderRequest(
            provider=provider_pb2.Provider(name=name, type="openai", base_url=f"{self.upstream.url}/{name}/v1"),
            central_key=provider_pb2.KeyMaterial(api_key=f"sk-{name}-0"),
        )
        await self.call("CreateProvider", message)


@asynccontextmanager
async def deployment(folder: Path, *arguments: str) -> AsyncIterator[Deployment]:
    """All of it, from nothing; `arguments` are credentiald's."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_counting_upstream())
        bridges = three_bridges(folder, None, *arguments, bridge_arguments=("--end-streams-on", ENDS_ON))
        plane, ports = await stack.enter_async_context(bridges)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(plane.addresses["admin"]))
        token = (folder / "credentiald.admin-token").read_text().strip()
        running = Deployment(upstream, AdminServiceStub(channel), bearer(token), ports)
        for name in ("calm", "keys", "providers"):
            await running.provider(name)
        yield running


def asked(provider: str, token: str, mark: str, *, stream: bool) -> bytes:
    body = json.dumps({"model": mark, "stream": stream, "messages": []}, separators=(",", ":")).encode()
    target = f"/{provider}/v1/chat/completions"
    return request("POST", target, headers=[("Authorization", f"Bearer {token}")], body=body)


async def keep_asking(port: int, data: bytes) -> None:
    """Ask, and ask again, whatever the answer."""
    while True:
        async with raw_client(port, timeout_seconds=30) as client:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await client.send(data)
                    await client.read_answer()


async def opened(client: RawClient, data: bytes) -> None:
    await client.send(data)
    assert (await client.read_head()).status == 200
    assert await client.read_some()


async def time_of_end(client: RawClient) -> float:
    """When the last byte of a stream came."""
    while await client.read_some():
        pass
    return time.perf_counter()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is used, how it is taken away, and how a request shows that it used it."""

    provider: str
    token: str
    mark: str
    take_away: Callable[[], Any]
    uses_it: Callable[[Sent], bool]
    after: Callable[[], Any] | None = None


async def tokens(at: Deployment, number: int) -> Trial:
    token, token_id = await at.user(f"token-{number}")
    mark = f"t-{number}-"
    return Trial(
        provider="calm",
        token=token,
        mark=mark,
        take_away=lambda: at.call("RevokeToken", pb.RevokeTokenRequest(id=token_id)),
        uses_it=lambda sent: mark.encode() in sent.body,
    )


async def users(at: Deployment, number: int) -> Trial:
    token, _ = await at.user(f"user-{number}")
    mark = f"u-{number}-"
    return Trial(
        provider="calm",
        token=token,
        mark=mark,
        take_away=lambda: at.call("SuspendUser", pb.SuspendUserRequest(user=f"user-{number}")),
        uses_it=lambda sent: mark.encode() in sent.body,
    )


async def keys(at: Deployment, number: int) -> Trial:
    token, _ = await at.user(f"key-{number}")
    key, next_key = f"sk-keys-{number}", f"sk-keys-{number + 1}"
    return Trial(
        provider="keys",
        token=token,
        mark=f"k-{number}-",
        take_away=lambda: at.call(
            "SetCentralKey",
            pb.SetCentralKeyRequest(provider="keys", central_key=provider_pb2.KeyMaterial(api_key=next_key)),
        ),
        uses_it=lambda sent: sent.key == key,
    )


async def providers(at: Deployment, number: int) -> Trial:
    token, _ = await at.user(f"provider-{number}")

    def switched(*, on: bool) -> Any:
        message = pb.UpdateProviderRequest(provider=provider_pb2.Provider(name="providers", enabled=on))
        message.update_mask.paths.append("enabled")
        return at.call("UpdateProvider", message)

    return Trial(
        provider="providers",
        token=token,
        mark=f"p-{number}-",
        take_away=lambda: switched(on=False),
        uses_it=lambda sent: sent.path.startswith("/providers/"),
        after=lambda: switched(on=True),
    )


KINDS = (tokens, users, keys, providers)


async def run(at: Deployment, trial: Trial, figures: Figures) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(port, timeout_seconds=30)) for port in at.ports]
        stream = asked(trial.provider, trial.token, trial.mark, stream=True)
        await asyncio.gather(*(opened(client, stream) for client in clients))
        data = asked(trial.provider, trial.token, trial.mark, stream=False)
        ends = [asyncio.ensure_future(time_of_end(client)) for client in clients]
        async with running_tasks(*(keep_asking(port, data) for port in at.ports for _ in range(CLIENTS))):
            seen = len(at.upstream.requests)
            await until(lambda: len(at.upstream.requests) >= seen + BRIDGES * CLIENTS)
            began = time.perf_counter()
            await trial.take_away()
            returned = time.perf_counter()
            sent_before = at.upstream.arrived()
            ended = await asyncio.wait_for(asyncio.gather(*ends), 20)
            # As long again, for requests that would be sent late.
            await asyncio.sleep(0.02)
        figures.rpc_seconds.append(returned - began)
        figures.called_seconds.extend(one - began for one in ended)
        figures.stream_seconds.extend(max(0.0, one - returned) for one in ended)
        figures.sent_after += sum(trial.uses_it(sent) for sent in at.upstream.requests[sent_before:])
        at.upstream.requests.clear()
        if trial.after is not None:
            await trial.after()


def table(figures: dict[str, Figures]) -> str:
    lines = [
        "| what is taken away | trials | streams | they end after the call, p50 | p99 | after its return, p99 "
        "| longest | the command takes, p50 | p99 | requests sent after its return |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, one in figures.items():
        calls, ends, rpcs = one.called_seconds, one.stream_seconds, one.rpc_seconds
        cells = (
            kind,
            len(rpcs),
            len(ends),
            f"{quantile_ms(calls, 0.5):.1f} ms",
            f"{quantile_ms(calls, 0.99):.1f} ms",
            f"{quantile_ms(ends, 0.99):.1f} ms",
            f"{max(ends) * 1000:.1f} ms",
            f"{quantile_ms(rpcs, 0.5):.1f} ms",
            f"{quantile_ms(rpcs, 0.99):.1f} ms",
            one.sent_after,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


async def figures_of(folder: Path, trials: int, *arguments: str) -> dict[str, Figures]:
    figures = {kind.__name__: Figures() for kind in KINDS}
    async with deployment(folder, *arguments) as at:
        calm, _ = await at.user("calm")
        data = asked("calm", calm, "calm", stream=False)
        async with running_tasks(*(keep_asking(port, data) for port in at.ports for _ in range(OTHERS))):
            for number in range(trials // len(KINDS)):
                for kind in KINDS:
                    await run(at, await kind(at, number), figures[kind.__name__])
    return figures


async def test_what_was_taken_away_is_gone_from_every_bridge_when_the_command_returns(tmp_path: Path) -> None:
    figures = await figures_of(tmp_path, TRIALS)
    print(f"\n{table(figures)}")
    for kind, one in figures.items():
        assert one.sent_after == 0, f"{kind}: requests were sent after the return"
        assert quantile_ms(one.stream_seconds, 0.99) <= P99_SECONDS * 1000, kind


async def test_so_it_is_where_the_bridges_are_connected_to_several_workers(tmp_path: Path) -> None:
    figures = await figures_of(tmp_path, 8, "--workers", "2")
    assert {kind: one.sent_after for kind, one in figures.items()} == dict.fromkeys(figures, 0)


# What load meets once in many trials: a request that was decided before, and is sent after. Here it always is.

TOKEN_ID = "00000000-0000-7000-8000-0000000070ce"
NOT_ANY_MORE = Refuse(code=grpc.StatusCode.UNAUTHENTICATED, reason="ACCESS_TOKEN_INVALID")


@asynccontextmanager
async def watching_bridge(folder: Path, base_url: str) -> AsyncIterator[tuple[FakeCredentiald, int]]:
    """A bridge before a credentiald whose answers the test holds back; that credentiald, and the bridge's port."""
    async with running_credentiald() as plane:
        plane.has_watch = True
        plane.providers["corp"] = provider("openai", base_url, name="corp", api_key="sk-revoked")
        plane.providers["corp"].access_token_id = TOKEN_ID
        environ = {"BRIDGED_CREDENTIALD_TOKEN": SERVICE_TOKEN}
        # What runs may go on: it is about what does not run yet.
        flags = ("--connect-timeout", "20s", "--credentiald-timeout", "20s", "--end-streams-on", "none")
        bridge = bridged(folder, plane.target, environ, *flags)
        daemon = await asyncio.to_thread(bridge.__enter__)
        try:
            await until(lambda: bool(plane.acknowledged))
            yield plane, port_of(daemon)
        finally:
            await asyncio.to_thread(bridge.__exit__, None, None, None)


async def revoked(plane: FakeCredentiald) -> None:
    """The token is revoked, and the bridge has acknowledged that."""
    plane.refuse = NOT_ANY_MORE
    revision = plane.change("token.revoked", TOKEN_ID)
    await until(lambda: revision in plane.acknowledged)


async def test_a_decision_that_was_on_its_way_during_the_revoke_counts_no_more(tmp_path: Path) -> None:
    async with (
        running_counting_upstream() as upstream,
        watching_bridge(tmp_path, f"{upstream.url}/v1") as (plane, port),
    ):
        data = asked("corp", USER_TOKEN, "m", stream=False)
        assert (await raw_exchange(port, data)).status == 200
        before = upstream.arrived()
        # The answer is written down, and held back.
        old = plane.providers["corp"].SerializeToString()
        plane.hang(unary=False)
        asking = asyncio.create_task(raw_exchange(port, data, timeout_seconds=30))
        await until(lambda: len(plane.resolves) == 2)
        await revoked(plane)
        answers = [type(plane.providers["corp"]).FromString(old), NOT_ANY_MORE]
        plane._answer = lambda request: answers.pop(0) if len(answers) > 1 else answers[0]
        plane.go_on()
        answer = await asking
        assert (answer.status, answer.error) == (401, "ACCESS_TOKEN_INVALID")
        assert upstream.arrived() == before


@pytest.mark.parametrize("harm", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_revoke_does_not_return_before_the_bridge_has_obeyed_or_the_wait_is_over(
    tmp_path: Path, harm: signal.Signals
) -> None:
    async with running_pair(tmp_path, None) as pair, rpcs(tmp_path, pair.credentiald) as rpc:
        await until_watchers(pair.credentiald, 1)
        pair.bridged.process.send_signal(harm)
        try:
            if harm is signal.SIGKILL:
                # Whose connection is gone may live, as far as credentiald can tell.
                await until_watchers(pair.credentiald, 0)
            began = time.monotonic()
            await rpc.call("SuspendUser", pb.SuspendUserRequest(user="ann"))
            took_seconds = time.monotonic() - began
        finally:
            if harm is signal.SIGSTOP:
                pair.bridged.process.send_signal(signal.SIGCONT)
        # As long as --revoke-wait says.
        assert took_seconds >= 0.95


async def test_what_a_stopped_bridge_sends_when_it_goes_on_was_not_called_gone(tmp_path: Path) -> None:
    async with (
        running_counting_upstream() as upstream,
        running_pair(tmp_path, None) as pair,
        grpc.aio.insecure_channel(pair.credentiald.addresses["admin"]) as channel,
    ):
        admin_token = (tmp_path / "credentiald.admin-token").read_text().strip()
        at = Deployment(upstream, AdminServiceStub(channel), bearer(admin_token), [port_of(pair.bridged)])
        await at.provider("calm")
        await until_watchers(pair.credentiald, 1)
        told: list[bool] = []
        for number in range(4):
            token, token_id = await at.user(f"ann-{number}")
            mark = f"m-{number}-"
            data = asked("calm", token, mark, stream=False)
            async with running_tasks(*(keep_asking(at.ports[0], data) for _ in range(ASKING))):
                seen = len(upstream.requests)
                await until(lambda seen=seen: len(upstream.requests) > seen + ASKING)  # type: ignore[misc]
                pair.bridged.process.send_signal(signal.SIGSTOP)
                try:
                    # It owes this one first, so its time is over before that of the revoke.
                    await at.user(f"bob-{number}")
                    await asyncio.sleep(0.3)
                    call = at.admin.RevokeToken(pb.RevokeTokenRequest(id=token_id), metadata=at.metadata)
                    await call
                    told.append(UNACKNOWLEDGED in dict(await call.trailing_metadata()))
                    sent = upstream.arrived()
                finally:
                    pair.bridged.process.send_signal(signal.SIGCONT)
                await until_watchers(pair.credentiald, 1)
            late = sum(mark.encode() in one.body for one in upstream.requests[sent:])
            print(f"{late} requests were sent after the return, told: {told[-1]}")
            assert told[-1] or not late
        assert all(told)


async def until_watchers(plane: Daemon, count: int) -> None:
    metrics = f"http://{plane.addresses['metrics']}/metrics"
    async with asyncio.timeout(20):
        while b"\ncredentiald_watchers %d.0" % count not in await asyncio.to_thread(fetched, metrics):
            await asyncio.sleep(0.02)


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bytes(answer.read())


def connections_begun(port: int) -> int:
    """How many connections to this port of this machine do not stand yet (proc(5), /proc/net/tcp: SYN_SENT is 02)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


async def test_a_request_that_waited_for_a_connection_during_the_revoke_is_not_sent(tmp_path: Path) -> None:
    arrived: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if data := await reader.read(1 << 16):
            arrived.append(data)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        upstream_port = listener.getsockname()[1]
        for _ in range(3):
            # They fill the queue of those that are not accepted, so whoever comes now has to try again.
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        begun = connections_begun(upstream_port)
        async with watching_bridge(tmp_path, f"http://127.0.0.1:{upstream_port}/v1") as (plane, port):
            data = asked("corp", USER_TOKEN, "m", stream=False)
            asking = asyncio.create_task(raw_exchange(port, data, timeout_seconds=30))
            await until(lambda: connections_begun(upstream_port) > begun)
            await revoked(plane)
            async with tcp_server(serve, listener=listener):
                answer = await asking
            assert (answer.status, answer.error) == (401, "ACCESS_TOKEN_INVALID")
            assert arrived == []
