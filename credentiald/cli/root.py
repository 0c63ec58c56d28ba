"""`credentiald`: the root of the command line. A command's module is imported when the command is asked for."""

import importlib

import click

from credentiald.cli.options import address_option

# Name to module and attribute, in the order of the help.
COMMANDS = {
    "init": "credentiald.cli.daemon:init",
    "serve": "credentiald.cli.daemon:serve",
    "config": "credentiald.cli.daemon:config",
    "users": "credentiald.cli.users:users",
    "tokens": "credentiald.cli.tokens:tokens",
    "services": "credentiald.cli.services:services",
    "providers": "credentiald.cli.providers:providers",
    "keys": "credentiald.cli.keys:keys",
    "models": "credentiald.cli.models:models",
    "explain": "credentiald.cli.explain:explain",
    "records": "credentiald.cli.records:records",
    "sealing": "credentiald.cli.sealing:sealing",
    "audit": "credentiald.cli.audit:audit",
}
_RUN_HERE = ("init", "serve", "config")


class LazyGroup(click.Group):
    """A group whose commands are named by COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.command(cls=LazyGroup, context_settings={"max_content_width": 100})
@click.version_option(package_name="drawbridge", prog_name="credentiald")
@address_option
@click.pass_context
def cli(ctx: click.Context, address: str) -> None:
    """The credential plane of Drawbridge: run it, and administer it over gRPC."""
    if address and ctx.invoked_subcommand in _RUN_HERE:
        raise click.UsageError(f"--admin says where to administer; '{ctx.invoked_subcommand}' works on this machine")
