"""`credentiald init`, `serve` and `config check`: what works on this machine, with the settings of the daemon."""

import asyncio
import functools
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from credentiald.cli.errors import Refused, WrongUsage
from credentiald.cli.options import json_option
from credentiald.cli.output import echo_json, printable, text_of

if TYPE_CHECKING:
    from credentiald.bootstrap import Prepared
    from credentiald.settings import Loaded


class SettingsCommand(click.Command):
    """A command that takes every setting of the daemon that has a flag (docs/settings.md)."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The settings, then the command's own options. Read late: the help of the root needs none."""
        return [*_settings_options(), *super().get_params(ctx)]


@functools.cache
def _settings_options() -> tuple[click.Option, ...]:
    from credentiald.settings import options

    return tuple(options())


def _load(params: dict[str, Any]) -> "Loaded":
    from credentiald.settings import load_from_cli
    from daemonkit.settings import ConfigErrors

    try:
        return load_from_cli(params, os.environ)
    except ConfigErrors as wrong:
        raise WrongUsage(*wrong.errors) from None


@click.command(cls=SettingsCommand)
@click.option("--worker-fd", type=int, hidden=True)
@click.pass_context
def serve(ctx: click.Context, /, worker_fd: int | None, **params: Any) -> None:
    """Run credentiald until it is asked to stop. An embedded database is made at the first start."""
    from daemonkit.worker import Worker

    try:
        worker = None if worker_fd is None else Worker(worker_fd)
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    loaded = _load(params if worker is None else dict(worker.flags))
    from credentiald.serve import run, run_supervisor, run_worker

    if worker is not None:
        ctx.exit(run_worker(loaded, worker))
    if loaded.settings.workers > 1:
        ctx.exit(run_supervisor(loaded, params))
    ctx.exit(run(loaded))


@click.command(cls=SettingsCommand)
@click.option("--new-tokens", is_flag=True, help="Make new tokens for admin and bridge; the old ones stop working.")
@json_option
def init(as_json: bool, new_tokens: bool, **params: Any) -> None:
    """Make the database and its keys.

    Beside the database: the sealing keys, and the tokens of the first two services, `admin` and `bridge`. Where all
    that exists already, it is checked and nothing is made. Where a token was lost, --new-tokens makes new ones.
    """
    loaded = _load(params)
    from credentiald.bootstrap.first_services import renew_tokens
    from credentiald.bootstrap.refusals import StartRefused
    from credentiald.sealing_wrapping import WrapFailed
    from credentiald.unsealing import place_of
    from credentiald.unsealing import prepared as prepare

    try:
        prepared = asyncio.run(prepare(place_of(loaded)))
        if new_tokens and not prepared.created:
            renew_tokens(prepared.database_path, now=datetime.now(UTC))
            click.echo("made new tokens for the services admin and bridge", err=True)
    except (StartRefused, WrapFailed) as refusal:
        raise Refused(*str(refusal).splitlines()) from None
    if as_json:
        echo_json({"created": prepared.created} | _files(prepared))
    else:
        _echo_prepared(prepared)


@click.group()
def config() -> None:
    """The settings of credentiald."""


@config.command(cls=SettingsCommand)
@json_option
def check(as_json: bool, **params: Any) -> None:
    """Print the effective settings.

    Each with where it comes from, secrets as <set>. With errors they are all listed instead, and the exit code is 2.
    """
    loaded = _load(params)
    from daemonkit.load import aligned_lines

    for warning in loaded.warnings:
        click.echo(f"credentiald: {printable(warning)}", err=True)
    if as_json:
        echo_json([{"name": one.name, "value": one.text, "origin": one.origin} for one in loaded.effective])
    else:
        for line in aligned_lines(loaded.effective):
            click.echo(line)


def _files(prepared: "Prepared") -> dict[str, str | None]:
    """What `init` looked after, by kind; the sealing keys are None where they come from a setting."""
    return {
        "database": str(prepared.database_path),
        "sealing_keys": str(prepared.sealing_path) if prepared.sealing_path else None,
        "admin_token": str(prepared.admin_token_path),
        "bridge_token": str(prepared.bridge_token_path),
    }


def _echo_prepared(prepared: "Prepared") -> None:
    if not prepared.created:
        click.echo(f"{printable(str(prepared.database_path))} exists already and its sealing keys fit", err=True)
        return
    click.echo("made, readable by this account alone:", err=True)
    for kind, path in _files(prepared).items():
        click.echo(f"{kind}: {text_of(path) if path else 'from CREDENTIALD_SEALING_KEYS'}")
