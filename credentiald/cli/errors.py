"""How a command ends when it cannot do its work: 1 where it was refused, 2 where it was set up or used wrongly."""

from typing import IO, Any

import click

from credentiald.cli.output import printable


class CommandError(click.ClickException):
    """Ends the command; every line of the message goes to stderr after the program's name.

    `reason` is the contract's name of a refusal, shown behind the message; empty for what has none.
    """

    def __init__(self, *lines: str, reason: str = "") -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.reason = reason

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the lines, the reason behind the first."""
        for position, line in enumerate(self.lines):
            suffix = f" ({printable(self.reason)})" if self.reason and position == 0 else ""
            click.echo(f"credentiald: {printable(line)}{suffix}", file=file, err=file is None)


class Refused(CommandError):
    """credentiald said no, or did not answer, or would say no to what was typed."""

    exit_code = 1


class WrongUsage(CommandError):
    """What the command was given, in flags, variables or files, cannot work."""

    exit_code = 2
