"""Three readers of one answer of an upstream: ours, h11's, and that of Python's http.client.

What ours accepts, one of the others must accept, and those that do must read it in the same way and see it end at the
same byte (`answer_disagreement`). h11 is stricter in trailers and in zeros before a chunk's size, http.client in line
lengths.
"""

import http.client
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

import h11

from bridged.http1.response_framing import ResponseReader
from bridged.http1.response_head import BadResponse, BodyFraming

Fields = tuple[tuple[str, str], ...]
Answer = tuple[int, Fields, bytes]
# What h11 takes for no chunk's size, although it is one.
_LONG_SIZE = re.compile(rb"\r\n[0-9A-Fa-f]{21}")


@dataclass(slots=True, kw_only=True)
class AnswerReading:
    """An answer, or None where it was refused or cut off. `passed` is the body that went on, also before a refusal."""

    answer: Answer | None = None
    passed: bytes = b""
    reusable: bool = False
    framing: BodyFraming | None = None


def read_ours(parts: Iterable[bytes], *, head: bool, reader: ResponseReader | None = None) -> AnswerReading:
    """Our reading of what arrives in these parts until the upstream closes.

    Like a connection, it feeds nothing once an answer is complete: what comes then ends the connection.
    """
    reader = ResponseReader() if reader is None else reader
    reader.begin(is_head_request=head)
    reading = AnswerReading()
    is_more = False
    try:
        for part in parts:
            if reader.complete:
                is_more = is_more or part != b""
            elif part:
                reading.passed += reader.feed(part)
        was_complete = reader.complete
        if not was_complete:
            reader.feed_eof()
    except BadResponse:
        reading.framing = reader.framing
        return reading
    reading.framing = reader.framing
    reading.answer = (reader.status, comparable(reader.headers), reading.passed)
    reading.reusable = reader.is_reusable and was_complete and not is_more
    return reading


def read_h11(data: bytes, *, head: bool) -> AnswerReading:
    """h11's reading."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="HEAD" if head else "POST", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if data:
        connection.receive_data(b"")
    reading = AnswerReading()
    status, fields = 0, ()
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return reading
        if isinstance(event, h11.Response):
            status = event.status_code
            fields = comparable((n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers.raw_items())
        elif isinstance(event, h11.Data):
            reading.passed += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            reading.answer = (status, fields, reading.passed)
            reading.reusable = connection.their_state is h11.DONE and not connection.trailing_data[0]
            return reading
        elif not isinstance(event, h11.InformationalResponse):
            return reading


class _Socket:
    """What http.client reads from: bytes that are there, without a socket."""

    def __init__(self, file: io.BytesIO) -> None:
        self.file = file

    def makefile(self, mode: str) -> io.BytesIO:
        del mode
        return self.file


class _Kept(io.BytesIO):
    """http.client closes its file at the end of an answer, and what was left in it is of interest."""

    def close(self) -> None:
        """Stay open."""


def read_http_client(data: bytes, *, head: bool) -> AnswerReading:
    """The reading of Python's own client, which shares no code with llhttp or h11."""
    file = _Kept(data)
    reading = AnswerReading()
    try:
        while True:
            answer = http.client.HTTPResponse(_Socket(file), method="HEAD" if head else "POST")  # type: ignore[arg-type]
            answer.begin()
            if not 100 <= answer.status < 200:
                break
        if answer.chunked and answer.status in (204, 304):
            # It reads chunks here, which neither status has (RFC 9112, 6.3).
            return reading
        if not answer.chunked and answer.getheader("transfer-encoding") is not None:
            # A coding that it does not know, which 'chunked' is with a space after it.
            return reading
        reading.passed = answer.read()
    except (http.client.HTTPException, ValueError, OverflowError):
        return reading
    reading.answer = (answer.status, comparable(answer.getheaders()), reading.passed)
    reading.reusable = not file.read()
    return reading


def answer_disagreement(data: bytes, parts: list[bytes], *, head: bool) -> str | None:
    """What is wrong with our reading of this answer, cut into these parts; None if nothing is."""
    reader = ResponseReader()
    ours, cut = read_ours([data], head=head, reader=reader), read_ours(parts, head=head)
    drops = read_ours([data[at : at + 1] for at in range(len(data))], head=head)
    if not ours.answer == cut.answer == drops.answer:
        return "where the network cuts the bytes matters"
    if not (drops.passed.startswith(cut.passed) and cut.passed.startswith(ours.passed)):
        return "what goes on before a refusal is no beginning of the body"
    if ours.reusable and read_ours([data], head=head, reader=reader) != ours:
        return "an answer leaves something behind for the next one"
    strict, lax = read_h11(data, head=head), read_http_client(data, head=head)
    if not (strict.passed.startswith(drops.passed) or _LONG_SIZE.search(data)):
        return "more of a body goes on than h11 sees"
    if ours.answer is None:
        return None
    if problem := _against_framing(ours, data):
        return problem
    others = [(name, theirs) for name, theirs in (("h11", strict), ("http.client", lax)) if theirs.answer is not None]
    if not others:
        return "nobody else takes this for an answer"
    for name, theirs in others:
        if theirs.answer != ours.answer:
            return f"{name} reads another answer"
        if not theirs.reusable and (ours.reusable or cut.reusable or drops.reusable):
            return f"a connection is kept that {name} would give up"
    return None


def _against_framing(ours: AnswerReading, data: bytes) -> str | None:
    """What our own reading says against itself."""
    assert ours.answer is not None
    _, fields, body = ours.answer
    lengths = [int(value) for name, value in fields if name == "content-length"]
    if ours.framing is BodyFraming.NONE and body:
        return "a body where there is none"
    if ours.framing is BodyFraming.LENGTH and [len(body)] != lengths:
        return "a body that is not as long as its Content-Length"
    if ours.framing is BodyFraming.CLOSE and not data.endswith(b"\r\n\r\n" + body):
        return "a body that is not all that came"
    return None


def comparable(fields: Iterable[tuple[str, str]]) -> Fields:
    """Without what others do in their own way: names and `chunked` in lower case, white space at a value's end."""
    pairs = ((name.lower(), value.strip(" \t")) for name, value in fields)
    return tuple((name, value.lower() if name == "transfer-encoding" else value) for name, value in pairs)
