"""What scripts/chaos runs and harms: both daemons, their clocks, disk, certificates, and the links between them."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import re
import resource
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from reconcile_daemons import Daemons
from stress_figures import rss_mib

from tests.support.fault_proxy import FaultProxy
from tests.support.processes import Daemon, bridged, credentiald

ROOT = Path(__file__).resolve().parent.parent
_CLOCK_FOLDER = ROOT / "tests" / "support" / "shifted_clock"
DISK_MIB = 96
# Of a drained bridge: its grace is less.
DRAIN_SECONDS = 40.0
# gRPC's library writes by itself where a peer speaks no TLS, or is cut off in the middle.
_OF_GRPC = re.compile(r"[IWE]\d{4} [\d:.]+ +\d+ [\w.]+\.cc:\d+\] ")
_NOWHERE = "127.0.0.1:1"


class Clock:
    """By how much the wall clock of a daemon is off."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(struct.pack("d", 0.0))
        self.path = path
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)

    def shift(self, seconds: float) -> None:
        """From now on, all at once."""
        self._shared[:] = struct.pack("d", seconds)


class Disk:
    """Where credentiald's files are: a small tmpfs where we may mount one, else a folder and a limit of file sizes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "drawbridge-chaos", str(folder)]
        self.is_mounted = os.geteuid() == 0 and subprocess.run(mounting, capture_output=True).returncode == 0
        self._limited: list[int] = []

    @property
    def means(self) -> str:
        """How the disk gets full."""
        return f"a tmpfs of {DISK_MIB} MiB" if self.is_mounted else "RLIMIT_FSIZE of credentiald"

    def fill(self, pids: list[int]) -> None:
        """No byte more fits in."""
        if self.is_mounted:
            with contextlib.suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as file:
                while True:
                    # The last bytes one page at a time.
                    left = os.statvfs(self.folder).f_bavail
                    file.write(b"x" * (4096 if left < 512 else 1 << 20))
            return
        self._limited = pids
        for pid in pids:
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))

    def free(self) -> None:
        """There is room again."""
        if self.is_mounted:
            (self.folder / "filler").unlink(missing_ok=True)
            return
        for pid in self._limited:
            with contextlib.suppress(ProcessLookupError):
                hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def close(self) -> None:
        """Unmount it."""
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class Certificates:
    """The files of credentiald's main listener, and the authority that bridges know."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.authority = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.authority)
        self.chain, self.key = folder / "server.pem", folder / "server-key.pem"
        self.renew()

    def renew(self) -> None:
        """Another good pair of files."""
        issued = self._authority.issue_cert("127.0.0.1")
        self._put(self.key, issued.private_key_pem.bytes())
        self._put(self.chain, b"".join(part.bytes() for part in issued.cert_chain_pems))

    def damage(self, dice: random.Random) -> str:
        """Files that no server can start with; what was done."""
        chain, key = self.chain.read_bytes(), self.key.read_bytes()
        other = trustme.CA().issue_cert("127.0.0.1")
        damages = {
            "an empty chain": (b"", key),
            "half a chain": (chain[: len(chain) // 2], key),
            "noise for a key": (chain, dice.randbytes(400)),
            "a key of another chain": (chain, other.private_key_pem.bytes()),
        }
        name = dice.choice(list(damages))
        for path, data in zip((self.chain, self.key), damages[name], strict=True):
            self._put(path, data)
        return name

    @staticmethod
    def _put(path: Path, data: bytes) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(path)


@dataclass(kw_only=True)
class Setting:
    """How the pair is run. Proxies are by the name of the bridge: towards credentiald, and from clients."""

    folder: Path
    environ: Mapping[str, str]
    workers: int
    audit: str
    disk: Disk
    clocks: Mapping[str, Clock]
    certificates: Certificates
    to_plane: dict[str, FaultProxy] = field(default_factory=dict)


class Pair(Daemons):
    """The daemons of a campaign; all that have lived, and how each ended."""

    def __init__(self, setting: Setting, upstream_port: int, bridges: int) -> None:
        self._setting = setting
        self.lived: list[tuple[str, Daemon]] = []
        # Addresses of bridges that were killed: what they carried broke off with them.
        self.killed_addresses: set[str] = set()
        self.exits: list[str] = []
        self.peak_mib: dict[str, float] = {}
        super().__init__(setting.disk.folder, upstream_port, bridges, setting.environ)

    # Starting

    def start_plane(self) -> Daemon:
        """credentiald, on a socket for administrators and behind the proxies for bridges; workers want ports."""
        setting = self._setting
        arguments = ["--listen", "127.0.0.1:0", "--audit", setting.audit]
        if setting.workers > 1:
            arguments += ["--workers", str(setting.workers), "--admin-tls-cert", "none"]
        else:
            arguments += ["--admin-listen", f"unix:{setting.folder}/admin"]
        # Over plain text nobody could see a byte that a link changes.
        arguments += ["--tls-cert", str(setting.certificates.chain), "--tls-key", str(setting.certificates.key)]
        arguments += ["--metrics-tls-cert", "none"]
        stack = self.stacks["credentiald"] = ExitStack()
        environ = {**self.environ, **self._clocked("credentiald")}
        return self._started("credentiald", stack.enter_context(credentiald(self.folder, environ, *arguments)))

    def start_bridge(self, name: str) -> None:
        """A bridge that asks through its proxy."""
        setting = self._setting
        arguments = ["--grace", "20s"]
        if setting.workers > 1:
            arguments += ["--workers", str(setting.workers)]
        arguments += ["--credentiald-ca", str(setting.certificates.authority)]
        stack = self.stacks[name] = ExitStack()
        target = setting.to_plane[name].address
        running = stack.enter_context(bridged(self.folder, target, self._clocked("bridged"), *arguments))
        self.bridges[name] = self._started(name, running)

    def _clocked(self, name: str) -> dict[str, str]:
        path = os.pathsep.join([str(_CLOCK_FOLDER), os.environ.get("PYTHONPATH", "")])
        return {"DRAWBRIDGE_CLOCK_FILE": str(self._setting.clocks[name].path), "PYTHONPATH": path.rstrip(os.pathsep)}

    def _started(self, name: str, running: Daemon) -> Daemon:
        self.lived.append((name, running))
        return running

    # Where they are

    def plane_address(self) -> str:
        """Of the main listener, while there is one."""
        return self.plane.addresses.get("main", _NOWHERE)

    def bridge_address(self, name: str) -> str:
        """Where a bridge listens, while there is one."""
        running = self.bridges.get(name)
        return _NOWHERE if running is None else running.addresses["http"]

    def has_found_plane(self) -> bool:
        """Whether every process of every bridge hears credentiald."""
        workers = self._setting.workers
        return all(self.metric(one, "bridged_watch_streams") >= workers for one in self.bridges.values())

    # Harming

    def kill_plane(self) -> None:
        """kill -9 of all its processes."""
        self._kill(self.plane, "credentiald")

    def revive_plane(self) -> None:
        """Another one."""
        self.plane = self.start_plane()
        self.plane_start_time = time.monotonic()

    def kill_bridge(self, name: str) -> None:
        """kill -9 of all its processes."""
        killed = self.bridges.pop(name)
        self.killed_addresses.add(killed.addresses["http"])
        self._kill(killed, name)

    def drain_bridge(self, name: str) -> None:
        """Its successor first, then SIGTERM, as a rolling update does it."""
        old, stack = self.bridges[name], self.stacks[name]
        with stack:
            self.start_bridge(name)
            old.process.terminate()
            try:
                code = old.process.wait(DRAIN_SECONDS)
                if code != 0:
                    self.exits.append(f"{name} ended with {code} after SIGTERM")
            except subprocess.TimeoutExpired:
                self.exits.append(f"{name} did not end within {DRAIN_SECONDS:.0f} s after SIGTERM")
                self.killed_addresses.add(old.addresses["http"])
            self._look_at(name, old)

    def signal(self, running: Daemon, number: int) -> None:
        """To all processes of a daemon."""
        for pid in tree(running.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _kill(self, running: Daemon, name: str) -> None:
        if running.process.poll() is not None:
            self.exits.append(f"{name} had ended by itself with {running.process.returncode}")
        self.signal(running, signal.SIGKILL)
        running.process.wait()
        self.stacks.pop(name).close()

    # Looking

    def look(self) -> None:
        """Take note of memory, and of who is not there any more."""
        for name, running in [("credentiald", self.plane), *self.bridges.items()]:
            self._look_at(name, running)

    def _look_at(self, name: str, running: Daemon) -> None:
        kind = name.split(" ")[0]
        for pid in tree(running.process.pid):
            with contextlib.suppress(OSError):
                self.peak_mib[kind] = max(self.peak_mib.get(kind, 0.0), rss_mib(pid))

    def ended_by_themselves(self) -> list[str]:
        """Those that should be there and are not; and those that ended otherwise than they should."""
        here = [("credentiald", self.plane), *self.bridges.items()]
        gone = [f"{name} ended with {one.process.returncode}" for name, one in here if one.process.poll() is not None]
        return self.exits + gone

    def tracebacks(self) -> list[str]:
        """What all daemons that have lived wrote of failures of their own."""
        return [
            f"{name}: {line['msg']}: {str(line['exception']).splitlines()[-1]}"
            for name, one in self.lived
            for line in list(one.lines)
            if "exception" in line
        ] + [
            f"{name}: {line.strip()}"
            for name, one in self.lived
            for line in list(one.errors)
            if line.strip() and not _OF_GRPC.match(line)
        ]

    def output(self) -> Iterator[str]:
        """Everything that they wrote."""
        for name, one in self.lived:
            yield f"{name}: {one.output}"


def tree(pid: int) -> list[int]:
    """A process and its children, the children last."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *map(int, children)]
