"""What may be set as Bedrock's options, and how lists of them are written as text. Decisions only.

The same rules hold for what administrators save and for BEDROCK_* in the environment. Limits of AssumeRole are those of
AWS STS ("API Reference", AssumeRole): DurationSeconds from 900 to 43200, Policy of 1 to 2048 characters.
"""

import json
import re
from collections.abc import Iterable, Iterator

from credentiald.model import BedrockModelRule, BedrockOptions, BedrockProtocol
from credentiald.validation import region_problem, role_arn_problem

MIN_ROLE_SECONDS = 900
MAX_ROLE_SECONDS = 43_200
MAX_POLICY_CHARACTERS = 2048

_MAX_ENTRIES = 100
_MAX_TEXT = 2048
_TEXTS = ("region", "role_arn", "external_id", "model", "small_fast_model")
# What a role is assumed with, and what says nothing without one.
_NEEDS_ROLE = ("external_id", "role_duration_seconds", "session_policy", "set_source_identity", "session_tags")
_WORD = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
# STS: [\u0009\u000A\u000D\u0020-\u00FF]+
_POLICY_TEXT = re.compile("[\t\n\r -\xff]+")

PROTOCOLS = {protocol.value.lower().replace("_", "-"): protocol for protocol in BedrockProtocol}
"""How a protocol is written on a command line and in a variable."""


def option_problems(options: BedrockOptions) -> Iterator[tuple[str, str]]:
    """Field and what is wrong with it, for every option that must not be saved."""
    yield from _form_problems(options)
    if not options.role_arn:
        yield from ((field, "needs a role_arn") for field in _NEEDS_ROLE if getattr(options, field))


def _form_problems(options: BedrockOptions) -> Iterator[tuple[str, str]]:
    for field in _TEXTS:
        problem = _text_problem(getattr(options, field))
        if problem:
            yield field, problem
    for field, problem_of in (("region", region_problem), ("role_arn", role_arn_problem)):
        problem = problem_of(getattr(options, field)) if getattr(options, field) else None
        if problem:
            yield field, problem
    yield from _model_problems(options.models)
    yield from _rule_problems(options.model_rules)
    seconds = options.role_duration_seconds
    if seconds and not MIN_ROLE_SECONDS <= seconds <= MAX_ROLE_SECONDS:
        yield "role_duration_seconds", f"must be from {MIN_ROLE_SECONDS} to {MAX_ROLE_SECONDS} seconds, or 0"
    problem = _policy_problem(options.session_policy) if options.session_policy else None
    if problem:
        yield "session_policy", problem


def _text_problem(text: str) -> str | None:
    if len(text) > _MAX_TEXT:
        return f"is longer than {_MAX_TEXT} characters"
    return None if text.isprintable() else "has characters that cannot be printed"


def _model_problems(models: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    if len(models) > _MAX_ENTRIES:
        yield "models", f"has more than {_MAX_ENTRIES} entries"
    names = [name for name, _ in models]
    if len(set(names)) < len(names):
        yield "models", "names a model twice"
    if any(not _is_model(name) or not _is_model(model) for name, model in models):
        yield "models", "must be names and ids of models, without spaces"


def _rule_problems(rules: tuple[BedrockModelRule, ...]) -> Iterator[tuple[str, str]]:
    if len(rules) > _MAX_ENTRIES:
        yield "model_rules", f"has more than {_MAX_ENTRIES} entries"
    for rule in rules:
        if not _is_model(rule.contains):
            yield "model_rules", "needs a part of a model's id in each rule, without spaces"
        if not _is_word(rule.family):
            yield "model_rules", "needs the name of a family in each rule, for example claude-sonnet-4-5"
        if len(rule.betas) > _MAX_ENTRIES or not all(map(_is_word, rule.betas)):
            yield "model_rules", "has something that is no beta flag, for example context-1m-2025-08-07"


def _is_model(text: str) -> bool:
    return bool(text) and not _text_problem(text) and " " not in text


def _is_word(text: str) -> bool:
    return len(text) <= 128 and _WORD.fullmatch(text) is not None


def _policy_problem(policy: str) -> str | None:
    if len(policy) > MAX_POLICY_CHARACTERS:
        return f"is longer than {MAX_POLICY_CHARACTERS} characters"
    try:
        document = json.loads(policy)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not _POLICY_TEXT.fullmatch(policy):
        return "must be the JSON document of an IAM policy"
    return None


def parse_models(entries: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Pairs from texts `NAME=ID`; empty ones are left out. ValueError says what is wrong with which."""
    models = []
    for entry in filter(None, map(str.strip, entries)):
        name, equals, model = entry.partition("=")
        if not (equals and name.strip() and model.strip()):
            raise ValueError(f"{entry!r} is not NAME=ID, the model as clients write it and its id at Bedrock")
        models.append((name.strip(), model.strip()))
    return tuple(models)


def parse_model_rules(entries: Iterable[str]) -> tuple[BedrockModelRule, ...]:
    """Rules from texts `CONTAINS=FAMILY+BETA+BETA`; empty ones are left out. ValueError says what is wrong."""
    rules = []
    for entry in filter(None, map(str.strip, entries)):
        contains, equals, rest = entry.partition("=")
        family, *betas = rest.split("+")
        if not (equals and contains.strip() and family.strip()):
            raise ValueError(f"{entry!r} is not CONTAINS=FAMILY, perhaps with +BETA behind it")
        rules.append(
            BedrockModelRule(contains=contains.strip(), family=family.strip(), betas=tuple(map(str.strip, betas)))
        )
    return tuple(rules)


def parse_protocol(text: str) -> BedrockProtocol:
    """`invoke-model` or `mantle`, in any case; empty is the first."""
    word = text.strip().lower()
    if not word:
        return BedrockProtocol.INVOKE_MODEL
    if word not in PROTOCOLS:
        raise ValueError(f"{text!r} is not possible: write one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[word]
