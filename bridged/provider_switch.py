"""A setting that is on or off, with exceptions for single providers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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
    is_on = True
    by_provider: dict[str, bool] = {}
    for place, part in enumerate(text.split(",")):
        name, separator, word = (piece.strip() for piece in part.rpartition("="))
        chosen = _WORDS.get(word.lower())
        if chosen is None:
            raise ValueError(f"{word!r} is not possible: write on or off")
        if not separator:
            if place:
                raise ValueError(f"{word!r} comes after the first: write PROVIDER={word}")
            is_on = chosen
        elif name in by_provider:
            raise ValueError(f"{part.strip()!r}: name each provider once")
        elif _NAME.fullmatch(name) is None:
            # It could never apply.
            raise ValueError(f"{name!r} is no name of a provider: write small letters, digits and single hyphens")
        else:
            by_provider[name] = chosen
    return ProviderSwitch(is_on=is_on, by_provider=by_provider)
