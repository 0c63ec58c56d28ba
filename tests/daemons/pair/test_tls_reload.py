"""TLS files that are replaced while both daemons serve: every listener takes them, and broken ones change nothing."""

import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import Authority, Mounted, client_files, server_files
from tests.support.processes import Daemon, bridged, commanded, credentiald

DEADLINE_SECONDS = 10.0
LISTENERS = ("credentiald main", "credentiald admin", "credentiald metrics", "bridged http", "bridged metrics")


@dataclass
class Running:
    """Both daemons, all listeners on TLS with client certificates from one folder of files."""

    folder: Path
    mounted: Mounted
    plane: Daemon
    bridge: Daemon

    def address(self, listener: str) -> tuple[str, int]:
        daemon, name = listener.split()
        host, _, port = (self.plane if daemon == "credentiald" else self.bridge).addresses[name].rpartition(":")
        return host, int(port)

    def hang_up(self) -> None:
        for daemon in (self.plane, self.bridge):
            daemon.process.send_signal(signal.SIGHUP)


@contextmanager
def running(folder: Path, files: dict[str, bytes], *flags: str) -> Iterator[Running]:
    mounted = Mounted(folder / "tls")
    mounted.replace(files)
    tls = (
        *("--tls-cert", mounted.path("tls.crt"), "--tls-key", mounted.path("tls.key")),
        *("--tls-client-ca", mounted.path("ca.crt")),
    )
    to_plane = (
        *("--credentiald-ca", mounted.path("server-ca.crt"), "--credentiald-cert", mounted.path("client.crt")),
        *("--credentiald-key", mounted.path("client.key")),
    )
    with ExitStack() as stack:
        plane = stack.enter_context(credentiald(folder, None, *tls, *flags))
        bridge = stack.enter_context(bridged(folder, plane.addresses["main"], None, *tls, *to_plane, *flags))
        yield Running(folder, mounted, plane, bridge)


def context_of(ca: bytes, shown: tuple[bytes, bytes] | None, folder: Path) -> ssl.SSLContext:
    """A client that trusts one authority and shows a certificate."""
    context = ssl.create_default_context(cadata=ca.decode())
    # gRPC speaks to nobody else; HTTP/1.1 does not ask.
    context.set_alpn_protocols(["h2"])
    if shown is not None:
        path = folder / "shown.pem"
        path.write_bytes(b"".join(shown))
        context.load_cert_chain(path)
    return context


def shakes_hands(address: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> bool:
    """Whether the server lets this client in: TLS 1.3 tells a client that it is refused only when it reads."""
    with socket.create_connection(address, timeout=5) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
                tls.settimeout(5)
                # A preface is answered by gRPC's settings, and by HTTP/1.1 with an error: both after the handshake.
                tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
                return bool(tls.recv(1))
        except (ssl.SSLError, ConnectionError):
            return False


def until(condition, message: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.02)


def warnings_of(daemon: Daemon) -> list[str]:
    return [str(line["listener"]) for line in daemon.lines if line["msg"].startswith("TLS files cannot be used")]


def reload_success(running: Running, context: ssl.SSLContext) -> dict[str, float]:
    """The gauge of both daemons, by listener."""
    found = {}
    for daemon in ("credentiald", "bridged"):
        with (
            socket.create_connection(running.address(f"{daemon} metrics"), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: tls.recv(65536), b"")).decode()
        for line in text.splitlines():
            if line.startswith(f"{daemon}_tls_reload_success{{"):
                name, _, value = line.rpartition(" ")
                found[f"{daemon} {name.split(chr(34))[1]}"] = float(value)
    return found


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_every_listener_takes_new_files_keeps_the_old_ones_while_they_are_broken_and_forgets_old_clients(
    tmp_path, flags
):
    old, new = Authority(), Authority()
    old_client, new_client = old.issue("ann.example"), new.issue("ann.example")
    with running(tmp_path, {**server_files(old), **client_files(old, "bridge.example")}, *flags) as pair:
        before = context_of(old.pem, old_client, tmp_path)
        after = context_of(new.pem, new_client, tmp_path)
        for listener in LISTENERS:
            assert shakes_hands(pair.address(listener), before), listener
            assert not shakes_hands(pair.address(listener), context_of(old.pem, None, tmp_path)), listener

        # The certificate is there before its key.
        broken = {**server_files(new), **client_files(new, "bridge.example")}
        pair.mounted.replace({**broken, "tls.key": server_files(new)["tls.key"]})
        pair.hang_up()
        until(
            lambda: {name for name, value in reload_success(pair, before).items() if not value} >= set(LISTENERS),
            "nobody told of the broken files",
        )
        for listener in LISTENERS:
            assert shakes_hands(pair.address(listener), before), listener

        pair.mounted.replace(broken)
        pair.hang_up()
        for listener in LISTENERS:
            until(lambda: shakes_hands(pair.address(listener), after), listener)  # noqa: B023 - called at once
            assert not shakes_hands(pair.address(listener), context_of(new.pem, old_client, tmp_path)), listener
        until(lambda: set(reload_success(pair, after).values()) == {1.0}, "the gauge stays")

    for daemon, names in ((pair.plane, {"main", "admin", "metrics"}), (pair.bridge, {"http", "metrics"})):
        told = warnings_of(daemon)
        assert set(told) == names
        if not flags:
            assert len(told) == len(names), "said more than once"


def test_without_a_signal_the_session_of_a_client_whose_authority_is_gone_is_not_resumed_either(tmp_path):
    old, new = Authority(), Authority()
    client = old.issue("ann.example")
    with running(tmp_path, {**server_files(old), **client_files(old, "bridge.example")}) as pair:
        address = pair.address("bridged http")
        context = context_of(old.pem, client, tmp_path)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(address, timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            session = tls.session
        assert shakes_hands(address, context, session)

        # The same certificate, but its clients come from elsewhere.
        pair.mounted.replace({**server_files(old, client_ca=new.pem), **client_files(new, "ops.example", ca=old.pem)})
        until(lambda: not shakes_hands(address, context_of(old.pem, client, tmp_path)), "still let in")

        assert not shakes_hands(address, context, session)
        pair.hang_up()
        assert commanded(pair.folder, pair.plane, "users", "list", "--json", **admin(pair)) == "[]\n"
        assert pair.bridge.process.poll() is None, "a hangup ended it"


def test_nothing_older_than_tls_1_2_is_spoken(tmp_path):
    authority = Authority()
    client = authority.issue("ann.example")
    with running(tmp_path, {**server_files(authority), **client_files(authority, "bridge.example")}) as pair:
        for listener in LISTENERS:
            spoken = []
            for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2):
                context = context_of(authority.pem, client, tmp_path)
                # OpenSSL offers the old ones only to who insists.
                context.set_ciphers("ALL:@SECLEVEL=0")
                is_old = version < ssl.TLSVersion.TLSv1_2
                with pytest.warns(DeprecationWarning, match="TLSv1") if is_old else ExitStack():
                    context.minimum_version = context.maximum_version = version
                if shakes_hands(pair.address(listener), context):
                    spoken.append(version)
            assert spoken == [ssl.TLSVersion.TLSv1_2], listener


def admin(pair: Running) -> dict[str, str]:
    """What a command needs to administer over this TLS."""
    return {
        "CREDENTIALD_ADMIN_CA": pair.mounted.path("server-ca.crt"),
        "CREDENTIALD_ADMIN_CERT": pair.mounted.path("client.crt"),
        "CREDENTIALD_ADMIN_KEY": pair.mounted.path("client.key"),
    }
