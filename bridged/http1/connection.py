"""One connection of a client as HTTP: requests in their order, one at a time, each with its exchange.

Nothing is parsed that cannot be answered yet: while an exchange runs, what comes after its request waits, first here
and then, over a bound, in the kernel. A request's body is read only once the carrier has said how.

When a client ends its side of the connection:
- before any byte of an answer, it gets its answer. Whether it only ended its side or left altogether looks the same
  until something is sent, so an interim 100 is: a client skips it (RFC 9110, 15.2), and a machine whose socket is
  gone answers with a reset, which ends the exchange;
- in the middle of an answer, it left. Over TLS there is no such thing as one side, and it left, too.
"""

import asyncio
import logging
from enum import Enum
from typing import Protocol

from bridged.http1.answer_framing import Framing, answer_head
from bridged.http1.body import IncomingBody
from bridged.http1.exchange import Carrier, Exchange, Service
from bridged.http1.framing import (
    END_OF_HEAD,
    Malformed,
    Request,
    SecondReading,
    check_beginning,
    empty_lines,
    read_head,
)
from bridged.http1.line import NEVER, Line, Registry
from bridged.http_types import BodyBroken, BodyTimeout, BodyTooLarge

log = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# A reset comes back within a round trip; later the sweep looks again and again.
_FIRST_LOOK_SECONDS = 0.05


class State(Enum):
    """Where a connection stands. Enum members are compared by identity: this is on the path of every read."""

    HEAD = "waiting for a head, or for the rest of one"
    BODY = "the exchange's body is not complete"
    ANSWER = "the body is complete, the answer is not"
    SPOILT = "the body failed: what comes is dropped until the answer is complete"
    FAREWELL = "the last answer is out: what comes is dropped"
    CLOSED = "nothing more"


_HEAD, _BODY, _ANSWER, _SPOILT, _FAREWELL, _CLOSED = State


class Server(Registry, Protocol):
    """What a connection knows of its server."""

    @property
    def service(self) -> Service: ...

    @property
    def draining(self) -> bool:
        """Whether each connection is to end with its next answer."""


class ClientConnection(Line):
    """See the module; `exchange.Connection` is the side that exchanges see."""

    __slots__ = (
        "_advancing",
        "_body",
        "_body_paused",
        "_buffer",
        "_carrier",
        "_continue_owed",
        "_exchange",
        "_incoming",
        "_limit_bytes",
        "_scanned",
        "_second",
        "_server",
        "_state",
        "_used",
        "_whole",
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._server = server
        self._state = _HEAD
        self._used = False
        self._exchange: Exchange | None = None
        self._carrier: Carrier | None = None
        self._second: SecondReading | None = None
        # Bytes that came and are not used up. In HEAD they are the beginning of a head, `_scanned` of them judged.
        self._buffer: bytearray | None = None
        self._scanned = 0
        # The exchange's body, if it was all there with its head, else what is to come of it; and how it is wanted.
        self._body: bytes | None = None
        self._incoming: IncomingBody | None = None
        self._whole: bool | None = None
        self._limit_bytes = 0
        self._body_paused = False
        self._continue_owed = False
        self._advancing = False

    # What the loop calls

    def data_received(self, data: bytes) -> None:
        try:
            self._receive(data)
        except Exception:
            log.exception("unhandled error on a client's connection")
            self.abort()

    def eof_received(self) -> bool:
        try:
            return self._receive_eof()
        except Exception:
            log.exception("unhandled error on a client's connection")
            self.abort()
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        carrier = self._carrier
        if self._exchange is not None:
            self._exchange.detach()
        self._end(_CLOSED)
        if carrier is not None:
            try:
                carrier.client_gone()
            except Exception:
                log.exception("unhandled error on a client's connection")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._carrier is not None:
            self._carrier.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._carrier is not None:
            self._carrier.resume()
        elif self._state is _HEAD:
            self._go_on()

    # What the server calls

    def overdue(self) -> None:
        """The client has had time to send what is waited for."""
        self.deadline = NEVER
        if self._state is _FAREWELL:
            self._linger_overdue()
        elif self._state is _BODY:
            self._spoil(BodyTimeout())
        elif self._buffer is None:
            self.close()
        else:
            self._refuse(Malformed("the head of the request stopped arriving", reason="REQUEST_TIMEOUT"))

    def close_if_idle(self) -> None:
        """Close a connection that waits for another request. One that has not had its first is let have it."""
        if self._state is _HEAD and self._buffer is None and self._used:
            self.close()

    # Bytes in

    def _receive(self, data: bytes) -> None:
        state = self._state
        if state is _HEAD:
            if not self._write_paused:
                self._advance(data)
                return
        elif state is _BODY:
            if self._buffer is None and self._whole is not None and not self._body_paused:
                self._advance(data)
                return
        elif state is not _ANSWER:
            self._discard(data)
            return
        self._hold(data)

    def _hold(self, data: bytes) -> None:
        if self._buffer is None:
            self._buffer = bytearray(data)
        else:
            self._buffer += data
        if len(self._buffer) >= self._server.limits.held_bytes:
            self._pause_reading()

    def _discard(self, data: bytes) -> None:
        if not self._drop(len(data)):
            if self._state is _SPOILT:
                self._pause_reading()
            else:
                self.abort()

    def _advance(self, data: bytes) -> None:
        """Use up `data` as far as the state allows, and hold the rest."""
        self._advancing = True
        try:
            while data:
                state = self._state
                if state is _HEAD and not self._write_paused:
                    data = self._take_head(data)
                elif state is _BODY and self._whole is not None and not self._body_paused:
                    data = self._take_body(data)
                elif state is _HEAD or state is _BODY or state is _ANSWER:
                    self._hold(data)
                    break
                else:
                    self._discard(data)
                    break
        finally:
            self._advancing = False

    def _go_on(self) -> None:
        """Something that held reading up is over: use what was held, then read on."""
        if self._advancing:
            return
        if held := self._unheld():
            self._advance(held)
        if self._eof:
            self._after_eof()
        if len(self._buffer or b"") < self._server.limits.held_bytes:
            self._resume_reading()

    def _unheld(self) -> bytes:
        held, self._buffer = self._buffer, None
        return bytes(held or b"")

    # Heads

    def _take_head(self, data: bytes) -> bytes:
        """Begin the exchange whose head `data` completes; what it leaves: what follows the head, or a whole body."""
        if self._buffer is not None:
            self._buffer += data
            if self._buffer.startswith(b"\r\n"):  # cut in the middle, or it would have been left out
                return self._unheld()
            if self._buffer.find(END_OF_HEAD, max(self._scanned - 3, 0)) < 0:
                self._keep_beginning(self._buffer)
                return b""
            data, self._buffer = bytes(self._buffer), None
        if data.startswith(b"\r\n"):
            data = data[empty_lines(data) :]
        end = data.find(END_OF_HEAD)
        try:
            if end >= 0:
                return self._take_request(data, end + len(END_OF_HEAD))
        except Malformed as malformed:
            self._refuse(malformed)
            return b""
        if data:
            self._scanned = 0
            self.deadline = self._server.now + self._server.limits.head_seconds
            self._keep_beginning(bytearray(data))
        return b""

    def _keep_beginning(self, beginning: bytearray) -> None:
        self._buffer = beginning
        try:
            check_beginning(beginning, self._scanned, self._server.limits.head)
        except Malformed as malformed:
            self._refuse(malformed)
        self._scanned = len(beginning)

    def _take_request(self, data: bytes, head_bytes: int) -> bytes:
        raw = data if head_bytes == len(data) else data[:head_bytes]
        request = read_head(raw, self._server.limits.head)
        end = head_bytes + (request.content_length or 0)
        complete = not request.chunked and end <= len(data)
        second = self._second or SecondReading()
        # A counted body that is not all there goes past llhttp; one made anew then reads the next request.
        self._second = second if complete and request.keep_alive else None
        if not second.confirms(raw if not complete else data if end == len(data) else data[:end], ends=complete):
            raise Malformed("the head is not well-formed HTTP", method=request.method)
        if complete:
            self._body, self._incoming = data[head_bytes:end], None
        else:
            self._body, self._incoming = None, IncomingBody(request.content_length, second)
        self._continue_owed = request.expects_continue and head_bytes == len(data) and not complete
        self._whole = None
        self._body_paused = False
        self._begin(request, _ANSWER if complete else _BODY)
        return data[end if complete else head_bytes :]

    def _begin(self, request: Request, state: State) -> None:
        self._state = state
        self._used = True
        self.deadline = NEVER
        exchange = self._exchange = Exchange(request, self)
        carrier = self._server.service.begin(exchange)
        if exchange.over:
            return
        self._carrier = carrier
        if self._write_paused:
            carrier.pause()
        if self._whole is not None:
            self._want_body(self._whole)

    def _refuse(self, malformed: Malformed) -> None:
        """Answer what is no request, or none in time, and end the connection: where the next one begins is unknown."""
        status, headers, body = self._server.service.refuse(
            malformed.reason, detail=malformed.detail, target=malformed.target, headers=malformed.headers
        )
        request = Request(malformed.method, "/", (), None, False, False, False, False, False, False)
        head = answer_head(request, status, headers, Framing.LENGTH, keep_alive=False, length_bytes=len(body))
        self.write(head.data if malformed.method == "HEAD" else head.data + body)
        self._say_farewell()

    # Bodies

    def read_body(self, limit_bytes: int, *, whole: bool) -> None:
        if self._whole is not None:
            raise RuntimeError("how a body is read is said once")
        self._whole = whole
        self._limit_bytes = limit_bytes
        if self._carrier is not None:
            self._want_body(whole)
            self._go_on()

    def pause_body(self) -> None:
        self._body_paused = True
        if self._state is _BODY:
            self.deadline = NEVER

    def resume_body(self) -> None:
        self._body_paused = False
        if self._carrier is not None and self._whole is not None:
            self._read_on()
            self._go_on()

    def _want_body(self, whole: bool) -> None:
        if self._incoming is not None:
            try:
                self._incoming.want(self._limit_bytes, whole=whole)
            except BodyTooLarge as error:
                self._spoil(error)
        self._read_on()

    def _read_on(self) -> None:
        """Deliver a body that is there; otherwise see to it that it comes."""
        if self._body_paused:
            return
        if self._body is not None:
            body, self._body = self._body, None
            self._deliver(body)
        elif self._state is _BODY:
            if self._continue_owed and self._exchange is not None and not self._exchange.head_sent:
                self.write(_CONTINUE)
            self._continue_owed = False
            self.deadline = self._server.now + self._server.limits.body_seconds

    def _deliver(self, body: bytes) -> None:
        carrier = self._carrier
        if carrier is None:
            return
        if len(body) > self._limit_bytes:
            carrier.body_failed(BodyTooLarge())
        elif self._whole:
            carrier.body_whole(body)
        else:
            if body:
                carrier.body_part(body)
            if self._carrier is carrier:
                carrier.body_end()

    def _take_body(self, data: bytes) -> bytes:
        """Give the carrier what belongs to the body; what comes after it is returned."""
        incoming, carrier = self._incoming, self._carrier
        if incoming is None or carrier is None:
            raise RuntimeError("there is no body to be read")
        self.deadline = self._server.now + self._server.limits.body_seconds
        try:
            piece, used = incoming.take(data)
        except (BodyBroken, BodyTooLarge) as error:
            self._spoil(error)
            return b""
        if piece:
            carrier.body_part(piece)
        # The carrier may have ended the exchange; then nobody wants the rest.
        if incoming.ended and self._carrier is carrier:
            self._state = _ANSWER
            self.deadline = NEVER
            self._incoming = None
            whole = incoming.gathered()
            if whole is None:
                carrier.body_end()
            else:
                carrier.body_whole(whole)
        return data[used:] if used < len(data) else b""

    def _spoil(self, error: BodyTooLarge | BodyBroken | BodyTimeout) -> None:
        self._state = _SPOILT
        self.deadline = NEVER
        self._incoming = self._buffer = None
        self._resume_reading()
        if self._carrier is not None:
            self._carrier.body_failed(error)

    # Answers

    def may_stay(self) -> bool:
        if self._exchange is None or self._state is not _ANSWER or self._server.draining:
            return False
        ended = self._eof and self._buffer is None and not self._advancing
        return self._exchange.request.keep_alive and not ended

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def write_pieces(self, pieces: list[bytes]) -> None:
        self._transport.writelines(pieces)

    def answered(self, *, keep_alive: bool) -> None:
        complete = self._state is _ANSWER
        self._exchange = self._carrier = self._body = None
        if complete and keep_alive and not self._server.draining:
            self._state = _HEAD
            self._scanned = 0
            self.deadline = self._server.now + self._server.limits.idle_seconds
            if self._buffer is not None or self._eof:
                self._go_on()
        elif complete and self._buffer is None and self._reading and not self._advancing:
            self._end(_FAREWELL)
            self.close()
        else:
            self._say_farewell()

    def break_off(self, *, reset: bool) -> None:
        self._end(_CLOSED)
        if reset:
            self._abort_with_reset()
        else:
            self.abort()

    # The end

    def _receive_eof(self) -> bool:
        """Whether the connection stays open for what is still to be sent."""
        self._eof = True
        if self._is_tls:
            return False
        exchange, state = self._exchange, self._state
        if state is _ANSWER and exchange is not None:
            if exchange.head_sent:
                self.abort()
            else:
                self._doubt(exchange.request)
            return True
        if state is _FAREWELL or (state is _HEAD and self._buffer is None):
            return False
        if state is not _BODY or self._buffer is None:
            self._after_eof()
        return True

    def _after_eof(self) -> None:
        """The client ended its side, and what had come before that is used up as far as it can be for now."""
        if self._state is _HEAD and not self._write_paused:
            if self._buffer is None:
                self.close()
            else:
                self._refuse(Malformed("the head of the request is not complete"))
        elif self._state is _BODY and self._whole is not None and not self._body_paused:
            self._spoil(BodyBroken())

    def _doubt(self, request: Request) -> None:
        """Find out whether the client only ended its side."""
        self._server.half_closed(self)
        if not request.http_10 and not self._is_unix:
            self.write(_CONTINUE)
        asyncio.get_running_loop().call_later(_FIRST_LOOK_SECONDS, self.look_after)

    def _say_farewell(self) -> None:
        self._end(_FAREWELL)
        self._linger()

    def _end(self, state: State) -> None:
        self._state = state
        self._exchange = self._carrier = self._body = self._incoming = self._buffer = None
        # llhttp's parser holds what it reports to.
        self._second = None
