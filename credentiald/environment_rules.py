"""What a configured provider may be, and the provider that follows from it. Decisions only."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from credentiald.bedrock_rules import option_problems, parse_model_rules, parse_models, parse_protocol
from credentiald.catalog import CATALOG, policy_with_defaults
from credentiald.environment_fields import ACCESS_KEY, ACCESS_KEY_SECRET, KEY, SESSION_TOKEN, Entry
from credentiald.gateway_settings import DEFAULT_BEDROCK_MODEL, DEFAULT_BEDROCK_SMALL_FAST_MODEL
from credentiald.model import (
    ApiKeyMaterial,
    AwsKeyPairMaterial,
    BedrockOptions,
    BedrockProtocol,
    EnvironmentProvider,
    KeyPolicy,
    Material,
    Origin,
    Provider,
    Timeouts,
)
from credentiald.policy import is_valid
from credentiald.timeout_rules import TIMEOUT_FIELDS, parse_provider_timeout
from credentiald.validation import base_url_problem, destination_problem, name_problem
from daemonkit.durations import parse_duration
from daemonkit.parsers import parse_boolean

# Provider ids from the environment follow from the name, so that users' keys are found again after a restart.
_ID_NAMESPACE = UUID("6f0f3c0e-5b1c-5d0c-9a57-0c1d8a3f7e21")

_TYPES_WITH_BEDROCK = ("bedrock", "anthropic")
_POLICY_FIELDS = {
    "CENTRAL_KEY": "central_key_enabled",
    "ALLOW_USER_KEYS": "user_keys_allowed",
    "CENTRAL_KEY_FALLBACK": "central_key_fallback",
}
_SWITCHES = (*_POLICY_FIELDS, "SEND_ACTOR_HEADERS", "BEDROCK_SET_SOURCE_IDENTITY", "BEDROCK_SESSION_TAGS")
# Options that go by another name in the environment.
_FIELD_NAMES = {"role_duration_seconds": "BEDROCK_ROLE_DURATION"}
_PARSERS: dict[str, Callable[[str], object]] = {
    "region": str,
    "role_arn": str,
    "external_id": str,
    "model": str,
    "small_fast_model": str,
    "models": lambda text: parse_models(text.split(",")),
    "model_rules": lambda text: parse_model_rules(text.split(",")),
    "role_duration_seconds": lambda text: math.ceil(parse_duration(text).total_seconds()),
    "session_policy": str,
    "protocol": parse_protocol,
    "set_source_identity": parse_boolean,
    "session_tags": parse_boolean,
}
_MAX_TEXT = 2048
_MAX_DISPLAY_NAME = 128


def name_of(entry: Entry) -> str:
    """The name, which is the type where none is given."""
    return entry.get("NAME") or type_of(entry)


def type_of(entry: Entry) -> str:
    """The type in lower case, known or not."""
    return entry.get("TYPE").lower()


def problems(entry: Entry) -> list[str]:
    """Everything that is wrong with an entry, its own name's form included."""
    switches = list(_switch_problems(entry))
    _, unreadable = _read_timeouts(entry)
    found = [*entry.errors, *_text_problems(entry), *switches, *unreadable]
    if not entry.get("TYPE"):
        return [*found, "TYPE is required"]
    if type_of(entry) not in CATALOG:
        return [*found, f'unknown TYPE "{entry.get("TYPE")}" (must be one of {", ".join(CATALOG)})']
    found += [
        *_name_problems(entry),
        *_fallback_problems(entry),
        *_url_problems(entry),
        *_key_problems(entry),
        *_bedrock_problems(entry),
    ]
    # With a misspelled switch, or a key that could not be read, the policy would be judged wrongly.
    return found if switches or entry.errors else [*found, *_policy_problems(entry)]


def warnings(entry: Entry) -> Iterator[str]:
    """What works, but surely is not meant."""
    if entry.secrets(KEY) + entry.secrets(ACCESS_KEY) and not _policy(entry).central_key_enabled:
        yield "CENTRAL_KEY is false, so the configured key is never used"


def provider_of(entry: Entry) -> EnvironmentProvider:
    """The provider of an entry without problems.

    Its `central_keys` are still empty: their ids are made with a key of the deployment once the store is open.
    """
    policy = _policy(entry)
    name = name_of(entry)
    timeouts, _ = _read_timeouts(entry)
    send_actor_headers = entry.get("SEND_ACTOR_HEADERS")
    provider = Provider(
        id=str(uuid5(_ID_NAMESPACE, name)),
        name=name,
        type=type_of(entry),
        display_name=entry.get("DISPLAY_NAME"),
        base_url=entry.get("BEDROCK_BASE_URL") or entry.get("BASE_URL"),
        policy=policy,
        origin=Origin.ENVIRONMENT,
        bedrock=_bedrock_options(entry),
        send_actor_headers=parse_boolean(send_actor_headers) if send_actor_headers else None,
        timeouts=timeouts,
        fallback_provider=entry.get("FALLBACK_PROVIDER"),
    )
    return EnvironmentProvider(
        provider=provider, materials=tuple(_materials(entry)) if policy.central_key_enabled else ()
    )


def _text_problems(entry: Entry) -> Iterator[str]:
    for name, text in entry.fields.items():
        limit = _MAX_DISPLAY_NAME if name == "DISPLAY_NAME" else _MAX_TEXT
        if len(text) > limit:
            yield f"{name} is longer than {limit} characters"
        if not text.isprintable():
            yield f"{name} has characters that cannot be printed"


def _switch_problems(entry: Entry) -> Iterator[str]:
    for name in _SWITCHES:
        try:
            parse_boolean(entry.get(name) or "false")
        except ValueError as error:
            yield f"{name}: {error}"


def _name_problems(entry: Entry) -> Iterator[str]:
    problem = name_problem(name_of(entry))
    if problem:
        yield f'NAME "{name_of(entry)}" {problem}'


def _fallback_problems(entry: Entry) -> Iterator[str]:
    name = entry.get("FALLBACK_PROVIDER")
    problem = name_problem(name) if name else None
    if problem:
        yield f'FALLBACK_PROVIDER "{name}" {problem}'
    elif name and name == name_of(entry):
        yield "FALLBACK_PROVIDER is the provider itself"


def _url_problems(entry: Entry) -> Iterator[str]:
    for name in ("BASE_URL", "BEDROCK_BASE_URL"):
        url = entry.get(name)
        problem = (base_url_problem(url) or destination_problem(url)) if url else None
        if problem:
            yield f"{name} {problem}"
    if entry.get("BASE_URL") and entry.get("BEDROCK_BASE_URL"):
        yield "BASE_URL and BEDROCK_BASE_URL are mutually exclusive"
    if CATALOG[type_of(entry)].base_url_required and not entry.get("BASE_URL"):
        yield f"BASE_URL is required for TYPE {type_of(entry)}"


def _key_problems(entry: Entry) -> Iterator[str]:
    keys, ids, secrets = (len(entry.secrets(name)) for name in (KEY, ACCESS_KEY, ACCESS_KEY_SECRET))
    kind = type_of(entry)
    if keys and not CATALOG[kind].central_key_kinds:
        yield f"KEY/KEYS are not supported for TYPE {kind}: its users bring their own"
    if ids != secrets:
        counts = f"BEDROCK_ACCESS_KEYS count ({ids}) must match BEDROCK_ACCESS_KEY_SECRETS count ({secrets})"
        both = "" if ids and secrets else "both access key and access key secret must be provided together: "
        yield both + counts
    if keys and kind == "anthropic" and entry.has_bedrock_fields:
        yield "KEY/KEYS and BEDROCK_* fields are mutually exclusive"
    elif keys and (ids or secrets):
        yield "KEY/KEYS and BEDROCK_ACCESS_KEY are mutually exclusive"


def _bedrock_problems(entry: Entry) -> Iterator[str]:
    if not entry.has_bedrock_fields:
        return
    if type_of(entry) not in _TYPES_WITH_BEDROCK:
        yield "BEDROCK_* fields are only supported with TYPE bedrock or anthropic"
    tokens, pairs = entry.secrets(SESSION_TOKEN), entry.secrets(ACCESS_KEY)
    if len(tokens) > 1 or (tokens and len(pairs) != 1):
        yield "BEDROCK_SESSION_TOKEN goes with exactly one access key pair"
    if entry.get("BEDROCK_ROLE_ARN") and entry.secrets(KEY):
        yield "BEDROCK_ROLE_ARN does not go with KEY: a bearer token assumes no role"
    options, unreadable = _read_options(entry)
    yield from unreadable
    for field, problem in option_problems(options):
        name = _FIELD_NAMES.get(field, f"BEDROCK_{field.upper()}")
        yield f"{name} {'needs BEDROCK_ROLE_ARN' if problem == 'needs a role_arn' else problem}"


def _policy_problems(entry: Entry) -> Iterator[str]:
    policy = _policy(entry)
    if not is_valid(policy):
        yield "the key policy has no source: CENTRAL_KEY and ALLOW_USER_KEYS are both off"
    elif not policy.central_key_enabled:
        return
    elif not CATALOG[type_of(entry)].central_key_kinds:
        yield f"CENTRAL_KEY must be false for TYPE {type_of(entry)}: its users bring their own keys"
    elif not entry.secrets(KEY) and not _is_bedrock(entry):
        yield "KEY is required because CENTRAL_KEY is on"


def _is_bedrock(entry: Entry) -> bool:
    return type_of(entry) == "bedrock" or (type_of(entry) == "anthropic" and entry.has_bedrock_fields)


def _policy(entry: Entry) -> KeyPolicy:
    """The flags that are set, over the defaults, which depend on whether there is a key (or an AWS chain)."""
    has_central_source = bool(entry.secrets(KEY)) or _is_bedrock(entry)
    given: dict[str, bool] = {"central_key_enabled": has_central_source, "user_keys_allowed": not has_central_source}
    for name, flag in _POLICY_FIELDS.items():
        if entry.get(name):
            given[flag] = parse_boolean(entry.get(name))
    return policy_with_defaults(type_of(entry), **given)


def _bedrock_options(entry: Entry) -> BedrockOptions | None:
    if not _is_bedrock(entry):
        return None
    options, _ = _read_options(entry)
    # Anthropic's own model names mean nothing to InvokeModel, so there a mapping is needed; a client of TYPE=bedrock
    # may send Bedrock's names.
    by_default = type_of(entry) == "anthropic" and options.protocol is BedrockProtocol.INVOKE_MODEL
    return replace(
        options,
        model=options.model or (DEFAULT_BEDROCK_MODEL if by_default else ""),
        small_fast_model=options.small_fast_model or (DEFAULT_BEDROCK_SMALL_FAST_MODEL if by_default else ""),
    )


def _read_options(entry: Entry) -> tuple[BedrockOptions, list[str]]:
    """The options as they stand, and an error for each that cannot be read."""
    read: dict[str, Any] = {}
    errors = []
    for field, parse in _PARSERS.items():
        name = _FIELD_NAMES.get(field, f"BEDROCK_{field.upper()}")
        if not entry.get(name):
            continue
        try:
            read[field] = parse(entry.get(name))
        except ValueError as error:
            # What is wrong with a switch is said with the other switches.
            errors += [] if name in _SWITCHES else [f"{name}: {error}"]
    return BedrockOptions(**read), errors


def _read_timeouts(entry: Entry) -> tuple[Timeouts, list[str]]:
    """The time-outs, and an error for each that cannot be read or is none."""
    read: dict[str, timedelta | None] = {}
    errors = []
    for field in TIMEOUT_FIELDS:
        name = f"{field.upper()}_TIMEOUT"
        try:
            read[field] = parse_provider_timeout(entry.get(name) or "0")
        except ValueError as error:
            errors.append(f"{name}: {error}")
    return Timeouts(**read), errors


def _materials(entry: Entry) -> Iterator[Material]:
    for key in entry.secrets(KEY):
        yield ApiKeyMaterial(value=key)
    session_token = next(iter(entry.secrets(SESSION_TOKEN)), None)
    for access_key, secret in zip(entry.secrets(ACCESS_KEY), entry.secrets(ACCESS_KEY_SECRET), strict=True):
        yield AwsKeyPairMaterial(access_key_id=access_key, secret_access_key=secret, session_token=session_token)
