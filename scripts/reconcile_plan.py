"""What scripts/reconcile asks, and what becomes of it: for each number of a request the same, in every process.

Clients and upstream make the plan of a number by themselves, so nothing about it travels with the request but the
number, in its prompt and its User-Agent.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from enum import StrEnum

BASE_PATH = "/api/v2/aibridge"
MODELS_A_KIND = 3
# Of a request, in which its upstream says a piece of its answer, waits, and says the next.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.25


class Kind(StrEnum):
    """One API, as the upstream tells them by their paths."""

    MESSAGES = "messages"
    CHAT = "chat"
    RESPONSES = "responses"
    GEMINI = "gemini"
    CONVERSE = "converse"


# Name of the provider instance; two kinds share one.
PROVIDERS = {
    Kind.MESSAGES: "anthropic",
    Kind.CHAT: "openai",
    Kind.RESPONSES: "openai",
    Kind.GEMINI: "google",
    Kind.CONVERSE: "bedrock",
}


class Ending(StrEnum):
    """What becomes of a request, unless something is killed that carries it."""

    COMPLETE = "complete"
    LEAVES = "leaves"  # the client, in the middle of the answer
    LEAVES_EARLY = "leaves early"  # the client, before there is an answer
    REFUSED = "refused"  # the upstream, with a status
    SILENT = "silent"  # the upstream hangs up instead of an answer
    FAILS = "fails"  # the upstream tells an error in its stream
    CUT = "cut"  # the upstream hangs up in the middle


_ENDINGS = {
    Ending.COMPLETE: 50,
    Ending.LEAVES: 20,
    Ending.LEAVES_EARLY: 5,
    Ending.REFUSED: 7,
    Ending.SILENT: 3,
    Ending.FAILS: 7,
    Ending.CUT: 8,
}
_OF_WHOLE_ANSWERS = (Ending.COMPLETE, Ending.LEAVES_EARLY, Ending.REFUSED, Ending.SILENT)
# 503 is what clients get from the bridge while credentiald is away, so no upstream says it here.
STATUSES = (400, 403, 429, 500, 529)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One request. `share` says at which part of the answer it ends, where it ends early.

    `asks_usage`: a Chat client that asks for usage itself. `tells_usage`: the upstream has any to tell.
    """

    seed: int
    number: int
    kind: Kind
    model: str
    streaming: bool
    ending: Ending
    share: float
    status: int
    words: int
    pause_seconds: float
    asks_usage: bool
    tells_usage: bool

    @property
    def provider(self) -> str:
        """The name of its provider instance."""
        return PROVIDERS[self.kind]

    @property
    def prompt(self) -> str:
        """What the user says."""
        return f"this is request {self.number}."

    @property
    def agent(self) -> str:
        """The client's User-Agent."""
        return f"reconcile/{self.number}"

    def dice(self) -> random.Random:
        """Chance that is the same wherever the answer is made."""
        return random.Random(f"{self.seed}:{self.number}:answer")

    def path(self) -> str:
        """Where the bridge has it."""
        method = {
            Kind.MESSAGES: "/v1/messages",
            Kind.CHAT: "/v1/chat/completions",
            Kind.RESPONSES: "/v1/responses",
            Kind.GEMINI: f"/v1beta/models/{self.model}:"
            + ("streamGenerateContent?alt=sse" if self.streaming else "generateContent"),
            Kind.CONVERSE: f"/model/{self.model}/converse" + ("-stream" if self.streaming else ""),
        }[self.kind]
        return f"{BASE_PATH}/{self.provider}{method}"

    def body(self) -> bytes:
        """What the client sends."""
        message = {"role": "user", "content": self.prompt}
        named = {"model": self.model, **({"stream": True} if self.streaming else {})}
        asks = {"stream_options": {"include_usage": True}} if self.asks_usage and self.streaming else {}
        body: dict[Kind, dict[str, object]] = {
            Kind.MESSAGES: {**named, "max_tokens": 1000, "messages": [message]},
            Kind.CHAT: {**named, **asks, "messages": [message]},
            Kind.RESPONSES: {**named, "input": self.prompt},
            Kind.GEMINI: {"contents": [{"role": "user", "parts": [{"text": self.prompt}]}]},
            Kind.CONVERSE: {"messages": [{"role": "user", "content": [{"text": self.prompt}]}]},
        }
        return json.dumps(body[self.kind]).encode()


def plan_of(seed: int, number: int, *, own_models: bool) -> Plan:
    """The plan of a request. `own_models`: each has a model of its own, by which an interception can be told of
    which nothing but its opening is left."""
    dice = random.Random(f"{seed}:{number}")
    kind = dice.choice(list(Kind))
    streaming = dice.random() < 0.8
    ending = dice.choices(list(_ENDINGS), list(_ENDINGS.values()))[0]
    if not streaming and ending not in _OF_WHOLE_ANSWERS:
        ending = Ending.COMPLETE
    model = number if own_models else number % MODELS_A_KIND
    return Plan(
        seed=seed,
        number=number,
        kind=kind,
        model=f"{kind}-model-{model}",
        streaming=streaming,
        ending=ending,
        share=dice.random(),
        status=dice.choice(STATUSES),
        words=dice.randrange(4, 24),
        pause_seconds=dice.uniform(SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS),
        asks_usage=dice.random() < 0.5,
        tells_usage=dice.random() < 0.9,
    )
