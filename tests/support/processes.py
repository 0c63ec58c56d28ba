"""Both daemons as real processes: started with port 0, found by their `listening` lines, killed at the end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# A daemon with workers is several Pythons one after the other, and the machine may have other things to do.
START_SECONDS = 60.0
STOP_SECONDS = 15.0
_FOREIGN = (
    "AWS_",
    "CODER_",
    "CREDENTIALD_",
    "BRIDGED_",
    "ANTHROPIC_",
    "OPENAI_",
    "GOOGLE_",
    "GEMINI_",
    "AZURE_",
    "OTEL_",
)
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


def clean_environment(**extra: str) -> dict[str, str]:
    """This environment without anything that could lead a daemon or client astray."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and name.lower() not in _PROXIES
    }
    # No test asks the metadata service of the machine that it runs on.
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", **extra}


class Daemon:
    """One running daemon. `addresses` maps listener names to HOST:PORT or unix:PATH."""

    def __init__(self, process: subprocess.Popen[str], expected: int) -> None:
        self.process = process
        self.addresses: dict[str, str] = {}
        self.lines: list[dict[str, object]] = []
        self.errors: list[str] = []
        self._expected = expected
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read_log, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            fact = json.loads(line)
            with self._changed:
                self.lines.append(fact)
                if fact["msg"] == "listening":
                    self.addresses[fact["listener"]] = fact["address"]
                self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)

    @property
    def output(self) -> str:
        """Everything it has written, to search for what must not be there."""
        return "\n".join([*(json.dumps(line, ensure_ascii=False) for line in self.lines), *self.errors])

    def wait_until_listening(self) -> None:
        """Return when every listener is bound; fail with its output if it exits first."""
        deadline = time.monotonic() + START_SECONDS
        with self._changed:
            while len(self.addresses) < self._expected:
                assert self.process.poll() is None, f"exited with {self.process.returncode}: {self.output}"
                assert time.monotonic() < deadline, f"did not listen in time: {self.output}"
                self._changed.wait(0.1)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after the signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS)
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code


@contextmanager
def daemon(
    module: str, arguments: Sequence[str], folder: Path, environ: Mapping[str, str], *, listeners: int
) -> Iterator[Daemon]:
    """`python -m module serve …`, listening, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, "serve", "--log-human", "none", "--log-json", "-", *arguments],
        cwd=folder,
        env=clean_environment(**environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Daemon(process, listeners)
    try:
        running.wait_until_listening()
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            running.stop(signal.SIGKILL)
        else:
            running.stop()


@contextmanager
def credentiald(
    folder: Path, environ: Mapping[str, str] | None = None, *arguments: str, module: str = "credentiald"
) -> Iterator[Daemon]:
    """A credentiald on free ports, with its database in `folder`."""
    listeners = ("--listen", "--admin-listen", "--metrics-listen")
    flags = [part for flag in listeners for part in (flag, "127.0.0.1:0") if flag not in arguments]
    with daemon(module, [*flags, *arguments], folder, environ or {}, listeners=len(listeners)) as running:
        yield running


@contextmanager
def bridged(
    folder: Path, target: str, environ: Mapping[str, str] | None = None, *arguments: str, module: str = "bridged"
) -> Iterator[Daemon]:
    """A bridged on free ports that asks the credentiald at `target`; its token is the file in `folder`."""
    flags = ["--credentiald", target]
    for flag in ("--listen", "--metrics-listen"):
        if flag not in arguments:
            flags += [flag, "127.0.0.1:0"]
    with daemon(module, [*flags, *arguments], folder, environ or {}, listeners=2) as running:
        yield running


def command(
    folder: Path, running: Daemon, *words: str, key: str | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """`credentiald …` against a running daemon, with the admin token beside its database."""
    return subprocess.run(
        [sys.executable, "-m", "credentiald", *words],
        cwd=folder,
        env=clean_environment(CREDENTIALD_ADMIN=running.addresses["admin"], **environ),
        input=key or "",
        capture_output=True,
        text=True,
        timeout=60,
    )


def commanded(folder: Path, running: Daemon, *words: str, key: str | None = None, **environ: str) -> str:
    """The standard output of a command that must succeed."""
    done = command(folder, running, *words, key=key, **environ)
    assert done.returncode == 0, done.stderr
    return done.stdout
