"""Runs the command line of credentiald in this process, against a fake on a socket."""

import json
from collections.abc import Mapping
from typing import Any

from click.testing import CliRunner, Result

from credentiald.cli.root import cli
from tests.fakes.admin_service import FakePlane

ADMIN_TOKEN = "dbs_of-the-administrator"
OWN_TOKEN = "dbu_of-the-user"

# What a developer's shell may have set, and a test must not see.
_READ = ("ADMIN", "ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "ADMIN_CA", "ADMIN_CERT", "ADMIN_KEY", "TOKEN", "TOKEN_FILE")
CLEAN: dict[str, str | None] = {f"CREDENTIALD_{name}": None for name in (*_READ, "DATABASE")}


def run(*arguments: str, env: Mapping[str, str | None] | None = None, stdin: str | bytes | None = None) -> Result:
    """The result of one command with only these variables; never raises what the command raised but for bugs."""
    result = CliRunner().invoke(cli, arguments, input=stdin, env={**CLEAN, **(env or {})}, prog_name="credentiald")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def administer(plane: FakePlane, *arguments: str, stdin: str | bytes | None = None, code: int | None = 0) -> Result:
    """The result of one command that finds the fake and has both tokens; it must exit with `code`, if there is one."""
    env = {
        "CREDENTIALD_ADMIN": plane.address,
        "CREDENTIALD_ADMIN_TOKEN": ADMIN_TOKEN,
        "CREDENTIALD_TOKEN": OWN_TOKEN,
    }
    result = run(*arguments, env=env, stdin=stdin)
    assert code is None or result.exit_code == code, result.output
    return result


def administer_json(plane: FakePlane, *arguments: str, stdin: str | bytes | None = None) -> Any:
    """What one command prints with --json, which must be the only thing on stdout."""
    return json.loads(administer(plane, *arguments, "--json", stdin=stdin).stdout)
