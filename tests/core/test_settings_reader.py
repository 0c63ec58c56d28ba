"""The settings reader: precedence, origins, secrets and strictness, on a table of its own."""

# ruff: noqa: RUF009 - `setting` is a field specifier like dataclasses.field

from dataclasses import dataclass
from datetime import timedelta

import click
import pytest
from click.testing import CliRunner

from daemonkit.durations import parse_duration
from daemonkit.load import aligned_lines, click_options, open_sources
from daemonkit.names import is_injected, unknown_keys, unknown_variables
from daemonkit.parsers import parse_boolean, parse_secret, parse_text
from daemonkit.secret import Secret
from daemonkit.settings import Reading, Section, Sources, read, rows, setting
from daemonkit.yaml_document import parse_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    config: str = setting("", "File.", parse_text, yaml=False)
    name: str = setting("plain", "A name.", parse_text)
    wait: timedelta = setting("5s", "A wait.", parse_duration)
    loud: bool = setting("false", "A switch.", parse_boolean, bare="true")
    key: Secret | None = setting("", "A key.", parse_secret, secret=True, fallback_file="key.txt")
    old: str = setting("", "Renamed.", parse_text, aliases=("OTHER_OLD",))


SECTION = Section(table=Table, env_prefix="X_")
BLOCK = Section(table=Table, env_prefix="Y_", block="part")


def files(**texts: str):
    def read_file(path: str) -> str:
        if path not in texts:
            raise FileNotFoundError(2, "No such file or directory")
        return texts[path]

    return read_file


def reading(
    flags: dict[str, str | None] | None = None,
    environ: dict[str, str] | None = None,
    yaml: str = "",
    read_file=files(),  # noqa: B008
    section: Section[Table] = SECTION,
) -> Reading[Table]:
    return read(
        section,
        Sources(
            flags=flags or {},
            environ=environ or {},
            read_file=read_file,
            document=parse_document(yaml),
            document_name="x.yaml",
        ),
    )


@pytest.mark.parametrize(
    ("flags", "environ", "yaml", "value", "origin"),
    [
        ({"name": "f"}, {"X_NAME": "e"}, "name: y", "f", "flag --name"),
        ({"name": None}, {"X_NAME": "e"}, "name: y", "e", "environment X_NAME"),
        ({}, {"X_NAME": ""}, "name: y", "y", "file x.yaml"),
        ({}, {}, "name: ~", "plain", "default"),
        ({}, {}, "", "plain", "default"),
    ],
)
def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(flags, environ, yaml, value, origin):
    found = reading(flags, environ, yaml)
    assert found.values.name == value
    assert {one.name: one.origin for one in found.effective}["name"] == origin


def test_a_flag_given_empty_still_wins():
    assert reading({"name": ""}, {"X_NAME": "e"}).values.name == ""


def test_an_alias_is_another_name_of_the_variable():
    assert reading(environ={"OTHER_OLD": "1"}).values.old == "1"
    assert reading(environ={"OTHER_OLD": "1", "X_OLD": "2"}).values.old == "2"


def test_a_block_has_its_own_flags_variables_and_keys():
    flags = {row.field: (row.flag, row.env, row.yaml) for row in rows(BLOCK)}
    assert flags["name"] == ("--part-name", "Y_NAME", "part.name")
    assert reading(yaml="part:\n  name: inner\nname: outer", section=BLOCK).values.name == "inner"


@pytest.mark.parametrize(
    ("environ", "yaml", "content", "value"),
    [
        ({"X_KEY": "abc"}, "", "", "abc"),
        ({"X_KEY_FILE": "k"}, "", "abc\n", "abc"),
        ({"X_KEY_FILE": "k"}, "", "abc\r\n", "abc"),
        ({"X_KEY_FILE": "k"}, "", "abc\n\n", "abc\n"),
        ({"X_KEY_FILE": "k"}, "", "abc", "abc"),
        ({}, "key: abc", "", "abc"),
        ({}, "key_file: k", "abc\n", "abc"),
        ({"X_KEY": "env"}, "key_file: k", "abc", "env"),
    ],
)
def test_a_secret_comes_from_its_variable_or_file_with_one_line_break_cut(environ, yaml, content, value):
    found = reading(environ=environ, yaml=yaml, read_file=files(k=content))
    assert found.errors == ()
    assert found.values.key == Secret(value)
    assert {one.name: one.text for one in found.effective}["key"] == "<set>"


@pytest.mark.parametrize(
    ("environ", "yaml", "content", "error"),
    [
        ({"X_KEY": "canary", "X_KEY_FILE": "k"}, "", "canary", "X_KEY and X_KEY_FILE are both set"),
        ({}, "key: canary\nkey_file: k", "canary", "key and key_file are both set"),
        ({"X_KEY_FILE": "away"}, "", "canary", "X_KEY_FILE: cannot read 'away': No such file or directory"),
        ({"X_KEY_FILE": "k"}, "", " \n", "X_KEY_FILE: 'k' is empty"),
    ],
)
def test_a_secret_that_cannot_be_read_is_an_error_without_the_secret(environ, yaml, content, error):
    found = reading(environ=environ, yaml=yaml, read_file=files(k=content))
    assert len(found.errors) == 1
    assert error in found.errors[0]
    assert "canary" not in repr(found)


def test_a_secret_file_that_is_not_text_is_an_error_that_does_not_quote_it():
    def read_file(_path: str) -> str:
        return b"canary\xff".decode()

    errors = reading(environ={"X_KEY_FILE": "k"}, read_file=read_file).errors
    assert errors == ("X_KEY_FILE: 'k' is not a text file in UTF-8",)


def test_a_secret_has_no_flag_unless_it_asks_for_one():
    assert next(row for row in rows(SECTION) if row.field == "key").flag == ""
    assert reading({"key": "abc"}).values.key is None


def test_a_fallback_file_is_read_only_if_nothing_else_is_set():
    there = files(**{"key.txt": "from file\n"})
    assert reading(read_file=there).values.key == Secret("from file")
    assert reading(environ={"X_KEY": "set"}, read_file=there).values.key == Secret("set")
    assert reading().values.key is None
    assert reading(read_file=files(**{"key.txt": ""})).errors == ("key: 'key.txt' is empty",)


def test_every_error_is_reported_and_names_where_the_value_stands():
    found = reading({"wait": "long"}, {"X_LOUD": "maybe"}, "name:\n  inner: 1")
    assert [error.split(":")[0] for error in found.errors] == [
        "name must be a single value or a list of them",
        "--wait",
        "X_LOUD",
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("X_NAEM", "X_NAME"), ("X_KEY_FIEL", "X_KEY_FILE"), ("X_PART_7_KIND", "X_PART_<N>_KIND"), ("X_", "X_")],
)
def test_an_unknown_variable_is_an_error_that_names_the_nearest(name, hint):
    known = {env for row in rows(SECTION) for env in row.env_names}
    errors = unknown_variables({name: "1"}, prefix="X_", known=known, examples={"X_PART_<N>_KIND"})
    assert len(errors) == 1
    assert errors[0].startswith(f"{name} is not a known setting: did you mean {hint}")


def test_other_prefixes_and_names_read_elsewhere_are_not_judged():
    environ = {"Z_NAEM": "1", "X_PART_0_KEY": "1", "HOME": "/"}
    assert unknown_variables(environ, prefix="X_", known=set(), read_elsewhere=("X_PART_",)) == []


@pytest.mark.parametrize(
    "name",
    [
        "X_SERVICE_HOST",
        "X_ADMIN_SERVICE_HOST",
        "X_SERVICE_PORT",
        "X_SERVICE_PORT_GRPC",
        "X_PORT",
        "X_PORT_7410_TCP",
        "X_PORT_7410_TCP_PROTO",
    ],
)
def test_what_container_platforms_inject_is_ignored(name):
    assert is_injected(name)
    assert unknown_variables({name: "tcp://10.0.0.1:7410"}, prefix="X_", known={"X_NAME"}) == []


@pytest.mark.parametrize("name", ["X_PORTS", "X_EXPORT", "X_PORT_TCP", "X_SERVICE_HOSTS"])
def test_only_those_shapes_are_ignored(name):
    assert not is_injected(name)


def test_unknown_yaml_keys_are_errors_in_blocks_too():
    document = parse_document("nam: 1\nname: 2\nconfig: x\npart:\n  wiat: 3\n  wait: 4s\n  list: []")
    errors = unknown_keys(document, [SECTION, BLOCK], document_name="x.yaml", read_elsewhere={"part.list"})
    assert [error.split(" ")[0] for error in errors] == ["nam", "config", "part.wiat"]
    assert errors[0].endswith("did you mean name?")
    assert errors[2].endswith("did you mean part.wait?")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [1", "line"),
        ("a: canary\n  b: canary", "line 2 is not valid YAML"),
        ("a: 1\na: 2", "line 2: a is there twice"),
        ("- a", "must hold settings"),
        ("canary", "must hold settings"),
        ("? [a]\n: 1", "line 1 is not valid YAML"),
        ("a: *canary", "line 1 is not valid YAML"),
        ("[" * 5000, "nested"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_a_broken_yaml_file_is_one_error_that_does_not_quote_it(text, error):
    with pytest.raises(ValueError) as raised:
        parse_document(text)
    assert error in str(raised.value)
    assert "canary" not in str(raised.value)


def test_plain_yaml_values_stay_text():
    document = parse_document("a: 007\nb: yes\nc: 1e3\nd: ~\ne: '~'\nf: [1, 2]\ng:\nh: 2026-01-01")
    assert document == {
        "a": "007", "b": "yes", "c": "1e3", "d": "", "e": "~", "f": ["1", "2"], "g": "", "h": "2026-01-01",
    }  # fmt: skip


def test_the_config_file_is_named_by_flag_or_variable_and_its_errors_do_not_hide_others():
    sources, errors = open_sources({"config": "c"}, {"X_CONFIG": "e"}, files(c="name: y"), config_env="X_CONFIG")
    assert (sources.document, errors) == ({"name": "y"}, [])
    sources, errors = open_sources({}, {"X_CONFIG": "away"}, files(), config_env="X_CONFIG")
    assert (sources.document, errors) == ({}, ["config: cannot read 'away': No such file or directory"])


def test_options_take_the_flags_as_text_and_a_switch_may_stand_alone():
    @click.command(params=list(click_options([SECTION, BLOCK])))
    @click.pass_context
    def command(ctx: click.Context, /, **params: str | None) -> None:
        found = reading(params)
        click.echo(f"{found.values.loud} {found.values.name} {params['part_name']}")

    run = CliRunner().invoke
    assert run(command, ["--loud", "--name", "n", "--part-name=p"]).output == "True n p\n"
    assert run(command, ["--loud=false"]).output == "False plain None\n"
    assert run(command, ["--key", "x"]).exit_code == 2
    assert "[default: 5s; env: X_WAIT]" in run(command, ["--help"], terminal_width=200).output


def test_shown_settings_escape_what_a_terminal_would_obey():
    lines = aligned_lines(reading(environ={"X_NAME": "a\x1b[2Jb"}).effective)
    assert "\x1b" not in "".join(lines)
    assert any(line.startswith("name") and line.endswith("(environment X_NAME)") for line in lines)
