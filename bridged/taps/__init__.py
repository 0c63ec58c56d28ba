"""Taps read what goes by: an answer while it passes, a request before it is let go of. Values in bridged/records.py."""

from collections.abc import Callable, Mapping
from functools import lru_cache

from bridged.model import DialectName, HeaderNames, Headers, named_values
from bridged.records import NO_TURN, Turn, UsualAnswer
from bridged.taps import anthropic_messages, openai_chat, openai_responses, turns
from bridged.taps.answer_tap import AnswerReader, AnswerTap, DecodingTap, DocumentTap, EventsTap, MessagesTap
from bridged.taps.anthropic_messages import MessagesReader
from bridged.taps.bedrock import ConverseReader, InvokeReader
from bridged.taps.content_coding import codings_of, decoded_body, decoding_of
from bridged.taps.error_body import ErrorTap
from bridged.taps.google_generate import GenerateReader
from bridged.taps.openai_chat import ChatReader
from bridged.taps.openai_responses import ResponsesReader

# What the head of an answer tells a tap; taps of Bedrock read more.
ANSWER_HEADERS = ("content-type", "content-encoding", "x-amzn-errortype", "x-amzn-requestid")
_NAMES = HeaderNames(*ANSWER_HEADERS)
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
# What reads a usual answer at once, by operation: an Enum's members are hashed in Python.
USUAL: Mapping[str, Callable[[bytes], UsualAnswer | None]] = {
    "anthropic.messages": anthropic_messages.usual,
    "azure.chat_completions": openai_chat.usual,
    "azure.responses": openai_responses.usual,
    "copilot.chat_completions": openai_chat.usual,
    "copilot.responses": openai_responses.usual,
    "google.openai_chat_completions": openai_chat.usual,
    "openai.chat_completions": openai_chat.usual,
    "openai.responses": openai_responses.usual,
}


def answer_tap(dialect: DialectName, operation: str, *, status: int, headers: Headers) -> AnswerTap | None:
    """A tap for the answer with this head, as the client gets it. None for what is neither an answer nor an error."""
    if status < _FIRST_GOOD or _FIRST_REDIRECT <= status < _FIRST_ERROR:
        return None
    tap: AnswerTap
    named = named_values(headers, _NAMES)
    if status >= _FIRST_ERROR:
        tap = ErrorTap(status, named=named.get("x-amzn-errortype", "").partition(":")[0])
    else:
        tap = _framed(dialect, operation, headers, named)
    codings = codings_of(named.get("content-encoding", ""))
    return DecodingTap(tap, decoding_of(codings)) if codings else tap


def read_turn(dialect: DialectName, body: bytes, *, content_encoding: str = "", max_bytes: int) -> Turn:
    """What a body that nobody has looked at says of its conversation; NO_TURN for what cannot be read.

    `max_bytes` is what a compressed body may become.
    """
    plain = decoded_body(body, codings_of(content_encoding), max_bytes=max_bytes)
    return NO_TURN if plain is None else turns.read_turn(dialect, plain)


def _framed(dialect: DialectName, operation: str, headers: Headers, named: Mapping[str, str]) -> AnswerTap:
    kind = _kind_of(named.get("content-type", ""))
    if dialect is DialectName.BEDROCK:
        reader = _bedrock_reader(operation, headers, named.get("x-amzn-requestid", ""))
        return MessagesTap(reader) if kind == _MESSAGES else DocumentTap(reader)
    chosen = _READERS[dialect]()
    return EventsTap(chosen) if kind == _EVENTS else DocumentTap(chosen)


# Upstreams say the same again and again.
@lru_cache(maxsize=64)
def _kind_of(content_type: str) -> str:
    return content_type.partition(";")[0].rstrip().lower()


def _bedrock_reader(operation: str, headers: Headers, request_id: str) -> ConverseReader | InvokeReader:
    if operation in _CONVERSE:
        return ConverseReader(request_id=request_id)
    return InvokeReader(request_id=request_id, headers=headers)
