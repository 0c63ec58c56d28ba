"""One connection of a client as HTTP: requests in their order, one at a time, each with its exchange.

Nothing is parsed that cannot be answered yet: while an exchange runs, what comes after its request waits, first here
and then, over a bound, in the kernel. A request's body is read only once the carrier has said how.

When a client ends its side of the connection, it gets its answer, if its request can be complete with what it has sent.
Whether it only ended its side or left altogether looks the same until something is sent: a machine whose socket is
gone answers that with a reset, which ends the exchange, one that is there with an acknowledgement. So
- before any byte of an answer an interim 100 is sent, which a client skips (RFC 9110, 15.2);
- in the middle of an answer nothing can be put in. What the answer itself brings is the question, and if nothing was
  acknowledged within `sign_seconds` the client is taken to have left: nearly all who end their side there have;
- one that has shown that it is there may leave later: the next bytes will tell, and if there are none, TCP's own
  question after `keepalive_seconds` and the time for which the client's machine remembers the connection (60 s).
Over TLS there is no such thing as one side, and it left. All of this holds as well where we do not read because the
body, or what follows it, has to wait: then the sweep asks the kernel.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from bridged.http1.answer_framing import Framing, answer_head
from bridged.http1.body_pace import BodyPace
from bridged.http1.exchange import CONTINUE, Exchange, Service
from bridged.http1.framing import Malformed, Request
from bridged.http1.head_reader import HeadReader
from bridged.http1.line import NEVER, Line, Roster
from bridged.http1.peer import Peer, peer_of, unread_bytes
from bridged.http_types import BodyBroken, BodyTimeout

log = logging.getLogger(__name__)

# A reset comes back within a round trip; later the sweep looks again and again.
_FIRST_LOOK_SECONDS = 0.05
_FAILED = "unhandled error on a client's connection"


class State(Enum):
    """Where a connection stands."""

    HEAD = "waiting for a head, or for the rest of one"
    BODY = "the exchange's body is not complete"
    ANSWER = "the body is complete, the answer is not"
    SPOILT = "the body failed: what comes is dropped until the answer is complete"
    FAREWELL = "the last answer is out: what comes is dropped"
    CLOSED = "nothing more"


# Looking a member up costs as much as a call, and this is on the path of every read.
_HEAD, _BODY, _ANSWER, _SPOILT, _FAREWELL, _CLOSED = State


class Server(Roster, Protocol):
    """What a connection knows of its server."""

    @property
    def service(self) -> Service: ...

    @property
    def draining(self) -> bool:
        """Whether each connection is to end with its next answer."""

    @property
    def is_over_full(self) -> bool:
        """Whether there are more connections than there may be."""

    @property
    def is_beyond_telling(self) -> bool:
        """Whether there are even too many to tell each that there are too many."""


class ClientConnection(Line):
    """See the module; `exchange.Connection` is the side that exchanges see."""

    __slots__ = (
        "_advancing",
        "_exchange",
        "_head_deadline",
        "_heads",
        "_held",
        "_is_doubted",
        "_pace",
        "_server",
        "_state",
        "_used",
        "write",
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.write: Callable[[bytes], None]
        self._server = server
        self._state = _HEAD
        self._used = False
        self._heads = HeadReader(server.limits.head)
        self._exchange: Exchange | None = None
        # Bytes that came and cannot be used yet.
        self._held: bytearray | None = None
        self._advancing = False
        # Whether the client has ended its side and was asked if it is there.
        self._is_doubted = False
        # The latest deadline of a head.
        self._head_deadline = NEVER
        self._pace = BodyPace(server.limits)

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write = self._transport.write
        if self._server.is_over_full:
            # Said while there are descriptors to say it with: without, the loop closes new connections unanswered.
            if self._server.is_beyond_telling:
                self._end(_CLOSED)
                self.abort()
                return
            self._refuse(Malformed("the bridge has as many clients as it can have: try again", reason="CAPACITY"))

    def data_received(self, data: bytes) -> None:
        try:
            if self._held is None:
                self._advance(data)
            elif self._state is _SPOILT or self._state is _FAREWELL:
                self._discard(data)
            else:
                self._hold(data)
        except Exception:
            log.exception(_FAILED)
            self.abort()

    def eof_received(self) -> bool:
        try:
            return self._receive_eof()
        except Exception:
            log.exception(_FAILED)
            self.abort()
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        carrier = self._exchange.detach() if self._exchange is not None else None
        self._end(_CLOSED)
        if carrier is not None:
            try:
                carrier.client_gone()
            except Exception:
                log.exception(_FAILED)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._exchange is not None and self._exchange.carrier is not None:
            self._exchange.carrier.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._exchange is not None:
            if self._exchange.carrier is not None:
                self._exchange.carrier.resume()
        elif self._state is _HEAD:
            self.go_on()

    # What the server calls

    def overdue(self) -> None:
        """The client has had time to send what is waited for."""
        self.deadline = NEVER
        if self._state is _FAREWELL:
            self._linger_overdue()
        elif self._exchange is not None:
            self._exchange.spoil(BodyTimeout())
        elif self._heads.has_begun:
            self._refuse(Malformed("the head of the request stopped arriving", reason="REQUEST_TIMEOUT"))
        else:
            self.close()

    def judge_rate(self) -> None:
        """Whether the body comes fast enough."""
        self.rate_deadline = NEVER
        if self._exchange is not None and self._state is _BODY:
            enough_until = self._pace.enough_until(self._server.now, self._exchange.arrived_bytes)
            if enough_until < self._server.now:
                self._exchange.spoil(BodyTimeout())
            else:
                self.rate_deadline = enough_until

    def look_after(self) -> None:
        """Find out about a client that ended its side, or that is not being read and may have."""
        sock = self._transport.get_extra_info("socket")
        if self._transport.is_closing() or sock is None or self._state is _FAREWELL:
            return
        peer = peer_of(sock)
        if peer is Peer.GONE:
            self.abort()
        elif peer is Peer.ENDED and not self._reading and not self._eof:
            if self._is_tls:
                self.abort()
            else:
                self._ended(unread=unread_bytes(sock))
        self._judge_silence(sock)

    # Bytes in

    def _advance(self, data: bytes) -> None:
        """Use up `data` as far as the state allows, and hold the rest."""
        self._advancing = True
        try:
            while data:
                state, exchange = self._state, self._exchange
                if state is _HEAD and not self._write_paused:
                    data = self._take_head(data)
                elif state is _BODY and exchange is not None and exchange.is_reading:
                    self.deadline = self._server.now + self._limits.body_seconds
                    data = exchange.take(data)
                elif state is _SPOILT or state is _FAREWELL or state is _CLOSED:
                    self._discard(data)
                    break
                else:
                    self._hold(data)
                    break
        finally:
            self._advancing = False

    def _hold(self, data: bytes) -> None:
        if self._held is None:
            self._held = bytearray(data)
        else:
            self._held += data
        if len(self._held) >= self._limits.held_bytes:
            self._pause_reading()

    def _discard(self, data: bytes) -> None:
        if not self._drop(len(data)):
            if self._state is _SPOILT:
                self._pause_reading()
            else:
                self.abort()

    def go_on(self) -> None:
        """Something that held reading up is over: use what was held, then read on."""
        if self._advancing:
            return
        held, self._held = self._held, None
        if held is not None:
            self._advance(bytes(held))
        if self._eof:
            self._after_eof()
        if not self._holds_much():
            self._resume_reading()

    def _holds_much(self) -> bool:
        return self._held is not None and len(self._held) >= self._limits.held_bytes

    def _take_head(self, data: bytes) -> bytes:
        """Begin the exchange whose head `data` completes; what was not used."""
        begun = self._heads.has_begun
        try:
            arrival = self._heads.feed(data)
        except Malformed as malformed:
            self._refuse(malformed)
            return b""
        if arrival is None:
            # Empty lines before a head may make it begin again and again, which does not put its deadline off.
            if not begun and self._heads.has_begun and self.deadline != self._head_deadline:
                self.deadline = self._head_deadline = self._server.now + self._limits.head_seconds
            return b""
        request, body, incoming, rest = arrival
        self._state = _ANSWER if incoming is None else _BODY
        self._used = True
        self.deadline = NEVER
        owed = incoming is not None and request.expects_continue and not rest
        exchange = self._exchange = Exchange(request, self, body, incoming, owed)
        carrier = self._server.service.begin(exchange)
        if not exchange.over:
            if self._write_paused:
                carrier.pause()
            exchange.begun(carrier)
        return rest

    def _refuse(self, malformed: Malformed) -> None:
        """Answer what is no request, or none in time, and end the connection: where the next one begins is unknown."""
        status, headers, body = self._server.service.refuse(
            malformed.reason, detail=malformed.detail, target=malformed.target, headers=malformed.headers
        )
        request = Request(malformed.method, "/", (), None, False, False, False, False, False, False)
        head, *_ = answer_head(request, status, headers, Framing.LENGTH, keep_alive=False, length_bytes=len(body))
        self.write(head if malformed.method == "HEAD" else head + body)
        self._say_farewell()

    # What the exchange calls

    def body_wanted(self, wanted: bool) -> None:
        now = self._server.now
        if wanted:
            self.deadline = now + self._limits.body_seconds
            self.rate_deadline = self._pace.wait(now)
        else:
            self.deadline = self.rate_deadline = NEVER
            self._pace.rest(now)

    def body_over(self, *, spoilt: bool) -> None:
        self.deadline = self.rate_deadline = NEVER
        self._pace.end()
        self._state = _SPOILT if spoilt else _ANSWER
        if spoilt:
            self._held = None
            self._resume_reading()

    def may_stay(self) -> bool:
        if self._exchange is None or self._state is not _ANSWER or self._server.draining:
            return False
        return self._exchange.request.keep_alive and not (self._eof and self._held is None and not self._advancing)

    def write_pieces(self, pieces: list[bytes]) -> None:
        self._transport.writelines(pieces)

    def answered(self, *, keep_alive: bool) -> None:
        self._exchange = None
        if self._state is not _ANSWER:
            self._say_farewell()
        elif keep_alive and not self._server.draining:
            self._state = _HEAD
            self.deadline = self._server.now + self._limits.idle_seconds
            if self._held is not None or self._eof:
                self.go_on()
        elif self._held is None and self._reading and not self._advancing:
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
        if self._is_tls or self._state is _FAREWELL:
            return False
        if self._held is None:
            self._after_eof()
        self._ended(unread=0)
        return True

    def _after_eof(self) -> None:
        """The client ended its side, and what had come before that is used up as far as it can be for now."""
        if self._exchange is not None:
            if self._exchange.is_reading:
                self._exchange.spoil(BodyBroken())
        elif self._state is _HEAD and not self._write_paused:
            if self._heads.has_begun:
                self._refuse(Malformed("the head of the request is not complete"))
            else:
                self.close()

    def _ended(self, *, unread: int) -> None:
        """The client has ended its side. Of what it sent, we hold a part and the kernel `unread` bytes."""
        exchange = self._exchange
        if exchange is None:
            return
        held = len(self._held) if self._held is not None else 0
        if not exchange.can_be_whole_with(held + unread):
            exchange.spoil(BodyBroken())
        elif not self._is_doubted:
            self._is_doubted = True
            self._doubt(exchange)

    def _doubt(self, exchange: Exchange) -> None:
        """Find out whether the client only ended its side."""
        self._server.half_closed(self)
        # The other end of a unix socket is seen to be closed without asking.
        if not self._is_unix:
            if exchange.head_sent:
                self._await_sign()
            elif not exchange.request.http_10:
                self.write(CONTINUE)
        asyncio.get_running_loop().call_later(_FIRST_LOOK_SECONDS, self.look_after)

    def _say_farewell(self) -> None:
        self._end(_FAREWELL)
        self._linger()

    def _end(self, state: State) -> None:
        self._state = state
        self._exchange = self._held = None
        self._heads.let_go()
