"""What commands print: tables and lines for people, JSON for programs.

JSON has every field of the message, always, in the contract's names: enums without their prefix (null where
unspecified), times as RFC 3339 UTC, absent optional fields as null, all integers as numbers. Fields that carry
key or token material are left out, whatever the message is; a new token is printed by its own function.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.message import Message

Columns = Mapping[str, str]
"""Heading to the dotted path of the field below it, in the order of printing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How the results of one command are printed."""

    as_json: bool

    def resource(self, message: "Message", *, beside: Mapping[str, object] | None = None) -> None:
        """One resource, whole; for programs with more fields `beside` its own."""
        if self.as_json:
            echo_json(to_dict(message) | dict(beside or {}))
        else:
            for path, value in _leaves(to_dict(message)):
                # A path ends in a name that somebody gave where the field is a map.
                click.echo(f"{printable(path)}: {text_of(value)}")

    def account(self, message: "Message", echo: Callable[[dict[str, Any]], None]) -> None:
        """One message with a form of its own for people."""
        if self.as_json:
            echo_json(to_dict(message))
        else:
            echo(to_dict(message))

    def accounts(self, rows: Iterable[dict[str, Any]], echo: Callable[[dict[str, Any]], None]) -> None:
        """All rows, each with a form of its own for people; an array for programs."""
        if self.as_json:
            echo_json(list(rows))
            return
        for row in rows:
            echo(row)

    def changed(self, message: "Message", sentence: str) -> None:
        """A change that was made: the resource for programs, a sentence on stderr for people."""
        if self.as_json:
            echo_json(to_dict(message))
        else:
            click.echo(printable(sentence), err=True)

    def listing(self, rows: Iterable[dict[str, Any]], columns: Columns) -> None:
        """All rows: an array of the whole rows for programs, the named columns for people."""
        if self.as_json:
            echo_json(list(rows))
        else:
            echo_columns([list(columns), *([text_of(_at(row, path)) for path in columns.values()] for row in rows)])

    def new_token(self, token: str, *, field: str, beside: Mapping[str, "Message"]) -> None:
        """A token that is shown once: alone on stdout, or as `field` of an object with its resource beside it."""
        if self.as_json:
            echo_json({name: to_dict(message) for name, message in beside.items()} | {field: token})
        else:
            click.echo(printable(token))


def to_dict(message: "Message") -> dict[str, Any]:
    """The message as JSON values, every field present (see the module's docstring)."""
    return {
        field.name: _field_value(message, field)
        for field in message.DESCRIPTOR.fields
        if not field.GetOptions().debug_redact
    }


def text_of(value: object) -> str:
    """A JSON value as a cell for people: `-` for nothing, `yes` and `no`, lists with commas."""
    match value:
        case None | "" | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(text_of(item) for item in value)
        case dict():
            return " ".join(text_of(item) for item in value.values())
        case _:
            return printable(str(value))


def printable(text: str) -> str:
    """The text with control characters escaped, so that no stored name can steer a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def echo_columns(lines: Sequence[Sequence[str]], *, indent: str = "") -> None:
    """Columns as wide as their widest cell, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo((indent + "  ".join(cells)).rstrip())


def echo_json(value: object) -> None:
    """One JSON value, for programs and for eyes."""
    click.echo(json.dumps(value, indent=2))


def _field_value(message: "Message", field: Any) -> object:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: value[key] for key in sorted(value)}
    if field.is_repeated:
        return [_plain(item, field) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _plain(value, field)


def _plain(value: Any, field: Any) -> object:
    if field.enum_type is not None:
        return _enum_name(value, field.enum_type)
    if field.message_type is None:
        return value
    if field.message_type.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        return value.ToJsonString()
    return to_dict(value)


def _enum_name(number: int, enum: "EnumDescriptor") -> str | None:
    if number == 0:
        return None
    known = enum.values_by_number.get(number)
    # A newer credentiald may have values that this program does not know.
    return known.name.removeprefix(_enum_prefix(enum)) if known else str(number)


def _enum_prefix(enum: "EnumDescriptor") -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper() + "_"


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _at(row: Mapping[str, Any], path: str) -> object:
    value: Any = row
    for name in path.split("."):
        value = None if value is None else value[name]
    return value
