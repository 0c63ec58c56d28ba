"""From the command line and the environment to `Sources`, and the click options that the command line needs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daemonkit.settings import Effective, ReadFile, Row, Section, Sources, rows

if TYPE_CHECKING:
    import click


def open_sources(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    read_file: ReadFile,
    *,
    config_env: str,
) -> tuple[Sources, list[str]]:
    """All sources, the YAML file read if `--config` or its variable names one, and what was wrong with the file."""
    path = flags.get("config") or environ.get(config_env, "")
    document: Mapping[str, object] = {}
    errors = []
    if path:
        from daemonkit.yaml_document import parse_document

        try:
            document = parse_document(read_file(path))
        except OSError as error:
            errors.append(f"config: cannot read {path!r}: {error.strerror or type(error).__name__}")
        except UnicodeDecodeError:
            errors.append(f"config: {path!r} is not a text file in UTF-8")
        except ValueError as error:
            errors.append(f"config: {path!r}: {error}")
    sources = Sources(
        flags=flags, environ=environ, read_file=read_file, document=document, document_name=path or "the YAML file"
    )
    return sources, errors


def click_options(sections: Sequence[Section[Any]]) -> list["click.Option"]:
    """An option for each setting that has a flag. Values stay text: all of them are judged together later."""
    return [_click_option(row) for section in sections for row in rows(section) if row.flag]


def _click_option(row: Row) -> "click.Option":
    import click

    declaration = row.declaration
    notes = [f"default: {declaration.default}"] if declaration.default else []
    notes.append(f"env: {row.env}")
    given_bare: dict[str, Any] = {} if declaration.bare is None else {"flag_value": declaration.bare}
    return click.Option(
        [row.flag, row.param],
        type=str,
        default=None,
        is_flag=False,
        metavar=declaration.metavar if declaration.bare is None else f"[{declaration.metavar}]",
        help=f"{declaration.help}  [{'; '.join(notes)}]",
        **given_bare,
    )


def aligned_lines(effective: Sequence[Effective]) -> list[str]:
    """`name = value  (origin)`, a line each, in columns; control characters are escaped."""
    shown = [(one.name, one.text if one.text.isprintable() else repr(one.text), one.origin) for one in effective]
    left = max((len(name) for name, _, _ in shown), default=0)
    middle = max((len(text) for _, text, _ in shown if len(text) <= 60), default=0)
    return [f"{name:<{left}} = {text:<{middle}}  ({origin})" for name, text, origin in shown]
