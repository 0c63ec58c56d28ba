"""Scripts say what they are for without anything installed, and those that need more say how to get it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clone import ROOT

SCRIPTS = (
    "bench", "chaos", "fuzz", "overload", "reconcile", "records_scale", "rests", "revocation", "rotation", "stress",
)  # fmt: skip


def bare(*words: str) -> subprocess.CompletedProcess[str]:
    """A script in a Python that has nothing but itself."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", "-E", str(ROOT / "scripts" / words[0]), *words[1:]]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_needs_nothing(name: str) -> None:
    done = bare(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"scripts/{name}" in done.stdout


def test_without_the_environment_of_the_tests_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from python_environment import NotReady, in_test_environment\n"
        "try: in_test_environment(Path(sys.argv[2]))\n"
        "except NotReady as problem: print(problem)"
    )
    words = [sys.executable, "-S", "-E", "-c", code, str(ROOT / "scripts"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "run `scripts/test core` once" in done.stdout


def test_an_environment_that_is_activated_is_made_anew_by_the_python_that_made_it(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from python_environment import python_outside\n"
        "print(python_outside(Path(sys.argv[2])))"
    )
    for other, of_itself in ((environment, os.path.realpath(sys.executable)), (tmp_path, environment / "bin/python")):
        words = [str(environment / "bin/python"), "-E", "-c", code, str(ROOT / "scripts"), str(other)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        assert (done.stderr, done.stdout.strip()) == ("", str(of_itself))


@pytest.mark.parametrize("name", ["chaos", "fuzz", "rests", "revocation", "rotation"])
def test_scripts_that_run_tests_enter_their_environment(name: str) -> None:
    text = (ROOT / "scripts" / name).read_text()
    assert "in_test_environment(" in text or "run_campaign(" in text
