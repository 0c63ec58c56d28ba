"""What is installed is what was locked, each package has its reason, and the bill of materials says all of it."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("run.txt", "otel.txt", "test.txt", "gen.txt")
ENTRY = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==[^\s;]+( ; [^-]+?)?( --hash=sha256:[0-9a-f]{64})+")


def entries(name: str) -> list[str]:
    """Each requirement of a lock on one line, with its hashes."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_requirement_has_its_version_and_its_hashes_and_nothing_else(name: str) -> None:
    found = entries(name)
    assert len(found) > 5
    assert [one for one in found if not ENTRY.fullmatch(one)] == []


def test_what_is_installed_is_held_to_its_hashes() -> None:
    installs = [
        line for line in (ROOT / "scripts/python_environment.py").read_text().splitlines() if "_call([*pip" in line
    ]
    # The second one is the project itself, which takes nothing from an index.
    assert ["--require-hashes" in line or "--no-index" in line for line in installs] == [True, True]
    for script in ("scripts/run", "scripts/test"):
        text = (ROOT / script).read_text()
        assert "from python_environment import" in text
        assert '"pip"' not in text
    assert "--generate-hashes" in (ROOT / "scripts/lock").read_text()


def direct() -> set[str]:
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *(one for more in project["optional-dependencies"].values() for one in more)]
    return {re.split(r"[\[<>=;]", one)[0].strip() for one in wanted}


def test_there_are_few_dependencies_each_with_its_reason() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Dependencies")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    reasons = {name.strip(): row[1].strip() for row in rows for name in row[0].split(",")}
    groups = {re.split(r"[\[<>=]", one)[0] for group in PROJECT["dependency-groups"].values() for one in group}
    assert {name for name in direct() if len(reasons.get(name, "")) < 10} == set()
    # Nor a reason for what is gone.
    assert set(reasons) - direct() - groups - {"types-*", "hatchling", "editables"} == set()
    assert len(direct()) <= 20


@pytest.fixture(scope="module", params=["run.txt", "otel.txt"])
def bill(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    flags = ["--traces"] if request.param == "otel.txt" else []
    command = [sys.executable, ROOT / "scripts" / "sbom", *flags]
    first, second = (subprocess.run(command, check=True, capture_output=True).stdout for _ in range(2))
    assert first == second
    return request.param, json.loads(first)


def test_the_bill_of_materials_has_what_is_locked_with_hashes_and_licences(bill: tuple[str, dict[str, Any]]) -> None:
    name, document = bill
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    components = {one["name"]: one for one in document["components"]}
    locked = {line.partition("==")[0]: line for line in entries(name)}
    assert components.keys() == locked.keys()
    for package, one in components.items():
        assert re.findall(r"sha256:(\w+)", locked[package]) == [each["content"] for each in one["hashes"]]
        assert one["purl"] == f"pkg:pypi/{package}@{one['version']}"
        if "properties" not in one:
            # For this machine as for any other, so it is here, as it is locked.
            assert version(package) == one["version"]
            assert one["licenses"], package


def test_the_bill_of_materials_says_who_asks_for_what(bill: tuple[str, dict[str, Any]]) -> None:
    name, document = bill
    known = {one["bom-ref"]: one for one in document["components"]}
    asked = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    root = document["metadata"]["component"]["bom-ref"]
    wanted = direct() if name == "otel.txt" else {one for one in direct() if not one.startswith("opentelemetry")}
    assert {known[ref]["name"] for ref in asked[root]} == wanted
    reached, waiting = set(), list(asked[root])
    while waiting:
        if (ref := waiting.pop()) not in reached:
            reached.add(ref)
            waiting += asked[ref]
    assert {ref for ref, one in known.items() if one["scope"] == "required"} == reached
    # What builds the editable install, and nothing that a daemon loads.
    assert {"hatchling", "editables"} <= {one["name"] for one in known.values() if one["scope"] == "excluded"}
