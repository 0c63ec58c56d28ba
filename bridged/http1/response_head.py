"""Heads of answers: which bytes are one, what it says, and how its body is framed. Decisions only.

Heads are read line by line, by the grammar of RFC 9112 without anything that it allows "for robustness"; then come the
rules about what two readers of the same bytes could understand differently (2.2, 5, 6, 11.2).
"""

import math
import re
from collections.abc import Iterable
from enum import Enum

from bridged.http1.fields import LINE_BYTES, TEXT, FieldLines, NotAField
from bridged.model import Headers

# One line of a head.
MAX_FIELD_BYTES = 32 * 1024
FOR_EVER = math.inf
NOT_HTTP = "its answer is not HTTP/1.1"
NOT_WELL_FORMED = "its answer's head is not well-formed HTTP"

_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_STATUS_LINE = re.compile(rf"HTTP/1\.([01]) ([0-9]{{3}})(?: {TEXT}*+)?")
# More digits than any body has, and few enough for every reader's integers.
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNKED = re.compile(r" ?chunked", re.IGNORECASE)
# Of Keep-Alive, which HTTP/1.1 leaves to custom (RFC 2068, 19.7.1): "timeout=5, max=1000".
_TIMEOUT = re.compile(r"\btimeout=([0-9]{1,9})\b", re.IGNORECASE)
_REMEMBERED_STARTS = 256
_LONGEST_START_BYTES = 128


class BadResponse(Exception):
    """These bytes are not an answer that can be passed on. The text is for people and quotes nothing of them."""


class BodyFraming(Enum):
    """How the upstream marked its body's end. For LENGTH it stands in Content-Length, for NONE that means nothing."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


# Looking a member up costs as much as a call.
_NO_BODY, _COUNTED, _IN_CHUNKS, _UNTIL_CLOSE = BodyFraming

# What a field means for framing: its name, and its value as far as that counts. A wrong one is told when all are known.
Verdict = tuple[str, str | int | None]


def _judge_length(value: str) -> Verdict:
    value = value.strip(" \t")
    return "content-length", None if _LENGTH.fullmatch(value) is None else int(value)


def _judge_encoding(value: str) -> Verdict:
    # With other white space around it, some readers take it for another coding.
    return "transfer-encoding", "chunked" if _CHUNKED.fullmatch(value) else value


def _judge_connection(value: str) -> Verdict:
    return "connection", int("close" in [option.strip(" \t").lower() for option in value.split(",")])


def _judge_keep_alive(value: str) -> Verdict:
    match = _TIMEOUT.search(value)
    return "keep-alive", int(match[1]) if match else None


JUDGES = {
    "connection": _judge_connection,
    "content-length": _judge_length,
    "keep-alive": _judge_keep_alive,
    "transfer-encoding": _judge_encoding,
}
_starts: dict[bytes, tuple[int, bool]] = {}
_fields: FieldLines[Verdict] = FieldLines(JUDGES)


def read_head(head: bytes) -> tuple[int, bool, Headers, list[Verdict]]:
    """Status, whether it is HTTP/1.1, headers, and what of them counts for framing. BadResponse if it is no head."""
    lines = head.split(b"\r\n")
    start = lines[0]
    pairs: list[tuple[str, str]] = []
    verdicts: list[Verdict] = []
    try:
        status, is_latest = _starts.get(start) or _read_start(start)
        # What follows the last line end, and the empty line before it, are the end of the head.
        for line in lines[1:-2]:
            pair, found = _fields[line]
            pairs.append(pair)
            if found is not None:
                verdicts.append(found)
    except NotAField:
        raise BadResponse(_what_is_wrong(head)) from None
    if len(head) > MAX_FIELD_BYTES and max(map(len, lines)) > MAX_FIELD_BYTES:
        raise BadResponse(f"its answer's head has a field over {MAX_FIELD_BYTES} bytes")
    if status == 101:
        # We never ask for an upgrade; what follows would not be HTTP.
        raise BadResponse("it switched protocols, which nobody asked for")
    return status, is_latest, tuple(pairs), verdicts


def _read_start(line: bytes) -> tuple[int, bool]:
    match = _STATUS_LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise NotAField
    start = (int(match[2]), match[1] == "1")
    if len(line) <= _LONGEST_START_BYTES:
        if len(_starts) >= _REMEMBERED_STARTS:
            _starts.clear()
        _starts[line] = start
    return start


def _what_is_wrong(head: bytes) -> str:
    """Why these bytes are no head."""
    if not head.startswith(_VERSIONS):
        return NOT_HTTP
    # Every byte that is not text must be part of a CR LF: no bare CR or LF, no NUL, no other control character.
    if len(head.translate(None, LINE_BYTES)) != 2 * head.count(b"\r\n"):
        return "its answer's head has control characters"
    # Folded lines (obs-fold): RFC 9112, 5.2.
    if b"\r\n " in head or b"\r\n\t" in head:
        return "its answer's head has folded lines"
    return NOT_WELL_FORMED


def framing_of(
    status: int, verdicts: Iterable[Verdict], *, is_latest: bool, is_head_request: bool
) -> tuple[BodyFraming, int, float]:
    """How an answer's body ends, its length where that is known, and for how many seconds the connection may be kept.

    RFC 9112, 6.3, with every choice that it leaves taken to the safe side: what one reader may see differently from
    the next is a BadResponse. `is_latest`: HTTP/1.1; a connection of HTTP/1.0 is never kept.
    """
    length: int | None = None
    encoding: str | None = None
    kept_seconds = FOR_EVER if is_latest else 0.0
    for key, found in verdicts:
        if key == "connection":
            if found:
                kept_seconds = 0.0
        elif key == "content-length":
            if length is not None:
                raise BadResponse("its answer has two Content-Lengths")
            if not isinstance(found, int):
                raise BadResponse("its answer's Content-Length is not a number")
            length = found
        elif key == "keep-alive":
            if isinstance(found, int):
                kept_seconds = min(kept_seconds, found)
        elif encoding is not None:
            raise BadResponse("its answer has two Transfer-Encodings")
        else:
            encoding = str(found)
    if encoding is not None or status <= 204:
        _check_together(status, length, encoding, is_latest=is_latest)
    if is_head_request or status == 204 or status == 304:
        return _NO_BODY, 0, kept_seconds
    if encoding is not None:
        return _IN_CHUNKS, 0, kept_seconds
    if length is not None:
        return _COUNTED, length, kept_seconds
    return _UNTIL_CLOSE, 0, 0.0


def _check_together(status: int, length: int | None, encoding: str | None, *, is_latest: bool) -> None:
    if status < 100:
        raise BadResponse("its answer's status is not one of HTTP")
    if encoding is not None:
        if length is not None:
            raise BadResponse("its answer has both Content-Length and Transfer-Encoding")
        if encoding != "chunked" or not is_latest:
            raise BadResponse("its answer's Transfer-Encoding is not chunked")
    if status < 200 and (length is not None or encoding is not None):
        raise BadResponse("its interim answer has a body")
    if status == 204 and (length or encoding is not None):
        # RFC 9112, 6.1 and 6.3: no content, and nothing that says there is.
        raise BadResponse("its answer without content has a body")
