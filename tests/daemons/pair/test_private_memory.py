"""What a process of ours lets the kernel and its neighbours see of its memory."""

import subprocess
import sys
from pathlib import Path

import pytest

# PR_GET_DUMPABLE of prctl(2), asked inside a daemon that ends at once, because the file of its log cannot be.
PROGRAM = """
import ctypes, os, resource, signal, sys
try:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    from {module}.__main__ import main
    sys.argv = ["{module}", "serve", *{flags!r}]
    main()
except SystemExit as ended:
    print(ended.code)
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE) == (0, 0))
"""


def ended(module: str, folder: Path, *flags: str) -> list[str]:
    """The exit code, whether the process could be dumped, and whether its core dumps are limited to nothing."""
    taken = ["--metrics-listen", "127.0.0.1:1", "--listen", "192.0.2.1:1", *flags]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module, flags=[*taken, "--insecure-plaintext"])],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize(("module", "workers"), [("bridged", "1"), ("credentiald", "1"), ("credentiald", "2")])
def test_a_daemon_lets_nobody_look_into_its_memory(tmp_path: Path, module: str, workers: str) -> None:
    assert ended(module, tmp_path, "--workers", workers) == ["1", "0", "True"]


@pytest.mark.parametrize("module", ["bridged", "credentiald"])
def test_unless_it_is_told_that_it_may_be_looked_into(tmp_path: Path, module: str) -> None:
    assert ended(module, tmp_path, "--debuggable")[:2] == ["1", "1"]
