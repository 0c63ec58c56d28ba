"""The options of `providers create` and `update` that are fields of a provider.

An option's parameter is named after the path of its field in an update mask, with `__` for the dot: what was given
on the command line is what the mask names.
"""

import functools
from collections.abc import Callable, Mapping

import click
from drawbridge.v1.provider_pb2 import KeyMaterial, Provider

from credentiald.cli.material import read_access_key_pair, read_api_key

Given = Mapping[str, str | bool | None]
"""Parameter to its value; None where the option was not given."""


def _text(flag: str, parameter: str, metavar: str, meaning: str) -> Callable[..., Callable[..., None]]:
    return click.option(flag, parameter, metavar=metavar, help=meaning)


def _switch(flag: str, parameter: str, meaning: str) -> Callable[..., Callable[..., None]]:
    return click.option(f"--{flag}/--no-{flag}", parameter, default=None, help=meaning)


_OPTIONS = (
    _text("--base-url", "base_url", "URL", "Where the upstream is; empty for the default of the type."),
    _text("--display-name", "display_name", "TEXT", "What people read."),
    _switch("central-key", "key_policy__central_key_enabled", "Use a key that an administrator stored."),
    _switch("user-keys", "key_policy__user_keys_allowed", "Users may bring keys of their own."),
    _switch(
        "central-key-fallback",
        "key_policy__central_key_fallback",
        "With user keys: the central key stands in for a user who has none.",
    ),
    _switch("send-actor-headers", "send_actor_headers", "Tell the upstream who asks."),
    _text("--bedrock-region", "bedrock__region", "REGION", "AWS region."),
    _text("--bedrock-role-arn", "bedrock__role_arn", "ARN", "Role to assume."),
    _text("--bedrock-external-id", "bedrock__external_id", "ID", "External id for assuming the role."),
    _text("--bedrock-model", "bedrock__model", "MODEL", "Model that Anthropic model names are mapped to."),
    _text(
        "--bedrock-small-fast-model",
        "bedrock__small_fast_model",
        "MODEL",
        "Model that names with 'haiku' are mapped to.",
    ),
    click.option("--key-stdin", is_flag=True, help="Read the central key from stdin, or from a prompt."),
    click.option(
        "--bedrock-access-key-stdin",
        is_flag=True,
        help="Read an AWS access key from stdin (id, secret and perhaps session token, a line each), or from prompts.",
    ),
)


def provider_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command every option above: `key_stdin`, `bedrock_access_key_stdin`, and the fields as keywords."""
    return functools.reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


def provider_of(name: str, given: Given) -> Provider:
    """A provider message with the fields that were given."""
    provider = Provider(name=name)
    for path, value in given_paths(given).items():
        *parents, field = path.split(".")
        message = functools.reduce(getattr, parents, provider)
        setattr(message, field, value)
    return provider


def given_paths(given: Given) -> dict[str, str | bool]:
    """Path in an update mask to its new value, for what was given."""
    return {parameter.replace("__", "."): value for parameter, value in given.items() if value is not None}


def read_central_key(*, key_stdin: bool, bedrock_access_key_stdin: bool) -> KeyMaterial | None:
    """The key that the flags ask for, read now; None where they ask for none."""
    if key_stdin and bedrock_access_key_stdin:
        raise click.UsageError("--key-stdin and --bedrock-access-key-stdin exclude each other")
    if key_stdin:
        return read_api_key()
    return read_access_key_pair() if bedrock_access_key_stdin else None
