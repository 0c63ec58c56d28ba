"""Items of a Responses answer: what is recorded of each, and which are told twice."""

from collections.abc import Iterable
from typing import Any

import msgspec

from bridged.taps.typed_json import text_of

MAX_ITEMS = 4096

_CALLS = frozenset({"function_call", "custom_tool_call"})
# Tools that OpenAI defines and the client runs, by the name they are recorded under. Those that OpenAI runs itself,
# web_search_call for example, are no calls of the client's; a search for tools, or a shell, may be either.
_BUILT_IN_CALLS = {
    "local_shell_call": "local_shell",
    "shell_call": "shell",
    "apply_patch_call": "apply_patch",
    "computer_call": "computer",
    "tool_search_call": "tool_search",
}
_OPENAI_RUNS_IT, _OPENAI_HAS_IT = "server", "container_reference"
_NOTHING = msgspec.Raw()


class Part(msgspec.Struct, gc=False):
    """Of a message, or of what a model thought."""

    type: str = ""
    text: str | None = None


class _Environment(msgspec.Struct, gc=False):
    type: str | None = None


class Item(msgspec.Struct, gc=False):
    """One of the output, as the upstream tells it."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    # Text with JSON in it; the JSON itself where tools are searched for.
    arguments: Any = None
    input: str | None = None
    # Where a tool that may be run on either side is run.
    execution: str | None = None
    environment: _Environment | None = None
    # Of built-in tools: an object, or several.
    action: msgspec.Raw = _NOTHING
    actions: msgspec.Raw = _NOTHING
    operation: msgspec.Raw = _NOTHING
    phase: str | None = None
    status: str | None = None
    summary: list[Part] | None = None
    content: list[Part] | None = None


class ToldItem(msgspec.Struct, gc=False):
    """One of which something is recorded: a call of tool and input, or thoughts, each with its source.

    `index` is what the upstream says of its place, None where it says nothing.
    """

    index: int | None
    item: Item
    call: tuple[str, str] | None
    thoughts: list[tuple[str, str | None]]

    # Nothing of what was said: a Struct would print it all.
    __repr__ = object.__repr__

    def name(self) -> int:
        """The same for what has the same id. Hashed, because an id may be of any length."""
        return hash((self.item.type, self.item.call_id or self.item.id or self.said()))

    def said(self) -> int:
        """The same for what says the same."""
        return hash((self.item.type, self.call, *self.thoughts))


class ToldItems(msgspec.Struct):
    """Those that an answer has told so far: each when it is done, and again in the output at the end, if that is kept.

    No single mark of an item is good with every upstream. Indexes begin at 1, are missing, or are the same for all;
    ids, those of calls too, are made anew for the output. So an item of the output was told before if one that was done
    has the same id, that of the call if it is one. It was also told before if one that was done, and whose id the
    output has nowhere, is of the same kind and says the same or has the same index.
    """

    # What they say, by index, kind and name.
    _said: dict[tuple[int | None, str, int], int] = msgspec.field(default_factory=dict)

    def place_of(self, told: ToldItem) -> int | None:
        """Where to record an item; None if the same event came before, or if there are too many."""
        key = (told.index, told.item.type, told.name())
        place = len(self._said)
        if key in self._said or place >= MAX_ITEMS:
            return None
        self._said[key] = told.said()
        return place

    def untold(self, output: Iterable[Item]) -> list[ToldItem]:
        """Of the output at the end, what was not told before."""
        listed = [told for index, item in enumerate(output) if (told := told_item(index, item))]
        known = {name for _, _, name in self._said}
        names = {told.name() for told in listed}
        anew = [(index, kind, said) for (index, kind, name), said in self._said.items() if name not in names]
        places = {(index, kind) for index, kind, _ in anew}
        said = {said for _, _, said in anew}
        return [
            told
            for told in listed
            if not (told.name() in known or (told.index, told.item.type) in places or told.said() in said)
        ]


def told_item(index: int | None, item: Item) -> ToldItem | None:
    """What is to be recorded of an item; None if nothing is."""
    call, thoughts = _call_of(item), _thoughts_of(item)
    return ToldItem(index, item, call, thoughts) if call or any(text for _, text in thoughts) else None


def _call_of(item: Item) -> tuple[str, str] | None:
    if item.type in _CALLS:
        return item.name or "", text_of(item.arguments) or item.input or ""
    if item.type in _BUILT_IN_CALLS and not _is_openais(item):
        asked = bytes(item.action) or bytes(item.actions) or bytes(item.operation)
        return _BUILT_IN_CALLS[item.type], asked.decode("utf-8", "replace") or text_of(item.arguments)
    return None


def _thoughts_of(item: Item) -> list[tuple[str, str | None]]:
    if item.type == "reasoning":
        summary = [("reasoning_summary", part.text) for part in item.summary or ()]
        # Open models tell what they thought.
        return summary + [("reasoning_text", part.text) for part in item.content or ()]
    if item.type == "message" and item.phase == "commentary":
        return [("commentary", part.text) for part in item.content or ()]
    return []


def _is_openais(item: Item) -> bool:
    where = item.environment.type if item.environment else None
    return item.execution == _OPENAI_RUNS_IT or where == _OPENAI_HAS_IT
