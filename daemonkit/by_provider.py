"""Settings that are one word for all providers, and with commas `PROVIDER=WORD` for some."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def parse_by_provider(
    text: str, parse_word: Callable[[str], T], name_problem: Callable[[str], str | None]
) -> tuple[T | None, dict[str, T]]:
    """What the words say, for all (None where nothing is said) and by provider; ValueError says what is wrong.

    `parse_word` raises ValueError for what is no such word; `name_problem` says why no provider has this name.
    """
    for_all: T | None = None
    by_provider: dict[str, T] = {}
    for place, part in enumerate(text.split(",")):
        name, separator, word = (piece.strip() for piece in part.rpartition("="))
        chosen = parse_word(word)
        if not separator:
            if place:
                raise ValueError(f"{word!r} comes after the first: write PROVIDER={word}")
            for_all = chosen
        elif not name or name in by_provider:
            raise ValueError(f"{part.strip()!r}: name each provider once")
        elif problem := name_problem(name):
            # It could never apply.
            raise ValueError(f"{name!r} is no name of a provider: it {problem}")
        else:
            by_provider[name] = chosen
    return for_all, by_provider
