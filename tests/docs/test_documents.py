"""What the documents say is what the code does."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import bridged.settings_table
import credentiald.settings_table
from bridged import errors as bridged_errors
from credentiald import gateway_settings, policy
from credentiald.catalog import CATALOG
from credentiald.cli.root import cli as credentiald_cli
from credentiald.errors import REFUSALS
from credentiald.model import Source
from daemonkit.settings import Section, rows
from tests.support.clone import ROOT, repository_files

DOCUMENTS = [name for name in repository_files() if name.endswith(".md")]
PACKAGES = ("credentiald", "bridged", "daemonkit")
SOURCES = [name for name in repository_files() if name.startswith(PACKAGES) and name.endswith(".py")]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def rows_under(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table whose header row starts with `heading`, without backticks."""
    table = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table[2:]]


def name_of(outcome: policy.Outcome) -> str:
    return outcome.value if isinstance(outcome, Source) else outcome.reason()


def test_the_policy_table_of_the_readme_is_the_one_that_decides() -> None:
    words = {policy.ON: {"on", "yes"}, policy.OFF: {"off", "no"}, policy.ANY: {"any"}}
    published = rows_under(read("README.md"), "central key")

    assert len(published) == len(policy.TABLE)
    for cells, row in zip(published, policy.TABLE, strict=True):
        assert all(cell in words[admitted] for cell, admitted in zip(cells[:5], row.conditions, strict=True)), cells
        assert cells[5:] == [name_of(row.plain), name_of(row.bedrock)]


def test_every_provider_type_is_in_the_readme() -> None:
    assert [name for name in CATALOG if f"`{name}`" not in read("README.md")] == []


@pytest.mark.parametrize(
    "section", [credentiald.settings_table.SECTION, gateway_settings.SECTION, bridged.settings_table.SECTION]
)
def test_every_setting_is_documented(section: Section) -> None:
    text = read("docs/settings.md")
    names = {name for row in rows(section) for name in row.env_names}

    assert names
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def commands(group: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below `group` with the words that call it."""
    if not isinstance(group, click.Group):
        yield path, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, f"{path} {name}")


def test_every_command_and_option_of_credentiald_is_documented() -> None:
    text = read("docs/cli.md")
    found = dict(commands(credentiald_cli, "credentiald"))
    daemon = {"credentiald init", "credentiald serve", "credentiald config check"}
    options = {
        option
        for path, command in found.items()
        if path not in daemon
        for each in command.params
        for option in each.opts
    }

    assert [path for path in found if path not in text] == []
    assert sorted(option for option in options if option.startswith("--") and option not in text) == []


def test_every_refusal_is_documented() -> None:
    text = read("docs/errors.md")

    assert [reason for reason in {*REFUSALS, *bridged_errors.REFUSALS} if f"| `{reason}` |" not in text] == []


def test_the_page_of_refusals_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/gen_errors_doc", "--check"], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_of_refusals_says_what_each_means_in_a_whole_sentence() -> None:
    rows = [line.split(" | ") for line in read("docs/errors.md").splitlines() if line.startswith("| `")]
    meanings = {cells[0]: cells[3] for cells in rows}

    assert meanings
    assert {reason: text for reason, text in meanings.items() if not text.endswith(".")} == {}


def test_the_page_of_refusals_gives_each_its_codes() -> None:
    page = {cells[0]: cells[1:3] for line in read("docs/errors.md").splitlines() if (cells := cells_of(line))}

    assert page["STORE_UNAVAILABLE"] == ["UNAVAILABLE", "503, Retry-After 5"]
    assert page["KEY_REQUIRED"] == ["INVALID_ARGUMENT", "–"]
    assert page["HEAD_TOO_LARGE"] == ["–", "431"]


def cells_of(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip("|").split("|")] if line.startswith("| `") else []


def heading_anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    folder = (ROOT / document).parent
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", read(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else ROOT / document
        if not file.exists() or (anchor and anchor not in heading_anchors(file.read_text())):
            broken.append(target)

    assert broken == []


def test_the_architecture_lists_every_file_that_reveals_a_secret() -> None:
    listed = {cells[0] for cells in rows_under(read("ARCHITECTURE.md"), "file")}
    revealing = {name for name in SOURCES if ".reveal()" in read(name)}

    assert listed == revealing


def test_every_module_that_the_architecture_names_exists() -> None:
    names = set(re.findall(r"`([\w/]+\.(?:py|proto|md|toml))`", read("ARCHITECTURE.md")))
    endings = tuple(repository_files())

    assert names
    assert sorted(name for name in names if not any(f"/{file}".endswith(f"/{name}") for file in endings)) == []


def test_every_promise_and_every_threat_names_tests_that_exist() -> None:
    text = read("SECURITY.md")
    named = re.findall(r"`(tests/[\w/.]+)`", text)
    assert len(set(named)) > 30
    assert [name for name in sorted(set(named)) if not (ROOT / name).is_file()] == []
    promises = text.partition("## What it promises")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (G\d+) \|[^|]*\| `tests/guarantees/test_(g\d+)_\w+\.py` \|", promises, re.MULTILINE)
    assert rows == [(f"G{number}", f"g{number:02}") for number in range(1, 12)]
    threats = text.partition("## Threats in scope")[2].partition("\n## ")[0]
    lines = [line for line in threats.splitlines() if line.startswith("| ")][1:]
    assert [line for line in lines if not re.search(r"\| `tests/[^|]+` \|$", line)] == []


def test_the_glossary_is_in_alphabetical_order() -> None:
    words = [cells[0] for cells in rows_under(read("docs/glossary.md"), "word")]

    assert words == sorted(words, key=str.lower)
    assert {source.value.lower().replace("_", " ") for source in Source} <= set(words)


def test_no_class_has_a_name_that_says_nothing() -> None:
    empty = re.compile(r"^\s*class (\w*(?:Manager|Helper|Util|Utils|Processor))\b", re.MULTILINE)

    assert [(name, found) for name in SOURCES for found in empty.findall(read(name))] == []


def test_every_dependency_has_its_reason_in_contributing() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    wanted = [
        *project["project"]["dependencies"],
        *(one for group in project["dependency-groups"].values() for one in group),
    ]
    names = {re.split(r"[\[<>=]", one)[0] for one in wanted}
    text = read("CONTRIBUTING.md").partition("## Dependencies")[2]

    assert sorted(name for name in names if name not in text and not name.startswith("types-")) == []


def test_each_decision_record_says_context_choice_and_cost() -> None:
    records = [name for name in DOCUMENTS if name.startswith("docs/adr/")]
    numbers = [int(Path(name).name[:4]) for name in sorted(records)]

    assert numbers == list(range(1, len(numbers) + 1))
    for name in records:
        assert re.findall(r"^## (.+)$", read(name), re.MULTILINE) == ["Context", "Choice", "What we gave up"], name
