"""Lines of heads, read once. The same few lines come with nearly every message, so what each says is remembered.

Remembered is what a line alone tells: its name, its value, and what the framing of a message makes of it. Rules about
several lines together are in framing.py and response_head.py. Not remembered are long lines, those whose name hints
at a secret, and those that hold what looks like one, wherever it stands; everything is forgotten when there are too
many, the usual end of lines that never come back.
"""

import re
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from bridged.model import Headers

# RFC 9110, 5.1 and 5.5: obs-text passes as it came, control characters other than tab never do.
TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TEXT = r"[\t -~\x80-\xff]"
_NAME = re.compile(TCHAR.encode() + b"+")
# All that a line may hold: visible characters, space, tab, and obs-text (RFC 9110, 5.5).
LINE_BYTES = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
# Those as letters, all others as no letters: to tell them apart that way costs a fifth of leaving some of them out.
_LETTERS = bytes([0x61 if byte in LINE_BYTES else 0x20 for byte in range(256)])
_NAME_OF_A_SECRET = re.compile(r"auth|cookie|credential|key|passw|secret|signature|token", re.IGNORECASE)

# Tokens of ours, keys as most providers write them, and the schemes that announce either.
_SECRET = re.compile(rb"db[us]_|\bsk-|\b(?:basic|bearer)\b", re.IGNORECASE)

_LONGEST_BYTES = 256
_MOST = 4096

Verdict = TypeVar("Verdict")
# Name as sent, value without the white space around it.
Pair = tuple[str, str]


class NotAField(Exception):
    """The line is no header field."""


class FieldLines(dict[bytes, tuple[Pair, Verdict | None]], Generic[Verdict]):
    """Of each line, without its line end: the field, and the verdict of its judge on it, None for what has none.

    `judges` are the fields that framing does not ignore, by their names in lower case; they get the value as sent.
    Looking a line up raises NotAField.
    """

    def __init__(self, judges: Mapping[str, Callable[[str], Verdict]]) -> None:
        super().__init__()
        self._judges = judges
        # Of each name as it was written: as text, its judge, and whether its lines are remembered.
        self._names: dict[bytes, tuple[str, Callable[[str], Verdict] | None, bool]] = {}

    def __missing__(self, line: bytes) -> tuple[Pair, Verdict | None]:
        written, colon, raw_value = line.partition(b":")
        if not colon or not (raw_value.translate(_LETTERS).isalpha() or not raw_value):
            raise NotAField
        name, judge, is_remembered = self._names.get(written) or self._read_name(written)
        value = raw_value.decode("latin-1")
        read = ((name, value.strip(" \t")), None if judge is None else judge(value))
        if is_remembered and len(line) <= _LONGEST_BYTES and _SECRET.search(line) is None:
            if len(self) >= _MOST:
                self.clear()
            self[line] = read
        return read

    def _read_name(self, written: bytes) -> tuple[str, Callable[[str], Verdict] | None, bool]:
        if _NAME.fullmatch(written) is None:
            raise NotAField
        name = written.decode("latin-1")
        known = (name, self._judges.get(name.lower()), not is_secret_name(name))
        if len(written) <= _LONGEST_BYTES and _SECRET.search(written) is None:
            if len(self._names) >= _MOST:
                self._names.clear()
            self._names[written] = known
        return known


def is_secret_name(name: str) -> bool:
    """Whether a field of this name may hold what nobody should remember."""
    return _NAME_OF_A_SECRET.search(name) is not None


def may_hold_secret(name: str, value: str) -> bool:
    """Whether this field should not be remembered, for its name or for what looks like a secret in it."""
    return is_secret_name(name) or _SECRET.search(f"{name}:{value}".encode("latin-1", "replace")) is not None


def field_lines(headers: Headers) -> bytes:
    """These fields as the lines of a head, each with its line end.

    ValueError for what would change where a line ends, and for characters that are not of HTTP.
    """
    lines = b""
    for name, value in headers:
        try:
            line = f"{name}: {value}".encode("latin-1")
        except UnicodeEncodeError:
            # The original error would carry the header along.
            raise ValueError("a header has characters that are not of HTTP") from None
        if not line.translate(_LETTERS).isalpha():
            raise ValueError("a header has control characters")
        lines += line + b"\r\n"
    return lines
