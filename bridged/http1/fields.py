"""Lines of heads, read once. The same few lines come with nearly every message, so what each says is remembered.

Remembered is what a line alone tells: its name, its value, and what the framing of a message makes of it. Rules about
several lines together are in framing.py and response_framing.py. Not remembered are long lines and those whose name
hints at a secret; everything is forgotten when there are too many, which is the usual end of lines that never come back.
"""

import re
from collections.abc import Callable
from typing import Generic, TypeVar

from bridged.model import Headers

# RFC 9110, 5.1 and 5.5: obs-text passes as it came, control characters other than tab never do.
TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TEXT = r"[\t -~\x80-\xff]"
_FIELD_LINE = re.compile(rf"({TCHAR}++):({TEXT}*+)")
# All that a line may hold: visible characters, space, tab, and obs-text (RFC 9110, 5.5).
LINE_BYTES = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_NAME_OF_A_SECRET = re.compile(r"auth|cookie|credential|key|passw|secret|signature|token", re.IGNORECASE)

_LONGEST_BYTES = 256
_MOST = 4096

Verdict = TypeVar("Verdict")
# Name as sent, value without the white space around it.
Pair = tuple[str, str]


class NotAField(Exception):
    """The line is no header field."""


class FieldLines(dict[bytes, tuple[Pair, Verdict | None]], Generic[Verdict]):
    """Of each line, without its line end: the field, and the verdict of `judge` on it, None for what framing ignores.

    `judge` gets the name in lower case and the value as sent. Looking a line up raises NotAField, and whatever `judge`
    raises.
    """

    def __init__(self, judge: Callable[[str, str], Verdict | None]) -> None:
        super().__init__()
        self._judge = judge

    def __missing__(self, line: bytes) -> tuple[Pair, Verdict | None]:
        match = _FIELD_LINE.fullmatch(line.decode("latin-1"))
        if match is None:
            raise NotAField
        name, value = match.groups()
        read = ((name, value.strip(" \t")), self._judge(name.lower(), value))
        if len(line) <= _LONGEST_BYTES and not is_secret_name(name):
            if len(self) >= _MOST:
                self.clear()
            self[line] = read
        return read


def is_secret_name(name: str) -> bool:
    """Whether a field of this name may hold what nobody should remember."""
    return _NAME_OF_A_SECRET.search(name) is not None


def field_lines(headers: Headers) -> bytes:
    """These fields as the lines of a head, each with its line end.

    ValueError for what would change where a line ends, and for characters that are not of HTTP.
    """
    try:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")
    except UnicodeEncodeError:
        # The original error would carry the whole head along.
        raise ValueError("a header has characters that are not of HTTP") from None
    # Every byte that is not text must be one of the line ends written here.
    if len(lines.translate(None, LINE_BYTES)) != 2 * len(headers):
        raise ValueError("a header has control characters")
    return lines
