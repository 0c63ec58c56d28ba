"""A clone of this repository, uncommitted changes included, and scripts/run in it, for tests of the first minutes."""

import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# What an operator's shell may need for an install, and nothing that decides what the daemons do.
KEPT = ("PATH", "LANG", "TMPDIR", "PIP_", "SSL_", "REQUESTS_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
ANY_PORTS = {
    f"{name}_LISTEN": "127.0.0.1:0"
    for name in ("CREDENTIALD", "CREDENTIALD_ADMIN", "CREDENTIALD_METRICS", "BRIDGED", "BRIDGED_METRICS")
}
INSTALL_SECONDS = 300
START_SECONDS = 60


def repository_files() -> list[str]:
    """Every file that is, or would be, committed."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


def make_clone(folder: Path) -> Path:
    """A copy of the repository's files in `folder`, with an empty home folder beside it."""
    clone = folder / "clone"
    for name in repository_files():
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    (folder / "home").mkdir()
    return clone


def bare_environ(clone: Path, **more: str) -> dict[str, str]:
    """An environment with an empty home and none of the developer's settings."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    return {**kept, "HOME": str(clone.parent / "home"), "NO_PROXY": "127.0.0.1,localhost", **more}


class Run:
    """A running scripts/run and what it has printed."""

    def __init__(self, clone: Path, environ: dict[str, str]) -> None:
        self.clone = clone
        self.out = ""
        self.err = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        # In a session of its own, like the job of a terminal: its Ctrl-C goes to the whole process group.
        self.process = subprocess.Popen(
            ["scripts/run"],
            cwd=clone,
            env=environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_out, self._read_err)]
        for reader in self._readers:
            reader.start()

    def _read_out(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def _read_err(self) -> None:
        for line in self.process.stderr or ():
            self.err += line

    def wait_for_line(self, part: str, seconds: float) -> str:
        """The first line of stdout with `part` in it."""
        deadline = time.monotonic() + seconds
        while True:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            if line is None:
                raise AssertionError(f"scripts/run ended without {part!r}:\n{self.out}\n{self.err}")
            self.out += line
            if part in line:
                return line.rstrip("\n")

    def wait_for_error(self, part: str) -> None:
        """Until `part` stands in stderr."""
        deadline = time.monotonic() + START_SECONDS
        while part not in self.err:
            assert time.monotonic() < deadline, self.err
            time.sleep(0.01)

    def wait_ready(self) -> str:
        """The curl line, which is the last that scripts/run prints."""
        if "curl -N" not in self.out:
            self.wait_for_line("curl -N", INSTALL_SECONDS)
        return self.out.splitlines()[-1]

    @property
    def address(self) -> str:
        """HOST:PORT of the bridge."""
        return self.out.partition("base URL")[2].split()[0].split("/")[2]

    @property
    def admin_address(self) -> str:
        """HOST:PORT of credentiald's listener for administration, from its log."""
        listening = next(line for line in self.err.splitlines() if "listening" in line and "listener=admin" in line)
        return listening.partition("address=")[2].split()[0]

    @property
    def token_file(self) -> Path:
        return self.clone / ".run" / "access-token"

    def children(self) -> dict[str, int]:
        """Process ids of the daemons by command: `credentiald serve`, `bridged serve`, `bridged demo-upstream`."""
        listing = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        rows = [line.split(None, 2) for line in listing.stdout.splitlines()]
        return {
            " ".join(args.partition(" -m ")[2].split()[:2]): int(pid)
            for pid, parent, args in rows
            if int(parent) == self.process.pid
        }

    def end(self, number: int = signal.SIGINT, seconds: float = START_SECONDS) -> int:
        """Ask its process group to stop, as a terminal does, and wait for it; the exit status."""
        os.killpg(self.process.pid, number)
        return self.wait(seconds)

    def wait(self, seconds: float = START_SECONDS) -> int:
        """Wait until it has ended by itself; the exit status."""
        status = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
            assert not reader.is_alive(), "something that scripts/run started still holds its output"
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        return status


@contextmanager
def running(clone: Path, environ: dict[str, str]) -> Iterator[Run]:
    """scripts/run for the length of the block; at its end it is stopped, and killed if that takes too long."""
    run = Run(clone, environ)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            try:
                run.end()
            except subprocess.TimeoutExpired:
                run.process.kill()
                run.wait()
