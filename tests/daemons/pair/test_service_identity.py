"""Who a service is: by the name in its certificate, by its token, and by the one before that for a while."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc
import pytest
from drawbridge.v1 import admin_service_pb2, credential_service_pb2, user_key_service_pb2
from drawbridge.v1.admin_service_pb2_grpc import AdminServiceStub
from drawbridge.v1.credential_service_pb2_grpc import CredentialServiceStub
from drawbridge.v1.user_key_service_pb2_grpc import UserKeyServiceStub

from tests.fakes.scripted_upstream import ScriptedUpstream, running_upstream
from tests.support.certificates import Authority, Mounted, client_files, server_files
from tests.support.credentiald import bearer, reason_of
from tests.support.pair import CENTRAL_KEY, environment_of, until_ready
from tests.support.processes import Daemon, bridged, clean_environment, command, commanded, credentiald

EDGE, BOSS = "spiffe://example.org/edge", "boss.example.org"
DEADLINE_SECONDS = 10.0


@dataclass
class Plane:
    """credentiald with TLS and client certificates from one authority, and the files of its clients."""

    folder: Path
    authority: Authority
    mounted: Mounted
    daemon: Daemon
    upstream: ScriptedUpstream

    def admin(self) -> dict[str, str]:
        return {
            "CREDENTIALD_ADMIN_CA": self.mounted.path("ca.crt"),
            "CREDENTIALD_ADMIN_CERT": self.mounted.path("client.crt"),
            "CREDENTIALD_ADMIN_KEY": self.mounted.path("client.key"),
        }

    def command(self, *words: str, **environ: str) -> str:
        return commanded(self.folder, self.daemon, *words, **self.admin(), **environ)

    @contextmanager
    def bridged(self, **environ: str) -> Iterator[Daemon]:
        """A bridge that shows the client's files, in a folder without a token."""
        folder = self.folder / "bridge"
        folder.mkdir(exist_ok=True)
        flags = (
            *("--credentiald-ca", self.mounted.path("server-ca.crt")),
            *("--credentiald-cert", self.mounted.path("client.crt")),
            *("--credentiald-key", self.mounted.path("client.key")),
        )
        with bridged(folder, self.daemon.addresses["main"], environ, *flags) as daemon:
            yield daemon


@asynccontextmanager
async def running(folder: Path, *sans: str) -> AsyncIterator[Plane]:
    """credentiald; its clients' certificate has these names."""
    authority, mounted = Authority(), Mounted(folder / "tls")
    mounted.replace({**server_files(authority), **client_files(authority, *sans)})
    tls = (
        *("--tls-cert", mounted.path("tls.crt"), "--tls-key", mounted.path("tls.key")),
        *("--tls-client-ca", mounted.path("ca.crt"), "--metrics-tls-cert", "none"),
    )
    async with running_upstream() as upstream:
        environ = environment_of({"openai": {"TYPE": "openai", "KEY": CENTRAL_KEY, "BASE_URL": upstream.url}})
        with credentiald(folder, environ, *tls) as daemon:
            yield Plane(folder, authority, mounted, daemon, upstream)


async def test_a_certificate_is_the_service_whose_name_it_has_and_a_token_comes_first(tmp_path):
    async with running(tmp_path, "operator.example.org") as plane:
        authority = plane.authority
        made = plane.command("services", "create", "edge", "--role", "bridge", "--certificate-san", EDGE)
        plane.command("services", "create", "boss", "--role", "admin", "--certificate-san", BOSS.upper())
        both = plane.command(
            "services", "create", "both", "--role", "bridge", "--certificate-san", "urn:both", "--token"
        ).strip()
        plane.command("users", "create", "ann")
        user = plane.command("tokens", "create", "--user", "ann").strip()
        edge, boss, other = authority.issue(EDGE), authority.issue(BOSS), authority.issue("nobody.example.org")
        several, written_as_dns = authority.issue(EDGE, "urn:both"), authority.issue("x.example", dns_names=[EDGE])
        ping = ("main", CredentialServiceStub, "Ping", credential_service_pb2.PingRequest())
        users = ("admin", AdminServiceStub, "ListUsers", admin_service_pb2.ListUsersRequest())
        keys = ("main", UserKeyServiceStub, "ListUserKeys", user_key_service_pb2.ListUserKeysRequest())
        cases = [
            (edge, "", ping, "OK"),
            (edge, "dbs_wrong", ping, "SERVICE_TOKEN_INVALID"),
            (edge, "Basic c2VydmljZTp4", ping, "SERVICE_TOKEN_INVALID"),
            (edge, user, ping, "CALLER_NOT_ALLOWED"),
            (edge, "", users, "ACCESS_TOKEN_MISSING"),
            (edge, "", keys, "ACCESS_TOKEN_MISSING"),
            (edge, user, keys, "OK"),
            (boss, "", users, "OK"),
            (boss, f"Token {user}", users, "ACCESS_TOKEN_INVALID"),
            (boss, user, users, "CALLER_NOT_ALLOWED"),
            (boss, "", ping, "CALLER_NOT_ALLOWED"),
            (other, "", ping, "SERVICE_TOKEN_MISSING"),
            (other, both, ping, "OK"),
            (authority.issue("urn:both"), "", ping, "OK"),
            (several, "", ping, "SERVICE_TOKEN_MISSING"),
            (written_as_dns, "", ping, "SERVICE_TOKEN_MISSING"),
        ]
        found = [await answer(plane, shown, token, *rpc) for shown, token, rpc, _ in cases]

        assert made == "", "a token was made that nobody asked for"
        assert found == [expected for *_, expected in cases]

        # On the command line, too, where no token lies about.
        plane.mounted.replace({**server_files(authority), **client_files(authority, BOSS)})
        (tmp_path / "elsewhere").mkdir()
        listed = command(tmp_path / "elsewhere", plane.daemon, "users", "list", "--json", **plane.admin())
        assert listed.returncode == 0, listed.stderr
        taken = command(tmp_path, plane.daemon, "services", "set-sans", "both", EDGE, **plane.admin())
        assert "ALREADY_EXISTS" in taken.stderr
        plane.command("services", "set-sans", "edge")
        assert await answer(plane, edge, "", *ping) == "SERVICE_TOKEN_MISSING"


async def answer(
    plane: Plane, shown: tuple[bytes, bytes], token: str, listener: str, stub: Callable, method: str, request: object
) -> str:
    """The reason of the refusal that a client with this certificate and token gets, or OK."""
    credentials = grpc.ssl_channel_credentials(plane.authority.pem, shown[1], shown[0])
    async with grpc.aio.secure_channel(plane.daemon.addresses[listener], credentials) as channel:
        try:
            # With a scheme of its own, or as a token is sent.
            metadata = (("authorization", token),) if " " in token else bearer(token)
            await getattr(stub(channel), method)(request, metadata=metadata, timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
    return "OK"


@dataclass
class Load:
    """Clients that ask nearly without a pause; how their requests ended."""

    url: str
    token: str = field(repr=False)
    statuses: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def run(self, session: aiohttp.ClientSession) -> None:
        while True:
            async with session.post(
                self.url, data=b'{"model":"m"}', headers={"Authorization": f"Bearer {self.token}"}
            ) as given:
                await given.read()
                self.statuses.append(given.status)
                if given.status != 200:
                    self.errors.append(f"{given.status} {given.headers.get('X-Drawbridge-Error')}")
            await asyncio.sleep(0.005)

    async def more(self, count: int = 20) -> None:
        """Return when so many more requests have been answered."""
        wanted = len(self.statuses) + count
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(self.statuses) < wanted:
                await asyncio.sleep(0.005)

    async def until_error(self, wanted: str) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while wanted not in self.errors:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def load_on(bridge: Daemon, token: str) -> AsyncIterator[Load]:
    load = Load(f"http://{bridge.addresses['http']}/openai/v1/chat/completions", token)
    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(load.run(session)) for _ in range(3)]
        try:
            await load.more()
            yield load
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def lines_of(daemon: Daemon, message: str) -> int:
    return sum(line["msg"] == message for line in daemon.lines)


async def until_line(daemon: Daemon, message: str, count: int = 1) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while lines_of(daemon, message) < count:
            await asyncio.sleep(0.01)


async def test_a_bridge_without_a_token_changes_its_certificate_under_load_and_is_refused_without_a_service(tmp_path):
    async with running(tmp_path, EDGE, "urn:first") as plane:
        plane.command("services", "create", "edge", "--role", "bridge", "--certificate-san", "urn:first")
        plane.command("services", "create", "next", "--role", "bridge", "--certificate-san", "urn:next")
        plane.command("users", "create", "ann")
        token = plane.command("tokens", "create", "--user", "ann").strip()
        with plane.bridged() as bridge:
            await until_ready(bridge)
            async with load_on(bridge, token) as load:
                broken = {**server_files(plane.authority), **client_files(plane.authority, "urn:next")}
                plane.mounted.replace({**broken, "client.key": client_files(plane.authority, "urn:x")["client.key"]})
                await until_line(bridge, "TLS files cannot be used: those before stay in use")
                plane.mounted.replace(broken)
                await until_line(bridge, "TLS files were read anew")
                await until_alone(plane, "next")
                await asyncio.to_thread(plane.command, "services", "delete", "edge")
                await load.more(50)
                assert load.errors == []

                await asyncio.to_thread(plane.command, "services", "delete", "next")
                answered = len(load.statuses)
                await load.until_error("503 SERVICE_TOKEN_MISSING")
                assert 200 not in load.statuses[answered + 3 :]


async def until_alone(plane: Plane, service: str) -> None:
    """Return when the streams of the bridge are those of this service alone: the old channel is closed."""
    host, _, port = plane.daemon.addresses["main"].rpartition(":")
    async with asyncio.timeout(DEADLINE_SECONDS):
        while connections_to(host, int(port)) > 1:
            await asyncio.sleep(0.02)


def connections_to(host: str, port: int) -> int:
    """How many TCP connections there are to this port of the machine."""
    number = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(number) and row[3] == "01" for row in rows)


@pytest.mark.alone
async def test_a_token_is_rotated_under_load_without_a_failed_request(tmp_path):
    async with running(tmp_path, "nobody.example.org") as plane:
        plane.command("users", "create", "ann")
        token = plane.command("tokens", "create", "--user", "ann").strip()
        path = tmp_path / "credentiald.bridge-token"
        first = path.read_text()
        with plane.bridged(BRIDGED_CREDENTIALD_TOKEN_FILE=str(path)) as bridge:
            await until_ready(bridge)
            async with load_on(bridge, token) as load:
                kept = await asyncio.to_thread(plane.command, "services", "rotate", "bridge", "--keep-old", "10m")
                await load.more(50)
                path.write_text(kept)
                await until_line(bridge, "there is a new service token")
                await until_alone(plane, "bridge")
                await asyncio.to_thread(plane.command, "services", "rotate", "bridge", "--revoke-old")
                await load.more(50)
                assert load.errors == []

                # As a shell does it: the file is emptied, and filled when the old token counts no more.
                redirected = await asyncio.to_thread(rotated_into, path, plane)
                await until_line(bridge, "there is a new service token", 2)
                await load.more(50)
                assert redirected == 0
                assert load.errors == []
                assert len({first, kept, path.read_text()}) == 3

                # What does not come into the file is missed after two seconds, and found again once it is there.
                started = time.monotonic()
                late = await asyncio.to_thread(plane.command, "services", "rotate", "bridge")
                await load.until_error("503 SERVICE_TOKEN_INVALID")
                assert time.monotonic() - started > 1.8
                path.write_text(late)
                await until_line(bridge, "there is a new service token", 3)
                async with asyncio.timeout(DEADLINE_SECONDS):
                    while 503 in load.statuses[-20:]:
                        await asyncio.sleep(0.01)
        assert not any(secret.strip() in bridge.output for secret in (first, kept, late))


def rotated_into(path: Path, plane: Plane) -> int:
    environ = clean_environment(CREDENTIALD_ADMIN=plane.daemon.addresses["admin"], **plane.admin())
    with open(path, "w") as file:
        return subprocess.run(
            [sys.executable, "-m", "credentiald", "services", "rotate", "bridge"],
            cwd=plane.folder, env=environ, stdout=file, timeout=60,
        ).returncode  # fmt: skip


async def test_a_kept_token_ends_when_its_time_is_over_also_on_streams_that_run(tmp_path):
    async with running(tmp_path, "nobody.example.org") as plane:
        old = (tmp_path / "credentiald.bridge-token").read_text().strip()
        with open(plane.mounted.path("client.crt"), "rb") as cert, open(plane.mounted.path("client.key"), "rb") as key:
            credentials = grpc.ssl_channel_credentials(plane.authority.pem, key.read(), cert.read())
        async with grpc.aio.secure_channel(plane.daemon.addresses["main"], credentials) as channel:
            stub = CredentialServiceStub(channel)
            await asyncio.to_thread(plane.command, "services", "rotate", "bridge", "--keep-old", "2s")
            stream = stub.ResolveProviderStream(metadata=bearer(old))
            watch = stub.WatchProviders(metadata=bearer(old))
            await watch.write(credential_service_pb2.WatchProvidersRequest(bridge_instance_id="b"))
            await stub.Ping(credential_service_pb2.PingRequest(), metadata=bearer(old))
            watching = asyncio.create_task(watched_for_ever(watch))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asked_for_ever(stream)
            with pytest.raises(grpc.aio.AioRpcError) as watched:
                await watching
            with pytest.raises(grpc.aio.AioRpcError) as pinged:
                await stub.Ping(credential_service_pb2.PingRequest(), metadata=bearer(old))

        assert {reason_of(one.value) for one in (refused, watched, pinged)} == {"SERVICE_TOKEN_INVALID"}


async def asked_for_ever(stream: "grpc.aio.StreamStreamCall") -> None:
    """Ask on one stream until it ends, or for long enough."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            await stream.write(credential_service_pb2.ResolveProviderStreamRequest())
            assert await stream.read() is not grpc.aio.EOF


async def watched_for_ever(stream: "grpc.aio.StreamStreamCall") -> None:
    """Obey what is told until the stream ends, or for long enough."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (news := await stream.read()) is not grpc.aio.EOF:
            await stream.write(credential_service_pb2.WatchProvidersRequest(revision=news.revision))
