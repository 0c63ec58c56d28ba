"""Virtual environments for scripts/run and scripts/test: made once, renewed when what goes into them changes; and for
scripts that need what tests need, how to get into theirs.

Needs nothing but Python 3.11 with pip: no ensurepip, so it also works where a distribution keeps that in a package
of its own. pip gets what is locked and hashed; the project itself is installed editable and without an index.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)


class NotReady(Exception):
    """The machine lacks something; the message says what, for a person."""


def require_python() -> None:
    """Go on in the newest suitable Python of the PATH when the one at hand is too old, or say what is needed."""
    if sys.version_info >= OLDEST:
        return
    for name in ("python3.14", "python3.13", "python3.12", "python3.11"):
        found = shutil.which(name)
        if found:
            os.execv(found, [found, *sys.argv])
    raise NotReady(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]} ({sys.executable})")


def in_test_environment(root: Path) -> None:
    """Go on in a Python that has what tests need: the one at hand, or that of scripts/test; else say how to get it."""
    needed = ("pytest", "trustme", "bridged", "drawbridge")
    if all(importlib.util.find_spec(name) for name in needed):
        return
    python = root / ".venv-test" / "bin" / "python"
    if python.exists() and Path(sys.prefix) != python.parent.parent:
        os.environ["PATH"] = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
        os.execv(python, [str(python), *sys.argv])
    raise NotReady("this needs the environment of the tests: run `scripts/test core` once, which makes .venv-test")


def run_campaign(
    name: str, text: str, tests: str, *, variable: str, count: tuple[str, str, int], **environ: str
) -> int:
    """The whole of a script that runs one file of tests with more of something; the exit status.

    `count` is the argument that says how much: its name, its help, and what it is if nothing is said.
    """
    word, meaning, usual = count
    parser = argparse.ArgumentParser(prog=name, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", metavar=word, nargs="?", type=int, default=usual, help=meaning)
    options = parser.parse_args()
    if options.count < 1:
        parser.error(f"{word} is at least 1")
    root = Path(__file__).resolve().parent.parent
    try:
        require_python()
        in_test_environment(root)
    except NotReady as problem:
        print(f"{name}: {problem}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "pytest", "--capture=no", tests]
    return subprocess.run(command, cwd=root, env=os.environ | environ | {variable: str(options.count)}).returncode


def make(root: Path, folder: str, requirements: str) -> Path:
    """The Python of the environment `root/folder` with `requirements` and the project; says so when it has work."""
    environment = root / folder
    maker = python_outside(environment)
    python = environment / "bin" / "python"
    mark = environment / "drawbridge-installed"
    wanted = _fingerprint(root, requirements)
    if python.exists() and mark.exists() and mark.read_text() == wanted:
        return python
    print(f"installing into {folder} (the first time takes a minute)", file=sys.stderr, flush=True)
    if mark.exists():  # without it the environment is somebody's own, or half made: only added to
        shutil.rmtree(environment)
    if not python.exists():
        _call([maker, "-m", "venv", "--without-pip", str(environment)])
    pip = [maker, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    _call([*pip, "--require-hashes", "-r", str(root / "requirements" / requirements)])
    _call([*pip, "--no-deps", "--no-build-isolation", "--no-index", "--editable", str(root)])
    mark.write_text(wanted)
    return python


def python_outside(environment: Path) -> str:
    """A Python that is still there when the environment is made anew: this is its own one where it is activated."""
    if Path(sys.prefix).resolve() == environment.resolve():
        return os.path.realpath(sys.executable)
    return sys.executable


def _fingerprint(root: Path, requirements: str) -> str:
    """Changes with the interpreter, the place of the clone, and everything that is installed."""
    digest = hashlib.sha256(f"{os.path.realpath(sys.executable)} {sys.version} {root}".encode())
    for name in ("pyproject.toml", f"requirements/{requirements}"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def _call(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise NotReady(f"this command failed with exit status {done.returncode}: {' '.join(command)}")
