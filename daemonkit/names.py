"""Strictness: a name of ours that nobody knows is an error that tells the nearest one that somebody does."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from daemonkit.settings import Section, rows

# What Kubernetes and Docker links set for a service called like one of our daemons.
_INJECTED = re.compile(r".*(_SERVICE_HOST|_SERVICE_PORT(_.*)?|_PORT|_PORT_[0-9]+_.*)")


def is_injected(name: str) -> bool:
    """Whether a variable has a shape that container platforms inject for a service."""
    return _INJECTED.fullmatch(name) is not None


def nearest(name: str, known: Iterable[str]) -> str:
    """The most similar of the known names."""
    return max(sorted(known), key=lambda candidate: SequenceMatcher(None, name, candidate).ratio())


def unknown_variables(
    environ: Mapping[str, str],
    *,
    prefix: str,
    known: Collection[str],
    read_elsewhere: Sequence[str] = (),
    examples: Collection[str] = (),
) -> list[str]:
    """An error for each variable with our prefix that is neither known nor injected.

    Names that begin with one of `read_elsewhere` are not judged here; `examples` are names of their kind, to be
    suggested too.
    """
    errors = []
    for name in sorted(environ):
        if not name.startswith(prefix) or name in known or is_injected(name) or name.startswith(tuple(read_elsewhere)):
            continue
        suffixes = {candidate.removeprefix(prefix) for candidate in (*known, *examples) if candidate.startswith(prefix)}
        hint = prefix + nearest(name.removeprefix(prefix), suffixes)
        errors.append(f"{name} is not a known setting: did you mean {hint}?")
    return errors


def unknown_keys(
    document: Mapping[str, object],
    sections: Sequence[Section[Any]],
    *,
    document_name: str,
    read_elsewhere: Collection[str] = (),
) -> list[str]:
    """An error for each YAML key, also inside the blocks, that no section has and that is not read elsewhere."""
    known = {name for section in sections for row in rows(section) for name in row.yaml_names} | set(read_elsewhere)
    blocks = {section.block for section in sections if section.block}
    errors = []
    for key, value in document.items():
        if key not in blocks:
            names = [key]
        elif isinstance(value, Mapping):
            names = [f"{key}.{inner}" for inner in value]
        else:
            names = []
            if value:
                errors.append(f"{key} in {document_name} must hold settings, one a line")
        errors += [
            f"{name} in {document_name} is not a known setting: did you mean {nearest(name, known)}?"
            for name in names
            if name not in known
        ]
    return errors
