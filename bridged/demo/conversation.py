"""What the demo upstream says: one rule for all dialects, no wire format.

the last message is a tool's result     a sentence that quotes it
the user asks to "use a tool"           a call of the first tool, or of the one that the user names
anything else                           a sentence that quotes the user
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_QUOTE_CHARACTERS = 200
_CREATED = 1_760_000_000
_ASKS_FOR_TOOL = re.compile(r"\buse (a|the|your|any) \S*\s?tool\b|\bcall (a|the) tool\b", re.IGNORECASE)
_SAMPLES: dict[str, Any] = {"string": "demo", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the client offers: its name and the JSON schema of its arguments."""

    name: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What the demo reads of a request, whatever its dialect.

    `prompt` is the text of the last user message; `tool_result` the text of the last message if a tool sent it.
    """

    model: str
    stream: bool
    prompt: str
    tool_result: str | None
    tools: tuple[Tool, ...]
    size_characters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered: text in the pieces that a stream sends, or a call of a tool. Token counts are invented."""

    id: str
    model: str
    created: int
    pieces: tuple[str, ...]
    tool: Tool | None
    arguments: str
    input_tokens: int
    output_tokens: int

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def argument_pieces(self) -> tuple[str, ...]:
        """The arguments, cut where a stream cuts them."""
        return tuple(_cut(self.arguments, 8))


def reply_to(turn: Turn) -> Reply:
    """The answer to one turn; the same for the same turn."""
    tool = _wanted_tool(turn)
    arguments = json.dumps(_sample(tool.schema)) if tool else ""
    pieces = () if tool else _pieces(_sentence(turn))
    return Reply(
        id=hashlib.sha256(repr(turn).encode("utf-8", "replace")).hexdigest()[:24],
        model=turn.model,
        created=_CREATED,
        pieces=pieces,
        tool=tool,
        arguments=arguments,
        input_tokens=count_tokens(turn.size_characters),
        output_tokens=count_tokens(len(arguments) or sum(map(len, pieces))),
    )


def count_tokens(characters: int) -> int:
    """A token for each four characters, at least one."""
    return max(1, characters // 4)


def _wanted_tool(turn: Turn) -> Tool | None:
    if not turn.tools or turn.tool_result is not None or not _ASKS_FOR_TOOL.search(turn.prompt):
        return None
    named = (tool for tool in turn.tools if re.search(rf"\b{re.escape(tool.name)}\b", turn.prompt))
    return next(named, turn.tools[0])


def _sentence(turn: Turn) -> str:
    if turn.tool_result is not None:
        return f"The tool answered: {_quoted(turn.tool_result)} That was all the demo upstream wanted to know."
    return (
        f"Hello from the demo upstream of Drawbridge, answering as {turn.model}. You said: {_quoted(turn.prompt)} "
        "No provider was asked and no key was needed. Configure a real provider to get real answers."
    )


def _quoted(text: str) -> str:
    shown = " ".join(text.split())
    cut = shown[:_QUOTE_CHARACTERS] + "…" if len(shown) > _QUOTE_CHARACTERS else shown
    return f"“{cut}”"


def _pieces(sentence: str) -> tuple[str, ...]:
    """Three words at a time, spaces kept."""
    words = re.findall(r"\S+\s*", sentence)
    return tuple("".join(words[at : at + 3]) for at in range(0, len(words), 3))


def _cut(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


def _sample(schema: dict[str, Any]) -> Any:
    """The smallest value that a JSON schema admits, as far as its types, enums and required names tell."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0] if kind else "object"
    if kind == "object":
        properties: dict[str, Any] = schema.get("properties") or {}
        required: Sequence[str] = schema.get("required") or ()
        return {name: _sample(properties.get(name, {"type": "string"})) for name in required}
    if kind == "array" and isinstance(schema.get("items"), dict):
        return [_sample(schema["items"])]
    return _SAMPLES.get(kind, "demo")
