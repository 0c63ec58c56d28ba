"""What a tap has seen so far, within bounds: tool calls and thoughts grow here, fragment by fragment."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Annotated

import msgspec

from bridged.records import AnswerRecords, ModelThought, TokenUsage, ToolUsage, Trouble, UsualAnswer, further_counts

# Of all tool inputs and thoughts of one answer together.
MAX_TEXT_BYTES = 1024 * 1024
MAX_ITEMS = 1024
# Names and ids are short; more is not one.
MAX_NAME_CHARACTERS = 512
# More than is recorded, so that a key in the words is whole when it is looked for (quoted_keys.py).
MAX_ERROR_CHARACTERS = 4096
# Of one kind of tokens in one answer: more is no count. Sums of a few stay below what credentiald takes (record.proto).
MAX_COUNT = 100_000_000_000
# One that `Seen.count` takes as it is.
GoodCount = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
# An id that `Seen.identify` takes as it is.
GoodId = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARACTERS)]

_NOTHING_FURTHER: Mapping[str, int] = {}
_NO_TROUBLES: frozenset[Trouble] = frozenset()
# The four of TokenUsage; others are of further kinds.
COLUMNS = ("input", "output", "cache_read", "cache_write")
_IN_COLUMNS = frozenset(COLUMNS)
_FIRST_FURTHER = len(COLUMNS)
_REMEMBERED = 512

# Counts of further kinds as a text (records.further_counts).
FurtherText = Callable[[tuple[int | None, ...]], str]
# Position of a block or choice, and of a call in it.
Key = tuple[int, int]


class _Growing(msgspec.Struct, gc=False):
    """A tool call or a thought. `source` is empty for a tool call. Bytes, because fragments may be a letter each."""

    name: str = ""
    call_id: str = ""
    item_id: str = ""
    source: str = ""
    text: bytearray = msgspec.field(default_factory=bytearray)
    # Of all that came, kept or not.
    length_bytes: int = 0
    is_whole: bool = False
    is_cut: bool = False

    def content(self) -> str:
        # A bound may have cut a letter.
        return self.text.decode("utf-8", "ignore")

    def whole_bytes(self) -> int:
        """The length of what came where the bound has cut it, else 0."""
        return self.length_bytes if self.length_bytes > len(self.text) else 0

    def is_partial(self, *, of_cut_answer: bool) -> bool:
        """Whether more was to come. What only a bound has cut has come to its end."""
        return self.is_cut or (of_cut_answer and not self.is_whole)


# Structs, here and of the readers: one is made for each answer, which by `__init__` costs four times as much.
class Seen(msgspec.Struct):
    """The state of one tap. `counts` are the upstream's own, the last value of each; empty where it reported none."""

    msg_id: str = ""
    model: str = ""
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    # The answer said that it is over.
    finished: bool = False
    # The model did; something may follow, but need not.
    has_reason_to_finish: bool = False
    error_type: str = ""
    error_message: str = ""
    troubles: set[Trouble] = msgspec.field(default_factory=set)
    _tools: dict[Key, _Growing] = msgspec.field(default_factory=dict)
    _thoughts: dict[Key, _Growing] = msgspec.field(default_factory=dict)
    _room_bytes: int = MAX_TEXT_BYTES

    # Nothing of what was said: a Struct would print it all.
    __repr__ = object.__repr__

    def identify(self, msg_id: str | None, model: str | None) -> None:
        """Take note of the answer's id and model; the first that are not empty stay."""
        self.msg_id = self.msg_id or (msg_id or "")[:MAX_NAME_CHARACTERS]
        self.model = self.model or (model or "")[:MAX_NAME_CHARACTERS]

    def count(self, told: Iterable[tuple[str, object]]) -> None:
        """Take over what was reported; what was not, or cannot be a count, keeps its last value."""
        for name, value in told:
            if value is None:
                continue
            if type(value) is int and 0 <= value <= MAX_COUNT:
                self.counts[name] = value
            elif type(value) is float and value.is_integer() and 0 <= value <= MAX_COUNT:
                # JSON knows one kind of number.
                self.counts[name] = int(value)
            else:
                self.troubles.add(Trouble.GARBAGE)

    def fail(self, error_type: str | None, message: str | None) -> None:
        """Take note of the first error that the upstream told."""
        if not self.error_type:
            self.error_type = (error_type or "error")[:MAX_NAME_CHARACTERS]
            self.error_message = (message or "")[:MAX_ERROR_CHARACTERS]

    def tool(self, key: Key, *, name: str | None, call_id: str | None, item_id: str | None = None) -> None:
        """A tool call is there, or more is known of it."""
        tool = self._growing(self._tools, key)
        if tool is not None:
            tool.name = tool.name or (name or "")[:MAX_NAME_CHARACTERS]
            tool.call_id = tool.call_id or (call_id or "")[:MAX_NAME_CHARACTERS]
            tool.item_id = tool.item_id or (item_id or "")[:MAX_NAME_CHARACTERS]

    def tool_at(self, key: Key) -> tuple[str, str] | None:
        """Name and id of a tool call, None if there is no such call."""
        tool = self._tools.get(key)
        return None if tool is None else (tool.name, tool.call_id)

    def tool_input(self, key: Key, fragment: str) -> None:
        """The input of a tool call goes on."""
        self._append(self._growing(self._tools, key), fragment)

    def default_tool_input(self, key: Key, text: str) -> None:
        """What the input is where no fragment of it came."""
        tool = self._tools.get(key)
        if tool is not None and not tool.length_bytes:
            self._append(tool, text)

    def tool_is_whole(self, key: Key) -> None:
        """All of a tool call is there."""
        if key in self._tools:
            self._tools[key].is_whole = True

    def tool_is_cut(self, key: Key) -> None:
        """There is more of a tool call that will not come, in an answer that is whole otherwise."""
        if key in self._tools:
            self._tools[key].is_cut = True

    def thought(self, key: Key, fragment: str | None, *, source: str) -> None:
        """A thought begins or goes on."""
        if fragment:
            thought = self._growing(self._thoughts, key)
            if thought is not None:
                thought.source = source
            self._append(thought, fragment)

    def thought_is_whole(self, key: Key) -> None:
        """All of a thought is there."""
        if key in self._thoughts:
            self._thoughts[key].is_whole = True

    def thought_is_cut(self, key: Key) -> None:
        """There is more of a thought that will not come, in an answer that is whole otherwise."""
        if key in self._thoughts:
            self._thoughts[key].is_cut = True

    def records(self, counts: Mapping[str, int], *, partial: bool) -> AnswerRecords:
        """All of it as values. `partial`: the answer was cut.

        `counts` has the four of TokenUsage as `input`, `output`, `cache_read` and `cache_write`; others are of further
        kinds. None at all means that the upstream reported nothing.
        """
        return AnswerRecords(
            self.msg_id,
            self.model,
            _token_usage(counts, partial) if counts else None,
            self._tool_usages(partial) if self._tools else (),
            self._model_thoughts(partial) if self._thoughts else (),
            partial,
            self.error_type,
            self.error_message,
            # Whether anything could have followed.
            bool(self.error_type) or (self.finished and not partial),
            frozenset(self.troubles) if self.troubles else _NO_TROUBLES,
        )

    def _tool_usages(self, partial: bool) -> tuple[ToolUsage, ...]:
        return tuple([self._tool_usage(tool, partial) for tool in self._tools.values()])

    def _model_thoughts(self, partial: bool) -> tuple[ModelThought, ...]:
        return tuple(
            [
                ModelThought(
                    content=thought.content(),
                    source=thought.source,
                    partial=thought.is_partial(of_cut_answer=partial),
                    content_bytes=thought.whole_bytes(),
                )
                for thought in self._thoughts.values()
                if thought.length_bytes
            ]
        )

    def _tool_usage(self, tool: _Growing, partial: bool) -> ToolUsage:
        return ToolUsage(
            tool=tool.name,
            input=tool.content(),
            tool_call_id=tool.call_id,
            item_id=tool.item_id,
            partial=tool.is_partial(of_cut_answer=partial),
            input_bytes=tool.whole_bytes(),
        )

    def _growing(self, items: dict[Key, _Growing], key: Key) -> _Growing | None:
        item = items.get(key)
        if item is None:
            if len(items) >= MAX_ITEMS:
                self.troubles.add(Trouble.TEXT_BOUND)
                return None
            item = items[key] = _Growing()
        return item

    def _append(self, item: _Growing | None, fragment: str) -> None:
        if item is None:
            return
        encoded = fragment.encode("utf-8", "replace")
        item.length_bytes += len(encoded)
        if len(encoded) > self._room_bytes:
            encoded = encoded[: self._room_bytes]
            self.troubles.add(Trouble.TEXT_BOUND)
        self._room_bytes -= len(encoded)
        item.text += encoded


def usual_answer(
    msg_id: GoodId | None, counts: tuple[GoodCount | None, ...], further: FurtherText, *, input_has_cached: bool
) -> UsualAnswer | None:
    """What was reported: the counts of `COLUMNS` and those that `further` knows; None where nothing was.

    `input_has_cached`: the upstream's input counts cached tokens too.
    """
    new, out, read, written = counts[:_FIRST_FURTHER]
    if new is None and out is None and counts.count(None) == len(counts):
        return None
    if input_has_cached and new and (read or written):
        new = max(new - (read or 0) - (written or 0), 0)
    text = further(counts[_FIRST_FURTHER:])
    return msg_id or "", new or 0, out or 0, read or 0, written or 0, text


def plain_answer(msg_id: GoodId | None, new: GoodCount | None, out: GoodCount | None) -> UsualAnswer | None:
    """The same of one that counts input and output at most."""
    if new is None and out is None:
        return None
    return msg_id or "", new or 0, out or 0, 0, 0, ""


def further_texts(names: tuple[str, ...]) -> FurtherText:
    """Makes `further_counts` of those that were reported; `names` begin with `COLUMNS`. Most are 0 most of the time."""

    @lru_cache(maxsize=_REMEMBERED)
    def text_of(counts: tuple[int | None, ...]) -> str:
        named = zip(names[_FIRST_FURTHER:], counts, strict=True)
        return further_counts({name: count for name, count in named if count is not None})

    return text_of


def without_cached(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Of upstreams whose input counts cached tokens too."""
    cached = counts.get("cache_read", 0) + counts.get("cache_write", 0)
    if not cached or "input" not in counts:
        return counts
    return {**counts, "input": max(counts["input"] - cached, 0)}


def _token_usage(counts: Mapping[str, int], partial: bool) -> TokenUsage:
    has_further = not counts.keys() <= _IN_COLUMNS
    return TokenUsage(
        counts.get("input", 0),
        counts.get("output", 0),
        counts.get("cache_read", 0),
        counts.get("cache_write", 0),
        {name: counts[name] for name in counts if name not in _IN_COLUMNS} if has_further else _NOTHING_FURTHER,
        partial,
    )
