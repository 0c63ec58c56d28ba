"""`credentiald init`, `serve` and `config check`: what works on this machine, with the settings of the daemon."""

import functools
import os
from typing import TYPE_CHECKING, Any

import click

from credentiald.cli.errors import Refused, WrongUsage
from credentiald.cli.options import json_option

if TYPE_CHECKING:
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
