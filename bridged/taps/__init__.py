"""Taps read what goes by: an answer while it passes, a request before it is let go of. Values in bridged/records.py."""

from collections.abc import Callable

from bridged.model import DialectName, Headers, header_values
from bridged.records import NO_TURN, Turn
from bridged.taps.answer_tap import AnswerReader, AnswerTap, DecodingTap, DocumentTap, EventsTap, MessagesTap
from bridged.taps.anthropic_messages import MessagesReader
from bridged.taps.bedrock import ConverseReader, InvokeReader
from bridged.taps.content_coding import codings_of, decoded_body, decoding_of
from bridged.taps.error_body import ErrorTap
from bridged.taps.google_generate import GenerateReader
from bridged.taps.openai_chat import ChatReader
from bridged.taps.openai_responses import ResponsesReader
from bridged.taps.turns import TURNS

_EVENTS = "text/event-stream"
_MESSAGES = "application/vnd.amazon.eventstream"
_CONVERSE = ("bedrock.converse", "bedrock.converse_stream")
_FIRST_GOOD, _FIRST_REDIRECT, _FIRST_ERROR = 200, 300, 400

_READERS: dict[DialectName, Callable[[], AnswerReader]] = {
    DialectName.ANTHROPIC_MESSAGES: MessagesReader,
    DialectName.OPENAI_CHAT: ChatReader,
    DialectName.OPENAI_RESPONSES: ResponsesReader,
    DialectName.GOOGLE_GENERATE: GenerateReader,
}


def answer_tap(dialect: DialectName, operation: str, *, status: int, headers: Headers) -> AnswerTap | None:
    """A tap for the answer with this head, as the client gets it. None for what is neither an answer nor an error."""
    if status < _FIRST_GOOD or _FIRST_REDIRECT <= status < _FIRST_ERROR:
        return None
    tap: AnswerTap
    if status >= _FIRST_ERROR:
        tap = ErrorTap(status, named=next(iter(header_values(headers, "x-amzn-errortype")), "").partition(":")[0])
    else:
        tap = _framed(dialect, operation, headers)
    codings = codings_of(header_values(headers, "content-encoding"))
    return DecodingTap(tap, decoding_of(codings)) if codings else tap


def read_turn(dialect: DialectName, operation: str, *, headers: Headers, body: bytes, max_bytes: int) -> Turn:
    """What a request says of its conversation; NO_TURN for what cannot be read.

    `max_bytes` is what a compressed body may become.
    """
    codings = codings_of(header_values(headers, "content-encoding"))
    plain = decoded_body(body, codings, max_bytes=max_bytes)
    if plain is None:
        return NO_TURN
    if dialect is DialectName.BEDROCK and operation not in _CONVERSE:
        dialect = DialectName.ANTHROPIC_MESSAGES
    return TURNS[dialect](plain)


def _framed(dialect: DialectName, operation: str, headers: Headers) -> AnswerTap:
    kind = next(iter(header_values(headers, "content-type")), "").partition(";")[0].strip().lower()
    if dialect is DialectName.BEDROCK:
        reader = _bedrock_reader(operation, headers)
        return MessagesTap(reader) if kind == _MESSAGES else DocumentTap(reader)
    chosen = _READERS[dialect]()
    return EventsTap(chosen) if kind == _EVENTS else DocumentTap(chosen)


def _bedrock_reader(operation: str, headers: Headers) -> ConverseReader | InvokeReader:
    request_id = next(iter(header_values(headers, "x-amzn-requestid")), "")
    if operation in _CONVERSE:
        return ConverseReader(request_id=request_id)
    return InvokeReader(request_id=request_id, headers=headers)
