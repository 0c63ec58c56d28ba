"""Settings declared once: a field of a frozen dataclass is the flag, the variable, the YAML key and the documentation.

A flag wins over an environment variable, that over the YAML file, that over the default; where a value came from is
remembered. Reading is pure: environment, flags, document and the function that reads files are arguments. Errors are
collected, never raised one by one. An empty environment variable or YAML value counts as not set.

No setting may have the shape of a name that container platforms inject (names.is_injected).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from daemonkit.secret import Secret

T = TypeVar("T")
ReadFile = Callable[[str], str]

_METADATA_KEY = "daemonkit.setting"


class ConfigErrors(Exception):
    """Everything that is wrong with the configuration, a sentence each, without secret values."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors: list[str] = list(errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What `setting` was told; the names come from the field and the section."""

    default: str
    help: str
    parse: Callable[[str], Any]
    secret: bool
    flag: bool
    yaml: bool
    bare: str | None
    metavar: str
    aliases: tuple[str, ...]
    fallback_file: str


def setting(
    default: str,
    help: str,  # noqa: A002 - the word that click and readers of the table expect
    parse: Callable[[str], T],
    *,
    secret: bool = False,
    flag: bool | None = None,
    yaml: bool = True,
    bare: str | None = None,
    metavar: str = "TEXT",
    aliases: tuple[str, ...] = (),
    fallback_file: str = "",
) -> T:
    """A field of a settings table.

    `default` is text as an operator types it and goes through `parse` like any other. A secret has a `_FILE` twin
    and, unless `flag` says otherwise, no flag: it would show in the list of processes. `bare` is the value of the
    flag given without one. `aliases` are further environment variables, whole names. `fallback_file` is read before
    the default is taken, if it is there.
    """
    declaration = Declaration(
        default=default,
        help=help,
        parse=parse,
        secret=secret,
        flag=not secret if flag is None else flag,
        yaml=yaml,
        bare=bare,
        metavar=metavar,
        aliases=aliases,
        fallback_file=fallback_file,
    )
    return field(default_factory=lambda: parse(default), metadata={_METADATA_KEY: declaration})


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Generic[T]):
    """A settings table with its names: `block` is the YAML block and the first part of its flags, or empty."""

    table: type[T]
    env_prefix: str
    block: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting with all its names; a name is empty where the setting cannot be given that way."""

    field: str
    name: str
    declaration: Declaration
    flag: str
    env: str
    yaml: str

    @property
    def param(self) -> str:
        """The key of its value among click's parameters."""
        return self.name.replace(".", "_")

    @property
    def env_names(self) -> tuple[str, ...]:
        """All its variables, `_FILE` twins included."""
        names = (self.env, *self.declaration.aliases)
        return (*names, *(f"{name}_FILE" for name in names)) if self.declaration.secret else names

    @property
    def yaml_names(self) -> tuple[str, ...]:
        """All its YAML keys, with their block."""
        if not self.yaml:
            return ()
        return (self.yaml, f"{self.yaml}_file") if self.declaration.secret else (self.yaml,)


def rows(section: Section[Any]) -> Iterator[Row]:
    """The settings of a section in the order of its table."""
    dot, dash = (f"{section.block}.", f"{section.block}-") if section.block else ("", "")
    for one in fields(section.table):
        declaration: Declaration = one.metadata[_METADATA_KEY]
        yield Row(
            field=one.name,
            name=dot + one.name,
            declaration=declaration,
            flag=f"--{dash}{one.name.replace('_', '-')}" if declaration.flag else "",
            env=section.env_prefix + one.name.upper(),
            yaml=dot + one.name if declaration.yaml else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where values come from. `flags` by Row.param, None for not given; `document` is the YAML file, parsed."""

    flags: Mapping[str, str | None]
    environ: Mapping[str, str]
    read_file: ReadFile
    document: Mapping[str, object] = field(default_factory=dict)
    document_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """A setting as `config check` shows it: secrets only as `<set>` or `<unset>`."""

    name: str
    text: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Generic[T]):
    """A table that was read. Where a value was wrong, the default stands in, so that other checks can go on."""

    values: T
    effective: tuple[Effective, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A value as text; `label` is the name an error speaks of."""

    text: str
    label: str
    origin: str


def read(section: Section[T], sources: Sources) -> Reading[T]:
    """Every setting of the section from the highest source that has it."""
    values: dict[str, Any] = {}
    effective: list[Effective] = []
    errors: list[str] = []
    for row in rows(section):
        default = _Given(text=row.declaration.default, label=row.name, origin="default")
        try:
            given = _given(row, sources) or default
        except ValueError as error:
            errors.append(str(error))
            given = default
        try:
            values[row.field] = row.declaration.parse(given.text)
        except ValueError as error:
            errors.append(f"{given.label}: {error}")
            given = default
            values[row.field] = row.declaration.parse(default.text)
        effective.append(_shown(row, given, values[row.field]))
    return Reading(values=section.table(**values), effective=tuple(effective), errors=tuple(errors))


def _shown(row: Row, given: _Given, value: object) -> Effective:
    secret_shown = "<set>" if isinstance(value, Secret) else "<unset>"
    text = secret_shown if row.declaration.secret else given.text.strip()
    return Effective(name=row.name, text=text, origin=given.origin)


def _given(row: Row, sources: Sources) -> _Given | None:
    return (
        _from_flag(row, sources)
        or _from_environment(row, sources)
        or _from_document(row, sources)
        or _from_fallback_file(row, sources)
    )


def _from_flag(row: Row, sources: Sources) -> _Given | None:
    text = sources.flags.get(row.param) if row.flag else None
    return None if text is None else _Given(text=text, label=row.flag, origin=f"flag {row.flag}")


def _from_environment(row: Row, sources: Sources) -> _Given | None:
    for name in (row.env, *row.declaration.aliases):
        path = sources.environ.get(f"{name}_FILE", "") if row.declaration.secret else ""
        given = _text_or_file(name, sources.environ.get(name, ""), f"{name}_FILE", path, sources.read_file)
        if given is not None:
            return given
    return None


def _from_document(row: Row, sources: Sources) -> _Given | None:
    if not row.yaml:
        return None
    text, path = (yaml_text(sources.document, name) for name in (row.yaml, f"{row.yaml}_file"))
    if not row.declaration.secret:
        path = ""
    given = _text_or_file(row.yaml, text, f"{row.yaml}_file", path, sources.read_file)
    if given is None:
        return None
    label = f"{given.label} in {sources.document_name}"
    return _Given(text=given.text, label=label, origin=f"file {sources.document_name}")


def _from_fallback_file(row: Row, sources: Sources) -> _Given | None:
    path = row.declaration.fallback_file
    if not path:
        return None
    try:
        text = _file_text(row.name, path, sources.read_file)
    except ValueError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    return _Given(text=text, label=row.name, origin=f"file {path}")


def secret_file(section: Section[Any], field_name: str, sources: Sources) -> str:
    """The file that a secret comes from, or would if it were there; empty where it is given as a value.

    For settings that were read without an error.
    """
    row = next(one for one in rows(section) if one.field == field_name)
    for name in (row.env, *row.declaration.aliases):
        if path := sources.environ.get(f"{name}_FILE", ""):
            return path
        if sources.environ.get(name):
            return ""
    if row.yaml and yaml_text(sources.document, row.yaml):
        return ""
    return (row.yaml and yaml_text(sources.document, f"{row.yaml}_file")) or row.declaration.fallback_file


def _text_or_file(name: str, text: str, file_name: str, path: str, read_file: ReadFile) -> _Given | None:
    if not text and not path:
        return None
    label = file_name if path else name
    value = secret_text(name, text, file_name, path, read_file)
    return _Given(text=value, label=label, origin=f"environment {label}")


def secret_text(name: str, text: str, file_name: str, path: str, read_file: ReadFile) -> str:
    """The text, or the content of the file at `path` without one line break at its end; empty if neither is set.

    ValueError with both, or with a file that cannot be read or is empty; it speaks of `name` and `file_name`.
    """
    if not path:
        return text
    if text:
        raise ValueError(f"{name} and {file_name} are both set: keep one of them")
    return _file_text(file_name, path, read_file)


def _file_text(label: str, path: str, read_file: ReadFile) -> str:
    try:
        content = read_file(path)
    except OSError as error:
        raise ValueError(f"{label}: cannot read {path!r}: {error.strerror or type(error).__name__}") from error
    except ValueError:  # the decoder quotes the bytes it met, so its error goes no further
        raise ValueError(f"{label}: {path!r} is not a text file in UTF-8") from None
    if not content.strip():
        raise ValueError(f"{label}: {path!r} is empty")
    return content.removesuffix("\n").removesuffix("\r") if content.endswith("\n") else content


def yaml_text(document: Mapping[str, object], dotted: str) -> str:
    """The value under a key, perhaps in a block, as one text; the items of a list get commas between them.

    Empty if it is not there. ValueError if it is a block, or a list of something else than plain values.
    """
    value: object = document
    for key in dotted.split("."):
        value = value.get(key, "") if isinstance(value, Mapping) else ""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    raise ValueError(f"{dotted} must be a single value or a list of them")


def read_text_file(path: str) -> str:
    """The `ReadFile` of the daemons: a text file in UTF-8, line breaks as they are."""
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()
