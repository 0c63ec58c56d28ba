"""One request to an upstream, start to end, without a task or a future of its own: callbacks on both sides.

An UpstreamCall is one request under way, an UpstreamConnection (upstream_connection.py) one socket with at most one
call on it. pool.py brings them together, and is the way in.

What holds here:
- The receiver hears `response_head` once, then `response_data` any number of times, then `response_end` or
  `response_failed`, once. `response_failed` may come alone. After `cancel` it hears nothing. UpstreamBroken and what
  follows a head are about the body; before a head it is UpstreamUnreachable, UpstreamTimeout or UpstreamNotAllowed.
- `response_data` brings plain body bytes, one piece at most for each read of the socket, never one after the end.
- A read is passed on only if all of it is HTTP: a wrong byte takes its whole read with it.
- After `pause` nothing is read. What had been read already, one piece at most, still comes.
- A request leaves a second time only if nothing of an answer was seen, nothing of its body is lost, the connection had
  been used before, and its end can be taken for the upstream's not having looked at the request.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from bridged.http1.request_head import OutgoingRequest
from bridged.http1.response_head import BodyFraming
from bridged.http_types import UpstreamBroken, UpstreamNotAllowed, UpstreamTimeout, UpstreamUnreachable
from bridged.model import Headers, UpstreamTimeouts

if TYPE_CHECKING:
    from bridged.http1.upstream_connection import UpstreamConnection

UpstreamError = UpstreamUnreachable | UpstreamBroken | UpstreamTimeout | UpstreamNotAllowed

# Up to here one write of head and body together is cheaper than two pieces.
_JOINED_BODY_BYTES = 64 * 1024
# Safe to send twice by their meaning (RFC 9110, 9.2.2).
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
# A request goes out again only soon after it was sent: a token that was revoked meanwhile must not be used. One that is
# not idempotent goes out again only if its connection's end was on its way already, which shows within a round trip: a
# server that took the request and fell over may have worked on it (RFC 9110, 9.2.2).
_CLOSED_BEFORE_SECONDS = 1.0
_NEVER_READ_SECONDS = 0.05


class ResponseReceiver(Protocol):
    """Whoever wants the answer: the carrier between client and upstream. Never called from within `send`, but for
    `pause_body`."""

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None:
        """The final head; interim ones (1xx) stay here. Headers as they came: order, spelling, latin-1.

        `more`, here and below: the same read brings something else, of which the receiver is told next.
        """

    def response_data(self, data: bytes, *, more: bool) -> None:
        """Bytes of the body, without the upstream's chunk framing."""

    def response_end(self) -> None:
        """The answer is complete. Trailers are dropped."""

    def response_failed(self, error: UpstreamError) -> None:
        """There will be no answer, or no rest of it."""

    def pause_body(self) -> None:
        """Send no more of the streamed body for now."""

    def resume_body(self) -> None:
        """Go on with it."""


class Origin(Protocol):
    """What calls and connections ask of the pool, for their upstream."""

    def connect(self, call: "UpstreamCall") -> asyncio.Task[None]:
        """A new connection for this call, which then `begin`s or `fail`s."""

    def keep(self, connection: "UpstreamConnection") -> bool:
        """Whether this connection is now waiting for another request; there may be enough of them."""

    def lost(self, connection: "UpstreamConnection") -> None:
        """This connection is closed."""


class _Nobody:
    """Hears what comes when a call is over: nothing. In place of the receiver, which then can be forgotten."""

    def response_head(self, status: int, headers: Headers, body: BodyFraming, *, more: bool) -> None: ...
    def response_data(self, data: bytes, *, more: bool) -> None: ...
    def response_end(self) -> None: ...
    def response_failed(self, error: UpstreamError) -> None: ...
    def pause_body(self) -> None: ...
    def resume_body(self) -> None: ...


NOBODY = _Nobody()


class UpstreamCall:
    """One request under way. For the carrier: `send_body`, `end_body`, `pause`, `resume`, `cancel`, at any time."""

    __slots__ = (
        "_began_at",
        "_body",
        "_connection",
        "_content_length",
        "_has_sent_body",
        "_head",
        "_is_streamed",
        "_method",
        "_origin",
        "_task",
        "_waiting",
        "has_head",
        "is_cut",
        "is_final",
        "is_over",
        "is_paused",
        "is_sending",
        "receiver",
        "timeouts",
    )

    def __init__(self, origin: Origin, request: OutgoingRequest, head: bytes, receiver: ResponseReceiver) -> None:
        self.receiver: ResponseReceiver = receiver
        # None: those of the pool.
        self.timeouts: UpstreamTimeouts | None = None
        self.is_over = False
        self.is_paused = False
        self.is_sending = self._is_streamed = request.streamed
        self.is_cut = False
        # Whether the request must not go out a second time.
        self.is_final = False
        self.has_head = False
        self._origin = origin
        self._method = request.method
        self._head = head
        self._body = request.body
        self._content_length = request.content_length
        self._connection: UpstreamConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[bytes] = []
        self._has_sent_body = False
        self._began_at = 0.0

    def send_body(self, data: bytes) -> None:
        """A piece of the streamed body. Dropped without a word once the upstream does not want it any more."""
        if not self.is_sending or not data:
            return
        if self._content_length is not None:
            self._content_length -= len(data)
            if self._content_length < 0:
                raise ValueError("more of a body than its Content-Length")
        self._write(data)

    def end_body(self) -> None:
        """All of the streamed body was sent."""
        if not self.is_sending:
            return
        if self._content_length:
            raise ValueError("less of a body than its Content-Length")
        self.is_sending = False
        if self._connection is not None:
            self._end_stream(self._connection)
            self._connection.quiet_since = 0.0

    def pause(self) -> None:
        """The client reads slowly: read no more of the answer."""
        if not self.is_paused and not self.is_over:
            self.is_paused = True
            if self._connection is not None:
                self._connection.transport.pause_reading()

    def resume(self) -> None:
        """The client reads again."""
        if self.is_paused and not self.is_over:
            self.is_paused = False
            if self._connection is not None:
                self._connection.quiet_since = 0.0
                self._connection.transport.resume_reading()

    def cancel(self) -> None:
        """The client is gone: close the connection and say nothing more."""
        if self.is_over:
            return
        connection, task = self._connection, self._task
        self.finish()
        if task is not None:
            task.cancel()
        if connection is not None:
            connection.drop()

    @property
    def is_waiting(self) -> bool:
        """Whether nothing of it was sent, or nothing that counts, because it waits for a connection."""
        return self._connection is None and not self.is_over

    def take_back(self) -> list[bytes]:
        """Cancel it while it waits; the pieces of a streamed body that it was given."""
        waiting, self._waiting = self._waiting, []
        self.cancel()
        return waiting

    # From here on: for the pool and the connection.

    def start(self) -> None:
        """Make a new connection, and let a streamed body wait for it."""
        if self.is_sending:
            self.receiver.pause_body()
        self._task = self._origin.connect(self)

    def begin(self, connection: "UpstreamConnection") -> None:
        """Send the request on this connection."""
        self._task = None
        self._connection = connection
        connection.take(self, is_head_request=self._method == "HEAD")
        transport, body = connection.transport, self._body
        if self.is_paused:
            transport.pause_reading()
        if connection.is_used:
            self._began_at = time.monotonic()
        if not body:
            transport.write(self._head)
        elif len(body) <= _JOINED_BODY_BYTES:
            transport.write(self._head + body)
        else:
            transport.writelines((self._head, body))
        if self._is_streamed:
            self._begin_stream(connection)

    def _begin_stream(self, connection: "UpstreamConnection") -> None:
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._write(data)
        if not self.is_sending:
            self._end_stream(connection)
        elif not connection.is_write_paused:
            self.receiver.resume_body()

    def _end_stream(self, connection: "UpstreamConnection") -> None:
        if self._content_length is None:
            self._has_sent_body = True
            connection.transport.write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._connection is None:
            # As it came, so that it can be taken back.
            self._waiting.append(data)
        else:
            self._has_sent_body = True
            framed = b"%x\r\n%b\r\n" % (len(data), data) if self._content_length is None else data
            self._connection.transport.write(framed)

    def answered(self, status: int) -> None:
        """An answer has begun: the request is not needed any more, and an error ends the sending of its body.

        An upstream may well answer 2xx while it reads, so there the body goes on until the answer is complete.
        """
        self.has_head = True
        self._head, self._body = b"", None
        if self.is_sending and status >= 300:
            self.is_sending, self.is_cut = False, True
            # What the client still sends must not be held back by a connection that nobody writes to.
            self.receiver.resume_body()

    def may_repeat(self) -> bool:
        """Whether the request may go out again after a used connection ended without a byte of an answer."""
        if self._has_sent_body or self.is_final:
            return False
        since_seconds = time.monotonic() - self._began_at
        return since_seconds < (_CLOSED_BEFORE_SECONDS if self._method in _IDEMPOTENT else _NEVER_READ_SECONDS)

    def repeat(self) -> None:
        """Send it again, on a new connection: others that wait may be as dead, and from a new one there is no again."""
        self._connection = None
        self.start()

    def fail(self, error: UpstreamError) -> None:
        """Say so, once."""
        if not self.is_over:
            receiver = self.receiver
            self.finish()
            receiver.response_failed(error)

    def finish(self) -> None:
        """Let go of everything."""
        self.is_over = True
        self.is_cut = self.is_cut or self.is_sending
        self.is_sending = False
        # The receiver holds this call: together they would be a circle that only the collector could break.
        self.receiver = NOBODY
        self._connection = self._task = None
        self._head, self._body = b"", None
        self._waiting.clear()
