"""What a tap has seen so far, within bounds: tool calls and thoughts grow here, fragment by fragment."""

from collections.abc import Mapping

from bridged.records import AnswerRecords, ModelThought, TokenUsage, ToolUsage, Trouble

# Of all tool inputs and thoughts of one answer together.
MAX_TEXT_BYTES = 1024 * 1024
MAX_ITEMS = 1024
# Names and ids are short; more is not one.
MAX_NAME_CHARACTERS = 512
# More than is recorded, so that a key in the words is whole when it is looked for (quoted_keys.py).
MAX_ERROR_CHARACTERS = 4096
# Of one kind of tokens in one answer: more is no count. Sums of a few stay below what credentiald takes (record.proto).
MAX_COUNT = 100_000_000_000

_NOTHING_FURTHER: Mapping[str, int] = {}
_NO_TROUBLES: frozenset[Trouble] = frozenset()
_COLUMNS = frozenset({"input", "output", "cache_read", "cache_write"})

# Position of a block or choice, and of a call in it.
Key = tuple[int, int]


class _Growing:
    """A tool call or a thought. `source` is empty for a tool call. Bytes, because fragments may be a letter each."""

    __slots__ = ("call_id", "capped", "is_whole", "item_id", "name", "source", "text")

    def __init__(self) -> None:
        self.name = self.call_id = self.item_id = self.source = ""
        self.text = bytearray()
        self.is_whole = self.capped = False

    def content(self) -> str:
        # A bound may have cut a letter.
        return self.text.decode("utf-8", "ignore")


class Seen:
    """The state of one tap. `counts` are the upstream's own, the last value of each; empty where it reported none."""

    __slots__ = (
        "_room_bytes", "_thoughts", "_tools", "counts", "error_message", "error_type", "finished",
        "has_reason_to_finish", "model", "msg_id", "troubles",
    )  # fmt: skip

    def __init__(self) -> None:
        self.msg_id = ""
        self.model = ""
        self.counts: dict[str, int] = {}
        # The answer said that it is over.
        self.finished = False
        # The model did; something may follow, but need not.
        self.has_reason_to_finish = False
        self.error_type = ""
        self.error_message = ""
        self.troubles: set[Trouble] = set()
        self._tools: dict[Key, _Growing] = {}
        self._thoughts: dict[Key, _Growing] = {}
        self._room_bytes = MAX_TEXT_BYTES

    def identify(self, msg_id: str | None, model: str | None) -> None:
        """Take note of the answer's id and model; the first that are not empty stay."""
        self.msg_id = self.msg_id or (msg_id or "")[:MAX_NAME_CHARACTERS]
        self.model = self.model or (model or "")[:MAX_NAME_CHARACTERS]

    def count(self, **counts: object) -> None:
        """Take over what was reported; what was not, or cannot be a count, keeps its last value."""
        for name, value in counts.items():
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

    def call_id_at(self, key: Key) -> str | None:
        """The id of a tool call, None if there is no such call."""
        tool = self._tools.get(key)
        return None if tool is None else tool.call_id

    def tool_input(self, key: Key, fragment: str) -> None:
        """The input of a tool call goes on."""
        self._append(self._growing(self._tools, key), fragment)

    def default_tool_input(self, key: Key, text: str) -> None:
        """What the input is where no fragment of it came."""
        tool = self._tools.get(key)
        if tool is not None and not tool.text and not tool.capped:
            self._append(tool, text)

    def tool_is_whole(self, key: Key) -> None:
        """All of a tool call is there."""
        if key in self._tools:
            self._tools[key].is_whole = True

    def tool_is_cut(self, key: Key) -> None:
        """There is more of a tool call that will not come, in an answer that is whole otherwise."""
        if key in self._tools:
            self._tools[key].capped = True

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

    def records(self, counts: Mapping[str, int], *, partial: bool) -> AnswerRecords:
        """All of it as values. `partial`: the answer was cut.

        `counts` has the four of TokenUsage as `input`, `output`, `cache_read` and `cache_write`; others are of further
        kinds. None at all means that the upstream reported nothing.
        """
        return AnswerRecords(
            msg_id=self.msg_id,
            model=self.model,
            usage=self._token_usage(counts, partial) if counts else None,
            tools=self._tool_usages(partial) if self._tools else (),
            thoughts=self._model_thoughts(partial) if self._thoughts else (),
            partial=partial,
            error_type=self.error_type,
            error_message=self.error_message,
            over=bool(self.error_type) or (self.finished and not partial),
            troubles=frozenset(self.troubles) if self.troubles else _NO_TROUBLES,
        )

    def _token_usage(self, counts: Mapping[str, int], partial: bool) -> TokenUsage:
        has_further = not counts.keys() <= _COLUMNS
        return TokenUsage(
            input_tokens=counts.get("input", 0),
            output_tokens=counts.get("output", 0),
            cache_read_input_tokens=counts.get("cache_read", 0),
            cache_write_input_tokens=counts.get("cache_write", 0),
            metadata={name: counts[name] for name in counts if name not in _COLUMNS}
            if has_further
            else _NOTHING_FURTHER,
            partial=partial,
        )

    def _tool_usages(self, partial: bool) -> tuple[ToolUsage, ...]:
        return tuple([self._tool_usage(tool, partial) for tool in self._tools.values()])

    def _model_thoughts(self, partial: bool) -> tuple[ModelThought, ...]:
        return tuple(
            [
                ModelThought(
                    content=thought.content(),
                    source=thought.source,
                    partial=thought.capped or (partial and not thought.is_whole),
                )
                for thought in self._thoughts.values()
                if thought.text
            ]
        )

    def _tool_usage(self, tool: _Growing, partial: bool) -> ToolUsage:
        return ToolUsage(
            tool=tool.name,
            input=tool.content(),
            tool_call_id=tool.call_id,
            item_id=tool.item_id,
            partial=tool.capped or (partial and not tool.is_whole),
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
        if item is None or item.capped:
            return
        encoded = fragment.encode("utf-8", "replace")
        if len(encoded) > self._room_bytes:
            encoded = encoded[: self._room_bytes]
            item.capped = True
            self.troubles.add(Trouble.TEXT_BOUND)
        self._room_bytes -= len(encoded)
        item.text += encoded
