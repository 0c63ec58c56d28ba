"""One request and its answer, as the two sides of this room see each other. Callbacks, no task, no future.

The service gets an Exchange for each request and gives a Carrier back. The exchange is what the carrier answers with;
the carrier is told what the client does. What holds:

- `begin` chooses how the body is read, then exactly one of body_whole, body_end and body_failed is called, also for a
  request without a body, and none of them before `begin` has returned. A carrier that has finished its answer is told
  nothing more.
- An answer is `send_head`, any number of `send`, `finish`. From `send_head` on nothing else can be said: a failure
  then is `abort`, which ends the connection so that what was sent cannot be taken for the whole.
- After `finish`, `abort` or client_gone every call does nothing.
"""

from typing import Protocol

from bridged.http1.answer_framing import Coding, Framing, answer_head
from bridged.http1.chunked import ChunkedBody
from bridged.http1.framing import Request
from bridged.http_types import BodyBroken, BodyTimeout, BodyTooLarge
from bridged.model import Headers

# From here on a chunk is handed to the socket in three pieces rather than copied into one.
_LARGE_BYTES = 16 * 1024


class Carrier(Protocol):
    """What stands behind one exchange. Told in the order in which things happen; must not raise."""

    def body_part(self, data: bytes) -> None:
        """Some of the body, when it is read as a stream: without chunk framing, as it arrived."""

    def body_end(self) -> None:
        """The streamed body is complete."""

    def body_whole(self, data: bytes) -> None:
        """All of the body, when it is read as a whole."""

    def body_failed(self, error: BodyTooLarge | BodyBroken | BodyTimeout) -> None:
        """The body does not come to its end. The client can still be answered."""

    def client_gone(self) -> None:
        """The client left before the answer was finished. Nothing can be sent any more."""

    def pause(self) -> None:
        """The client reads more slowly than the answer comes: send no more until `resume`."""

    def resume(self) -> None:
        """What the client had not read is on its way."""


class Service(Protocol):
    """Answers requests."""

    def begin(self, exchange: "Exchange") -> Carrier:
        """A request's head is complete. May answer at once; then its carrier is told nothing."""

    def refuse(self, reason: str, *, detail: str, target: str, headers: Headers) -> tuple[int, Headers, bytes]:
        """Status, headers with Content-Length, and body for what is no request, or came too slowly.

        `reason` is one of errors.REFUSALS; `detail` is a sentence that quotes nothing. `target` and `headers` are what
        is known of the request: `/` and none where nothing is.
        """


class Connection(Protocol):
    """What an exchange needs of the connection that it runs on."""

    def may_stay(self) -> bool:
        """Whether another request can follow on this connection, as it stands now."""

    def read_body(self, limit_bytes: int, *, whole: bool) -> None: ...

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...

    def write(self, data: bytes) -> None: ...

    def write_pieces(self, pieces: list[bytes]) -> None: ...

    def answered(self, *, keep_alive: bool) -> None:
        """The answer is complete."""

    def break_off(self, *, reset: bool) -> None:
        """End the connection at once, with a reset where a plain end would look like the end of a body."""


class Exchange:
    """One request and the answer to it."""

    __slots__ = ("_coding", "_connection", "_keep_alive", "_left_bytes", "_unframed", "head_sent", "request")

    def __init__(self, request: Request, connection: Connection) -> None:
        self.request = request
        self.head_sent = False
        """Whether a byte of the answer may have left."""
        self._connection: Connection | None = connection
        self._coding = Coding.NOTHING
        self._keep_alive = False
        self._left_bytes = 0
        self._unframed: ChunkedBody | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or the other."""
        return self._connection is None

    def read_whole(self, limit_bytes: int) -> None:
        """Gather the body. Say so once, instead of `read_stream`; a client that waits for 100 is told to go on."""
        if self._connection is not None:
            self._connection.read_body(limit_bytes, whole=True)

    def read_stream(self, limit_bytes: int) -> None:
        """Pass the body on as it arrives. A client that waits for 100 is told to go on when the body is not paused."""
        if self._connection is not None:
            self._connection.read_body(limit_bytes, whole=False)

    def pause_body(self) -> None:
        """Read no more of the body until `resume_body`."""
        if self._connection is not None:
            self._connection.pause_body()

    def resume_body(self) -> None:
        """Go on reading the body."""
        if self._connection is not None:
            self._connection.resume_body()

    def send_head(self, status: int, headers: Headers, *, body: Framing, length_bytes: int | None = None) -> None:
        """The answer's head, see answer_framing. ValueError if it cannot be sent; then nothing was."""
        connection = self._connection
        if connection is None:
            return
        if self.head_sent:
            raise RuntimeError("an answer has one head")
        head = answer_head(
            self.request, status, headers, body, keep_alive=connection.may_stay(), length_bytes=length_bytes
        )
        self.head_sent = True
        self._coding = head.coding
        self._keep_alive = head.keep_alive
        self._left_bytes = head.length_bytes
        connection.write(head.data)

    def send(self, data: bytes) -> None:
        """Some of the body. More than Content-Length said breaks the answer off."""
        connection = self._connection
        if connection is None or not data:
            return
        coding = self._coding
        if coding is Coding.CHUNKED:
            if len(data) < _LARGE_BYTES:
                connection.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                connection.write_pieces([b"%x\r\n" % len(data), data, b"\r\n"])
        elif coding is Coding.COUNTED:
            self._left_bytes -= len(data)
            if self._left_bytes < 0:
                self.abort()
            else:
                connection.write(data)
        elif coding is Coding.UNTIL_CLOSE:
            connection.write(data)
        elif coding is not Coding.NOTHING:
            raise RuntimeError("a body that is framed already goes through send_framed")

    def send_framed(self, data: bytes) -> None:
        """Some of a body that carries chunk framing, its last chunk included."""
        connection = self._connection
        if connection is None:
            return
        if self._coding is Coding.AS_FRAMED:
            connection.write(data)
        elif self._coding is Coding.UNFRAMED_UNTIL_CLOSE:
            self._unframed = self._unframed or ChunkedBody()
            connection.write(self._unframed.feed(data)[0])
        elif self._coding is not Coding.NOTHING:
            raise RuntimeError("a body without framing goes through send")

    def finish(self) -> None:
        """The answer is complete. One that is shorter than its Content-Length is broken off instead."""
        connection = self._connection
        if connection is None:
            return
        if not self.head_sent or self._left_bytes:
            self.abort()
            return
        if self._coding is Coding.CHUNKED:
            connection.write(b"0\r\n\r\n")
        self._connection = None
        connection.answered(keep_alive=self._keep_alive)

    def abort(self) -> None:
        """Break the connection off, so that what was sent cannot be taken for a whole answer."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.break_off(reset=self._coding in (Coding.UNTIL_CLOSE, Coding.UNFRAMED_UNTIL_CLOSE))

    def detach(self) -> None:
        """For the connection: it is gone, and this exchange with it."""
        self._connection = None
