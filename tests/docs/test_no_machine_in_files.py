"""Nothing that is committed names a machine: no folder of a developer, no package index."""

import re
import tomllib

from packaging.requirements import Requirement

from tests.support.clone import ROOT, repository_files

# Put together here, so that this file does not find itself.
FOLDERS = [f"/{name}/" for name in ("work", "root", r"home/(?!\.)\w+", "Users", "tmp/brief", "opt/pypi")]
OPTIONS = [f"--{name}" for name in ("index-url", "extra-index-url", "find-links")]
HOSTS = [rf"\b{name}\." for name in ("pypi", "pythonhosted", "artifactory", "codeartifact")]
# Our own objects are called so too, but have no second dot and no domain behind it.
HOSTS.append(r"\bregistry\.[\w-]+\.(?:com|dev|io|net|org)\b")
PATTERN = re.compile("|".join((*FOLDERS, *OPTIONS, *HOSTS)), re.IGNORECASE)


def test_no_tracked_file_names_a_machine_or_an_index() -> None:
    found = []
    for name in repository_files():
        text = (ROOT / name).read_bytes().decode("utf-8", "replace")
        found += [f"{name}: {match.group()}" for match in PATTERN.finditer(text)]

    assert found == []


def test_there_is_no_lock_file_that_names_addresses() -> None:
    locks = {"uv.lock", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "poetry.lock", "Pipfile.lock"}

    assert [name for name in repository_files() if name.rpartition("/")[2] in locks] == []


def test_every_requirement_is_pinned_and_hashed() -> None:
    for name in ("run.txt", "otel.txt", "test.txt", "gen.txt"):
        lines = (ROOT / "requirements" / name).read_text().replace("\\\n", " ").splitlines()
        entries = [line for line in lines if line and not line.startswith("#")]

        assert entries
        assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_what_is_locked_is_within_the_ranges_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [one for group in project["dependency-groups"].values() for one in group]
    run = project["project"]["dependencies"]
    otel = run + project["project"]["optional-dependencies"]["otel"]
    wanted = {"run.txt": run, "otel.txt": otel, "test.txt": otel + groups}

    for name, requirements in wanted.items():
        locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for requirement in map(Requirement, requirements):
            assert requirement.specifier.contains(locked[requirement.name]), (name, requirement)
