"""The wheel, built from this tree and installed into an empty environment as a user would."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.clone import bare_environ, make_clone


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built in a clone so that nothing uncommitted by accident gets in."""
    return build(tmp_path_factory.mktemp("wheel"))


def build(folder: Path) -> Path:
    clone = make_clone(folder)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", clone / "dist"],
        cwd=clone, check=True, capture_output=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1767225600"},
    )  # fmt: skip
    (built,) = (clone / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with nothing but the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("empty") / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel], check=True)
    return folder / "bin"


def output(installed: Path, folder: Path, *command: str) -> str:
    """stdout of a program of the environment, run in an empty folder."""
    environ = bare_environ(folder / "clone", PATH=f"{installed}:/usr/bin:/bin")
    return subprocess.run(
        [installed / command[0], *command[1:]], cwd=folder, env=environ, check=True, capture_output=True, text=True
    ).stdout


def test_the_wheel_has_the_three_packages_and_the_contract(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "bridged",
        "credentiald",
        "daemonkit",
        "drawbridge",
    }
    assert {"drawbridge/py.typed", "drawbridge/v1/credential_service_pb2.py"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_whoever_builds_the_same_tree_gets_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    again = build(tmp_path)

    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_nothing_runs_by_being_installed(wheel: Path, installed: Path) -> None:
    # A .pth file in site-packages may hold code that every start of Python runs.
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.endswith((".pth", ".data/scripts", ".so"))] == []
    assert [name for name in names if ".data/" in name] == []
    (packages,) = (installed.parent / "lib").glob("python*/site-packages")
    # Of setuptools, which some versions of venv bring.
    assert {path.name for path in packages.glob("*.pth")} - {"distutils-precedence.pth"} == set()


@pytest.mark.parametrize("program", ["credentiald", "bridged"])
def test_each_program_runs_and_tells_its_version(installed: Path, tmp_path: Path, program: str) -> None:
    version = output(
        installed, tmp_path, "python", "-c", "import importlib.metadata as m; print(m.version('drawbridge'))"
    )

    assert version.strip() in output(installed, tmp_path, program, "--version")
    assert version.strip() in output(installed, tmp_path, "python", "-m", program, "--version")
    assert output(installed, tmp_path, program, "config", "check")


def test_a_database_can_be_made(installed: Path, tmp_path: Path) -> None:
    output(installed, tmp_path, "credentiald", "init")

    assert {"credentiald.db", "credentiald.sealing", "credentiald.admin-token"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_every_module_of_the_wheel_can_be_imported(wheel: Path, installed: Path, tmp_path: Path) -> None:
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.endswith(".py") and not name.endswith("__main__.py")
    ]
    # Those that need the extra [otel] are imported where traces are on, and nowhere else.
    traced = [name for name in modules if name.endswith(".tracing")]
    program = (
        f"import importlib\nfor name in {sorted({*modules} - {*traced})!r}: importlib.import_module(name)\nprint('all')"
    )

    assert len(modules) > 50
    assert len(traced) == 3
    assert output(installed, tmp_path, "python", "-W", "error", "-c", program) == "all\n"
