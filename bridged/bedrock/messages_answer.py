"""Answers of Bedrock as Anthropic's: event-stream messages to events as they arrive, errors and counts as wholes.

What a model said passes byte for byte: a blocking answer as it is, each event's JSON as Bedrock sent it, with
`amazon-bedrock-invocationMetrics` in the last one (SDKs pass over members that they do not know).

Format: AWS, InvokeModelWithResponseStream (Bedrock API Reference); WHATWG HTML, "9.2 Server-sent events".
"""

import re

import msgspec

from bridged.aws.event_stream import EventStreamBroken, EventStreamDecoder, Message
from bridged.bedrock.answers import (
    OK,
    Gathered,
    Gathering,
    is_compressed,
    is_kind,
    refuse_other_success,
    with_request_id,
    without_body_headers,
)
from bridged.bedrock.errors import exception_body, status_of_exception, stream_exception
from bridged.json_edit import JsonObject, MalformedJson, decoded
from bridged.model import Headers, Refused

EVENT_STREAM = "application/vnd.amazon.eventstream"

_EVENT_NAME = re.compile(r"[\w.-]+", re.ASCII)
_LINE_END = re.compile(rb"\r\n|\n|\r")


class _Chunk(msgspec.Struct):
    data: bytes = msgspec.field(name="bytes")


class _Event(msgspec.Struct):
    type: str


_chunks = msgspec.json.Decoder(_Chunk)
_events = msgspec.json.Decoder(_Event)


class InvokeAnswer:
    """The answer of InvokeModel or InvokeModelWithResponseStream, as the answer of Messages.

    A stream has headers from its first message on: one that begins with an exception is an answer with its status.
    """

    __slots__ = (
        "_credential_is_the_users", "_decoder", "_gathering", "_stream", "complete", "failure", "headers", "whole",
    )  # fmt: skip

    def __init__(self, *, credential_is_the_users: bool) -> None:
        self.headers: Headers | None = None
        self.failure: Refused | None = None
        self.whole: Gathered | None = None
        self._credential_is_the_users = credential_is_the_users
        self._gathering: Gathering | None = None
        self._decoder: EventStreamDecoder | None = None
        self._stream: Headers = ()
        # The stream said that it is over, well or not: what comes after that goes to nobody.
        self.complete = False

    def head(self, status: int, headers: Headers) -> None:
        """UPSTREAM_UNREACHABLE for a compressed stream, which was not asked for, and for other kinds of success."""
        refuse_other_success(status)
        if status != OK:
            self._gathering = Gathering(status, headers)
        elif not is_kind(headers, EVENT_STREAM):
            self.headers = with_request_id(headers)
        elif is_compressed(headers):
            raise Refused("UPSTREAM_UNREACHABLE", "the upstream's answer is compressed, though it was asked not to be")
        else:
            self._decoder, self._stream = EventStreamDecoder(), headers

    def feed(self, data: bytes) -> bytes:
        if self._gathering is not None:
            self._gathering.add(data)
            if self._gathering.too_long:
                self.end()
            return b""
        if self._decoder is None:
            return data
        if self.complete or self.failure is not None:
            return b""
        try:
            messages = self._decoder.feed(data)
        except EventStreamBroken as broken:
            events = self._events_of(broken.messages)
            if not self.complete:
                self.failure = _damaged()
            return events
        return self._events_of(messages)

    def end(self) -> None:
        if self._gathering is not None:
            self.failure = None if self._credential_is_the_users else self._gathering.refused_credential()
            self.whole = self._gathering.error()
        elif self._decoder is not None and not self.complete and self.failure is None:
            # Whole messages and no message_stop: the connection ended well, the answer did not.
            self.failure = Refused("UPSTREAM_UNREACHABLE", "the upstream's answer broke off: try again")

    def _events_of(self, messages: list[Message]) -> bytes:
        events: list[bytes] = []
        for message in messages:
            if self.complete:
                break
            try:
                events.append(self._event(message))
            except (msgspec.DecodeError, MalformedJson):
                self.failure = _damaged()
                break
        return b"".join(events)

    def _event(self, message: Message) -> bytes:
        kind = message.headers.get(":message-type", "event")
        if kind in ("exception", "error"):
            return self._exception(message, kind)
        if message.headers.get(":event-type") != "chunk":
            # Of a kind that this version of the API does not have.
            return b""
        data = _chunks.decode(message.payload).data
        name = _event_name(data)
        self.complete = name in ("message_stop", "error")
        self._begin()
        return _server_sent(name, data)

    def _exception(self, message: Message, kind: str) -> bytes:
        self.complete = True
        name = str(message.headers.get(":exception-type") or message.headers.get(":error-code") or "")
        payload = message.payload
        if kind == "error":
            payload = msgspec.json.encode({"message": message.headers.get(":error-message", "")})
        if self.headers is not None:
            return stream_exception(name, payload)
        gathering = Gathering(status_of_exception(name), self._stream)
        self.whole = gathering.answer(gathering.status, exception_body(name, payload, gathering.request_id))
        return b""

    def _begin(self) -> None:
        if self.headers is None:
            kept = without_body_headers(with_request_id(self._stream))
            self.headers = (*kept, ("Content-Type", "text/event-stream; charset=utf-8"))


class CountAnswer:
    """The answer of CountTokens, as that of Anthropic's count_tokens. A number that is not there is never made up."""

    __slots__ = ("_credential_is_the_users", "_gathering", "complete", "failure", "headers", "whole")

    def __init__(self, *, credential_is_the_users: bool) -> None:
        self.headers: Headers | None = None
        self.failure: Refused | None = None
        self.whole: Gathered | None = None
        self._credential_is_the_users = credential_is_the_users
        self.complete = False
        self._gathering = Gathering(0, ())

    def head(self, status: int, headers: Headers) -> None:
        """UPSTREAM_UNREACHABLE for other kinds of success."""
        refuse_other_success(status)
        self._gathering = Gathering(status, headers)

    def feed(self, data: bytes) -> bytes:
        self._gathering.add(data)
        if self._gathering.too_long:
            self.end()
        return b""

    def end(self) -> None:
        if self._gathering.status != OK:
            self.failure = None if self._credential_is_the_users else self._gathering.refused_credential()
            self.whole = self._gathering.error()
            return
        count = _count_in(self._gathering.body)
        if count is None:
            self.failure = Refused(
                "UPSTREAM_UNREACHABLE", "the upstream counted the tokens, but its answer has no count: try again"
            )
        else:
            self.whole = self._gathering.answer(OK, b'{"input_tokens":%d}' % count)


def _count_in(body: bytes) -> int | None:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    count = found.get("inputTokens") if isinstance(found, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def _event_name(data: bytes) -> str:
    """`type` of an event. MalformedJson if there is none."""
    try:
        return _events.decode(data).type
    except msgspec.DecodeError:
        # Half of an emoji, where a model's text was cut: msgspec does not take it, JSON's grammar does.
        name = decoded(JsonObject(data).get("type") or b"null")
    if not isinstance(name, str):
        raise MalformedJson("an event has no type")
    return name


def _server_sent(name: str, data: bytes) -> bytes:
    # JSON has line ends between its tokens only, where one white space is as good as another.
    lines = b"\ndata: ".join(_LINE_END.split(data))
    event = b"event: " + name.encode() + b"\n" if _EVENT_NAME.fullmatch(name) else b""
    return event + b"data: " + lines + b"\n\n"


def _damaged() -> Refused:
    return Refused("UPSTREAM_UNREACHABLE", "the upstream's answer was damaged on its way: try again")
