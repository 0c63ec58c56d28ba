"""The traffic of scripts/records_scale: users with agents, whose sessions are threads of requests that answer each
other's tool calls, and single requests in between. The same seed makes the same traffic.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from credentiald.record_model import (
    End,
    Facts,
    ModelThought,
    Origin,
    Prompt,
    Report,
    TokenUsage,
    ToolCall,
)

USERS = 1000
SERVICE_ID = "0190e2f4-0000-7000-8000-00000000aaaa"
BRIDGE_IDS = ("5f0c7d3e-51a1-4a5e-9d0b-000000000001", "5f0c7d3e-51a1-4a5e-9d0b-000000000002")
NOBODY = "0190e2f4-0000-7000-8000-00000000ffff"
# Name and type, with how often in a thousand.
PROVIDERS = (
    ("anthropic-corp", "anthropic", 480),
    ("bedrock-eu", "bedrock", 200),
    ("openai", "openai", 180),
    ("openai-lab", "openai", 90),
    ("google", "google", 50),
)
MODELS = {
    "anthropic": ("claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001", "claude-opus-4-1-20250805"),
    "bedrock": ("anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0"),
    "openai": ("gpt-5", "gpt-5-codex", "gpt-5-mini", "o4-mini"),
    "google": ("gemini-2.5-pro", "gemini-2.5-flash"),
}
CLIENTS = {
    "anthropic": ("Claude Code", "Zed", "Roo Code"),
    "bedrock": ("Claude Code", "Cline"),
    "openai": ("Codex", "GitHub Copilot (VS Code)", "OpenCode"),
    "google": ("OpenCode", "Gemini CLI"),
}
# One request in so many has them, at random places.
RARE_ONE_IN = 500_000
RARE_MODEL = "gpt-4-32k-0314"
RARE_CLIENT = "Amp"
# A few sessions are one thread of so many requests.
LONG_THREAD = 400

_ACTIVE_SESSIONS = 300
# Sessions of agents, and single requests of programs that name no session.
_SINGLE_SHARE = 0.1
_LONG_SHARE = 0.003
_MEAN_TURNS = 60
_SENTENCE = (
    "the test fails because a connection is closed before its last byte has been read please look at the reader and "
    "say what the loop does when a chunk arrives late then write a table of cases and make it pass"
)


@dataclass(slots=True)
class _Session:
    origin: Origin
    model: str
    client: str
    session_id: str
    turns_left: int
    is_long: bool = False
    answered: str = ""


def user_id(number: int) -> str:
    """Users by how much they do: 0 does most."""
    return f"0190e2f4-1111-7000-8000-{number:012x}"


class Traffic:
    """An endless stream of reports in the order of their times."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._users = list(accumulate(1 / (number + 20) for number in range(USERS)))
        self._providers = list(accumulate(share for _, _, share in PROVIDERS))
        self._texts = [self._text(length) for length in (4, 9, 18, 36, 70) for _ in range(40)]
        self._sessions: list[_Session] = []
        self._number = 0

    def reports(self, start_micros: int, step_micros: int, count: int) -> Iterator[Report]:
        """So many interceptions, one each `step_micros`, each with all that its bridge tells of it."""
        for place in range(count):
            yield self._turn(start_micros + place * step_micros)

    def _turn(self, start_micros: int) -> Report:
        chance, sessions = self._random.random, self._sessions
        while len(sessions) < _ACTIVE_SESSIONS:
            sessions.append(self._session())
        place = int(chance() * len(sessions))
        session = sessions[place]
        self._number += 1
        number = self._number
        interception_id = id_at(start_micros, self._random.getrandbits(74))
        model, client = session.model, session.client
        if number % RARE_ONE_IN == RARE_ONE_IN // 3:
            model = RARE_MODEL
        if number % RARE_ONE_IN == RARE_ONE_IN // 2:
            client = RARE_CLIENT
        call_id = f"toolu_{self._random.getrandbits(96):024x}"
        fate = chance()
        end_micros = start_micros + int(500_000 + chance() * 20_000_000)
        usages: tuple[TokenUsage, ...] = ()
        calls: tuple[ToolCall, ...] = ()
        thoughts: tuple[ModelThought, ...] = ()
        prompts: tuple[Prompt, ...] = ()
        response_id = f"msg_{number:024x}"
        if not session.answered:
            prompts = (self._prompt(interception_id, end_micros, response_id),)
        facts = Facts(
            client=client,
            user_agent="agent-cli/2.0.31 (external, cli)",
            client_session_id=session.session_id,
            correlating_tool_call_id=session.answered,
            operation="anthropic.messages",
            model=model,
            upstream_model=model,
            streaming=True,
        )
        session.answered = ""
        if fate < 0.96 or session.is_long:
            usages = (
                TokenUsage(
                    fact_id(interception_id, 0), end_micros, response_id, int(chance() * 3000), int(chance() * 1500),
                    int(chance() * 90_000), int(chance() * 4000), '{"output_reasoning":17}' if chance() < 0.3 else "{}",
                ),
            )  # fmt: skip
            if session.is_long or (session.turns_left > 1 and chance() < 0.95):
                said = self._words()
                calls = (
                    ToolCall(
                        fact_id(interception_id, 2), end_micros, response_id, call_id, "", "Bash", said, len(said)
                    ),
                )
                session.answered = call_id
            if chance() < 0.3:
                said = self._words()
                thoughts = (
                    ModelThought(fact_id(interception_id, 3), end_micros, response_id, said, len(said), "thinking"),
                )
        session.turns_left -= 1
        if session.turns_left <= 0:
            sessions[place] = sessions[-1]
            sessions.pop()
        return Report(
            interception_id,
            id_at(start_micros, self._random.getrandbits(74)),
            session.origin,
            start_micros,
            BRIDGE_IDS[number & 1],
            facts,
            usages,
            prompts,
            calls,
            thoughts,
            _end(fate, start_micros, end_micros, response_id),
        )

    def _session(self) -> _Session:
        chance = self._random.random
        user = self._random.choices(range(USERS), cum_weights=self._users)[0]
        provider = self._random.choices(range(len(PROVIDERS)), cum_weights=self._providers)[0]
        name, type_name, _ = PROVIDERS[provider]
        # Most of what people do is done with the first of what there is.
        model = MODELS[type_name][int(chance() ** 2 * len(MODELS[type_name]))]
        client = CLIENTS[type_name][int(chance() ** 2 * len(CLIENTS[type_name]))]
        provider_id = f"0190e2f4-2222-7000-8000-{provider:012x}"
        origin = Origin(SERVICE_ID, user_id(user), provider_id, name, type_name, "CENTRAL_KEY", provider_id)
        if chance() < _SINGLE_SHARE * _MEAN_TURNS / (1 + _SINGLE_SHARE * _MEAN_TURNS):
            return _Session(origin, model, client, "", 1)
        is_long = chance() < _LONG_SHARE
        turns = LONG_THREAD if is_long else 1 + int(self._random.expovariate(1 / _MEAN_TURNS))
        session_id = f"{self._random.getrandbits(128):032x}"
        return _Session(origin, model, client, session_id, turns, is_long)

    def _prompt(self, interception_id: str, micros: int, response_id: str) -> Prompt:
        said = self._words()
        return Prompt(fact_id(interception_id, 1), micros, response_id, said, len(said))

    def _words(self) -> str:
        return self._texts[int(self._random.random() * len(self._texts))]

    def _text(self, words: int) -> str:
        return " ".join(self._random.choices(_SENTENCE.split(), k=words))


def id_at(micros: int, random_bits: int) -> str:
    """A UUID of version 7 for this time."""
    millis = f"{micros // 1000:012x}"
    tail = f"{random_bits:019x}"
    return f"{millis[:8]}-{millis[8:]}-7{tail[:3]}-8{tail[3:6]}-{tail[6:18]}"


def fact_id(interception_id: str, place: int) -> str:
    """The id of one of the facts of an interception, as a bridge makes it."""
    return f"{interception_id[:-4]}{place:04x}"


def _end(fate: float, start_micros: int, end_micros: int, response_id: str) -> End:
    duration = end_micros - start_micros
    if fate < 0.96:
        return End(end_micros, "COMPLETED", "", "", "", 200, f"req_{response_id}", duration, duration // 4)
    if fate < 0.98:
        return End(end_micros, "CLIENT_GONE", "", "", "", 200, f"req_{response_id}", duration, duration // 4)
    return End(end_micros, "UPSTREAM_ERROR", "RATE_LIMITED", "", "Too many requests", 429, "", duration, duration // 4)
