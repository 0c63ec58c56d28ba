"""What of a record's content is kept: all, nothing, or so many bytes; for the deployment, and for single providers."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields

from credentiald.validation import name_problem
from daemonkit.by_provider import parse_by_provider
from daemonkit.parsers import parse_size_bytes

# No limit: the content is kept whole.
WHOLE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRule:
    """How many bytes of one kind of content are kept, WHOLE, or 0 for none."""

    most_bytes: int = WHOLE
    by_provider: Mapping[str, int] = field(default_factory=dict)

    def kept(self, text: str, provider: str) -> str:
        """The beginning of the text that is kept, cut between two characters."""
        if self.most_bytes == WHOLE and not self.by_provider:
            return text
        most_bytes = self.by_provider.get(provider, self.most_bytes)
        if most_bytes == WHOLE:
            return text
        # A character has at most four bytes, so most texts are known to fit.
        if len(text) * 4 <= most_bytes:
            return text
        return text.encode()[:most_bytes].decode(errors="ignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRules:
    """The three kinds of content that deployments differ about."""

    prompts: KeepRule = KeepRule()
    tool_inputs: KeepRule = KeepRule()
    thoughts: KeepRule = KeepRule()


class StrayNames:
    """Names in rules that are no provider's: what is meant for a provider does not count for it."""

    def __init__(self, rules: KeepRules) -> None:
        by_setting = {f"record_{one.name}": getattr(rules, one.name) for one in fields(rules)}
        self._named = {setting: frozenset(rule.by_provider) for setting, rule in by_setting.items()}
        self._told: dict[str, frozenset[str]] = dict.fromkeys(self._named, frozenset())

    def untold(self, providers: Collection[str]) -> Iterator[tuple[str, list[str]]]:
        """Each setting with those names that have become strays since this was asked last."""
        for setting, named in self._named.items():
            strays = named.difference(providers)
            if new := sorted(strays - self._told[setting]):
                yield setting, new
            self._told[setting] = strays


def parse_keep_rule(text: str) -> KeepRule:
    """`on`, `off` or a size, and with commas `PROVIDER=` and one of these; ValueError says what is wrong."""
    # A name that no provider has would leave what was to be left out.
    most_bytes, by_provider = parse_by_provider(text, _most_bytes, name_problem)
    return KeepRule(most_bytes=WHOLE if most_bytes is None else most_bytes, by_provider=by_provider)


def _most_bytes(word: str) -> int:
    match word.lower():
        case "on":
            return WHOLE
        case "off":
            return 0
    try:
        return parse_size_bytes(word)
    except ValueError:
        raise ValueError(f"{word!r} is not possible: write on, off, or a size such as 4KiB") from None
