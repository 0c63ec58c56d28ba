"""Reads the error that an upstream answered with: its type and its words, for the record.

All the APIs say it in one of few shapes:

    {"error": {"type", "code", "status", "message"}}     Anthropic, OpenAI, Google (in a list, where a stream was asked)
    {"message", "__type"}                                AWS, whose type is in a header more often
"""

from typing import Any

import msgspec

from bridged.records import AnswerRecords
from bridged.taps.seen import MAX_ERROR_CHARACTERS, MAX_NAME_CHARACTERS
from bridged.taps.typed_json import decoded

# Errors are short; what is behind this is not read.
MAX_BODY_BYTES = 64 * 1024
# Upstreams quote the key that they refuse, or a part of it.
_ABOUT_KEYS = frozenset({401, 403})


class _Error(msgspec.Struct, gc=False):
    type: Any = None
    code: Any = None
    status: Any = None
    message: Any = None


class _Answer(msgspec.Struct, gc=False):
    error: _Error | str | None = None
    message: Any = None
    aws_type: Any = msgspec.field(default=None, name="__type")


_answers = msgspec.json.Decoder(_Answer)
_lists = msgspec.json.Decoder(list[_Answer])


class ErrorTap:
    """One error answer. `named` is the type where a header says it."""

    __slots__ = ("_data", "_named", "_status")

    def __init__(self, status: int, *, named: str = "") -> None:
        self._status = status
        self._named = named
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Some more of the body."""
        room = MAX_BODY_BYTES - len(self._data)
        if room > 0:
            self._data += data[:room]

    def end(self, *, whole: bool) -> AnswerRecords:
        """What the upstream says. It used nothing."""
        data = bytes(self._data)
        error = _error_of(data)
        error_type = self._named or next(
            (one for one in (error.type, error.status, error.code) if isinstance(one, str) and one), ""
        )
        message = "" if self._status in _ABOUT_KEYS or not isinstance(error.message, str) else error.message
        return AnswerRecords(
            error_type=error_type[:MAX_NAME_CHARACTERS],
            error_message=message[:MAX_ERROR_CHARACTERS],
            partial=not whole,
        )


def _error_of(data: bytes) -> _Error:
    answer = decoded(_answers, data)
    if answer is None:
        answer = next(iter(decoded(_lists, data) or ()), _Answer())
    if isinstance(answer.error, _Error):
        return answer.error
    return _Error(type=answer.aws_type, message=answer.error or answer.message)
