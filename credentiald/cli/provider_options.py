"""The options of `providers create` and `update` that are fields of a provider.

An option's parameter is named after the path of its field in an update mask, with `__` for the dot: what was given
on the command line is what the mask names.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from drawbridge.v1.provider_pb2 import (
    BedrockModelRule,
    BedrockOptions,
    BedrockProtocol,
    KeyMaterial,
    Provider,
    ProviderTimeouts,
)

from credentiald import model
from credentiald.bedrock_rules import MAX_ROLE_SECONDS, PROTOCOLS, parse_model_rules, parse_models
from credentiald.cli.material import read_access_key_pair, read_api_key
from credentiald.timeout_rules import TIMEOUT_FIELDS, parse_provider_timeout
from daemonkit.durations import parse_duration

Given = Mapping[str, Any]
"""Parameter to its value; None where the option was not given."""


def _text(flag: str, parameter: str, metavar: str, meaning: str) -> Callable[..., Callable[..., None]]:
    return click.option(flag, parameter, metavar=metavar, help=meaning)


def _switch(flag: str, parameter: str, meaning: str) -> Callable[..., Callable[..., None]]:
    return click.option(f"--{flag}/--no-{flag}", parameter, default=None, help=meaning)


def _entries(parse: Callable[[Iterable[str]], object]) -> Callable[..., object]:
    """A callback for an option that may be repeated: what `parse` makes of the entries, None without any."""

    def read(context: click.Context, parameter: click.Parameter, entries: tuple[str, ...]) -> object:
        try:
            return parse(entries) if entries else None
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from error

    return read


def _seconds(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    try:
        seconds = None if text is None else math.ceil(parse_duration(text or "0").total_seconds())
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    if seconds is not None and seconds > MAX_ROLE_SECONDS:
        # credentiald would say so too, but the message's field does not hold any number.
        raise click.BadParameter("is longer than 12h", context, parameter)
    return seconds


def _timeout(flag: str, field: str, meaning: str) -> Callable[..., Callable[..., None]]:
    return click.option(
        flag,
        f"timeouts__{field}",
        metavar="DURATION",
        callback=_parsed_timeout,
        help=f"{meaning} 0 is as the bridge is set.",
    )


def _parsed_timeout(context: click.Context, parameter: click.Parameter, text: str | None) -> timedelta | None:
    """The duration, zero for a return to the bridge's setting; None where the option was not given."""
    try:
        return None if text is None else parse_provider_timeout(text) or timedelta()
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _contents(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    """The text of a file; an empty path is an empty text."""
    try:
        return Path(path).read_text().strip() if path else path
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot read {path!r}", context, parameter) from error


_OPTIONS = (
    _text("--base-url", "base_url", "URL", "Where the upstream is; empty for the default of the type."),
    _text("--display-name", "display_name", "TEXT", "What people read."),
    _switch(
        "central-key", "key_policy__central_key_enabled", "Use keys that an administrator stored; off removes them."
    ),
    _switch("user-keys", "key_policy__user_keys_allowed", "Users may bring keys of their own."),
    _switch(
        "central-key-fallback",
        "key_policy__central_key_fallback",
        "With user keys: the central key stands in for a user who has none.",
    ),
    _switch("send-actor-headers", "send_actor_headers", "Tell the upstream who asks."),
    _text("--fallback-provider", "fallback_provider", "NAME", "Provider that turns go to where the upstream fails."),
    click.option("--no-fallback-provider", "fallback_provider", flag_value="", help="No fallback provider."),
    _timeout("--connect-timeout", "connect", "How long a connection to the upstream may take."),
    _timeout("--first-byte-timeout", "first_byte", "How long the upstream may take to begin its answer."),
    _timeout("--idle-timeout", "idle", "How long the upstream may pause inside its answer."),
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
    click.option(
        "--bedrock-model-map",
        "bedrock__models",
        multiple=True,
        metavar="NAME=ID",
        callback=_entries(parse_models),
        help="Model as clients write it, and its id at Bedrock. May be repeated; replaces the map, '' empties it.",
    ),
    click.option(
        "--bedrock-model-rule",
        "bedrock__model_rules",
        multiple=True,
        metavar="CONTAINS=FAMILY+BETA…",
        callback=_entries(parse_model_rules),
        help="What models are whose id contains a text: a family, and betas besides its own. May be repeated; "
        "replaces all rules, '' removes them.",
    ),
    click.option(
        "--bedrock-role-duration",
        "bedrock__role_duration_seconds",
        metavar="DURATION",
        callback=_seconds,
        help="How long the role's credentials live, 15m to 12h; 0 for AWS's default.",
    ),
    click.option(
        "--bedrock-session-policy-file",
        "bedrock__session_policy",
        metavar="PATH",
        callback=_contents,
        help="File with a session policy for the role, in JSON; '' for none.",
    ),
    click.option(
        "--bedrock-protocol",
        "bedrock__protocol",
        type=click.Choice(list(PROTOCOLS)),
        help="Which of Bedrock's endpoints is spoken to.",
    ),
    _switch("bedrock-source-identity", "bedrock__set_source_identity", "SourceIdentity says who asks."),
    _switch("bedrock-session-tags", "bedrock__session_tags", "Tag the role's session with user and provider."),
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
        assign: Callable[[Any, str, Any], None] = _SETTERS.get(path, setattr)
        assign(message, field, value)
    return provider


def _set_models(options: BedrockOptions, field: str, models: Iterable[tuple[str, str]]) -> None:
    options.models.update(models)


def _set_model_rules(options: BedrockOptions, field: str, rules: Iterable[model.BedrockModelRule]) -> None:
    options.model_rules.extend(
        BedrockModelRule(contains=rule.contains, family=rule.family, betas=rule.betas) for rule in rules
    )


def _set_protocol(options: BedrockOptions, field: str, word: str) -> None:
    options.protocol = BedrockProtocol.Value(f"BEDROCK_PROTOCOL_{PROTOCOLS[word].value}")


def _set_timeout(timeouts: ProviderTimeouts, field: str, duration: timedelta) -> None:
    if duration:
        getattr(timeouts, field).FromTimedelta(duration)


# Fields that are not set by assignment.
_SETTERS: dict[str, Callable[..., None]] = {
    "bedrock.models": _set_models,
    "bedrock.model_rules": _set_model_rules,
    "bedrock.protocol": _set_protocol,
    **{f"timeouts.{field}": _set_timeout for field in TIMEOUT_FIELDS},
}


def given_paths(given: Given) -> dict[str, Any]:
    """Path in an update mask to its new value, for what was given."""
    return {parameter.replace("__", "."): value for parameter, value in given.items() if value is not None}


def read_central_key(*, key_stdin: bool, bedrock_access_key_stdin: bool) -> KeyMaterial | None:
    """The key that the flags ask for, read now; None where they ask for none."""
    if key_stdin and bedrock_access_key_stdin:
        raise click.UsageError("--key-stdin and --bedrock-access-key-stdin exclude each other")
    if key_stdin:
        return read_api_key()
    return read_access_key_pair() if bedrock_access_key_stdin else None
