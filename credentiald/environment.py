"""CODER_AIBRIDGE_* to providers: indexed variables, the YAML list, the legacy ones. Pure, and all errors at once.

CODER_AIBRIDGE_PROVIDER_<N>_<FIELD>     N from 0 without gaps, in any order
aibridge.providers in the YAML file     a list, the fields in lower case; only if no indexed variable is set
CODER_AIBRIDGE_OPENAI_KEY …             see environment_legacy
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from credentiald import environment_rules as rules
from credentiald.catalog import shares_turns
from credentiald.environment_fields import Entry, read_entry
from credentiald.environment_legacy import legacy_entries, legacy_errors, legacy_warnings
from credentiald.gateway_settings import BLOCK, PREFIX, GatewaySettings
from credentiald.model import EnvironmentProvider, Provider
from daemonkit.names import is_injected
from daemonkit.settings import Sources, yaml_text

INDEXED_PREFIX = f"{PREFIX}PROVIDER_"
_NEWER_PREFIX = "CODER_AI_GATEWAY_PROVIDER_"
# No leading zeros: 0 and 00 would be one provider twice.
_INDEX = re.compile(r"0|[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentReading:
    """The configured providers in order, where each comes from (by name), and what was wrong or odd.

    With errors there are no providers.
    """

    providers: tuple[EnvironmentProvider, ...] = ()
    origins: Mapping[str, str]
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_environment(sources: Sources, legacy: GatewaySettings) -> EnvironmentReading:
    """All providers of the configuration, or all its errors."""
    indexed, errors = _indexed_entries(sources)
    listed, list_errors = _listed_entries(sources)
    old = list(legacy_entries(legacy))
    new = indexed or listed
    entries = [*(entry for _, entry in old), *new]
    all_errors = [
        *_mixed_prefixes(sources.environ),
        *errors,
        *list_errors,
        *legacy_errors(legacy),
        *(f"{one.label}: {problem}" for one in entries for problem in rules.problems(one)),
        *_repeated_names(new),
        *_clashes(old, new),
    ]
    origins = {rules.name_of(one): one.origin for one in entries}
    notes = [*_prefix_warnings(sources.environ), *legacy_warnings(legacy)]
    if indexed and listed:
        notes.append(f"{BLOCK}.providers of the YAML file is not used: {INDEXED_PREFIX}* is set, and it wins")
    if all_errors:
        return EnvironmentReading(origins=origins, errors=tuple(all_errors), warnings=tuple(notes))
    providers = tuple(rules.provider_of(one) for one in entries)
    if unlike := [*_unlike_fallbacks([one.provider for one in providers])]:
        return EnvironmentReading(origins=origins, errors=tuple(unlike), warnings=tuple(notes))
    return EnvironmentReading(
        providers=providers,
        origins=origins,
        warnings=(*notes, *(f"{one.label}: {warning}" for one in entries for warning in rules.warnings(one))),
    )


def _indexed_entries(sources: Sources) -> tuple[list[Entry], list[str]]:
    texts, errors = indexed_texts(sources.environ)
    entries = [
        read_entry(
            fields, label=f"provider {index}", origin=f"environment {INDEXED_PREFIX}{index}_*",
            read_file=sources.read_file,
        )
        for index, fields in texts.items()
    ]  # fmt: skip
    return entries, errors


def indexed_texts(environ: Mapping[str, str]) -> tuple[dict[int, dict[str, str]], list[str]]:
    """The fields of each indexed provider in numeric order, and what is wrong with the names of the variables."""
    texts: dict[int, dict[str, str]] = {}
    errors = []
    for name in sorted(environ):
        if not name.startswith(INDEXED_PREFIX) or is_injected(name):
            continue
        number, underscore, field = name.removeprefix(INDEXED_PREFIX).partition("_")
        if not number or not underscore or not field:
            errors.append(f"invalid env var {name}: write {INDEXED_PREFIX}<N>_<FIELD>")
        elif not _INDEX.fullmatch(number):
            errors.append(f"{name}: parse number: {number}")
        else:
            texts.setdefault(int(number), {})[field] = environ[name]
    ordered = dict(sorted(texts.items()))
    return ordered, [*errors, *_gaps(list(ordered))]


def _gaps(indexes: Sequence[int]) -> Iterator[str]:
    for before, index in zip((-1, *indexes), indexes, strict=False):
        if index != before + 1:
            yield f"provider num {before + 1} skipped: {INDEXED_PREFIX}{index}_* is set, and indices have no gaps"


def _listed_entries(sources: Sources) -> tuple[list[Entry], list[str]]:
    block = sources.document.get(BLOCK)
    items = block.get("providers") or [] if isinstance(block, Mapping) else []
    if not isinstance(items, Sequence) or isinstance(items, str):
        return [], [f"{BLOCK}.providers must be a list"]
    entries, errors = [], []
    for index, item in enumerate(items):
        label = f"{BLOCK}.providers[{index}]"
        if not isinstance(item, Mapping):
            errors.append(f"{label} must hold fields such as type and name")
            continue
        texts = {}
        for key in item:
            try:
                texts[key.upper()] = yaml_text(item, key)
            except ValueError as error:
                errors.append(f"{label}: {error}")
        entries.append(
            read_entry(texts, label=label, origin=f"file {sources.document_name}", read_file=sources.read_file)
        )
    return entries, errors


def _repeated_names(entries: Sequence[Entry]) -> Iterator[str]:
    for name, count in Counter(map(rules.name_of, entries)).items():
        if name and count > 1:
            yield f'duplicate NAME "{name}" (multiple providers of the same type require explicit NAME fields)'


def _unlike_fallbacks(providers: Sequence[Provider]) -> Iterator[str]:
    by_name = {one.name: one for one in providers}
    for one in providers:
        fallback = by_name.get(one.fallback_provider)
        if fallback is not None and not shares_turns(one, fallback):
            yield (
                f'provider "{one.name}": FALLBACK_PROVIDER "{fallback.name}" has no turn of a conversation in common '
                "with it"
            )


def _clashes(old: Sequence[tuple[str, Entry]], new: Sequence[Entry]) -> Iterator[str]:
    names = set(map(rules.name_of, new))
    for variable, entry in old:
        name = rules.name_of(entry)
        if name in names:
            yield f'legacy {variable} conflicts with indexed provider named "{name}"; remove one or the other'


def _has_prefix(environ: Mapping[str, str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in environ)


def _mixed_prefixes(environ: Mapping[str, str]) -> Iterator[str]:
    if _has_prefix(environ, _NEWER_PREFIX) and _has_prefix(environ, INDEXED_PREFIX):
        yield f"cannot mix {INDEXED_PREFIX}* and {_NEWER_PREFIX}* environment variables"


def _prefix_warnings(environ: Mapping[str, str]) -> Iterator[str]:
    if _has_prefix(environ, _NEWER_PREFIX):
        yield f"{_NEWER_PREFIX}* is not read: rename it to {INDEXED_PREFIX}*"
