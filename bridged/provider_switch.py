"""A setting that is on or off, with exceptions for single providers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from daemonkit.by_provider import parse_by_provider

# As credentiald has them.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_WORDS = {"on": True, "off": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSwitch:
    """On or off for a provider, by its name."""

    is_on: bool = True
    by_provider: Mapping[str, bool] = field(default_factory=dict)

    def on_for(self, provider: str) -> bool:
        """Whether it is on for this provider."""
        return self.by_provider.get(provider, self.is_on)


def parse_provider_switch(text: str) -> ProviderSwitch:
    """`on` or `off`, and with commas `PROVIDER=on` or `PROVIDER=off`; ValueError says what is wrong."""
    is_on, by_provider = parse_by_provider(text, _on_or_off, _name_problem)
    return ProviderSwitch(is_on=is_on is not False, by_provider=by_provider)


def _on_or_off(word: str) -> bool:
    chosen = _WORDS.get(word.lower())
    if chosen is None:
        raise ValueError(f"{word!r} is not possible: write on or off")
    return chosen


def _name_problem(name: str) -> str | None:
    return None if _NAME.fullmatch(name) else "must be of small letters and digits, with single hyphens between them"
