"""`bridged`: the command line. What a command needs is imported when it runs."""

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bridged.settings import Loaded


class SettingsCommand(click.Command):
    """A command that takes every setting of the daemon that has a flag (docs/settings.md)."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The settings, then the command's own options. Read late: the help of the root needs none."""
        return [*_settings_options(), *super().get_params(ctx)]


@functools.cache
def _settings_options() -> tuple[click.Option, ...]:
    from bridged.settings import options

    return tuple(options())


def _load(params: dict[str, Any]) -> "Loaded":
    """The configuration; with errors, all of them on stderr and exit code 2."""
    from bridged.settings import load_from_cli
    from daemonkit.settings import ConfigErrors

    try:
        return load_from_cli(params, os.environ)
    except ConfigErrors as wrong:
        for error in wrong.errors:
            click.echo(f"bridged: {error}", err=True)
        sys.exit(2)


@click.group(context_settings={"max_content_width": 100})
@click.version_option(package_name="drawbridge", prog_name="bridged")
def cli() -> None:
    """The data plane of Drawbridge: carries LLM traffic under credentials that credentiald chose."""


@cli.command(cls=SettingsCommand)
@click.option("--worker-fd", type=int, hidden=True)
@click.pass_context
def serve(ctx: click.Context, /, worker_fd: int | None, **params: Any) -> None:
    """Run bridged until it is asked to stop."""
    from daemonkit.worker import Worker

    try:
        worker = None if worker_fd is None else Worker(worker_fd)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    loaded = _load(params if worker is None else dict(worker.flags))
    from bridged.serve import run, run_supervisor, run_worker

    if worker is not None:
        ctx.exit(run_worker(loaded, worker))
    if loaded.settings.workers > 1:
        ctx.exit(run_supervisor(loaded, params))
    ctx.exit(run(loaded))


@cli.group()
def config() -> None:
    """The settings of bridged."""


@config.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool, **params: Any) -> None:
    """Print the effective settings.

    Each with where it comes from, secrets as <set>. With errors they are all listed instead, and the exit code is 2.
    """
    loaded = _load(params)
    from daemonkit.load import aligned_lines

    for warning in loaded.warnings:
        click.echo(f"bridged: {warning}", err=True)
    if as_json:
        import json

        rows = [{"name": one.name, "value": one.text, "origin": one.origin} for one in loaded.effective]
        click.echo(json.dumps(rows, indent=2))
    else:
        for line in aligned_lines(loaded.effective):
            click.echo(line)


@cli.command("demo-upstream")
@click.option("--listen", default="127.0.0.1:4010", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--pace", default="150ms", show_default=True, metavar="DURATION", help="Rest between streamed events.")
@click.pass_context
def demo_upstream(ctx: click.Context, listen: str, pace: str) -> None:
    """Run a provider made of nothing, to try the bridge without a key.

    It speaks Anthropic Messages, OpenAI Chat Completions and OpenAI Responses, takes any key, and calls a tool when
    it is asked to "use a tool". Log lines go to stdout as JSON.
    """
    from bridged.demo.run import run
    from daemonkit.durations import parse_duration
    from daemonkit.listen import parse_address

    try:
        address, rest = parse_address(listen), parse_duration(pace)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not address.is_local or address.is_unix:
        raise click.UsageError(f"{listen}: the demo upstream listens on a loopback address only")
    ctx.exit(run(address, rest))
