"""What a family of models at Bedrock takes, as data: beta flags, thinking, fields of the body.

Bedrock refuses a request for one flag or field that it does not know ("invalid beta flag", "Extra inputs are not
permitted"), and clients send what Anthropic's own API takes. So what passes is listed, not what does not. Bedrock says
nowhere which model takes what: the rows are of Anthropic's and AWS's documentation ("Beta headers" of the Claude
Messages API in the Bedrock User Guide; "Adaptive thinking" and "Effort" on platform.claude.com) and of what Bedrock
answered.

A model is told by what its id contains. An ARN of an application inference profile contains nothing of the kind: an
administrator's rules say what it stands for, and let further flags through.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from bridged.model import BedrockModelRule


class Thinking(Enum):
    """What becomes of `thinking`. Adaptive: the model decides how much; enabled: the client sets a budget."""

    BUDGET_ONLY = "adaptive becomes a budget"
    BOTH = "either is kept"
    ADAPTIVE_ONLY = "a budget becomes adaptive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One row. `contains`: any of these in a model's id. `betas` pass besides those that always do.

    `cache_ttl`: takes `ttl` in `cache_control`. `system_messages`: takes messages of the role system.
    """

    name: str
    contains: tuple[str, ...]
    thinking: Thinking
    betas: frozenset[str] = frozenset()
    cache_ttl: bool = False
    system_messages: bool = False


EFFORT = "effort-2025-11-24"
CONTEXT_MANAGEMENT = "context-management-2025-06-27"
SYSTEM_MESSAGES = "mid-conversation-system-2026-04-07"

ALWAYS_PASSING_BETAS = frozenset(
    {
        "computer-use-2025-01-24",
        "context-1m-2025-08-07",
        "dev-full-thinking-2025-05-14",
        "interleaved-thinking-2025-05-14",
        "output-128k-2025-02-19",
        "token-efficient-tools-2025-02-19",
        "tool-examples-2025-10-29",
        "tool-search-tool-2025-10-19",
    }
)

# Fields of the body that Bedrock does not take, each with the flag that makes it take them; "" where none does.
# Top-level cache_control is the automatic kind of caching; that of single blocks passes.
DROPPED_FIELDS: dict[str, str] = {
    "cache_control": "",
    "container": "",
    "context_management": CONTEXT_MANAGEMENT,
    "inference_geo": "",
    "metadata": "",
    "service_tier": "",
}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="claude-opus-4-5",
        contains=("opus-4-5",),
        thinking=Thinking.BUDGET_ONLY,
        betas=frozenset({EFFORT}),
        cache_ttl=True,
    ),
    Family(
        name="claude-sonnet-4-5",
        contains=("sonnet-4-5",),
        thinking=Thinking.BUDGET_ONLY,
        betas=frozenset({CONTEXT_MANAGEMENT}),
        cache_ttl=True,
    ),
    Family(
        name="claude-haiku-4-5",
        contains=("haiku-4-5",),
        thinking=Thinking.BUDGET_ONLY,
        betas=frozenset({CONTEXT_MANAGEMENT}),
        cache_ttl=True,
    ),
    Family(name="claude-opus-4-6", contains=("opus-4-6",), thinking=Thinking.BOTH, cache_ttl=True),
    Family(name="claude-sonnet-4-6", contains=("sonnet-4-6",), thinking=Thinking.BOTH, cache_ttl=True),
    Family(name="claude-opus-4-7", contains=("opus-4-7",), thinking=Thinking.ADAPTIVE_ONLY, cache_ttl=True),
    Family(
        name="claude-opus-4-8",
        contains=("opus-4-8",),
        thinking=Thinking.ADAPTIVE_ONLY,
        cache_ttl=True,
        system_messages=True,
    ),
    Family(
        name="claude-5",
        contains=("opus-5", "sonnet-5", "fable-5", "mythos-5"),
        thinking=Thinking.ADAPTIVE_ONLY,
        cache_ttl=True,
    ),
)

# Whatever is in no row: Claude 3 to 4.1.
OTHER = Family(name="other", contains=(), thinking=Thinking.BUDGET_ONLY)

BY_NAME = {family.name: family for family in (*FAMILIES, OTHER)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one model takes: its family, and all beta flags that pass."""

    family: Family
    betas: frozenset[str]

    @property
    def takes_system_messages(self) -> bool:
        """Whether messages of the role system pass as such."""
        return self.family.system_messages or SYSTEM_MESSAGES in self.betas


def capabilities_of(model: str, *, asked_for: str, rules: Iterable[BedrockModelRule]) -> Capabilities:
    """What the model with this id at Bedrock takes.

    The first of the administrator's rules whose text is in the id decides the family, if it names one, or a model of
    one, that this bridge knows; and it adds its flags. Else the table decides by the id, and last by the name that the
    client asked for: it is what an opaque id was mapped from.
    """
    rule = next((rule for rule in rules if rule.contains and rule.contains.lower() in model.lower()), None)
    named = BY_NAME.get(rule.family) or _family_in(rule.family) if rule is not None else None
    family = named or _family_in(model) or _family_in(asked_for) or OTHER
    added = rule.betas if rule is not None else ()
    return Capabilities(family=family, betas=ALWAYS_PASSING_BETAS | family.betas | frozenset(added))


def _family_in(model: str) -> Family | None:
    # Some gateways write versions with a dot.
    folded = model.lower().replace(".", "-")
    return next((family for family in FAMILIES if any(part in folded for part in family.contains)), None)
