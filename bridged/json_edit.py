"""JSON edited in place: members and elements are taken out, replaced and added; every other byte stays as it was.

A value that nobody touches is never decoded, so the spelling of numbers (1e400, 1.0), escapes, the order of members,
members that come twice and white space survive. That is what prompt caches and fields of tomorrow depend on. White
space belongs to the member that it stands beside, and goes with it.

Format: RFC 8259. What is read here is taken apart by its brackets and strings and not judged further.
"""

import json
import re
from collections.abc import Iterable, Iterator

# Of members or elements. Each costs a hundred times its own size, and Anthropic's API takes as many messages.
MOST_PARTS = 100_000

_SPACES = b" \t\n\r"
_SPACE = re.compile(rb"[ \t\n\r]*")
# Nothing in a string is ever given back: what could be is remembered, for each escape, and that is many times the body.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# What can change the depth, and strings as wholes, because brackets in them mean nothing.
_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}"]', re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\n\r,\]}\[{":]+')


class MalformedJson(ValueError):
    """It is not JSON, or not the object or array that was looked for. The text is not in the message."""


class TooManyParts(MalformedJson):
    """It has more than MOST_PARTS."""


class _Member:
    """One member: `text` is all between the commas or braces around it; `start` and `end` are of its value."""

    __slots__ = ("end", "key", "start", "text")

    def __init__(self, key: str, text: bytes, start: int, end: int) -> None:
        self.key = key
        self.text = text
        self.start = start
        self.end = end

    @property
    def value(self) -> bytes:
        return self.text[self.start : self.end]


class JsonObject:
    """An object that can be edited. Of members that come twice the last one counts, as in most parsers."""

    __slots__ = ("_after", "_before", "_blank", "_members")

    def __init__(self, text: bytes) -> None:
        """MalformedJson if it is not one object."""
        self._before, pieces, self._after = _taken_apart(text, b"{", b"}")
        self._members: list[_Member] = []
        self._blank = b""
        for piece in pieces:
            self._members.append(_member(piece))
        if not pieces:
            self._blank = text[len(self._before) : len(text) - len(self._after)]

    def __contains__(self, key: str) -> bool:
        return any(member.key == key for member in self._members)

    def get(self, key: str) -> bytes | None:
        """The bytes of a value; None where there is no such member."""
        return next((member.value for member in reversed(self._members) if member.key == key), None)

    def remove(self, key: str) -> None:
        """Take out every member of this name."""
        self._members = [member for member in self._members if member.key != key]

    def put(self, key: str, value: bytes) -> None:
        """Replace the value where the member stands, or add it at the end. Others of its name go."""
        standing = next((member for member in reversed(self._members) if member.key == key), None)
        if standing is None:
            name = json.dumps(key).encode()
            self._members.append(_Member(key, name + b":" + value, len(name) + 1, len(name) + 1 + len(value)))
            return
        text = standing.text[: standing.start] + value + standing.text[standing.end :]
        replaced = _Member(key, text, standing.start, standing.start + len(value))
        self._members = [
            replaced if member is standing else member
            for member in self._members
            if member is standing or member.key != key
        ]

    def encode(self) -> bytes:
        """The bytes as they stand now."""
        inner = b",".join([member.text for member in self._members]) if self._members else self._blank
        return self._before + inner + self._after


class JsonArray:
    """An array whose elements can be replaced."""

    __slots__ = ("_after", "_before", "_pieces")

    def __init__(self, text: bytes) -> None:
        """MalformedJson if it is not one array."""
        self._before, self._pieces, self._after = _taken_apart(text, b"[", b"]")

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Every element with its place, white space around it included."""
        return iter(list(enumerate(self._pieces)))

    def put(self, place: int, element: bytes) -> None:
        """Replace an element, white space included."""
        self._pieces[place] = element

    def encode(self) -> bytes:
        """The bytes as they stand now."""
        return self._before + b",".join(self._pieces) + self._after


def decoded(value: bytes) -> object:
    """A value as Python has it. MalformedJson if it is not JSON, or has more digits than anybody can mean."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise MalformedJson("a value is not well-formed JSON") from None


def is_object(value: bytes) -> bool:
    """Whether a well-formed value is an object."""
    return value.lstrip(_SPACES).startswith(b"{")


def is_array(value: bytes) -> bool:
    """Whether a well-formed value is an array."""
    return value.lstrip(_SPACES).startswith(b"[")


def string_list(values: Iterable[str]) -> bytes:
    """An array of strings."""
    return json.dumps(list(values)).encode()


def _taken_apart(text: bytes, opening: bytes, closing: bytes) -> tuple[bytes, list[bytes], bytes]:
    """What stands up to the opening bracket, what stands between the commas, and what follows from the closing one.

    Nothing between the brackets is no piece for an object, and one blank piece for an array, which says the same.
    """
    at = _space_end(text, 0)
    if text[at : at + 1] != opening:
        raise MalformedJson("it is not the kind of JSON value that was expected")
    before = text[: at + 1]
    start = at = at + 1
    pieces: list[bytes] = []
    if text[_space_end(text, at) : _space_end(text, at) + 1] == closing:
        end = _space_end(text, at)
        if opening == b"[":
            pieces = [text[start:end]]
    else:
        while True:
            at = _item_end(text, at, named=opening == b"{")
            pieces.append(text[start:at])
            if len(pieces) > MOST_PARTS:
                raise TooManyParts("a JSON value has too many members or elements")
            mark = text[at : at + 1]
            at += 1
            if mark == closing:
                end = at - 1
                break
            if mark != b",":
                raise MalformedJson("it is not well-formed JSON")
            start = at
    if _space_end(text, end + 1) != len(text):
        raise MalformedJson("something follows the JSON value")
    return before, pieces, text[end:]


def _item_end(text: bytes, at: int, *, named: bool) -> int:
    """Where a member or an element ends, white space after it included."""
    at = _space_end(text, at)
    if named:
        at = _colon_end(text, at)
    return _space_end(text, _value_end(text, at))


def _colon_end(text: bytes, at: int) -> int:
    name = _STRING.match(text, at)
    if name is None:
        raise MalformedJson("a member has no name")
    colon = _space_end(text, name.end())
    if text[colon : colon + 1] != b":":
        raise MalformedJson("a member has no value")
    return _space_end(text, colon + 1)


def _value_end(text: bytes, at: int) -> int:
    first = text[at : at + 1]
    if first in (b"{", b"["):
        return _nested_end(text, at)
    found = (_STRING if first == b'"' else _SCALAR).match(text, at)
    if found is None:
        raise MalformedJson("a value is missing or cut")
    return found.end()


def _nested_end(text: bytes, at: int) -> int:
    depth = 0
    for found in _BRACKET.finditer(text, at):
        mark = text[found.start()]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
            if depth == 0:
                return found.end()
        elif found.end() - found.start() == 1:
            break
    raise MalformedJson("a bracket or a string is not closed")


def _space_end(text: bytes, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _member(piece: bytes) -> _Member:
    begin = _space_end(piece, 0)
    name = _STRING.match(piece, begin)
    if name is None:
        raise MalformedJson("a member has no name")
    raw = name[0]
    try:
        key = str(json.loads(raw)) if b"\\" in raw else raw[1:-1].decode("utf-8")
    except ValueError:
        raise MalformedJson("the name of a member is not well-formed") from None
    return _Member(key, piece, _colon_end(piece, begin), len(piece.rstrip(_SPACES)))
