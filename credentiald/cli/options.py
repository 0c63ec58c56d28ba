"""The options that the administering commands share, and the decorator that gives a command its connection."""

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from credentiald.cli.output import Output
from credentiald.cli.target import Flags, find_target

if TYPE_CHECKING:
    from credentiald.cli.connection import Connection

Command = TypeVar("Command", bound=Callable[..., None])

address_option = click.option(
    "--admin",
    "address",
    default="",
    metavar="ADDRESS",
    help="Where credentiald is: HOST:PORT or unix:PATH. [env: CREDENTIALD_ADMIN; default: 127.0.0.1:7411]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_connection_options = (
    click.option(
        "--admin-ca",
        "ca_file",
        default="",
        metavar="FILE",
        help="Speak TLS and trust these authorities (PEM). [env: CREDENTIALD_ADMIN_CA]",
    ),
    click.option(
        "--admin-cert",
        "certificate_file",
        default="",
        metavar="FILE",
        help="Client certificate (PEM). [env: CREDENTIALD_ADMIN_CERT]",
    ),
    click.option(
        "--admin-key",
        "key_file",
        default="",
        metavar="FILE",
        help="Key of the client certificate (PEM). [env: CREDENTIALD_ADMIN_KEY]",
    ),
    click.option("--insecure-plaintext", is_flag=True, help="Send the token without TLS to another machine."),
    json_option,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The credentiald that the flags of one command name."""

    flags: Flags

    def connect(self, *, mine: bool = False) -> "AbstractContextManager[Connection]":
        """A connection with the administrator's token, or with the user's own."""
        from credentiald.cli.connection import connected

        return connected(find_target(self.flags, os.environ, Path.read_bytes, mine=mine))


def administers(*, admin_names_address: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command `destination` and `output` in place of the shared options.

    `users create` needs `--admin` for something else; there the address stands before the noun:
    `credentiald --admin ADDRESS users create`, which works with every command.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(
            *,
            ca_file: str,
            certificate_file: str,
            key_file: str,
            insecure_plaintext: bool,
            as_json: bool,
            address: str = "",
            **arguments: Any,
        ) -> None:
            flags = Flags(
                address=address or click.get_current_context().find_root().params.get("address", ""),
                ca_file=ca_file,
                certificate_file=certificate_file,
                key_file=key_file,
                insecure_plaintext=insecure_plaintext,
            )
            command(destination=Destination(flags=flags), output=Output(as_json=as_json), **arguments)

        options = (address_option, *_connection_options) if admin_names_address else _connection_options
        return functools.reduce(lambda decorated, option: option(decorated), reversed(options), run)

    return decorate


def names_user(command: Command) -> Command:
    """Gives a command `--user NAME` and `--mine`, which exclude each other."""
    command = click.option("--mine", is_flag=True, help="For yourself, with the token of CREDENTIALD_TOKEN.")(command)
    return click.option("--user", default="", metavar="NAME", help="For this user (name or id).")(command)


def check_one_user(user: str, *, mine: bool, required: bool = False) -> None:
    """Raises UsageError where both are given, or none and one is required."""
    if user and mine:
        raise click.UsageError("--user and --mine exclude each other")
    if required and not (user or mine):
        raise click.UsageError("say for whom: --user NAME or --mine")
