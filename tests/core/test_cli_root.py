"""The root of the command line: quick help, completion, both ways to start, and what runs on this machine."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from credentiald.cli.root import COMMANDS, cli
from tests.support.credentiald_cli import run

HEAVY = ("grpc", "aiohttp", "sqlite3", "sqlite_utils", "cryptography", "yaml", "credentiald.settings")


def python(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["providers", "create", "--help"], ["keys", "set", "--help"]])
def test_help_is_shown_without_importing_what_only_work_needs(arguments):
    program = f"""
import sys
from credentiald.cli.root import cli
try:
    cli({arguments!r}, prog_name="credentiald")
except SystemExit as end:
    assert end.code == 0
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    result = python("-c", program)
    assert result.stdout.startswith("Usage: credentiald")
    assert result.stderr == "[]\n"


def test_the_help_of_the_root_names_every_command_with_a_whole_sentence():
    lines = run("--help").stdout.splitlines()
    listed = [line.split() for line in lines[lines.index("Commands:") + 1 :]]
    assert [words[0] for words in listed] == list(COMMANDS)
    assert all(words[-1].endswith(".") and not words[-1].endswith("...") for words in listed)


def test_the_module_and_the_console_script_are_the_same():
    module = python("-m", "credentiald", "--version")
    assert module.stdout.startswith("credentiald, version ")
    script = python("-c", "from credentiald.__main__ import main; main()", "--version")
    assert script.stdout == module.stdout


def test_a_shell_gets_its_completion():
    source = python("-m", "credentiald", env={"_CREDENTIALD_COMPLETE": "bash_source"})
    assert "_CREDENTIALD_COMPLETE=bash_complete" in source.stdout
    words = {"_CREDENTIALD_COMPLETE": "bash_complete", "COMP_WORDS": "credentiald providers cr", "COMP_CWORD": "2"}
    assert python("-m", "credentiald", env=words).stdout == "plain,create\n"


@pytest.mark.parametrize("arguments", [("serve",), ("init",), ("config", "check")])
def test_an_address_to_administer_is_wrong_usage_for_what_runs_here(arguments):
    result = run("--admin", "127.0.0.1:1", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def commands_with_paths(command=cli, path=()):
    names = getattr(command, "list_commands", lambda ctx: [])(None)
    if not names:
        yield path, command
    for name in names:
        yield from commands_with_paths(command.get_command(None, name), (*path, name))


def test_every_command_but_serve_prints_json():
    without = [path for path, command in commands_with_paths() if "as_json" not in {p.name for p in command.params}]
    assert without == [("serve",)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("CREDENTIALD_", "CODER_AIBRIDGE_")):
            monkeypatch.delenv(name)
    return tmp_path


def test_init_says_what_it_made_and_a_second_one_makes_nothing(here):
    first = run("init")
    assert first.exit_code == 0, first.output
    assert {line.split(": ")[0] for line in first.stdout.splitlines()} == {
        "database",
        "sealing_keys",
        "admin_token",
        "bridge_token",
    }
    made = {path.name: path.read_bytes() for path in here.iterdir()}
    assert {"credentiald.db", "credentiald.sealing", "credentiald.admin-token", "credentiald.bridge-token"} <= set(made)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in here.iterdir())
    second = run("init")
    assert (second.exit_code, second.stdout) == (0, "")
    assert "exists already" in second.stderr
    assert (here / "credentiald.admin-token").read_bytes() == made["credentiald.admin-token"]


def test_init_prints_no_token_and_no_key(here):
    output = run("init").output
    for name in ("credentiald.admin-token", "credentiald.bridge-token", "credentiald.sealing"):
        assert (here / name).read_text().strip() not in output


def test_init_with_json_is_one_object(here):
    made = json.loads(run("init", "--json").stdout)
    again = json.loads(run("init", "--json").stdout)
    assert (made.pop("created"), again.pop("created")) == (True, False)
    assert made == again
    assert all(Path(path).exists() for path in made.values())


def test_init_in_a_folder_that_is_not_there_is_refused(here):
    result = run("init", "--database", "sqlite:///gone/credentiald.db")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "gone" in result.stderr


WRONG = {"CREDENTIALD_LISTN": "127.0.0.1:1", "CODER_AIBRIDGE_PROVIDER_0_TYPE": "mistral"}


@pytest.mark.parametrize("arguments", [("serve",), ("init",), ("config", "check"), ("config", "check", "--json")])
def test_all_errors_of_the_configuration_are_on_stderr_and_nothing_is_made(here, arguments):
    result = run(*arguments, "--grace", "soon", env=WRONG)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert all(line.startswith("credentiald: ") for line in lines)
    for word in ("CREDENTIALD_LISTEN", "mistral", "--grace"):
        assert word in result.stderr
    assert list(here.iterdir()) == []


def test_config_check_prints_each_setting_with_its_origin_and_no_secret(here):
    env = {"CODER_AIBRIDGE_OPENAI_KEY": "sk-canary", "CREDENTIALD_GRACE": "7s"}
    text = run("config", "check", env=env)
    assert text.exit_code == 0, text.output
    assert "canary" not in text.output
    rows = json.loads(run("config", "check", "--json", env=env).stdout)
    grace = next(row for row in rows if row["name"] == "grace")
    assert (grace["value"], grace["origin"]) == ("7s", "environment CREDENTIALD_GRACE")
    assert {"name", "value", "origin"} == set(rows[0])
    assert "canary" not in json.dumps(rows)
    assert all(row["name"] in text.stdout for row in rows)
